"""Commit statuses that a forge has to hear of: written with the transition, read by the sender.

Of one (repo, sha, context) the highest sequence is the state to be told. A newer row overtakes those that
were not delivered yet: they are never sent, so that the last state wins also after hours without the forge.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, func, select, update

from ci.server.models import Outbox
from ci.server.store import configs
from ci.server.store.repos import WITH_STATUSES
from ci.server.store.tables import BUILD, JOB, OUTBOX, REPO, add, many
from ci.status import Status, of_build

MAX_ERROR = 500


@dataclass(frozen=True, kw_only=True)
class _Standing:
    """How one pipeline of a build stands."""

    state: Status
    description: str


def tell(connection: Connection, build_id: int, now: float) -> None:
    """Note how each pipeline of the build stands, where its forge shows statuses and was told otherwise.

    Call it in the transaction in which the build or one of its jobs moved.
    """
    columns = (BUILD.c.repo_id, BUILD.c.number, BUILD.c.event, BUILD.c.status, BUILD.c.reason, REPO.c.forge)
    path = (REPO.c.owner, REPO.c.name.label("repo_name"), BUILD.c.config_file)
    joined = select(*columns, *path).join(REPO, REPO.c.id == BUILD.c.repo_id)
    row = connection.execute(joined.where(BUILD.c.id == build_id)).one()
    if row.forge not in WITH_STATUSES:
        return
    standings = _standings(connection, build_id)
    if not standings:  # a build without jobs ended at once
        name = configs.name(row.config_file).strip("./").removesuffix(".yml").removesuffix(".yaml") or "ci"
        standings = {name: _Standing(state=Status(row.status), description=row.reason)}
    for pipeline, standing in standings.items():
        new = Outbox(
            repo_id=row.repo_id,
            build_id=build_id,
            sha=row.event["after"],
            context=f"shipway/{row.event['kind']}/{pipeline}",
            sequence=0,
            state=standing.state.value,
            description=_first_line(standing),
            target_url=f"/r/{row.owner}/{row.repo_name}/{row.number}",
            created_at=now,
            next_try_at=now,
        )
        _append(connection, new)


def _standings(connection: Connection, build_id: int) -> dict[str, _Standing]:
    """By pipeline: cells of a matrix are one."""
    name = JOB.c.spec["environment"]["CI_WORKFLOW_NAME"].as_string().label("pipeline")
    rows = connection.execute(
        select(name, JOB.c.name, JOB.c.status, JOB.c.reason)
        .where(JOB.c.build_id == build_id)
        .order_by(JOB.c.position)
    ).all()
    found: dict[str, _Standing] = {}
    for pipeline in dict.fromkeys(row.pipeline or row.name for row in rows):
        mine = [row for row in rows if (row.pipeline or row.name) == pipeline]
        state = of_build(Status(row.status) for row in mine)
        decisive = next((row for row in mine if row.status == state.value), None)
        found[pipeline] = _Standing(state=state, description=decisive.reason if decisive else "")
    return found


def _first_line(standing: _Standing) -> str:
    words = {
        Status.PENDING: "waiting for a runner",
        Status.RUNNING: "running",
        Status.BLOCKED: "waiting for a person",
        Status.UNKNOWN: "nobody knows how it ended: a person must say",
    }.get(standing.state, standing.state.word)
    reason = standing.description.partition("\n")[0].strip()
    return f"{words}: {reason}" if reason and standing.state.is_terminal else words


def _append(connection: Connection, new: Outbox) -> None:
    """The next in its sequence, unless it says what the last one says."""
    same = (OUTBOX.c.repo_id == new.repo_id, OUTBOX.c.sha == new.sha, OUTBOX.c.context == new.context)
    last = connection.execute(
        select(OUTBOX.c.sequence, OUTBOX.c.build_id, OUTBOX.c.state, OUTBOX.c.description)
        .where(*same)
        .order_by(OUTBOX.c.sequence.desc())
        .limit(1)
    ).one_or_none()
    if last is not None and (last.build_id, last.state, last.description) == (
        new.build_id,
        new.state,
        new.description,
    ):
        return
    if last is not None and last.build_id > new.build_id:
        return  # an older build of the same commit says nothing after a rerun has spoken
    new.sequence = last.sequence + 1 if last is not None else 1
    connection.execute(
        update(OUTBOX).where(*same, OUTBOX.c.next_try_at.is_not(None)).values(next_try_at=None)
    )
    add(connection, new)


# --- the sender's side --------------------------------------------------------------------------------


def due(connection: Connection, now: float, busy: Collection[int] = (), limit: int = 200) -> list[Outbox]:
    """What is to be sent now, in the order in which it was written; without the repos that are `busy`."""
    is_due = (OUTBOX.c.next_try_at <= now, OUTBOX.c.repo_id.not_in(busy))
    return many(connection, Outbox, select(OUTBOX).where(*is_due).order_by(OUTBOX.c.id).limit(limit))


def next_due_at(connection: Connection, busy: Collection[int] = ()) -> float | None:
    first = select(func.min(OUTBOX.c.next_try_at)).where(OUTBOX.c.repo_id.not_in(busy))
    return connection.execute(first).scalar_one_or_none()


def is_current(connection: Connection, row_id: int) -> bool:
    """Whether the row still waits: nothing newer has overtaken it."""
    waits = (OUTBOX.c.id == row_id, OUTBOX.c.next_try_at.is_not(None))
    return connection.execute(select(OUTBOX.c.id).where(*waits)).one_or_none() is not None


def delivered(connection: Connection, row_id: int, now: float) -> None:
    values = {"delivered_at": now, "next_try_at": None, "last_error": "", "tries": OUTBOX.c.tries + 1}
    connection.execute(update(OUTBOX).where(OUTBOX.c.id == row_id).values(**values))


def failed(connection: Connection, row_id: int, sentence: str, next_try_at: float | None) -> None:
    """`next_try_at` None: given up. A row that was overtaken meanwhile stays so."""
    waits = (OUTBOX.c.id == row_id, OUTBOX.c.next_try_at.is_not(None))
    values = {"next_try_at": next_try_at, "last_error": sentence[:MAX_ERROR], "tries": OUTBOX.c.tries + 1}
    connection.execute(update(OUTBOX).where(*waits).values(**values))


def put_off(connection: Connection, repo_id: int, until: float) -> None:
    """Nothing of this repo is sent before; its token's rate limit is used up."""
    waits = (OUTBOX.c.repo_id == repo_id, OUTBOX.c.next_try_at < until)
    connection.execute(update(OUTBOX).where(*waits).values(next_try_at=until))


def hurry(connection: Connection, repo_id: int, now: float) -> None:
    """What waits for another try is tried now: the repo has another credential."""
    waits = (OUTBOX.c.repo_id == repo_id, OUTBOX.c.next_try_at > now)
    connection.execute(update(OUTBOX).where(*waits).values(next_try_at=now))


def rows_of(connection: Connection, build_id: int) -> list[Outbox]:
    return many(connection, Outbox, select(OUTBOX).where(OUTBOX.c.build_id == build_id).order_by(OUTBOX.c.id))
