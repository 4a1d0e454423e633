"""Repos, their hooks, and the last event of each ref."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, delete, func, select, update

from ci.errors import Conflict, Invalid
from ci.server.models import Hook, RefState, Repo
from ci.server.store.tables import HOOK, REF_STATE, REPO, add, add_if_new, changed, many, one

BUILTIN = "builtin"
PLAIN_GIT = "git"
GITHUB = "github"
#: Forges that show how a commit stands.
WITH_STATUSES = frozenset({GITHUB})
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}\Z")


@dataclass(frozen=True, kw_only=True)
class NewRepo:
    """A repo of a forge: `key` is the forge's own id of it."""

    forge: str
    key: str
    owner: str
    name: str
    clone_url: str
    default_branch: str = ""
    is_private: bool = True
    api_url: str = ""


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
    new = NewRepo(
        forge=PLAIN_GIT if clone_url else BUILTIN,
        key=clone_url or secrets.token_hex(8),
        owner=owner,
        name=name,
        clone_url=clone_url,
        is_private=is_private,
    )
    return create_at(connection, new, now)


def create_at(connection: Connection, new: NewRepo, now: float) -> int:
    """The same for a repo of any forge."""
    check_path(new.owner, new.name)
    if find(connection, new.owner, new.name) is not None:
        raise Conflict(f"there is a repo {new.owner}/{new.name} already")
    present = of_key(connection, new.forge, new.key)
    if present is not None:
        raise Conflict(f"this repo is here already, as {present.owner}/{present.name}")
    repo = Repo(
        forge=new.forge,
        forge_key=new.key,
        owner=new.owner,
        name=new.name,
        clone_url=new.clone_url,
        default_branch=new.default_branch,
        is_private=new.is_private,
        api_url=new.api_url,
        created_at=now,
    )
    repo_id = add_if_new(connection, repo)
    if repo_id is None:
        raise Conflict(f"there is a repo {new.owner}/{new.name} already, or one with this clone URL")
    return repo_id


def check_path(owner: str, name: str) -> None:
    """Raises Invalid for a path that cannot be."""
    for part in (owner, name):
        if not _PART.match(part) or part.endswith((".git", ".lock", ".")):
            raise Invalid(
                f"{part!r} cannot be part of a repo's path: letters, digits, `_`, `-` and `.`, "
                "not first, at most 100, without `.git` at the end"
            )


def follow(connection: Connection, repo_id: int, seen: NewRepo) -> str:
    """Bring the repo to where its forge has it: returns what is new, as a sentence; empty: nothing.

    All but a path that is taken or cannot be here: then the repo keeps its own, and the sentence says so.
    """
    repo = by_id(connection, repo_id)
    assert repo is not None
    values: dict[str, object] = {"default_branch": seen.default_branch, "is_private": seen.is_private}
    if seen.clone_url:
        values["clone_url"] = seen.clone_url
    said = [_change(name, getattr(repo, name), value) for name, value in values.items()]
    connection.execute(update(REPO).where(REPO.c.id == repo_id).values(**values))
    if (repo.owner, repo.name) != (seen.owner, seen.name):
        said.append(_move(connection, repo, seen.owner, seen.name))
    return "; ".join(sentence for sentence in said if sentence)


def _move(connection: Connection, repo: Repo, owner: str, name: str) -> str:
    kept = f"it is {owner}/{name} at its forge, and stays {repo.owner}/{repo.name} here"
    try:
        check_path(owner, name)
    except Invalid as error:
        return f"{kept}: {error}"
    other = find(connection, owner, name)
    if other is not None and other.id != repo.id:
        return f"{kept}, because another repo has that path: rename or remove it, and send the delivery again"
    connection.execute(update(REPO).where(REPO.c.id == repo.id).values(owner=owner, name=name))
    return f"it is {owner}/{name} now, and was {repo.owner}/{repo.name}"


def _change(name: str, old: object, new: object) -> str:
    if old == new:
        return ""
    if name == "is_private":
        return "it is private now" if new else "it is public now"
    words = {"default_branch": "its default branch", "clone_url": "its clone URL"}
    return f"{words[name]} is {new} now"


def of_key(connection: Connection, forge: str, key: str) -> Repo | None:
    return one(connection, Repo, select(REPO).where(REPO.c.forge == forge, REPO.c.forge_key == key))


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


def credential_purpose(repo_id: int) -> str:
    """What the vault binds a repo's credential to."""
    return f"repo credential {repo_id}"


def set_credential(
    connection: Connection, repo_id: int, *, kind: str, user: str, sealed: bytes | None
) -> None:
    values = {"credential_kind": kind, "credential_user": user, "credential": sealed}
    connection.execute(update(REPO).where(REPO.c.id == repo_id).values(**values))


def clear_forge_problem(connection: Connection, repo_id: int) -> bool:
    """Its forge works; whether anything was wrong with it."""
    wrong = (REPO.c.id == repo_id, REPO.c.forge_problem != "")
    statement = update(REPO).where(*wrong).values(forge_problem="", forge_problem_at=None)
    return changed(connection, statement) > 0


def set_forge_problem(connection: Connection, repo_id: int, sentence: str, now: float) -> None:
    """What is wrong with the repo's forge now; empty: nothing. The time of the first sentence stays."""
    mine = REPO.c.id == repo_id
    if not sentence:
        clear_forge_problem(connection, repo_id)
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


_SECRETS_OF_HOOK = select(HOOK.c.secret, HOOK.c.old_secret, HOOK.c.old_secret_until).where(
    HOOK.c.id == bindparam("hook_id")
)


def is_hook(connection: Connection, seen: Hook) -> bool:
    """Whether the hook still has the secrets that it had when it was read."""
    found = connection.execute(_SECRETS_OF_HOOK, {"hook_id": seen.id}).one_or_none()
    return found is not None and tuple(found) == (seen.secret, seen.old_secret, seen.old_secret_until)


def hooks_of(connection: Connection, repo_id: int) -> list[Hook]:
    return many(connection, Hook, select(HOOK).where(HOOK.c.repo_id == repo_id))


def rotate_hook(connection: Connection, hook_id: str, sealed_secret: bytes, old_until: float) -> None:
    """A new secret; the present one is good until then, one before it no more."""
    values = {"secret": sealed_secret, "old_secret": HOOK.c.secret, "old_secret_until": old_until}
    connection.execute(update(HOOK).where(HOOK.c.id == hook_id).values(**values))


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
