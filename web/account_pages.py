"""A person's own account: password, tokens, sessions; as a page and as JSON."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse, RedirectResponse, Response

from ci.errors import Forbidden, Invalid, NotFound, ShipwayError
from ci.server import auth
from ci.server.account import Account
from ci.server.auth import Scope
from ci.server.models import Session, Token
from ci.server.store import sessions, tokens
from ci.server.store.database import Connection
from ci.server.store.tokens import DEFAULT_DAYS, NewToken, parse_scopes
from web.attempts import Attempts
from web.guard import SESSION_COOKIE, Call
from web.openapi import Operation, describe
from web.people_schemas import (
    EndedSessions,
    NewTokenAnswer,
    PasswordBody,
    SessionList,
    TokenBody,
    TokenList,
    WhoAmI,
)
from web.problems import TooMany, status
from web.render import Renderer

#: What the form offers; a program may ask for any number of days.
DAYS = ("7", "30", "90", "365", "never")
SCOPES = (
    (Scope.READ, "see repos, builds, logs, runners; clone"),
    (Scope.WRITE, "push, make repos, start, cancel, rerun, approve"),
    (Scope.ADMIN, "administer repos and all else that you may"),
)
_BROWSERS = (("Edg/", "Edge"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"), ("Safari/", "Safari"))
_SYSTEMS = (
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Windows", "Windows"),
    ("Mac OS", "macOS"),
    ("Linux", "Linux"),
)


def software_words(agent: str) -> str:
    """ "Firefox on Linux", from what a browser says of itself; else the first word of it."""
    browser = next((word for mark, word in _BROWSERS if mark in agent), "")
    system = next((word for mark, word in _SYSTEMS if mark in agent), "")
    if browser and system:
        return f"{browser} on {system}"
    return browser or re.split(r"[ /]", agent, maxsplit=1)[0][:40] or "unknown"


@dataclass(frozen=True, kw_only=True)
class SessionRow:
    session: Session
    software: str
    is_this: bool


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What the account page has to say beside what is always there."""

    error: ShipwayError | None = None
    at: str = ""  #: the form that the error is about
    note: str = ""
    new_token: str = ""
    new_name: str = ""


