"""Signed-in browsers. Of the cookie only its hash is kept."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, or_, select, update

from ci.errors import NotFound
from ci.server import auth
from ci.server.auth import Actor
from ci.server.models import Session, User
from ci.server.store import users
from ci.server.store.tables import SESSION, USER, add, changed, many, one

#: "Last seen" is stored at most this often: a page that is looked at costs no write.
SEEN_EVERY_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Visit:
    """Who comes with a session or a token, and the row that says so."""

    actor: Actor
    row_id: int
    is_due: bool  #: it is time to store that it was seen


@dataclass(frozen=True, kw_only=True)
class Browser:
    """Where a session is opened from."""

    address: str = ""
    software: str = ""  #: as it says itself


def open_session(
    connection: Connection, user_id: int, now: float, seconds: float, browser: Browser | None = None
) -> str:
    """The new cookie's value, to be shown once. Sessions that have ended are swept out."""
    browser = browser or Browser()
    connection.execute(delete(SESSION).where(SESSION.c.expires_at <= now))
    cookie = auth.new_token("session")
    row = Session(
        user_id=user_id,
        hash=auth.token_hash(cookie),
        created_at=now,
        expires_at=now + seconds,
        seen_at=now,
        address=browser.address[:100],
        software=browser.software[:300],
    )
    add(connection, row)
    return cookie


def visit(connection: Connection, cookie: str, now: float) -> Visit | None:
    """None for one that has ended, or whose account is disabled."""
    is_it = (SESSION.c.hash == auth.token_hash(cookie), SESSION.c.expires_at > now)
    row = one(connection, Session, select(SESSION).where(*is_it))
    if row is None:
        return None
    user = one(connection, User, select(USER).where(USER.c.id == row.user_id, USER.c.is_disabled.is_(False)))
    if user is None:
        return None
    actor = users.actor_of(connection, user)
    return Visit(actor=actor, row_id=row.id or 0, is_due=is_due(row.seen_at, now))


def is_due(seen_at: float | None, now: float) -> bool:
    return seen_at is None or now - seen_at >= SEEN_EVERY_SECONDS


def seen(connection: Connection, session_id: int, now: float, address: str) -> None:
    is_old = or_(SESSION.c.seen_at.is_(None), SESSION.c.seen_at <= now - SEEN_EVERY_SECONDS)
    is_it = (SESSION.c.id == session_id, is_old)
    connection.execute(update(SESSION).where(*is_it).values(seen_at=now, address=address[:100]))


def of_user(connection: Connection, user_id: int, now: float) -> list[Session]:
    """The one that was seen last first."""
    mine = (SESSION.c.user_id == user_id, SESSION.c.expires_at > now)
    order = (SESSION.c.seen_at.desc(), SESSION.c.id.desc())
    return many(connection, Session, select(SESSION).where(*mine).order_by(*order))


def is_known_address(connection: Connection, name: str, address: str, now: float) -> bool:
    """Whether this person is signed in from there already."""
    is_it = (USER.c.name == name, SESSION.c.address == address, SESSION.c.expires_at > now)
    joined = select(SESSION.c.id).join(USER, USER.c.id == SESSION.c.user_id).where(*is_it).limit(1)
    return connection.execute(joined).first() is not None


def close_session(connection: Connection, cookie: str) -> None:
    connection.execute(delete(SESSION).where(SESSION.c.hash == auth.token_hash(cookie)))


def close_one(connection: Connection, user_id: int, session_id: int) -> None:
    """Raises NotFound for one that has ended or is somebody else's."""
    mine = (SESSION.c.id == session_id, SESSION.c.user_id == user_id)
    if not changed(connection, delete(SESSION).where(*mine)):
        raise NotFound("there is no such session of yours; it may have ended already")


def close_all(connection: Connection, user_id: int, *, but_cookie: str = "") -> int:
    """Every session of a person, but for the one with this cookie; returns how many."""
    mine = (SESSION.c.user_id == user_id, SESSION.c.hash != auth.token_hash(but_cookie))
    return changed(connection, delete(SESSION).where(*mine))
