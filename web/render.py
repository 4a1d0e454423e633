"""Templates, and the words and numbers in them."""

from __future__ import annotations

import gzip
import re
import time
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from ci.server.store import views
from ci.status import Status
from web import ansi
from web.assets import Assets
from web.guard import FORM_COOKIE, THEME_COOKIE, Call
from web.parts import Parts

THEMES = ("auto", "light", "dark")
#: Asked for by the script that looks again: what it will not use is left out.
LIVE_HEADER = "x-shipway-live"
#: Set by scripts once they run: then a page needs no log lines of its own.
SCRIPTS_COOKIE = "shipway_scripts"
_GZIP_FROM_BYTES = 4096

#: The symbol of icons.svg that draws a status.
ICONS = {
    Status.SUCCESS: "passed",
    Status.FAILURE: "failed",
    Status.RUNNING: "running",
    Status.PENDING: "pending",
    Status.WAITING: "waiting",
    Status.SKIPPED: "skipped",
    Status.CANCELLED: "cancelled",
    Status.BLOCKED: "blocked",
    Status.ERROR: "error",
    Status.UNKNOWN: "unknown",
}
#: What stands before a page's title, for those who look at tabs.
_MARKS = {
    Status.SUCCESS: "✓",
    Status.FAILURE: "✕",
    Status.ERROR: "⚠",
    Status.RUNNING: "●",
    Status.PENDING: "◔",
    Status.WAITING: "◔",
    Status.BLOCKED: "◆",
    Status.UNKNOWN: "?",
    Status.CANCELLED: "⊘",
    Status.SKIPPED: "↷",
}


def duration(seconds: float | None) -> str:
    """0.3s, 18.4s, 1m 51s, 1h 02m. static/time.js says the same."""
    if seconds is None or seconds < 0:
        return "–"
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def ago(seconds: float) -> str:
    """How long ago, in one unit."""
    for limit, size, unit in ((90, 1, "s"), (5400, 60, "min"), (129600, 3600, "h")):
        if seconds < limit:
            return "now" if seconds < 5 else f"{int(seconds // size)} {unit} ago"
    return f"{int(seconds // 86400)} d ago"


def until(seconds: float) -> str:
    """In how long, in one unit."""
    for limit, size, unit in ((90, 1, "s"), (5400, 60, "min"), (129600, 3600, "h")):
        if seconds < limit:
            return "now" if seconds < 5 else f"in {int(seconds // size)} {unit}"
    return f"in {int(seconds // 86400)} d"


def built(text: str) -> list[tuple[str, int | None]]:
    """A verdict in parts: each `built #12` with its number, what stands between without."""
    parts = re.split(r"(built #[0-9]{1,18})", text)
    return [(part, int(part[7:]) if at % 2 else None) for at, part in enumerate(parts) if part]


def stamp(at: float) -> str:
    """For `<time datetime>`: UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def size(count: int) -> str:
    """12 B, 61 KB, 1.2 MB; powers of 1000."""
    value = float(count)
    for unit in ("B", "KB", "MB"):
        if value < 1000:
            return f"{value:.1f} {unit}" if value < 10 and unit != "B" else f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def thousands(number: int) -> str:
    return f"{number:,}".replace(",", "\u202f")


def ref_label(event: dict[str, Any]) -> str:
    """What was built, short: a branch, a tag."""
    if event.get("tag"):
        return f"tag {event['tag']}"
    ref = str(event.get("ref", ""))
    return str(event.get("branch") or ref.removeprefix("refs/heads/"))


def _static_runs(line: bytes) -> list[ansi.Run]:
    """A line for the page itself; one that is very long is cut."""
    rest = len(line) - ansi.MAX_LINE_CHARACTERS
    if rest <= 0:
        return ansi.runs(line)[0]
    found, _ = ansi.runs(line[: ansi.MAX_LINE_CHARACTERS])
    return [*found, ansi.Run(f" … {size(rest)} more in the raw log", "a-dim")]


class Renderer:
    def __init__(self, parts: Parts, assets: Assets) -> None:
        self._parts = parts
        self.assets = assets
        self._environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals.update(asset=assets.url, Status=Status, url=parts.url)
        self._environment.filters.update(
            duration=duration,
            ago=ago,
            until=until,
            built=built,
            stamp=stamp,
            size=size,
            thousands=thousands,
            ref_label=ref_label,
            word=lambda status: Status(status).word,
            icon=lambda status: ICONS[Status(status)],
            mark=lambda status: _MARKS[Status(status)],
            runs=_static_runs,
        )

    async def page(self, call: Call, template: str, *, status_code: int = 200, **values: Any) -> Response:
        counts = await self._parts.store.read(views.counts)
        theme = call.connection.cookies.get(THEME_COOKIE, "auto")
        text = self._environment.get_template(template).render(
            call=call,
            actor=call.actor,
            counts=counts,
            theme=theme if theme in THEMES else "auto",
            now=self._parts.clock.now(),
            path=call.connection.url.path,
            is_live_part=LIVE_HEADER in call.connection.headers,
            **values,
        )
        response = _html(text, status_code, call.connection.headers.get("accept-encoding", ""))
        form_cookie = self._parts.cookie(FORM_COOKIE)
        if not call.actor.is_known and form_cookie not in call.connection.cookies:
            response.set_cookie(
                form_cookie, call.form_secret, httponly=True, samesite="lax", secure=self._parts.is_https
            )
        return response


def _html(text: str, status_code: int, accepts: str) -> Response:
    headers = {"cache-control": "no-store", "vary": "Accept-Encoding, Cookie"}
    data = text.encode(errors="replace")
    # Compressing what stands beside a secret is safe here: the forms' tokens differ in every answer.
    if len(data) >= _GZIP_FROM_BYTES and "gzip" in accepts:
        data = gzip.compress(data, 5)
        headers["content-encoding"] = "gzip"
    return HTMLResponse(data, status_code, headers)
