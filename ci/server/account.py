"""What a person does with their own account: sign in, set a password, make tokens, end sessions.

A password costs about 50 ms of a core, so at most `_HASHES_AT_ONCE` are looked at at a time: a flood of
sign-ins waits in its own queue, not in the one of the database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from ci.errors import Forbidden, Unauthenticated
from ci.server import auth
from ci.server.auth import Actor
from ci.server.bus import Bus
from ci.server.clock import Clock
from ci.server.store import audit, sessions, tokens, users
from ci.server.store.audit import Deed
from ci.server.store.database import Connection, Store
from ci.server.store.sessions import Browser
from ci.server.store.tokens import NewToken

T = TypeVar("T")
_HASHES_AT_ONCE = 2


class Account:
    def __init__(self, store: Store, bus: Bus, clock: Clock) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._hashing = asyncio.Semaphore(_HASHES_AT_ONCE)

    # --- passwords ----------------------------------------------------------------------------------

    async def check(self, name: str, password: str) -> Actor:
        """Who signs in. As long for a name that nobody has; raises Unauthenticated, never saying what was
        wrong, or Forbidden for a disabled account whose password was right."""
        stored = await self._store.read(lambda c: users.password_hash(c, name))
        async with self._hashing:
            is_right = await asyncio.to_thread(auth.is_password, password, stored)
        if not is_right:
            raise Unauthenticated("the name or the password is wrong")
        return await self._store.read(lambda c: users.signed_in(c, name))

    async def hashed(self, password: str) -> str:
        """Raises Invalid for a password of a bad length."""
        async with self._hashing:
            return await asyncio.to_thread(auth.hash_password, password)

    async def set_up(self, *, code: str, name: str, password: str, address: str) -> Actor:
        """The first account. Raises Forbidden for a wrong code, Conflict once there is any account."""
        hashed, now = await self.hashed(password), self._clock.now()

        def make(c: Connection) -> Actor:
            user_id = users.make_first_account(c, code=code, name=name, password_hash=hashed, now=now)
            actor = Actor(user_id=user_id, name=name, is_admin=True, address=address)
            audit.note(c, actor, Deed(action="server.setup", object=name, details="the first account"), now)
            return actor

        return await self._store.write(make)

    async def join(self, code: str, password: str, address: str) -> Actor:
        """Set the password of the account that this code is for; its sessions end. Raises Forbidden."""
        hashed, now = await self.hashed(password), self._clock.now()

        def write(c: Connection) -> Actor:
            user = users.join(c, code, hashed, now)
            actor = replace(users.actor_of(c, user), address=address)
            audit.note(c, actor, Deed(action="password.set", object=user.name, details="with a code"), now)
            return actor

        return await self._ringing(write)

    async def change_password(self, actor: Actor, old: str, new: str, cookie: str) -> None:
        """Ends all other sessions. Raises Forbidden where the old password is wrong."""
        try:
            await self.check(actor.name, old)
        except Unauthenticated:
            raise Forbidden("the present password is wrong") from None
        hashed, now, user_id = await self.hashed(new), self._clock.now(), _id(actor)

        def write(c: Connection) -> None:
            users.set_password(c, user_id, hashed)
            count = sessions.close_all(c, user_id, but_cookie=cookie)
            details = f"other sessions that ended: {count}"
            audit.note(c, actor, Deed(action="password.set", object=actor.name, details=details), now)

        await self._ringing(write)

    # --- sessions -----------------------------------------------------------------------------------

    async def open_session(self, actor: Actor, seconds: float, browser: Browser) -> str:
        """The cookie's value; the audit log has the sign-in."""
        now = self._clock.now()

        def write(c: Connection) -> str:
            by = replace(actor, address=browser.address)
            audit.note(c, by, Deed(action="session.open", object=actor.name), now)
            return sessions.open_session(c, _id(actor), now, seconds, browser)

        return await self._store.write(write)

    async def note_refused(self, name: str, address: str, count: int) -> None:
        """A row for failed sign-ins. The name stands there only if it is somebody's: people type passwords
        into the wrong field."""
        now = self._clock.now()

        def write(c: Connection) -> None:
            whose = name if users.password_hash(c, name) else "an unknown name"
            deed = Deed(action="session.refuse", object=whose, details=f"wrong passwords from there: {count}")
            audit.note(c, Actor(address=address), deed, now)

        await self._store.write(write)

    async def sign_out(self, actor: Actor, cookie: str) -> None:
        now = self._clock.now()

        def write(c: Connection) -> None:
            sessions.close_session(c, cookie)
            audit.note(c, actor, Deed(action="session.close", object=actor.name), now)

        await self._ringing(write)

    async def close_session(self, actor: Actor, session_id: int) -> None:
        """Raises NotFound for one that is not theirs."""
        now = self._clock.now()

        def write(c: Connection) -> None:
            sessions.close_one(c, _id(actor), session_id)
            audit.note(c, actor, Deed(action="session.revoke", object=actor.name), now)

        await self._ringing(write)

    async def close_others(self, actor: Actor, cookie: str) -> int:
        """All sessions but the one of this cookie; returns how many ended."""
        now = self._clock.now()

        def write(c: Connection) -> int:
            count = sessions.close_all(c, _id(actor), but_cookie=cookie)
            details = f"all others: {count}"
            audit.note(c, actor, Deed(action="session.revoke", object=actor.name, details=details), now)
            return count

        return await self._ringing(write)

    # --- tokens -------------------------------------------------------------------------------------

    async def add_token(self, actor: Actor, new: NewToken) -> str:
        """The token, to be shown once. Raises Forbidden where a token asks for more than it has."""
        tokens.require_no_more(actor, new.scopes)
        now = self._clock.now()

        def write(c: Connection) -> str:
            token = tokens.add_token(c, _id(actor), new, now)
            ends = "never expires" if new.days is None else f"expires in {new.days} days"
            details = f"may {', '.join(sorted(new.scopes))}; {ends}"
            audit.note(c, actor, Deed(action="token.create", object=new.name.strip(), details=details), now)
            return token

        return await self._store.write(write)

    async def revoke_token(self, actor: Actor, token_id: int) -> None:
        """Raises NotFound for one that is not theirs."""
        now = self._clock.now()

        def write(c: Connection) -> None:
            name = tokens.revoke(c, _id(actor), token_id)
            audit.note(c, actor, Deed(action="token.revoke", object=name), now)

        await self._ringing(write)

    async def _ringing(self, write: Callable[[Connection], T]) -> T:
        result = await self._store.write(write)
        self._bus.publish("access")
        return result


def _id(actor: Actor) -> int:
    assert actor.user_id is not None
    return actor.user_id
