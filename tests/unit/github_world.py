"""A server with a repo of GitHub, and a GitHub that is asked by HTTP and delivers by HTTP; nothing processes
deliveries but the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from sqlalchemy import select

from ci.event import Event
from ci.server.auth import Actor
from ci.server.config import Settings
from ci.server.models import Build, Repo
from ci.server.models import Inbox as Row
from ci.server.repos import Added
from ci.server.store import inbox, repos
from ci.server.store.tables import BUILD, INBOX, many
from ci.server.wiring import Server
from tests import fake_github
from tests.fake_github import TOKEN, Delivery, FakeGitHub, Pull, signed
from tests.unit.gitting import CONFIG
from tests.unit.world import HeldClock
from web.main import application

ADA = Actor(user_id=None, name="ada", is_admin=True)
KEY = 4711


_SETTINGS = {"url": "http://ci.test", "allowed_private_hosts": "127.0.0.1"}


@dataclass
class Town:
    server: Server
    github: FakeGitHub
    far: fake_github.Repo  #: the repo at GitHub
    repo_id: int
    hook_id: str
    secret: str
    client: httpx.AsyncClient

    @property
    def clock(self) -> HeldClock:
        assert isinstance(self.server.clock, HeldClock)
        return self.server.clock

    async def send(self, delivery: Delivery, hook_id: str = "") -> httpx.Response:
        return await self.client.post(
            f"/hooks/{hook_id or self.hook_id}", content=delivery.body, headers=delivery.headers
        )

    async def deliver(self, word: str, body: dict[str, Any], **options: Any) -> str:
        """Accepted and processed: its verdict."""
        answer = await self.send(signed(word, body, self.secret, **options))
        assert answer.status_code == 202, answer.text
        await self.server.inbox.process(answer.json()["delivery"])
        return (await self.row(answer.json()["delivery"])).verdict

    async def row(self, row_id: int) -> Row:
        found = await self.server.store.read(lambda c: inbox.by_id(c, row_id))
        assert found is not None
        return found

    async def rows(self) -> list[Row]:
        return await self.server.store.read(lambda c: many(c, Row, select(INBOX).order_by(INBOX.c.id)))

    async def builds(self) -> list[Build]:
        return await self.server.store.read(lambda c: many(c, Build, select(BUILD).order_by(BUILD.c.id)))

    async def event(self) -> Event:
        """Of the last build."""
        return Event.model_validate((await self.builds())[-1].event)

    async def repo(self) -> Repo:
        found = await self.server.store.read(lambda c: repos.by_id(c, self.repo_id))
        assert found is not None
        return found

    def push(self, ref: str = "refs/heads/main", **more: Any) -> dict[str, Any]:
        return fake_github.push_json(self.far, ref, **more)

    def pull(self, number: int = 7, **values: Any) -> Pull:
        """A pull request with a commit of its own."""
        head = self.far.commit(f"refs/pull/{number}/head", {".ci.yml": CONFIG, "a": str(number)}, "Change a")
        self.far.pulls[number] = Pull(number=number, head=head, files=["a"], **values)
        return self.far.pulls[number]

    async def add(self, far: fake_github.Repo) -> Added:
        """One more repo of the same GitHub."""
        return await self.server.repos.add_github((far.owner, far.name), TOKEN, ADA, api_url=self.github.url)

    def pull_body(self, pull: Pull, action: str = "opened", **more: Any) -> dict[str, Any]:
        return fake_github.pull_request_json(self.far, pull, action, **more)


@asynccontextmanager
async def town(path: Path) -> AsyncIterator[Town]:
    settings = Settings.load({}, _SETTINGS | {"data_dir": path / "data"})
    server = Server(settings, HeldClock())
    await server.store.open()
    async with FakeGitHub().serving() as github:
        far = github.repo(KEY)
        far.commit("refs/heads/main", {".ci.yml": CONFIG}, "First\n\nmore")
        added = await server.repos.add_github((far.owner, far.name), TOKEN, ADA, api_url=github.url)
        async with (
            serving(application(server, "http://ci.test")) as url,
            httpx.AsyncClient(base_url=url, timeout=60, limits=httpx.Limits(max_connections=20)) as client,
        ):
            yield Town(server, github, far, added.repo.id or 0, added.hook_id, added.secret, client)
    await server.stop()


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    config = uvicorn.Config(app, port=0, log_level="error", lifespan="off", timeout_graceful_shutdown=1)
    http = uvicorn.Server(config)
    task = asyncio.create_task(http._serve())
    try:
        async with asyncio.timeout(10):
            while not http.started:
                await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{http.servers[0].sockets[0].getsockname()[1]}"
    finally:
        http.should_exit = True
        await task


__all__ = ["ADA", "KEY", "Town", "serving", "town"]
