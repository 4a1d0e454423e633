"""The browsers' sockets over a real server: a log resumed by offset, and "look again"."""

from __future__ import annotations

import asyncio
import json
import struct
import zlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from ci.errors import Forbidden, NotFound
from ci.protocol import Stream
from ci.server.bus import Bus
from ci.server.clock import Clock
from ci.server.logs import LogKey, Logs
from tests.ready import Ready
from web.live import LiveLog, LiveTopics

KEY = LogKey(7, 1, 2)
MARKS = LogKey(7, 1, 2, Stream.MARKS)
OFFSET = struct.Struct("!Q")


@dataclass
class Host:
    logs: Logs
    bus: Bus
    server: Ready

    def log(self, query: str = "", *, name: str = "open", port: int = 0) -> connect:
        url = f"ws://127.0.0.1:{port or self.server.port}/log/{name}?{query}"
        return connect(url, compression=None, max_size=1 << 20)

    def topics(self, names: str) -> connect:
        return connect(f"ws://127.0.0.1:{self.server.port}/live?topics={names}", compression=None)

    def subscribers(self, topic: str) -> int:
        return len(self.bus._listeners.get(topic, ()))


async def find(websocket: WebSocket) -> tuple[int, int, int]:
    if websocket.path_params["name"] != "open":
        raise NotFound("There is no such log.")
    return 7, 1, 2


