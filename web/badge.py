"""What other pages and tools show of a repo: its badge (SVG) and `cc.xml`, the feed of cctray.

No third party is asked for either: a badge is drawn here. Both carry an ETag.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from xml.etree import ElementTree

from starlette.responses import Response

from ci.server.models import Build
from ci.server.store import views
from ci.server.store.views import RepoRow
from ci.status import Status
from web.guard import Call

#: Ours, as the pages have them in light colours; white text on each has a contrast of 4.5 or more.
_COLOURS = {
    Status.SUCCESS: "#1a7f4b",
    Status.FAILURE: "#c0352b",
    Status.ERROR: "#8f2a6b",
    Status.RUNNING: "#1f62b8",
    Status.PENDING: "#75621a",
    Status.WAITING: "#75621a",
    Status.BLOCKED: "#75621a",
    Status.UNKNOWN: "#75621a",
}
_GREY = "#5b6470"
_CHARACTER = 6.6  #: mean width in 11 px Verdana, wide enough for every word of ours
_PADDING = 12
_ACTIVITY = {Status.RUNNING: "Building", Status.PENDING: "Building", Status.WAITING: "Building"}
_CCTRAY = {Status.SUCCESS: "Success", Status.FAILURE: "Failure", Status.ERROR: "Exception"}


async def badge(call: Call) -> Response:
    """`?branch=` names one (else the default branch, else the newest build), `?label=` the left half."""
    branch = call.request.query_params.get("branch", "")[:200] or call.repo.default_branch
    label = call.request.query_params.get("label", "")[:60] or "build"
    newest = await call.parts.store.read(lambda c: views.newest_build(c, call.repo.id or 0, branch))
    status = Status(newest.status) if newest is not None else None
    word = status.word if status is not None else "no build"
    text = svg(label, word, _COLOURS.get(status, _GREY) if status is not None else _GREY)
    return _answer(call, text.encode(), "image/svg+xml")


def svg(label: str, word: str, colour: str) -> str:
    """Two boxes with a text each. The texts may be anybody's."""
    left, right = (round(len(text) * _CHARACTER) + _PADDING for text in (label, word))
    root = ElementTree.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "width": str(left + right),
            "height": "20",
            "role": "img",
            "aria-label": _printable(f"{label}: {word}"),
        },
    )
    ElementTree.SubElement(root, "title").text = _printable(f"{label}: {word}")
    box = {"height": "20", "fill": "#3a424d", "rx": "3"}
    ElementTree.SubElement(root, "rect", {**box, "width": str(left + right)})
    ElementTree.SubElement(root, "rect", {**box, "x": str(left), "width": str(right), "fill": colour})
    font = {"fill": "#fff", "font-family": "Verdana,DejaVu Sans,sans-serif", "font-size": "11", "y": "14"}
    for text, begin, width in ((label, 0, left), (word, left, right)):
        place = {"x": f"{begin + width / 2:g}", "text-anchor": "middle", "textLength": str(width - _PADDING)}
        ElementTree.SubElement(root, "text", {**font, **place}).text = _printable(text)
    return ElementTree.tostring(root, encoding="unicode")


async def cctray(call: Call) -> Response:
    """Every repo that whoever asks may read, by the branch that is its default."""
    rows = await call.parts.store.read(lambda c: views.repos(c, call.actor, limit=500))
    root = ElementTree.Element("Projects")
    for row in rows:
        _project(root, call, row)
    return _answer(call, ElementTree.tostring(root, encoding="utf-8", xml_declaration=True), "text/xml")


def _project(root: ElementTree.Element, call: Call, row: RepoRow) -> None:
    builds = [build for build in row.recent if _is_on(build, row.repo.default_branch)]
    ended = [build for build in builds if Status(build.status).is_terminal]
    if not builds:
        return
    newest, last = builds[-1], ended[-1] if ended else None
    facts = {
        "name": _printable(f"{row.repo.owner}/{row.repo.name}"),
        "activity": _ACTIVITY.get(Status(newest.status), "Sleeping"),
        "lastBuildStatus": _CCTRAY.get(Status(last.status), "Unknown") if last else "Unknown",
        "lastBuildLabel": str(last.number) if last else "",
        "lastBuildTime": _stamp(last.finished_at) if last and last.finished_at else "",
        "webUrl": f"{call.parts.url}{row.path}",
    }
    ElementTree.SubElement(root, "Project", facts)


def _is_on(build: Build, branch: str) -> bool:
    return not branch or build.event.get("branch") == branch


def _stamp(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def _printable(text: str) -> str:
    """XML has no word for control characters."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def _answer(call: Call, data: bytes, kind: str) -> Response:
    """With an ETag; 304 for one who has it. Never kept by anybody without asking again."""
    tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    headers = {"etag": tag, "cache-control": "no-cache", "vary": "Authorization, Cookie"}
    known: Sequence[str] = call.request.headers.get("if-none-match", "").replace("W/", "").split(",")
    if tag in (each.strip() for each in known):
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=kind, headers=headers)
