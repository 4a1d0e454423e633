"""Who did what: of the server for those who manage people, of a repo for those who administer it."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from ci.server.models import Audit
from ci.server.store import audit
from ci.server.store.audit import Wanted
from web.guard import Call
from web.openapi import Operation, Query, describe
from web.people_schemas import AuditList
from web.render import Renderer

PAGE_SIZE = 50
MAX_LIMIT = 200

_WANTED = (
    Query(name="who", says="a person's name"),
    Query(name="action", says="a word such as `secret.set`"),
    Query(name="q", says="in what it was done to, or in its details"),
    Query(name="before", says="an id: only older rows", is_number=True),
    Query(name="limit", says="how many", most=MAX_LIMIT),
)


class AuditPages:
    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer

    async def of_server(self, call: Call) -> Response:
        return await self._page(call, None)

    async def of_repo(self, call: Call) -> Response:
        return await self._page(call, call.repo.id)

    @describe(
        Operation(
            summary="Who did what on the server",
            answer=AuditList,
            query=_WANTED,
        )
    )
    async def of_server_by_program(self, call: Call) -> Response:
        return await self._json(call, None)

    @describe(
        Operation(
            summary="Who did what in the repo",
            answer=AuditList,
            query=_WANTED,
        )
    )
    async def of_repo_by_program(self, call: Call) -> Response:
        return await self._json(call, call.repo.id)

    async def _page(self, call: Call, repo_id: int | None) -> Response:
        rows, older = await self._rows(call, repo_id, PAGE_SIZE)
        return await self._renderer.page(
            call, "audit.html", repo=call.found_repo, rows=rows, older=older, wanted=_wanted(call)
        )

    async def _json(self, call: Call, repo_id: int | None) -> Response:
        limit = max(1, min(_number(call, "limit") or PAGE_SIZE, MAX_LIMIT))
        rows, older = await self._rows(call, repo_id, limit)
        return JSONResponse({"audit": [_row(row) for row in rows], "before": older})

    async def _rows(self, call: Call, repo_id: int | None, limit: int) -> tuple[list[Audit], int | None]:
        """One more is asked for than is shown: it says whether there are older ones."""
        wanted, before = _wanted(call), _number(call, "before")
        found = await call.parts.store.read(
            lambda c: audit.latest(c, repo_id=repo_id, before_id=before, limit=limit + 1, wanted=wanted)
        )
        shown = found[:limit]
        return shown, shown[-1].id if len(found) > limit else None


def _wanted(call: Call) -> Wanted:
    query = call.request.query_params
    who, action, text = (query.get(name, "").strip()[:100] for name in ("who", "action", "q"))
    return Wanted(who=who, action=action, text=text)


def _number(call: Call, name: str) -> int | None:
    text = call.request.query_params.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 18 else None


def _row(row: Audit) -> dict[str, Any]:
    names = ("id", "at", "user_name", "action", "object", "repo_id", "details", "address")
    return {name: getattr(row, name) for name in names}
