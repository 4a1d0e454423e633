"""Link: one WebSocket to the server that is kept open, with backoff and jitter."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Awaitable, Callable
from ssl import SSLError
from typing import Literal

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, WebSocketException

FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 15.0
#: A connection that lived so long was a good one: the next retry is fast again.
GOOD_AFTER_SECONDS = 5.0
_MAX_MESSAGE_BYTES = 64 << 20
_WRITE_LIMIT_BYTES = 1 << 20


class Link:
    """Calls `serve` with each connection, for as long as that one lives. `name` is for what we print."""

    def __init__(
        self,
        name: str,
        url: str,
        credential: str,
        serve: Callable[[ClientConnection], Awaitable[None]],
        *,
        is_loopback: bool = False,
    ) -> None:
        self._name = name
        self._url = url
        self._headers = {"Authorization": f"Bearer {credential}"}
        self._serve = serve
        self._proxy: Literal[True] | None = None if is_loopback else True
        self._connection: ClientConnection | None = None
        self._last_words: str | None = None

    async def run(self) -> None:
        """For ever, until it is cancelled."""
        failures = 0
        while True:
            began = time.monotonic()
            try:
                await self._connect_once()
            except (OSError, SSLError, WebSocketException, TimeoutError, ValueError) as error:
                self._say(_reason(error))
            failures = 0 if time.monotonic() - began > GOOD_AFTER_SECONDS else failures + 1
            await asyncio.sleep(delay_seconds(failures))

    def renew(self) -> None:
        """Close the present connection, so that a new one says everything anew."""
        if self._connection is not None:
            self._connection.transport.abort()

    async def _connect_once(self) -> None:
        async with connect(
            self._url,
            additional_headers=self._headers,
            compression=None,
            max_size=_MAX_MESSAGE_BYTES,
            write_limit=_WRITE_LIMIT_BYTES,
            ping_interval=10,
            ping_timeout=30,
            close_timeout=2,
            proxy=self._proxy,
        ) as connection:
            self._connection = connection
            self._say("")
            try:
                await self._serve(connection)
            finally:
                self._connection = None

    def _say(self, words: str) -> None:
        """Once for each change, not for each retry."""
        if words != self._last_words:
            self._last_words = words
            print(f"{self._name}: {words or 'connected'}", file=sys.stderr, flush=True)


def delay_seconds(failures: int) -> float:
    """Before the next try: about 100 ms at first, doubled each time, at most 15 s; never the same twice."""
    longest = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(failures, 10))
    return longest * random.uniform(0.5, 1.0)


def _reason(error: BaseException) -> str:
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        if status in (401, 403):
            return (
                f"the server does not accept this runner's credential (HTTP {status}): it was removed there. "
                "Remove credential.json from the data folder and register with a new code."
            )
        return f"the server answers HTTP {status}; trying again"
    if isinstance(error, ConnectionClosed):
        closed = error.rcvd
        return f"the server closed the connection: {closed.reason}" if closed and closed.reason else "cut off"
    if isinstance(error, (InvalidHandshake, ValueError)):
        return f"what answers is no Shipway server: {error}"
    return f"no connection: {error}; trying again"
