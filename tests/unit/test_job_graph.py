"""Jobs that wait for others of their build, and for a place in their concurrency group."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci import waits
from ci.protocol import Cancel, JobEnded, Lease, StepAsks
from ci.server.queue import Wait, explain
from ci.server.store import attempts, repos
from ci.spec import Concurrency, JobSpec
from ci.status import Status
from ci.waits import Standing
from tests.unit.world import ADA, Core, core, ended, job_ended, running, spec


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Core]:
    async with core(tmp_path) as world:
        yield world


def job(name: str, *needs: str, **more: Any) -> JobSpec:
    return spec(name).model_copy(update={"depends_on": needs, **more})


FAILS = {"run_on": ("failure",)}
ALWAYS = {"run_on": ("success", "failure")}


async def standing(world: Core, build: int) -> dict[str, tuple[str, str]]:
    return {each.slug: (each.status, each.reason) for each in await world.jobs_of(build)}


async def run(world: Core, runner: int, end: JobEnded | None = None) -> str:
    """The runner runs the oldest job to its end; returns its slug."""
    assigned = await world.started(runner)
    changes = (running(1), ended(1), running(2), ended(2), end or job_ended())
    await world.record(runner, assigned.lease, *changes)
    return assigned.spec.slug


async def why(world: Core, build: int, slug: str) -> Wait:
    (found,) = [each for each in await world.jobs_of(build) if each.slug == slug]
    return await world.store.read(lambda connection: explain(connection, found))


# --- dependencies ----------------------------------------------------------------------------------------


async def test_a_job_waits_until_all_that_it_depends_on_have_ended(world: Core) -> None:
    build = await world.build(job("lint"), job("test"), job("deploy", "lint", "test"))
    runner = await world.runner()
    assert (await standing(world, build))["deploy"] == ("waiting", "waits for lint, test")
    assert await run(world, runner) == "lint"
    assert (await standing(world, build))["deploy"] == ("waiting", "waits for test")
    assert (await why(world, build, "deploy")).why == "waits for test"
    assert (await world.build_row(build)).status == "running"
    assert await run(world, runner) == "test"
    assert (await standing(world, build))["deploy"] == ("pending", "")
    assert await run(world, runner) == "deploy"
    assert (await world.build_row(build)).status == "success"


async def test_after_a_failure_only_what_runs_on_failures_starts(world: Core) -> None:
    build = await world.build(
        job("test"),
        job("deploy", "test"),
        job("after", "deploy"),
        job("alarm", "deploy", **FAILS),
        job("notify", "after", **ALWAYS),
    )
    runner = await world.runner()
    await run(world, runner, job_ended(Status.FAILURE, "test: exited with 1"))
    assert await standing(world, build) == {
        "test": ("failure", "test: exited with 1"),
        "deploy": ("skipped", "needs test, which failed"),
        "after": ("skipped", "needs test, which failed"),
        "alarm": ("pending", ""),
        "notify": ("pending", ""),
    }
    steps = await world.steps((await world.jobs_of(build))[1].id or 0)
    assert {(each.status, each.reason) for each in steps.values()} == {
        ("skipped", "needs test, which failed")
    }
    await run(world, runner)
    await run(world, runner)
    assert (await world.build_row(build)).status == "failure"


async def test_where_nothing_fails_a_job_for_failures_is_skipped_and_counts_as_nothing(world: Core) -> None:
    build = await world.build(job("test"), job("alarm", "test", **FAILS), job("deploy", "alarm"))
    await run(world, await world.runner())
    found = await standing(world, build)
    assert found["alarm"] == ("skipped", "runs only after a failure, and nothing failed")
    assert found["deploy"] == ("pending", "")


async def test_a_job_of_which_nobody_knows_the_end_holds_up_what_depends_on_it(world: Core) -> None:
    build = await world.build(spec("deploy", deploy=True), job("notify", "deploy"))
    runner = await world.runner()
    lease = (await world.started(runner)).lease
    await world.record(runner, lease, running(1), ended(1), StepAsks(step=2, after_seconds=1))
    await world.lose_by_silence()
    found = await standing(world, build)
    assert (found["deploy"][0], found["notify"]) == ("unknown", ("waiting", "waits for deploy"))
    await world.lifecycle.resolve(lease.job, Status.SUCCESS, ADA)
    assert (await standing(world, build))["notify"] == ("pending", "")


async def test_a_cancelled_build_cancels_what_waits(world: Core) -> None:
    build = await world.build(job("test"), job("deploy", "test"), job("alarm", "test", **FAILS))
    await world.lifecycle.cancel(build, ADA)
    assert {status for status, _ in (await standing(world, build)).values()} == {"cancelled"}
    assert (await world.build_row(build)).status == "cancelled"


async def test_a_lost_job_is_tried_again_and_what_depends_on_it_goes_on_waiting(world: Core) -> None:
    build = await world.build(job("test"), job("deploy", "test"))
    runner = await world.runner()
    await world.started(runner)
    await world.lose_by_silence()
    found = await standing(world, build)
    assert (found["test"][0], found["deploy"][0]) == ("pending", "waiting")


SLUGS = "abcdef"
STANDINGS = st.lists(
    st.builds(
        lambda needs, on: (needs, on),
        st.frozensets(st.integers(0, 5), max_size=3),
        st.sampled_from([("success",), ("failure",), ("success", "failure")]),
    ),
    min_size=1,
    max_size=6,
)


@given(STANDINGS, st.data())
def test_every_job_is_decided_once_whatever_the_graph_and_the_ends(
    shape: list[tuple[frozenset[int], tuple[str, ...]]], data: st.DataObject
) -> None:
    """Edges go back only, as the compiler sees to it; ends come in any order."""
    known = {
        SLUGS[at]: Standing(
            slug=SLUGS[at],
            name=SLUGS[at],
            depends_on=tuple(SLUGS[need] for need in sorted(needs) if need < at),
            run_on=on,
            status=Status.WAITING if any(need < at for need in needs) else Status.PENDING,
        )
        for at, (needs, on) in enumerate(shape)
    }

    def become(slug: str, status: Status) -> None:
        assert not known[slug].status.is_terminal
        known[slug] = Standing(**{**vars(known[slug]), "status": status})

    ends = st.sampled_from([Status.SUCCESS, Status.FAILURE, Status.ERROR, Status.CANCELLED])
    while any(not each.status.is_terminal for each in known.values()):
        decisions = waits.decide(list(known.values()))
        for decision in decisions:
            assert known[decision.slug].status is Status.WAITING
            become(decision.slug, decision.status)
        pending = [slug for slug, each in known.items() if each.status is Status.PENDING]
        assert decisions or pending, "somebody goes on, or all has ended"
        if pending:
            become(data.draw(st.sampled_from(pending)), data.draw(ends))


# --- a failure that ends the build -------------------------------------------------------------------------


async def test_a_failure_may_end_the_other_jobs_of_the_build(world: Core) -> None:
    build = await world.build(
        job("lint"), job("slow"), job("late"), job("waits", "late"), job("alarm", "lint", "late", **FAILS)
    )
    lints, slow = await world.runner(), await world.runner("b")
    lease = (await world.started(lints)).lease
    other = (await world.started(slow)).lease
    end = job_ended(Status.FAILURE, "x").model_copy(update={"stops_build": True})
    await world.record(lints, lease, running(1), ended(1, Status.FAILURE, 1), end)
    reason = "stopped because lint failed"
    assert await world.lifecycle.pending_cancels(slow) == [Cancel(lease=other, reason=reason)]
    found = await standing(world, build)
    assert (found["late"], found["waits"]) == (("cancelled", reason), ("cancelled", reason))
    assert found["alarm"] == ("pending", "")
    await world.record(slow, other, job_ended(Status.CANCELLED))
    assert (await standing(world, build))["slow"] == ("cancelled", reason)
    await run(world, lints)
    assert (await world.build_row(build)).status == "failure"


async def test_a_failure_that_does_not_say_so_ends_no_other_job(world: Core) -> None:
    build = await world.build(job("lint"), job("slow"))
    await run(world, await world.runner(), job_ended(Status.FAILURE, "x"))
    assert (await standing(world, build))["slow"] == ("pending", "")


# --- concurrency groups ------------------------------------------------------------------------------------


def grouped(name: str, *needs: str, limit: int = 1, cancels: bool = False, group: str = "prod") -> JobSpec:
    wanted = Concurrency(group=group, limit=limit, cancels=cancels)
    return job(name, *needs, concurrency=wanted)


async def taken(world: Core, runner: int, free: int = 10) -> list[tuple[str, Lease]]:
    return [(each.spec.slug, each.lease) for each in await world.queue.take(runner, free)]


async def test_one_job_of_a_group_runs_at_a_time_in_the_order_of_the_builds(world: Core) -> None:
    first = await world.build(grouped("deploy"), job("other"))
    second = await world.build(grouped("deploy"), grouped("else", group="test"))
    third = await world.build(grouped("deploy"))
    runner = await world.runner()
    leased = await taken(world, runner)
    assert [slug for slug, _ in leased] == ["deploy", "other", "else"]
    assert await why(world, second, "deploy") == Wait(
        why="waits for build 1's job deploy (concurrency group prod)",
        help="nothing to do: it starts when that one has ended",
    )
    assert (await why(world, third, "deploy")).why.startswith("waits for build 1's job deploy and 1 more")
    await world.queue.accept(runner, leased[0][1])
    assert await taken(world, await world.runner("b")) == []
    await world.record(runner, leased[0][1], job_ended())
    (again,) = await taken(world, runner)
    assert (await world.job(again[1].job)).build_id == second
    assert (await standing(world, first))["deploy"][0] == "success"


async def test_a_group_may_have_more_places(world: Core) -> None:
    for _ in range(3):
        await world.build(grouped("deploy", limit=2))
    assert len(await taken(world, await world.runner())) == 2


async def test_an_older_job_that_no_runner_fits_keeps_its_turn(world: Core) -> None:
    stuck = grouped("deploy").model_copy(update={"labels": {"gpu": "yes"}})
    await world.build(stuck)
    second = await world.build(grouped("deploy"))
    assert await taken(world, await world.runner()) == []
    found = await why(world, second, "deploy")
    assert found.why == "waits for build 1's job deploy (concurrency group prod)"


async def test_a_job_of_which_nobody_knows_the_end_keeps_its_place(world: Core) -> None:
    wanted = Concurrency(group="prod")
    await world.build(spec("deploy", deploy=True).model_copy(update={"concurrency": wanted}))
    await world.build(grouped("deploy"))
    runner = await world.runner()
    lease = (await world.started(runner)).lease
    await world.record(runner, lease, running(1), ended(1), StepAsks(step=2, after_seconds=1))
    await world.lose_by_silence()
    assert (await world.job(lease.job)).status == "unknown"
    assert await taken(world, runner) == []
    await world.lifecycle.resolve(lease.job, Status.FAILURE, ADA)
    assert len(await taken(world, runner)) == 1


async def test_the_group_of_another_repo_is_another_group(world: Core) -> None:
    await world.build(grouped("deploy"))
    now = world.clock.now()
    world.repo_id = await world.store.write(lambda c: repos.create(c, owner="ada", name="b", now=now))
    await world.build(grouped("deploy"))
    assert len(await taken(world, await world.runner())) == 2


async def supersede(world: Core, build: int) -> list[str]:
    now = world.clock.now()
    cancelled = await world.store.write(lambda c: attempts.supersede_groups(c, build, now))
    return [each.slug for each in cancelled]


async def test_a_newer_job_may_cancel_the_older_ones_of_its_group(world: Core) -> None:
    first = await world.build(grouped("a", cancels=True), job("other"))
    second = await world.build(grouped("b", cancels=True))
    runner = await world.runner()
    (slug, lease), *_ = await taken(world, runner, 1)
    await world.queue.accept(runner, lease)
    third = await world.build(grouped("c", cancels=True))
    assert await supersede(world, third) == ["a", "b"]
    reason = "superseded by #3 (concurrency group prod)"
    assert await world.lifecycle.pending_cancels(runner) == [Cancel(lease=lease, reason=reason)]
    assert (await standing(world, second))["b"] == ("cancelled", reason)
    assert (slug, (await standing(world, first))["other"]) == ("a", ("pending", ""))


async def test_a_job_that_has_changed_something_outside_is_not_cancelled_by_a_newer_one(world: Core) -> None:
    wanted = Concurrency(group="prod", cancels=True)
    await world.build(spec("deploy", deploy=True).model_copy(update={"concurrency": wanted}))
    runner = await world.runner()
    lease = (await world.started(runner)).lease
    await world.record(runner, lease, running(1), ended(1), StepAsks(step=2, after_seconds=1))
    newer = await world.build(grouped("deploy", cancels=True))
    assert await supersede(world, newer) == []
    assert await world.lifecycle.pending_cancels(runner) == []
