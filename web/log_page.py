"""The bytes, the index and the marks of a step's log, for the log view and for programs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence

from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.websockets import WebSocket

from ci.errors import Invalid, Unauthenticated
from ci.server import auth
from ci.server.auth import Action
from ci.server.logs import LogKey
from ci.server.store import views
from ci.server.store.database import Connection
from web import log_text
from web.build_page import find_log
from web.guard import Call, admit_socket
from web.log_text import LogText
from web.parts import Parts
from web.problems import NoSuchRange

CHUNK_BYTES = 256 * 1024
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})$")
#: Text only, whatever the bytes look like: a browser must never run what a step has printed.
_HEADERS = {"cache-control": "no-store", "accept-ranges": "bytes"}


async def raw(call: Call) -> Response:
    """The stored bytes, all or one range of them; `?download=1` to be saved."""
    key = await find_log(call)
    logs = call.parts.logs
    size = await asyncio.to_thread(logs.size, key)
    begin, end, is_part = _range(call.connection.headers.get("range", ""), size)
    headers = dict(_HEADERS)
    headers["content-length"] = str(end - begin)
    if is_part:
        headers["content-range"] = f"bytes {begin}-{end - 1}/{size}"
    if call.connection.query_params.get("download"):
        name = re.sub(
            r"[^A-Za-z0-9._-]", "_", f"{call.path('number')}-{call.path('job')}-{call.path('step')}"
        )
        headers["content-disposition"] = f'attachment; filename="{name}.log"'
    return StreamingResponse(
        _chunks(call.parts, key, begin, end), 206 if is_part else 200, headers, "text/plain; charset=utf-8"
    )


async def _chunks(parts: Parts, key: LogKey, begin: int, end: int) -> AsyncIterator[bytes]:
    while begin < end:
        data = await asyncio.to_thread(parts.logs.read, key, begin, min(CHUNK_BYTES, end - begin))
        if not data:
            return
        yield data
        begin += len(data)


def _range(header: str, size: int) -> tuple[int, int, bool]:
    """(begin, end, whether it is a part). What is no single range asks for everything."""
    match = _RANGE.match(header)
    if match is None or not (match[1] or match[2]):
        return 0, size, False
    if not match[1]:
        begin, end = max(0, size - int(match[2])), size
    else:
        begin = int(match[1])
        end = min(size, int(match[2]) + 1) if match[2] else size
    if begin >= end:
        raise NoSuchRange(f"the log has {size} bytes; there is nothing in {header[:60]!r}")
    return begin, end, True


async def index(call: Call) -> Response:
    """Rows of three big-endian 64 bit numbers: line (from 0), offset, milliseconds. The headers say how
    many bytes and lines there are."""
    key = await find_log(call)
    rows, size, lines = await asyncio.to_thread(_index, call.parts, key)
    headers = {"cache-control": "no-store", "x-log-size": str(size), "x-log-lines": str(lines)}
    return Response(rows, headers=headers, media_type="application/octet-stream")


def _index(parts: Parts, key: LogKey) -> tuple[bytes, int, int]:
    text = LogText(parts.logs, key)
    return text.index, text.size, text.count()


async def marks(call: Call) -> Response:
    """The side records, each with the line ("l", from 1) before which it stands; "next" continues them."""
    key = await find_log(call)
    found, after = await asyncio.to_thread(log_text.marks, call.parts.logs, key)
    return JSONResponse({"marks": found, "next": after}, headers={"cache-control": "no-store"})


class Sockets:
    """Which log, and which topics, a browser's socket may have."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def find(self, websocket: WebSocket) -> tuple[int, int, int]:
        key = await find_log(await self._admit(websocket))
        return key.job, key.attempt, key.step

    async def check(self, websocket: WebSocket, topics: Sequence[str]) -> None:
        """Topics say only "look again", but of a build or a job only to those who may read it."""
        call = await self._admit(websocket)

        def look(connection: Connection) -> None:
            for topic in topics:
                _require_topic(connection, call, topic)

        await self._parts.store.read(look)

    async def _admit(self, websocket: WebSocket) -> Call:
        """Asked again while the socket lives: whoever opened it must still be who asks."""
        call = await admit_socket(websocket, self._parts)
        actor = call.actor
        visitor = f"person {actor.user_id}" if actor.is_known else f"address {actor.address}"
        if not hasattr(websocket.state, "visitor"):
            websocket.state.visitor = visitor
        if visitor != websocket.state.visitor:
            raise Unauthenticated("this session has ended")
        return call


_OPEN_TOPICS = frozenset({"builds", "runners", "queue", "inbox"})
_TOPIC = re.compile(r"(build|job):([0-9]{1,18})")


def _require_topic(connection: Connection, call: Call, topic: str) -> None:
    if topic in _OPEN_TOPICS:
        return
    match = _TOPIC.fullmatch(topic)
    if match is None:
        raise Invalid(f"there is no topic {topic[:40]!r}")
    find = views.repo_of_build if match[1] == "build" else views.repo_of_job
    repo = find(connection, int(match[2]))
    auth.require(call.actor, Action.READ, repo or auth.NewPlace(owner=""))
