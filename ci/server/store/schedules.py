"""Schedules of repos: what runs when. A run is claimed by compare-and-set, so that it is one run."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, select, update

from ci.errors import Conflict, NotFound
from ci.server.models import Schedule
from ci.server.store.tables import SCHEDULE, add_if_new, changed, many, one

MAX_IN_A_REPO = 50
MAX_VERDICT = 1000


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a person says of a schedule; all of it checked."""

    name: str
    cron: str
    time_zone: str
    branch: str  #: empty: the default branch
    is_enabled: bool = True


@dataclass(frozen=True, kw_only=True)
class Last:
    """The last run, and what is known of it."""

    at: float
    verdict: str

    def values(self) -> dict[str, object]:
        return {"last_at": self.at, "last_verdict": self.verdict[:MAX_VERDICT]}


def of_repo(connection: Connection, repo_id: int) -> list[Schedule]:
    mine = select(SCHEDULE).where(SCHEDULE.c.repo_id == repo_id)
    return many(connection, Schedule, mine.order_by(SCHEDULE.c.name))


def find(connection: Connection, repo_id: int, schedule_id: int) -> Schedule:
    mine = (SCHEDULE.c.repo_id == repo_id, SCHEDULE.c.id == schedule_id)
    found = one(connection, Schedule, select(SCHEDULE).where(*mine))
    if found is None:
        raise NotFound(f"there is no schedule with the id {schedule_id} in this repo")
    return found


def add(connection: Connection, repo_id: int, plan: Plan, next_at: float | None, who: str) -> int:
    count = select(func.count()).select_from(SCHEDULE).where(SCHEDULE.c.repo_id == repo_id)
    if connection.execute(count).scalar_one() >= MAX_IN_A_REPO:
        raise Conflict(f"a repo has at most {MAX_IN_A_REPO} schedules")
    row = Schedule(**vars(plan), repo_id=repo_id, next_at=next_at, created_by=who)
    schedule_id = add_if_new(connection, row)
    if schedule_id is None:
        raise Conflict(f"there is a schedule {plan.name!r} already")
    return schedule_id


def change(connection: Connection, schedule_id: int, plan: Plan, next_at: float | None) -> None:
    """Raises Conflict for a name that another schedule of the repo has."""
    mine = SCHEDULE.c.id == schedule_id
    repo_id = select(SCHEDULE.c.repo_id).where(mine).scalar_subquery()
    same_name = (SCHEDULE.c.repo_id == repo_id, SCHEDULE.c.name == plan.name, SCHEDULE.c.id != schedule_id)
    if connection.execute(select(SCHEDULE.c.id).where(*same_name)).first() is not None:
        raise Conflict(f"there is a schedule {plan.name!r} already")
    connection.execute(update(SCHEDULE).where(mine).values(**vars(plan), next_at=next_at))


def remove(connection: Connection, schedule_id: int) -> None:
    connection.execute(delete(SCHEDULE).where(SCHEDULE.c.id == schedule_id))


def due(connection: Connection, now: float) -> list[Schedule]:
    is_due = (SCHEDULE.c.is_enabled.is_(True), SCHEDULE.c.next_at <= now)
    return many(connection, Schedule, select(SCHEDULE).where(*is_due).order_by(SCHEDULE.c.next_at))


def claim(connection: Connection, seen: Schedule, next_at: float | None, last: Last) -> bool:
    """Take the run that `seen` is due for; False where somebody else has, or has changed the schedule."""
    still = (
        SCHEDULE.c.id == seen.id,
        SCHEDULE.c.next_at == seen.next_at,
        SCHEDULE.c.is_enabled.is_(True),
        SCHEDULE.c.cron == seen.cron,
        SCHEDULE.c.time_zone == seen.time_zone,
    )
    statement = update(SCHEDULE).where(*still).values(next_at=next_at, **last.values())
    return changed(connection, statement) == 1


def began(connection: Connection, schedule_id: int, last: Last) -> None:
    """A run that is its last one from now on."""
    connection.execute(update(SCHEDULE).where(SCHEDULE.c.id == schedule_id).values(**last.values()))


def say(connection: Connection, schedule_id: int, due_at: float, verdict: str) -> None:
    """What became of the run; nothing where a later one has begun, or the schedule is gone."""
    last = (SCHEDULE.c.id == schedule_id, SCHEDULE.c.last_at == due_at)
    connection.execute(update(SCHEDULE).where(*last).values(last_verdict=verdict[:MAX_VERDICT]))
