"""Everything that is sealed, in whichever table: to seal it anew. Nothing here opens a value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, Row, Table, select, update

from ci.server.store import repos, secrets
from ci.server.store.tables import HOOK, REPO, SECRET


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """A column of sealed values, and what the vault binds that of a row to."""

    table: Table
    column: str
    purpose: Callable[[Row[tuple[object, ...]]], str]


COLUMNS = (
    Sealed(table=SECRET, column="sealed", purpose=lambda row: secrets.purpose(row.place, row.name)),
    Sealed(table=HOOK, column="secret", purpose=lambda row: repos.secret_purpose(row.id)),
    Sealed(table=HOOK, column="old_secret", purpose=lambda row: repos.secret_purpose(row.id)),
    Sealed(table=REPO, column="credential", purpose=lambda row: repos.credential_purpose(row.id)),
)


def seal_anew(connection: Connection, again: Callable[[bytes, str], bytes]) -> int:
    """Replace every sealed value by `again(value, purpose)`; returns how many there are."""
    count = 0
    for each in COLUMNS:
        column = each.table.c[each.column]
        for row in connection.execute(select(each.table).where(column.is_not(None))).all():
            old = row._mapping[each.column]
            is_it = (each.table.c.id == row.id, column == old)
            values = {each.column: again(old, each.purpose(row))}
            connection.execute(update(each.table).where(*is_it).values(**values))
            count += 1
    return count