class AccountPages:
    def __init__(self, renderer: Renderer, account: Account, attempts: Attempts) -> None:
        self._renderer = renderer
        self._account = account
        self._attempts = attempts

    # --- pages --------------------------------------------------------------------------------------

    async def page(self, call: Call) -> Response:
        return await self._page(call, Shown())

    async def _page(self, call: Call, shown: Shown) -> Response:
        found = await call.parts.store.read(lambda c: _rows(c, call))
        is_first = not call.fields("scopes") and shown.at != "token"
        return await self._renderer.page(
            call,
            "account.html",
            status_code=status(shown.error) if shown.error else 200,
            shown=shown,
            scopes=[
                (scope, words, (is_first and scope is not Scope.ADMIN) or scope in call.fields("scopes"))
                for scope, words in SCOPES
                if call.actor.scopes is None or scope in call.actor.scopes
            ],
            days=DAYS,
            chosen_days=call.field("days") or str(DEFAULT_DAYS),
            **found,
        )

    async def add_token(self, call: Call) -> Response:
        try:
            token = await self._account.add_token(call.actor, _new_token(call))
        except (Invalid, Forbidden) as error:
            return await self._page(call, Shown(error=error, at="token"))
        return await self._page(call, Shown(new_token=token, new_name=call.field("name").strip()))

    async def revoke_token(self, call: Call) -> Response:
        await self._account.revoke_token(call.actor, _number(call))
        return RedirectResponse("/account", 303)

    async def change_password(self, call: Call) -> Response:
        try:
            await self._change_password(call)
        except ShipwayError as error:
            return await self._page(call, Shown(error=error, at="password"))
        return await self._page(
            call, Shown(note="The password is changed; all other sessions have ended.", at="password")
        )

    async def close_session(self, call: Call) -> Response:
        await self._account.close_session(call.actor, _number(call))
        return RedirectResponse("/account", 303)

    async def close_others(self, call: Call) -> Response:
        await self._account.close_others(call.actor, _cookie(call))
        return RedirectResponse("/account", 303)

    # --- programs -----------------------------------------------------------------------------------

    @describe(Operation(summary="Who you are", answer=WhoAmI))
    async def whoami(self, call: Call) -> Response:
        actor = call.actor
        scopes = None if actor.scopes is None else sorted(actor.scopes)
        return JSONResponse({"user": actor.name, "is_admin": actor.is_admin, "scopes": scopes})

    @describe(Operation(summary="Your tokens, without their values", answer=TokenList))
    async def tokens(self, call: Call) -> Response:
        found = await call.parts.store.read(lambda c: _rows(c, call))
        return JSONResponse({"tokens": [_token(row) for row in found["tokens"]]})

    @describe(
        Operation(
            summary="Make a token", answer=NewTokenAnswer, status=201, body=TokenBody, errors=(Forbidden,)
        )
    )
    async def add_token_by_program(self, call: Call) -> Response:
        token = await self._account.add_token(call.actor, _new_token(call))
        return JSONResponse({"name": call.field("name").strip(), "token": token}, 201)

    @describe(Operation(summary="Revoke a token of yours", answer=None, status=204, errors=(NotFound,)))
    async def revoke_token_by_program(self, call: Call) -> Response:
        await self._account.revoke_token(call.actor, _number(call))
        return Response(status_code=204)

    @describe(
        Operation(
            summary="Change your password; your other sessions end",
            answer=None,
            status=204,
            body=PasswordBody,
            errors=(Forbidden, TooMany),
        )
    )
    async def change_password_by_program(self, call: Call) -> Response:
        await self._change_password(call)
        return Response(status_code=204)

    @describe(Operation(summary="Your sessions", answer=SessionList))
    async def sessions(self, call: Call) -> Response:
        found = await call.parts.store.read(lambda c: _rows(c, call))
        return JSONResponse({"sessions": [_session(row) for row in found["sessions"]]})

    @describe(Operation(summary="End a session of yours", answer=None, status=204, errors=(NotFound,)))
    async def close_session_by_program(self, call: Call) -> Response:
        await self._account.close_session(call.actor, _number(call))
        return Response(status_code=204)

    @describe(Operation(summary="End your other sessions", answer=EndedSessions))
    async def close_others_by_program(self, call: Call) -> Response:
        return JSONResponse({"ended": await self._account.close_others(call.actor, _cookie(call))})

    async def _change_password(self, call: Call) -> None:
        address, name = call.actor.address, call.actor.name
        self._attempts.require(address, name)
        try:
            await self._account.change_password(
                call.actor, call.field("old"), call.field("new"), _cookie(call)
            )
        except Forbidden:
            self._attempts.failed(address, name)
            raise


def _rows(c: Connection, call: Call) -> dict[str, Any]:
    user_id, now, this = call.actor.user_id or 0, call.parts.clock.now(), auth.token_hash(_cookie(call))
    return {
        "tokens": tokens.of_user(c, user_id),
        "sessions": [
            SessionRow(session=row, software=software_words(row.software), is_this=row.hash == this)
            for row in sessions.of_user(c, user_id, now)
        ],
    }


def _new_token(call: Call) -> NewToken:
    return NewToken(
        name=call.field("name"), scopes=parse_scopes(call.fields("scopes")), days=_days(call.field("days"))
    )


def _days(text: str) -> int | None:
    if text == "never":
        return None
    if not text:
        return DEFAULT_DAYS
    if not (text.isascii() and text.isdigit() and len(text) < 9):
        raise Invalid(f'days={text[:40]!r}: give a number of days, or "never"')
    return int(text)


def _number(call: Call) -> int:
    return int(call.path("id")[:18])


def _cookie(call: Call) -> str:
    return call.connection.cookies.get(call.parts.cookie(SESSION_COOKIE), "")


def _token(row: Token) -> dict[str, Any]:
    names = ("id", "name", "scopes", "created_at", "expires_at", "used_at")
    return {name: getattr(row, name) for name in names}


def _session(row: SessionRow) -> dict[str, Any]:
    names = ("id", "address", "software", "created_at", "seen_at", "expires_at")
    return {**{name: getattr(row.session, name) for name in names}, "is_this": row.is_this}
