"""/runner/logs over a real server: what is durable is told, whatever is cut, resent or stale."""

from __future__ import annotations

import asyncio
import errno
import os
import struct
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from ci.protocol import FrameKind, Lease, LogFrame, Stream
from ci.server import log_file
from ci.server.clock import Clock
from ci.server.logs import LogKey, Logs
from tests.ready import Ready
from web.log_socket import LogSocket

LEASE = Lease(job=7, attempt=1, epoch=3)
STALE = Lease(job=7, attempt=1, epoch=2)
KEY = LogKey(7, 1, 2)
RUNNER = 41
CRC = struct.Struct("!I")


@dataclass
class Host:
    """A server with the log socket, and what it asked and was told."""

    logs: Logs
    port: int = 0
    asked: list[tuple[int, Lease]] = field(default_factory=list)
    closed: list[tuple[Lease, int, Stream, int, int]] = field(default_factory=list)
    is_over: bool = False

    async def holds(self, runner_id: int, lease: Lease) -> bool:
        self.asked.append((runner_id, lease))
        return lease == LEASE

    async def log_closed(self, lease: Lease, step: int, stream: Stream, size: int, crc32: int) -> bool:
        self.closed.append((lease, step, stream, size, crc32))
        return not self.is_over

    def connect(self, port: int = 0) -> connect:
        return connect(f"ws://127.0.0.1:{port or self.port}/runner/logs", compression=None, max_size=1 << 20)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    logs = Logs(tmp_path / "logs", clock=Clock())
    await logs.start()
    made = Host(logs)
    socket = LogSocket(logs, holds=made.holds, log_closed=made.log_closed)

    async def endpoint(websocket: WebSocket) -> None:
        await socket.serve(websocket, RUNNER)

    app = Starlette(routes=[WebSocketRoute("/runner/logs", endpoint)])
    config = uvicorn.Config(
        app,
        port=0,
        log_level="error",
        lifespan="off",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=2,
    )
    server = Ready(config)
    serving = asyncio.create_task(server.serve())
    await asyncio.wait_for(server.is_ready.wait(), 10)
    made.port = server.port
    yield made
    server.should_exit = True
    await asyncio.wait_for(serving, 10)
    await logs.close()


def chunk(offset: int, data: bytes, *, lease: Lease = LEASE, step: int = 2) -> bytes:
    return LogFrame(FrameKind.CHUNK, lease, step, Stream.BYTES, offset, data).encode()


def close(data: bytes, *, lease: Lease = LEASE, step: int = 2) -> bytes:
    crc32 = CRC.pack(zlib.crc32(data))
    return LogFrame(FrameKind.CLOSE, lease, step, Stream.BYTES, len(data), crc32).encode()


async def answer(connection: ClientConnection) -> tuple[FrameKind, int]:
    data = await asyncio.wait_for(connection.recv(), 10)
    assert isinstance(data, bytes)
    frame = LogFrame.decode(data)
    assert frame.lease in (LEASE, STALE)
    return frame.kind, frame.offset


async def durable(connection: ClientConnection, size: int) -> None:
    """Read DURABLE answers up to `size`."""
    while (got := await answer(connection)) != (FrameKind.DURABLE, size):
        assert got[0] is FrameKind.DURABLE and got[1] < size


async def test_chunks_are_answered_with_what_is_durable(host: Host) -> None:
    async with host.connect() as connection:
        await connection.send(chunk(0, b"one\n"))
        assert await answer(connection) == (FrameKind.DURABLE, 4)
        await connection.send(chunk(4, b"two\n"))
        assert await answer(connection) == (FrameKind.DURABLE, 8)
    assert host.logs.read(KEY, 0, 100) == b"one\ntwo\n"
    assert host.asked == [(RUNNER, LEASE)]


async def test_a_log_is_closed_when_size_and_checksum_agree_and_that_is_recorded(host: Host) -> None:
    data = os.urandom(700_000)
    async with host.connect() as connection:
        for at in range(0, len(data), 100_000):
            await connection.send(chunk(at, data[at : at + 100_000]))
        await connection.send(close(data))
        while (got := await answer(connection))[0] is FrameKind.DURABLE:
            pass
        assert got == (FrameKind.CLOSED, len(data))
        assert host.closed == [(LEASE, 2, Stream.BYTES, len(data), zlib.crc32(data))]
        await connection.send(close(data))
        assert await answer(connection) == (FrameKind.CLOSED, len(data))
    assert host.logs.is_closed(KEY)
    assert host.logs.read(KEY, 0, 1 << 20) == data


