"""What a person does with runners: pause, drain, resume, remove; and why jobs wait for them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ci.errors import Forbidden, NotFound
from ci.protocol import Lost
from ci.server.auth import Actor
from ci.server.models import Runner
from ci.server.queue import Wait, explain
from ci.server.runners import Runners, standing
from ci.server.store import attempts, audit, codes, runners, views
from tests.unit.world import Core, core, hello, spec

ADA = Actor(user_id=1, name="ada", is_admin=True)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Core]:
    async with core(tmp_path) as world:
        yield world


def care(world: Core) -> Runners:
    return Runners(world.store, world.bus, world.clock)


async def row(world: Core, runner_id: int) -> Runner:
    found = await world.store.read(lambda c: runners.find(c, runner_id))
    assert found is not None
    return found


async def why(world: Core, build_id: int) -> Wait:
    (job,) = await world.jobs_of(build_id)
    return await world.store.read(lambda c: explain(c, job))


async def test_a_paused_runner_gets_nothing_until_it_is_resumed(world: Core) -> None:
    build = await world.build()
    runner = await world.runner()
    await world.lifecycle.hello(runner, hello())
    await care(world).pause(runner, ADA)
    assert await world.queue.take(runner, 1) == []
    wait = await why(world, build)
    assert wait.why == "every runner that matches is paused (a)"
    assert wait.help == "let one take jobs again: `shipway runners resume a`"
    await care(world).resume(runner, ADA)
    assert len(await world.queue.take(runner, 1)) == 1


async def test_a_runner_without_engine_beside_one_that_is_paused_is_not_said_to_be_busy(world: Core) -> None:
    build = await world.build()
    able, broken = await world.runner("able"), await world.runner("broken")
    await world.lifecycle.hello(able, hello())
    await world.lifecycle.hello(broken, hello().model_copy(update={"capacity": 0}))
    assert (await why(world, build)).why == "waiting for a free place on able"
    await care(world).pause(able, ADA)
    assert (await why(world, build)).why == "every runner that matches is paused (able)"


async def test_how_a_runner_stands_is_said_in_words(world: Core) -> None:
    runner = await world.runner()

    async def stands() -> tuple[str, str]:
        (found,) = await world.store.read(views.runners)
        return standing(found).word, standing(found).says

    assert await stands() == (
        "offline",
        "start it on its machine, or remove it here if it does not come again",
    )
    await world.lifecycle.hello(runner, hello())
    assert await stands() == ("idle", "")
    await world.build()
    assigned = await world.started(runner)
    assert await stands() == ("working", "")
    await care(world).drain(runner, ADA)
    says = "it finishes 1 job and takes no new one; it may be stopped when that is done"
    assert await stands() == ("draining", says)
    await world.lifecycle.lost(runner, Lost(lease=assigned.lease, reason="killed"))
    says = "nothing is left on it and it takes no new job: it may be stopped now"
    assert await stands() == ("drained", says)
    (loss,) = await world.store.read(lambda c: views.losses(c, runner))
    assert (loss.attempt.attempt, loss.attempt.lost_reason, loss.build.number) == (1, "killed (runner a)", 1)
    await care(world).resume(runner, ADA)
    await care(world).pause(runner, ADA)
    assert await stands() == ("paused", "it takes no new job until it is resumed")


async def test_resume_ends_draining_too(world: Core) -> None:
    runner = await world.runner()
    await care(world).drain(runner, ADA)
    assert (await row(world, runner)).is_draining
    await care(world).resume(runner, ADA)
    assert not (await row(world, runner)).is_draining


async def test_every_deed_rings_and_stands_in_the_audit_log(world: Core) -> None:
    runner = await world.runner()
    with world.bus.subscribe("runners") as listening:
        await care(world).pause(runner, ADA)
        assert await listening.wait(1) == {"runners"}
    await care(world).remove(runner, ADA)
    found = await world.store.read(audit.latest)
    assert [(each.action, each.object, each.user_name) for each in found] == [
        ("runner.remove", "a", "ada"),
        ("runner.pause", "a", "ada"),
    ]


async def test_the_credential_of_a_removed_runner_is_dead_and_its_job_runs_elsewhere(world: Core) -> None:
    now = world.clock.now()
    code = await care(world).new_code(ADA)
    runner, credential = await world.store.write(
        lambda c: runners.register(c, code=code, name="gone", labels={}, capacity=2, now=now)
    )
    build = await world.build()
    assigned = await world.started(runner)
    await care(world).remove(runner, ADA)
    assert await world.store.read(lambda c: runners.by_credential(c, credential)) is None
    (job,) = await world.jobs_of(build)
    assert (job.status, job.attempt, job.runner_id) == ("pending", 2, None)
    assert job.reason == "attempt 1 was lost: runner gone was removed"
    assert not await world.queue.holds(runner, assigned.lease)
    (first, *_) = await world.store.read(lambda c: attempts.of_job(c, job.id or 0))
    assert (first.runner_name, first.runner_id, first.is_over) == ("gone", None, True)
    assert await world.queue.take(runner, 1) == []
    other = await world.runner("b")
    assert (await world.started(other)).lease.attempt == 2


async def test_a_removed_runner_that_only_was_offered_a_job_costs_no_attempt(world: Core) -> None:
    build = await world.build()
    runner = await world.runner()
    (assigned,) = await world.queue.take(runner, 1)
    await care(world).remove(runner, ADA)
    assert await world.queue.accept(runner, assigned.lease) is None
    (job,) = await world.jobs_of(build)
    assert (job.status, job.attempt, job.runner_id) == ("pending", 1, None)


async def test_removing_one_that_is_gone_says_so(world: Core) -> None:
    runner = await world.runner()
    await care(world).remove(runner, ADA)
    for deed in (care(world).remove, care(world).pause):
        with pytest.raises(NotFound, match="there is no such runner"):
            await deed(runner, ADA)


async def test_every_lease_that_a_runner_loses_is_counted(world: Core) -> None:
    await world.build()
    runner = await world.runner()
    assigned = await world.started(runner)
    await world.lifecycle.lost(runner, Lost(lease=assigned.lease, reason="killed"))
    assert (await row(world, runner)).lost_leases == 1
    await world.started(runner)
    await world.lose_by_silence()
    assert (await row(world, runner)).lost_leases == 2


async def test_a_code_of_the_service_registers_one_runner(world: Core) -> None:
    code, now = await care(world).new_code(ADA), world.clock.now()
    await world.store.write(lambda c: codes.use_code(c, codes.RUNNER, code, now))
    with pytest.raises(Forbidden):
        await world.store.write(lambda c: codes.use_code(c, codes.RUNNER, code, now))


async def test_what_would_help_is_said_beside_why_a_job_waits(world: Core) -> None:
    build = await world.build(spec("gpu", labels={"gpu": "yes", "arch": "arm64"}))
    assert "shipway runners code" in (await why(world, build)).help
    runner = await world.runner("plain")
    assert (await why(world, build)) == Wait(
        why="no runner matches: the job needs the label arch=arm64, gpu=yes",
        help="start a runner with --label arch=arm64 --label gpu=yes, or change `labels` in the pipeline",
    )
    plain = await world.build()
    assert (await why(world, plain)).help == "start one of them: plain"
    await world.lifecycle.hello(runner, hello())
    assert (await why(world, plain)).why == "waiting for a free place on plain; 1 older job waits too"
