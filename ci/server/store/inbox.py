"""Deliveries: durable before they are acknowledged, kept with their verdict."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, exists, not_, or_, select, update

from ci.server.models import Inbox
from ci.server.store.tables import BUILD, INBOX, add, add_if_new, changed, many, one

RECEIVED = "received"
PROCESSED = "processed"
FAILED = "failed"
KEPT = "kept"  #: it made builds, which were removed when they were old; it never makes another
MAX_VERDICT = 8000


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What became of a delivery that was stored; `is_new` False: it had come before."""

    row_id: int
    is_new: bool


@dataclass(frozen=True, kw_only=True)
class NewRow:
    """A delivery to a hook. `word` is the forge's own for what happened."""

    hook_id: str
    repo_id: int
    delivery: str
    word: str = ""
    body: bytes


def receive(connection: Connection, new: NewRow, now: float) -> Receipt:
    """The delivery's row; the same delivery again has the same row. One that made no build waits again."""
    values = _row(new.hook_id, new.repo_id, new.delivery, new.body, now)
    values.forge_event = new.word
    row_id = add_if_new(connection, values)
    if row_id is not None:
        return Receipt(row_id=row_id, is_new=True)
    same = (INBOX.c.hook_id == new.hook_id, INBOX.c.delivery == new.delivery)
    present: int = connection.execute(select(INBOX.c.id).where(*same)).scalar_one()
    if not made_a_build(connection, present):
        connection.execute(update(INBOX).where(INBOX.c.id == present).values(state=RECEIVED))
    return Receipt(row_id=present, is_new=False)


def receive_own(
    connection: Connection, *, repo_id: int, delivery: str, body: bytes, now: float, word: str = ""
) -> int:
    """A push to the built-in git, noted before its refs move; with a word, something else of our own."""
    row = _row(None, repo_id, delivery, body, now)
    row.forge_event = word
    return add(connection, row)


def _row(hook_id: str | None, repo_id: int, delivery: str, body: bytes, now: float) -> Inbox:
    return Inbox(
        hook_id=hook_id,
        repo_id=repo_id,
        delivery=delivery,
        body_hash=hashlib.sha256(body).hexdigest(),
        body=body,
        received_at=now,
    )


def by_id(connection: Connection, row_id: int) -> Inbox | None:
    return one(connection, Inbox, select(INBOX).where(INBOX.c.id == row_id))


def waiting(connection: Connection, repo_id: int | None = None) -> list[Inbox]:
    """Rows that are not processed yet, in the order in which they came."""
    statement = select(INBOX).where(INBOX.c.state == RECEIVED).order_by(INBOX.c.id)
    if repo_id is not None:
        statement = statement.where(INBOX.c.repo_id == repo_id)
    return many(connection, Inbox, statement)


def waiting_repos(connection: Connection) -> list[int]:
    """The repos that have rows that wait."""
    statement = select(INBOX.c.repo_id).distinct().where(INBOX.c.state == RECEIVED)
    return [repo_id or 0 for repo_id in connection.execute(statement).scalars()]


def waiting_ids(connection: Connection, repo_id: int, after: int, limit: int) -> list[int]:
    """Rows of the repo with a higher id than `after` that wait, in the order in which they came."""
    mine = (INBOX.c.state == RECEIVED, INBOX.c.repo_id == repo_id, INBOX.c.id > after)
    statement = select(INBOX.c.id).where(*mine).order_by(INBOX.c.id).limit(limit)
    return list(connection.execute(statement).scalars())


def settle(connection: Connection, row_id: int, state: str, verdict: str) -> None:
    values = {"state": state, "verdict": verdict[:MAX_VERDICT]}
    connection.execute(update(INBOX).where(INBOX.c.id == row_id).values(**values))


def made_a_build(connection: Connection, row_id: int) -> bool:
    """Also one that is removed by now."""
    has_built = select(INBOX.c.id).where(INBOX.c.id == row_id, _has_built())
    return connection.execute(has_built).one_or_none() is not None


def _has_built() -> ColumnElement[bool]:
    return or_(exists().where(BUILD.c.inbox_id == INBOX.c.id), INBOX.c.state == KEPT)


def wait_again(connection: Connection, row_id: int) -> bool:
    """A row that was decided and made no build waits again; False for any other."""
    decided = (INBOX.c.id == row_id, INBOX.c.state.in_([PROCESSED, FAILED]), not_(_has_built()))
    return changed(connection, update(INBOX).where(*decided).values(state=RECEIVED)) == 1


def earlier_twin(connection: Connection, row: Inbox) -> Inbox | None:
    """An earlier delivery to the same hook with the same body that made a build."""
    is_twin = (
        INBOX.c.hook_id == row.hook_id,
        INBOX.c.body_hash == row.body_hash,
        INBOX.c.id < row.id,
        _has_built(),
    )
    return one(connection, Inbox, select(INBOX).where(*is_twin).order_by(INBOX.c.id.desc()).limit(1))
