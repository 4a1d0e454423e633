"""Schedules of a repo, as a page and as JSON."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, RedirectResponse, Response

from ci.errors import Conflict, Invalid, NotFound, ShipwayError
from ci.server.models import Schedule
from ci.server.schedules import NextRun, Schedules, shown
from ci.server.store import schedules, views
from ci.server.store.database import Connection
from ci.server.store.schedules import Plan
from web.guard import Call
from web.openapi import Operation, describe
from web.problems import status
from web.render import Renderer
from web.schemas import ScheduleBody, ScheduleFacts, ScheduleList

_PATH = {"id": "of the schedule"}


class SchedulePages:
    def __init__(self, renderer: Renderer, schedules: Schedules) -> None:
        self._renderer = renderer
        self._schedules = schedules

    async def page(self, call: Call) -> Response:
        return await self._page(call)

    async def _page(self, call: Call, error: ShipwayError | None = None, at: int = 0) -> Response:
        """`at`: the schedule whose form was wrong; 0: the form of a new one."""

        def look(c: Connection) -> tuple[list[Schedule], tuple[str, ...]]:
            return schedules.of_repo(c, call.repo.id or 0), views.repo_row(c, call.repo).branches

        rows, branches = await call.parts.store.read(look)
        return await self._renderer.page(
            call,
            "schedules.html",
            status_code=status(error) if error else 200,
            repo=call.repo,
            schedules=[shown(row) for row in rows],
            branches=branches,
            error=error,
            at=at,
        )

    async def add(self, call: Call) -> Response:
        try:
            await self._schedules.add(call.repo, _plan(call), call.actor)
        except (Invalid, Conflict) as error:
            return await self._page(call, error)
        return _back(call)

    async def change(self, call: Call) -> Response:
        try:
            await self._schedules.change(call.repo, _id(call), _plan(call), call.actor)
        except (Invalid, Conflict) as error:
            return await self._page(call, error, _id(call))
        return _back(call)

    async def remove(self, call: Call) -> Response:
        await self._schedules.remove(call.repo, _id(call), call.actor)
        return _back(call)

    async def run(self, call: Call) -> Response:
        await self._schedules.run_now(call.repo, _id(call), call.actor)
        return _back(call)

    # --- programs -------------------------------------------------------------------------------------

    @describe(Operation(summary="The schedules of the repo", answer=ScheduleList))
    async def api_list(self, call: Call) -> Response:
        rows = await call.parts.store.read(lambda c: schedules.of_repo(c, call.repo.id or 0))
        return JSONResponse({"schedules": [_json(shown(row)) for row in rows]})

    @describe(
        Operation(
            summary="Make a schedule",
            answer=ScheduleFacts,
            status=201,
            body=ScheduleBody,
            errors=(Invalid, Conflict),
        )
    )
    async def api_add(self, call: Call) -> Response:
        schedule_id = await self._schedules.add(call.repo, _plan(call, is_enabled="true"), call.actor)
        return await self._answer(call, schedule_id, 201)

    @describe(
        Operation(
            summary="Change a schedule; what is not named stays",
            answer=ScheduleFacts,
            body=ScheduleBody,
            path=_PATH,
            errors=(Invalid, Conflict, NotFound),
        )
    )
    async def api_change(self, call: Call) -> Response:
        row = await self._schedules.find(call.repo, _id(call))
        now = {name: getattr(row, name) for name in ("name", "cron", "time_zone", "branch")}
        plan = _plan(call, **now, is_enabled="true" if row.is_enabled else "false")
        await self._schedules.change(call.repo, _id(call), plan, call.actor)
        return await self._answer(call, _id(call))

    @describe(Operation(summary="Remove a schedule", answer=None, status=204, path=_PATH, errors=(NotFound,)))
    async def api_remove(self, call: Call) -> Response:
        await self._schedules.remove(call.repo, _id(call), call.actor)
        return Response(status_code=204)

    @describe(
        Operation(
            summary="Run a schedule now, beside its planned runs",
            answer=ScheduleFacts,
            path=_PATH,
            errors=(NotFound,),
        )
    )
    async def api_run(self, call: Call) -> Response:
        await self._schedules.run_now(call.repo, _id(call), call.actor)
        return await self._answer(call, _id(call))

    async def _answer(self, call: Call, schedule_id: int, code: int = 200) -> Response:
        row = await self._schedules.find(call.repo, schedule_id)
        return JSONResponse(_json(shown(row)), code)


def _id(call: Call) -> int:
    return int(call.path("id"))


def _plan(call: Call, **present: str) -> Plan:
    """Of the fields; what is not among them is as `present` says."""
    given = {name: call.field(name) if name in call.form else present.get(name, "") for name in _FIELDS}
    is_enabled = given.pop("is_enabled") in ("true", "on", "1")
    return Plan(**{**given, "time_zone": given["time_zone"] or "UTC"}, is_enabled=is_enabled)


_FIELDS = ("name", "cron", "time_zone", "branch", "is_enabled")


def _back(call: Call) -> Response:
    return RedirectResponse(f"/r/{call.repo.owner}/{call.repo.name}/schedules", 303)


def _json(found: NextRun) -> dict[str, Any]:
    names = ("id", "name", "cron", "time_zone", "branch", "is_enabled", "next_at", "last_at", "last_verdict")
    facts = {name: getattr(found.row, name) for name in (*names, "created_by")}
    return {**facts, "meaning": found.meaning}
