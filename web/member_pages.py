"""Who may what in one repo, for those who administer it; as a page and as JSON."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, RedirectResponse, Response

from ci.errors import Invalid, NotFound, ShipwayError
from ci.server.auth import Role
from ci.server.people import People
from ci.server.store import members
from ci.server.store.members import Member, parse_role
from web.guard import Call
from web.openapi import Operation, describe
from web.people_schemas import MemberBody, MemberList
from web.problems import status
from web.render import Renderer

ROLES = (
    (Role.READ, "sees builds and logs, clones"),
    (Role.WRITE, "pushes, starts, cancels, approves"),
    (Role.ADMIN, "settings, secrets, members"),
)


class MemberPages:
    def __init__(self, renderer: Renderer, people: People) -> None:
        self._renderer = renderer
        self._people = people

    async def page(self, call: Call) -> Response:
        return await self._page(call)

    async def _page(self, call: Call, error: ShipwayError | None = None) -> Response:
        found = await call.parts.store.read(lambda c: members.of_repo(c, call.repo))
        return await self._renderer.page(
            call,
            "members.html",
            status_code=status(error) if error else 200,
            repo=call.repo,
            members=found,
            roles=ROLES,
            error=error,
        )

    async def set_role(self, call: Call) -> Response:
        try:
            await self._set_role(call)
        except (Invalid, NotFound) as error:
            return await self._page(call, error)
        return self._back(call)

    async def remove(self, call: Call) -> Response:
        await self._people.remove_member(call.repo, call.path("user"), call.actor)
        return self._back(call)

    def _back(self, call: Call) -> Response:
        return RedirectResponse(f"/r/{call.repo.owner}/{call.repo.name}/members", 303)

    @describe(Operation(summary="Who may do what in the repo, and why", answer=MemberList))
    async def members(self, call: Call) -> Response:
        found = await call.parts.store.read(lambda c: members.of_repo(c, call.repo))
        return JSONResponse({"members": [_member(member) for member in found]})

    @describe(
        Operation(
            summary="Give somebody a role in the repo",
            answer=None,
            status=204,
            body=MemberBody,
            errors=(Invalid, NotFound),
        )
    )
    async def set_role_by_program(self, call: Call) -> Response:
        await self._set_role(call)
        return Response(status_code=204)

    @describe(
        Operation(
            summary="Take somebody's role away",
            answer=None,
            status=204,
            path={"user": "the person's name"},
            errors=(NotFound,),
        )
    )
    async def remove_by_program(self, call: Call) -> Response:
        await self._people.remove_member(call.repo, call.path("user"), call.actor)
        return Response(status_code=204)

    async def _set_role(self, call: Call) -> None:
        role = parse_role(call.field("role"))
        await self._people.set_role(call.repo, call.field("name"), role, call.actor)


def _member(member: Member) -> dict[str, Any]:
    return {
        "name": member.user.name,
        "role": member.role.value,
        "source": member.source,
        "is_given": member.is_given,
        "is_disabled": member.user.is_disabled,
        "since": member.since,
    }
