"""A push to the built-in git: who may, and what its hooks ask us while it happens.

The hooks of a push (web/git_hook.py) reach us by HTTP with a token that lives as long as the push:
`pre-receive` makes the inbox row durable before any ref moves (law 2), `post-receive` makes the builds and
prints their links, and with `-o ci.wait` streams their logs to whoever pushed.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from ci import plain
from ci.errors import Invalid, ShipwayError, Unauthenticated
from ci.server.pushes import Pushes
from ci.server.trigger import Result
from web.waiting import Waiting

MAX_BODY_BYTES = 8 * 1024 * 1024  #: some 50,000 refs in one push


@dataclass(kw_only=True)
class Push:
    """One push under way."""

    repo_id: int
    sender: str
    push_id: str = field(default_factory=lambda: secrets.token_hex(16))
    inbox_id: int | None = None
    is_done: bool = False


class OpenPushes:
    """The pushes under way, by their token. In memory only: a push does not outlive its server, and what
    it moved without our knowledge is found by comparing refs."""

    def __init__(self, pushes: Pushes, waiting: Waiting, url: str) -> None:
        self._pushes = pushes
        self._waiting = waiting
        self._url = url
        self._by_token: dict[str, Push] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    def begin(self, push: Push) -> tuple[dict[str, str], str]:
        """Environment for the hooks of `push`, and its token for `end`."""
        token = secrets.token_urlsafe(32)
        self._by_token[token] = push
        return {"SHIPWAY_PUSH_URL": f"{self._url}/internal/push", "SHIPWAY_PUSH_TOKEN": token}, token

    def end(self, token: str) -> None:
        """The push is over. If its refs moved and nobody told us (the client left in between), look."""
        push = self._by_token.pop(token, None)
        if push is not None and push.inbox_id is not None and not push.is_done:
            task = asyncio.create_task(self._pushes.done(push.inbox_id))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def hook(self, request: Request) -> Response:
        """POST /internal/push/{phase}, from a hook of one of our own git processes."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        push = self._by_token.get(token)
        if scheme != "Bearer" or push is None:
            return PlainTextResponse("shipway: this push is over\n", 401)
        try:
            body = await _body(request)
            if request.path_params["phase"] == "pre-receive":
                return await self._before(push, body)
            return await self._after(push, body)
        except ShipwayError as error:
            return PlainTextResponse("".join(f"shipway: {line}\n" for line in str(error).splitlines()), 409)

    async def _before(self, push: Push, body: dict[str, Any]) -> Response:
        updates = [(str(ref), str(old), str(new)) for old, new, ref in body["updates"]]
        push.inbox_id = await self._pushes.received(
            push.repo_id, push.push_id, updates, push.sender, tuple(body["options"])
        )
        return PlainTextResponse("")

    async def _after(self, push: Push, body: dict[str, Any]) -> Response:
        if push.inbox_id is None:
            raise Unauthenticated("this push was never announced")
        results = await self._pushes.done(push.inbox_id)
        push.is_done = True
        lines = self._lines(results, is_waiting="ci.wait" in body["options"])
        return StreamingResponse(lines, media_type="text/plain; charset=utf-8")

    async def _lines(self, results: list[Result], *, is_waiting: bool) -> AsyncIterator[bytes]:
        for result in results:
            yield f"shipway: {_line(result)}\n".encode()
        if is_waiting:
            builds = [result.build_id for result in results if result.build_id is not None]
            async for line in self._waiting.follow(builds):
                yield line


async def _body(request: Request) -> dict[str, Any]:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY_BYTES:
            raise Invalid(f"a push may move refs of at most {MAX_BODY_BYTES >> 20} MiB of names")
    body = json.loads(bytes(data))
    if not isinstance(body, dict) or not isinstance(body.get("updates"), list):
        raise Invalid("this is not what our hooks send")
    return body


def _line(result: Result) -> str:
    text = f"{result.sentence}: {result.url}" if result.url else f"{result.ref}: {result.sentence}"
    return plain.line(text.encode(errors="replace")).decode()
