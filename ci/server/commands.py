"""Commands of an administrator on the server's machine: they use the data folder, also while it serves."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from ci.errors import Invalid
from ci.server import auth
from ci.server.config import Settings
from ci.server.wiring import Server

admin = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="What an administrator does on the server's own machine, in its data folder.",
)
repo = typer.Typer(no_args_is_help=True, help="Repos of this server.")
admin.add_typer(repo, name="repo")


@repo.callback()
def _group() -> None:
    """Repos of this server."""


@repo.command("add")
def add(
    path: Annotated[str, typer.Argument(help="OWNER/NAME on this server")],
    clone_url: Annotated[str, typer.Option(help="where git fetches it from: http or https")],
    data: Annotated[
        Path | None, typer.Option(help="the server's data folder [SHIPWAY_DATA_DIR, ./shipway-data]")
    ] = None,
) -> None:
    """Add a repo that lives elsewhere; prints its webhook and the secret, once."""
    settings = Settings.load(os.environ, {"data_dir": data})
    if not (settings.data_dir / "shipway.db").exists():
        raise Invalid(
            f"no server has its data in {settings.data_dir.absolute()}; name the folder with --data"
        )
    owner, slash, name = path.partition("/")
    if not slash:
        raise Invalid(f"{path!r} is not OWNER/NAME")
    hook_id, secret = asyncio.run(_add(settings, owner, name, clone_url))
    print(f"hook    {settings.url}/hooks/{hook_id}")
    print(f"secret  {secret}")


async def _add(settings: Settings, owner: str, name: str, clone_url: str) -> tuple[str, str]:
    server = Server(settings)
    await server.store.open()
    try:
        added = await server.repos.add_plain((owner, name), clone_url, None, auth.this_machine())
    finally:
        await server.store.close()
    return added.hook_id, added.secret
