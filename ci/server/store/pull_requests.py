"""Pull requests as their forge last told us of them: what an approval is held against (law 8)."""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from ci.server.models import PullRequest
from ci.server.store.tables import PULL_REQUEST, add_if_new, changed, one


def note(connection: Connection, seen: PullRequest) -> None:
    """Store what a delivery says, unless a newer one has been here: deliveries may come late, or again."""
    values = seen.model_dump(exclude={"id"})
    mine = (
        PULL_REQUEST.c.repo_id == seen.repo_id,
        PULL_REQUEST.c.number == seen.number,
        PULL_REQUEST.c.updated_at <= seen.updated_at,
    )
    statement = update(PULL_REQUEST).where(*mine).values(**values)
    if changed(connection, statement):
        return
    if add_if_new(connection, seen) is None:
        connection.execute(statement)  # another writer was faster


def find(connection: Connection, repo_id: int, number: int) -> PullRequest | None:
    mine = (PULL_REQUEST.c.repo_id == repo_id, PULL_REQUEST.c.number == number)
    return one(connection, PullRequest, select(PULL_REQUEST).where(*mine))
