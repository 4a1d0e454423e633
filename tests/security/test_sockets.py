"""The browsers' sockets: whose they are, and when they end (T28, T36)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from ci.server.store import members, users
from tests.scene import Done, Scene, send, sign_in
from tests.walk import URL, Town, path_of, socket_opens
from web.crowd import MAX_SOCKETS
from web.live import MAX_MESSAGES


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "", "http://127.0.0.1:8000.evil.example", "http://127.0.0.1:9"]
)
async def test_ws_bad_origin_403(here: Town, origin: str) -> None:
    """A socket that is refused before it opens is a 403 on the wire."""
    application, tried = here.real(), 0
    for entry in here.table:
        if entry.kind == "socket" and not entry.policy.is_for_machines:
            target = path_of(entry) + "?topics=builds"
            cookies = here.cookies_of("root")
            assert not await socket_opens(application, target, cookies, origin), entry.path
            assert await socket_opens(application, target, cookies, URL), entry.path
            tried += 1
    assert tried >= 2


@pytest.mark.parametrize("visitor", ["anonymous", "stranger"])
async def test_ws_sub_private_repo_denied(here: Town, visitor: str) -> None:
    application, cookies = here.real(), here.cookies_of(visitor)
    for target in (
        "/live?topics=build:1",
        "/live?topics=builds,job:1",
        "/live?topics=build:999",
        "/live?topics=repo:1",
        "/live?topics=access",
        "/live?topics=log:1/1/0",
        "/r/ada/app/1/ci/test/live",
    ):
        assert not await socket_opens(application, target, cookies), target
    assert await socket_opens(application, "/live?topics=build:2", cookies)
    assert await socket_opens(application, "/r/ada/site/1/ci/test/live", cookies)


@dataclass
class Net:
    """A real server with a real network, one private repo with a running build, and its reader grace."""

    scene: Scene
    url: str
    client: httpx.AsyncClient  #: grace's browser

    def socket(self, path: str, origin: str = "") -> connect:
        cookie = f"shipway_session={self.client.cookies['shipway_session']}"
        return connect(
            self.url.replace("http", "ws") + path,
            origin=Origin(origin or self.url),
            additional_headers={"cookie": cookie},
            compression=None,
        )


@pytest.fixture
async def net(tmp_path: Path) -> AsyncIterator[Net]:
    scene = Scene(tmp_path)
    await scene.open()
    await scene.user("root")
    await scene.user("grace", is_admin=False)
    repo = await scene.repo("ada", "app")
    await scene.store.write(lambda c: members.set_role(c, repo, "grace", members.Role.READ, 1.0))
    running = Done(name="test", status="running", log=b"a line\n", is_open=True)
    await scene.build(repo, [("ci", [running])])
    async with scene.serving() as url, httpx.AsyncClient(base_url=url) as client:
        client.headers["accept"] = "text/html"
        await sign_in(client, "grace")
        yield Net(scene, url, client)
    await scene.close()


SOCKETS = ("/live?topics=builds", "/live?topics=build:1", "/r/ada/app/1/ci/test/live")


async def closes(socket: ClientConnection, seconds: float = 10.0) -> int:
    """The code with which it closes."""
    async with asyncio.timeout(seconds):
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await socket.recv()
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


async def test_ws_after_logout_closed(net: Net) -> None:
    async with net.socket(SOCKETS[0]) as one, net.socket(SOCKETS[1]) as two, net.socket(SOCKETS[2]) as three:
        for socket in (one, two, three):
            await asyncio.wait_for(socket.recv(), 10)
        assert (await send(net.client, "/sign-out")).status_code == 303
        assert [await closes(socket) for socket in (one, two, three)] == [1008, 1008, 1008]


async def test_ws_after_lost_role_closed(net: Net) -> None:
    async with (
        net.socket(SOCKETS[0]) as public,
        net.socket(SOCKETS[1]) as build,
        net.socket(SOCKETS[2]) as log,
    ):
        for socket in (public, build, log):
            await asyncio.wait_for(socket.recv(), 10)
        await net.scene.store.write(lambda c: members.remove(c, 1, "grace"))
        net.scene.bus.publish("access")
        assert [await closes(socket) for socket in (build, log)] == [1008, 1008]
        net.scene.bus.publish("builds")
        await asyncio.wait_for(public.recv(), 10)  # what she may still see stays open


@pytest.mark.slow
async def test_ws_of_a_disabled_person_closes_though_nobody_rings(net: Net) -> None:
    """Another process has changed the database: the look every 15 s finds it."""
    async with net.socket(SOCKETS[1]) as socket:
        await asyncio.wait_for(socket.recv(), 10)
        grace = await net.scene.store.read(lambda c: users.named(c, "grace"))
        await net.scene.store.write(lambda c: users.set_disabled(c, grace.id or 0, True))
        assert await closes(socket, 20) == 1008


async def test_ws_flood(net: Net) -> None:
    """One visitor holds so many sockets, and says so little; others are served as before."""
    async with net.socket(SOCKETS[0]) as talker:
        for _ in range(MAX_MESSAGES + 1):
            await talker.send("x" * 100)
        assert await closes(talker) == 1008
    async with net.socket(SOCKETS[0]) as talker:
        await talker.send("x" * (2 << 20))
        assert await closes(talker) in (1008, 1009)
    held = [await net.socket(SOCKETS[0]).__aenter__() for _ in range(MAX_SOCKETS)]
    try:
        with pytest.raises(InvalidStatus):
            await net.socket(SOCKETS[0]).__aenter__()
        async with connect(net.url.replace("http", "ws") + SOCKETS[0], origin=Origin(net.url)) as other:
            await asyncio.wait_for(other.recv(), 10)
    finally:
        await asyncio.gather(*(socket.close() for socket in held))
    async with net.socket(SOCKETS[0]) as again:
        await asyncio.wait_for(again.recv(), 10)
