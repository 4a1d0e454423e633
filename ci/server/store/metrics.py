"""What the whole server is doing, counted: for /metrics. Nothing here tells of one repo or one person."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, Table, func, select

from ci.server.store.inbox import RECEIVED
from ci.server.store.tables import BUILD, INBOX, JOB, OUTBOX, RUNNER
from ci.status import Status


@dataclass(frozen=True, kw_only=True)
class Measures:
    builds: dict[str, int]  #: by status, all that are kept
    jobs: dict[str, int]
    oldest_pending_at: float | None  #: when the longest waiting job was made
    runners: dict[str, int]  #: "connected", "away", "paused", "draining"
    places: int  #: of runners that are connected
    places_taken: int
    deliveries_waiting: int
    statuses_waiting: int  #: for forges


def measure(connection: Connection) -> Measures:
    pending = (JOB.c.status == Status.PENDING.value, JOB.c.runner_id.is_(None))
    oldest = connection.execute(select(func.min(JOB.c.created_at)).where(*pending)).scalar_one_or_none()
    leased = select(func.count()).select_from(JOB).where(JOB.c.runner_id.is_not(None))
    capacity = select(func.coalesce(func.sum(RUNNER.c.capacity), 0)).where(RUNNER.c.is_connected)
    received = select(func.count()).select_from(INBOX).where(INBOX.c.state == RECEIVED)
    unsent = select(func.count()).select_from(OUTBOX).where(OUTBOX.c.next_try_at.is_not(None))
    return Measures(
        builds=_by_status(connection, BUILD),
        jobs=_by_status(connection, JOB),
        oldest_pending_at=oldest,
        runners=_runners(connection),
        places=connection.execute(capacity).scalar_one(),
        places_taken=connection.execute(leased).scalar_one(),
        deliveries_waiting=connection.execute(received).scalar_one(),
        statuses_waiting=connection.execute(unsent).scalar_one(),
    )


def _by_status(connection: Connection, table: Table) -> dict[str, int]:
    counts = {status.value: 0 for status in Status}
    for row in connection.execute(select(table.c.status, func.count()).group_by(table.c.status)):
        counts[row[0]] = row[1]
    return counts


def _runners(connection: Connection) -> dict[str, int]:
    counts = {"connected": 0, "away": 0, "paused": 0, "draining": 0}
    for row in connection.execute(select(RUNNER.c.is_connected, RUNNER.c.is_paused, RUNNER.c.is_draining)):
        counts["connected" if row.is_connected else "away"] += 1
        counts["paused"] += row.is_paused
        counts["draining"] += row.is_draining
    return counts
