"""People, their browser sessions and their tokens."""

from __future__ import annotations

import re

from sqlalchemy import Connection, delete, func, select

from ci.errors import Conflict, Invalid, NotFound, Unauthenticated
from ci.server import auth
from ci.server.auth import Actor, Role, Scope
from ci.server.models import Session, Token, User
from ci.server.store import codes
from ci.server.store.tables import MEMBERSHIP, SESSION, TOKEN, USER, add, add_if_new, changed, many, one

_NAME = re.compile(r"[a-z0-9]([a-z0-9_.-]{0,38}[a-z0-9])?\Z")


def has_users(connection: Connection) -> bool:
    return bool(connection.execute(select(func.count()).select_from(USER)).scalar_one())


def make_first_account(
    connection: Connection, *, code: str, name: str, password_hash: str, now: float
) -> int:
    """The admin who sets the server up, by the code that `shipway serve` prints; returns the user's id.

    Hash the password before (auth.hash_password). Raises Conflict once there is any account.
    """
    if has_users(connection):
        raise Conflict("this server is set up already; please sign in")
    codes.use_code(connection, codes.SETUP, code, now)
    user_id = add_user(connection, name=name, password_hash=password_hash, is_admin=True, now=now)
    codes.drop_codes(connection, codes.SETUP)
    return user_id


def add_user(connection: Connection, *, name: str, password_hash: str, is_admin: bool, now: float) -> int:
    if not _NAME.match(name):
        raise Invalid(
            f"{name!r} cannot be a user name: it has 1 to 40 small letters, digits and `-`, `_`, `.` between"
        )
    user = User(name=name, password_hash=password_hash, is_admin=is_admin, created_at=now)
    user_id = add_if_new(connection, user)
    if user_id is None:
        raise Conflict(f"there is a user {name!r} already")
    return user_id


def check_password(connection: Connection, name: str, password: str) -> Actor:
    """Takes about 50 ms, so give it to `store.read`. Raises Unauthenticated, never saying what was wrong."""
    user = one(connection, User, select(USER).where(USER.c.name == name))
    if not auth.is_password(password, user.password_hash if user else "") or user is None:
        raise Unauthenticated("the name or the password is wrong")
    return _actor(connection, user)


# --- sessions -------------------------------------------------------------------------------------


def open_session(connection: Connection, user_id: int, now: float, seconds: float) -> str:
    """The new cookie's value; only its hash is kept. Sessions that have ended are swept out."""
    connection.execute(delete(SESSION).where(SESSION.c.expires_at <= now))
    cookie = auth.new_token("session")
    session = Session(user_id=user_id, hash=auth.token_hash(cookie), created_at=now, expires_at=now + seconds)
    add(connection, session)
    return cookie


def actor_of_session(connection: Connection, cookie: str, now: float) -> Actor | None:
    is_it = (SESSION.c.hash == auth.token_hash(cookie), SESSION.c.expires_at > now)
    user = one(connection, User, select(USER).join(SESSION, SESSION.c.user_id == USER.c.id).where(*is_it))
    return _actor(connection, user) if user else None


def close_session(connection: Connection, cookie: str) -> None:
    connection.execute(delete(SESSION).where(SESSION.c.hash == auth.token_hash(cookie)))


# --- tokens ---------------------------------------------------------------------------------------


def add_token(connection: Connection, user_id: int, name: str, now: float) -> str:
    """A new credential for git and programs: the only time it can be seen."""
    if not 1 <= len(name.strip()) <= 100:
        raise Invalid("a token needs a name of 1 to 100 characters, so that you know it later")
    token = auth.new_token()
    row = Token(
        user_id=user_id,
        name=name.strip(),
        hash=auth.token_hash(token),
        scopes=[scope.value for scope in Scope],
        created_at=now,
    )
    add(connection, row)
    return token


def tokens(connection: Connection, user_id: int) -> list[Token]:
    return many(connection, Token, select(TOKEN).where(TOKEN.c.user_id == user_id).order_by(TOKEN.c.id))


def revoke_token(connection: Connection, user_id: int, token_id: int) -> None:
    """Raises NotFound for a token that is gone or somebody else's."""
    mine = (TOKEN.c.id == token_id, TOKEN.c.user_id == user_id)
    if not changed(connection, delete(TOKEN).where(*mine)):
        raise NotFound("there is no such token of yours")


def actor_of_token(connection: Connection, token: str) -> Actor | None:
    row = one(connection, Token, select(TOKEN).where(TOKEN.c.hash == auth.token_hash(token)))
    if row is None:
        return None
    user = one(connection, User, select(USER).where(USER.c.id == row.user_id))
    return _actor(connection, user, frozenset(map(Scope, row.scopes))) if user else None


def _actor(connection: Connection, user: User, scopes: frozenset[Scope] | None = None) -> Actor:
    mine = select(MEMBERSHIP.c.repo_id, MEMBERSHIP.c.role).where(MEMBERSHIP.c.user_id == user.id)
    roles = {row.repo_id: Role(row.role) for row in connection.execute(mine)}
    return Actor(user_id=user.id, name=user.name, is_admin=user.is_admin, roles=roles, scopes=scopes)
