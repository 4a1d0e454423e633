"""What `scripts/bench hooks` measures against: a bare ASGI application that checks the same HMAC over the
same body and stores it in SQLite (WAL, synchronous FULL) by one writer thread with group commit. No parsing,
no routing, no duplicates, no answer but 202.

usage: python -m bench.hooks_baseline FOLDER < SECRET      prints its port
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import queue
import socket
import sqlite3
import sys
import threading
from pathlib import Path
from typing import Any

import uvicorn

_MAX_GROUP = 256


class Writer:
    def __init__(self, path: Path) -> None:
        self._waiting: queue.SimpleQueue[tuple[str, bytes, asyncio.Future[None]]] = queue.SimpleQueue()
        self._path = path
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._run, daemon=True).start()

    def store(self, delivery: str, body: bytes) -> asyncio.Future[None]:
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.put((delivery, body, future))
        return future

    def _run(self) -> None:
        connection = sqlite3.connect(self._path, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE inbox (id INTEGER PRIMARY KEY, delivery TEXT UNIQUE, body BLOB)")
        while True:
            group = [self._waiting.get()]
            while len(group) < _MAX_GROUP and not self._waiting.empty():
                group.append(self._waiting.get())
            connection.execute("BEGIN IMMEDIATE")
            rows = [(delivery, body) for delivery, body, _ in group]
            connection.executemany("INSERT INTO inbox (delivery, body) VALUES (?, ?)", rows)
            connection.execute("COMMIT")
            self._loop.call_soon_threadsafe(_settle, [future for _, _, future in group])


def _settle(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


def application(writer: Writer, secret: bytes) -> Any:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = dict(scope["headers"])
        wanted = b"sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest().encode()
        is_signed = hmac.compare_digest(wanted, headers.get(b"x-hub-signature-256", b""))
        if is_signed:
            await writer.store(headers[b"x-github-delivery"].decode(), body)
        await send({"type": "http.response.start", "status": 202 if is_signed else 401, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return serve


async def main() -> None:
    secret = sys.stdin.buffer.readline().strip()
    writer = Writer(Path(sys.argv[1]) / "baseline.db")
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(
        application(writer, secret), log_level="warning", access_log=False, lifespan="off"
    )
    await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    asyncio.run(main())
