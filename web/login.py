"""First run, sign-in and sign-out, the password that a code sets, the theme."""

from __future__ import annotations

import re

from starlette.responses import JSONResponse, RedirectResponse, Response

from ci.errors import Conflict, Forbidden, Invalid, NotFound, ShipwayError, Unauthenticated
from ci.server.account import Account
from ci.server.auth import Actor
from ci.server.store import sessions, users, views
from ci.server.store.sessions import Browser
from ci.server.store.tokens import NewToken
from web.attempts import Attempts
from web.guard import FORM_COOKIE, SESSION_COOKIE, THEME_COOKIE, Call
from web.openapi import Operation, describe
from web.people_schemas import JoinAnswer, JoinBody
from web.problems import TooMany, status
from web.render import THEMES, Renderer
from web.schemas import FirstAccount, FirstAccountAnswer

_THEME_SECONDS = 5 * 365 * 86400
_LOCAL = re.compile(r"/(?![/\\])[^\x00-\x20\x7f\\]*\Z")


class Login:
    def __init__(self, renderer: Renderer, account: Account, attempts: Attempts) -> None:
        self._renderer = renderer
        self._account = account
        self._attempts = attempts

    # --- first run --------------------------------------------------------------------------------

    async def setup_form(self, call: Call) -> Response:
        return await self._setup_page(call)

    async def _setup_page(self, call: Call, error: ShipwayError | None = None) -> Response:
        runners = await call.parts.store.read(views.runners)
        return await self._renderer.page(
            call,
            "setup.html",
            status_code=status(error) if error else 200,
            error=error,
            runners=runners,
        )

    async def setup(self, call: Call) -> Response:
        try:
            actor = await self._make_first_account(call)
        except ShipwayError as error:
            return await self._setup_page(call, error)
        return await self._open_session(call, actor, "/")

    @describe(
        Operation(
            summary="Make the first account, by the code that the server prints",
            answer=FirstAccountAnswer,
            status=201,
            body=FirstAccount,
            errors=(Conflict, Forbidden, TooMany),
        )
    )
    async def setup_by_program(self, call: Call) -> Response:
        """The same by JSON; answers with a token, as there is no browser to sign in."""
        actor = await self._make_first_account(call)
        token = await self._account.add_token(actor, NewToken(name="set-up"))
        return JSONResponse({"user": actor.name, "token": token}, 201)

    async def _make_first_account(self, call: Call) -> Actor:
        address = call.actor.address
        self._attempts.require(address)
        try:
            return await self._account.set_up(
                code=call.field("code"),
                name=call.field("name").strip(),
                password=call.field("password"),
                address=address,
            )
        except ShipwayError:
            self._attempts.failed(address)
            raise

    # --- a password by a code -----------------------------------------------------------------------

    async def join_form(self, call: Call) -> Response:
        return await self._join_page(call)

    async def _join_page(self, call: Call, error: ShipwayError | None = None) -> Response:
        status_code = status(error) if error else 200
        return await self._renderer.page(call, "join.html", status_code=status_code, error=error)

    async def join(self, call: Call) -> Response:
        try:
            actor = await self._join(call)
        except ShipwayError as error:
            return await self._join_page(call, error)
        return await self._open_session(call, actor, "/")

    @describe(
        Operation(
            summary="Set a password by a code",
            answer=JoinAnswer,
            body=JoinBody,
            errors=(Forbidden, Invalid, TooMany),
        )
    )
    async def join_by_program(self, call: Call) -> Response:
        return JSONResponse({"user": (await self._join(call)).name})

    async def _join(self, call: Call) -> Actor:
        address = call.actor.address
        self._attempts.require(address)
        try:
            return await self._account.join(call.field("code"), call.field("password"), address)
        except Forbidden:
            self._attempts.failed(address)
            raise

    # --- sign-in ----------------------------------------------------------------------------------

    async def sign_in_form(self, call: Call) -> Response:
        if not await call.parts.store.read(users.has_users):
            return RedirectResponse("/setup", 303)
        if call.actor.is_known:
            return RedirectResponse(local_path(_next(call)), 303)
        return await self._sign_in_page(call, _next(call))

    async def _sign_in_page(self, call: Call, after: str, error: ShipwayError | None = None) -> Response:
        return await self._renderer.page(
            call,
            "sign_in.html",
            status_code=status(error) if error else 200,
            error=error,
            after=local_path(after),
            name=call.field("name"),
        )

    async def sign_in(self, call: Call) -> Response:
        name, after = call.field("name").strip(), local_path(call.field("next"))
        try:
            actor = await self._check(call, name, call.field("password"))
        except ShipwayError as error:
            return await self._sign_in_page(call, after, error)
        return await self._open_session(call, actor, after)

    async def _check(self, call: Call, name: str, password: str) -> Actor:
        address, now = call.actor.address, call.parts.clock.now()
        self._attempts.require(address, name)
        if self._attempts.is_stormed(name) and not await call.parts.store.read(
            lambda c: sessions.is_known_address(c, name, address, now)
        ):
            self._attempts.refuse_stormed(name)
        try:
            return await self._account.check(name, password)
        except Unauthenticated:
            if count := self._attempts.failed(address, name):
                await self._account.note_refused(name, address, count)
            raise

    async def _open_session(self, call: Call, actor: Actor, after: str) -> Response:
        parts = call.parts
        software = call.connection.headers.get("user-agent", "")
        browser = Browser(address=call.actor.address, software=software)
        cookie = await self._account.open_session(actor, parts.session_seconds, browser)
        response = RedirectResponse(after, 303)
        response.set_cookie(
            parts.cookie(SESSION_COOKIE),
            cookie,
            max_age=int(parts.session_seconds),
            httponly=True,
            samesite="lax",
            secure=parts.is_https,
        )
        response.delete_cookie(parts.cookie(FORM_COOKIE), secure=parts.is_https, httponly=True)
        return response

    async def sign_out(self, call: Call) -> Response:
        name = call.parts.cookie(SESSION_COOKIE)
        await self._account.sign_out(call.actor, call.connection.cookies.get(name, ""))
        response = RedirectResponse("/sign-in", 303)
        response.delete_cookie(name, secure=call.parts.is_https, httponly=True)
        return response

    async def theme(self, call: Call) -> Response:
        theme = call.field("theme")
        if theme not in THEMES:
            raise NotFound(f"there is no theme {theme!r}; there are {', '.join(THEMES)}")
        response = RedirectResponse(local_path(call.field("next")), 303)
        response.set_cookie(
            THEME_COOKIE, theme, max_age=_THEME_SECONDS, samesite="lax", secure=call.parts.is_https
        )
        return response


def local_path(path: str) -> str:
    """`path` if it is one of this server, else the first page: nobody is sent elsewhere by a link."""
    return path if _LOCAL.match(path) and path.isprintable() else "/"


def _next(call: Call) -> str:
    """Where to go after signing in; named twice, it is nobody's."""
    found = call.request.query_params.getlist("next")
    return found[0] if len(found) == 1 else "/"
