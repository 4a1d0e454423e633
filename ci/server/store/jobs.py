"""Jobs and steps as rows: made, leased, moved on. Every status goes through `advance`.

A job is leased while `runner_id` is set: `pending` until the runner's acknowledgement is stored, then
`running`. The number of the grant, `epoch`, only grows; with the attempt it fences every later write.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, func, select, update

from ci.protocol import Lease
from ci.server.models import Attempt, Job, Step
from ci.server.store import approvals, concurrency
from ci.server.store.tables import ATTEMPT, BUILD, JOB, STEP, add, add_if_new, changed, many, one
from ci.spec import JobSpec
from ci.status import Outcome, Status, may_advance


def add_job(
    connection: Connection, build_id: int, position: int, spec: JobSpec, now: float, held: str = ""
) -> int:
    """A job with its steps; `held`: why a person must act before it may start."""
    dumped = spec.model_dump(mode="json")
    job = Job(
        build_id=build_id,
        position=position,
        name=spec.name,
        slug=spec.slug,
        spec=dumped,
        status=(Status.BLOCKED if held else first_status(dumped)).value,
        outcome=Outcome.BLOCKED.value if held else None,
        reason=held,
        created_at=now,
    )
    job_id = add(connection, job)
    add_steps(connection, job_id, 1, spec)
    return job_id


def first_status(spec: Mapping[str, Any]) -> Status:
    """Of a job that nobody holds: it waits for others of its build, or for a runner."""
    return Status.WAITING if spec.get("depends_on") else Status.PENDING


def add_kept(connection: Connection, build_id: int, position: int, spec: JobSpec, old: Job) -> int:
    """A job that stands for one of an earlier build, with its result; that one has the steps and logs."""
    job = Job(
        build_id=build_id,
        position=position,
        name=spec.name,
        slug=spec.slug,
        spec=spec.model_dump(mode="json"),
        status=old.status,
        outcome=old.outcome,
        reason=old.reason,
        attempt=old.attempt,
        kept_from=old.kept_from or old.id,
        created_at=old.created_at,
        started_at=old.started_at,
        finished_at=old.finished_at,
    )
    return add(connection, job)


def add_steps(connection: Connection, job_id: int, attempt: int, spec: JobSpec) -> None:
    for step in spec.steps:
        status = Status.WAITING if step.depends_on else Status.PENDING
        if step.skip_reason:
            status = Status.SKIPPED
        row = Step(
            job_id=job_id,
            attempt=attempt,
            number=step.number,
            name=step.name,
            slug=step.slug,
            kind=step.kind.value,
            image=step.image,
            status=status.value,
            outcome=Outcome.SKIPPED.value if step.skip_reason else None,
            reason=step.skip_reason,
        )
        add(connection, row)


def find(connection: Connection, job_id: int) -> Job | None:
    return one(connection, Job, select(JOB).where(JOB.c.id == job_id))


def locked(connection: Connection, job_id: int) -> Job | None:
    """The job, held against other writers until the transaction ends."""
    return one(connection, Job, select(JOB).where(JOB.c.id == job_id).with_for_update())


def current(connection: Connection, runner_id: int, lease: Lease) -> Job | None:
    """The job, locked, if this very lease of this runner still holds; None: the lease is stale."""
    job = locked(connection, lease.job)
    if job is None or (job.runner_id, job.attempt, job.epoch) != (runner_id, lease.attempt, lease.epoch):
        return None
    return job


def lease_of(job: Job) -> Lease:
    assert job.id is not None
    return Lease(job=job.id, attempt=job.attempt, epoch=job.epoch)


def of_build(connection: Connection, build_id: int) -> list[Job]:
    return many(connection, Job, select(JOB).where(JOB.c.build_id == build_id).order_by(JOB.c.position))


def of_slug(connection: Connection, build_id: int, slug: str) -> Job | None:
    return one(connection, Job, select(JOB).where(JOB.c.build_id == build_id, JOB.c.slug == slug))


def ask_cancel(connection: Connection, job: Job, reason: str) -> None:
    """Note the request, unless there is one."""
    is_open = (JOB.c.id == job.id, JOB.c.cancel_reason == "")
    connection.execute(update(JOB).where(*is_open).values(cancel_reason=reason))


def being_cancelled(connection: Connection, build_id: int) -> list[Job]:
    """Jobs of the build whose runners must hear that they are to end, without their build."""
    is_asked = (JOB.c.build_id == build_id, JOB.c.cancel_reason != "", JOB.c.runner_id.is_not(None))
    return many(connection, Job, select(JOB).where(*is_asked))


def standings(connection: Connection, build_id: int) -> Sequence[Any]:
    """(name, status, outcome, reason, started_at, kept_from) of each job, in order; light, for each end
    asks for it."""
    columns = (JOB.c.name, JOB.c.status, JOB.c.outcome, JOB.c.reason, JOB.c.started_at, JOB.c.kept_from)
    return connection.execute(
        select(*columns).where(JOB.c.build_id == build_id).order_by(JOB.c.position)
    ).all()


def steps_of(connection: Connection, job_id: int, attempt: int) -> list[Step]:
    mine = (STEP.c.job_id == job_id, STEP.c.attempt == attempt)
    return many(connection, Step, select(STEP).where(*mine).order_by(STEP.c.number))


def attempt_row(connection: Connection, job_id: int, attempt: int) -> Attempt | None:
    mine = (ATTEMPT.c.job_id == job_id, ATTEMPT.c.attempt == attempt)
    return one(connection, Attempt, select(ATTEMPT).where(*mine))


def change_attempt(connection: Connection, job_id: int, attempt: int, **values: Any) -> None:
    mine = (ATTEMPT.c.job_id == job_id, ATTEMPT.c.attempt == attempt)
    connection.execute(update(ATTEMPT).where(*mine).values(**values))


def repo_id_of(connection: Connection, job_id: int) -> int | None:
    joined = select(BUILD.c.repo_id).join(JOB, JOB.c.build_id == BUILD.c.id)
    return connection.execute(joined.where(JOB.c.id == job_id)).scalar_one_or_none()


def close_steps(connection: Connection, job: Job, outcome: Outcome, reason: str) -> None:
    """No step of an ended attempt stays open. One that was granted its side effects stays unknown."""
    for step in steps_of(connection, job.id or 0, job.attempt):
        status = Status(step.status)
        if status.is_terminal or status is Status.UNKNOWN:
            continue
        if step.is_granted:
            unknown = Outcome.LOST_UNKNOWN.value
            advance_step(connection, step, Status.UNKNOWN, outcome=unknown, reason=reason)
        elif outcome is Outcome.CANCELLED:
            advance_step(connection, step, Status.CANCELLED, outcome=outcome.value, reason=reason)
        elif status is Status.RUNNING:
            advance_step(connection, step, Status.ERROR, outcome=outcome.value, reason=reason)
        else:
            skipped = Outcome.SKIPPED.value
            advance_step(connection, step, Status.SKIPPED, outcome=skipped, reason=reason)


# --- status -----------------------------------------------------------------------------------------


def advance(connection: Connection, job: Job, new: Status, **values: Any) -> bool:
    """Move a job on under its present lease; False where the table or a newer lease forbids it."""
    fence = (JOB.c.attempt == job.attempt, JOB.c.epoch == job.epoch)
    return move(connection, JOB, job.id, new, values, fence)


def advance_step(connection: Connection, step: Step, new: Status, **values: Any) -> bool:
    return move(connection, STEP, step.id, new, values)


def move(
    connection: Connection,
    table: Table,
    row_id: int | None,
    new: Status,
    values: Mapping[str, Any],
    fence: Sequence[ColumnElement[bool]] = (),
) -> bool:
    """Compare-and-set by the one transition table (ci.status): whether the row moved."""
    sources = [old.value for old in Status if may_advance(old, new)]
    where = (table.c.id == row_id, table.c.status.in_(sources), *fence)
    return changed(connection, update(table).where(*where).values(status=new.value, **values)) == 1


# --- leases -----------------------------------------------------------------------------------------


def fitting(connection: Connection, labels: Mapping[str, str], tried: Collection[int] = ()) -> Iterator[int]:
    """Ids of pending jobs without a lease that a runner with these labels may take, oldest first.

    A job of a concurrency group only where all older ones of the group have their places, whoever may run
    those; so the group is looked at first. Not the jobs that were `tried`.
    """
    free = (JOB.c.status == Status.PENDING.value, JOB.c.runner_id.is_(None))
    columns = (JOB.c.id, BUILD.c.repo_id, JOB.c.spec["labels"], JOB.c.spec["concurrency"])
    rows = connection.execute(
        select(*columns).join(BUILD, JOB.c.build_id == BUILD.c.id).where(*free).order_by(JOB.c.id)
    )
    places = concurrency.Places(connection)
    for job_id, repo_id, wanted, group in rows.all():
        if group and not places.take(repo_id, group):
            continue
        if is_fit(wanted or {}, labels) and job_id not in tried:
            yield job_id


def is_fit(wanted: Mapping[str, str], offered: Mapping[str, str]) -> bool:
    return all(offered.get(name) == value for name, value in wanted.items())


def grant(connection: Connection, job_id: int, runner_id: int, runner_name: str) -> Job | None:
    """Lease the job to a runner under a new epoch. None if somebody was faster, or if its build waits for
    an approval or has one that does not hold (law 8)."""
    if approvals.objection_to_job(connection, job_id):
        return None
    free = (JOB.c.id == job_id, JOB.c.status == Status.PENDING.value, JOB.c.runner_id.is_(None))
    values = {"runner_id": runner_id, "epoch": JOB.c.epoch + 1, "is_accepted": False, "lease_ticks": 0}
    if not changed(connection, update(JOB).where(*free).values(**values)):
        return None
    job = locked(connection, job_id)
    assert job is not None
    row = Attempt(job_id=job_id, attempt=job.attempt, runner_id=runner_id, runner_name=runner_name)
    if add_if_new(connection, row) is None:
        change_attempt(connection, job_id, job.attempt, runner_id=runner_id, runner_name=runner_name)
    return job


def renew(connection: Connection, job: Job) -> Lease:
    """The same execution under a new epoch, for a runner that is back."""
    assert job.id is not None
    held = (JOB.c.id == job.id, JOB.c.epoch == job.epoch)
    connection.execute(update(JOB).where(*held).values(epoch=job.epoch + 1, lease_ticks=0))
    return Lease(job=job.id, attempt=job.attempt, epoch=job.epoch + 1)


def let_go(connection: Connection, job: Job) -> None:
    """Take the lease back before anything began: the job waits again, in the same attempt."""
    held = (JOB.c.id == job.id, JOB.c.epoch == job.epoch, JOB.c.is_accepted.is_(False))
    connection.execute(update(JOB).where(*held).values(runner_id=None, lease_ticks=0))


def leased_to(connection: Connection, runner_id: int) -> list[Job]:
    mine = JOB.c.runner_id == runner_id
    return many(connection, Job, select(JOB).where(mine).order_by(JOB.c.id).with_for_update())


def refresh(connection: Connection, runner_id: int, leases: Collection[Lease]) -> None:
    """These leases were heard of: their age starts again."""
    for lease in leases:
        fence = (JOB.c.id == lease.job, JOB.c.attempt == lease.attempt, JOB.c.epoch == lease.epoch)
        mine = JOB.c.runner_id == runner_id
        connection.execute(update(JOB).where(mine, *fence).values(lease_ticks=0))


def tick(connection: Connection) -> None:
    """Every lease is one tick older."""
    is_leased = JOB.c.runner_id.is_not(None)
    connection.execute(update(JOB).where(is_leased).values(lease_ticks=JOB.c.lease_ticks + 1))


def aged(connection: Connection, ticks: int) -> list[Job]:
    """Leases that were not heard of for this many ticks."""
    is_old = (JOB.c.runner_id.is_not(None), JOB.c.lease_ticks >= ticks)
    return many(connection, Job, select(JOB).where(*is_old).order_by(JOB.c.id).with_for_update())


def pending_before(connection: Connection, job_id: int) -> int:
    older = (JOB.c.status == Status.PENDING.value, JOB.c.runner_id.is_(None), JOB.c.id < job_id)
    return connection.execute(select(func.count()).select_from(JOB).where(*older)).scalar_one()
