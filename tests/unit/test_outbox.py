"""Commit statuses reach their forge: in order, once the transition stands, whatever fails in between."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from sqlalchemy import update
from starlette.requests import Request
from starlette.responses import Response

from ci.server.auth import Actor
from ci.server.bus import Bus
from ci.server.credentials import Credential, Kind
from ci.server.forges.base import StatusUpdate
from ci.server.forges.github_api import GitHubApi, RateLimits
from ci.server.models import Outbox as Row
from ci.server.models import Repo
from ci.server.outbox import GIVE_UP_SECONDS, MAX_FAILURES, REFUSED_RETRY_SECONDS, Outbox
from ci.server.store import outbox, repos
from ci.server.store.repos import NewRepo
from ci.server.store.tables import REPO
from ci.status import Status
from tests.fake_github import TOKEN, FakeGitHub, cut_off, rate_limited
from tests.fake_github import Repo as FakeRepo
from tests.unit.world import SHA, Core, core, ended, job_ended, running, spec

_STATES = {Status.SUCCESS.value: "success", Status.FAILURE.value: "failure"}


@dataclass
class OneForge:
    """All repos are at one GitHub; the state's words are as simple as they can be."""

    api: GitHubApi

    def of(self, repo: Repo) -> OneForge:
        return self

    async def set_status(self, repo: Repo, status: StatusUpdate) -> None:
        await self.api.set_status(
            repo.forge_key,
            status.sha,
            state=_STATES.get(status.state, "pending"),
            context=status.context,
            description=status.description[:140],
            target_url=status.target_url,
        )


@dataclass
class Sending:
    core: Core
    github: FakeGitHub
    repo: FakeRepo
    outbox: Outbox
    bus: Bus

    def told(self) -> list[tuple[str, str]]:
        return [(status["state"], status["description"]) for status in self.repo.statuses]

    async def rows(self, build_id: int) -> list[Row]:
        return await self.core.store.read(lambda c: outbox.rows_of(c, build_id))

    async def problem(self) -> str:
        repo = await self.core.store.read(lambda c: repos.by_id(c, self.core.repo_id))
        assert repo is not None
        return repo.forge_problem


@pytest.fixture
async def sending(tmp_path: Path) -> AsyncIterator[Sending]:
    async with core(tmp_path) as server, FakeGitHub().serving() as github, httpx.AsyncClient() as client:
        github.misbehave = None
        repo = github.repo(7)
        repo.commits[SHA] = repo.commits[repo.commit("refs/heads/main", {})]
        mine = update(REPO).where(REPO.c.id == server.repo_id).values(forge="github", forge_key="7")
        await server.store.write(lambda c: c.execute(mine) and None)
        api = GitHubApi(api_url=github.url, token=TOKEN, client=client, limits=RateLimits(server.clock))
        bus = Bus()
        sender = Outbox(server.store, bus, server.clock, OneForge(api), "http://ci.test")  # type: ignore[arg-type]
        yield Sending(core=server, github=github, repo=repo, outbox=sender, bus=bus)


async def _run(core: Core, build_id: int, status: Status = Status.SUCCESS) -> None:
    runner = await core.runner(f"r{build_id}")
    assign = await core.started(runner)
    changes = (running(1), ended(1), running(2), ended(2, status), job_ended(status))
    await core.record(runner, assign.lease, *changes)


async def test_a_build_is_told_as_it_moves(sending: Sending) -> None:
    build_id = await sending.core.build()
    await sending.outbox.deliver_due()
    await _run(sending.core, build_id)
    await sending.outbox.deliver_due()
    assert sending.told() == [("pending", "waiting for a runner"), ("success", "passed")]
    status = sending.repo.statuses[-1]
    assert status["context"] == "shipway/push/ci"
    assert status["target_url"] == "http://ci.test/r/ada/app/1"
    assert [row.sequence for row in await sending.rows(build_id)] == [1, 2, 3]


async def test_the_last_state_wins_after_a_forge_that_was_away(sending: Sending) -> None:
    async def down(_: Request) -> Response:
        return Response("oops", 503)

    sending.github.misbehave = down
    build_id = await sending.core.build()
    await sending.outbox.deliver_due()
    for _ in range(6):  # a minute of failures
        sending.core.clock.seconds += 10
        await sending.outbox.deliver_due()
    await _run(sending.core, build_id, Status.FAILURE)
    sending.github.misbehave = None
    sending.core.clock.seconds += 300
    await sending.outbox.deliver_due()
    assert [state for state, _ in sending.told()] == ["failure"]
    rows = await sending.rows(build_id)
    assert [row.delivered_at is not None for row in rows] == [False, False, True]
    assert all(row.next_try_at is None for row in rows)


