"""Secrets of a repo, an owner and the server: pages with real forms, the same as JSON. Write-only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, RedirectResponse, Response

from ci.errors import Invalid, NotFound
from ci.event import Kind
from ci.server.models import Secret
from ci.server.secrets import Filters, Secrets
from ci.server.store import secrets as rows
from ci.server.store.database import Connection
from web.guard import Call
from web.openapi import Operation, describe
from web.problems import status
from web.render import Renderer

_NAME = {"secret": "the name, in capitals or small letters"}


class SecretBody(BaseModel):
    """Empty lists forbid nothing."""

    value: str
    events: list[str] = []
    images: list[str] = []
    steps: list[str] = []


class SecretFacts(BaseModel):
    name: str
    events: list[str]
    images: list[str]
    steps: list[str]
    is_weak: bool = Field(description="too short or too common to protect much")
    created_at: float = Field(description="seconds since 1970 (UTC)")
    changed_at: float
    changed_by: str
    used_at: float | None
    used_in: str = Field(description="path of the build that used it last: owner/name/12")


class StoredSecret(SecretFacts):
    warning: str = Field(description="why the value is weak, or nothing")


class SecretList(BaseModel):
    secrets: list[SecretFacts]


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Whose secrets a page shows, and where its forms go."""

    place: str
    title: str
    base: str
    inherited: tuple[str, ...] = ()  #: places whose secrets count here too


def scope_of(call: Call) -> Scope:
    """By the route: of the repo, of the owner, or of the server."""
    if call.found_repo is not None:
        repo = call.repo
        place, *wider = rows.places(repo)
        path = f"{repo.owner}/{repo.name}"
        return Scope(place=place, title=path, base=f"/r/{path}/secrets", inherited=tuple(wider))
    owner = call.connection.path_params.get("owner")
    if owner is not None:
        place = rows.place_of_owner(owner)
        return Scope(place=place, title=owner, base=f"/o/{owner}/secrets", inherited=(rows.SERVER,))
    return Scope(place=rows.SERVER, title="this server", base="/admin/secrets")


class SecretPages:
    def __init__(self, renderer: Renderer, secrets: Secrets) -> None:
        self._renderer = renderer
        self._secrets = secrets

    # --- pages --------------------------------------------------------------------------------------

    async def page(self, call: Call) -> Response:
        return await self._page(call)

    async def _page(self, call: Call, error: Invalid | None = None) -> Response:
        scope = scope_of(call)

        def look(c: Connection) -> dict[str, Any]:
            wider = [(place, row) for place in scope.inherited for row in rows.at(c, place)]
            return {"secrets": rows.at(c, scope.place), "wider": wider}

        found = await call.parts.store.read(look)
        return await self._renderer.page(
            call,
            "secrets.html",
            status_code=status(error) if error else 200,
            scope=scope,
            error=error,
            events=[kind.value for kind in Kind],
            **found,
        )

    async def put(self, call: Call) -> Response:
        scope = scope_of(call)
        try:
            await self._put(call, scope, call.field("name"))
        except Invalid as error:
            return await self._page(call, error)
        return RedirectResponse(scope.base, 303)

    async def remove(self, call: Call) -> Response:
        scope = scope_of(call)
        await self._secrets.remove(scope.place, call.path("secret"), call.actor)
        return RedirectResponse(scope.base, 303)

    async def _put(self, call: Call, scope: Scope, name: str) -> str:
        filters = Filters(
            events=_words(call.fields("events")),
            images=_words(call.fields("images")),
            steps=_words(call.fields("steps")),
        )
        return await self._secrets.put(scope.place, name, _value(call), filters, call.actor)

    # --- programs -----------------------------------------------------------------------------------

    @describe(Operation(summary="The secrets of a place, without their values", answer=SecretList))
    async def api_list(self, call: Call) -> Response:
        place = scope_of(call).place
        found = await call.parts.store.read(lambda c: rows.at(c, place))
        return JSONResponse({"secrets": [_json(row) for row in found]})

    @describe(
        Operation(
            summary="Set a secret, or set it anew",
            answer=StoredSecret,
            body=SecretBody,
            path=_NAME,
            errors=(Invalid,),
        )
    )
    async def api_put(self, call: Call) -> Response:
        scope, name = scope_of(call), call.path("secret")
        warning = await self._put(call, scope, name)
        row = await call.parts.store.read(lambda c: rows.find(c, scope.place, name.lower()))
        assert row is not None
        return JSONResponse({**_json(row), "warning": warning})

    @describe(Operation(summary="Remove a secret", answer=None, status=204, path=_NAME, errors=(NotFound,)))
    async def api_remove(self, call: Call) -> Response:
        await self._secrets.remove(scope_of(call).place, call.path("secret"), call.actor)
        return Response(status_code=204)


def _value(call: Call) -> str:
    """As it was given, but for the one line end that a terminal or a text box adds, and CRLF of a form."""
    value = call.field("value").replace("\r\n", "\n")
    return value.removesuffix("\n") if value.count("\n") == 1 else value


def _words(given: Sequence[str]) -> tuple[str, ...]:
    """From a list, or from one text with commas or spaces between."""
    words = [word for text in given for word in text.replace(",", " ").split()]
    return tuple(dict.fromkeys(words))


def _json(row: Secret) -> dict[str, Any]:
    names = ("name", "events", "images", "steps", "is_weak", "created_at", "changed_at", "changed_by")
    return {name: getattr(row, name) for name in (*names, "used_at", "used_in")}
