"""`shipway vault`: the key that seals secrets, on the server's own machine, while no server runs."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from ci.errors import Invalid
from ci.server import rotation
from ci.server.config import Settings
from ci.server.store.database import Store
from ci.server.wiring import locked

vault = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="The key that seals secrets.",
)


@vault.callback()
def _group() -> None:
    """The key that seals secrets."""


@vault.command("rotate")
def rotate(
    data: Annotated[
        Path | None, typer.Option(help="the server's data folder [SHIPWAY_DATA_DIR, ./shipway-data]")
    ] = None,
) -> None:
    """Make a new key, seal everything anew with it and remove the old one. Stop the server first."""
    folder = Settings.load(os.environ, {"data_dir": data}).data_dir
    if not (folder / "shipway.db").exists():
        raise Invalid(f"no server has its data in {folder.absolute()}; name the folder with --data")
    with locked(folder):
        count = asyncio.run(_rotate(folder))
    values = "value is" if count == 1 else "values are"
    print(f"{count} {values} sealed with a new key, in {folder / 'vault.key'}")
    print("make a backup now: an older shipway.db needs the vault.key of its own time")


async def _rotate(folder: Path) -> int:
    store = Store(folder / "shipway.db")
    await store.open()
    try:
        return await rotation.rotate(store, folder / "vault.key")
    finally:
        await store.close()
