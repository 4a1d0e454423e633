"""Builds as rows: made with their jobs in one transaction, and folded from their jobs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, select, update

from ci.errors import Problem
from ci.event import Event
from ci.server.models import Build
from ci.server.store import jobs, outbox
from ci.server.store.tables import BUILD, REPO, add_if_new, changed, one
from ci.spec import JobSpec
from ci.status import Outcome, Status, of_build


@dataclass(frozen=True, kw_only=True)
class NewBuild:
    """What a build is made of. `specs` may be empty only for one that ends at once (`status`)."""

    repo_id: int
    number: int
    event: Event
    inbox_id: int | None = None
    event_index: int = 0
    rerun_of: int | None = None
    config_file: str = ""
    config: str = ""
    problems: tuple[Problem, ...] = ()
    specs: tuple[JobSpec, ...] = ()
    status: Status = Status.PENDING
    outcome: Outcome | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Made:
    """The build of an event; `is_new` False: an earlier run of the same work had made it."""

    build_id: int
    number: int
    is_new: bool = True
    job_ids: tuple[int, ...] = field(default=())


class NumberTaken(Exception):
    """Somebody made a build meanwhile: compile again with the next number."""


def next_number(connection: Connection, repo_id: int) -> int:
    number: int = connection.execute(select(REPO.c.next_number).where(REPO.c.id == repo_id)).scalar_one()
    return number


def of_event(connection: Connection, inbox_id: int, event_index: int) -> Build | None:
    is_it = (BUILD.c.inbox_id == inbox_id, BUILD.c.event_index == event_index)
    return one(connection, Build, select(BUILD).where(*is_it))


def create(connection: Connection, new: NewBuild, now: float) -> Made:
    """Insert the build with its jobs and steps. Raises NumberTaken; an event that has a build keeps it."""
    if new.inbox_id is not None:
        present = of_event(connection, new.inbox_id, new.event_index)
        if present is not None:
            return Made(build_id=present.id or 0, number=present.number, is_new=False)
    mine = (REPO.c.id == new.repo_id, REPO.c.next_number == new.number)
    if not changed(connection, update(REPO).where(*mine).values(next_number=new.number + 1)):
        raise NumberTaken
    build_id = add_if_new(connection, _row(new, now))
    if build_id is None:  # another writer was faster with the same event
        raise NumberTaken
    numbered = enumerate(new.specs)
    job_ids = tuple(jobs.add_job(connection, build_id, place, spec, now) for place, spec in numbered)
    outbox.tell(connection, build_id, now)
    return Made(build_id=build_id, number=new.number, job_ids=job_ids)


def _row(new: NewBuild, now: float) -> Build:
    return Build(
        repo_id=new.repo_id,
        number=new.number,
        inbox_id=new.inbox_id,
        event_index=new.event_index,
        rerun_of=new.rerun_of,
        event=new.event.model_dump(mode="json"),
        config_file=new.config_file,
        config=new.config,
        problems=[vars(problem) for problem in new.problems],
        status=new.status.value,
        outcome=new.outcome.value if new.outcome else None,
        reason=new.reason,
        created_at=now,
        finished_at=now if new.status.is_terminal else None,
    )


def by_id(connection: Connection, build_id: int) -> Build | None:
    return one(connection, Build, select(BUILD).where(BUILD.c.id == build_id))


def locked(connection: Connection, build_id: int) -> Build | None:
    return one(connection, Build, select(BUILD).where(BUILD.c.id == build_id).with_for_update())


def ask_cancel(connection: Connection, build_id: int, reason: str) -> bool:
    """Note the request, unless there is one or the build has ended."""
    ended = [status.value for status in Status if status.is_terminal]
    is_open = (BUILD.c.id == build_id, BUILD.c.cancel_reason == "", BUILD.c.status.not_in(ended))
    return changed(connection, update(BUILD).where(*is_open).values(cancel_reason=reason)) == 1


def fold(connection: Connection, build_id: int, now: float) -> None:
    """Bring the build to where its jobs are. The build's row is locked first, so that of two jobs that
    end at once the second sees the first."""
    build = locked(connection, build_id)
    assert build is not None
    found = jobs.standings(connection, build_id)
    status = of_build(Status(job.status) for job in found)
    decisive = next((job for job in found if job.status == status.value), None)
    values: dict[str, Any] = {
        "outcome": decisive.outcome if decisive else None,
        "reason": _reason(decisive.name, decisive.reason, len(found)) if decisive else "",
    }
    started = [job.started_at for job in found if job.started_at is not None]
    if build.started_at is None and started:
        values["started_at"] = min(started)
    if status.is_terminal:
        values["finished_at"] = now
    if not jobs.move(connection, BUILD, build_id, status, values) and not Status(build.status).is_terminal:
        connection.execute(update(BUILD).where(BUILD.c.id == build_id).values(**values))
    outbox.tell(connection, build_id, now)


def _reason(job: str, reason: str, count: int) -> str:
    return f"{job}: {reason}" if reason and count > 1 else reason
