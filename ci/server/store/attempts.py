"""What happens to an execution: accepted, moved on by its runner, ended, lost. All of law 3 that is data.

Everything here takes the job locked and current (jobs.current), changes job, attempt and steps together,
and folds the build, so that no reader ever sees one without the others.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, func, select, update

from ci.event import Kind
from ci.protocol import Change, JobEnded, Lease, LogEnded, StepAsks, StepChanged, Stream
from ci.server.models import Attempt, Evidence, Job, Step
from ci.server.store import approvals, builds, concurrency, dependants, jobs, runners
from ci.server.store.tables import ATTEMPT, EVIDENCE, STEP, add, many, one
from ci.spec import JobSpec
from ci.status import Outcome, Status

LOST_LIMIT = 3
MAX_REASON = 2000
#: More than this about one attempt that is over helps nobody.
MAX_EVIDENCE = 1000
_BLOCKED = Status.BLOCKED.value


def accept(connection: Connection, job: Job, now: float) -> None:
    """The runner has acknowledged the lease; again is harmless."""
    if job.is_accepted:
        return
    started_at = job.started_at or now
    jobs.advance(connection, job, Status.RUNNING, is_accepted=True, started_at=started_at, reason="")
    jobs.change_attempt(connection, _id(job), job.attempt, started_at=now)
    builds.fold(connection, job.build_id, now)


def of_job(connection: Connection, job_id: int) -> list[Attempt]:
    mine = ATTEMPT.c.job_id == job_id
    return many(connection, Attempt, select(ATTEMPT).where(mine).order_by(ATTEMPT.c.attempt))


# --- the journal --------------------------------------------------------------------------------------


def apply(connection: Connection, job: Job, change: Change, now: float) -> None:
    """Apply the next journal line. What the transition table forbids changes nothing."""
    match change:
        case StepChanged():
            _step_changed(connection, job, change)
        case StepAsks():
            _step_asks(connection, job, change.step, now)
        case LogEnded():
            _log_ended(connection, job, change)
        case JobEnded():
            jobs.change_attempt(connection, _id(job), job.attempt, end=change.model_dump(mode="json"))


def _step_changed(connection: Connection, job: Job, change: StepChanged) -> None:
    step = step_of(connection, job, change.step)
    if step is None:
        return
    values: dict[str, Any] = {
        "outcome": change.outcome.value if change.outcome else None,
        "reason": change.reason[:MAX_REASON],
        "exit_code": change.exit_code,
    }
    if change.status is Status.RUNNING:
        values["began_after"] = change.after_seconds if step.began_after is None else step.began_after
    elif change.status.is_terminal:
        values["ended_after"] = change.after_seconds
    jobs.advance_step(connection, step, change.status, **values)


def _step_asks(connection: Connection, job: Job, number: int, now: float) -> None:
    """Record the start of side effects, unless a person has asked for the end."""
    step = step_of(connection, job, number)
    build = builds.by_id(connection, job.build_id)
    if step is None or step.is_granted or build is None or job.cancel_reason or build.cancel_reason:
        return
    if Status(step.status).is_terminal:
        return
    connection.execute(update(STEP).where(STEP.c.id == step.id).values(is_granted=True))
    mine = (ATTEMPT.c.job_id == job.id, ATTEMPT.c.attempt == job.attempt)
    first = func.coalesce(ATTEMPT.c.side_effects_at, now)
    connection.execute(update(ATTEMPT).where(*mine).values(side_effects_at=first))


def _log_ended(connection: Connection, job: Job, change: LogEnded) -> None:
    """Announces a log that must be closed before the lease may end."""
    mine = (STEP.c.job_id == job.id, STEP.c.attempt == job.attempt, STEP.c.number == change.step)
    values = {"log_size": change.size, "log_crc32": change.crc32}
    connection.execute(update(STEP).where(*mine).values(**values))


def close_log(connection: Connection, job: Job, step: int, stream: Stream, size: int, crc32: int) -> None:
    """The stored bytes agree with what the runner says they are."""
    mine = (STEP.c.job_id == job.id, STEP.c.attempt == job.attempt, STEP.c.number == step)
    values: dict[str, Any] = {"is_marks_closed": True}
    if stream is Stream.BYTES:
        values = {"is_log_closed": True, "log_size": size, "log_crc32": crc32}
    connection.execute(update(STEP).where(*mine).values(**values))


def step_of(connection: Connection, job: Job, number: int) -> Step | None:
    mine = (STEP.c.job_id == job.id, STEP.c.attempt == job.attempt, STEP.c.number == number)
    return one(connection, Step, select(STEP).where(*mine))


def granted_steps(connection: Connection, job: Job) -> list[int]:
    """Steps with side effects that may start, and have not said that they began."""
    steps = jobs.steps_of(connection, _id(job), job.attempt)
    return [step.number for step in steps if step.is_granted and step.began_after is None]


# --- the end ------------------------------------------------------------------------------------------


def finish_if_complete(connection: Connection, job: Job, now: float) -> bool:
    """End the attempt if its runner has said how, and all its logs are closed."""
    attempt = jobs.attempt_row(connection, _id(job), job.attempt)
    if attempt is None or attempt.is_over or attempt.end is None:
        return False
    for step in jobs.steps_of(connection, _id(job), job.attempt):
        if step.log_size is not None and not (step.is_log_closed and step.is_marks_closed):
            return False
    _finish(connection, job, JobEnded.model_validate(attempt.end), now)
    return True


def _finish(connection: Connection, job: Job, end: JobEnded, now: float, lost_reason: str = "") -> None:
    build = builds.by_id(connection, job.build_id)
    assert build is not None
    status, outcome, reason = end.status, end.outcome, end.reason[:MAX_REASON]
    if not status.is_terminal and status is not Status.UNKNOWN:
        status, outcome = Status.ERROR, Outcome.INFRA
        reason = f"the runner ended the job as {end.status.value!r}, which is no end"
    if status is Status.CANCELLED:
        outcome, reason = Outcome.CANCELLED, reason or job.cancel_reason or build.cancel_reason
    if status is Status.ERROR:
        reason = reason or "the runner gave no reason; its own log may say more"
    jobs.close_steps(connection, job, Outcome.INFRA, "the job ended without a word about this step")
    _end_attempt(connection, job, now, lost_reason)
    if end.stops_build and status in (Status.FAILURE, Status.ERROR):
        _stop_others(connection, job, now)
    _end_job(connection, job, status, outcome, reason, now)


def _stop_others(connection: Connection, culprit: Job, now: float) -> None:
    """A step failed whose failure is to end the build: what runs on a failure still does."""
    for job in jobs.of_build(connection, culprit.build_id):
        if job.id != culprit.id and "failure" not in job.spec.get("run_on", ()):
            _cancel_job(connection, job, f"stopped because {culprit.name} failed", now)


def lose(connection: Connection, job: Job, why: str, now: float) -> None:
    """The execution is lost, `why` being a clause like "runner a was not heard of for 60 s".

    Not yet acknowledged: it waits again. Ended already, only its log's tail missing: the end counts.
    """
    runners.count_lost(connection, job.runner_id)
    if not job.is_accepted:
        jobs.let_go(connection, job)
        return
    attempt = jobs.attempt_row(connection, _id(job), job.attempt)
    build = builds.by_id(connection, job.build_id)
    assert attempt is not None and build is not None
    why = why[:MAX_REASON]
    if attempt.end is not None:
        end = JobEnded.model_validate(attempt.end)
        _finish(connection, job, end, now, f"the end of its log never arrived: {why}")
        return
    jobs.close_steps(connection, job, Outcome.INFRA, f"lost: {why}")
    _end_attempt(connection, job, now, why)
    if attempt.side_effects_at is not None:
        reason = f"{why}; a step with side effects had started: look whether it did its work, then say so"
        _end_job(connection, job, Status.UNKNOWN, Outcome.LOST_UNKNOWN, reason, now)
    elif wish := job.cancel_reason or build.cancel_reason:
        _end_job(connection, job, Status.CANCELLED, Outcome.CANCELLED, wish, now)
    elif job.lost_attempts + 1 >= LOST_LIMIT:
        _end_job(connection, job, Status.ERROR, Outcome.INFRA, _third_loss(connection, job, why), now)
    else:
        try_again(connection, job, f"attempt {job.attempt} was lost: {why}", now, lost=1)


def try_again(connection: Connection, job: Job, reason: str, now: float, *, lost: int = 0) -> None:
    """The job waits for a runner again, as a new attempt."""
    values: dict[str, Any] = {
        "attempt": job.attempt + 1,
        "lost_attempts": job.lost_attempts + lost,
        "runner_id": None,
        "is_accepted": False,
        "lease_ticks": 0,
        "outcome": None,
        "reason": reason,
        "cancel_reason": "",
        "finished_at": None,
    }
    if jobs.advance(connection, job, Status.PENDING, **values):
        jobs.add_steps(connection, _id(job), job.attempt + 1, JobSpec.model_validate(job.spec))
    builds.fold(connection, job.build_id, now)


def _cancel_unstarted(connection: Connection, job: Job, reason: str, now: float) -> bool:
    """End a job that no runner has acknowledged; False where one has. `_after_ends` is to follow."""
    if job.is_accepted or Status(job.status) in (Status.RUNNING, Status.UNKNOWN):
        return False
    jobs.change_attempt(connection, _id(job), job.attempt, is_over=True)
    jobs.close_steps(connection, job, Outcome.CANCELLED, reason)
    _end_row(connection, job, Status.CANCELLED, Outcome.CANCELLED, reason, now)
    return True


def refuse(connection: Connection, job: Job, outcome: Outcome, reason: str, now: float) -> None:
    """End a job in the transaction that leased it: it must not start."""
    jobs.let_go(connection, job)
    jobs.change_attempt(connection, _id(job), job.attempt, is_over=True)
    jobs.close_steps(connection, job, outcome, reason)
    _end_job(connection, job, Status.ERROR, outcome, reason, now)


def cancel_build(connection: Connection, build_id: int, reason: str, now: float) -> list[Job]:
    """Ask for the end of a build: what no runner has acknowledged ends now, the rest when its runner says
    so. Returns its jobs."""
    builds.ask_cancel(connection, build_id, reason)
    found = jobs.of_build(connection, build_id)
    for job in found:
        if not Status(job.status).is_terminal:
            _cancel_unstarted(connection, job, reason, now)
    _after_ends(connection, build_id, now)
    return found


def _cancel_job(connection: Connection, job: Job, reason: str, now: float) -> bool:
    """Ask for the end of one job of a build; False: it has ended, or a person must say how it did.
    `_after_ends` is to follow."""
    if Status(job.status).is_terminal or job.status == Status.UNKNOWN.value:
        return False
    if not _cancel_unstarted(connection, job, reason, now):
        jobs.ask_cancel(connection, job, reason)
    return True


def supersede(connection: Connection, build_id: int, now: float) -> tuple[tuple[Job, ...], tuple[int, ...]]:
    """Cancel the older builds of what this one builds anew: (jobs of those, numbers of those that go on).

    Only pushes to branches and pull requests. A build in which a step with side effects has started, or
    whose end a person must say, goes on.
    """
    newer = builds.by_id(connection, build_id)
    assert newer is not None
    if newer.event["kind"] not in (Kind.PUSH.value, Kind.PULL_REQUEST.value):
        return (), ()
    cancelled: list[Job] = []
    left: list[int] = []
    for old in builds.older_unfinished(connection, newer):
        if any(_has_side_effects(connection, job) for job in jobs.of_build(connection, old.id or 0)):
            left.append(old.number)
        else:
            cancelled += cancel_build(connection, old.id or 0, f"superseded by #{newer.number}", now)
    return tuple(cancelled), tuple(left)


def supersede_groups(connection: Connection, build_id: int, now: float) -> list[Job]:
    """Cancel the older jobs of concurrency groups in which a job of this build takes their place.

    Not those in which a step with side effects has started. Returns the cancelled jobs.
    """
    build = builds.by_id(connection, build_id)
    assert build is not None
    cancelled: list[Job] = []
    for job in jobs.of_build(connection, build_id):
        group = job.spec.get("concurrency")
        if not group or not group["cancels"] or Status(job.status).is_terminal or job.status == _BLOCKED:
            continue
        reason = f"superseded by #{build.number} (concurrency group {group['group']})"
        for old in concurrency.older(connection, job):
            if not _has_side_effects(connection, old) and _cancel_job(connection, old, reason, now):
                cancelled.append(old)
    for id_ in dict.fromkeys(old.build_id for old in cancelled):
        _after_ends(connection, id_, now)
    return cancelled


def _has_side_effects(connection: Connection, job: Job) -> bool:
    """Whether a step with side effects has started in the present attempt, and nobody knows its end yet."""
    if Status(job.status).is_terminal:
        return False
    attempt = jobs.attempt_row(connection, _id(job), job.attempt)
    return attempt is not None and attempt.side_effects_at is not None


def ask_again(connection: Connection, job_id: int, now: float) -> list[Job]:
    """The approval of a job's build does not hold: it is withdrawn, and what has not started waits for a
    person. Returns the jobs that do; none if the approval holds."""
    job = jobs.locked(connection, job_id)
    build = builds.locked(connection, job.build_id) if job is not None else None
    why = approvals.objection(connection, build) if build is not None else ""
    if build is None or build.id is None or not why:
        return []
    approvals.withdraw(connection, build.id)
    values = {"outcome": Outcome.BLOCKED.value, "reason": why}
    stopped = [
        each
        for each in jobs.of_build(connection, build.id)
        if each.status in (Status.PENDING.value, Status.WAITING.value)
        and each.runner_id is None
        and jobs.advance(connection, each, Status.BLOCKED, **values)
    ]
    builds.fold(connection, build.id, now)
    return stopped


def release(connection: Connection, build_id: int, now: float) -> list[Job]:
    """A person has approved: what waited for that waits for a runner. Returns those jobs."""
    values = {"outcome": None, "reason": ""}
    freed = [
        job
        for job in jobs.of_build(connection, build_id)
        if job.status == Status.BLOCKED.value
        and jobs.advance(connection, job, jobs.first_status(job.spec), **values)
    ]
    _after_ends(connection, build_id, now)
    return [*freed, *supersede_groups(connection, build_id, now)]


def resolve(connection: Connection, job: Job, verdict: Status, reason: str, now: float) -> None:
    """A person says how an unknown job, and what was unknown in it, really ended."""
    outcome = Outcome.CANCELLED if verdict is Status.CANCELLED else Outcome.EXIT
    for step in jobs.steps_of(connection, _id(job), job.attempt):
        if step.status == Status.UNKNOWN.value:
            jobs.advance_step(connection, step, verdict, outcome=outcome.value, reason=reason)
    _end_job(connection, job, verdict, outcome, reason, now)


def _third_loss(connection: Connection, job: Job, why: str) -> str:
    names = [attempt.runner_name for attempt in of_job(connection, _id(job)) if attempt.runner_name]
    runners = ", ".join(dict.fromkeys(names))
    return f"lost {LOST_LIMIT} times, on {runners}: it may be what kills them. The last time: {why}"


def _end_attempt(connection: Connection, job: Job, now: float, lost_reason: str) -> None:
    values = {"is_over": True, "finished_at": now, "lost_reason": lost_reason}
    jobs.change_attempt(connection, _id(job), job.attempt, **values)


def _end_job(
    connection: Connection, job: Job, status: Status, outcome: Outcome | None, reason: str, now: float
) -> None:
    _end_row(connection, job, status, outcome, reason, now)
    _after_ends(connection, job.build_id, now)


def _after_ends(connection: Connection, build_id: int, now: float) -> None:
    """What waited for jobs that have ended goes on, and the build is where its jobs are."""
    dependants.settle(connection, build_id, now)
    builds.fold(connection, build_id, now)


def _end_row(
    connection: Connection, job: Job, status: Status, outcome: Outcome | None, reason: str, now: float
) -> None:
    values: dict[str, Any] = {
        "outcome": outcome.value if outcome else None,
        "reason": reason[:MAX_REASON],
        "runner_id": None,
        "is_accepted": False,
        "finished_at": now if status.is_terminal else None,
    }
    jobs.advance(connection, job, status, **values)


# --- what is over -------------------------------------------------------------------------------------


def dead(connection: Connection, pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Those of (job, attempt) that are over: nobody needs anything of them any more."""
    return [pair for pair in pairs if _is_dead(connection, *pair)]


