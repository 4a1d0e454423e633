"""What GitHub is told of builds by the real server, which is killed between a transition and its delivery."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response

from bench.whole import Shipway, until
from ci.server.auth import Actor
from ci.server.config import Settings
from ci.server.wiring import Server
from tests import fake_github
from tests.fake_github import TOKEN, FakeGitHub, push_json, signed

PIPELINE = """
skip_clone: true
steps:
  a:
    image: busybox
    commands: [echo]
"""
ADA = Actor(user_id=None, name="ada", is_admin=True)
KEY = 7


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    with FakeGitHub().running() as fake:
        yield fake


async def connect(data: Path, far: fake_github.Repo, api_url: str) -> tuple[str, str]:
    """The repo of GitHub on the data folder of a server that does not run: its hook and secret."""
    server = Server(Settings.load({}, {"data_dir": data, "allowed_private_hosts": "127.0.0.1"}))
    await server.store.open()
    added = await server.repos.add_github((far.owner, far.name), TOKEN, ADA, api_url=api_url)
    await server.stop()
    return added.hook_id, added.secret


class Gate:
    """GitHub takes no status while it is closed; `knocked`: one has come and hangs."""

    def __init__(self) -> None:
        self.is_closed = True
        self.knocked = threading.Event()
        self.opened = threading.Event()

    async def __call__(self, request: Request) -> Response | None:
        if request.method != "POST" or not self.is_closed:
            return None
        self.knocked.set()
        await asyncio.to_thread(self.opened.wait, 60)
        return Response("gone", 503)

    def open(self) -> None:
        self.is_closed = False
        self.opened.set()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("moment", ["made", "ended"])
def test_a_server_that_is_killed_between_a_transition_and_its_delivery_tells_it_later(
    shipway: Shipway, github: FakeGitHub, moment: str
) -> None:
    far, gate = github.repo(KEY), Gate()
    sha = far.commit("refs/heads/main", {".ci.yml": PIPELINE})
    assert shipway.server is not None and shipway.runner is not None
    shipway.server.kill()
    hook_id, secret = asyncio.run(connect(shipway.data, far, github.url))
    github.misbehave = gate
    shipway.start()
    delivery = signed("push", push_json(far, "refs/heads/main"), secret)
    hook = f"{shipway.url}/hooks/{hook_id}"
    assert httpx.post(hook, content=delivery.body, headers=delivery.headers).status_code == 202
    assert gate.knocked.wait(30)
    if moment == "ended":
        shipway.wait("ada/app/1", "success")
    assert far.statuses == []
    assert shipway.server is not None
    shipway.server.kill()
    gate.open()
    shipway.start()
    shipway.wait("ada/app/1", "success")
    until(lambda: far.statuses and far.statuses[-1]["state"] == "success")
    states = [each["state"] for each in far.statuses]
    assert states == sorted(states) and states.count("success") == 1  # pending ... success
    assert {each["sha"] for each in far.statuses} == {sha}
    assert {each["context"] for each in far.statuses} == {"shipway/push/ci"}
    assert far.statuses[-1]["target_url"] == f"{shipway.url}/r/ada/app/1"
    assert TOKEN not in shipway.server.said()
