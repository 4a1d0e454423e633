"""What runners say and people ask, as statuses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import select

from ci.errors import Conflict, Invalid, NotFound
from ci.protocol import (
    Cancel,
    Dead,
    Granted,
    Held,
    Lease,
    LogEnded,
    Lost,
    Record,
    Recorded,
    Released,
    StepAsks,
    Stream,
)
from ci.server.auth import Actor
from ci.server.models import Job
from ci.server.store.tables import EVIDENCE
from ci.status import Outcome, Status
from tests.unit.world import ADA, Core, core, ended, hello, job_ended, running, spec


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Core]:
    async with core(tmp_path) as world:
        yield world


def bumped(lease: Lease, by: int = 1) -> Lease:
    return lease.model_copy(update={"epoch": lease.epoch + by})


async def test_a_job_goes_green_through_its_journal(world: Core) -> None:
    build = await world.build()
    runner = await world.runner()
    lease = (await world.started(runner)).lease
    changes = (running(1), ended(1), running(2), ended(2), job_ended())
    answers = await world.record(runner, lease, *changes)
    assert answers == [Recorded(lease=lease, seq=seq) for seq in range(5)]
    job = await world.job(lease.job)
    assert (job.status, job.runner_id, job.finished_at) == ("success", None, world.clock.now())
    row = await world.build_row(build)
    assert (row.status, row.finished_at) == ("success", world.clock.now())
    assert await world.lifecycle.over(runner, [lease]) == [Released(lease=lease)]
    steps = await world.steps(lease.job)
    assert [(each.status, each.began_after, each.ended_after) for each in steps.values()] == [
        ("success", 1.0, 2.0)
    ] * 2


async def test_a_journal_line_that_comes_again_changes_nothing_and_gets_its_answer(world: Core) -> None:
    await world.build()
    runner = await world.runner()
    lease = (await world.started(runner)).lease
    await world.record(runner, lease, running(1), ended(1, Status.FAILURE, 3))
    again = await world.record(runner, lease, running(1), ended(1))
    assert again == [Recorded(lease=lease, seq=1)] * 2
    step = (await world.steps(lease.job))["test"]
    assert (step.status, step.exit_code) == ("failure", 3)


async def test_a_gap_in_the_journal_is_answered_with_what_is_recorded(world: Core) -> None:
    await world.build()
    runner = await world.runner()
    lease = (await world.started(runner)).lease
    assert await world.record(runner, lease, ended(1), first=4) == [Recorded(lease=lease, seq=-1)]
    assert (await world.steps(lease.job))["test"].status == "pending"


async def test_what_comes_after_the_end_of_a_step_is_absorbed(world: Core) -> None:
    await world.build()
    runner = await world.runner()
    lease = (await world.started(runner)).lease
    await world.record(runner, lease, running(1), ended(1), running(1), ended(1, Status.FAILURE, 1))
    assert (await world.steps(lease.job))["test"].status == "success"


async def test_the_lease_ends_only_after_every_announced_log_is_closed(world: Core) -> None:
    await world.build()
    runner = await world.runner()
    lease = (await world.started(runner)).lease
    log = LogEnded(step=1, size=5, crc32=7, marks_size=2, marks_crc32=8)
    await world.record(runner, lease, running(1), ended(1), log, job_ended())
    assert (await world.job(lease.job)).status == "running"
    assert await world.lifecycle.over(runner, [lease]) == []
    assert await world.lifecycle.log_closed(lease, 1, Stream.BYTES, 5, 7)
    assert (await world.job(lease.job)).status == "running"
    assert await world.lifecycle.log_closed(lease, 1, Stream.MARKS, 2, 8)
    assert (await world.job(lease.job)).status == "success"
    assert not await world.lifecycle.log_closed(lease, 1, Stream.MARKS, 2, 8)
    step = (await world.steps(lease.job))["test"]
    assert (step.log_size, step.log_crc32, step.is_log_closed, step.is_marks_closed) == (5, 7, True, True)


async def test_a_log_may_be_closed_before_the_journal_announces_it(world: Core) -> None:
    await world.build()
    runner = await world.runner()
    lease = (await world.started(runner)).lease
    await world.lifecycle.log_closed(lease, 1, Stream.BYTES, 5, 7)
    await world.lifecycle.log_closed(lease, 1, Stream.MARKS, 2, 8)
    log = LogEnded(step=1, size=5, crc32=7, marks_size=2, marks_crc32=8)
    await world.record(runner, lease, running(1), ended(1), log, job_ended())
    assert (await world.job(lease.job)).status == "success"


async def test_a_runner_that_ends_a_job_as_no_end_gets_an_error_with_a_cause(world: Core) -> None:
    await world.build()
    runner = await world.runner()
    lease = (await world.started(runner)).lease
    await world.record(runner, lease, running(1), job_ended(Status.RUNNING))
    job = await world.job(lease.job)
    assert (job.status, job.outcome) == ("error", "infra")
    assert "which is no end" in job.reason
    assert [each.status for each in (await world.steps(lease.job)).values()] == ["error", "skipped"]


async def test_an_error_without_a_reason_gets_one(world: Core) -> None:
    await world.build()
    runner = await world.runner()
    lease = (await world.started(runner)).lease
    await world.record(runner, lease, job_ended(Status.ERROR))
    assert "gave no reason" in (await world.job(lease.job)).reason


async def test_the_build_ends_with_its_last_job_and_says_which_one_failed(world: Core) -> None:
    build = await world.build(spec("lint"), spec("unit"))
    runner = await world.runner()
    first, second = await world.started(runner), await world.started(runner)
    await world.record(runner, first.lease, job_ended())
    assert (await world.build_row(build)).status == "running"
    await world.record(runner, second.lease, job_ended(Status.FAILURE, "exit code 1"))
    row = await world.build_row(build)
    assert (row.status, row.reason) == ("failure", "unit: exit code 1")


# --- stale ------------------------------------------------------------------------------------------


async def test_a_stale_write_changes_nothing_and_is_kept_as_evidence(world: Core) -> None:
    await world.build()
    runner = await world.runner("a")
    lease = (await world.started(runner)).lease
    await world.lose_by_silence()
    await world.started(await world.runner("b"))
    before = await world.job(lease.job)
    answer = await world.record(runner, lease, job_ended())
    assert answer == [Dead(attempts=(lease.key,))]
    assert await world.job(lease.job) == before
    rows = await world.store.read(lambda c: c.execute(select(EVIDENCE)).all())
    assert [(row.job_id, row.attempt, row.epoch, row.runner_id) for row in rows] == [
        (lease.job, 1, 1, runner)
    ]
    assert "job_ended" in rows[0].message


async def test_an_old_epoch_of_the_own_execution_is_dropped_without_a_death_sentence(world: Core) -> None:
    await world.build()
    runner = await world.runner()
    lease = (await world.started(runner)).lease
    await world.lifecycle.hello(runner, hello(Held(lease=lease, is_alive=True)))
    assert await world.record(runner, lease, running(1)) == []
    assert (await world.steps(lease.job))["test"].status == "pending"
    assert await world.record(runner, bumped(lease), running(1)) == [Recorded(lease=bumped(lease), seq=0)]


async def test_nothing_is_recorded_before_the_acknowledgement(world: Core) -> None:
    await world.build()
    runner = await world.runner()
    (assigned,) = await world.queue.take(runner, 1)
    await world.record(runner, assigned.lease, running(1))
    assert (await world.steps(assigned.lease.job))["test"].status == "pending"


async def test_evidence_about_a_job_that_never_was_is_dropped(world: Core) -> None:
    runner = await world.runner()
    lease = Lease(job=99, attempt=1, epoch=1)
    assert await world.record(runner, lease, running(1)) == [Dead(attempts=((99, 1),))]


# --- hello ------------------------------------------------------------------------------------------


async def test_a_runner_that_is_back_goes_on_in_the_same_attempt_under_a_new_epoch(world: Core) -> None:
    await world.build()
    runner = await world.runner()
    lease = (await world.started(runner)).lease
    welcome = await world.lifecycle.hello(runner, hello(Held(lease=lease, is_alive=True)))
    assert (welcome.leases, welcome.dead, welcome.name) == ((bumped(lease),), (), "a")
    assert (await world.job(lease.job)).attempt == 1


async def test_a_welcome_that_was_lost_does_not_lose_the_execution(world: Core) -> None:
    await world.build()
    runner = await world.runner()
    lease = (await world.started(runner)).lease
    for times in range(1, 4):
        welcome = await world.lifecycle.hello(runner, hello(Held(lease=lease, is_alive=True)))
        assert welcome.leases == (bumped(lease, times),)


async def test_an_accepted_execution_that_the_runner_has_not_any_more_is_lost(world: Core) -> None:
    await world.build()
    runner = await world.runner()
    lease = (await world.started(runner)).lease
    welcome = await world.lifecycle.hello(runner, hello())
    job = await world.job(lease.job)
    assert (welcome.leases, job.status, job.attempt) == ((), "pending", 2)
    assert "runner a came back without it" in job.reason


async def test_an_unaccepted_lease_that_the_runner_never_got_is_requeued_at_once(world: Core) -> None:
    await world.build()
    runner = await world.runner()
    (assigned,) = await world.queue.take(runner, 1)
    await world.lifecycle.hello(runner, hello())
    job = await world.job(assigned.lease.job)
    assert (job.status, job.attempt, job.runner_id) == ("pending", 1, None)


async def test_an_unaccepted_lease_that_the_runner_holds_is_kept_and_accepted_again(world: Core) -> None:
    await world.build()
    runner = await world.runner()
    (assigned,) = await world.queue.take(runner, 1)
    held = Held(lease=assigned.lease, is_alive=True)
    (kept,) = (await world.lifecycle.hello(runner, hello(held))).leases
    assert await world.queue.accept(runner, assigned.lease) is None
    assert await world.queue.accept(runner, kept) is not None


async def test_what_a_runner_holds_and_may_not_keep_is_named_dead(world: Core) -> None:
    await world.build()
    runner = await world.runner("a")
    lease = (await world.started(runner)).lease
    await world.lose_by_silence()
    await world.started(await world.runner("b"))
    strange = Lease(job=77, attempt=1, epoch=1)
    held = [Held(lease=each, is_alive=False) for each in (lease, strange)]
    welcome = await world.lifecycle.hello(runner, hello(*held))
    assert (welcome.leases, welcome.dead) == ((), (lease, strange))


async def test_a_runner_of_a_strange_protocol_is_told_what_to_do(world: Core) -> None:
    runner = await world.runner()
    with pytest.raises(Invalid, match="upgrade the older"):
        await world.lifecycle.hello(runner, hello().model_copy(update={"version": 99}))
    with pytest.raises(NotFound, match="register it again"):
        await world.lifecycle.hello(99, hello())


# --- side effects -----------------------------------------------------------------------------------


async def test_a_step_with_side_effects_is_granted_after_its_start_is_stored(world: Core) -> None:
    await world.build(spec(deploy=True))
    runner = await world.runner()
    lease = (await world.started(runner)).lease
    answer = await world.record(runner, lease, StepAsks(step=2, after_seconds=1.0))
    assert answer == [Recorded(lease=lease, seq=0), Granted(lease=lease, step=2)]
    assert (await world.steps(lease.job))["end"].is_granted
    again = await world.record(runner, lease, StepAsks(step=2, after_seconds=1.0))
    assert again == answer


async def test_a_grant_that_was_lost_with_the_socket_is_said_again(world: Core) -> None:
    await world.build(spec(deploy=True))
    runner = await world.runner()
    lease = (await world.started(runner)).lease
    await world.record(runner, lease, StepAsks(step=2, after_seconds=1.0))
    await world.lifecycle.hello(runner, hello(Held(lease=lease, is_alive=True)))
    assert await world.lifecycle.pending_grants(runner) == [Granted(lease=bumped(lease), step=2)]
    await world.record(runner, bumped(lease), running(2), first=1)
    assert await world.lifecycle.pending_grants(runner) == []


async def test_a_job_lost_after_its_side_effects_began_asks_a_person(world: Core) -> None:
    build = await world.build(spec(deploy=True))
    runner = await world.runner()
    lease = (await world.started(runner)).lease
    ask = StepAsks(step=2, after_seconds=1.0)
    await world.record(runner, lease, running(1), ended(1), ask, running(2))
    await world.lose_by_silence()
    job = await world.job(lease.job)
    assert (job.status, job.outcome, job.runner_id, job.finished_at) == (
        "unknown",
        "lost-unknown",
        None,
        None,
    )
    assert "look whether it did its work" in job.reason
    assert (await world.steps(lease.job))["end"].status == "unknown"
    row = await world.build_row(build)
    assert (row.status, row.finished_at) == ("unknown", None)
    assert await world.queue.take(runner, 5) == []


async def test_a_job_lost_before_its_side_effects_is_retried(world: Core) -> None:
    await world.build(spec(deploy=True))
    runner = await world.runner()
    lease = (await world.started(runner)).lease
    await world.record(runner, lease, running(1))
    await world.lose_by_silence()
    assert (await world.job(lease.job)).status == "pending"


@pytest.mark.parametrize("verdict", [Status.SUCCESS, Status.FAILURE, Status.CANCELLED])
async def test_a_person_resolves_what_is_unknown(world: Core, verdict: Status) -> None:
    build = await world.build(spec(deploy=True))
    runner = await world.runner()
    lease = (await world.started(runner)).lease
    await world.record(runner, lease, StepAsks(step=2, after_seconds=1.0), running(2))
    await world.lose_by_silence()
    await world.lifecycle.resolve(lease.job, verdict, ADA)
    job = await world.job(lease.job)
    assert (job.status, job.reason.startswith("ada says that it")) == (verdict.value, True)
    assert (await world.steps(lease.job))["end"].status == verdict.value
    assert (await world.build_row(build)).status == verdict.value
    with pytest.raises(Conflict):
        await world.lifecycle.resolve(lease.job, verdict, ADA)


async def test_a_person_may_have_an_unknown_job_run_again(world: Core) -> None:
    build = await world.build(spec(deploy=True), spec("other"))
    runner = await world.runner()
    lease = (await world.started(runner)).lease
    other = (await world.started(runner)).lease
    await world.record(runner, other, job_ended())
    await world.record(runner, lease, StepAsks(step=2, after_seconds=1.0), running(2))
    await world.lose_by_silence()
    assert (await world.build_row(build)).status == "unknown"
    await world.lifecycle.resolve(lease.job, Status.PENDING, ADA)
    assert (await world.build_row(build)).status == "running"
    assert (await world.started(runner)).lease.attempt == 2


async def test_resolving_what_is_not_unknown_is_refused(world: Core) -> None:
    await world.build()
    with pytest.raises(Conflict, match="nothing is left to resolve"):
        await world.lifecycle.resolve(1, Status.SUCCESS, ADA)
    with pytest.raises(Invalid):
        await world.lifecycle.resolve(1, Status.RUNNING, ADA)
    with pytest.raises(NotFound):
        await world.lifecycle.resolve(99, Status.SUCCESS, ADA)


# --- lost -------------------------------------------------------------------------------------------


async def test_a_dead_job_process_is_a_new_attempt_at_once(world: Core) -> None:
    await world.build()
    runner = await world.runner()
    lease = (await world.started(runner)).lease
    answer = await world.lifecycle.lost(runner, Lost(lease=lease, reason="the job process was killed"))
    assert answer == [Dead(attempts=(lease.key,))]
    assert "the job process was killed (runner a)" in (await world.job(lease.job)).reason
    assert (await world.started(runner)).lease.attempt == 2
    assert await world.lifecycle.lost(runner, Lost(lease=lease, reason="again")) == answer
    assert (await world.job(lease.job)).attempt == 2


async def test_a_job_that_had_ended_keeps_its_end_when_only_its_log_is_lost(world: Core) -> None:
    await world.build()
    runner = await world.runner()
    lease = (await world.started(runner)).lease
    log = LogEnded(step=1, size=5, crc32=7, marks_size=2, marks_crc32=8)
    await world.record(runner, lease, running(1), ended(1), log, job_ended())
    await world.lose_by_silence()
    job = await world.job(lease.job)
    assert (job.status, job.attempt) == ("success", 1)


async def test_the_reaper_hears_which_attempts_are_over(world: Core) -> None:
    await world.build()
    runner = await world.runner()
    lease = (await world.started(runner)).lease
    assert await world.lifecycle.ask_dead([lease.key, (lease.job, 2), (99, 1)]) == ((lease.job, 2), (99, 1))
    await world.lifecycle.lost(runner, Lost(lease=lease, reason=""))
    assert await world.lifecycle.ask_dead([lease.key, (lease.job, 2)]) == (lease.key,)


# --- cancel -----------------------------------------------------------------------------------------


async def test_cancel_ends_at_once_what_no_runner_has_acknowledged(world: Core) -> None:
    build = await world.build(spec("one"), spec("two"))
    runner = await world.runner()
    (assigned,) = await world.queue.take(runner, 1)
    await world.lifecycle.cancel(build, ADA)
    assert [job.status for job in await world.jobs_of(build)] == ["cancelled"] * 2
    row = await world.build_row(build)
    assert (row.status, row.reason) == ("cancelled", "one: cancelled by ada")
    assert await world.queue.accept(runner, assigned.lease) is None
    assert await world.lifecycle.over(runner, [assigned.lease]) == [Dead(attempts=(assigned.lease.key,))]
    assert {each.status for each in (await world.steps(assigned.lease.job)).values()} == {"cancelled"}


async def test_cancel_of_the_largest_matrix_holds_nobody_up(world: Core) -> None:
    """It is one transaction, and meanwhile nothing else is written: no job is read whole once for each."""
    build = await world.build(*(spec(f"cell-{number}") for number in range(256)))
    read: list[Job] = []

    def on_read(job: Job, *_: object) -> None:
        read.append(job)

    sqlalchemy_event.listen(Job, "init", on_read)
    try:
        await world.lifecycle.cancel(build, ADA)
    finally:
        sqlalchemy_event.remove(Job, "init", on_read)
    assert len(read) == 256
    assert {job.status for job in await world.jobs_of(build)} == {"cancelled"}


async def test_cancel_of_a_running_job_is_a_request_until_the_runner_confirms(world: Core) -> None:
    build = await world.build()
    runner = await world.runner()
    lease = (await world.started(runner)).lease
    await world.lifecycle.cancel(build, ADA)
    assert (await world.build_row(build)).status == "running"
    assert await world.lifecycle.pending_cancels(runner) == [Cancel(lease=lease, reason="cancelled by ada")]
    await world.lifecycle.cancel(build, Actor(user_id=2, name="bob"))  # once is enough
    await world.record(runner, lease, ended(1, Status.CANCELLED), job_ended(Status.CANCELLED))
    job = await world.job(lease.job)
    assert (job.status, job.outcome, job.reason) == ("cancelled", "cancelled", "cancelled by ada")
    assert await world.lifecycle.pending_cancels(runner) == []


async def test_a_cancelled_job_that_is_lost_is_cancelled_and_not_retried(world: Core) -> None:
    build = await world.build()
    lease = (await world.started(await world.runner())).lease
    await world.lifecycle.cancel(build, ADA)
    await world.lose_by_silence()
    assert (await world.job(lease.job)).status == "cancelled"


async def test_after_a_cancel_no_side_effect_is_granted(world: Core) -> None:
    build = await world.build(spec(deploy=True))
    runner = await world.runner()
    lease = (await world.started(runner)).lease
    await world.lifecycle.cancel(build, ADA)
    assert await world.record(runner, lease, StepAsks(step=2, after_seconds=1.0)) == [
        Recorded(lease=lease, seq=0)
    ]


async def test_a_build_that_has_ended_cannot_be_cancelled(world: Core) -> None:
    build = await world.build()
    runner = await world.runner()
    lease = (await world.started(runner)).lease
    await world.record(runner, lease, job_ended())
    with pytest.raises(Conflict, match="has ended already: passed"):
        await world.lifecycle.cancel(build, ADA)
    with pytest.raises(NotFound):
        await world.lifecycle.cancel(99, ADA)


# --- the bus ----------------------------------------------------------------------------------------


async def test_what_changes_rings_for_its_build_and_the_runner_that_must_hear(world: Core) -> None:
    build = await world.build()
    runner = await world.runner()
    lease = (await world.started(runner)).lease
    with world.bus.subscribe(f"build:{build}", f"job:{lease.job}", f"runner:{runner}") as topics:
        await world.record(runner, lease, running(1))
        assert await topics.wait(5) == {f"build:{build}", f"job:{lease.job}"}
        await world.lifecycle.cancel(build, ADA)
        assert f"runner:{runner}" in await topics.wait(5)


async def test_outcomes_of_a_step_are_stored_with_their_sentence(world: Core) -> None:
    await world.build()
    runner = await world.runner()
    lease = (await world.started(runner)).lease
    oom = ended(1, Status.FAILURE, 137).model_copy(
        update={"outcome": Outcome.OOM, "reason": "out of memory: limit 512 MiB"}
    )
    await world.record(runner, lease, running(1), oom)
    step = (await world.steps(lease.job))["test"]
    assert (step.outcome, step.reason) == ("oom", "out of memory: limit 512 MiB")
    assert isinstance(Record(lease=lease, seq=0, change=oom).change, type(oom))
