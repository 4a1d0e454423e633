"""First run, sign-in and sign-out, the account and its tokens, the theme."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from starlette.responses import JSONResponse, RedirectResponse, Response

from ci.errors import Conflict, Forbidden, Invalid, NotFound, ShipwayError, Unauthenticated
from ci.server import auth
from ci.server.auth import Actor
from ci.server.clock import Clock
from ci.server.store import users, views
from web.guard import FORM_COOKIE, SESSION_COOKIE, THEME_COOKIE, Call
from web.openapi import Operation, describe
from web.problems import TooMany, status
from web.render import THEMES, Renderer
from web.schemas import FirstAccount, FirstAccountAnswer

_THEME_SECONDS = 5 * 365 * 86400


class Attempts:
    """Failed sign-ins, by name and by address: after `LIMIT` of them within `WINDOW_SECONDS` no more."""

    LIMIT = 10
    WINDOW_SECONDS = 300.0
    _MAX_KEYS = 10_000

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failed: OrderedDict[str, list[float]] = OrderedDict()

    def require(self, *keys: str) -> None:
        """Raises TooMany, before the password is even looked at."""
        now = self._clock.monotonic()
        for key in keys:
            recent = [at for at in self._failed.get(key, ()) if now - at < self.WINDOW_SECONDS]
            if len(recent) >= self.LIMIT:
                wait = int(self.WINDOW_SECONDS - (now - recent[0])) + 1
                raise TooMany(f"too many wrong passwords; please wait {wait} s", wait)

    def failed(self, *keys: str) -> None:
        now = self._clock.monotonic()
        for key in keys:
            before = [at for at in self._failed.pop(key, ()) if now - at < self.WINDOW_SECONDS]
            self._failed[key] = [*before[-self.LIMIT :], now]
        while len(self._failed) > self._MAX_KEYS:
            self._failed.popitem(last=False)


class Login:
    def __init__(self, renderer: Renderer, attempts: Attempts) -> None:
        self._renderer = renderer
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
            user_id = await self._make_first_account(call)
        except ShipwayError as error:
            return await self._setup_page(call, error)
        return await self._open_session(call, user_id, "/")

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
        user_id = await self._make_first_account(call)
        now = call.parts.clock.now()
        token = await call.parts.store.write(lambda c: users.add_token(c, user_id, "set-up", now))
        return JSONResponse({"user": call.field("name").strip(), "token": token}, 201)

    async def _make_first_account(self, call: Call) -> int:
        address = _address(call)
        self._attempts.require(address)
        code, name = call.field("code"), call.field("name").strip()
        password_hash = await asyncio.to_thread(auth.hash_password, call.field("password"))
        now = call.parts.clock.now()
        try:
            return await call.parts.store.write(
                lambda c: users.make_first_account(
                    c, code=code, name=name, password_hash=password_hash, now=now
                )
            )
        except ShipwayError:
            self._attempts.failed(address)
            raise

    # --- sign-in ----------------------------------------------------------------------------------

    async def sign_in_form(self, call: Call) -> Response:
        if not await call.parts.store.read(users.has_users):
            return RedirectResponse("/setup", 303)
        if call.actor.is_known:
            return RedirectResponse(local_path(call.request.query_params.get("next", "/")), 303)
        return await self._sign_in_page(call, call.request.query_params.get("next", "/"))

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
        assert actor.user_id is not None
        return await self._open_session(call, actor.user_id, after)

    async def _check(self, call: Call, name: str, password: str) -> Actor:
        keys = (f"name {name}", _address(call))
        self._attempts.require(*keys)
        try:
            return await call.parts.store.read(lambda c: users.check_password(c, name, password))
        except Unauthenticated:
            self._attempts.failed(*keys)
            raise

    async def _open_session(self, call: Call, user_id: int, after: str) -> Response:
        parts = call.parts
        now, seconds = parts.clock.now(), parts.session_seconds
        cookie = await parts.store.write(lambda c: users.open_session(c, user_id, now, seconds))
        response = RedirectResponse(after, 303)
        response.set_cookie(
            SESSION_COOKIE,
            cookie,
            max_age=int(seconds),
            httponly=True,
            samesite="lax",
            secure=parts.is_https,
        )
        response.delete_cookie(FORM_COOKIE)
        return response

    async def sign_out(self, call: Call) -> Response:
        cookie = call.connection.cookies.get(SESSION_COOKIE, "")
        await call.parts.store.write(lambda c: users.close_session(c, cookie))
        response = RedirectResponse("/sign-in", 303)
        response.delete_cookie(SESSION_COOKIE)
        return response

    # --- account ----------------------------------------------------------------------------------

    async def account(self, call: Call) -> Response:
        return await self._account_page(call)

    async def _account_page(
        self, call: Call, *, new_token: str = "", new_name: str = "", error: ShipwayError | None = None
    ) -> Response:
        user_id = _user_id(call)
        tokens = await call.parts.store.read(lambda c: users.tokens(c, user_id))
        return await self._renderer.page(
            call,
            "account.html",
            status_code=status(error) if error else 200,
            tokens=tokens,
            new_token=new_token,
            new_name=new_name,
            error=error,
        )

    async def add_token(self, call: Call) -> Response:
        user_id, name, now = _user_id(call), call.field("name"), call.parts.clock.now()
        try:
            token = await call.parts.store.write(lambda c: users.add_token(c, user_id, name, now))
        except Invalid as error:
            return await self._account_page(call, error=error)
        return await self._account_page(call, new_token=token, new_name=name)

    async def revoke_token(self, call: Call) -> Response:
        user_id, token_id = _user_id(call), int(call.path("id"))
        await call.parts.store.write(lambda c: users.revoke_token(c, user_id, token_id))
        return RedirectResponse("/account", 303)

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
    is_local = path.startswith("/") and not path.startswith(("//", "/\\"))
    return path if is_local and path.isprintable() else "/"


def _user_id(call: Call) -> int:
    assert call.actor.user_id is not None
    return call.actor.user_id


def _address(call: Call) -> str:
    client = call.connection.client
    return f"address {client.host if client else ''}"
