"""A rerun of what failed keeps what passed; a newer build takes the place of older ones."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from ci.errors import Conflict
from ci.event import Event, Kind
from ci.protocol import StepAsks
from ci.server.approvals import Approvals
from ci.server.forges.builtin import Builtin
from ci.server.forges.directory import Forges
from ci.server.forges.git import PlainGit
from ci.server.models import Build
from ci.server.store import audit, builds, inbox, jobs, repos, views
from ci.server.store.tables import REPO
from ci.server.trigger import Origin, Result, Trigger
from ci.status import Status
from tests.unit.gitting import Work
from tests.unit.world import ADA, Core, core, ended, job_ended, running

URL = "http://127.0.0.1:8000"
STEPS = "steps:\n  test:\n    image: busybox\n    commands: ['true']\n"
THREE = {f".ci/{name}.yml": STEPS for name in ("a", "b", "c")}
DEPLOY = {".ci.yml": STEPS + "    deploy: true\n"}


class House:
    def __init__(self, world: Core, folder: Path) -> None:
        self.core = world
        self.builtin = Builtin(folder / "git", URL)
        plain = PlainGit(folder / "cache", protocols=("file",))
        self.forges = Forges(builtin=self.builtin, plain=plain)
        self.trigger = Trigger(world.store, world.bus, world.clock, self.forges, world.secrets, url=URL)
        self.approvals = Approvals(world.store, world.bus, world.clock, self.forges)
        self.work = Work(folder / "work", folder / "git" / f"{world.repo_id}.git")
        self.count = 0

    async def event(self, sha: str, **extra: Any) -> Result:
        """What one event became."""
        self.count += 1
        delivery = f"d{self.count}"
        row = await self.core.store.write(
            lambda c: inbox.receive_own(
                c, repo_id=self.core.repo_id, delivery=delivery, body=b"{}", now=1.0 * self.count
            )
        )
        values = {"kind": Kind.PUSH, "ref": "refs/heads/main", "branch": "main", "variables": {}}
        event = Event(after=sha, **{**values, **extra})  # type: ignore[arg-type]
        repo = await self.core.store.read(lambda c: repos.by_id(c, self.core.repo_id))
        assert repo is not None
        origin = Origin(inbox_id=row, index=0, ref=event.ref, ref_sha=None)
        return await self.trigger.start_build(event, repo, origin)

    async def build(self, sha: str, **extra: Any) -> Build:
        return await self.core.build_row((await self.event(sha, **extra)).build_id or 0)

    async def end(self, runner: int, *statuses: Status) -> None:
        """The next jobs, in order, end like this."""
        for status in statuses:
            lease = (await self.core.started(runner)).lease
            await self.core.record(runner, lease, running(1), ended(1, status), job_ended(status))

    async def numbered(self, number: int) -> Build:
        repo = await self.core.store.read(lambda c: repos.by_id(c, self.core.repo_id))
        view = await self.core.store.read(lambda c: views.build(c, repo, number))  # type: ignore[arg-type]
        assert view is not None
        return view.build

    async def statuses(self, build: Build) -> list[str]:
        return [job.status for job in await self.core.jobs_of(build.id or 0)]

    async def superseding(self) -> None:
        await self.core.store.write(lambda c: c.execute(update(REPO).values(is_superseding=True)))


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with core(tmp_path) as world:
        await Builtin(tmp_path / "git", URL).create(world.repo_id)
        yield House(world, tmp_path)


def push(house: House, files: dict[str, str], branch: str = "main") -> str:
    sha = house.work.commit_files(files, "change")
    house.work.git("push", "-qf", "origin", f"HEAD:refs/heads/{branch}")
    return sha


# --- rerun ------------------------------------------------------------------------------------


async def test_a_rerun_of_what_failed_keeps_what_passed(house: House) -> None:
    runner = await house.core.runner()
    first = await house.build(push(house, THREE))
    await house.end(runner, Status.SUCCESS, Status.FAILURE, Status.SUCCESS)
    old = await house.core.jobs_of(first.id or 0)
    house.core.clock.seconds += 1000
    _, _, number = await house.trigger.rerun(first.id or 0, ADA, only_failed=True)
    second = await house.numbered(number)
    assert (second.rerun_of, second.event["sender"], second.status) == (first.id, "ada", "pending")
    new = await house.core.jobs_of(second.id or 0)
    assert [job.status for job in new] == ["success", "pending", "success"]
    assert [job.kept_from for job in new] == [old[0].id, None, old[2].id]
    await house.end(runner, Status.SUCCESS)
    row = await house.core.build_row(second.id or 0)
    assert (row.status, row.started_at) == ("success", house.core.clock.now())
    assert await house.core.queue.take(runner, 10) == []
    (noted,) = await house.core.store.read(audit.latest)
    assert (noted.action, noted.details) == ("build.rerun", "ran what failed again as #2")


async def test_what_is_kept_twice_is_kept_from_where_it_ran(house: House) -> None:
    runner = await house.core.runner()
    first = await house.build(push(house, THREE))
    await house.end(runner, Status.SUCCESS, Status.FAILURE, Status.FAILURE)
    (ran, *_) = await house.core.jobs_of(first.id or 0)
    await house.trigger.rerun(first.id or 0, ADA, only_failed=True)
    await house.end(runner, Status.SUCCESS, Status.FAILURE)
    second = await house.numbered(2)
    await house.trigger.rerun(second.id or 0, ADA, only_failed=True)
    third = await house.core.jobs_of((await house.numbered(3)).id or 0)
    second_jobs = await house.core.jobs_of(second.id or 0)
    assert [job.kept_from for job in third] == [ran.id, second_jobs[1].id, None]
    repo = await house.core.store.read(lambda c: repos.by_id(c, house.core.repo_id))
    view = await house.core.store.read(lambda c: views.build(c, repo, 3))  # type: ignore[arg-type]
    assert view is not None
    assert [job.kept_number for job in view.jobs] == [1, 2, None]
    assert {step.job_id for step in view.jobs[0].steps()} == {ran.id}


async def test_there_must_be_something_that_failed_and_it_must_have_ended(house: House) -> None:
    runner = await house.core.runner()
    first = await house.build(push(house, THREE))
    with pytest.raises(Conflict, match="build 1 has not ended: pending"):
        await house.trigger.rerun(first.id or 0, ADA, only_failed=True)
    await house.end(runner, *[Status.SUCCESS] * 3)
    with pytest.raises(Conflict, match="nothing of build 1 failed"):
        await house.trigger.rerun(first.id or 0, ADA, only_failed=True)
    assert (await house.trigger.rerun(first.id or 0, ADA))[2] == 2


# --- builds that take the place of others ----------------------------------------------------


async def test_a_newer_push_cancels_what_has_not_ended_of_the_same_branch(house: House) -> None:
    await house.superseding()
    runner = await house.core.runner()
    first = await house.build(push(house, {".ci.yml": STEPS}))
    other = await house.build(push(house, {"x": "1"}, "other"), ref="refs/heads/other", branch="other")
    at_work = await house.core.started(runner)
    second = await house.build(push(house, {"x": "2"}))
    third = await house.build(push(house, {"x": "3"}))
    assert (await house.core.build_row(first.id or 0)).cancel_reason == "superseded by #3"
    assert (await house.core.build_row(first.id or 0)).status == "running"  # until its runner says so
    (cancel,) = await house.core.lifecycle.pending_cancels(runner)
    assert (cancel.lease, cancel.reason) == (at_work.lease, "superseded by #3")
    row = await house.core.build_row(second.id or 0)
    assert (row.status, row.reason) == ("cancelled", "superseded by #4")
    assert (await house.core.build_row(other.id or 0)).status == "pending"
    assert (await house.core.build_row(third.id or 0)).status == "pending"


async def test_without_the_setting_nothing_is_cancelled(house: House) -> None:
    first = await house.build(push(house, {".ci.yml": STEPS}))
    await house.build(push(house, {"x": "2"}))
    assert (await house.core.build_row(first.id or 0)).status == "pending"


@pytest.mark.parametrize(
    "values",
    [
        {"kind": Kind.TAG, "ref": "refs/tags/v1", "tag": "v1", "branch": ""},
        {"kind": Kind.CRON},
        {"kind": Kind.MANUAL},
    ],
    ids=["tag", "cron", "manual"],
)
async def test_tags_schedules_and_people_supersede_nothing_and_are_not_superseded(
    house: House, values: dict[str, Any]
) -> None:
    await house.superseding()
    sha = push(house, {".ci.yml": STEPS})
    pushed = await house.build(sha)
    first = await house.build(sha, **values)
    await house.build(sha, **values)
    assert (await house.core.build_row(first.id or 0)).status == "pending"
    assert (await house.core.build_row(pushed.id or 0)).status == "pending"
    await house.build(push(house, {"x": "2"}))
    assert (await house.core.build_row(first.id or 0)).status == "pending"


async def test_a_newer_build_of_the_pull_request_cancels_the_older_also_one_that_is_blocked(
    house: House,
) -> None:
    await house.superseding()
    sha = push(house, {".ci.yml": STEPS})

    def of(number: int, *, is_from_fork: bool = True) -> dict[str, Any]:
        ref = f"refs/pull/{number}/head"
        return {
            "kind": Kind.PULL_REQUEST,
            "ref": ref,
            "pull_request": number,
            "is_from_fork": is_from_fork,
        }

    blocked, other = await house.build(sha, **of(7)), await house.build(sha, **of(8, is_from_fork=False))
    await house.build(push(house, {"x": "2"}), **of(7))
    row = await house.core.build_row(blocked.id or 0)
    assert (row.status, row.reason) == ("cancelled", "superseded by #3")
    assert (await house.core.build_row(other.id or 0)).status == "pending"


async def test_a_rerun_supersedes_nothing(house: House) -> None:
    await house.superseding()
    first = await house.build(push(house, {".ci.yml": STEPS}))
    await house.core.lifecycle.cancel(first.id or 0, ADA)
    second = await house.build(push(house, {"x": "2"}))
    await house.trigger.rerun(first.id or 0, ADA)
    assert (await house.core.build_row(second.id or 0)).status == "pending"


async def test_a_deploy_that_has_started_goes_on_and_the_verdict_says_so(house: House) -> None:
    await house.superseding()
    runner = await house.core.runner()
    first = await house.build(push(house, DEPLOY))
    lease = (await house.core.started(runner)).lease
    await house.core.record(
        runner, lease, running(0), ended(0), StepAsks(step=1, after_seconds=1.0), running(1)
    )
    result = await house.event(push(house, {"x": "2"}))
    assert result.sentence == "built #2; #1 goes on, because a step with side effects has started in it"
    row = await house.core.build_row(first.id or 0)
    assert (row.status, row.cancel_reason) == ("running", "")
    assert await house.core.lifecycle.pending_cancels(runner) == []


async def test_the_same_event_again_supersedes_nothing_twice(house: House) -> None:
    await house.superseding()
    sha = push(house, {".ci.yml": STEPS})
    first = await house.build(sha)
    found = await house.core.store.read(lambda c: jobs.of_build(c, first.id or 0))
    newest = await house.core.store.read(lambda c: builds.by_id(c, first.id or 0))
    assert newest is not None
    assert await house.core.store.read(lambda c: builds.older_unfinished(c, newest)) == []
    assert [job.status for job in found] == ["pending"]
