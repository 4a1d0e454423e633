"""Runners: who they are and what they last said of themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sqlalchemy import Connection, delete, select, update

from ci.errors import Conflict, Invalid
from ci.protocol import Hello
from ci.server import auth
from ci.server.models import Runner
from ci.server.store import codes
from ci.server.store.tables import ATTEMPT, RUNNER, add_if_new, changed, many, one

MAX_CAPACITY = 1000
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?\Z")


def register(  # noqa: PLR0913 - each is a column of the runner
    connection: Connection,
    *,
    code: str,
    name: str,
    labels: Mapping[str, str],
    capacity: int,
    now: float,
    credential: str = "",
) -> tuple[int, str]:
    """Spend a code for (runner id, credential); only the credential's hash is kept.

    A runner that made its credential itself may ask again when the answer was lost: nothing more is spent.
    """
    known = by_credential(connection, credential) if credential else None
    if known is not None and known.id is not None:
        return known.id, credential
    if credential and not auth.is_token(credential, "runner"):
        raise Invalid("a runner's own credential is `runner_` and 43 random letters of base64url")
    if not _NAME.match(name):
        raise Invalid(f"{name!r} cannot be a runner's name: letters, digits, `-`, `_` and `.`, at most 64")
    if not 1 <= capacity <= MAX_CAPACITY:
        raise Invalid(f"the capacity of a runner is 1 to {MAX_CAPACITY} jobs, not {capacity}")
    codes.use_code(connection, codes.RUNNER, code, now)
    credential = credential or auth.new_token("runner")
    runner = Runner(
        name=name,
        token_hash=auth.token_hash(credential),
        labels=dict(labels),
        capacity=capacity,
        registered_at=now,
    )
    runner_id = add_if_new(connection, runner)
    if runner_id is None:
        raise Conflict(f"there is a runner {name!r} already; start this one with another --name")
    return runner_id, credential


def by_credential(connection: Connection, credential: str) -> Runner | None:
    return one(connection, Runner, select(RUNNER).where(RUNNER.c.token_hash == auth.token_hash(credential)))


def find(connection: Connection, runner_id: int) -> Runner | None:
    return one(connection, Runner, select(RUNNER).where(RUNNER.c.id == runner_id))


def all_runners(connection: Connection) -> list[Runner]:
    return many(connection, Runner, select(RUNNER).order_by(RUNNER.c.name))


def greet(connection: Connection, runner_id: int, hello: Hello, now: float) -> None:
    """Keep what the runner says of itself, at each connection."""
    says = {
        "labels": dict(hello.labels),
        "capacity": hello.capacity,
        "engine": hello.engine,
        "software": hello.software,
        "is_connected": True,
        "seen_at": now,
    }
    connection.execute(update(RUNNER).where(RUNNER.c.id == runner_id).values(**says))


def disconnected(connection: Connection, runner_id: int, now: float) -> None:
    mine = RUNNER.c.id == runner_id
    connection.execute(update(RUNNER).where(mine).values(is_connected=False, seen_at=now))


def all_disconnected(connection: Connection) -> None:
    """What a server that starts knows."""
    connection.execute(update(RUNNER).values(is_connected=False))


def drain(connection: Connection, runner_id: int, *, is_draining: bool) -> bool:
    """Whether there is such a runner."""
    mine = RUNNER.c.id == runner_id
    return changed(connection, update(RUNNER).where(mine).values(is_draining=is_draining)) == 1


def pause(connection: Connection, runner_id: int) -> bool:
    """It takes no more jobs until `resume`; whether there is such a runner."""
    mine = RUNNER.c.id == runner_id
    return changed(connection, update(RUNNER).where(mine).values(is_paused=True)) == 1


def resume(connection: Connection, runner_id: int) -> bool:
    """It takes jobs again, whether it was paused or draining; whether there is such a runner."""
    values = {"is_paused": False, "is_draining": False}
    return changed(connection, update(RUNNER).where(RUNNER.c.id == runner_id).values(**values)) == 1


def remove(connection: Connection, runner_id: int) -> bool:
    """Forget it and its credential; its attempts keep its name. Take its leases back before."""
    theirs = ATTEMPT.c.runner_id == runner_id
    connection.execute(update(ATTEMPT).where(theirs).values(runner_id=None))
    return changed(connection, delete(RUNNER).where(RUNNER.c.id == runner_id)) == 1


def count_lost(connection: Connection, runner_id: int | None) -> None:
    """One more of its leases ended without its word."""
    more = RUNNER.c.lost_leases + 1
    connection.execute(update(RUNNER).where(RUNNER.c.id == runner_id).values(lost_leases=more))


def seen(connection: Connection, runner_id: int, now: float) -> None:
    connection.execute(update(RUNNER).where(RUNNER.c.id == runner_id).values(seen_at=now))
