"""What the pages read: rows of the tables, joined and shaped for a reader, and nothing that writes.

Who may see a repo is decided here once for lists (`seen_by`); for one repo by ci.server.auth.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, func, or_, select, true

from ci.event import Kind
from ci.server.auth import Action, Actor
from ci.server.models import Attempt, Build, Job, Repo, Runner, Step
from ci.server.store.tables import (
    ATTEMPT,
    BUILD,
    JOB,
    REF_STATE,
    REPO,
    RUNNER,
    STEP,
    USER,
    many,
    one,
)
from ci.status import Status

_OPEN = [status.value for status in Status if not status.is_terminal]
_FAILED = [Status.FAILURE.value, Status.ERROR.value]
_ON_A_BRANCH = [Kind.PUSH.value, Kind.MANUAL.value, Kind.CRON.value]
_ASKING = [Status.UNKNOWN.value, Status.BLOCKED.value]


def seen_by(actor: Actor) -> ColumnElement[bool]:
    """The repos that an actor may read, as auth.can says it for one repo; a test compares the two."""
    public = REPO.c.is_private.is_(False)
    if not actor.is_known or not actor.is_in_scope(Action.READ):
        return public
    if actor.is_admin:
        return true()
    return or_(public, REPO.c.owner == actor.name, REPO.c.id.in_(actor.roles))


# --- lists of builds ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Filter:
    """What a reader asked for; empty means any. `text` is looked for in the title."""

    repo: str = ""
    status: str = ""
    branch: str = ""
    author: str = ""
    event: str = ""
    text: str = ""

    @property
    def is_empty(self) -> bool:
        return not any((self.repo, self.status, self.branch, self.author, self.event, self.text))


@dataclass(frozen=True, kw_only=True)
class BuildRow:
    """A build in a list, and how its steps stand: (status, how many of them in a row)."""

    build: Build
    repo: Repo
    segments: tuple[tuple[str, int], ...] = ()
    steps_done: int = 0
    steps_total: int = 0
    newest: tuple[Job, Step] | None = None  #: the step that began last and still runs
    failed: Step | None = None  #: the first step that failed

    @property
    def path(self) -> str:
        return f"/r/{self.repo.owner}/{self.repo.name}/{self.build.number}"


def builds(
    connection: Connection,
    actor: Actor,
    *,
    wanted: Filter | None = None,
    repo_id: int | None = None,
    before_id: int | None = None,
    limit: int = 30,
) -> list[BuildRow]:
    """The newest builds first; `before_id` continues a list."""
    where = [seen_by(actor), *_filters(wanted or Filter())]
    if repo_id is not None:
        where.append(BUILD.c.repo_id == repo_id)
    if before_id is not None:
        where.append(BUILD.c.id < before_id)
    return _rows(connection, _joined().where(*where).order_by(BUILD.c.id.desc()).limit(limit))


def running(connection: Connection, actor: Actor, limit: int = 12) -> list[BuildRow]:
    is_it = (seen_by(actor), BUILD.c.status == Status.RUNNING.value)
    return _rows(connection, _joined().where(*is_it).order_by(BUILD.c.id.desc()).limit(limit))


def asking(connection: Connection, actor: Actor, limit: int = 12) -> list[BuildRow]:
    """Builds that wait for a person."""
    is_it = (seen_by(actor), BUILD.c.status.in_(_ASKING))
    return _rows(connection, _joined().where(*is_it).order_by(BUILD.c.id.desc()).limit(limit))


def _joined() -> Select[Any]:
    return select(BUILD.c.id).join(REPO, REPO.c.id == BUILD.c.repo_id)


def _filters(wanted: Filter) -> Iterable[ColumnElement[bool]]:
    event = BUILD.c.event
    if wanted.repo:
        yield _contains(REPO.c.owner + "/" + REPO.c.name, wanted.repo)
    if wanted.status:
        yield BUILD.c.status == wanted.status
    if wanted.branch:
        yield or_(event["branch"].as_string() == wanted.branch, event["tag"].as_string() == wanted.branch)
    if wanted.author:
        author, sender = event["author"].as_string(), event["sender"].as_string()
        yield or_(_contains(author, wanted.author), _contains(sender, wanted.author))
    if wanted.event:
        yield event["kind"].as_string() == wanted.event
    if wanted.text:
        yield _contains(event["title"].as_string(), wanted.text)


def _contains(column: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    return func.lower(column).contains(text.lower(), autoescape=True)


def _rows(connection: Connection, ids: Select[Any]) -> list[BuildRow]:
    """Builds with repos and steps, in three queries however long the list is."""
    found = [row.id for row in connection.execute(ids)]
    builds_by_id = {b.id: b for b in many(connection, Build, select(BUILD).where(BUILD.c.id.in_(found)))}
    repo_ids = {build.repo_id for build in builds_by_id.values()}
    repos = {r.id: r for r in many(connection, Repo, select(REPO).where(REPO.c.id.in_(repo_ids)))}
    steps = _current_steps(connection, found)
    return [
        _row(builds_by_id[build_id], repos[builds_by_id[build_id].repo_id], steps[build_id])
        for build_id in found
    ]


def _current_steps(connection: Connection, build_ids: Sequence[int]) -> dict[int, list[tuple[Job, Step]]]:
    """The steps of the newest attempts, in the order of the file; services left out."""
    jobs = {j.id: j for j in many(connection, Job, select(JOB).where(JOB.c.build_id.in_(build_ids)))}
    run_by = func.coalesce(JOB.c.kept_from, JOB.c.id)
    current = and_(STEP.c.job_id == run_by, STEP.c.attempt == JOB.c.attempt)
    rows = connection.execute(
        select(JOB.c.id.label("owner_id"), *STEP.c)
        .join(JOB, current)
        .where(JOB.c.build_id.in_(build_ids), STEP.c.kind != "service")
        .order_by(JOB.c.position, STEP.c.number)
    )
    found: dict[int, list[tuple[Job, Step]]] = defaultdict(list)
    for row in rows:
        values = dict(row._mapping)
        job = jobs[values.pop("owner_id")]
        found[job.build_id].append((job, Step(**values)))
    return found


def _row(build: Build, repo: Repo, steps: Sequence[tuple[Job, Step]]) -> BuildRow:
    segments: list[tuple[str, int]] = []
    for _, step in steps:
        if len(steps) > 12 and segments and segments[-1][0] == step.status:
            segments[-1] = (step.status, segments[-1][1] + 1)
        else:
            segments.append((step.status, 1))
    at_work = [pair for pair in steps if pair[1].status == Status.RUNNING.value]
    failed = [step for _, step in steps if step.status in _FAILED]
    done = sum(Status(step.status).is_terminal for _, step in steps)
    return BuildRow(
        build=build,
        repo=repo,
        segments=tuple(segments),
        steps_done=done,
        steps_total=len(steps),
        failed=min(failed, key=lambda step: step.ended_after or 0.0, default=None),
        newest=max(at_work, key=lambda pair: pair[1].began_after or 0.0, default=None),
    )


# --- repos ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class RepoRow:
    repo: Repo
    recent: tuple[Build, ...]  #: the last builds, oldest first
    branches: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        return f"/r/{self.repo.owner}/{self.repo.name}"

    @property
    def median_seconds(self) -> float | None:
        """Of the builds that passed."""
        times = sorted(
            build.finished_at - build.started_at
            for build in self.recent
            if build.status == Status.SUCCESS.value and build.finished_at and build.started_at
        )
        return times[len(times) // 2] if times else None


def repos(connection: Connection, actor: Actor, limit: int = 100) -> list[RepoRow]:
    """The repos an actor may read, the one with the newest build first."""
    newest = select(func.max(BUILD.c.id)).where(BUILD.c.repo_id == REPO.c.id).scalar_subquery()
    order = (func.coalesce(newest, 0).desc(), REPO.c.id.desc())
    found = many(connection, Repo, select(REPO).where(seen_by(actor)).order_by(*order).limit(limit))
    return [RepoRow(repo=repo, recent=recent_builds(connection, repo.id or 0)) for repo in found]


def recent_builds(connection: Connection, repo_id: int, limit: int = 20) -> tuple[Build, ...]:
    newest = select(BUILD).where(BUILD.c.repo_id == repo_id).order_by(BUILD.c.id.desc()).limit(limit)
    return tuple(reversed(many(connection, Build, newest)))


def repos_named(connection: Connection, actor: Actor, part: str, limit: int) -> list[Repo]:
    """Repos an actor may read whose path holds `part`, by their paths."""
    where = (seen_by(actor), _contains(REPO.c.owner + "/" + REPO.c.name, part))
    order = (REPO.c.owner, REPO.c.name)
    return many(connection, Repo, select(REPO).where(*where).order_by(*order).limit(limit))


def newest_build(connection: Connection, repo_id: int, branch: str) -> Build | None:
    """Of a push or a person's start on this branch; of whatever, where none is named."""
    where = [BUILD.c.repo_id == repo_id]
    if branch:
        where.append(BUILD.c.event["branch"].as_string() == branch)
        where.append(BUILD.c.event["kind"].as_string().in_(_ON_A_BRANCH))
    newest = select(BUILD).where(*where).order_by(BUILD.c.id.desc()).limit(1)
    return one(connection, Build, newest)


