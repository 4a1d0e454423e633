"""What a reader sees of the inbox of a repo: the rows without their bodies, but for small ones."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, case, func, select

from ci.server.models import Build, Hook, Inbox
from ci.server.store import builds, inbox
from ci.server.store.tables import HOOK, INBOX, many, one
from ci.server.store.views import builds_of_inbox

#: A body up to here is read to say in words what came.
SMALL_BYTES = 64 << 10


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A delivery and the builds that it made. `row.body` is empty where it is not small."""

    row: Inbox
    size: int
    forge: str  #: of its hook; empty: ours
    builds: tuple[Build, ...] = ()

    @property
    def is_replayable(self) -> bool:
        return not self.builds and self.row.state in (inbox.PROCESSED, inbox.FAILED)


def listed(
    connection: Connection,
    repo_id: int,
    *,
    before_id: int | None = None,
    limit: int = 50,
    hooked: bool = False,
) -> list[Delivery]:
    """The newest first; `hooked`: those of hooks alone."""
    small = case((func.length(INBOX.c.body) <= SMALL_BYTES, INBOX.c.body), else_=b"").label("body")
    columns = [column for column in INBOX.c if column.name != "body"]
    statement = (
        select(*columns, small, func.length(INBOX.c.body).label("size"), HOOK.c.forge)
        .outerjoin(HOOK, HOOK.c.id == INBOX.c.hook_id)
        .where(INBOX.c.repo_id == repo_id)
    )
    if before_id is not None:
        statement = statement.where(INBOX.c.id < before_id)
    if hooked:
        statement = statement.where(INBOX.c.hook_id.is_not(None))
    rows = connection.execute(statement.order_by(INBOX.c.id.desc()).limit(limit)).all()
    made = builds_of_inbox(connection, [row.id for row in rows])
    found = []
    for row in rows:
        values = dict(row._mapping)
        size, forge = values.pop("size"), values.pop("forge") or ""
        found.append(
            Delivery(row=Inbox(**values), size=size, forge=forge, builds=tuple(made.get(row.id, ())))
        )
    return found


def find(connection: Connection, repo_id: int, row_id: int) -> Delivery | None:
    """One delivery with its whole body."""
    row = one(connection, Inbox, select(INBOX).where(INBOX.c.id == row_id, INBOX.c.repo_id == repo_id))
    if row is None:
        return None
    hook = one(connection, Hook, select(HOOK).where(HOOK.c.id == row.hook_id))
    return Delivery(
        row=row,
        size=len(row.body),
        forge=hook.forge if hook else "",
        builds=tuple(builds.of_delivery(connection, row_id)),
    )


def hooks(connection: Connection, repo_id: int) -> list[Hook]:
    return many(connection, Hook, select(HOOK).where(HOOK.c.repo_id == repo_id).order_by(HOOK.c.id))
