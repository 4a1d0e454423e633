"""The browsers' sockets: a log that grows, and "look again".

`LiveLog`, `?offset=N&marks=M`, sends the log from byte N on and its marks from byte M of their stream on:

    binary   offset as 8 bytes, big-endian, then the log's bytes from there
    text     {"marks": [...], "next": M}    whole marks (protocol.Stream.MARKS), and where to go on
    text     {"end": size}                  the log is complete; then the socket closes with 1000

A browser whose socket breaks asks again from the last byte and mark that it has. `LiveTopics`,
`?topics=builds,build:12`, sends {"changed": [...]}: once at the beginning with all of them, as what was
rendered before may be old, and whenever some changed, at most every COALESCE_SECONDS.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress

from starlette.websockets import WebSocket, WebSocketDisconnect

from ci.errors import Invalid, ShipwayError, Unavailable
from ci.protocol import Stream
from ci.server.bus import Bus
from ci.server.logs import LogKey, Logs
from web.crowd import Crowd

COALESCE_SECONDS = 0.1
MAX_TOPICS = 64
MAX_MESSAGE_BYTES = 4096
MAX_MESSAGES = 100  #: from a browser, before its socket is closed
_OFFSET = struct.Struct("!Q")
_ENDED, _REFUSED, _RESTART = 1000, 1008, 1012

#: Which log (job, attempt, step) a socket asks for, if who asks may read it; else a ShipwayError.
FindLog = Callable[[WebSocket], Awaitable[tuple[int, int, int]]]
#: Raises a ShipwayError unless who asks may watch all of these topics.
CheckTopics = Callable[[WebSocket, Sequence[str]], Awaitable[None]]


class LiveLog:
    def __init__(self, logs: Logs, find: FindLog, bus: Bus) -> None:
        self._logs = logs
        self._find = find
        self._bus = bus
        self._crowd = Crowd()

    async def serve(self, websocket: WebSocket) -> None:
        try:
            job, attempt, step = await self._find(websocket)
            offset = _number(websocket, "offset")
            marks_offset = _number(websocket, "marks")
            with self._crowd.place(websocket):
                await websocket.accept()
                sending = self._send(websocket, LogKey(job, attempt, step), offset, marks_offset)
                await until_left(websocket, sending, _until_refused(self._bus, lambda: self._find(websocket)))
        except ShipwayError as error:
            await websocket.close(_REFUSED, str(error)[:120])

    async def _send(self, websocket: WebSocket, key: LogKey, offset: int, marks_offset: int) -> None:
        marks_key = LogKey(key.job, key.attempt, key.step, Stream.MARKS)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send_bytes(websocket, key, offset))
                group.create_task(self._send_marks(websocket, marks_key, marks_offset))
        except* Unavailable:
            pass  # the server is stopping, or its disk fails: the browser comes again
        if self._logs.is_closed(key):
            await websocket.send_text(json.dumps({"end": self._logs.size(key)}))
            await websocket.close(_ENDED)
        else:
            await websocket.close(_RESTART)

    async def _send_bytes(self, websocket: WebSocket, key: LogKey, offset: int) -> None:
        async for begin, data in self._logs.follow(key, offset):
            await websocket.send_bytes(_OFFSET.pack(begin) + data)

    async def _send_marks(self, websocket: WebSocket, key: LogKey, offset: int) -> None:
        rest = b""
        async for begin, data in self._logs.follow(key, offset):
            *lines, rest = (rest + data).split(b"\n")
            if lines:
                after = begin + len(data) - len(rest)
                await websocket.send_text(f'{{"marks":[{b",".join(lines).decode()}],"next":{after}}}')


class LiveTopics:
    def __init__(self, bus: Bus, check: CheckTopics) -> None:
        self._bus = bus
        self._check = check
        self._crowd = Crowd()

    async def serve(self, websocket: WebSocket) -> None:
        try:
            topics = _topics(websocket)
            await self._check(websocket, topics)
            with self._crowd.place(websocket):
                await websocket.accept()
                watching = _until_refused(self._bus, lambda: self._check(websocket, topics))
                await until_left(websocket, self._send(websocket, topics), watching)
        except ShipwayError as error:
            await websocket.close(_REFUSED, str(error)[:120])

    async def _send(self, websocket: WebSocket, topics: Sequence[str]) -> None:
        changed = frozenset(topics)
        with self._bus.subscribe(*topics) as subscription:
            while True:
                if changed:
                    await websocket.send_text(json.dumps({"changed": sorted(changed)}))
                    await asyncio.sleep(COALESCE_SECONDS)
                changed = await subscription.wait()


async def _until_refused(bus: Bus, ask: Callable[[], Awaitable[object]]) -> None:
    """Ends when who asked may no more: signed out, disabled, a role taken away. Looks when "access" rings,
    and every LOOK_AGAIN_SECONDS."""
    with bus.subscribe("access") as subscription:
        while True:
            try:
                await ask()
            except Unavailable:
                pass  # not known now: the next look decides
            except ShipwayError:
                return
            await subscription.wait()


async def until_left(
    websocket: WebSocket, sending: Coroutine[None, None, None], watching: Coroutine[None, None, None]
) -> None:
    """Run `sending` until it ends, the other side leaves (which only a receiver is told), or `watching` ends:
    then the socket is closed as refused."""
    sender = asyncio.create_task(sending)
    receiver = asyncio.create_task(_receive_all(websocket))
    watcher = asyncio.create_task(watching)
    tasks = (sender, receiver, watcher)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        is_refused = not sender.done() and (watcher.done() or (receiver.done() and receiver.result()))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if is_refused:
        with suppress(WebSocketDisconnect, RuntimeError):
            await websocket.close(_REFUSED, "you may not see this any more")
    if not sender.cancelled() and (error := sender.exception()) and not _is_departure(error):
        raise error


async def _receive_all(websocket: WebSocket) -> bool:
    """Until the other side leaves. True: it talks, though a browser has nothing to say here."""
    for _ in range(MAX_MESSAGES):
        try:
            message = await websocket.receive()
        except WebSocketDisconnect:
            return False
        if message["type"] == "websocket.disconnect":
            return False
        if len(message.get("text") or message.get("bytes") or b"") > MAX_MESSAGE_BYTES:
            return True
    return True


def _is_departure(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_is_departure(inner) for inner in error.exceptions)
    return isinstance(error, WebSocketDisconnect)


def _number(websocket: WebSocket, name: str) -> int:
    text = websocket.query_params.get(name, "0")
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise Invalid(f"{name}={text[:40]!r} is no byte offset: give a number from 0.")
    return int(text)


def _topics(websocket: WebSocket) -> list[str]:
    text = websocket.query_params.get("topics", "")
    topics = sorted({topic for topic in text.split(",") if topic})
    if not 1 <= len(topics) <= MAX_TOPICS:
        raise Invalid(f"topics= names {len(topics)} topics: give 1 to {MAX_TOPICS}, with commas between.")
    return topics