def repo_row(connection: Connection, repo: Repo) -> RepoRow:
    refs = connection.execute(select(REF_STATE.c.ref).where(REF_STATE.c.repo_id == repo.id)).scalars()
    branches = sorted(ref.removeprefix("refs/heads/") for ref in refs if ref.startswith("refs/heads/"))
    return RepoRow(repo=repo, recent=recent_builds(connection, repo.id or 0), branches=tuple(branches[:50]))


# --- one build ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class AttemptView:
    attempt: Attempt
    steps: tuple[Step, ...]


@dataclass(frozen=True, kw_only=True)
class JobView:
    """A job with all its executions, the present one last."""

    job: Job
    attempts: tuple[AttemptView, ...]
    kept_number: int | None = None  #: of the build that it is kept from

    def steps(self, attempt: int | None = None) -> tuple[Step, ...]:
        number = attempt or self.job.attempt
        return next((view.steps for view in self.attempts if view.attempt.attempt == number), ())


@dataclass(frozen=True, kw_only=True)
class BuildView:
    repo: Repo
    build: Build
    jobs: tuple[JobView, ...]
    rerun_of: Build | None = None
    reruns: tuple[int, ...] = ()  #: numbers of the builds that ran this one again
    previous: Build | None = None  #: the last build of the same ref before this one that ended

    @property
    def path(self) -> str:
        return f"/r/{self.repo.owner}/{self.repo.name}/{self.build.number}"

    def job(self, slug: str) -> JobView | None:
        return next((view for view in self.jobs if view.job.slug == slug), None)


