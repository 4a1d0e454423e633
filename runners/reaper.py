"""Reaper: removes from the engine what belongs to dead attempts, every 30 s, also without a server.

Of our own runner: every attempt whose spool no living process holds and that nobody else of us removes.
Of another runner of the same server on this engine: only what the server calls dead (law 11). A pass is
repeated for ever, because a create whose client was killed may still complete after a listing.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

from runners.engines.base import EngineError
from runners.machine import Machine

PASS_SECONDS = 30.0
Key = tuple[int, int]


class Reaper:
    """`is_in_use` says of an attempt of ours whether it may still need what it has."""

    def __init__(
        self,
        machine: Machine,
        runner: str,
        is_in_use: Callable[[Key], bool],
        ask: Callable[[tuple[Key, ...]], None],
    ) -> None:
        self._machine = machine
        self._runner = runner
        self._is_in_use = is_in_use
        self._ask = ask
        self._asked: set[Key] = set()

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(PASS_SECONDS)

    async def look(self) -> None:
        """One pass."""
        try:
            found = await self._machine.attempts()
            # In use is asked after the listing: what was listed then had its process before.
            for runner, *key in found:
                if runner == self._runner and not self._is_in_use((key[0], key[1])):
                    await self._remove((key[0], key[1]))
        except EngineError:
            return  # the probe says so already
        self._asked = {(job, attempt) for runner, job, attempt in found if runner != self._runner}
        if self._asked:
            self._ask(tuple(sorted(self._asked)))

    async def dead(self, key: Key) -> None:
        """The server calls an attempt dead that we asked for."""
        if key in self._asked:
            self._asked.discard(key)
            try:
                await self._remove(key)
            except EngineError as error:
                print(f"engine: {error}", file=sys.stderr)

    async def _remove(self, key: Key) -> None:
        await self._machine.remove(key)
        print(f"reaper: removed what job {key[0]}, attempt {key[1]} had left", file=sys.stderr, flush=True)