async def test_answers_that_are_lost_in_any_order_leave_each_context_in_order(sending: Sending) -> None:
    """Half of all requests fail, before or after GitHub has taken the status."""
    chance = random.Random(4)
    taken = sending.github.misbehave

    async def unreliable(request: Request) -> Response | None:
        fault = chance.randrange(4)
        if fault == 0:
            return Response("oops", 502)
        if fault == 1 and request.method == "POST":
            body = await request.json()
            sending.repo.statuses.append({"sha": request.path_params["sha"], **body})
            return cut_off()
        return taken

    sending.github.misbehave = unreliable
    build_id = await sending.core.build(spec("ci"), spec("docs"), spec("lint"))
    runner = await sending.core.runner()
    for _ in range(3):
        assign = await sending.core.started(runner)
        for seq, change in enumerate((running(1), ended(1), running(2), ended(2), job_ended())):
            await sending.core.record(runner, assign.lease, change, first=seq)
            await sending.outbox.deliver_due()
            sending.core.clock.seconds += 1
    for _ in range(30):
        await sending.outbox.deliver_due()
        sending.core.clock.seconds += 300
    rows = await sending.rows(build_id)
    assert all(row.next_try_at is None for row in rows)
    for pipeline in ("ci", "docs", "lint"):
        context = f"shipway/push/{pipeline}"
        told = [each["description"] for each in sending.repo.statuses if each["context"] == context]
        meant = [row.description for row in rows if row.context == context]
        places = [meant.index(words) for words in told]
        assert places == sorted(places) and told[-1] == "passed" == meant[-1]


async def test_retries_back_off_and_are_given_up_after_days(sending: Sending) -> None:
    async def down(_: Request) -> Response:
        return Response("oops", 503)

    sending.github.misbehave = down
    build_id = await sending.core.build()
    pauses = []
    for _ in range(4):
        await sending.outbox.deliver_due()
        (row,) = await sending.rows(build_id)
        assert row.next_try_at is not None
        pauses.append(row.next_try_at - sending.core.clock.seconds)
        sending.core.clock.seconds = row.next_try_at
    assert pauses[0] <= 1 < pauses[1] <= 2 < pauses[2] <= 4 < pauses[3] <= 8
    sending.core.clock.seconds += GIVE_UP_SECONDS
    await sending.outbox.deliver_due()
    (row,) = await sending.rows(build_id)
    assert row.next_try_at is None
    assert "503" in row.last_error


async def test_a_forge_that_hangs_holds_up_no_other_repo_and_is_asked_a_few_times_only(
    sending: Sending,
) -> None:
    hangs, release = asyncio.Event(), asyncio.Event()

    async def hang_for_the_first(request: Request) -> Response | None:
        if not request.url.path.startswith("/repositories/7/"):
            return None
        hangs.set()
        await release.wait()
        return Response("oops", 503)

    sending.github.misbehave = hang_for_the_first
    other = sending.github.repo(8, name="other")
    other.commits[SHA] = sending.repo.commits[SHA]
    new = NewRepo(forge="github", key="8", owner="ada", name="other", clone_url="https://x/y.git")
    core = sending.core
    first = await core.build(*(spec(f"p{number}") for number in range(8)))
    running = asyncio.create_task(sending.outbox.run())
    try:
        await asyncio.wait_for(hangs.wait(), 10)
        core.repo_id = await core.store.write(lambda c: repos.create_at(c, new, 1.0))
        await core.build()
        sending.bus.publish("builds")
        await asyncio.wait_for(sending.github.status_came.wait(), 10)
        assert [each["state"] for each in other.statuses] == ["pending"] and not sending.repo.statuses
        with sending.bus.subscribe("outbox") as rings:
            release.set()
            while any((row.next_try_at or 0) <= core.clock.seconds for row in await sending.rows(first)):
                assert await rings.wait(10), "a round ends within 10 s"
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert len(sending.github.seen) == MAX_FAILURES + 1


