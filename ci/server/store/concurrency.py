"""Concurrency groups: at most so many jobs of a group of a repo run at the same time, oldest first.

Who has begun, or is offered to a runner, or may have done something that a person must look at, has a place.
The others wait as `pending`; the claim (jobs.fitting) looks at the group in its own transaction, with the
repo's row locked, so that two servers never give away the same place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, or_, select

from ci.server.models import Job
from ci.server.store.tables import BUILD, JOB, REPO, many
from ci.status import Status

_ENDED = [status.value for status in Status if status.is_terminal]
_HELD = [Status.RUNNING.value, Status.UNKNOWN.value]


class Places:
    """The places left in the groups that are asked about, in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._left: dict[tuple[int, str], int] = {}

    def take(self, repo_id: int, group: Mapping[str, Any]) -> bool:
        """Whether the next job of the group has a place; jobs are to be asked for from the oldest on."""
        key = repo_id, str(group["group"])
        if key not in self._left:
            self._connection.execute(select(REPO.c.id).where(REPO.c.id == repo_id).with_for_update())
            self._left[key] = int(group["limit"]) - len(holders(self._connection, *key))
        self._left[key] -= 1
        return self._left[key] >= 0


def holders(connection: Connection, repo_id: int, group: str) -> list[Job]:
    """Who has a place, oldest first."""
    has_place = or_(
        JOB.c.status.in_(_HELD), and_(JOB.c.status == Status.PENDING.value, JOB.c.runner_id.is_not(None))
    )
    return _of_group(connection, repo_id, group, has_place)


def why_waiting(connection: Connection, job: Job) -> str:
    """Who has the place that the job waits for, as a clause; empty: it has none to wait for."""
    group = job.spec.get("concurrency")
    if not group:
        return ""
    repo_id = connection.execute(select(BUILD.c.repo_id).where(BUILD.c.id == job.build_id)).scalar_one()
    is_older = and_(JOB.c.status == Status.PENDING.value, JOB.c.runner_id.is_(None), JOB.c.id < job.id)
    before = holders(connection, repo_id, group["group"])
    before += _of_group(connection, repo_id, group["group"], is_older)
    if len(before) < group["limit"]:
        return ""
    number = select(BUILD.c.number).where(BUILD.c.id == before[0].build_id)
    place = f"build {connection.execute(number).scalar_one()}'s job {before[0].name}"
    others = f" and {len(before) - 1} more" if len(before) > 1 else ""
    return f"waits for {place}{others} (concurrency group {group['group']})"


def older(connection: Connection, job: Job) -> list[Job]:
    """The jobs of its group, of older builds of the repo, that have not ended; oldest first."""
    repo_id = connection.execute(select(BUILD.c.repo_id).where(BUILD.c.id == job.build_id)).scalar_one()
    is_older = and_(JOB.c.status.not_in(_ENDED), JOB.c.build_id < job.build_id)
    return _of_group(connection, repo_id, job.spec["concurrency"]["group"], is_older)


def _of_group(connection: Connection, repo_id: int, group: str, which: ColumnElement[bool]) -> list[Job]:
    name = JOB.c.spec["concurrency"]["group"].as_string()
    mine = select(JOB).join(BUILD, JOB.c.build_id == BUILD.c.id)
    where = (BUILD.c.repo_id == repo_id, name == group, which)
    return many(connection, Job, mine.where(*where).order_by(JOB.c.id))
