"""The audit log: who did what. Rows are only added, in the transaction of what they tell of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, func, or_, select

from ci.server.auth import Actor
from ci.server.models import Audit
from ci.server.store.tables import AUDIT, add, many


@dataclass(frozen=True, kw_only=True)
class Deed:
    """What was done. `action` is a word such as `secret.set`, `object` what it was done to, `details` a
    sentence for a reader; never a secret in any of them."""

    action: str
    object: str = ""
    repo_id: int | None = None
    details: str = ""
    address: str = ""  #: where the request came from, if the actor does not say


def note(connection: Connection, actor: Actor, deed: Deed, now: float) -> None:
    row = Audit(
        at=now,
        user_id=actor.user_id,
        user_name=actor.name,
        action=deed.action,
        object=deed.object[:500],
        repo_id=deed.repo_id,
        details=deed.details[:2000],
        address=deed.address or actor.address,
    )
    add(connection, row)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a reader asked for; empty means any. `action` may be its beginning, such as `secret`."""

    who: str = ""
    action: str = ""
    text: str = ""


def latest(
    connection: Connection,
    *,
    repo_id: int | None = None,
    before_id: int | None = None,
    limit: int = 100,
    wanted: Wanted | None = None,
) -> list[Audit]:
    """Newest first; of one repo, or of the whole server."""
    statement = select(AUDIT).order_by(AUDIT.c.id.desc()).limit(limit)
    if repo_id is not None:
        statement = statement.where(AUDIT.c.repo_id == repo_id)
    if before_id is not None:
        statement = statement.where(AUDIT.c.id < before_id)
    if wanted is not None:
        statement = statement.where(*_conditions(wanted))
    return many(connection, Audit, statement)


def _conditions(wanted: Wanted) -> Iterator[ColumnElement[bool]]:
    if wanted.who:
        yield AUDIT.c.user_name == wanted.who
    if wanted.action:
        yield AUDIT.c.action.startswith(wanted.action, autoescape=True)
    if wanted.text:
        text = wanted.text.lower()
        columns = (AUDIT.c.object, AUDIT.c.details, AUDIT.c.address)
        yield or_(*(func.lower(column).contains(text, autoescape=True) for column in columns))
