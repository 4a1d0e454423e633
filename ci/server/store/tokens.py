"""Credentials for programs: git and the API. Each is shown once; only its hash is kept."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, delete, or_, select, update

from ci.errors import Forbidden, Invalid, NotFound, Unauthenticated
from ci.server import auth
from ci.server.auth import Actor, Scope
from ci.server.models import Token, User
from ci.server.store import users
from ci.server.store.sessions import SEEN_EVERY_SECONDS, Visit, is_due
from ci.server.store.tables import TOKEN, USER, add, changed, many, one

DEFAULT_DAYS = 90
MAX_DAYS = 3650
MAX_TOKENS = 100  #: of one person


@dataclass(frozen=True, kw_only=True)
class NewToken:
    """`days` None: it never expires."""

    name: str
    scopes: frozenset[Scope] = frozenset(Scope)
    days: int | None = DEFAULT_DAYS


def add_token(connection: Connection, user_id: int, new: NewToken, now: float) -> str:
    """The new token: the only time it can be seen. Raises Invalid for one without name or scope."""
    if not 1 <= len(new.name.strip()) <= 100:
        raise Invalid("a token needs a name of 1 to 100 characters, so that you know it later")
    if not new.scopes:
        raise Invalid(f"a token needs at least one scope: {', '.join(Scope)}")
    if new.days is not None and not 1 <= new.days <= MAX_DAYS:
        raise Invalid(f"a token expires in 1 to {MAX_DAYS} days, or never")
    if len(of_user(connection, user_id)) >= MAX_TOKENS:
        raise Invalid(f"one person has at most {MAX_TOKENS} tokens; revoke those that are not used")
    token = auth.new_token()
    row = Token(
        user_id=user_id,
        name=new.name.strip(),
        hash=auth.token_hash(token),
        scopes=[scope.value for scope in Scope if scope in new.scopes],
        created_at=now,
        expires_at=None if new.days is None else now + new.days * 86400.0,
    )
    add(connection, row)
    return token


def parse_scopes(words: Iterable[str]) -> frozenset[Scope]:
    known = {scope.value: scope for scope in Scope}
    found = [word.strip() for word in words]
    wrong = [word for word in found if word not in known]
    if wrong:
        raise Invalid(f"there is no scope {wrong[0][:40]!r}; there are {', '.join(known)}")
    return frozenset(known[word] for word in found)


def require_no_more(actor: Actor, wanted: frozenset[Scope]) -> None:
    """A token makes no token that may more than itself."""
    if actor.scopes is not None and wanted - actor.scopes:
        more = ", ".join(sorted(wanted - actor.scopes))
        raise Forbidden(f"a token cannot make one with more scopes than it has itself: not {more}")


def visit(connection: Connection, token: str, now: float) -> Visit | None:
    """None for one that is not known. Raises Unauthenticated for one that counts no more, saying why:
    whoever has the token may know."""
    row = one(connection, Token, select(TOKEN).where(TOKEN.c.hash == auth.token_hash(token)))
    if row is None:
        return None
    if row.expires_at is not None and row.expires_at <= now:
        day = time.strftime("%Y-%m-%d", time.gmtime(row.expires_at))
        raise Unauthenticated(f"this token expired on {day}; make a new one on the page Account")
    user = one(connection, User, select(USER).where(USER.c.id == row.user_id))
    if user is None or user.is_disabled:
        raise Unauthenticated("the account of this token is disabled; an administrator can enable it")
    actor = users.actor_of(connection, user, frozenset(map(Scope, row.scopes)))
    return Visit(actor=actor, row_id=row.id or 0, is_due=is_due(row.used_at, now))


def used(connection: Connection, token_id: int, now: float) -> None:
    is_old = or_(TOKEN.c.used_at.is_(None), TOKEN.c.used_at <= now - SEEN_EVERY_SECONDS)
    connection.execute(update(TOKEN).where(TOKEN.c.id == token_id, is_old).values(used_at=now))


def of_user(connection: Connection, user_id: int) -> list[Token]:
    return many(connection, Token, select(TOKEN).where(TOKEN.c.user_id == user_id).order_by(TOKEN.c.id))


def revoke(connection: Connection, user_id: int, token_id: int) -> str:
    """Returns its name. Raises NotFound for a token that is gone or somebody else's."""
    mine = (TOKEN.c.id == token_id, TOKEN.c.user_id == user_id)
    row = one(connection, Token, select(TOKEN).where(*mine))
    if row is None or not changed(connection, delete(TOKEN).where(*mine)):
        raise NotFound("there is no such token of yours")
    return row.name
