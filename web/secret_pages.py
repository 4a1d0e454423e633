"""Secrets and variables of a repo, an owner and the server, on one page with real forms.

Values of secrets are write-only: no page holds one, not even the form that was sent with a mistake.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from starlette.responses import RedirectResponse, Response

from ci.errors import Conflict, Invalid, NotFound, ShipwayError
from ci.event import Kind
from ci.server.auth import Action
from ci.server.models import PlainVariable, Secret
from ci.server.secrets import Filters
from ci.server.store import secrets as rows
from ci.server.store import variables
from ci.server.store.database import Connection
from web.guard import Call
from web.problems import status
from web.render import Renderer


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Whose secrets and variables are meant, and where the forms go."""

    place: str
    title: str
    base: str
    inherited: tuple[str, ...] = ()  #: wider places, which count here too; the narrowest first


def scope_of(call: Call) -> Scope:
    """By the route: of the repo, of the owner, or of the server."""
    if call.found_repo is not None:
        repo = call.repo
        place, *wider = rows.places(repo)
        path = f"{repo.owner}/{repo.name}"
        return Scope(place=place, title=path, base=f"/r/{path}/secrets", inherited=tuple(wider))
    owner = call.connection.path_params.get("owner")
    if owner is not None:
        base = f"/o/{quote(owner, safe='')}/secrets"
        place = rows.place_of_owner(owner)
        return Scope(place=place, title=owner, base=base, inherited=(rows.SERVER,))
    return Scope(place=rows.SERVER, title="this server", base="/admin/secrets")


def filters_of(call: Call) -> Filters:
    return Filters(
        events=_words(call.fields("events"), " ,"),
        images=_words(call.fields("images"), " ,"),
        steps=_words(call.fields("steps"), ","),
    )


def text_of(call: Call) -> str:
    """The value as it was given, but for what a terminal or a text box adds: CR before each line end, and one
    line end after a single line. The line ends of several lines are kept, as keys need them."""
    value = call.field("value").replace("\r\n", "\n")
    return value.removesuffix("\n") if value.count("\n") == 1 else value


def _words(given: Sequence[str], separators: str) -> tuple[str, ...]:
    """From a list, or from one text with separators between."""
    for separator in separators[1:]:
        given = [text.replace(separator, separators[0]) for text in given]
    words = [word.strip() for text in given for word in text.split(separators[0])]
    return tuple(dict.fromkeys(word for word in words if word))


@dataclass(frozen=True, kw_only=True)
class Wider:
    """What counts here too because a wider place has it; `is_hidden`: a narrower one of its name wins."""

    place: str
    row: Secret | PlainVariable
    is_hidden: bool


class SecretPages:
    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer

    async def page(self, call: Call) -> Response:
        return await self._page(call)

    async def _page(self, call: Call, error: ShipwayError | None = None) -> Response:
        scope = scope_of(call)

        def look(c: Connection) -> dict[str, Any]:
            return {
                "secrets": rows.at(c, scope.place),
                "wider_secrets": _wider(scope, lambda place: rows.at(c, place)),
                "variables": variables.at(c, scope.place),
                "wider_variables": _wider(scope, lambda place: variables.at(c, place)),
            }

        found = await call.parts.store.read(look)
        query = call.request.query_params
        return await self._renderer.page(
            call,
            "secrets.html",
            status_code=status(error) if error else 200,
            scope=scope,
            error=error,
            events=[kind.value for kind in Kind],
            edited=_named(found["secrets"], query.get("edit", "")),
            just_set=_named(found["secrets"], query.get("set", "")),
            edited_variable=_named(found["variables"], query.get("variable", "")),
            links=_links(call, scope),
            **found,
        )

    # --- secrets ------------------------------------------------------------------------------------

    async def put(self, call: Call) -> Response:
        scope, name = scope_of(call), call.field("name").strip().lower()
        value = text_of(call) or None
        try:
            await call.parts.secrets.put(scope.place, name, value, filters_of(call), call.actor)
        except (Invalid, Conflict, NotFound) as error:
            return await self._page(call, error)
        return RedirectResponse(f"{scope.base}?{urlencode({'set': name})}", 303)

    async def remove(self, call: Call) -> Response:
        scope = scope_of(call)
        await call.parts.secrets.remove(scope.place, call.path("secret"), call.actor)
        return RedirectResponse(scope.base, 303)

    # --- variables ----------------------------------------------------------------------------------

    async def put_variable(self, call: Call) -> Response:
        scope = scope_of(call)
        try:
            await call.parts.variables.put(scope.place, call.field("variable"), text_of(call), call.actor)
        except (Invalid, Conflict) as error:
            return await self._page(call, error)
        return RedirectResponse(f"{scope.base}#variables", 303)

    async def remove_variable(self, call: Call) -> Response:
        scope = scope_of(call)
        await call.parts.variables.remove(scope.place, call.path("variable"), call.actor)
        return RedirectResponse(f"{scope.base}#variables", 303)


def _wider(scope: Scope, at: Any) -> list[Wider]:
    seen = {row.name for row in at(scope.place)}
    found = []
    for place in scope.inherited:
        here = at(place)
        found += [Wider(place=place, row=row, is_hidden=row.name in seen) for row in here]
        seen |= {row.name for row in here}
    return found


def _named(found: Sequence[Any], name: str) -> Any:
    return next((row for row in found if row.name == name), None)


def _links(call: Call, scope: Scope) -> list[tuple[str, str]]:
    """The pages of the wider places that this person may change."""
    found = []
    if call.found_repo is not None and call.may(Action.ADMINISTER_OWNER):
        found.append((f"/o/{quote(call.repo.owner, safe='')}/secrets", f"of every repo of {call.repo.owner}"))
    if scope.inherited and call.may(Action.MANAGE_SERVER):
        found.append(("/admin/secrets", "of the whole server"))
    return found
