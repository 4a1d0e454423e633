"""People and their accounts. What of them is signed in: sessions.py; their programs: tokens.py."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, select, update

from ci.errors import Conflict, Forbidden, Invalid, NotFound, Unauthenticated
from ci.server.auth import Actor, Role, Scope
from ci.server.models import User
from ci.server.store import codes
from ci.server.store.tables import (
    MEMBERSHIP,
    REPO,
    SECRET,
    SESSION,
    TOKEN,
    USER,
    VARIABLE,
    add_if_new,
    changed,
    many,
    one,
)

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
    """Without `password_hash` nobody can sign in with it. Raises Conflict for a name that is taken."""
    if not _NAME.match(name):
        raise Invalid(
            f"{name!r} cannot be a user name: it has 1 to 40 small letters, digits and `-`, `_`, `.` between"
        )
    user = User(name=name, password_hash=password_hash, is_admin=is_admin, created_at=now)
    user_id = add_if_new(connection, user)
    if user_id is None:
        raise Conflict(f"there is a user {name!r} already")
    return user_id


def require_free_namespace(connection: Connection, name: str) -> None:
    """Repos and secrets are the owner's by name alone: an account does not inherit them by chance.
    Raises Conflict."""
    mine = func.lower(REPO.c.owner) == name
    count = connection.execute(select(func.count()).select_from(REPO).where(mine)).scalar_one()
    place = f"org:{name}"
    for table in (SECRET, VARIABLE):
        rows = select(func.count()).select_from(table).where(table.c.place == place)
        count += connection.execute(rows).scalar_one()
    if count:
        raise Conflict(
            f"repos or secrets stand under {name}/ already, and an account {name!r} would own them; "
            "say that it may (takes_over), or choose another name"
        )


def by_id(connection: Connection, user_id: int) -> User:
    """Raises NotFound."""
    user = one(connection, User, select(USER).where(USER.c.id == user_id))
    if user is None:
        raise NotFound("there is no such account")
    return user


def named(connection: Connection, name: str) -> User:
    """Raises NotFound."""
    user = one(connection, User, select(USER).where(USER.c.name == name.strip()))
    if user is None:
        raise NotFound(f"there is no account {name.strip()[:60]!r} on this server")
    return user


@dataclass(frozen=True, kw_only=True)
class Person:
    """An account in the list of all."""

    user: User
    sessions: int
    tokens: int
    repos: int  #: in which it was given a role
    seen_at: float | None


def people(connection: Connection, now: float) -> list[Person]:
    """All accounts, by name."""
    signed_in = select(SESSION.c.user_id, func.count(), func.max(SESSION.c.seen_at))
    rows = connection.execute(signed_in.where(SESSION.c.expires_at > now).group_by(SESSION.c.user_id))
    sessions = {row[0]: (row[1], row[2]) for row in rows}
    tokens = _counts(connection, TOKEN)
    roles = _counts(connection, MEMBERSHIP)
    found = []
    for user in many(connection, User, select(USER).order_by(USER.c.name)):
        count, seen_at = sessions.get(user.id, (0, None))
        found.append(
            Person(
                user=user,
                sessions=count,
                tokens=tokens.get(user.id, 0),
                repos=roles.get(user.id, 0),
                seen_at=seen_at,
            )
        )
    return found


def _counts(connection: Connection, table: object) -> dict[int | None, int]:
    assert table in (TOKEN, MEMBERSHIP)
    column = TOKEN.c.user_id if table is TOKEN else MEMBERSHIP.c.user_id
    return {row[0]: row[1] for row in connection.execute(select(column, func.count()).group_by(column))}


# --- rights -----------------------------------------------------------------------------------------


def set_admin(connection: Connection, user_id: int, is_admin: bool) -> User:
    """Raises NotFound, and Conflict for the last admin."""
    user = by_id(connection, user_id)
    if user.is_admin and not is_admin:
        _require_another_admin(connection, user)
    connection.execute(update(USER).where(USER.c.id == user_id).values(is_admin=is_admin))
    return user


def set_disabled(connection: Connection, user_id: int, is_disabled: bool) -> User:
    """Disabling ends sessions and makes unused codes worthless; tokens do not count while it lasts."""
    user = by_id(connection, user_id)
    if is_disabled:
        _require_another_admin(connection, user)
        connection.execute(delete(SESSION).where(SESSION.c.user_id == user_id))
        codes.drop_codes(connection, codes.account_kind(user_id))
    connection.execute(update(USER).where(USER.c.id == user_id).values(is_disabled=is_disabled))
    return user


def remove(connection: Connection, user_id: int) -> User:
    """The account with its sessions, tokens, codes and roles. Repos stay, and its name in the audit log.
    Raises NotFound, and Conflict for the last admin."""
    user = by_id(connection, user_id)
    _require_another_admin(connection, user)
    for table in (SESSION, TOKEN, MEMBERSHIP):
        connection.execute(delete(table).where(table.c.user_id == user_id))
    codes.drop_codes(connection, codes.account_kind(user_id))
    if not changed(connection, delete(USER).where(USER.c.id == user_id)):
        raise NotFound("there is no such account")
    return user


def _require_another_admin(connection: Connection, user: User) -> None:
    """Locked where the database can, so that two who each see the other do not both go."""
    others = select(USER.c.id).where(
        USER.c.is_admin.is_(True), USER.c.is_disabled.is_(False), USER.c.id != user.id
    )
    is_one = user.is_admin and not user.is_disabled
    if is_one and connection.execute(others.with_for_update()).first() is None:
        raise Conflict(f"{user.name} is the last admin of this server; make somebody else one first")


# --- passwords --------------------------------------------------------------------------------------


def password_hash(connection: Connection, name: str) -> str:
    """Empty for a name that is not known: `auth.is_password` takes as long, and says no."""
    found = connection.execute(select(USER.c.password_hash).where(USER.c.name == name)).scalar_one_or_none()
    return found or ""


def signed_in(connection: Connection, name: str) -> Actor:
    """Whose password was right. Raises Forbidden for a disabled account: only its owner gets this far."""
    user = one(connection, User, select(USER).where(USER.c.name == name))
    if user is None:
        raise Unauthenticated("the name or the password is wrong")
    if user.is_disabled:
        raise Forbidden("this account is disabled; an administrator of the server can enable it")
    return actor_of(connection, user)


def set_password(connection: Connection, user_id: int, password_hash: str) -> None:
    connection.execute(update(USER).where(USER.c.id == user_id).values(password_hash=password_hash))


def new_account_code(connection: Connection, user_id: int, now: float) -> str:
    """With which this person sets a password; the one before is worthless from now on."""
    kind = codes.account_kind(user_id)
    codes.drop_codes(connection, kind)
    return codes.new_code(connection, kind, now)


def join(connection: Connection, code: str, password_hash: str, now: float) -> User:
    """Spend the code of an account and set its password. All its sessions end. Raises Forbidden."""
    user_id = codes.use_account_code(connection, code, now)
    user = one(connection, User, select(USER).where(USER.c.id == user_id))
    if user is None or user.is_disabled:
        raise Forbidden("the account of this code is disabled or gone")
    set_password(connection, user_id, password_hash)
    connection.execute(delete(SESSION).where(SESSION.c.user_id == user_id))
    return user


def actor_of(connection: Connection, user: User, scopes: frozenset[Scope] | None = None) -> Actor:
    mine = select(MEMBERSHIP.c.repo_id, MEMBERSHIP.c.role).where(MEMBERSHIP.c.user_id == user.id)
    roles = {row.repo_id: Role(row.role) for row in connection.execute(mine)}
    return Actor(user_id=user.id, name=user.name, is_admin=user.is_admin, roles=roles, scopes=scopes)
