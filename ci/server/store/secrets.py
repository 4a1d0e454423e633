"""Secrets as rows: sealed, one per place and name. Nothing here opens one."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, select, update

from ci.server.models import Repo, Secret
from ci.server.store.tables import SECRET, add_if_new, changed, many, one

SERVER = "server"


def place_of_owner(owner: str) -> str:
    return f"org:{owner.lower()}"


def place_of_repo(repo_id: int) -> str:
    return f"repo:{repo_id}"


def places(repo: Repo) -> tuple[str, str, str]:
    """Where a repo's secrets and variables may stand, the narrowest first."""
    return place_of_repo(repo.id or 0), place_of_owner(repo.owner), SERVER


def purpose(place: str, name: str) -> str:
    """What the vault binds a secret to."""
    return f"secret {place} {name}"


def repo_id_of(place: str) -> int | None:
    kind, _, rest = place.partition(":")
    return int(rest) if kind == "repo" else None


def words(place: str) -> str:
    """The place for a reader."""
    kind, _, rest = place.partition(":")
    return {"repo": "this repo", "org": f"every repo of {rest}"}.get(kind, "the whole server")


@dataclass(frozen=True, kw_only=True)
class NewSecret:
    """What is stored; `name` in small letters. `sealed` None: the value that stands stays."""

    place: str
    name: str
    sealed: bytes | None
    events: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    is_weak: bool = False
    by: str = ""


def put(connection: Connection, new: NewSecret, now: float) -> bool | None:
    """Store it, in place of one of the same place and name; whether it is a new one. None: there is none
    whose value could stay."""
    values: dict[str, Any] = {
        "events": list(new.events),
        "images": list(new.images),
        "steps": list(new.steps),
        "changed_at": now,
        "changed_by": new.by,
    }
    if new.sealed is not None:
        values |= {"sealed": new.sealed, "is_weak": new.is_weak}
        row = Secret(place=new.place, name=new.name, created_at=now, **values)
        if add_if_new(connection, row) is not None:
            return True
    is_it = (SECRET.c.place == new.place, SECRET.c.name == new.name)
    is_there = changed(connection, update(SECRET).where(*is_it).values(**values))
    return False if is_there else None


def count(connection: Connection, place: str) -> int:
    mine = SECRET.c.place == place
    return connection.execute(select(func.count()).select_from(SECRET).where(mine)).scalar_one()


def remove(connection: Connection, place: str, name: str) -> bool:
    is_it = (SECRET.c.place == place, SECRET.c.name == name)
    return changed(connection, delete(SECRET).where(*is_it)) == 1


def at(connection: Connection, place: str) -> list[Secret]:
    return many(connection, Secret, select(SECRET).where(SECRET.c.place == place).order_by(SECRET.c.name))


def find(connection: Connection, place: str, name: str) -> Secret | None:
    return one(connection, Secret, select(SECRET).where(SECRET.c.place == place, SECRET.c.name == name))


def named(connection: Connection, repo: Repo, names: Collection[str]) -> dict[str, Secret]:
    """By name, the narrowest of each that the repo can have."""
    wide_first = tuple(reversed(places(repo)))
    is_one = (SECRET.c.place.in_(wide_first), SECRET.c.name.in_(tuple(names)))
    rows = many(connection, Secret, select(SECRET).where(*is_one))
    return {row.name: row for row in sorted(rows, key=lambda row: wide_first.index(row.place))}


def used(connection: Connection, ids: Collection[int], where: str, now: float) -> None:
    """Note the last use."""
    mine = SECRET.c.id.in_(tuple(ids))
    connection.execute(update(SECRET).where(mine).values(used_at=now, used_in=where))
