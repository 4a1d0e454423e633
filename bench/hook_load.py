"""Load for `scripts/bench hooks`: pushes as GitHub sends them, 10 KB each, over connections that stay open.

Its own process, so that server and sender share no interpreter.
usage: python -m bench.hook_load PORT PATH REPO_KEY COUNT CONNECTIONS < SECRET
Prints one JSON object: seconds, milliseconds of each request, ids that were acknowledged, other answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import sys
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

BODY_BYTES = 10_000


def push(repo_key: int, number: int) -> bytes:
    """A push that builds nothing, for its message says so: what is measured is how it is accepted."""
    sha = hashlib.sha1(f"{uuid.uuid4()}".encode(), usedforsecurity=False).hexdigest()
    commit = {
        "id": sha,
        "message": "Measure [skip ci]",
        "timestamp": "2026-01-02T03:04:05Z",
        "url": f"https://github.example/ada/app/commit/{sha}",
        "author": {"name": "Ada", "email": "ada@example.org", "username": "ada"},
        "committer": {"name": "Ada", "email": "ada@example.org", "username": "ada"},
        "added": [],
        "removed": [],
        "modified": [],
    }
    body: dict[str, Any] = {
        "ref": f"refs/heads/load-{number}",
        "before": "0" * 40,
        "after": sha,
        "created": True,
        "deleted": False,
        "forced": False,
        "repository": {
            "id": repo_key,
            "name": "app",
            "full_name": "ada/app",
            "private": True,
            "owner": {"login": "ada", "id": 1, "name": "ada"},
            "default_branch": "main",
            "clone_url": "https://github.example/ada/app.git",
            "html_url": "https://github.example/ada/app",
        },
        "pusher": {"name": "ada", "email": "ada@example.org"},
        "sender": {"login": "ada", "id": 1, "type": "User"},
        "head_commit": commit,
        "commits": [commit],
    }
    rest = BODY_BYTES - len(json.dumps(body)) - 16
    commit["modified"] = [f"src/module_{n:04d}.py" for n in range(rest // 2 // 24)]
    return json.dumps(body).encode()


@dataclass(kw_only=True)
class Sent:
    milliseconds: list[float] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    broken: int = 0


def request(port: int, path: str, body: bytes, secret: bytes) -> tuple[str, bytes]:
    delivery = str(uuid.uuid4())
    signature = hmac.new(secret, body, hashlib.sha256).hexdigest()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"User-Agent: GitHub-Hookshot/044aadd\r\nX-GitHub-Event: push\r\nX-GitHub-Delivery: {delivery}\r\n"
        f"X-Hub-Signature-256: sha256={signature}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return delivery, head.encode() + body


async def _connection(port: int, requests: list[tuple[str, bytes]], sent: Sent) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for delivery, data in requests:
            start = time.perf_counter()
            writer.write(data)
            status = await _answer(reader)
            sent.milliseconds.append((time.perf_counter() - start) * 1000)
            if 200 <= status < 300:
                sent.acknowledged.append(delivery)
            else:
                sent.refused.append(status)
    except (OSError, asyncio.IncompleteReadError):
        sent.broken += 1
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _answer(reader: asyncio.StreamReader) -> int:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status = int(head.split(" ", 2)[1])
    if "transfer-encoding: chunked" in head:
        while size := int(await reader.readuntil(b"\r\n"), 16):
            await reader.readexactly(size + 2)
        await reader.readexactly(2)
    elif "content-length:" in head:
        await reader.readexactly(int(head.split("content-length:")[1].split("\r\n")[0]))
    return status


async def main() -> None:
    port, path, repo_key, count, connections = sys.argv[1:]
    secret = sys.stdin.buffer.readline().strip()
    every = [request(int(port), path, push(int(repo_key), n), secret) for n in range(int(count))]
    sent = Sent()
    start = time.perf_counter()
    width = int(connections)
    await asyncio.gather(*(_connection(int(port), every[n::width], sent) for n in range(width)))
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, **vars(sent)}))


if __name__ == "__main__":
    asyncio.run(main())
