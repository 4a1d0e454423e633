"""What goes for ever, in the order of foreign keys: builds that are old, and whole repos. Files are the
caller's: logs are named by the ids of jobs that these functions return."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Select, delete, func, select, update

from ci.event import Kind
from ci.server.models import Build, Repo
from ci.server.store import inbox, secrets
from ci.server.store.tables import (
    APPROVAL,
    ATTEMPT,
    BUILD,
    EVIDENCE,
    HOOK,
    INBOX,
    JOB,
    MEMBERSHIP,
    OUTBOX,
    PULL_REQUEST,
    REF_STATE,
    REPO,
    SCHEDULE,
    SECRET,
    STEP,
    VARIABLE,
    many,
)
from ci.status import Status

_ENDED = [status.value for status in Status if status.is_terminal]
_ON_A_BRANCH = [Kind.PUSH.value, Kind.MANUAL.value, Kind.CRON.value]


def old_builds(connection: Connection, repo_id: int, before: float, limit: int) -> list[int]:
    """Builds that ended before then: never the newest of a branch, nor one whose job a later build keeps."""
    kind, branch = BUILD.c.event["kind"].as_string(), BUILD.c.event["branch"].as_string()
    on_a_branch = (BUILD.c.repo_id == repo_id, kind.in_(_ON_A_BRANCH))
    newest = select(func.max(BUILD.c.id)).where(*on_a_branch).group_by(branch)
    kept = select(JOB.c.kept_from).where(JOB.c.kept_from.is_not(None))
    is_kept = select(JOB.c.build_id).where(JOB.c.id.in_(kept))
    is_old = (BUILD.c.repo_id == repo_id, BUILD.c.status.in_(_ENDED), BUILD.c.finished_at < before)
    found = select(BUILD.c.id).where(*is_old, BUILD.c.id.not_in(newest), BUILD.c.id.not_in(is_kept))
    return list(connection.execute(found.order_by(BUILD.c.id).limit(limit)).scalars())


def remove_builds(connection: Connection, build_ids: Sequence[int]) -> list[int]:
    """Delete builds with all that hangs on them; returns the ids of their jobs.

    Their deliveries stay, and remember that they have built: no event builds twice (law 2).
    """
    builds = select(BUILD.c.id).where(BUILD.c.id.in_(build_ids))
    deliveries = select(BUILD.c.inbox_id).where(BUILD.c.id.in_(build_ids), BUILD.c.inbox_id.is_not(None))
    connection.execute(
        update(INBOX)
        .where(INBOX.c.id.in_(deliveries), INBOX.c.state != inbox.RECEIVED)
        .values(state=inbox.KEPT)
    )
    return _remove_builds(connection, builds)


def _remove_builds(connection: Connection, builds: Select[tuple[int]]) -> list[int]:
    jobs = select(JOB.c.id).where(JOB.c.build_id.in_(builds))
    job_ids = list(connection.execute(jobs).scalars())
    for table in (EVIDENCE, STEP, ATTEMPT):
        connection.execute(delete(table).where(table.c.job_id.in_(jobs)))
    for table in (APPROVAL, OUTBOX, JOB):
        connection.execute(delete(table).where(table.c.build_id.in_(builds)))
    connection.execute(update(BUILD).where(BUILD.c.rerun_of.in_(builds)).values(rerun_of=None))
    connection.execute(delete(BUILD).where(BUILD.c.id.in_(builds)))
    return job_ids


def unfinished(connection: Connection, repo_id: int) -> list[Build]:
    is_open = (BUILD.c.repo_id == repo_id, BUILD.c.status.not_in(_ENDED))
    return many(connection, Build, select(BUILD).where(*is_open).order_by(BUILD.c.number))


def remove_repo(connection: Connection, repo_id: int) -> list[int]:
    """Delete a repo whose builds have all ended, and all that is its; returns the ids of its jobs. What
    people did to it stays in the audit log."""
    job_ids = _remove_builds(connection, select(BUILD.c.id).where(BUILD.c.repo_id == repo_id))
    for table in (OUTBOX, INBOX, HOOK, REF_STATE, PULL_REQUEST, SCHEDULE, MEMBERSHIP):
        connection.execute(delete(table).where(table.c.repo_id == repo_id))
    for table in (SECRET, VARIABLE):
        connection.execute(delete(table).where(table.c.place == secrets.place_of_repo(repo_id)))
    connection.execute(delete(REPO).where(REPO.c.id == repo_id))
    return job_ids


def with_a_limit(connection: Connection) -> list[Repo]:
    """Repos that keep builds for a time only."""
    return many(connection, Repo, select(REPO).where(REPO.c.keep_builds_days > 0).order_by(REPO.c.id))


def log_owners(connection: Connection, job_ids: Sequence[int]) -> dict[int, tuple[float | None, int]]:
    """Of jobs that are there: (when it ended, for how many days its repo keeps logs; 0: for ever)."""
    rows = connection.execute(
        select(JOB.c.id, JOB.c.finished_at, JOB.c.status, REPO.c.keep_logs_days)
        .join(BUILD, BUILD.c.id == JOB.c.build_id)
        .join(REPO, REPO.c.id == BUILD.c.repo_id)
        .where(JOB.c.id.in_(job_ids))
    )
    return {row.id: (row.finished_at if row.status in _ENDED else None, row.keep_logs_days) for row in rows}


def present_repos(connection: Connection, repo_ids: Sequence[int]) -> set[int]:
    return set(connection.execute(select(REPO.c.id).where(REPO.c.id.in_(repo_ids))).scalars())
