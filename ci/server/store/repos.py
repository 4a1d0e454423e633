"""Repos, their hooks, and the last event of each ref."""

from __future__ import annotations

import re
import secrets

from sqlalchemy import Connection, delete, func, select, update

from ci.errors import Conflict, Invalid
from ci.server.models import Hook, RefState, Repo
from ci.server.store.tables import HOOK, REF_STATE, REPO, add, add_if_new, many, one

BUILTIN = "builtin"
PLAIN_GIT = "git"
GITHUB = "github"
#: Forges that show how a commit stands.
WITH_STATUSES = frozenset({GITHUB})
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}\Z")


def create(
    connection: Connection,
    *,
    owner: str,
    name: str,
    now: float,
    clone_url: str = "",
    is_private: bool = True,
) -> int:
    """A new repo; returns its id. Without `clone_url` it lives in the built-in git.

    Raises Conflict where the path is taken, Invalid for a path that cannot be.
    """
    for part in (owner, name):
        if not _PART.match(part) or part.endswith((".git", ".lock", ".")):
            raise Invalid(
                f"{part!r} cannot be part of a repo's path: letters, digits, `_`, `-` and `.`, "
                "not first, at most 100, without `.git` at the end"
            )
    if find(connection, owner, name) is not None:
        raise Conflict(f"there is a repo {owner}/{name} already")
    repo = Repo(
        forge=PLAIN_GIT if clone_url else BUILTIN,
        forge_key=clone_url or secrets.token_hex(8),
        owner=owner,
        name=name,
        clone_url=clone_url,
        is_private=is_private,
        created_at=now,
    )
    repo_id = add_if_new(connection, repo)
    if repo_id is None:
        raise Conflict(f"there is a repo {owner}/{name} already, or one with this clone URL")
    return repo_id


def find(connection: Connection, owner: str, name: str) -> Repo | None:
    """Letter case does not count, so that two paths never differ by it alone for a person."""
    path = (func.lower(REPO.c.owner) == owner.lower(), func.lower(REPO.c.name) == name.lower())
    return one(connection, Repo, select(REPO).where(*path).limit(1))


def by_id(connection: Connection, repo_id: int) -> Repo | None:
    return one(connection, Repo, select(REPO).where(REPO.c.id == repo_id))


def of_forge(connection: Connection, forge: str) -> list[Repo]:
    return many(connection, Repo, select(REPO).where(REPO.c.forge == forge).order_by(REPO.c.id))


def set_default_branch(connection: Connection, repo_id: int, branch: str) -> None:
    connection.execute(update(REPO).where(REPO.c.id == repo_id).values(default_branch=branch))


def set_private(connection: Connection, repo_id: int, is_private: bool) -> None:
    connection.execute(update(REPO).where(REPO.c.id == repo_id).values(is_private=is_private))


def set_credential(
    connection: Connection, repo_id: int, *, kind: str, user: str, sealed: bytes | None
) -> None:
    values = {"credential_kind": kind, "credential_user": user, "credential": sealed}
    connection.execute(update(REPO).where(REPO.c.id == repo_id).values(**values))


def set_forge_problem(connection: Connection, repo_id: int, sentence: str, now: float) -> None:
    """What is wrong with the repo's forge now; empty: nothing. The time of the first sentence stays."""
    mine = REPO.c.id == repo_id
    if not sentence:
        connection.execute(update(REPO).where(mine).values(forge_problem="", forge_problem_at=None))
        return
    connection.execute(update(REPO).where(mine).values(forge_problem=sentence[:1000]))
    is_first = (mine, REPO.c.forge_problem_at.is_(None))
    connection.execute(update(REPO).where(*is_first).values(forge_problem_at=now))


# --- hooks ----------------------------------------------------------------------------------------


def new_hook_id() -> str:
    return secrets.token_urlsafe(12)


def secret_purpose(hook_id: str) -> str:
    """What the vault binds a hook's secret to."""
    return f"hook {hook_id}"


def add_hook(connection: Connection, *, hook_id: str, repo_id: int, forge: str, sealed_secret: bytes) -> None:
    add(connection, Hook(id=hook_id, repo_id=repo_id, forge=forge, secret=sealed_secret))


def hook(connection: Connection, hook_id: str) -> Hook | None:
    return one(connection, Hook, select(HOOK).where(HOOK.c.id == hook_id))


def hooks_of(connection: Connection, repo_id: int) -> list[Hook]:
    return many(connection, Hook, select(HOOK).where(HOOK.c.repo_id == repo_id))


def refuse(connection: Connection, hook_id: str, sentence: str, now: float) -> None:
    """The last refusal of a hook, overwritten each time: a flood costs one row."""
    values = {"last_refusal": sentence[:1000], "last_refused_at": now}
    connection.execute(update(HOOK).where(HOOK.c.id == hook_id).values(**values))


# --- the last event of each ref ---------------------------------------------------------------------


def ref_sha(connection: Connection, repo_id: int, ref: str) -> str | None:
    is_it = (REF_STATE.c.repo_id == repo_id, REF_STATE.c.ref == ref)
    return connection.execute(select(REF_STATE.c.sha).where(*is_it)).scalar_one_or_none()


def ref_states(connection: Connection, repo_id: int) -> dict[str, str]:
    rows = connection.execute(select(REF_STATE.c.ref, REF_STATE.c.sha).where(REF_STATE.c.repo_id == repo_id))
    return {row.ref: row.sha for row in rows}


def set_ref_sha(connection: Connection, repo_id: int, ref: str, sha: str | None) -> None:
    """None: the ref is gone."""
    is_it = (REF_STATE.c.repo_id == repo_id, REF_STATE.c.ref == ref)
    if sha is None:
        connection.execute(delete(REF_STATE).where(*is_it))
    elif add_if_new(connection, RefState(repo_id=repo_id, ref=ref, sha=sha)) is None:
        connection.execute(update(REF_STATE).where(*is_it).values(sha=sha))
