"""One runner: how it stands, runs, lost; pause, drain, resume, remove. JSON: web/runners_api.py."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.responses import RedirectResponse, Response

from ci.errors import Invalid
from ci.server import auth
from ci.server.auth import Action, Actor
from ci.server.runners import Runners, standing
from web.guard import Call
from web.problems import status
from web.render import Renderer
from web.runners_api import look_at


class RunnerPages:
    def __init__(self, renderer: Renderer, runners: Runners) -> None:
        self._renderer = renderer
        self._runners = runners

    async def page(self, call: Call) -> Response:
        return await self._page(call)

    async def _page(self, call: Call, error: Invalid | None = None) -> Response:
        row, lost = await look_at(call)
        return await self._renderer.page(
            call,
            "runner.html",
            status_code=status(error) if error else 200,
            row=row,
            stands=standing(row),
            lost=lost,
            may_manage=call.may(Action.MANAGE_RUNNERS),
            may_read=lambda repo: auth.can(call.actor, Action.READ, repo),
            error=error,
        )

    async def pause(self, call: Call) -> Response:
        return await self._change(call, self._runners.pause)

    async def drain(self, call: Call) -> Response:
        return await self._change(call, self._runners.drain)

    async def resume(self, call: Call) -> Response:
        return await self._change(call, self._runners.resume)

    async def _change(self, call: Call, change: Callable[[int, Actor], Awaitable[None]]) -> Response:
        row, _ = await look_at(call)
        await change(row.runner.id or 0, call.actor)
        return RedirectResponse(f"/runners/{row.runner.id}", 303)

    async def remove(self, call: Call) -> Response:
        row, _ = await look_at(call)
        if call.field("confirm").strip() != row.runner.name:
            return await self._page(call, Invalid(f"to remove {row.runner.name}, type that name"))
        await self._runners.remove(row.runner.id or 0, call.actor)
        return RedirectResponse("/runners", 303)
