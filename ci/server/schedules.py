"""Schedules: `tick` turns what is due into rows of the inbox, one each, whoever else does the same.

A run is claimed by its stored `next_at`, in the transaction that stores its row. A run that nobody claimed
in time (the server was down) is missed: it is counted and said, and never made up. Up to LATE_SECONDS late,
a run is only late.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ci.errors import Invalid
from ci.server import cron
from ci.server.auth import Actor
from ci.server.bus import Bus
from ci.server.clock import Clock
from ci.server.forges.news import SCHEDULE, ScheduleNews
from ci.server.models import Repo, Schedule
from ci.server.store import audit, inbox, schedules
from ci.server.store.database import Connection, Store
from ci.server.store.schedules import Last, Plan

TICK_SECONDS = 10.0
#: A restart or an upgrade makes nobody miss a run.
LATE_SECONDS = 600.0
WAITING = "its event waits in the inbox"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. -]{0,99}\Z")
_MAX_BRANCH = 250


@dataclass(frozen=True, kw_only=True)
class NextRun:
    """A schedule as a reader wants it."""

    row: Schedule
    meaning: str  #: the expression in words
    next_words: str  #: in its own zone; empty: it is off
    last_words: str


def checked(plan: Plan) -> Plan:
    """The plan as it is stored. Raises Invalid."""
    name, branch = plan.name.strip(), plan.branch.strip()
    if not _NAME.match(name):
        raise Invalid(
            f"{name[:80]!r} is no name of a schedule: letters, digits, spaces and `_.-`, at most 100"
        )
    if len(branch) > _MAX_BRANCH:
        raise Invalid(f"a branch has at most {_MAX_BRANCH} characters")
    parsed = cron.parse(plan.cron, plan.time_zone)
    return Plan(
        name=name,
        cron=parsed.expression,
        time_zone=parsed.zone.key,
        branch=branch,
        is_enabled=plan.is_enabled,
    )


def shown(row: Schedule) -> NextRun:
    """Of a row whose zone is gone from this machine it says so."""
    try:
        parsed = cron.parse(row.cron, row.time_zone)
    except Invalid as error:
        return NextRun(row=row, meaning=str(error), next_words="", last_words="")
    next_at = row.next_at if row.is_enabled else None
    return NextRun(
        row=row,
        meaning=parsed.meaning,
        next_words=parsed.words(next_at) if next_at is not None else "",
        last_words=parsed.words(row.last_at) if row.last_at is not None else "",
    )


class Schedules:
    def __init__(self, store: Store, bus: Bus, clock: Clock) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock

    # --- what a person does ---------------------------------------------------------------------------

    async def add(self, repo: Repo, plan: Plan, actor: Actor) -> int:
        """Raises Invalid, or Conflict for a name that is taken."""
        plan = checked(plan)
        next_at = self._next_at(plan)

        def write(connection: Connection) -> int:
            return schedules.add(connection, repo.id or 0, plan, next_at, actor.name)

        return await self._write(repo, "schedule.add", plan.name, write, actor, _words(plan))

    async def change(self, repo: Repo, schedule_id: int, plan: Plan, actor: Actor) -> None:
        plan = checked(plan)
        next_at = self._next_at(plan)

        def write(connection: Connection) -> None:
            schedules.find(connection, repo.id or 0, schedule_id)
            schedules.change(connection, schedule_id, plan, next_at)

        await self._write(repo, "schedule.change", plan.name, write, actor, _words(plan))

    async def remove(self, repo: Repo, schedule_id: int, actor: Actor) -> None:
        row = await self.find(repo, schedule_id)

        def write(connection: Connection) -> None:
            schedules.remove(connection, schedule_id)

        await self._write(repo, "schedule.remove", row.name, write, actor)

    async def run_now(self, repo: Repo, schedule_id: int, actor: Actor) -> None:
        """One run beside the planned ones; its verdict is the schedule's last."""
        row, now = await self.find(repo, schedule_id), self._clock.now()

        def write(connection: Connection) -> None:
            schedules.began(connection, schedule_id, Last(at=now, verdict=WAITING))
            _receive(connection, row, ScheduleNews(**_facts(row), due_at=now, sender=actor.name), now)

        await self._write(repo, "schedule.run", row.name, write, actor)
        self._bus.publish("deliveries")

    async def find(self, repo: Repo, schedule_id: int) -> Schedule:
        """Raises NotFound."""
        return await self._store.read(lambda c: schedules.find(c, repo.id or 0, schedule_id))

    def _next_at(self, plan: Plan) -> float | None:
        return cron.parse(plan.cron, plan.time_zone).after(self._clock.now()) if plan.is_enabled else None

    async def _write(
        self,
        repo: Repo,
        action: str,
        name: str,
        write: Callable[[Connection], object],
        actor: Actor,
        details: str = "",
    ) -> int:
        now = self._clock.now()

        def whole(connection: Connection) -> object:
            done = write(connection)
            deed = audit.Deed(action=action, object=name, repo_id=repo.id, details=details)
            audit.note(connection, actor, deed, now)
            return done

        done = await self._store.write(whole)
        self._bus.publish("inbox")
        return done if isinstance(done, int) else 0

    # --- the clock --------------------------------------------------------------------------------------

    async def tick(self) -> int:
        """Claim all that is due; returns how many events that made."""
        now = self._clock.now()
        if not await self._store.read(lambda connection: schedules.due(connection, now)):
            return 0

        def claim_all(connection: Connection) -> int:
            return sum(_claim(connection, row, now) for row in schedules.due(connection, now))

        made = await self._store.write(claim_all)
        self._bus.publish("inbox", "deliveries")
        return made


def _claim(connection: Connection, row: Schedule, now: float) -> int:
    assert row.next_at is not None
    try:
        parsed = cron.parse(row.cron, row.time_zone)
        count, latest = parsed.between(row.next_at, now)
        next_at = parsed.after(now)
    except Invalid as error:  # its zone has gone from this machine
        schedules.claim(connection, row, None, Last(at=row.next_at, verdict=f"runs no more: {error}"))
        return 0
    is_late = now - latest <= LATE_SECONDS
    missed = _missed(count - 1 if is_late else count)
    verdict = "; ".join(each for each in (WAITING if is_late else "", missed) if each)
    if not schedules.claim(connection, row, next_at, Last(at=latest, verdict=verdict)) or not is_late:
        return 0
    _receive(connection, row, ScheduleNews(**_facts(row), due_at=latest, missed=missed), now)
    return 1


def _missed(count: int) -> str:
    if not count:
        return ""
    many = f"{count:,}{' or more' if count >= cron.MAX_COUNT else ''}"
    return f"missed {many} {'run' if count == 1 else 'runs'} while the server was down; none is made up"


def _facts(row: Schedule) -> dict[str, Any]:
    return {"schedule_id": row.id, "schedule": row.name, "branch": row.branch}


def _receive(connection: Connection, row: Schedule, news: ScheduleNews, now: float) -> None:
    inbox.receive_own(
        connection,
        repo_id=row.repo_id,
        delivery=f"schedule-{row.id}-{news.due_at:.0f}",
        body=news.model_dump_json().encode(),
        now=now,
        word=SCHEDULE,
    )


def _words(plan: Plan) -> str:
    state = "" if plan.is_enabled else ", off"
    return f"{plan.cron} {plan.time_zone}, {plan.branch or 'default branch'}{state}"
