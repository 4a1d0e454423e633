"""Run a branch by hand: a page with a form, and the same for programs."""

from __future__ import annotations

from starlette.responses import JSONResponse, RedirectResponse, Response

from ci.errors import Conflict, Invalid, ShipwayError, Unavailable
from ci.server.starts import Starts, parse_variables
from ci.server.store import views
from web.guard import Call
from web.openapi import Operation, describe
from web.problems import status
from web.render import Renderer
from web.schemas import NewBuildAnswer, RunBody


class RunPages:
    def __init__(self, renderer: Renderer, starts: Starts) -> None:
        self._renderer = renderer
        self._starts = starts

    async def form(self, call: Call) -> Response:
        return await self._page(call)

    async def _page(self, call: Call, error: ShipwayError | None = None) -> Response:
        row = await call.parts.store.read(lambda c: views.repo_row(c, call.repo))
        typed = call.request.query_params.get("branch", "")[:250]
        return await self._renderer.page(
            call,
            "run.html",
            status_code=status(error) if error else 200,
            repo=call.repo,
            branches=row.branches,
            branch=call.field("branch") or typed or call.repo.default_branch,
            error=error,
        )

    async def run(self, call: Call) -> Response:
        try:
            owner, name, number = await self._run(call)
        except (Invalid, Conflict, Unavailable) as error:
            return await self._page(call, error)
        return RedirectResponse(f"/r/{owner}/{name}/{number}", 303)

    @describe(
        Operation(
            summary="Run a branch by hand",
            answer=NewBuildAnswer,
            status=201,
            body=RunBody,
            errors=(Invalid, Conflict, Unavailable),
        )
    )
    async def api_run(self, call: Call) -> Response:
        owner, name, number = await self._run(call)
        url = f"{call.parts.url}/r/{owner}/{name}/{number}"
        return JSONResponse({"repo": f"{owner}/{name}", "number": number, "url": url}, 201)

    async def _run(self, call: Call) -> tuple[str, str, int]:
        lines = [line for text in call.fields("variables") for line in _lines(call, text)]
        variables = parse_variables(lines)
        return await self._starts.by_hand(call.repo, call.field("branch").strip(), variables, call.actor)


def _lines(call: Call, text: str) -> list[str]:
    """A text box holds one a line; a value of JSON may have lines itself."""
    is_json = call.request.headers.get("content-type", "").startswith("application/json")
    return [text] if is_json else text.splitlines()
