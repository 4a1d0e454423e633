"""Builds as rows: made with their jobs in one transaction, and folded from their jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, select, update

from ci.errors import Problem
from ci.event import Event, Kind
from ci.server.models import Build, Job
from ci.server.store import dependants, jobs, outbox
from ci.server.store.audit import Deed
from ci.server.store.tables import BUILD, REPO, add_if_new, changed, many, one
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
    kept: Mapping[str, Job] = field(default_factory=dict)  #: by slug: jobs whose result is that of an old one
    held: str = ""  #: why it needs a person's approval; empty: it needs none
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
    superseded: tuple[Job, ...] = ()  #: of older builds: cancelled for this one
    left: tuple[int, ...] = ()  #: numbers of older builds that go on: side effects have started in them


#: Builds of a repo among which the one before another is looked for.
_LOOKED_BACK = 500


class NumberTaken(Exception):
    """Somebody made a build meanwhile: compile again with the next number."""


def next_number(connection: Connection, repo_id: int) -> int:
    number: int = connection.execute(select(REPO.c.next_number).where(REPO.c.id == repo_id)).scalar_one()
    return number


def of_event(connection: Connection, inbox_id: int, event_index: int) -> Build | None:
    is_it = (BUILD.c.inbox_id == inbox_id, BUILD.c.event_index == event_index)
    return one(connection, Build, select(BUILD).where(*is_it))


def of_delivery(connection: Connection, inbox_id: int) -> list[Build]:
    """All builds of one delivery, in the order of its events."""
    mine = select(BUILD).where(BUILD.c.inbox_id == inbox_id)
    return many(connection, Build, mine.order_by(BUILD.c.event_index))


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
    job_ids = []
    for place, spec in enumerate(new.specs):
        old = new.kept.get(spec.slug)
        if old is not None:
            job_ids.append(jobs.add_kept(connection, build_id, place, spec, old))
        else:
            job_ids.append(jobs.add_job(connection, build_id, place, spec, now, new.held))
    dependants.settle(connection, build_id, now)
    outbox.tell(connection, build_id, now)
    return Made(build_id=build_id, number=new.number, job_ids=tuple(job_ids))


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
        needs_approval=bool(new.held),
        created_at=now,
        finished_at=now if new.status.is_terminal else None,
    )


def older_unfinished(connection: Connection, newer: Build) -> list[Build]:
    """Unfinished builds before this one of the same branch or the same pull request, oldest first."""
    event = BUILD.c.event
    kind = newer.event["kind"]
    same = event["ref"].as_string() == newer.event["ref"]
    if kind == Kind.PULL_REQUEST.value:
        same = event["pull_request"].as_integer() == newer.event["pull_request"]
    ended = [status.value for status in Status if status.is_terminal]
    older = (BUILD.c.repo_id == newer.repo_id, BUILD.c.id < newer.id, BUILD.c.status.not_in(ended))
    of_kind = event["kind"].as_string() == kind
    return many(connection, Build, select(BUILD).where(*older, of_kind, same).order_by(BUILD.c.id))


def before(connection: Connection, repo_id: int, number: int, branch: str) -> Build | None:
    """The newest build before `number` that is of the branch, or of a pull request to it; not one that lies
    further back than people look."""
    name = BUILD.c.event["branch"].as_string()
    is_near = (BUILD.c.number < number, BUILD.c.number >= number - _LOOKED_BACK)
    mine = select(BUILD).where(BUILD.c.repo_id == repo_id, *is_near, name == branch)
    return one(connection, Build, mine.order_by(BUILD.c.number.desc()).limit(1))


def newest_of_branch(connection: Connection, repo_id: int, branch: str) -> Build | None:
    """The newest build of a push to the branch that had pipeline files."""
    kind, name = BUILD.c.event["kind"].as_string(), BUILD.c.event["branch"].as_string()
    where = (BUILD.c.repo_id == repo_id, kind == Kind.PUSH.value, name == branch, BUILD.c.config_file != "")
    return one(connection, Build, select(BUILD).where(*where).order_by(BUILD.c.id.desc()).limit(1))


def deed(connection: Connection, build: Build, action: str, details: str = "") -> Deed:
    """What a person did to a build, for the audit log: `owner/name/12`."""
    row = connection.execute(select(REPO.c.owner, REPO.c.name).where(REPO.c.id == build.repo_id)).one()
    place = f"{row.owner}/{row.name}/{build.number}"
    return Deed(action=action, object=place, repo_id=build.repo_id, details=details)


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
    started = [job.started_at for job in found if job.started_at is not None and job.kept_from is None]
    if build.started_at is None and started:
        values["started_at"] = min(started)
    if status.is_terminal:
        values["finished_at"] = now
    if not jobs.move(connection, BUILD, build_id, status, values) and not Status(build.status).is_terminal:
        connection.execute(update(BUILD).where(BUILD.c.id == build_id).values(**values))
    outbox.tell(connection, build_id, now)


def _reason(job: str, reason: str, count: int) -> str:
    return f"{job}: {reason}" if reason and count > 1 else reason