async def test_a_gap_is_answered_once_with_where_to_go_on(host: Host) -> None:
    async with host.connect() as connection:
        await connection.send(chunk(0, b"abc"))
        assert await answer(connection) == (FrameKind.DURABLE, 3)
        for offset in (10, 20, 30):
            await connection.send(chunk(offset, b"0123456789"))
        await connection.send(chunk(3, b"def"))
        assert await answer(connection) == (FrameKind.RESEND, 3)
        assert await answer(connection) == (FrameKind.DURABLE, 6)
    assert host.logs.read(KEY, 0, 100) == b"abcdef"


async def test_what_is_sent_again_is_trimmed_and_answered(host: Host) -> None:
    await host.logs.append(KEY, 0, b"abcdef")
    async with host.connect() as connection:
        await connection.send(chunk(0, b"abc"))
        assert await answer(connection) == (FrameKind.DURABLE, 6)
        await connection.send(chunk(0, b""))
        assert await answer(connection) == (FrameKind.DURABLE, 6)


async def test_a_close_that_does_not_fit_is_answered_with_where_to_send_again(host: Host) -> None:
    async with host.connect() as connection:
        await connection.send(chunk(0, b"abXdef"))
        assert await answer(connection) == (FrameKind.DURABLE, 6)
        await connection.send(close(b"abcdef"))
        assert await answer(connection) == (FrameKind.RESEND, 0)
        await connection.send(chunk(0, b"abcdef"))
        assert await answer(connection) == (FrameKind.DURABLE, 6)
        await connection.send(close(b"abcdefgh"))
        assert await answer(connection) == (FrameKind.RESEND, 6)
        await connection.send(close(b"abcdef"))
        assert await answer(connection) == (FrameKind.CLOSED, 6)


async def test_a_stale_lease_changes_nothing(host: Host) -> None:
    async with host.connect() as connection:
        await connection.send(chunk(0, b"ghost", lease=STALE))
        assert await answer(connection) == (FrameKind.STALE, 0)
        await connection.send(close(b"", lease=STALE))
        await connection.send(chunk(0, b"true"))
        assert await answer(connection) == (FrameKind.DURABLE, 4)
    assert host.logs.read(KEY, 0, 100) == b"true"
    assert host.closed == []


async def test_a_lease_that_ended_before_its_close_was_recorded_is_stale(host: Host) -> None:
    host.is_over = True
    async with host.connect() as connection:
        await connection.send(close(b""))
        assert await answer(connection) == (FrameKind.STALE, 0)


