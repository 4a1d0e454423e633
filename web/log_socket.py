"""The server's end of /runner/logs: log frames in, durable lengths out.

How the answers are to be read by a runner:

* DURABLE answers chunks, one for as many as were synced together: everything below its offset is synced.
* RESEND says that there is a gap before what was sent, or that a CLOSE does not fit: go on from its offset.
* CLOSED and STALE end a stream. A socket that closes with 1013 could not keep what it got: try again later.

Of each log at most MAX_UNSYNCED_BYTES are on their way to the disk; then the socket is not read until some
of them arrived there. So the memory of a connection is flat, and a flood holds up another log's answer for
no longer than a sync takes.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress

from starlette.websockets import WebSocket, WebSocketDisconnect

from ci.errors import Conflict, Unavailable
from ci.protocol import MAX_PAYLOAD_BYTES, FrameKind, Lease, LogFrame, Stream
from ci.server.logs import LogKey, Logs

MAX_UNSYNCED_BYTES = 4 << 20
#: An answer about a lease holds so long. A stale runner may add to the log of its own dead attempt
#: meanwhile, to no other; whether a close counts is asked in the transaction that records it.
LEASE_SECONDS = 1.0
MAX_LEASES_KNOWN = 256
_CRC = struct.Struct("!I")
_UNSUPPORTED, _TRY_AGAIN_LATER = 1003, 1013

Holds = Callable[[int, Lease], Awaitable[bool]]
LogClosed = Callable[[Lease, int, Stream, int, int], Awaitable[bool]]


class LogSocket:
    """`holds(runner, lease)` says whose a lease is; `log_closed(lease, step, stream, size, crc32)` records
    the end of a log, or says False where the lease is over."""

    def __init__(self, logs: Logs, *, holds: Holds, log_closed: LogClosed) -> None:
        self.logs = logs
        self.holds = holds
        self.log_closed = log_closed

    async def serve(self, websocket: WebSocket, runner_id: int) -> None:
        """From the handshake to the end. The caller has checked the runner's credential."""
        await websocket.accept()
        await _Connection(self, websocket, runner_id).run()


class _Stream:
    """What is owed for one stream on this connection."""

    def __init__(self, key: LogKey) -> None:
        self.key = key
        self.wanted = 0  # the largest end of a chunk
        self.told = 0  # the last durable length sent
        self.is_owed = False
        self.is_answering = False
        self.has_gap = False  # told; more frames behind it may be on their way


class _Connection:
    def __init__(self, parts: LogSocket, websocket: WebSocket, runner_id: int) -> None:
        self._parts = parts
        self._logs = parts.logs
        self._websocket = websocket
        self._runner_id = runner_id
        self._streams: dict[LogKey, _Stream] = {}
        self._leases: dict[Lease, tuple[float, bool]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        try:
            while (data := await self._receive()) is not None:
                await self._take(LogFrame.decode(data))
        except ValueError as error:
            await self._close(_UNSUPPORTED, str(error))
        except Unavailable as error:
            await self._close(_TRY_AGAIN_LATER, str(error))
        except WebSocketDisconnect:
            return
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _receive(self) -> bytes | None:
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            return None
        data: bytes | None = message.get("bytes")
        if data is None:
            raise ValueError("this socket takes binary log frames only")
        return data

    async def _take(self, frame: LogFrame) -> None:
        key = LogKey(frame.lease.job, frame.lease.attempt, frame.step, frame.stream)
        if frame.kind not in (FrameKind.CHUNK, FrameKind.CLOSE):
            raise ValueError(f"a runner does not send {frame.kind.name}")
        if len(frame.payload) > MAX_PAYLOAD_BYTES:
            raise ValueError(
                f"a log frame carries at most {MAX_PAYLOAD_BYTES} bytes, not {len(frame.payload)}"
            )
        if not await self._is_current(frame):
            return
        if frame.kind is FrameKind.CLOSE:
            (crc32,) = _CRC.unpack(frame.payload) if len(frame.payload) == _CRC.size else (None,)
            if crc32 is None:
                raise ValueError(f"CLOSE carries {_CRC.size} bytes of CRC-32, not {len(frame.payload)}")
            self._start(self._close_stream(frame, key, crc32))
            return
        await self._append(frame, self._streams.setdefault(key, _Stream(key)))

    async def _is_current(self, frame: LogFrame) -> bool:
        until, holds = self._leases.get(frame.lease, (0.0, False))
        if time.monotonic() < until:
            return holds
        if len(self._leases) > MAX_LEASES_KNOWN:
            self._leases.clear()
        holds = await self._parts.holds(self._runner_id, frame.lease)
        self._leases[frame.lease] = time.monotonic() + LEASE_SECONDS, holds
        if not holds:
            await self._answer(FrameKind.STALE, frame, 0)
        return holds

    async def _append(self, frame: LogFrame, stream: _Stream) -> None:
        end = frame.offset + len(frame.payload)
        size = self._logs.write(stream.key, frame.offset, frame.payload)
        if size < end:
            if not stream.has_gap:
                stream.has_gap = True
                await self._answer(FrameKind.RESEND, frame, await self._logs.synced(stream.key, 0))
            return
        stream.has_gap = False
        stream.wanted = max(stream.wanted, end)
        stream.is_owed = True
        if not stream.is_answering:
            stream.is_answering = True
            self._start(self._answer_durable(frame, stream))
        if frame.payload:
            await self._logs.synced(stream.key, size - MAX_UNSYNCED_BYTES)

    async def _answer_durable(self, frame: LogFrame, stream: _Stream) -> None:
        """Tell what is durable as long as something is owed."""
        try:
            while stream.is_owed or stream.told < stream.wanted:
                stream.is_owed = False
                needed = min(stream.wanted, stream.told + 1)
                durable = await self._logs.synced(stream.key, needed)
                if self._streams.get(stream.key) is not stream:
                    return  # closed, or begun anew, meanwhile
                if durable < needed:
                    raise Unavailable(f"The log of {stream.key} lost what was not synced: send it again.")
                await self._answer(FrameKind.DURABLE, frame, durable)
                stream.told = durable
        finally:
            stream.is_answering = False

    async def _close_stream(self, frame: LogFrame, key: LogKey, crc32: int) -> None:
        try:
            again = await self._logs.close_stream(key, frame.offset, crc32)
            self._streams.pop(key, None)
        except Conflict:
            await self._answer(FrameKind.STALE, frame, 0)
            return
        if again is not None:
            await self._answer(FrameKind.RESEND, frame, again)
            return
        is_recorded = await self._parts.log_closed(frame.lease, frame.step, frame.stream, frame.offset, crc32)
        await self._answer(FrameKind.CLOSED if is_recorded else FrameKind.STALE, frame, frame.offset)

    async def _answer(self, kind: FrameKind, frame: LogFrame, offset: int) -> None:
        answer = LogFrame(kind, frame.lease, frame.step, frame.stream, offset)
        await self._websocket.send_bytes(answer.encode())

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except Unavailable as error:
            await self._close(_TRY_AGAIN_LATER, str(error))
        except WebSocketDisconnect:
            return  # the receiving loop learns it too

    async def _close(self, code: int, reason: str) -> None:
        # A reason has at most 123 bytes; a socket that is closed already needs none.
        with suppress(RuntimeError, WebSocketDisconnect):
            await self._websocket.close(code, reason.encode()[:123].decode(errors="ignore"))
