"""Plain variables as rows: one per place and name. The places are those of secrets."""

from __future__ import annotations

from sqlalchemy import Connection, delete, func, select, update

from ci.server.models import PlainVariable, Repo
from ci.server.store.secrets import places
from ci.server.store.tables import VARIABLE, add_if_new, changed, many


def put(connection: Connection, row: PlainVariable) -> bool:
    """Store it, in place of one of the same place and name; whether it is a new one."""
    if add_if_new(connection, row) is not None:
        return True
    is_it = (VARIABLE.c.place == row.place, VARIABLE.c.name == row.name)
    values = {"value": row.value, "changed_at": row.changed_at, "changed_by": row.changed_by}
    connection.execute(update(VARIABLE).where(*is_it).values(**values))
    return False


def remove(connection: Connection, place: str, name: str) -> bool:
    is_it = (VARIABLE.c.place == place, VARIABLE.c.name == name)
    return changed(connection, delete(VARIABLE).where(*is_it)) == 1


def at(connection: Connection, place: str) -> list[PlainVariable]:
    mine = VARIABLE.c.place == place
    return many(connection, PlainVariable, select(VARIABLE).where(mine).order_by(VARIABLE.c.name))


def characters(connection: Connection, place: str) -> int:
    """How long all names and values of the place are together."""
    length = func.sum(func.length(VARIABLE.c.name) + func.length(VARIABLE.c.value))
    found: int | None = connection.execute(select(length).where(VARIABLE.c.place == place)).scalar_one()
    return found or 0


def of_repo(connection: Connection, repo: Repo) -> dict[str, str]:
    """Values by name for the builds of a repo; of one name the narrowest place wins."""
    wide_first = tuple(reversed(places(repo)))
    rows = many(connection, PlainVariable, select(VARIABLE).where(VARIABLE.c.place.in_(wide_first)))
    return {row.name: row.value for row in sorted(rows, key=lambda row: wide_first.index(row.place))}
