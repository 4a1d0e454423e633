"""Control: one conversation with the server over the control socket."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress

from pydantic import ValidationError
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from ci import protocol
from ci.protocol import Hello, RunnerMessage, ServerMessage, Welcome

_WELCOME_SECONDS = 30.0


class Control:
    """Says Hello on each connection, and from Welcome on carries messages. What is sent while there is
    no conversation is dropped: after the next Welcome everything that still matters is said anew."""

    def __init__(self, hello: Callable[[], Hello], on_message: Callable[[ServerMessage], None]) -> None:
        self._hello = hello
        self._on_message = on_message
        self._outbox: asyncio.Queue[RunnerMessage] | None = None
        self._connection: ClientConnection | None = None

    @property
    def is_open(self) -> bool:
        return self._outbox is not None

    def send(self, message: RunnerMessage) -> None:
        if self._outbox is not None:
            self._outbox.put_nowait(message)

    async def send_now(self, message: RunnerMessage) -> None:
        """Ahead of what waits: for heartbeats."""
        if self._outbox is not None and self._connection is not None:
            with suppress(ConnectionClosed):
                await self._connection.send(protocol.encode(message))

    async def serve(self, connection: ClientConnection) -> None:
        await connection.send(protocol.encode(self._hello()))
        async with asyncio.timeout(_WELCOME_SECONDS):
            first = protocol.decode_from_server(await connection.recv())
        if not isinstance(first, Welcome):
            raise ConnectionError(f"the server began with {first.type} instead of welcome")
        self._outbox, self._connection = asyncio.Queue(), connection
        sender = asyncio.create_task(self._send(connection, self._outbox))
        try:
            self._on_message(first)
            async for text in connection:
                self._receive(text)
        finally:
            self._outbox = self._connection = None
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    def _receive(self, text: str | bytes) -> None:
        try:
            message = protocol.decode_from_server(text)
        except ValidationError as error:
            # A newer server may say more than we know; what we know goes on.
            print(f"control: a message that this version does not know: {error.title}", file=sys.stderr)
            return
        self._on_message(message)

    async def _send(self, connection: ClientConnection, outbox: asyncio.Queue[RunnerMessage]) -> None:
        while True:
            await connection.send(protocol.encode(await outbox.get()))