def build(connection: Connection, repo: Repo, number: int) -> BuildView | None:
    is_it = (BUILD.c.repo_id == repo.id, BUILD.c.number == number)
    found = one(connection, Build, select(BUILD).where(*is_it))
    if found is None:
        return None
    jobs = many(connection, Job, select(JOB).where(JOB.c.build_id == found.id).order_by(JOB.c.position))
    reruns = select(BUILD.c.number).where(BUILD.c.rerun_of == found.id).order_by(BUILD.c.id)
    return BuildView(
        repo=repo,
        build=found,
        jobs=_job_views(connection, jobs),
        rerun_of=one(connection, Build, select(BUILD).where(BUILD.c.id == (found.rerun_of or 0))),
        reruns=tuple(connection.execute(reruns).scalars()),
        previous=_previous(connection, found),
    )


def _job_views(connection: Connection, jobs: Sequence[Job]) -> tuple[JobView, ...]:
    ids = [_run_by(job) for job in jobs]
    kept = _numbers_of_jobs(connection, [job.kept_from for job in jobs if job.kept_from is not None])
    attempts = {
        (row.job_id, row.attempt): row
        for row in many(connection, Attempt, select(ATTEMPT).where(ATTEMPT.c.job_id.in_(ids)))
    }
    steps: dict[tuple[int, int], list[Step]] = defaultdict(list)
    for step in many(connection, Step, select(STEP).where(STEP.c.job_id.in_(ids)).order_by(STEP.c.number)):
        steps[step.job_id, step.attempt].append(step)
    views = []
    for job in jobs:
        runner_job = _run_by(job)
        numbers = sorted({number for job_id, number in (*attempts, *steps) if job_id == runner_job})
        rows = tuple(
            AttemptView(
                attempt=attempts.get((runner_job, number)) or Attempt(job_id=runner_job, attempt=number),
                steps=tuple(steps[runner_job, number]),
            )
            for number in numbers
        )
        views.append(JobView(job=job, attempts=rows, kept_number=kept.get(job.kept_from or 0)))
    return tuple(views)


