"""The clock, passed in wherever time matters, so that tests can hold it still."""

from __future__ import annotations

import time


class Clock:
    def now(self) -> float:
        """Wall clock: UTC seconds since 1970. For what people read, never for what decides a lease."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that only run forward, from an unknown start."""
        return time.monotonic()
