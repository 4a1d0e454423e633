"""LogShipper: sends the spools' log bytes over the log socket, in turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from websockets.asyncio.client import ClientConnection

from ci.protocol import LogFrame
from runners.attempt import Attempt

LOOK_AGAIN_SECONDS = 1.0
#: After a round of little, the next one waits so long: a flood in small pieces goes out in larger ones.
SMALL_BYTES = 64 * 1024
PAUSE_SECONDS = 0.005


class LogShipper:
    """Serves one log connection at a time: one task sends, round robin, another one receives."""

    def __init__(
        self, attempts: Callable[[], Iterable[Attempt]], on_answer: Callable[[LogFrame], None]
    ) -> None:
        self._attempts = attempts
        self._on_answer = on_answer
        self._news = asyncio.Event()

    def ring(self) -> None:
        """There may be something new to send."""
        self._news.set()

    async def serve(self, connection: ClientConnection) -> None:
        for attempt in self._attempts():
            attempt.rewind_logs()
        sender = asyncio.create_task(self._send(connection))
        try:
            async for data in connection:
                if isinstance(data, bytes):
                    self._on_answer(LogFrame.decode(data))
                    self._news.set()
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    async def _send(self, connection: ClientConnection) -> None:
        while True:
            self._news.clear()
            if sent := await self._send_round(connection):
                if sent < SMALL_BYTES:
                    await asyncio.sleep(PAUSE_SECONDS)
                continue
            try:
                async with asyncio.timeout(LOOK_AGAIN_SECONDS):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _send_round(self, connection: ClientConnection) -> int:
        """One frame of each stream of each attempt, so that a flood delays no other log for long."""
        sent = 0
        for attempt in list(self._attempts()):
            for frame in attempt.next_frames():
                data = frame.encode()
                await connection.send(data)
                sent += len(data)
        return sent
