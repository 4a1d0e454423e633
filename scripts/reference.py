"""What scripts/reference runs: the pages that are made from the code.

The API page from the OpenAPI document of a server in a folder that nobody keeps, and the tables of keys of
the pipeline page from the parser's schema, each below a comment that names its section.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from pathlib import Path
from typing import Any

import httpx

from ci.pipeline import schema
from ci.server.config import Settings
from ci.server.wiring import Server
from web.api_reference import replaced
from web.main import application

PAGES = Path(__file__).parent.parent / "docs/reference"
_TABLE = r"(<!-- keys of {} -->\n)(?:\|[^\n]*\n)*(?:\nNot yet: [^\n]*\n)?"


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


def with_tables(page: str) -> str:
    for section in schema.SECTIONS:
        table = schema.table(section) + "\n"
        page = re.sub(_TABLE.format(section.title), lambda found, new=table: found[1] + new, page)
    return page


if __name__ == "__main__":
    pipeline, api = PAGES / "pipeline.md", PAGES / "api.md"
    pipeline.write_text(with_tables(pipeline.read_text()))
    with tempfile.TemporaryDirectory() as made:
        api.write_text(replaced(api.read_text(), asyncio.run(document(Path(made)))))
