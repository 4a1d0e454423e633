"""GitHub that is away, slow, limits or refuses, while builds run: they go on, the repo's page says what is
wrong, and the statuses catch up in order. And secrets that a build cannot have, said before anything runs."""

from __future__ import annotations

import asyncio
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from bench.whole import until
from tests.fake_github import cut_off, rate_limited
from tests.system.github_hub import MAIN, Far, Hub, containers, hub

pytestmark = [pytest.mark.docker, pytest.mark.browser, pytest.mark.slow]

Misbehave = Callable[[Request], Awaitable[Response | None]]
#: A step that ends when the test says so.
HELD = """
skip_clone: true
steps:
  hold:
    image: busybox
    commands:
      - echo it runs
      - while [ ! -e /tmp/go ]; do sleep 0.1; done
"""
QUICK = "skip_clone: true\nsteps: { one: { image: busybox, commands: ['%s'] } }\n"


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """How many seconds the server's clock is ahead."""
    file = tmp_path_factory.mktemp("clock") / "ahead"
    file.write_text("0")
    return file


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory, clock: Path) -> Iterator[Hub]:
    with hub(tmp_path_factory.mktemp("town"), clock=clock) as found:
        yield found


@pytest.fixture
def trouble(town: Hub) -> Iterator[dict[int, Misbehave]]:
    """How GitHub answers about a repo, by its key, in place of the truth."""
    by_key: dict[int, Misbehave] = {}

    async def misbehave(request: Request) -> Response | None:
        wrong = by_key.get(request.path_params.get("key", 0))
        return await wrong(request) if wrong else None

    town.github.misbehave = misbehave
    yield by_key
    town.github.misbehave = None


def let_go(far: Far, number: int) -> None:
    """The step that runs may end."""
    (job,) = far.hub.job_ids(far, number)
    server = far.hub.one("SELECT server_id FROM meta")
    (step,) = containers(job, server, "label=shipway.step=hold")
    subprocess.run(["docker", "exec", step, "touch", "/tmp/go"], check=True)


def runs(far: Far, number: int) -> bool:
    try:
        return b"it runs" in far.hub.shipway.raw(f"{far.path}/{number}/ci/hold")
    except AssertionError:
        return False


# --- while a build runs ---------------------------------------------------------------------------------


async def down(_: Request) -> Response:
    return JSONResponse({"message": "Unicorn!"}, 502)


async def cut(_: Request) -> Response:
    return cut_off()


async def limited(_: Request) -> Response:
    """The hour's share is used up."""
    return rate_limited(reset_at=time.time() + 5)


async def too_many(_: Request) -> Response:
    """A secondary limit."""
    return rate_limited(seconds=5, status=429)


async def revoked(_: Request) -> Response:
    return JSONResponse({"message": "Bad credentials"}, 401)


class Slow:
    """Answers nothing until it is told to, and then the truth; waits longer than Shipway does."""

    def __init__(self) -> None:
        self.go = threading.Event()

    async def __call__(self, request: Request) -> Response | None:
        await asyncio.to_thread(self.go.wait, 60)
        return Response("", 499) if await request.is_disconnected() else None


SAID = {
    "down": "answers with 502",
    "cut": "cannot be reached",
    "limited": "the token's rate limit is used up",
    "too_many": "the token's rate limit is used up",
    "slow": "did not answer within 20 s",
    "revoked": "does not know the token: it is revoked or has expired",
}


@pytest.mark.timeout(180)
def test_builds_go_on_while_github_is_down_slow_limits_or_refuses_and_the_statuses_catch_up(
    town: Hub, trouble: dict[int, Misbehave]
) -> None:
    """Six repos, each with another trouble and a token of its own, at the same time."""
    slow = Slow()
    wrongs: dict[str, Misbehave] = {
        "down": down,
        "cut": cut,
        "limited": limited,
        "too_many": too_many,
        "slow": slow,
        "revoked": revoked,
    }
    fars: dict[str, Far] = {}
    for name in wrongs:
        town.github.tokens.add(f"ghp_of-{name}-alone")
        fars[name] = town.add(name.replace("_", "-"), {".ci.yml": HELD}, token=f"ghp_of-{name}-alone")
    try:
        # Two at a time: so many jobs the runner takes.
        names = ["slow", "down", "cut", "limited", "too_many", "revoked"]
        for pair in (names[:2], names[2:4], names[4:]):
            for name in pair:
                far = fars[name]
                far.deliver("push", far.pushed())
            for name in pair:
                far = fars[name]
                until(lambda far=far: runs(far, 1), 60)
                until(lambda far=far: far.repo.statuses and far.repo.statuses[-1]["description"] == "running")
                trouble[far.repo.key] = wrongs[name]
                let_go(far, 1)
            for name in pair:
                assert fars[name].ended()["status"] == "success"
        for name, far in fars.items():
            until(lambda far=far, name=name: SAID[name] in far.page(), 40)
            assert far.told() and set(far.told()) == {"pending"}
            assert f"ghp_of-{name}-alone" not in far.page() + town.shipway.server.said()
    finally:
        trouble.clear()
        slow.go.set()
    again = "ghp_the-next-one"
    town.github.tokens.add(again)
    far = fars["revoked"]
    answer = town.send(f"/r/{far.path}/credential", kind="token", user="", value=again)
    assert answer.status_code == 303
    for far in fars.values():
        far.until_told("success", far.repo.refs[MAIN], "shipway/push/ci", 30)
        until(lambda far=far: "its forge" not in far.page())