async def test_a_log_that_is_closed_already_with_other_bytes_is_stale(host: Host) -> None:
    await host.logs.close_stream(KEY, 0, 0)
    async with host.connect() as connection:
        await connection.send(close(b"abc"))
        assert await answer(connection) == (FrameKind.STALE, 0)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"short",
        b"\xff" * 60,
        "text",
        chunk(0, b"x" * (256 * 1024 + 1)),
        LogFrame(FrameKind.CLOSE, LEASE, 2, Stream.BYTES, 0, b"12345").encode(),
        LogFrame(FrameKind.DURABLE, LEASE, 2, Stream.BYTES, 0).encode(),
    ],
)
async def test_what_is_no_frame_of_a_runner_ends_the_socket_with_a_reason(
    host: Host, data: bytes | str
) -> None:
    async with host.connect() as connection:
        await connection.send(data)
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(connection.recv(), 10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1003
    assert closed.value.rcvd.reason


async def test_a_full_disk_ends_the_socket_with_try_again_later(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite

    def full(fd: int, data: bytes, offset: int) -> int:
        if len(data) > 1000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data, offset)

    async with host.connect() as connection:
        await connection.send(chunk(0, b"kept"))
        assert await answer(connection) == (FrameKind.DURABLE, 4)
        monkeypatch.setattr(log_file.os, "pwrite", full)
        await connection.send(chunk(4, b"x" * 2000))
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(connection.recv(), 10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1013
    monkeypatch.setattr(log_file.os, "pwrite", real)
    async with host.connect() as connection:
        await connection.send(chunk(4, b"x" * 2000))
        await durable(connection, 2004)


async def test_after_a_failed_sync_a_new_connection_goes_on_from_what_is_durable(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fdatasync

    def broken(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async with host.connect() as connection:
        await connection.send(chunk(0, b"kept"))
        assert await answer(connection) == (FrameKind.DURABLE, 4)
        monkeypatch.setattr(log_file.os, "fdatasync", broken)
        await connection.send(chunk(4, b"lost"))
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(connection.recv(), 10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1013
    monkeypatch.setattr(log_file.os, "fdatasync", real)
    async with host.connect() as connection:
        await connection.send(chunk(8, b"more"))
        assert await answer(connection) == (FrameKind.RESEND, 4)
        await connection.send(chunk(4, b"lostmore"))
        await durable(connection, 12)
    assert host.logs.read(KEY, 0, 100) == b"keptlostmore"


async def test_a_flood_does_not_hold_up_the_answer_for_another_log(host: Host) -> None:
    flood = b"x" * (256 * 1024)
    async with host.connect() as connection:
        for number in range(100):
            await connection.send(chunk(number * len(flood), flood))
        await connection.send(chunk(0, b"quiet\n", step=3))
        await connection.send(chunk(100 * len(flood), flood))
        answers: dict[int, int] = {}
        while answers.get(3) != 6:
            data = await asyncio.wait_for(connection.recv(), 10)
            assert isinstance(data, bytes)
            frame = LogFrame.decode(data)
            answers[frame.step] = frame.offset
        assert 101 * len(flood) - answers[2] <= 6 << 20


class CuttingProxy:
    """A TCP proxy; each connection is cut hard after so many bytes from the client, the last never."""

    def __init__(self, port: int, cuts: list[int]) -> None:
        self._to = port
        self._cuts = cuts
        self.count = 0
        self.port = 0

    async def __aenter__(self) -> CuttingProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = self._cuts[self.count] if self.count < len(self._cuts) else 1 << 60
        self.count += 1
        there, back = await asyncio.open_connection("127.0.0.1", self._to)
        returning = asyncio.create_task(self._copy(there, writer, 1 << 60))
        await self._copy(reader, back, left)
        back.transport.abort()
        writer.transport.abort()
        await asyncio.gather(returning, return_exceptions=True)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: int) -> None:
        try:
            while left and (data := await reader.read(min(65536, left))):
                writer.write(data)
                await writer.drain()
                left -= len(data)
        except ConnectionError:
            return
        if left:
            writer.close()  # the other side has ended in order


async def ship(host: Host, port: int, data: bytes) -> int:
    """As a runner does: from what is durable, in a window, again after each cut. Returns the connections."""
    told, connections = 0, 0
    while True:
        connections += 1
        try:
            async with host.connect(port) as connection:
                sent = told
                while told < len(data):
                    while sent < len(data) and sent - told < 1 << 20:
                        await connection.send(chunk(sent, data[sent : sent + 50_000]))
                        sent += 50_000
                    kind, told = await answer(connection)
                    if kind is FrameKind.RESEND:
                        sent = told
                await connection.send(close(data))
                while (got := await answer(connection))[0] is not FrameKind.CLOSED:
                    assert got[0] is FrameKind.DURABLE
                return connections
        except (WebSocketException, ConnectionError):
            continue


async def test_a_connection_cut_in_mid_frame_again_and_again_loses_and_doubles_nothing(host: Host) -> None:
    data = b"".join(b"a %d %s %d\n" % (i, b"." * 80, i * 40503) for i in range(50_000))
    cuts = [1, 300, 40_001, 777_777, 1_234_567]
    async with CuttingProxy(host.port, cuts) as proxy:
        assert await asyncio.wait_for(ship(host, proxy.port, data), 30) == len(cuts) + 1
    assert host.logs.read(KEY, 0, 1 << 24) == data
    assert host.logs.is_closed(KEY)


async def test_memory_stays_flat_while_the_disk_is_slow(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    may_sync = asyncio.Event()
    real = os.fdatasync

    def slow(fd: int) -> None:
        asyncio.run_coroutine_threadsafe(may_sync.wait(), loop).result(10)
        real(fd)

    monkeypatch.setattr(log_file.os, "fdatasync", slow)
    flood = b"x" * (256 * 1024)

    async def send_all(connection: ClientConnection) -> None:
        for number in range(400):
            await connection.send(chunk(number * len(flood), flood))

    async with host.connect() as connection:
        sending = asyncio.create_task(send_all(connection))
        # More than the bound never arrives; the rest waits in the sender.
        done, _ = await asyncio.wait({sending}, timeout=0.5)
        assert not done
        assert host.logs.size(KEY) <= 5 << 20
        may_sync.set()
        await asyncio.wait_for(sending, 10)
        await durable(connection, 400 * len(flood))
