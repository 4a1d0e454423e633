"""The parts of a log's way, each by itself: output pipeline into the spool, log socket into the synced file.

`scripts/bench log_parts [--json]`. 100-byte lines; the pipeline masks 50 secrets that do not occur.
The socket is a real one to another process, whose clock stops at its answer to CLOSE, after the fdatasync.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import string
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import ClientConnection, connect

from bench.report import Report
from ci.protocol import MAX_PAYLOAD_BYTES, FrameKind, Lease, LogEnded, LogFrame, Stream
from ci.server.clock import Clock
from ci.server.logs import Logs
from runners.spool import SpoolReader, SpoolWriter
from web.log_socket import LogSocket

ROUNDS = 5
LINE = b"a 123456 " + b"." * 80 + b" 123456789\n"
CHUNK = LINE * 164  # about what one read of an attached container gives
SIZE = 400 << 20
WINDOW_BYTES = 4 << 20
_CRC = struct.Struct("!I")


def main() -> None:
    if len(sys.argv) > 2 and sys.argv[1] == "--serve":
        asyncio.run(serve(Path(sys.argv[2])))
        return
    report = Report(bench="log_parts")
    rates: dict[str, list[float]] = {"file": [], "spool": [], "socket": [], "both": []}
    memory: list[float] = []
    with tempfile.TemporaryDirectory(prefix="shipway-bench-") as folder:
        for number in range(ROUNDS):
            rates["file"].append(rate_of(plain_file, Path(folder) / "plain"))
            rates["spool"].append(rate_of(spool, Path(folder) / f"{number}-1"))
            reader = SpoolReader(Path(folder) / f"{number}-1")
            with_server = Path(folder) / f"server-{number}"
            seconds, grown = asyncio.run(ship(reader, with_server, number))
            rates["socket"].append(SIZE / seconds / 1e6)
            memory.append(grown / 1e6)
            reader.delete()
            shutil.rmtree(with_server)
    report.add("spool: marks, masks, cap, file", rates["spool"], "MB/s")
    report.add("socket: spool file to synced file", rates["socket"], "MB/s")
    report.add("plain file: write 16 KiB, fdatasync at the end", rates["file"], "MB/s")
    report.ratio("spool", rates["spool"], rates["file"], "the same bytes to a plain file, fdatasync")
    report.ratio("socket", rates["socket"], rates["file"], "the same bytes to a plain file, fdatasync")
    report.add("server memory grown in a log", memory, "MB")


def rate_of(work: Callable[[Path], None], path: Path) -> float:
    begin = time.perf_counter()
    work(path)
    return SIZE / (time.perf_counter() - begin) / 1e6


def chunks() -> Iterator[bytes]:
    return (CHUNK for _ in range(SIZE // len(CHUNK)))


def plain_file(path: Path) -> None:
    with open(path, "wb", buffering=0) as file:
        for data in chunks():
            file.write(data)
        os.fdatasync(file.fileno())
    path.unlink()


def spool(folder: Path) -> None:
    letters = random.Random(1)
    masks = ["".join(letters.choices(string.ascii_letters, k=letters.randint(12, 40))) for _ in range(50)]
    writer = SpoolWriter.create(folder)
    log = writer.open_log(1, masks=masks, token="0" * 32, limit_bytes=1 << 40)
    for data in chunks():
        log.write(data)
    writer.record(log.close())
    writer.close()


async def ship(reader: SpoolReader, folder: Path, number: int) -> tuple[float, float]:
    """Send the spooled log as a runner does; seconds until it is closed, and bytes the server has grown."""
    (_, end), *_ = reader.changes()
    assert isinstance(end, LogEnded)
    lease = Lease(job=number, attempt=1, epoch=1)
    command = [sys.executable, "-P", "-m", "bench.logs", "--serve", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline())
        before = resident(process.pid)
        async with connect(f"ws://127.0.0.1:{port}/", compression=None, max_size=None) as connection:
            begin = time.perf_counter()
            await send(connection, reader, lease, end)
            seconds = time.perf_counter() - begin
        return seconds, peak(process.pid) - before
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


async def send(connection: ClientConnection, reader: SpoolReader, lease: Lease, end: LogEnded) -> None:
    sent = durable = 0
    while durable < end.size:
        while sent < end.size and sent - durable < WINDOW_BYTES:
            data = reader.read(1, Stream.BYTES, sent, MAX_PAYLOAD_BYTES)
            await connection.send(LogFrame(FrameKind.CHUNK, lease, 1, Stream.BYTES, sent, data).encode())
            sent += len(data)
        durable = (await answer(connection)).offset
    close = LogFrame(FrameKind.CLOSE, lease, 1, Stream.BYTES, end.size, _CRC.pack(end.crc32))
    await connection.send(close.encode())
    while (frame := await answer(connection)).kind is not FrameKind.CLOSED:
        assert frame.kind is FrameKind.DURABLE


async def answer(connection: ClientConnection) -> LogFrame:
    data = await connection.recv()
    assert isinstance(data, bytes)
    return LogFrame.decode(data)


def resident(pid: int) -> float:
    return status(pid, "VmRSS:")


def peak(pid: int) -> float:
    return status(pid, "VmHWM:")


def status(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024.0
    raise ValueError(f"/proc/{pid}/status has no {name}")


# --- the server process --------------------------------------------------------------------------


async def serve(folder: Path) -> None:
    logs = Logs(folder, clock=Clock())
    await logs.start()

    async def holds(runner_id: int, lease: Lease) -> bool:
        return True

    async def log_closed(lease: Lease, step: int, stream: Stream, size: int, crc32: int) -> bool:
        return True

    socket = LogSocket(logs, holds=holds, log_closed=log_closed)

    async def endpoint(websocket: WebSocket) -> None:
        await socket.serve(websocket, 1)

    app = Starlette(routes=[WebSocketRoute("/", endpoint)])
    server = Told(
        uvicorn.Config(
            app,
            port=0,
            log_level="error",
            lifespan="off",
            ws="websockets-sansio",
            ws_per_message_deflate=False,
        )
    )
    await server.serve()
    await logs.close()


class Told(uvicorn.Server):
    """Prints its port once it listens."""

    async def startup(self, sockets: object = None) -> None:
        await super().startup()
        print(self.servers[0].sockets[0].getsockname()[1], flush=True)


if __name__ == "__main__":
    main()
