"""Pauses: a forge that could not answer is asked again ever more seldom, and not before it says so.

In memory alone: a server that starts again asks everybody at once, one time.
"""

from __future__ import annotations

from dataclasses import dataclass

from ci.errors import RateLimited
from ci.server.clock import Clock
from ci.server.forges.base import NotReady

FIRST_SECONDS = 15.0
MAX_SECONDS = 300.0
#: The first pause for what the forge is about to make.
NOT_READY_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class _Pause:
    until: float  #: monotonic seconds
    tries: int


class Pauses:
    """Of repos, whose forge could not answer, and of rows, which wait for something of their own."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._repos: dict[int, _Pause] = {}
        self._rows: dict[int, _Pause] = {}

    def rests(self, repo_id: int) -> bool:
        return self._is_on(self._repos.get(repo_id))

    def row_rests(self, row_id: int) -> bool:
        return self._is_on(self._rows.get(row_id))

    def _is_on(self, pause: _Pause | None) -> bool:
        return pause is not None and pause.until > self._clock.monotonic()

    def of_repo(self, repo_id: int, trouble: Exception | None) -> float:
        """Begin the next pause; returns its length in seconds."""
        return self._begin(self._repos, repo_id, trouble)

    def of_row(self, row_id: int, trouble: Exception | None) -> float:
        """The same, of a row."""
        return self._begin(self._rows, row_id, trouble)

    def end_repo(self, repo_id: int) -> None:
        self._repos.pop(repo_id, None)

    def end_row(self, row_id: int) -> None:
        self._rows.pop(row_id, None)

    def _begin(self, pauses: dict[int, _Pause], key: int, trouble: Exception | None) -> float:
        tries = pauses[key].tries + 1 if key in pauses else 0
        first = NOT_READY_SECONDS if isinstance(trouble, NotReady) else FIRST_SECONDS
        seconds = min(MAX_SECONDS, first * 2.0 ** min(tries, 20))
        if isinstance(trouble, RateLimited):
            seconds = max(seconds, trouble.retry_seconds)
        pauses[key] = _Pause(until=self._clock.monotonic() + seconds, tries=tries)
        return seconds
