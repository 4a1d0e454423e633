"""`shipway user`: accounts from the server's machine, also while it serves.

For a forgotten password or a lost admin. Whoever may read the data folder may do all of it anyway; the audit
log says that it came from here.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from ci.errors import Invalid
from ci.server import auth
from ci.server.bus import Bus
from ci.server.clock import Clock
from ci.server.config import Settings
from ci.server.people import Invited, NewPerson, People
from ci.server.store import users
from ci.server.store.database import Store
from ci.server.store.users import Person

T = TypeVar("T")
user = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help="Accounts of this server.")
Name = Annotated[str, typer.Argument(help="the account's name")]
Data = Annotated[
    Path | None, typer.Option(help="the server's data folder [SHIPWAY_DATA_DIR, ./shipway-data]")
]


@user.command("list")
def list_accounts(data: Data = None) -> None:
    """Show all accounts."""

    async def work(people: People, store: Store) -> list[Person]:
        now = Clock().now()
        return await store.read(lambda c: users.people(c, now))

    for person in _run(data, work):
        row = person.user
        words = [word for word, is_so in (("admin", row.is_admin), ("disabled", row.is_disabled)) if is_so]
        words += [] if row.password_hash else ["no password yet"]
        print(f"{row.name:<20} {', '.join(words) or 'active'}")


@user.command("add")
def add(
    name: Name,
    data: Data = None,
    admin: Annotated[bool, typer.Option("--admin", help="an admin of the server")] = False,
    takes_over: Annotated[
        bool, typer.Option("--takes-over", help="may own repos and secrets under this name already")
    ] = False,
) -> None:
    """Make an account; prints the code with which its person sets a password."""
    new = NewPerson(name=name, is_admin=admin, takes_over=takes_over)

    async def work(people: People, store: Store) -> Invited:
        return await people.create(new, auth.this_machine())

    _print_code(data, _run(data, work))


@user.command("reset-password")
def reset_password(
    name: Name,
    data: Data = None,
    stdin: Annotated[
        bool, typer.Option("--stdin", help="read the new password from standard input, one line")
    ] = False,
) -> None:
    """Print a one-time code for a new password, or set one from standard input."""
    if stdin:
        password = sys.stdin.readline().rstrip("\n")

        async def set_it(people: People, store: Store) -> None:
            row = await store.read(lambda c: users.named(c, name))
            await people.set_password(row.id or 0, auth.hash_password(password), auth.this_machine())

        _run(data, set_it)
        print(f"the password of {name} is set; all its sessions have ended")
        return

    async def make_code(people: People, store: Store) -> Invited:
        row = await store.read(lambda c: users.named(c, name))
        return await people.reset_password(row.id or 0, auth.this_machine())

    _print_code(data, _run(data, make_code))


@user.command("make-admin")
def make_admin(name: Name, data: Data = None) -> None:
    """Make an account an admin of the server."""

    async def work(people: People, store: Store) -> None:
        row = await store.read(lambda c: users.named(c, name))
        await people.set_admin(row.id or 0, True, auth.this_machine())

    _run(data, work)
    print(f"{name} is an admin")


@user.command("disable")
def disable(name: Name, data: Data = None) -> None:
    """Disable an account: its sessions end, its tokens do not count."""
    _set_disabled(name, True, data)
    print(f"{name} is disabled")


@user.command("enable")
def enable(name: Name, data: Data = None) -> None:
    """Enable an account again."""
    _set_disabled(name, False, data)
    print(f"{name} is enabled")


def _set_disabled(name: str, is_disabled: bool, data: Path | None) -> None:
    async def work(people: People, store: Store) -> None:
        row = await store.read(lambda c: users.named(c, name))
        await people.set_disabled(row.id or 0, is_disabled, auth.this_machine())

    _run(data, work)


def _run(data: Path | None, work: Callable[[People, Store], Awaitable[T]]) -> T:
    path = Settings.load(os.environ, {"data_dir": data}).data_dir / "shipway.db"
    if not path.exists():
        raise Invalid(f"no server has its data in {path.parent}; name the folder with --data")

    async def with_store() -> T:
        store = Store(path)
        await store.open()
        try:
            return await work(People(store, Bus(), Clock()), store)
        finally:
            await store.close()

    return asyncio.run(with_store())


def _print_code(data: Path | None, invited: Invited) -> None:
    url = Settings.load(os.environ, {"data_dir": data}).url
    print(f"code    {invited.code}")
    print(f"open    {url}/join    to set the password of {invited.name}; works once, within 24 hours")
