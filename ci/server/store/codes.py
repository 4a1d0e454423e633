"""Single-use codes: `setup` makes the first account, `runner` registers a runner, `account ID` sets the
password of that account."""

from __future__ import annotations

from sqlalchemy import Connection, delete, select, update

from ci.errors import Forbidden
from ci.server import auth
from ci.server.models import Code
from ci.server.store.tables import CODE, add, changed

SETUP = "setup"
RUNNER = "runner"
_ACCOUNT = "account "
_ANEW = {SETUP: "start the server again for a new one", RUNNER: "make a new one on the page Runners"}


def account_kind(user_id: int) -> str:
    return f"{_ACCOUNT}{user_id}"


def new_code(connection: Connection, kind: str, now: float) -> str:
    """A code that works once, within an hour (an account's: a day); only its hash is kept, so show it now."""
    code = auth.new_code()
    seconds = auth.ACCOUNT_CODE_SECONDS if kind.startswith(_ACCOUNT) else auth.CODE_SECONDS
    add(connection, Code(kind=kind, hash=auth.code_hash(code), expires_at=now + seconds))
    return code


def use_code(connection: Connection, kind: str, code: str, now: float) -> None:
    """Spend the code. Raises Forbidden for one that is wrong, spent, too old or of another kind."""
    if not _spend(connection, kind, code, now):
        raise Forbidden(f"this code is wrong, was used already, or is older than an hour; {_ANEW[kind]}")


def use_account_code(connection: Connection, code: str, now: float) -> int:
    """Spend the code of some account; returns the user's id. Raises Forbidden as above."""
    is_it = (CODE.c.hash == auth.code_hash(code), CODE.c.kind.startswith(_ACCOUNT))
    kind = connection.execute(select(CODE.c.kind).where(*is_it)).scalar_one_or_none()
    if kind is None or not _spend(connection, kind, code, now):
        raise Forbidden(
            "this code is wrong, was used already, or is older than a day; an administrator makes a new one"
        )
    return int(kind.removeprefix(_ACCOUNT))


def _spend(connection: Connection, kind: str, code: str, now: float) -> bool:
    is_good = (
        CODE.c.kind == kind,
        CODE.c.hash == auth.code_hash(code),
        CODE.c.used_at.is_(None),
        CODE.c.expires_at > now,
    )
    return changed(connection, update(CODE).where(*is_good).values(used_at=now)) == 1


def drop_codes(connection: Connection, kind: str) -> None:
    """Make every unused code of this kind worthless."""
    connection.execute(delete(CODE).where(CODE.c.kind == kind, CODE.c.used_at.is_(None)))
