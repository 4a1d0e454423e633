"""Single-use codes: `setup` makes the first account, `runner` registers a runner."""

from __future__ import annotations

from sqlalchemy import Connection, delete, update

from ci.errors import Forbidden
from ci.server import auth
from ci.server.models import Code
from ci.server.store.tables import CODE, add, changed

SETUP = "setup"
RUNNER = "runner"
_ANEW = {SETUP: "start the server again for a new one", RUNNER: "make a new one on the page Runners"}


def new_code(connection: Connection, kind: str, now: float) -> str:
    """A code that works once, within an hour; only its hash is kept, so show it now."""
    code = auth.new_code()
    expires_at = now + auth.CODE_SECONDS
    add(connection, Code(kind=kind, hash=auth.code_hash(code), expires_at=expires_at))
    return code


def use_code(connection: Connection, kind: str, code: str, now: float) -> None:
    """Spend the code. Raises Forbidden for one that is wrong, spent, too old or of another kind."""
    is_good = (
        CODE.c.kind == kind,
        CODE.c.hash == auth.code_hash(code),
        CODE.c.used_at.is_(None),
        CODE.c.expires_at > now,
    )
    if changed(connection, update(CODE).where(*is_good).values(used_at=now)) != 1:
        raise Forbidden(f"this code is wrong, was used already, or is older than an hour; {_ANEW[kind]}")


def drop_codes(connection: Connection, kind: str) -> None:
    """Make every unused code of this kind worthless."""
    connection.execute(delete(CODE).where(CODE.c.kind == kind, CODE.c.used_at.is_(None)))
