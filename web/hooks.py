"""POST /hooks/{hook id}: the door for deliveries. Size, HMAC over the raw bytes, well-formed, durable, 2xx.

Nothing is parsed before it is verified: the hook id in the URL names forge, repo and secret (law 2). What is
refused makes no row; it leaves one overwritten "last refusal" a hook.
"""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from ci.errors import Invalid, ShipwayError, TooLarge
from ci.server.hooks import Hooks
from web.problems import TooSlow

#: For the whole body; GitHub itself waits 10 s for the whole answer.
BODY_SECONDS = 10.0
_NEW = "stored, and being processed; the repo's inbox page has the verdict"
_AGAIN = "this delivery had come before: it is not built twice; the repo's inbox page has the verdict"


class HookDoor:
    """Takes its parts, not the server; `max_bytes` is what a body may have where its forge does not say."""

    def __init__(self, hooks: Hooks, max_bytes: int, *, body_seconds: float = BODY_SECONDS) -> None:
        self._hooks = hooks
        self._max_bytes = max_bytes
        self._body_seconds = body_seconds

    async def receive(self, request: Request) -> Response:
        hook_id = request.path_params["hook"]
        limit = await self._hooks.max_bytes(hook_id)
        try:
            body = await self._body(request, self._max_bytes if limit is None else limit)
        except ShipwayError as refusal:
            await self._hooks.refuse(hook_id, str(refusal))
            raise
        receipt = await self._hooks.receive(hook_id, request.headers, body)
        answer = {
            "delivery": receipt.row_id,
            "duplicate": not receipt.is_new,
            "message": _NEW if receipt.is_new else _AGAIN,
        }
        return JSONResponse(answer, 202)

    async def _body(self, request: Request, limit: int) -> bytes:
        """The raw body; ends reading once it is too slow or too large, whatever Content-Length says."""
        body = bytearray()
        try:
            async with asyncio.timeout(self._body_seconds):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > limit:
                        raise TooLarge(f"a delivery may have at most {limit} bytes here (hook_max_bytes)")
        except TimeoutError:
            raise TooSlow(f"the body did not come within {self._body_seconds:g} s") from None
        except ClientDisconnect:
            raise Invalid("the connection ended in the middle of the body") from None
        return bytes(body)
