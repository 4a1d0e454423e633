"""Wrong passwords and codes, counted in memory: who guesses has to wait, and nobody else.

One name from one address gets `LIMIT` wrong ones within the window, one address in all `ADDRESS_LIMIT`,
and one name from everywhere `NAME_LIMIT`: the last does not hold for an address where that person is
signed in already, so that a crowd of guessers locks nobody out of their own browser's network. A loopback
address is this machine or a proxy that does not say for whom it asks: it has no limit of its own, as it
would be everybody's.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from ipaddress import ip_address

from ci.server.clock import Clock
from web.problems import TooMany


class Attempts:
    LIMIT = 10
    ADDRESS_LIMIT = 50
    NAME_LIMIT = 100
    WINDOW_SECONDS = 300.0
    #: Rows of the audit log: one address at most one a minute, all together at most so many.
    ROW_SECONDS = 60.0
    MAX_ROWS = 20
    _MAX_KEYS = 10_000

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failed: OrderedDict[str, list[float]] = OrderedDict()
        self._unnoted: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._rows: deque[float] = deque(maxlen=self.MAX_ROWS)

    def require(self, address: str, name: str = "") -> None:
        """Raises TooMany, before the password is even looked at."""
        self._require(f"{name} from {address}", self.LIMIT)
        if not _is_loopback(address):
            self._require(f"from {address}", self.ADDRESS_LIMIT)

    def is_stormed(self, name: str) -> bool:
        """Whether so many guess this name that only known addresses may go on."""
        return len(self._recent(f"{name} from anywhere")) >= self.NAME_LIMIT

    def refuse_stormed(self, name: str) -> None:
        self._require(f"{name} from anywhere", self.NAME_LIMIT)

    def _require(self, key: str, limit: int) -> None:
        recent = self._recent(key)
        if len(recent) >= limit:
            wait = int(self.WINDOW_SECONDS - (self._clock.monotonic() - recent[0])) + 1
            raise TooMany(f"too many wrong passwords or codes; please wait {wait} s", wait)

    def _recent(self, key: str) -> list[float]:
        now = self._clock.monotonic()
        return [at for at in self._failed.get(key, ()) if now - at < self.WINDOW_SECONDS]

    def failed(self, address: str, name: str = "") -> int:
        """Count one. Returns how many of this address the audit log should hear of now; 0: none."""
        now = self._clock.monotonic()
        for key in (f"{name} from {address}", f"from {address}", f"{name} from anywhere"):
            before = self._recent(key)
            self._failed.pop(key, None)
            self._failed[key] = [*before[-self.NAME_LIMIT :], now]
        while len(self._failed) > self._MAX_KEYS:
            self._failed.popitem(last=False)
        return self._to_note(address, now)

    def _to_note(self, address: str, now: float) -> int:
        noted_at, count = self._unnoted.pop(address, (now - self.ROW_SECONDS, 0))
        is_quiet = len(self._rows) < self.MAX_ROWS or now - self._rows[0] >= self.ROW_SECONDS
        is_due = now - noted_at >= self.ROW_SECONDS and is_quiet
        self._unnoted[address] = (now, 0) if is_due else (noted_at, count + 1)
        if len(self._unnoted) > self._MAX_KEYS:
            self._unnoted.popitem(last=False)
        if not is_due:
            return 0
        self._rows.append(now)
        return count + 1


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return not address  # a socket of this machine has none