def _run_by(job: Job) -> int:
    """The job whose steps and logs are this one's: itself, or the one that it is kept from."""
    return job.kept_from or job.id or 0


def _numbers_of_jobs(connection: Connection, job_ids: Sequence[int]) -> dict[int, int]:
    """The numbers of the builds of jobs."""
    if not job_ids:
        return {}
    joined = select(JOB.c.id, BUILD.c.number).join(BUILD, JOB.c.build_id == BUILD.c.id)
    rows = connection.execute(joined.where(JOB.c.id.in_(job_ids)))
    return {row.id: row.number for row in rows}


def _previous(connection: Connection, build: Build) -> Build | None:
    same_ref = BUILD.c.event["ref"].as_string() == build.event.get("ref", "")
    earlier = (BUILD.c.repo_id == build.repo_id, BUILD.c.id < build.id, BUILD.c.status.not_in(_OPEN))
    return one(
        connection,
        Build,
        select(BUILD).where(*earlier, same_ref).order_by(BUILD.c.id.desc()).limit(1),
    )


def repo_of_build(connection: Connection, build_id: int) -> Repo | None:
    joined = select(REPO).join(BUILD, BUILD.c.repo_id == REPO.c.id).where(BUILD.c.id == build_id)
    return one(connection, Repo, joined)


def repo_of_job(connection: Connection, job_id: int) -> Repo | None:
    joined = (
        select(REPO)
        .join(BUILD, BUILD.c.repo_id == REPO.c.id)
        .join(JOB, JOB.c.build_id == BUILD.c.id)
        .where(JOB.c.id == job_id)
    )
    return one(connection, Repo, joined)


# --- runners --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class RunnerRow:
    runner: Runner
    work: tuple[tuple[Job, Build, Repo], ...]  #: what it holds a lease of

    @property
    def load(self) -> int:
        return len(self.work)


def runners(connection: Connection) -> list[RunnerRow]:
    work: dict[int, list[tuple[Job, Build, Repo]]] = defaultdict(list)
    for job in many(connection, Job, select(JOB).where(JOB.c.runner_id.is_not(None)).order_by(JOB.c.id)):
        build = one(connection, Build, select(BUILD).where(BUILD.c.id == job.build_id))
        repo = repo_of_job(connection, job.id or 0)
        if build is not None and repo is not None:
            work[job.runner_id or 0].append((job, build, repo))
    found = many(connection, Runner, select(RUNNER).order_by(RUNNER.c.name))
    return [RunnerRow(runner=runner, work=tuple(work[runner.id or 0])) for runner in found]


@dataclass(frozen=True, kw_only=True)
class Loss:
    """An execution that a runner had begun and did not end."""

    attempt: Attempt
    job: Job
    build: Build
    repo: Repo


def losses(connection: Connection, runner_id: int, limit: int = 20) -> list[Loss]:
    """The newest first. A lease that was lost before anything had begun leaves none."""
    theirs = (ATTEMPT.c.runner_id == runner_id, ATTEMPT.c.lost_reason != "")
    newest = select(ATTEMPT).where(*theirs).order_by(ATTEMPT.c.id.desc()).limit(limit)
    found = many(connection, Attempt, newest)
    of = {row[0].id: row for row in _jobs(connection, limit, JOB.c.id.in_([each.job_id for each in found]))}
    return [
        Loss(attempt=each, job=of[each.job_id][0], build=of[each.job_id][1], repo=of[each.job_id][2])
        for each in found
    ]


