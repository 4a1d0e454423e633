"""What the palette (Ctrl-K) offers: pages, repos and builds that fit a few letters."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from ci.server.auth import Action, Actor
from ci.server.store import views
from ci.server.store.database import Connection
from ci.server.store.views import Filter
from web.guard import Call

MAX_BUILDS = 6
MAX_REPOS = 8
#: (words, address, what one must be allowed; None: to be signed in)
_PAGES = (
    ("Builds", "/", None),
    ("Repos", "/repos", None),
    ("Queue", "/queue", Action.SEE_RUNNERS),
    ("Runners", "/runners", Action.SEE_RUNNERS),
    ("Account and tokens", "/account", None),
)


async def find(call: Call) -> Response:
    """`?q=`: the best first. Nobody is offered what he may not open."""
    wanted = call.request.query_params.get("q", "").strip()[:100]
    found = await call.parts.store.read(lambda c: _found(c, call, wanted))
    return JSONResponse({"found": found})


def _found(c: Connection, call: Call, wanted: str) -> list[dict[str, Any]]:
    pages = [
        {"kind": "page", "title": words, "url": address}
        for words, address, action in _PAGES
        if call.actor.is_known and (action is None or call.may(action)) and wanted.lower() in words.lower()
    ]
    return [*pages, *_repos(c, call.actor, wanted), *_builds(c, call.actor, wanted)]


def _repos(c: Connection, actor: Actor, wanted: str) -> list[dict[str, Any]]:
    rows = views.repos_named(c, actor, wanted, MAX_REPOS)
    return [
        {"kind": "repo", "title": f"{repo.owner}/{repo.name}", "url": f"/r/{repo.owner}/{repo.name}"}
        for repo in rows
    ]


def _builds(c: Connection, actor: Actor, wanted: str) -> list[dict[str, Any]]:
    if not wanted:
        return []
    rows = views.builds(c, actor, wanted=Filter(text=wanted), limit=MAX_BUILDS)
    return [
        {
            "kind": "build",
            "title": str(row.build.event.get("title") or row.build.event.get("ref", "")),
            "note": f"{row.repo.owner}/{row.repo.name} #{row.build.number} {row.build.status}",
            "url": row.path,
        }
        for row in rows
    ]
