"""Dependants: jobs that wait for others of their build, moved on as those end."""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from ci import waits
from ci.server.store import jobs
from ci.server.store.tables import BUILD, JOB
from ci.status import Outcome, Status
from ci.waits import Standing


def settle(connection: Connection, build_id: int, now: float) -> None:
    """Start or skip what waits for nothing any more; the others say what they wait for.

    The build's row is locked first, so that of two jobs that end at once the second sees the first.
    """
    connection.execute(select(BUILD.c.id).where(BUILD.c.id == build_id).with_for_update())
    if not _is_any_waiting(connection, build_id):
        return
    while decisions := waits.decide(standings := _standings(connection, build_id)):
        moved = [_move(connection, build_id, decision, now) for decision in decisions]
        if not any(moved):
            return
    for each in standings:
        if each.status is Status.WAITING:
            where = (JOB.c.build_id == build_id, JOB.c.slug == each.slug)
            reason = waits.reason(each, standings)
            connection.execute(update(JOB).where(*where).values(reason=reason))


def _is_any_waiting(connection: Connection, build_id: int) -> bool:
    waiting = select(JOB.c.id).where(JOB.c.build_id == build_id, JOB.c.status == Status.WAITING.value)
    return connection.execute(waiting.limit(1)).scalar_one_or_none() is not None


def _standings(connection: Connection, build_id: int) -> list[Standing]:
    spec = JOB.c.spec
    columns = (
        JOB.c.slug,
        JOB.c.name,
        JOB.c.status,
        spec["depends_on"].label("needs"),
        spec["run_on"].label("on"),
    )
    rows = connection.execute(
        select(*columns).where(JOB.c.build_id == build_id).order_by(JOB.c.position)
    ).all()
    return [
        Standing(
            slug=row.slug,
            name=row.name,
            status=Status(row.status),
            depends_on=tuple(row.needs or ()),
            run_on=tuple(row.on or ("success",)),
        )
        for row in rows
    ]


def _move(connection: Connection, build_id: int, decision: waits.Decision, now: float) -> bool:
    job = jobs.of_slug(connection, build_id, decision.slug)
    if job is None:
        return False
    if decision.status is Status.PENDING:
        return jobs.advance(connection, job, Status.PENDING, outcome=None, reason="")
    skipped = Outcome.SKIPPED
    jobs.close_steps(connection, job, skipped, decision.reason)
    values = {"outcome": skipped.value, "reason": decision.reason, "finished_at": now}
    return jobs.advance(connection, job, Status.SKIPPED, **values)