async def test_a_rate_limit_puts_off_everything_of_the_repo(sending: Sending) -> None:
    async def limited(_: Request) -> Response:
        return rate_limited(seconds=50)

    sending.github.misbehave = limited
    for _ in range(3):
        await sending.core.build(spec("ci"), spec("docs"))
    await sending.outbox.deliver_due()
    assert len(sending.github.seen) == 1
    sending.github.misbehave = None
    sending.core.clock.seconds += 49
    assert await sending.outbox.deliver_due() == 0
    sending.core.clock.seconds += 1
    await sending.outbox.deliver_due()
    assert len(sending.told()) == 2


async def test_a_token_that_is_refused_is_a_sentence_on_the_repo_until_it_works(sending: Sending) -> None:
    sending.github.tokens.clear()
    build_id = await sending.core.build()
    await sending.outbox.deliver_due()
    assert "revoked or has expired" in await sending.problem()
    (row,) = await sending.rows(build_id)
    assert row.next_try_at == sending.core.clock.seconds + REFUSED_RETRY_SECONDS
    sending.github.tokens.add(TOKEN)
    sending.core.clock.seconds += REFUSED_RETRY_SECONDS
    await sending.outbox.deliver_due()
    assert await sending.problem() == ""
    assert len(sending.told()) == 1


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda: Response("oops", 502), "answers with 502"),
        (lambda: rate_limited(seconds=50), "rate limit is used up; again in 50 s"),
        (lambda: rate_limited(reset_at=0, status=429), "rate limit is used up"),
    ],
    ids=["down", "limited", "too many"],
)
async def test_a_forge_that_takes_no_status_now_is_a_sentence_on_the_repo_until_it_does(
    sending: Sending, answer: Callable[[], Response], says: str
) -> None:
    async def wrong(_: Request) -> Response:
        return answer()

    sending.github.misbehave = wrong
    await sending.core.build()
    await sending.outbox.deliver_due()
    assert says in await sending.problem()
    sending.github.misbehave = None
    sending.core.clock.seconds += 300
    await sending.outbox.deliver_due()
    assert await sending.problem() == ""


async def test_a_problem_that_arose_in_the_same_round_is_over_with_the_next_delivery(
    sending: Sending,
) -> None:
    """The first of two statuses fails, the second is taken."""
    answers = iter([Response("oops", 502)])

    async def once(_: Request) -> Response | None:
        return next(answers, None)

    sending.github.misbehave = once
    await sending.core.build(spec("ci"), spec("docs"))
    await sending.outbox.deliver_due()
    assert (len(sending.told()), await sending.problem()) == (1, "")


async def test_another_credential_is_tried_at_once(sending: Sending) -> None:
    sending.github.tokens.clear()
    await sending.core.build()
    await sending.outbox.deliver_due()
    sending.github.tokens.add(TOKEN)
    assert await sending.outbox.deliver_due() == 0
    given = Credential(kind=Kind.TOKEN, value=TOKEN)
    mine = update(REPO).values(clone_url="https://github.example/ada/app.git")
    await sending.core.store.write(lambda c: c.execute(mine) and None)
    actor = Actor(user_id=None, name="ada")
    await sending.core.credentials.set(sending.core.repo_id, given, actor)
    assert await sending.outbox.deliver_due() == 1
    assert (len(sending.told()), await sending.problem()) == (1, "")


async def test_what_the_forge_will_never_take_is_given_up_at_once(sending: Sending) -> None:
    sending.repo.commits.clear()
    build_id = await sending.core.build()
    await sending.outbox.deliver_due()
    (row,) = await sending.rows(build_id)
    assert (row.next_try_at, row.delivered_at) == (None, None)
    assert "422" in row.last_error


async def test_a_rerun_goes_on_in_the_sequence_and_the_older_build_is_silent(sending: Sending) -> None:
    old = await sending.core.build()
    new = await sending.core.build()
    assert [row.sequence for row in await sending.rows(new)] == [2]
    await _run(sending.core, old)
    assert [row.sequence for row in await sending.rows(old)] == [1]
    await sending.outbox.deliver_due()
    assert [state for state, _ in sending.told()] == ["pending"]


async def test_a_repo_whose_forge_shows_none_has_no_rows(sending: Sending) -> None:
    forge = update(REPO).values(forge="builtin")
    await sending.core.store.write(lambda c: c.execute(forge) and None)
    assert await sending.rows(await sending.core.build()) == []