def _is_dead(connection: Connection, job_id: int, attempt: int) -> bool:
    job = jobs.find(connection, job_id)
    if job is None or job.attempt != attempt:
        return True  # also a job that a restored backup does not know
    row = jobs.attempt_row(connection, job_id, attempt)
    return (row is not None and row.is_over) or Status(job.status).is_terminal


def keep_evidence(connection: Connection, runner_id: int, lease: Lease, message: str, now: float) -> None:
    """What a runner said under a lease that is over."""
    if jobs.find(connection, lease.job) is None:
        return
    about = (EVIDENCE.c.job_id == lease.job, EVIDENCE.c.attempt == lease.attempt)
    count = connection.execute(select(func.count()).select_from(EVIDENCE).where(*about)).scalar_one()
    if count < MAX_EVIDENCE:
        evidence = Evidence(
            job_id=lease.job,
            attempt=lease.attempt,
            epoch=lease.epoch,
            runner_id=runner_id,
            message=message[: 64 << 10],
            received_at=now,
        )
        add(connection, evidence)


def cancels(connection: Connection, runner_id: int) -> list[tuple[Job, str]]:
    """Executions of this runner that a person wants to end, and the reason."""
    found = []
    for job in jobs.leased_to(connection, runner_id):
        build = builds.by_id(connection, job.build_id)
        wish = job.cancel_reason or (build.cancel_reason if build is not None else "")
        if job.is_accepted and wish:
            found.append((job, wish))
    return found


def _id(job: Job) -> int:
    assert job.id is not None
    return job.id