async def check(websocket: WebSocket, topics: Sequence[str]) -> None:
    if "build:666" in topics:
        raise Forbidden("You may not see build 666.")


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    logs = Logs(tmp_path / "logs", clock=Clock())
    await logs.start()
    bus = Bus()
    routes = [
        WebSocketRoute("/log/{name}", LiveLog(logs, find, bus).serve),
        WebSocketRoute("/live", LiveTopics(bus, check).serve),
    ]
    config = uvicorn.Config(
        Starlette(routes=routes),
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
    yield Host(logs, bus, server)
    server.should_exit = True
    await asyncio.wait_for(serving, 10)
    await logs.close()


async def next_bytes(connection: ClientConnection) -> tuple[int, bytes]:
    data = await asyncio.wait_for(connection.recv(), 10)
    assert isinstance(data, bytes)
    return OFFSET.unpack(data[:8])[0], data[8:]


async def next_text(connection: ClientConnection) -> dict[str, object]:
    text = await asyncio.wait_for(connection.recv(), 10)
    assert isinstance(text, str)
    message: dict[str, object] = json.loads(text)
    return message


async def close_log(logs: Logs, data: bytes, marks: bytes = b"") -> None:
    assert await logs.close_stream(KEY, len(data), zlib.crc32(data)) is None
    assert await logs.close_stream(MARKS, len(marks), zlib.crc32(marks)) is None


async def test_bytes_come_with_their_offset_at_once_and_as_they_are_written(host: Host) -> None:
    await host.logs.append(KEY, 0, b"early\n")
    async with host.log() as connection:
        assert await next_bytes(connection) == (0, b"early\n")
        host.logs.write(KEY, 6, b"late\n")
        assert await next_bytes(connection) == (6, b"late\n")
        await close_log(host.logs, b"early\nlate\n")
        assert await next_text(connection) == {"end": 11}
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(connection.recv(), 10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1000


async def test_a_log_is_resumed_at_any_offset(host: Host) -> None:
    await host.logs.append(KEY, 0, b"0123456789")
    await close_log(host.logs, b"0123456789")
    async with host.log("offset=4") as connection:
        assert await next_bytes(connection) == (4, b"456789")
        assert await next_text(connection) == {"end": 10}
    async with host.log("offset=10") as connection:
        assert await next_text(connection) == {"end": 10}


async def test_whole_marks_come_with_where_to_go_on(host: Host) -> None:
    first, second = b'{"o":0,"t":0.1,"k":"begin","v":0}\n', b'{"o":4,"t":0.5,"k":"end","v":[0,0]}\n'
    await host.logs.append(MARKS, 0, first + second[:10])
    async with host.log() as connection:
        begin = {"o": 0, "t": 0.1, "k": "begin", "v": 0}
        assert await next_text(connection) == {"marks": [begin], "next": len(first)}
        await host.logs.append(MARKS, len(first) + 10, second[10:])
        end = {"o": 4, "t": 0.5, "k": "end", "v": [0, 0]}
        assert await next_text(connection) == {"marks": [end], "next": len(first + second)}
    async with host.log(f"marks={len(first)}") as connection:
        assert await next_text(connection) == {"marks": [end], "next": len(first + second)}


async def test_who_may_not_read_a_log_is_refused_before_the_socket_opens(host: Host) -> None:
    with pytest.raises(InvalidStatus):
        async with host.log(name="secret"):
            pass


@pytest.mark.parametrize("query", ["offset=-1", "offset=x", "offset=1e9", "marks=" + "9" * 30, "offset=٣"])
async def test_an_offset_that_is_none_is_refused(host: Host, query: str) -> None:
    with pytest.raises(InvalidStatus):
        async with host.log(query):
            pass


async def test_a_viewer_that_does_not_read_costs_nothing_and_gets_every_byte_later(host: Host) -> None:
    data = b"".join(b"line %d %s\n" % (i, b"." * 90) for i in range(100_000))
    async with host.log() as slow, host.log() as quick:
        for at in range(0, len(data), 200_000):
            host.logs.write(KEY, at, data[at : at + 200_000])
            await asyncio.sleep(0)
        await asyncio.wait_for(close_log(host.logs, data), 10)
        assert await read_to_end(quick) == data
        assert await read_to_end(slow) == data


async def read_to_end(connection: ClientConnection, begin: int = 0) -> bytes:
    data = b""
    async with asyncio.timeout(20):
        while isinstance(frame := await connection.recv(), bytes):
            assert OFFSET.unpack(frame[:8])[0] == begin + len(data)
            data += frame[8:]
    assert json.loads(frame) == {"end": begin + len(data)}
    return data


async def cut_after(host: Host, limit: int, ports: asyncio.Queue[int]) -> None:
    """A proxy for one connection that is cut hard after `limit` bytes to the client."""
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", host.server.port)
        head = await reader.readuntil(b"\r\n\r\n")
        back.write(head)
        left = limit
        while left and (data := await there.read(min(left, 65536))):
            writer.write(data)
            await writer.drain()
            left -= len(data)
        writer.transport.abort()
        back.transport.abort()
        done.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    ports.put_nowait(server.sockets[0].getsockname()[1])
    await done.wait()
    server.close()


async def test_a_socket_cut_in_mid_frame_is_resumed_byte_by_byte_exact(host: Host) -> None:
    data = b"".join(b"a %d %s %d\n" % (i, b"." * 70, i * 40503) for i in range(30_000))
    got = b""
    write = asyncio.create_task(write_slowly(host.logs, data))
    ports: asyncio.Queue[int] = asyncio.Queue()
    for limit in (300, 30_000, 700_001):
        proxy = asyncio.create_task(cut_after(host, limit, ports))
        port = await asyncio.wait_for(ports.get(), 10)
        try:
            async with host.log(f"offset={len(got)}", port=port) as connection:
                while True:
                    offset, piece = await next_bytes(connection)
                    assert offset == len(got)
                    got += piece
        except (WebSocketException, ConnectionError):
            pass
        await asyncio.wait_for(proxy, 10)
    async with host.log(f"offset={len(got)}") as connection:
        got += await read_to_end(connection, len(got))
    assert got == data
    await write


async def write_slowly(logs: Logs, data: bytes) -> None:
    for at in range(0, len(data), 100_000):
        await logs.append(KEY, at, data[at : at + 100_000])
    await close_log(logs, data)


async def test_viewers_do_not_hold_up_the_end_of_the_server(host: Host) -> None:
    async with host.log() as viewer, host.topics("builds") as watcher:
        await next_text(watcher)
        host.server.should_exit = True
        for connection in (viewer, watcher):
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(connection.recv(), 5)


async def test_changed_topics_are_told_first_all_then_those_that_rang(host: Host) -> None:
    async with host.topics("builds,build:12") as connection:
        assert await next_text(connection) == {"changed": ["build:12", "builds"]}
        host.bus.publish("build:12")
        assert await next_text(connection) == {"changed": ["build:12"]}


async def test_what_rings_often_is_told_together(host: Host) -> None:
    async with host.topics("builds,runners") as connection:
        await next_text(connection)
        loop = asyncio.get_running_loop()
        begin, told = loop.time(), 0
        while told < 3:
            for _ in range(50):
                host.bus.publish("builds", "runners")
            message = await next_text(connection)
            assert set(message) == {"changed"}
            told += 1
        assert loop.time() - begin >= 0.19


async def test_a_watcher_that_left_is_forgotten(host: Host) -> None:
    async with host.topics("builds") as connection:
        await next_text(connection)
        assert host.subscribers("builds") == 1
    async with asyncio.timeout(5):
        while host.subscribers("builds"):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("names", ["", ",", "build:666", ",".join(f"build:{n}" for n in range(65))])
async def test_topics_that_may_not_be_watched_are_refused(host: Host, names: str) -> None:
    with pytest.raises(InvalidStatus):
        async with host.topics(names):
            pass
