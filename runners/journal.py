"""Journal: puts changes into the spool in order, in a thread of its own, so that no fsync delays a step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from ci.protocol import Change
from runners.spool import SpoolWriter


class Journal:
    """For one event loop. After the first failure nothing more is written, so that no line is missing."""

    def __init__(self, spool: SpoolWriter, on_broken: Callable[[BaseException], None]) -> None:
        self._spool = spool
        self._on_broken = on_broken
        self._thread = ThreadPoolExecutor(1, "journal")
        self._error: BaseException | None = None

    def put(self, make: Callable[[], Change]) -> None:
        """Append what `make` gives; it is called in the thread, in its turn."""
        loop = asyncio.get_running_loop()

        def look(done: Future[None]) -> None:
            if error := done.exception():
                loop.call_soon_threadsafe(self._on_broken, error)

        self._thread.submit(self._write, make).add_done_callback(look)

    async def close(self) -> None:
        """Return once everything is durable. Raises what kept it from being so."""
        await asyncio.to_thread(self._thread.shutdown)
        if self._error:
            raise self._error

    def _write(self, make: Callable[[], Change]) -> None:
        if self._error:
            return
        try:
            self._spool.record(make())
        except BaseException as error:
            self._error = error
            raise
