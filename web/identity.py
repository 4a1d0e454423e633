"""Who comes with a credential; and that it was used, stored at most once a minute."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from ci.errors import Unauthenticated, Unavailable
from ci.server.auth import ANONYMOUS, Actor
from ci.server.clock import Clock
from ci.server.store import sessions, tokens
from ci.server.store.database import Store


class Identity:
    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def of_token(self, token: str, address: str) -> Actor:
        """Raises Unauthenticated for one that is not known, is too old, or whose account is disabled."""
        now = self._clock.now()
        visit = await self._store.read(lambda c: tokens.visit(c, token, now))
        if visit is None:
            raise Unauthenticated("this token is not known here; make one on the page Account")
        if visit.is_due:
            with suppress(Unavailable):  # a full disk does not keep people from reading
                await self._store.write(lambda c: tokens.used(c, visit.row_id, now))
        return replace(visit.actor, address=address)

    async def of_session(self, cookie: str, address: str) -> Actor:
        """A session that has ended is nobody's."""
        now = self._clock.now()
        visit = await self._store.read(lambda c: sessions.visit(c, cookie, now)) if cookie else None
        if visit is None:
            return replace(ANONYMOUS, address=address)
        if visit.is_due:
            with suppress(Unavailable):
                await self._store.write(lambda c: sessions.seen(c, visit.row_id, now, address))
        return replace(visit.actor, address=address)
