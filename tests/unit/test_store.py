"""The store: what was answered is stored, one fn never takes another with it, schema and models agree."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, func, select, text
from sqlmodel import SQLModel

from ci.errors import Conflict, Unavailable
from ci.server.models import Code
from ci.server.store import builds, meta, repos
from ci.server.store.builds import NewBuild
from ci.server.store.database import Connection, Store
from ci.server.store.migrations import upgrade
from ci.server.store.tables import BUILD, CODE, JOB, REPO, add, add_if_new
from tests.unit.world import event, spec


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(tmp_path / "shipway.db")
    await store.open()
    yield store
    await store.close()


def code(connection: Connection, mark: str) -> int:
    return add(connection, Code(kind="setup", hash=mark, expires_at=1.0))


def marks(connection: Connection) -> list[str]:
    return list(connection.execute(select(CODE.c.hash).order_by(CODE.c.id)).scalars())


async def test_what_was_answered_is_in_the_file_for_every_other_reader(store: Store) -> None:
    await store.write(lambda c: code(c, "a"))
    with sqlite3.connect(store.path) as plain:
        assert plain.execute("SELECT hash FROM code").fetchall() == [("a",)]
    plain.close()


async def test_a_thousand_writers_share_commits_and_all_are_stored_in_order(store: Store) -> None:
    ids = await asyncio.gather(*(store.write(lambda c, n=n: code(c, str(n))) for n in range(1000)))
    assert ids == sorted(ids)
    assert await store.read(marks) == [str(number) for number in range(1000)]


async def test_an_fn_that_raises_takes_no_other_of_its_group_with_it(store: Store) -> None:
    def fails(connection: Connection) -> None:
        code(connection, "half")
        raise LookupError("mine")

    results = await asyncio.gather(
        store.write(lambda c: code(c, "a")),
        store.write(fails),
        store.write(lambda c: code(c, "a")),
        store.write(lambda c: code(c, "b")),
        return_exceptions=True,
    )
    assert isinstance(results[1], LookupError)
    assert isinstance(results[2], Conflict)
    assert await store.read(marks) == ["a", "b"]


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_when_the_whole_transaction_is_gone_the_others_are_run_again(store: Store, place: int) -> None:
    """SQLite rolls everything back on a full disk; so does this fn, wherever it stands in the group."""
    runs: list[str] = []

    def good(connection: Connection, mark: str) -> int:
        runs.append(mark)
        return code(connection, mark)

    def gone(connection: Connection) -> None:
        connection.exec_driver_sql("ROLLBACK")
        raise LookupError("no such savepoint")

    fns = [lambda c: good(c, "a"), lambda c: good(c, "b")]
    fns.insert(place, gone)
    held = asyncio.create_task(
        store.write(lambda c: c.execute(text(_SLOW)).all())
    )  # the three gather behind it
    results = await asyncio.gather(*(store.write(fn) for fn in fns), return_exceptions=True)
    await held
    assert isinstance(results.pop(place), LookupError)
    assert all(isinstance(result, int) for result in results)
    assert await store.read(marks) == ["a", "b"]


#: A second's worth of nothing, to let a group gather behind it; no clock is involved.
_SLOW = (
    "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 300000) SELECT max(x) FROM n"
)


async def test_a_full_disk_fails_what_does_not_fit_and_goes_on_after(store: Store) -> None:
    def limit(connection: Connection, pages: int) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    await store.write(lambda c: limit(c, 1))  # SQLite takes the present size as the least
    results = await asyncio.gather(
        store.write(lambda c: code(c, "small")),
        store.write(lambda c: code(c, "x" * (1 << 20))),
        store.write(lambda c: code(c, "other")),
        return_exceptions=True,
    )
    assert isinstance(results[1], Unavailable)
    assert "full" in str(results[1])
    stored = await store.read(marks)
    assert stored == [
        mark for mark, result in zip(("small", "x", "other"), results, strict=True) if isinstance(result, int)
    ]
    await store.write(lambda c: limit(c, 100_000))
    await store.write(lambda c: code(c, "after"))
    assert (await store.read(marks))[-1] == "after"


async def test_a_foreign_lock_is_waited_for(store: Store) -> None:
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    writing = asyncio.create_task(store.write(lambda c: code(c, "a")))
    other.execute("COMMIT")
    other.close()
    await asyncio.wait_for(writing, 10)
    assert await store.read(marks) == ["a"]


async def test_a_reader_cannot_write_and_sees_one_snapshot(store: Store) -> None:
    with pytest.raises(Exception, match="readonly"):
        await store.read(lambda c: code(c, "a"))


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path / "shipway.db")
    await store.open()
    await store.write(lambda c: code(c, "a"))
    await store.close()
    await store.close()
    for ask in (store.write, store.read):
        with pytest.raises(Unavailable):
            await ask(marks)


async def test_a_caller_that_gives_up_harms_nobody(store: Store) -> None:
    task = asyncio.create_task(store.write(lambda c: code(c, "a")))
    await asyncio.sleep(0)
    task.cancel()
    await store.write(lambda c: code(c, "b"))
    assert "b" in await store.read(marks)


# --- schema -----------------------------------------------------------------------------------------


async def test_the_migrations_make_exactly_the_schema_of_the_models(store: Store) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, SQLModel.metadata))

    assert await store.read(differences) == []


async def test_the_checks_of_the_models_are_in_the_migrations(store: Store) -> None:
    wanted = {
        (table.name, constraint.name)
        for table in SQLModel.metadata.tables.values()
        for constraint in table.constraints
        if constraint.__class__.__name__ == "CheckConstraint"
    }
    sql = await store.read(lambda c: c.execute(text("SELECT name, sql FROM sqlite_master")).all())
    for table, name in wanted:
        assert any(row.name == table and str(name) in row.sql for row in sql)


async def test_an_id_that_stands_outside_the_database_is_never_given_again(store: Store) -> None:
    def names(connection: Connection) -> set[str]:
        rows = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
        return {row.name for row in rows if "AUTOINCREMENT" in row.sql}

    wanted = {
        table.name
        for table in SQLModel.metadata.tables.values()
        if table.dialect_options["sqlite"]["autoincrement"]
    }
    assert await store.read(names) == wanted == {"user", "repo", "inbox", "build", "runner", "job"}
    first = await store.write(lambda c: repos.create(c, owner="a", name="b", now=1.0))
    await store.write(lambda c: c.execute(REPO.delete()))
    assert await store.write(lambda c: repos.create(c, owner="a", name="b", now=1.0)) == first + 1


async def test_an_upgrade_keeps_rows_and_what_they_point_to(tmp_path: Path) -> None:
    """A database of the first schema, with a build that has a job."""
    path = tmp_path / "shipway.db"
    config = Config()
    config.set_main_option("script_location", str(Path(upgrade.__file__).parent))
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()
    rows = (
        "repo VALUES (7, 'builtin', 'k', 'a', 'b', '', '', 5, 1, 1.0)",
        "build (id, repo_id, number, event_index, event, config_file, config, problems, status, reason, "
        "cancel_reason, created_at) VALUES (9, 7, 4, 0, '{}', '', '', '[]', 'success', '', '', 1.0)",
        "job (id, build_id, position, name, slug, spec, status, reason, attempt, epoch, is_accepted, "
        "lease_ticks, lost_attempts, created_at) "
        "VALUES (11, 9, 0, 'ci', 'ci', '{}', 'success', '', 1, 1, 1, 0, 0, 1.0)",
        "step VALUES (1, 11, 1, 0, 'a', 'a', 'commands', '', 'success', NULL, '', 0, 1, 2, 3, 4, 1, 1, 0)",
    )
    with sqlite3.connect(path) as plain:
        for row in rows:
            plain.execute(f"INSERT INTO {row}")
    plain.close()
    upgraded = Store(path)
    await upgraded.open()
    joined = (
        "SELECT job.id, build.id, repo.id FROM step JOIN job ON step.job_id = job.id "
        "JOIN build ON job.build_id = build.id JOIN repo ON build.repo_id = repo.id"
    )
    found = await upgraded.read(lambda c: c.execute(text(joined)).all())
    assert [tuple(row) for row in found] == [(11, 9, 7)]
    assert await upgraded.write(lambda c: repos.create(c, owner="a", name="c", now=1.0)) == 8
    with pytest.raises(Conflict):
        await upgraded.write(lambda c: c.execute(JOB.delete()))  # its step still points to it
    await upgraded.close()


async def test_opening_again_changes_nothing(store: Store, tmp_path: Path) -> None:
    await store.write(lambda c: code(c, "a"))
    again = Store(store.path)
    await again.open()
    assert await again.read(marks) == ["a"]
    await again.close()


async def test_two_servers_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    stores = [Store(tmp_path / "shipway.db") for _ in range(3)]
    await asyncio.gather(*(store.open() for store in stores))
    ids = await asyncio.gather(*(store.write(lambda c: meta.server_id(c, 1.0)) for store in stores))
    assert len(set(ids)) == 1
    await asyncio.gather(*(store.close() for store in stores))


async def test_a_new_file_that_another_server_writes_to_is_waited_for(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "shipway.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")  # not yet in WAL mode: SQLite refuses the change of mode at once
    store = Store(tmp_path / "shipway.db")
    threading.Timer(0.2, other.execute, ["COMMIT"]).start()
    await store.open()
    await store.close()
    other.close()


async def test_a_foreign_key_and_a_status_are_held_to(store: Store) -> None:
    with pytest.raises(Conflict):
        await store.write(
            lambda c: c.execute(text("INSERT INTO refstate (repo_id, ref, sha) VALUES (9, 'r', 's')"))
        )
    await store.write(lambda c: repos.create(c, owner="a", name="b", now=1.0))
    with pytest.raises(Conflict):
        await store.write(
            lambda c: c.execute(
                BUILD.insert().values(
                    repo_id=1,
                    number=1,
                    event_index=0,
                    event={},
                    config_file="",
                    config="",
                    problems=[],
                    status="lucky",
                    reason="",
                    cancel_reason="",
                    created_at=1.0,
                )
            )
        )


# --- builds under several writers ---------------------------------------------------------------------


async def test_one_event_makes_one_build_however_many_writers_try(store: Store, tmp_path: Path) -> None:
    from ci.server.store import inbox

    await store.write(lambda c: repos.create(c, owner="a", name="b", now=1.0))
    row = await store.write(lambda c: inbox.receive_own(c, repo_id=1, delivery="d", body=b"", now=1.0))
    other = Store(store.path)
    await other.open()

    async def make(store: Store) -> builds.Made | None:
        number = await store.read(lambda c: builds.next_number(c, 1))
        new = NewBuild(repo_id=1, number=number, event=event(), inbox_id=row, specs=(spec(),))
        try:
            return await store.write(lambda c: builds.create(c, new, 1.0))
        except builds.NumberTaken:
            return None

    made = await asyncio.gather(*(make(which) for which in (store, other) * 10))
    await other.close()
    assert sum(result is not None and result.is_new for result in made) == 1
    assert await store.read(lambda c: c.execute(select(func.count()).select_from(BUILD)).scalar_one()) == 1
    assert await store.read(lambda c: builds.next_number(c, 1)) == 2


async def test_numbers_of_a_repo_have_no_holes(store: Store) -> None:
    await store.write(lambda c: repos.create(c, owner="a", name="b", now=1.0))

    async def make() -> int:
        while True:
            number = await store.read(lambda c: builds.next_number(c, 1))
            new = NewBuild(repo_id=1, number=number, event=event(), specs=(spec(),))
            try:
                return (await store.write(lambda c, new=new: builds.create(c, new, 1.0))).number
            except builds.NumberTaken:
                continue

    assert sorted(await asyncio.gather(*(make() for _ in range(20)))) == list(range(1, 21))


async def test_a_taken_key_inside_a_fn_leaves_the_rest_of_it(store: Store) -> None:
    def twice(connection: Connection) -> tuple[int | None, int | None]:
        row = Code(kind="setup", hash="a", expires_at=1.0)
        return add_if_new(connection, row), add_if_new(connection, row)

    first, second = await store.write(twice)
    assert (first, second) == (1, None)
    assert await store.read(marks) == ["a"]
