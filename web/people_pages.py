"""The accounts of the server, for those who manage people; as a page and as JSON."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, RedirectResponse, Response

from ci.errors import Conflict, Invalid, NotFound, ShipwayError
from ci.server.people import Invited, NewPerson, People
from ci.server.store import users
from ci.server.store.users import Person
from web.guard import Call
from web.openapi import Operation, describe
from web.people_schemas import AdminBody, DisabledBody, InvitedAnswer, PersonBody, PersonList
from web.problems import status
from web.render import Renderer


class PeoplePages:
    def __init__(self, renderer: Renderer, people: People) -> None:
        self._renderer = renderer
        self._people = people

    # --- pages --------------------------------------------------------------------------------------

    async def page(self, call: Call) -> Response:
        return await self._page(call)

    async def _page(
        self, call: Call, *, invited: Invited | None = None, error: ShipwayError | None = None
    ) -> Response:
        now = call.parts.clock.now()
        found = await call.parts.store.read(lambda c: users.people(c, now))
        status_code = status(error) if error else 200
        return await self._renderer.page(
            call, "people.html", status_code=status_code, people=found, invited=invited, error=error
        )

    async def create(self, call: Call) -> Response:
        try:
            invited = await self._people.create(_new_person(call), call.actor)
        except (Invalid, Conflict) as error:
            return await self._page(call, error=error)
        return await self._page(call, invited=invited)

    async def reset(self, call: Call) -> Response:
        return await self._page(call, invited=await self._people.reset_password(_id(call), call.actor))

    async def set_admin(self, call: Call) -> Response:
        return await self._changed(call, self._people.set_admin(_id(call), call.flag("is_admin"), call.actor))

    async def set_disabled(self, call: Call) -> Response:
        change = self._people.set_disabled(_id(call), call.flag("is_disabled"), call.actor)
        return await self._changed(call, change)

    async def remove(self, call: Call) -> Response:
        user_id = _id(call)
        user = await call.parts.store.read(lambda c: users.by_id(c, user_id))
        if call.field("confirm").strip() != user.name:
            return await self._page(call, error=Invalid(f"to delete {user.name}, type that name"))
        return await self._changed(call, self._people.remove(user_id, call.actor))

    async def _changed(self, call: Call, change: Any) -> Response:
        try:
            await change
        except Conflict as error:
            return await self._page(call, error=error)
        return RedirectResponse("/admin/people", 303)

    # --- programs -----------------------------------------------------------------------------------

    @describe(Operation(summary="The accounts", answer=PersonList))
    async def people(self, call: Call) -> Response:
        now = call.parts.clock.now()
        found = await call.parts.store.read(lambda c: users.people(c, now))
        return JSONResponse({"people": [_person(person) for person in found]})

    @describe(
        Operation(
            summary="Make an account, with a code that sets its password",
            answer=InvitedAnswer,
            status=201,
            body=PersonBody,
            errors=(Conflict,),
        )
    )
    async def create_by_program(self, call: Call) -> Response:
        invited = await self._people.create(_new_person(call), call.actor)
        return JSONResponse(_invited(call, invited), 201)

    @describe(
        Operation(
            summary="Make a code that sets a new password",
            answer=InvitedAnswer,
            status=201,
            errors=(NotFound,),
        )
    )
    async def reset_by_program(self, call: Call) -> Response:
        invited = await self._people.reset_password(_id(call), call.actor)
        return JSONResponse(_invited(call, invited), 201)

    @describe(
        Operation(
            summary="Make somebody an admin, or not",
            answer=None,
            status=204,
            body=AdminBody,
            errors=(NotFound, Conflict),
        )
    )
    async def set_admin_by_program(self, call: Call) -> Response:
        await self._people.set_admin(_id(call), call.flag("is_admin"), call.actor)
        return Response(status_code=204)

    @describe(
        Operation(
            summary="Disable an account, or enable it",
            answer=None,
            status=204,
            body=DisabledBody,
            errors=(NotFound, Conflict),
        )
    )
    async def set_disabled_by_program(self, call: Call) -> Response:
        await self._people.set_disabled(_id(call), call.flag("is_disabled"), call.actor)
        return Response(status_code=204)

    @describe(Operation(summary="Remove an account", answer=None, status=204, errors=(NotFound, Conflict)))
    async def remove_by_program(self, call: Call) -> Response:
        await self._people.remove(_id(call), call.actor)
        return Response(status_code=204)


def _id(call: Call) -> int:
    return int(call.path("id")[:18])


def _new_person(call: Call) -> NewPerson:
    return NewPerson(
        name=call.field("name"), is_admin=call.flag("is_admin"), takes_over=call.flag("takes_over")
    )


def _invited(call: Call, invited: Invited) -> dict[str, Any]:
    """The code stands beside the address, never in it."""
    address = f"{call.parts.url}/join"
    return {"id": invited.user_id, "name": invited.name, "code": invited.code, "url": address}


def _person(person: Person) -> dict[str, Any]:
    user = person.user
    return {
        "id": user.id,
        "name": user.name,
        "is_admin": user.is_admin,
        "is_disabled": user.is_disabled,
        "has_password": bool(user.password_hash),
        "created_at": user.created_at,
        "seen_at": person.seen_at,
        "sessions": person.sessions,
        "tokens": person.tokens,
        "repos": person.repos,
    }
