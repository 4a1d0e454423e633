"""What scripts/reference runs: a server in a folder that nobody keeps, its OpenAPI document as markdown."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import httpx

from ci.server.config import Settings
from ci.server.wiring import Server
from web.api_reference import replaced
from web.main import application

PAGE = Path(__file__).parent.parent / "docs/reference/api.md"


async def document(folder: Path) -> dict[str, Any]:
    server = Server(Settings.load({}, {"data_dir": folder}))
    await server.store.open()
    try:
        transport = httpx.ASGITransport(app=application(server, "http://127.0.0.1:8000"))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
            found: dict[str, Any] = (await client.get("/api/openapi.json")).json()
            return found
    finally:
        await server.store.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        PAGE.write_text(replaced(PAGE.read_text(), asyncio.run(document(Path(made)))))
