"""GitHub that is away, slow, limits or refuses, while builds run: they go on, the repo's page says what is
wrong, and the statuses catch up in order. And secrets that a build cannot have, said before anything runs."""

from __future__ import annotations

import asyncio
import itertools
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
from tests.system.github_hub import MAIN, EngineWatch, Far, Hub, containers, hub

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


class Limit:
    """The hour's share is used up (403), or it was too much at once (429): not again within 5 s."""

    def __init__(self, status: int, clock: Path) -> None:
        self._status = status
        self._clock = clock
        self.asked_at: list[float] = []

    async def __call__(self, _: Request) -> Response:
        self.asked_at.append(time.monotonic())
        if self._status == 429:
            return rate_limited(seconds=5, status=429)
        now = time.time() + int(self._clock.read_text())
        return rate_limited(reset_at=now + 6)  # whole seconds

    @property
    def least_pause(self) -> float:
        return min((b - a for a, b in itertools.pairwise(self.asked_at)), default=5.0)


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
    town: Hub, trouble: dict[int, Misbehave], clock: Path
) -> None:
    """Six repos, each with another trouble and a token of its own, at the same time."""
    slow, limits = Slow(), (Limit(403, clock), Limit(429, clock))
    wrongs: dict[str, Misbehave] = {
        "down": down,
        "cut": cut,
        "limited": limits[0],
        "too_many": limits[1],
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
    for limit in limits:
        assert limit.asked_at and limit.least_pause > 4.9, "GitHub said when to ask again"
    again = "ghp_the-next-one"
    town.github.tokens.add(again)
    far = fars["revoked"]
    answer = town.send(f"/r/{far.path}/credential", kind="token", user="", value=again)
    assert answer.status_code == 303
    for far in fars.values():
        far.until_told("success", far.repo.refs[MAIN], "shipway/push/ci", 30)
        until(lambda far=far: "forge trouble" not in far.page())


def test_a_token_that_is_revoked_before_the_clone_is_said_by_the_build_and_another_one_mends_it(
    town: Hub, trouble: dict[int, Misbehave]
) -> None:
    town.github.tokens.add("ghp_soon-revoked")
    cloning = {".ci.yml": QUICK.replace("skip_clone: true\n", "") % "true"}
    far = town.add("before-the-clone", cloning, token="ghp_soon-revoked")
    with town.runner_paused():
        far.deliver("push", far.pushed())
        until(lambda: far.told() == ["pending"])
        town.github.tokens.remove("ghp_soon-revoked")
    build = far.ended()
    assert build["status"] == "error", build
    assert f"git may not read {town.github.url}/{far.path}.git: its server takes no such credential" in (
        far.page(1)
    )
    until(lambda: SAID["revoked"] in far.page())
    waiting = far.send(far.sign("push", far.push(cloning)))["delivery"]
    assert far.first_word(waiting).startswith("not yet, it is tried again: ")
    town.github.tokens.add("ghp_the-one-after")
    town.send(f"/r/{far.path}/credential", kind="token", user="", value="ghp_the-one-after")
    assert far.ended(2)["status"] == "success"  # the push that had waited
    far.until_told("success", far.repo.refs[MAIN], "shipway/push/ci")
    moves = [state for state, _ in itertools.groupby(far.told())]
    assert moves == ["pending", "error", "pending", "success"]
    for token in ("ghp_soon-revoked", "ghp_the-one-after"):
        assert token not in far.page() + far.page(1) + far.log(1, "clone") + town.shipway.server.said()


# --- a minute without GitHub ----------------------------------------------------------------------------


class Outage:
    """GitHub takes the first status of each context, and then fails in turn in each way that there is."""

    def __init__(self) -> None:
        self.is_over = False
        self.tries = 0
        self._greeted: set[str] = set()

    async def __call__(self, request: Request) -> Response | None:
        if request.method != "POST" or self.is_over:
            return None
        context = (await request.json())["context"]
        if context not in self._greeted:
            self._greeted.add(context)
            return None
        self.tries += 1
        return await (down, cut)[self.tries % 2](request)


def test_statuses_are_told_in_order_after_github_failed_for_a_minute(
    town: Hub, trouble: dict[int, Misbehave], clock: Path
) -> None:
    files = {".ci/good.yml": QUICK % "true", ".ci/bad.yml": QUICK % "false"}
    far, outage = town.add("minute", files), Outage()
    trouble[far.repo.key] = outage
    sha = far.repo.refs[MAIN]
    far.deliver("push", far.pushed())
    assert far.ended(1)["status"] == "failure"
    # Meanwhile it is run again: the new build speaks for the commit.
    town.shipway.api("POST", f"/api/repos/{far.path}/builds/1/rerun")
    assert far.ended(2)["status"] == "failure"
    contexts = ("shipway/push/bad", "shipway/push/good")
    until(lambda: {status["context"] for status in far.repo.statuses} == set(contexts))

    def pass_seconds(seconds: int) -> None:
        """The server's clock goes on, and the server looks again; returns once nothing is due any more."""
        clock.write_text(str(int(clock.read_text()) + seconds))
        town.shipway.api("POST", f"/api/repos/{far.path}/settings", timeout_minutes=str(60 + outage.tries))
        due = "SELECT count(*) FROM outbox WHERE next_try_at <= ?"
        until(lambda: town.one(due, time.time() + int(clock.read_text())) == 0)

    for _ in range(21):
        pass_seconds(3)
    assert 8 <= outage.tries <= 40, "tried again and again, and ever more seldom"
    assert far.told(sha) == ["pending", "pending"]
    assert "forge trouble" in far.page()
    outage.is_over = True
    for _ in range(25):
        pass_seconds(3)
    assert far.until_told("failure", sha, contexts[0]) == ["pending", "failure"]
    assert far.until_told("success", sha, contexts[1]) == ["pending", "success"]
    numbers = [int(status["target_url"].rpartition("/")[2]) for status in far.repo.statuses]
    assert numbers == [1, 1, 2, 2], "what was overtaken is not told any more"
    until(lambda: "forge trouble" not in far.page())


# --- secrets that a build cannot have -------------------------------------------------------------------

ASKS = """
steps:
  ship:
    image: busybox
    environment: { KEY: { from_secret: %s } }
    commands: ['echo "[$KEY]"']
"""


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ghost", "there is none of this name; `shipway secret set ghost --repo ada/ghost` sets it"),
        ("tags_only", "it is for tag, this is push"),
        ("other_step", "it is for the steps deploy"),
        ("plugin_only", "it is for the images docker.io/plugins/s3, this is docker.io/library/busybox"),
    ],
)
def test_a_secret_that_is_not_there_or_may_not_be_read_is_said_before_anything_runs(
    town: Hub, tmp_path: Path, name: str, says: str
) -> None:
    far = town.add(name.replace("_", "-"), {".ci.yml": ASKS % name})
    filters = {
        "tags_only": {"events": ["tag"]},
        "other_step": {"steps": ["deploy"]},
        "plugin_only": {"images": ["plugins/s3"]},
    }
    if name in filters:
        secret = f"/api/repos/{far.path}/secrets/{name}"
        town.shipway.api("PUT", secret, value="a long canary 4714", **filters[name])
    watch = EngineWatch(tmp_path / "events")
    try:
        far.deliver("push", far.pushed())
        build = far.ended()
        assert (build["status"], build["outcome"], build["jobs"]) == ("error", "secret", [])
        page = far.page(1)
        assert f".ci.yml:5:25: step 'ship' cannot read the secret '{name}': {says}" in page
        far.until_told("error", far.repo.refs[MAIN], "shipway/push/ci")
        assert "cannot read the secret" in far.repo.statuses[-1]["description"]
        assert "4714" not in page + str(far.repo.statuses)
        far.deliver("push", far.push({".ci.yml": QUICK % "true"}))  # the runner takes what may run
        assert far.ended(2)["status"] == "success"
        (allowed,) = town.job_ids(far, 2)
        server = town.one("SELECT server_id FROM meta")
        until(lambda: watch.jobs(server))
        assert watch.jobs(server) == {allowed}
    finally:
        watch.close()


def test_a_secret_that_is_withheld_from_a_stranger_is_said_while_the_build_waits(town: Hub) -> None:
    far = town.add("withheld", {".ci.yml": QUICK % "true"})
    town.shipway.api("PUT", f"/api/repos/{far.path}/secrets/deploy_key", value="a long canary 4715")
    pull = far.fork({".ci.yml": ASKS % "deploy_key"})
    far.deliver("pull_request", far.opened(pull))
    build = far.waits()
    (warning,) = build["problems"]
    assert (warning["is_warning"], warning["line"]) == (True, 5)
    says = (
        "the secret 'deploy_key' is withheld from a stranger's pull request: step 'ship' sees an empty value"
    )
    page = far.page(1)
    assert f".ci.yml:5:25: {says}" in page and "4715" not in page
    assert far.approve(1).status_code == 303
    assert far.ended()["status"] == "success"
    assert far.log(1, "ship").splitlines()[-1] == "[]"
