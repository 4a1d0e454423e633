"""A new key for the vault: everything is sealed anew, and whenever it is cut off everything can be read."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Connection, LargeBinary, select
from sqlmodel import SQLModel

from ci.errors import Unavailable
from ci.server import rotation
from ci.server.store import repos, sealed, secrets
from ci.server.store.database import Store
from ci.server.store.secrets import NewSecret
from ci.server.store.tables import HOOK, REPO, SECRET
from ci.server.vault import Vault, load_keys, new_key, replace_keys
from ci.server.wiring import locked

PLAIN = b"the value of a secret"


def old_form(key: bytes, purpose: str) -> bytes:
    """As it was sealed before keys had ids."""
    return bytes(12) + AESGCM(key).encrypt(bytes(12), PLAIN, purpose.encode())


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(tmp_path / "shipway.db")
    await store.open()
    yield store
    await store.close()


async def fill(store: Store, path: Path) -> None:
    """A value in every sealed column, in both forms."""
    (key,) = load_keys(path)
    vault = Vault(key)

    def write(c: Connection) -> None:
        repo_id = repos.create(c, owner="ada", name="app", now=1.0)
        for name in ("a", "b", "c"):
            value = vault.seal(PLAIN, secrets.purpose("server", name))
            secrets.put(c, NewSecret(place="server", name=name, sealed=value), 1.0)
        old = old_form(key, secrets.purpose(f"repo:{repo_id}", "a"))
        secrets.put(c, NewSecret(place=f"repo:{repo_id}", name="a", sealed=old), 1.0)
        hook = vault.seal(PLAIN, repos.secret_purpose("h"))
        repos.add_hook(c, hook_id="h", repo_id=repo_id, forge="git", sealed_secret=hook)
        c.execute(HOOK.update().values(old_secret=old_form(key, repos.secret_purpose("h"))))
        c.execute(REPO.update().values(credential=vault.seal(PLAIN, repos.credential_purpose(repo_id))))

    await store.write(write)


def opened(c: Connection, vault: Vault) -> list[bytes]:
    """Every sealed value, opened."""
    return [
        vault.open(row._mapping[each.column], each.purpose(row))
        for each in sealed.COLUMNS
        for row in c.execute(select(each.table).where(each.table.c[each.column].is_not(None))).all()
    ]


def test_every_column_of_bytes_is_sealed_anew_but_the_deliveries() -> None:
    columns = {
        f"{table.name}.{column.name}"
        for table in SQLModel.metadata.tables.values()
        for column in table.columns
        if isinstance(column.type, LargeBinary)
    }
    assert {f"{each.table.name}.{each.column}" for each in sealed.COLUMNS} == columns - {"inbox.body"}


async def test_everything_is_sealed_with_a_new_key_and_the_old_one_opens_nothing(
    store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "vault.key"
    await fill(store, path)
    old = load_keys(path)
    assert await rotation.rotate(store, path) == 7
    new = load_keys(path)
    assert len(new) == 1 and new != old
    assert path.stat().st_mode & 0o777 == 0o600
    assert await store.read(lambda c: opened(c, Vault(*new))) == [PLAIN] * 7
    with pytest.raises(Unavailable):
        await store.read(lambda c: opened(c, Vault(*old)))


async def test_cut_off_after_either_step_everything_can_be_read_and_a_second_try_finishes(
    store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "vault.key"
    await fill(store, path)
    keys = (new_key(), *load_keys(path))
    replace_keys(path, keys)
    assert await store.read(lambda c: opened(c, Vault.load(path))) == [PLAIN] * 7
    vault = Vault(*keys)
    again = await store.write(lambda c: sealed.seal_anew(c, lambda v, p: vault.seal(vault.open(v, p), p)))
    assert again == 7
    assert await store.read(lambda c: opened(c, Vault.load(path))) == [PLAIN] * 7
    await rotation.rotate(store, path)
    assert len(load_keys(path)) == 1
    assert await store.read(lambda c: opened(c, Vault.load(path))) == [PLAIN] * 7


async def test_a_value_that_no_key_opens_keeps_every_key_and_changes_nothing(
    store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "vault.key"
    await fill(store, path)
    (key,) = load_keys(path)
    lost = Vault(bytes(32)).seal(PLAIN, secrets.purpose("server", "lost"))
    await store.write(lambda c: secrets.put(c, NewSecret(place="server", name="lost", sealed=lost), 1.0))
    with pytest.raises(Unavailable, match="secret server lost: it was sealed with another key"):
        await rotation.rotate(store, path)
    assert key in load_keys(path)
    await store.write(lambda c: secrets.remove(c, "server", "lost"))
    assert await store.read(lambda c: opened(c, Vault(key))) == [PLAIN] * 7


KILLED = """
import asyncio, sys
from pathlib import Path
from ci.server import rotation
from ci.server.store.database import Store

async def main(folder):
    store = Store(folder / "shipway.db")
    await store.open()
    print("ready", flush=True)
    while True:
        await rotation.rotate(store, folder / "vault.key")

asyncio.run(main(Path(sys.argv[1])))
"""


async def test_killed_at_any_moment_everything_can_be_read(store: Store, tmp_path: Path) -> None:
    await fill(store, tmp_path / "vault.key")
    chance = random.Random(4711)
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0.0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        vault = Vault.load(tmp_path / "vault.key")
        assert await store.read(lambda c, vault=vault: opened(c, vault)) == [PLAIN] * 7
    await rotation.rotate(store, tmp_path / "vault.key")
    assert len(load_keys(tmp_path / "vault.key")) == 1


async def test_the_command_wants_the_server_to_be_stopped(store: Store, tmp_path: Path) -> None:
    await fill(store, tmp_path / "vault.key")
    shipway = Path(sys.executable).with_name("shipway")
    command = [str(shipway), "vault", "rotate", "--data", str(tmp_path)]
    with locked(tmp_path):
        refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "another server runs on the data folder" in refused.stderr
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "7 values are sealed with a new key" in done.stdout
    assert await store.read(lambda c: opened(c, Vault.load(tmp_path / "vault.key"))) == [PLAIN] * 7
    rows = await store.read(lambda c: c.execute(select(SECRET.c.sealed)).all())
    assert all(PLAIN not in row.sealed for row in rows)
