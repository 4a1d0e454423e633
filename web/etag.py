"""A tag for each JSON answer to a GET, so that who asks again for the same gets 304 and no body.

It is made from the bytes themselves: nothing has to remember when what changed.
"""

from __future__ import annotations

import hashlib

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

#: Ask again each time, and keep nothing where others could read it.
_CACHE = "private, no-cache"


def answer(request: Request, response: Response) -> Response:
    """`response` with its tag, or 304 where the asker has it already."""
    if request.method != "GET" or response.status_code != 200 or not isinstance(response, JSONResponse):
        return response
    tag = f'"{hashlib.sha256(response.body).hexdigest()[:32]}"'
    headers = {"etag": tag, "cache-control": _CACHE, "vary": "Authorization, Cookie"}
    if _has(request.headers.get("if-none-match", ""), tag):
        return Response(status_code=304, headers=headers)
    response.headers.update(headers)
    return response


def _has(header: str, tag: str) -> bool:
    tags = [each.strip().removeprefix("W/") for each in header.split(",")]
    return tag in tags or "*" in tags
