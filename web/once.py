"""Secrets that a page shows once: kept in memory for the one redirect between making and showing them."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from ci.server.auth import Actor
from ci.server.clock import Clock

KEEP_SECONDS = 60.0
MAX_KEPT = 1000


@dataclass(frozen=True, kw_only=True)
class _Kept:
    user_id: int | None
    about: str
    value: str = field(repr=False)
    until: float


class Once:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[str, _Kept] = {}

    def keep(self, value: str, about: str, actor: Actor) -> str:
        """A key that gives the value back once, to the same person, for the same thing. It tells nothing."""
        now = self._clock.monotonic()
        self._kept = {key: each for key, each in self._kept.items() if each.until > now}
        while len(self._kept) >= MAX_KEPT:
            self._kept.pop(next(iter(self._kept)))
        key = secrets.token_urlsafe(16)
        self._kept[key] = _Kept(user_id=actor.user_id, about=about, value=value, until=now + KEEP_SECONDS)
        return key

    def take(self, key: str, about: str, actor: Actor) -> str:
        """Empty where it was taken already, is somebody else's, or too old."""
        found = self._kept.get(key)
        if found is None or (found.user_id, found.about) != (actor.user_id, about):
            return ""
        del self._kept[key]
        return found.value if found.until > self._clock.monotonic() else ""