def waiting_jobs(connection: Connection, limit: int = 50) -> list[tuple[Job, Build, Repo]]:
    """Jobs that no runner has taken, the oldest first."""
    return _jobs(connection, limit, JOB.c.status == Status.PENDING.value, JOB.c.runner_id.is_(None))


def jobs_that_ask(connection: Connection, limit: int = 50) -> list[tuple[Job, Build, Repo]]:
    """Jobs that wait for a person, or for something other than a runner; the oldest first."""
    return _jobs(connection, limit, JOB.c.status.in_([*_ASKING, Status.WAITING.value]))


def _jobs(connection: Connection, limit: int, *where: ColumnElement[bool]) -> list[tuple[Job, Build, Repo]]:
    found = []
    for job in many(connection, Job, select(JOB).where(*where).order_by(JOB.c.id).limit(limit)):
        build = one(connection, Build, select(BUILD).where(BUILD.c.id == job.build_id))
        repo = repo_of_job(connection, job.id or 0)
        if build is not None and repo is not None:
            found.append((job, build, repo))
    return found


@dataclass(frozen=True, kw_only=True)
class QueueRow:
    """A job that does not run yet: for a free place, for what it depends on, or for a person."""

    job: Job
    build: Build
    repo: Repo


_QUEUED = [Status.PENDING.value, Status.WAITING.value, Status.BLOCKED.value]


def queue(
    connection: Connection, actor: Actor, *, after_id: int | None = None, limit: int = 100
) -> list[QueueRow]:
    """What waits in the repos that the actor may read, the oldest first; `after_id` continues the list."""
    where = [JOB.c.status.in_(_QUEUED), seen_by(actor)]
    if after_id is not None:
        where.append(JOB.c.id > after_id)
    statement = _queued(select(JOB)).where(*where).order_by(JOB.c.id).limit(limit)
    found = many(connection, Job, statement)
    build_ids = {job.build_id for job in found}
    rows = {b.id: b for b in many(connection, Build, select(BUILD).where(BUILD.c.id.in_(build_ids)))}
    repo_ids = {build.repo_id for build in rows.values()}
    repos = {r.id: r for r in many(connection, Repo, select(REPO).where(REPO.c.id.in_(repo_ids)))}
    return [
        QueueRow(job=job, build=rows[job.build_id], repo=repos[rows[job.build_id].repo_id]) for job in found
    ]


def queue_length(connection: Connection, actor: Actor | None = None) -> int:
    """How many jobs wait: all of them, or those that an actor may read."""
    statement = _queued(select(func.count()).select_from(JOB)).where(JOB.c.status.in_(_QUEUED))
    if actor is not None:
        statement = statement.where(seen_by(actor))
    return int(connection.execute(statement).scalar_one())


def _queued(statement: Select[Any]) -> Select[Any]:
    return statement.join(BUILD, BUILD.c.id == JOB.c.build_id).join(REPO, REPO.c.id == BUILD.c.repo_id)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """For the bar at the top."""

    waiting: int
    runners_connected: int
    runners_total: int
    has_users: bool


def counts(connection: Connection) -> Counts:
    def count(table: Any, *where: ColumnElement[bool]) -> int:
        found: int = connection.execute(select(func.count()).select_from(table).where(*where)).scalar_one()
        return found

    return Counts(
        waiting=count(JOB, JOB.c.status == Status.PENDING.value, JOB.c.runner_id.is_(None)),
        runners_connected=count(RUNNER, RUNNER.c.is_connected.is_(True)),
        runners_total=count(RUNNER),
        has_users=bool(count(USER)),
    )


# --- inbox ----------------------------------------------------------------------------------------


def builds_of_inbox(connection: Connection, inbox_ids: Sequence[int]) -> dict[int, list[Build]]:
    found: dict[int, list[Build]] = defaultdict(list)
    rows = select(BUILD).where(BUILD.c.inbox_id.in_(inbox_ids)).order_by(BUILD.c.id)
    for row in many(connection, Build, rows):
        found[row.inbox_id or 0].append(row)
    return found
