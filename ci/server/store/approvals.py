"""A person's word on one build of a stranger, and whether it still holds (law 8).

Theory of operation. A build that `needs_approval` is leased only while `objection` finds nothing: there is
an approval of this very build, bound to all that was looked at, and the pull request stands where it stood
then. The claim asks within its own transaction (jobs.grant). An approval that does not hold any more is
withdrawn, so that it never comes to life again: the build asks anew.
"""

from __future__ import annotations

import hashlib
import hmac
import json

from sqlalchemy import Connection, delete, select, update

from ci.event import Event, Kind
from ci.server.auth import Actor
from ci.server.models import Approval, Build
from ci.server.store import pull_requests
from ci.server.store.tables import APPROVAL, BUILD, JOB, add_if_new, changed, one


def binding(build: Build) -> str:
    """SHA-256 over everything that an approval of this build is given for."""
    event = Event.model_validate(build.event)
    config = json.dumps([build.config_file, build.config]).encode(errors="surrogatepass")
    bound = {
        "repo": build.repo_id,
        "pull_request": event.pull_request,
        "head": event.after,
        "target": event.branch,
        "merge": event.merge_sha,
        "config": hashlib.sha256(config).hexdigest(),
    }
    text = json.dumps(bound, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def find(connection: Connection, build_id: int) -> Approval | None:
    return one(connection, Approval, select(APPROVAL).where(APPROVAL.c.build_id == build_id))


def decide(connection: Connection, build: Build, actor: Actor, *, is_approved: bool, now: float) -> None:
    """Store what a person decides about a build; an earlier word on it is replaced."""
    row = Approval(
        build_id=build.id or 0,
        binding=binding(build),
        is_approved=is_approved,
        user_id=actor.user_id or 0,
        user_name=actor.name,
        decided_at=now,
    )
    values = row.model_dump(exclude={"id"})
    statement = update(APPROVAL).where(APPROVAL.c.build_id == build.id).values(**values)
    if not changed(connection, statement) and add_if_new(connection, row) is None:
        connection.execute(statement)  # another writer was faster


def withdraw(connection: Connection, build_id: int) -> None:
    connection.execute(delete(APPROVAL).where(APPROVAL.c.build_id == build_id))


def objection(connection: Connection, build: Build) -> str:
    """Why nothing of the build may start now; empty: nothing is against it."""
    if not build.needs_approval:
        return ""
    row = find(connection, build.id or 0)
    if row is None or not row.is_approved:
        return "nobody has approved this build"
    if not hmac.compare_digest(row.binding, binding(build)):
        return f"{row.user_name} approved something else than what this build would run"
    moved = has_moved(connection, build)
    return f"the approval by {row.user_name} does not hold any more: {moved}" if moved else ""


def objection_to_job(connection: Connection, job_id: int) -> str:
    """The same for the build of a job."""
    joined = select(BUILD).join(JOB, JOB.c.build_id == BUILD.c.id).where(JOB.c.id == job_id)
    build = one(connection, Build, joined)
    return objection(connection, build) if build is not None else "its build is gone"


def has_moved(connection: Connection, build: Build) -> str:
    """What of the pull request is no longer as this build has it, as a clause; empty: nothing is."""
    event = Event.model_validate(build.event)
    found = None
    if event.pull_request is not None:
        found = pull_requests.find(connection, build.repo_id, event.pull_request)
    if found is None:
        return "the server knows no pull request for it"
    if found.head_sha != event.after:
        return f"the head of pull request {found.number} is now {found.head_sha[:12]}, not {event.after[:12]}"
    if found.target_branch != event.branch:
        return f"pull request {found.number} now targets {found.target_branch}, not {event.branch}"
    if not found.is_open and event.kind is not Kind.PULL_REQUEST_CLOSED:
        return f"pull request {found.number} is closed"
    return ""
