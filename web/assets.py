"""The static files, read once at the start. Their version stands in the address, so browsers keep them."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from ci.errors import NotFound

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, kw_only=True)
class _File:
    data: bytes
    packed: bytes
    type: str


class Assets:
    def __init__(self, folder: Path = Path(__file__).parent / "static") -> None:
        self._files = {path.name: _read(path) for path in sorted(folder.iterdir()) if path.suffix in _TYPES}
        digest = hashlib.sha256()
        for name, file in self._files.items():
            digest.update(name.encode() + b"\0" + file.data)
        self.version = digest.hexdigest()[:12]

    def url(self, name: str) -> str:
        assert name in self._files, f"there is no static file {name}"
        return f"/static/{self.version}/{name}"

    def packed_size(self, suffix: str) -> int:
        """Bytes that travel for all files of a kind."""
        return sum(len(file.packed) for name, file in self._files.items() if name.endswith(suffix))

    async def serve(self, request: Request) -> Response:
        file = self._files.get(request.path_params["name"])
        if file is None:
            raise NotFound("there is no such file")
        # An old page may ask for an old version: it gets the present one, and keeps it shortly.
        is_present = request.path_params["version"] == self.version
        headers = {
            "cache-control": "public, max-age=31536000, immutable" if is_present else "no-cache",
            "vary": "Accept-Encoding",
        }
        if "gzip" in request.headers.get("accept-encoding", ""):
            headers["content-encoding"] = "gzip"
            return Response(file.packed, headers=headers, media_type=file.type)
        return Response(file.data, headers=headers, media_type=file.type)


def _read(path: Path) -> _File:
    data = path.read_bytes()
    return _File(data=data, packed=gzip.compress(data, 9, mtime=0), type=_TYPES[path.suffix])
