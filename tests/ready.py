"""uvicorn for tests that wait for the event of its listening."""

from __future__ import annotations

import asyncio

import uvicorn


class Ready(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_ready = asyncio.Event()

    async def startup(self, sockets: object = None) -> None:
        await super().startup()
        self.is_ready.set()

    @property
    def port(self) -> int:
        port: int = self.servers[0].sockets[0].getsockname()[1]
        return port
