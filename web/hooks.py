"""POST /hooks/{hook id}: the door for deliveries. Size, HMAC over the raw bytes, well-formed, durable, 2xx.

Nothing is parsed before it is verified: the hook id in the URL names forge, repo and secret (law 2). What is
refused makes no row; it leaves one overwritten "last refusal" a hook.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ci.errors import TooLarge
from ci.server.forges.git import SIGNATURE_HEADER
from ci.server.inbox import Inbox


class Hooks:
    """Takes its parts, not the server; `max_bytes` is what a body may have."""

    def __init__(self, inbox: Inbox, max_bytes: int) -> None:
        self._inbox = inbox
        self._max_bytes = max_bytes

    async def receive(self, request: Request) -> Response:
        hook_id = request.path_params["hook"]
        try:
            body = await self._body(request)
        except TooLarge as refusal:
            await self._inbox.refuse(hook_id, str(refusal))
            raise
        delivery = await self._inbox.receive(hook_id, request.headers.get(SIGNATURE_HEADER, ""), body)
        message = "stored, and being processed; the repo's inbox page has the verdict"
        return JSONResponse({"delivery": delivery, "message": message}, 202)

    async def _body(self, request: Request) -> bytes:
        """The raw body; ends reading as soon as it is too large, whatever Content-Length says."""
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._max_bytes:
                raise TooLarge(f"a delivery may have at most {self._max_bytes} bytes (hook_max_bytes)")
        return bytes(body)
