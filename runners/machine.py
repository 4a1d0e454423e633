"""Machine: the engine as the supervisor sees it: is it there, what is on it, remove what is dead."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

from runners.engines.base import EngineError, Janitor

PROBE_SECONDS = 10.0
_RETRY_SECONDS = 5.0


class Machine:
    """The janitor's blocking calls, in threads. `on_change` is called when the engine comes or goes."""

    def __init__(self, janitor: Janitor, server: str, on_change: Callable[[], None]) -> None:
        self._janitor = janitor
        self._server = server
        self._on_change = on_change
        self.engine = ""  #: e.g. "docker 27.1", or why there is none
        self.is_there = False

    async def probe(self) -> None:
        """Look whether the engine answers."""
        was = (self.is_there, self.engine)
        try:
            self.engine = await asyncio.to_thread(self._janitor.describe)
            self.is_there = True
        except EngineError as error:
            self.engine, self.is_there = str(error), False
        if was != (self.is_there, self.engine):
            print(f"engine: {self.engine}", file=sys.stderr, flush=True)
            self._on_change()

    async def keep_probing(self) -> None:
        while True:
            await asyncio.sleep(PROBE_SECONDS)
            await self.probe()

    async def attempts(self) -> list[tuple[str, int, int]]:
        """(runner, job, attempt) of all that this server's runners have here. Raises EngineError."""
        return await asyncio.to_thread(lambda: list(self._janitor.attempts(self._server)))

    async def remove(self, key: tuple[int, int]) -> None:
        """Remove everything of an attempt. Raises EngineError."""
        await asyncio.to_thread(self._janitor.remove_attempt, self._server, *key)

    async def remove_surely(self, key: tuple[int, int]) -> None:
        """Remove, and try again as long as the engine does not answer."""
        while True:
            try:
                return await self.remove(key)
            except EngineError as error:
                job, attempt = key
                print(f"engine: job {job}, attempt {attempt} is not removed yet: {error}", file=sys.stderr)
                await asyncio.sleep(_RETRY_SECONDS)
