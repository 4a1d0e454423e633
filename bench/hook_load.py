"""Load for `scripts/bench hooks`: signed pushes of GitHub of 10 KB each, over connections that stay open.

Its own process, so that server and sender share no interpreter.
usage: python -m bench.hook_load PORT PATH COUNT CONNECTIONS; standard input: the secret, and a push as JSON
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
from collections.abc import Iterator
from dataclasses import dataclass, field

BODY_BYTES = 10_000


def pushes(template: str, count: int) -> Iterator[tuple[str, bytes]]:
    """Deliveries' ids and bodies: the push of the template, each to a branch of its own, of exactly 10 KB."""
    run = uuid.uuid4().hex
    for number in range(count):
        push = json.loads(template)
        push["ref"] = f"refs/heads/load-{run}-{number:06}"
        padding = BODY_BYTES - len(json.dumps(push))
        push["head_commit"]["message"] += "x" * padding
        yield str(uuid.uuid4()), json.dumps(push).encode()


@dataclass(kw_only=True)
class Sent:
    milliseconds: list[float] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    broken: int = 0


def request(port: int, path: str, delivery: str, body: bytes, secret: bytes) -> bytes:
    signature = hmac.new(secret, body, hashlib.sha256).hexdigest()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"X-GitHub-Event: push\r\nX-GitHub-Delivery: {delivery}\r\n"
        f"X-Hub-Signature-256: sha256={signature}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


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
    port, path, count, connections = sys.argv[1:]
    secret = sys.stdin.readline().strip().encode()
    template = sys.stdin.readline()
    every = [
        (delivery, request(int(port), path, delivery, body, secret))
        for delivery, body in pushes(template, int(count))
    ]
    sent = Sent()
    start = time.perf_counter()
    width = int(connections)
    await asyncio.gather(*(_connection(int(port), every[n::width], sent) for n in range(width)))
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, **vars(sent)}))


if __name__ == "__main__":
    asyncio.run(main())
