"""The server put together: it starts, does its rounds, survives an error in one, and stops."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ci.errors import Unavailable
from ci.server.config import Settings
from ci.server.forges.base import Push, Update
from ci.server.store import inbox, repos, runners
from ci.server.wiring import Server
from tests.unit.gitting import CONFIG, ZERO, Work
from tests.unit.world import ADA


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    server = Server(Settings.load({}, {"data_dir": str(tmp_path / "data")}, tmp_path))
    await server.start()
    yield server
    await server.stop()


async def test_the_data_folder_is_ours_alone_and_holds_everything(server: Server) -> None:
    folder = server.settings.data_dir
    assert folder.stat().st_mode & 0o077 == 0
    assert {"shipway.db", "vault.key"} <= {path.name for path in folder.iterdir()}
    assert len(server.server_id) == 16


async def test_a_restarted_server_is_the_same_and_knows_no_runner_as_connected(server: Server) -> None:
    code = await server.runner_code()
    runner, _ = await server.store.write(
        lambda c: runners.register(c, code=code, name="a", labels={}, capacity=1, now=server.clock.now())
    )
    assert await server.setup_code() is not None
    await server.stop()
    again = Server(server.settings)
    await again.start()
    assert again.server_id == server.server_id
    row = await again.store.read(lambda c: runners.find(c, runner))
    assert row is not None and not row.is_connected
    await again.stop()
    await again.stop()


async def test_a_data_folder_has_one_server(server: Server) -> None:
    with pytest.raises(Unavailable, match="another server runs on the data folder"):
        await Server(server.settings).start()


async def test_a_delivery_is_processed_without_being_asked(server: Server, tmp_path: Path) -> None:
    repo = (await server.repos.add_builtin("ada", "app", ADA)).repo
    work = Work(tmp_path / "work", await server.forges.builtin.create(repo.id or 0))
    sha = work.commit_files({".ci.yml": CONFIG})
    with server.bus.subscribe("builds") as topics:
        row = await server.pushes.received(repo.id or 0, "p", [("refs/heads/main", ZERO, sha)], "ada")
        work.git("push", "-q", "origin", "main")
        server.inbox.release(row)  # as after a crash
        server.bus.publish("deliveries")
        assert await topics.wait(30)
    assert await server.store.read(lambda c: repos.ref_states(c, repo.id or 0)) == {"refs/heads/main": sha}


async def test_an_error_in_a_round_is_logged_and_the_next_round_comes(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    repo = (await server.repos.add_builtin("ada", "app", ADA)).repo
    push = Push(push_id="p", refs=(Update(ref="refs/notes/x", after="a" * 40),), is_found=True)
    with sqlite3.connect(server.store.path) as database, server.bus.subscribe("inbox") as topics:
        database.execute("ALTER TABLE inbox RENAME TO elsewhere")
        database.commit()
        server.bus.publish("deliveries")
        async with asyncio.timeout(10):
            while "it goes on" not in caplog.text:
                await asyncio.sleep(0)
        database.execute("ALTER TABLE elsewhere RENAME TO inbox")
        database.commit()
        row = await server.store.write(
            lambda c: inbox.receive_own(c, repo_id=repo.id or 0, delivery="p", body=push.body(), now=1.0)
        )
        server.bus.publish("deliveries")
        assert await topics.wait(10)
    database.close()
    stored = await server.store.read(lambda c: inbox.by_id(c, row))
    assert stored is not None and "neither a branch nor a tag" in stored.verdict
