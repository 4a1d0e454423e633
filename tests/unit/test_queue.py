"""Leases: fenced, aged in stored ticks, never two for one job."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import update

from ci.errors import Unavailable
from ci.protocol import Begin
from ci.server.credentials import Credential, Credentials, Kind
from ci.server.queue import Queue, why_waiting
from ci.server.store import attempts, jobs, runners
from ci.server.store.database import Store
from ci.server.store.tables import REPO
from ci.server.vault import Vault
from ci.status import Status
from tests.unit.world import ADA, CLONE, Core, core, hello, spec


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Core]:
    async with core(tmp_path) as world:
        yield world


async def test_the_oldest_pending_job_goes_first(world: Core) -> None:
    first, second = await world.build(), await world.build()
    runner = await world.runner()
    (one,) = await world.queue.take(runner, 1)
    (two,) = await world.queue.take(runner, 1)
    assert [one.lease.job, two.lease.job] == [
        (await world.jobs_of(first))[0].id,
        (await world.jobs_of(second))[0].id,
    ]


async def test_a_runner_gets_only_jobs_whose_labels_it_has_all(world: Core) -> None:
    await world.build(spec("gpu", labels={"gpu": "true", "arch": "arm"}))
    await world.build(spec("plain"))
    plain = await world.runner("plain", labels={"gpu": "true"})
    both = await world.runner("both", labels={"gpu": "true", "arch": "arm", "more": "x"})
    assert [each.spec.name for each in await world.queue.take(plain, 5)] == ["plain"]
    assert [each.spec.name for each in await world.queue.take(both, 5)] == ["gpu"]


async def test_an_offer_above_the_capacity_is_cut_to_what_is_not_leased(world: Core) -> None:
    for _ in range(5):
        await world.build()
    runner = await world.runner(capacity=3)
    assert len(await world.queue.take(runner, 2)) == 2
    assert len(await world.queue.take(runner, 2)) == 1
    assert await world.queue.take(runner, 2) == []


async def test_a_draining_runner_gets_nothing(world: Core) -> None:
    await world.build()
    runner = await world.runner()
    await world.store.write(lambda c: runners.drain(c, runner, is_draining=True))
    assert await world.queue.take(runner, 1) == []


async def test_every_grant_has_a_new_epoch_and_the_same_attempt_until_it_was_accepted(world: Core) -> None:
    await world.build()
    runner = await world.runner()
    (first,) = await world.queue.take(runner, 1)
    await world.lose_by_silence()
    (second,) = await world.queue.take(runner, 1)
    assert (first.lease.attempt, first.lease.epoch) == (1, 1)
    assert (second.lease.attempt, second.lease.epoch) == (1, 2)
    assert await world.queue.accept(runner, first.lease) is None
    assert await world.queue.accept(runner, second.lease) == Begin(lease=second.lease)


async def test_a_job_runs_only_once_its_acknowledgement_is_stored(world: Core) -> None:
    build = await world.build()
    runner = await world.runner()
    (assigned,) = await world.queue.take(runner, 1)
    assert (await world.job(assigned.lease.job)).status == "pending"
    await world.queue.accept(runner, assigned.lease)
    job = await world.job(assigned.lease.job)
    assert (job.status, job.is_accepted, job.started_at) == ("running", True, world.clock.now())
    assert (await world.build_row(build)).status == "running"
    assert (await world.build_row(build)).started_at == world.clock.now()


async def test_accepting_again_gets_the_same_answer(world: Core) -> None:
    await world.build()
    runner = await world.runner()
    assigned = await world.started(runner)
    assert await world.queue.accept(runner, assigned.lease) == Begin(lease=assigned.lease)


async def test_another_runner_cannot_accept_a_lease(world: Core) -> None:
    await world.build()
    mine, other = await world.runner("mine"), await world.runner("other")
    (assigned,) = await world.queue.take(mine, 1)
    assert await world.queue.accept(other, assigned.lease) is None
    assert not await world.queue.holds(other, assigned.lease)


async def test_holds_is_true_from_the_acknowledgement_to_the_end(world: Core) -> None:
    await world.build()
    runner = await world.runner()
    (assigned,) = await world.queue.take(runner, 1)
    assert not await world.queue.holds(runner, assigned.lease)
    await world.queue.accept(runner, assigned.lease)
    assert await world.queue.holds(runner, assigned.lease)
    await world.lose_by_silence()
    assert not await world.queue.holds(runner, assigned.lease)


# --- age --------------------------------------------------------------------------------------------


async def test_a_silent_lease_is_lost_after_twelve_ticks_and_not_before(world: Core) -> None:
    await world.build()
    runner = await world.runner()
    assigned = await world.started(runner)
    await world.age(12)  # the first pass of a server only lets heartbeats in
    assert (await world.job(assigned.lease.job)).lease_ticks == 11
    await world.age(1)
    job = await world.job(assigned.lease.job)
    assert (job.status, job.attempt, job.lost_attempts) == ("pending", 2, 1)
    assert "runner a was not heard of for 60 s" in job.reason


async def test_a_heartbeat_starts_the_age_again(world: Core) -> None:
    await world.build()
    runner = await world.runner()
    assigned = await world.started(runner)
    await world.age(10)
    world.queue.heartbeat(runner, (assigned.lease,))
    await world.age(1)
    assert (await world.job(assigned.lease.job)).lease_ticks == 0


async def test_a_heartbeat_with_an_old_epoch_or_of_another_runner_keeps_nothing_alive(world: Core) -> None:
    await world.build()
    runner, other = await world.runner("a"), await world.runner("b")
    assigned = await world.started(runner)
    stale = assigned.lease.model_copy(update={"epoch": 0})
    for _ in range(13):
        world.queue.heartbeat(runner, (stale,))
        world.queue.heartbeat(other, (assigned.lease,))
        await world.age(1)
    assert (await world.job(assigned.lease.job)).attempt == 2


async def test_a_server_that_stood_still_ages_nothing_before_it_has_heard(world: Core) -> None:
    await world.build()
    runner = await world.runner()
    assigned = await world.started(runner)
    await world.age(12)
    assert (await world.job(assigned.lease.job)).lease_ticks == 11
    world.clock.seconds += 3600  # stopped for an hour; heartbeats wait in the sockets
    await world.queue.age_leases()
    assert (await world.job(assigned.lease.job)).lease_ticks == 11
    world.queue.heartbeat(runner, (assigned.lease,))
    world.clock.seconds += 5
    await world.queue.age_leases()
    assert (await world.job(assigned.lease.job)).lease_ticks == 0


async def test_a_server_that_starts_ages_nothing_in_its_first_pass(world: Core) -> None:
    await world.build()
    runner = await world.runner()
    assigned = await world.started(runner)
    await world.age(12)
    restarted = Queue(world.store, world.bus, world.clock, Vault(bytes(32)), world.secrets, world.credentials)
    await restarted.age_leases()
    assert (await world.job(assigned.lease.job)).lease_ticks == 11


async def test_passes_in_quick_succession_are_one_tick(world: Core) -> None:
    await world.build()
    assigned = await world.started(await world.runner())
    await world.age(2)
    await world.age(20, seconds=0.1)
    assert (await world.job(assigned.lease.job)).lease_ticks == 2


async def test_a_pass_that_cannot_commit_ages_nothing_and_forgets_no_heartbeat(
    world: Core, tmp_path: Path
) -> None:
    await world.build()
    runner = await world.runner()
    assigned = await world.started(runner)
    await world.age(6)
    closed = Store(tmp_path / "closed.db")
    queue = Queue(closed, world.bus, world.clock, Vault(bytes(32)), world.secrets, world.credentials)
    queue.heartbeat(runner, (assigned.lease,))
    with pytest.raises(Unavailable):
        await queue.age_leases()
    queue._store = world.store  # the disk is back
    await queue.age_leases()
    assert (await world.job(assigned.lease.job)).lease_ticks == 0


# --- lost -------------------------------------------------------------------------------------------


async def test_lost_before_the_acknowledgement_is_requeued_for_ever(world: Core) -> None:
    await world.build()
    runner = await world.runner()
    for epoch in range(1, 8):
        (assigned,) = await world.queue.take(runner, 1)
        assert (assigned.lease.attempt, assigned.lease.epoch) == (1, epoch)
        await world.lose_by_silence()
    job = await world.job(assigned.lease.job)
    assert (job.status, job.lost_attempts, job.attempt) == ("pending", 0, 1)


async def test_the_third_lost_attempt_is_an_error_that_names_the_runners(world: Core) -> None:
    build = await world.build()
    for name in ("a", "b", "c"):
        assigned = await world.started(await world.runner(name))
        await world.lose_by_silence()
    job = await world.job(assigned.lease.job)
    assert (job.status, job.outcome, job.attempt) == ("error", "infra", 3)
    assert "lost 3 times, on a, b, c" in job.reason
    row = await world.build_row(build)
    assert (row.status, row.finished_at is not None) == ("error", True)
    assert row.reason == job.reason


async def test_every_attempt_keeps_its_steps_and_its_reason(world: Core) -> None:
    await world.build()
    assigned = await world.started(await world.runner())
    await world.lose_by_silence()
    rows = await world.store.read(lambda c: attempts.of_job(c, assigned.lease.job))
    assert [(row.attempt, row.is_over) for row in rows] == [(1, True)]
    assert "was not heard of" in rows[0].lost_reason
    old, new = await world.steps(assigned.lease.job, 1), await world.steps(assigned.lease.job, 2)
    assert {row.status for row in old.values()} == {"skipped"}
    assert {row.slug: row.status for row in new.values()} == {"test": "pending", "end": "waiting"}


# --- two servers ------------------------------------------------------------------------------------


async def test_two_stores_on_one_file_never_lease_a_job_twice(world: Core, tmp_path: Path) -> None:
    import asyncio

    for _ in range(40):
        await world.build()
    other = Store(tmp_path / "shipway.db")
    await other.open()
    try:
        queues = [
            world.queue,
            Queue(other, world.bus, world.clock, Vault(bytes(32)), world.secrets, world.credentials),
        ]
        ids = [await world.runner(f"r{number}", capacity=100) for number in range(8)]
        takes = [queues[number % 2].take(runner, 10) for number, runner in enumerate(ids)]
        taken = [each.lease.job for got in await asyncio.gather(*takes) for each in got]
    finally:
        await other.close()
    assert len(taken) == len(set(taken)) == 40


async def test_a_grant_is_a_compare_and_set(world: Core) -> None:
    """What a server with READ COMMITTED relies on: it looked, and somebody else was faster."""
    await world.build()
    a, b = await world.runner("a"), await world.runner("b")
    first = await world.store.write(lambda c: jobs.grant(c, 1, a, "a"))
    assert first is not None and first.runner_id == a
    assert await world.store.write(lambda c: jobs.grant(c, 1, b, "b")) is None
    assert (await world.job(1)).runner_id == a


# --- words and tokens ---------------------------------------------------------------------------------


async def _why(world: Core, build_id: int) -> str:
    job = (await world.jobs_of(build_id))[0]
    return await world.store.read(lambda c: why_waiting(c, job))


async def test_why_a_job_waits_is_a_sentence_at_every_turn(world: Core) -> None:
    older = await world.build()
    build = await world.build(spec("gpu", labels={"gpu": "true"}))
    assert "no runner is registered" in await _why(world, build)
    plain = await world.runner("plain")
    assert await _why(world, build) == "no runner matches: the job needs the label gpu=true"
    gpu = await world.runner("gpu", labels={"gpu": "true"})
    assert await _why(world, build) == "no runner that matches is connected (gpu)"
    said = hello().model_copy(update={"labels": {"gpu": "true"}})
    without = said.model_copy(update={"capacity": 0, "engine": "Docker does not answer"})
    await world.lifecycle.hello(gpu, without)
    assert await _why(world, build) == "no engine on runner gpu: Docker does not answer"
    await world.lifecycle.hello(gpu, said)
    assert await _why(world, build) == "waiting for a free place on gpu; 1 older job waits too"
    await world.store.write(lambda c: runners.drain(c, gpu, is_draining=True))
    assert await _why(world, build) == "every runner that matches is draining (gpu)"
    await world.queue.take(plain, 1)
    assert await _why(world, older) == "offered to plain, which has not answered yet"


async def test_the_clone_token_reads_one_repo_while_its_lease_lives(world: Core) -> None:
    await world.build(spec(clone=CLONE))
    runner = await world.runner()
    (assigned,) = await world.queue.take(runner, 1)
    assert assigned.credentials is not None
    user, token = assigned.credentials
    assert (user, assigned.masks) == ("job", (token,))
    assert await world.queue.check_clone_token(world.repo_id, token)
    assert not await world.queue.check_clone_token(world.repo_id + 1, token)
    for wrong in (
        "",
        "1",
        "1.1",
        "1.1.x",
        token[:-1],
        "9" * 30 + token,
        "١.١.x",
        token.replace("1.", "2.", 1),
    ):
        assert not await world.queue.check_clone_token(world.repo_id, wrong)
    await world.queue.accept(runner, assigned.lease)
    await world.lose_by_silence()
    assert not await world.queue.check_clone_token(world.repo_id, token)


async def test_a_status_is_only_ever_one_of_the_table(world: Core) -> None:
    await world.build()
    job = (await world.jobs_of(1))[0]
    assert not await world.store.write(lambda c: jobs.advance(c, job, Status.PENDING))
    assert await world.store.write(lambda c: jobs.advance(c, job, Status.CANCELLED))
    for status in Status:
        assert not await world.store.write(lambda c, status=status: jobs.advance(c, job, status))


async def test_a_repo_elsewhere_is_cloned_with_its_credential_which_is_masked(world: Core) -> None:
    credentials = Credentials(world.store, Vault(bytes(32)), world.clock)
    await world.store.write(lambda c: c.execute(update(REPO).values(forge="git", clone_url=CLONE.url)))
    runner = await world.runner()
    given = ((None, None), (Credential(kind=Kind.TOKEN, value="t0ken"), ("x-access-token", "t0ken")))
    password = Credential(kind=Kind.PASSWORD, user="bot", value="pass")
    for credential, login in (*given, (password, ("bot", "pass"))):
        await credentials.set(world.repo_id, credential, ADA)
        await world.build(spec(clone=CLONE))
        (assigned,) = await world.queue.take(runner, 1)
        assert assigned.credentials == login
        assert assigned.masks == ((login[1],) if login else ())


async def test_a_credential_that_cannot_be_opened_ends_its_job_and_no_other(world: Core) -> None:
    await world.store.write(lambda c: c.execute(update(REPO).values(forge="git", clone_url=CLONE.url)))
    other = Credentials(world.store, Vault(b"1" * 32), world.clock)
    await other.set(world.repo_id, Credential(kind=Kind.TOKEN, value="t0ken"), ADA)
    build = await world.build(spec(clone=CLONE))
    assert await world.queue.take(await world.runner(), 2) == []
    (job,) = await world.jobs_of(build)
    assert job.status == "error" and "set it again in its settings" in job.reason
