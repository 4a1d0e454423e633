"""`shipway login`, `logout`, `whoami`: who somebody is on which server."""

from __future__ import annotations

import getpass
import os
import sys
from dataclasses import replace
from typing import Annotated

import typer

from ci.client.http import Api
from ci.client.options import JsonOption, ServerOption, connect
from ci.client.output import note, show_facts, show_json
from ci.client.servers import Account, Servers, choose, clean_url, config_folder, is_loopback
from ci.errors import Invalid

TOKEN_DAYS = 365


def login(
    url: Annotated[str, typer.Argument(metavar="URL", help="The server's address.")] = "",
    name: Annotated[str, typer.Option("--name", help="Sign in with this name and its password.")] = "",
    scope: Annotated[
        list[str] | None, typer.Option(help="With --name: what the token may: read, write, admin.")
    ] = None,
) -> None:
    """Sign in to a server, and keep a token of yours for the commands.

    The token (from the page Account) is asked for, or read from standard input; with --name, the password
    is, and the server makes a token. Neither is ever an option, where others could read it.
    """
    servers = Servers(config_folder(os.environ))
    address = clean_url(url) if url else os.environ.get("SHIPWAY_URL") or servers.current
    if not address:
        raise Invalid("which server? Give its address: shipway login https://ci.example.org")
    account = Account(url=clean_url(address))
    if account.url.startswith("http://") and not is_loopback(account.url):
        note(f"warning: {account.url} is not https: whoever is on the way can read your token")
    if name:
        account = _by_password(account, name, scope or ["read", "write"])
    else:
        account = replace(account, token=_secret(f"Token, from {account.url}/account: "))
    with Api(account) as api:
        found = api.get("/api/account")
    servers.keep(replace(account, user=str(found["user"])))
    print(f"signed in to {account.url} as {found['user']}")


def _by_password(account: Account, name: str, scopes: list[str]) -> Account:
    """A new token, asked for in a session that ends again."""
    with Api(account) as api:
        api.sign_in(name, _secret("Password: "))
        body = {"name": f"shipway on {os.uname().nodename}"[:100], "scopes": scopes, "days": TOKEN_DAYS}
        token = str(api.post("/api/account/tokens", body)["token"])
        api.sign_out()
    return replace(account, token=token)


def _secret(prompt: str) -> str:
    """One line that is not shown: typed, or from standard input where that is no terminal."""
    found = getpass.getpass(prompt) if sys.stdin.isatty() else sys.stdin.readline()
    if not found.strip():
        raise Invalid("nothing came on standard input where a token or a password was expected")
    return found.strip("\r\n") if sys.stdin.isatty() else found.strip()


def logout(server: ServerOption = "") -> None:
    """Forget a server's token here. It stays good until you revoke it on the page Account."""
    servers = Servers(config_folder(os.environ))
    url = servers.named(server) if server else servers.current
    if not url or servers.account(url) is None:
        raise Invalid(f"you are not signed in{f' to {url}' if url else ''}")
    servers.forget(url)
    print(f"signed out of {url}; the token is good until you revoke it on {url}/account")


def whoami(server: ServerOption = "", as_json: JsonOption = False) -> None:
    """Who you are on the server, and what your token may."""
    account = choose(server, os.environ)
    with connect(server) as api:
        found = api.get("/api/account")
    if as_json:
        show_json(found)
        return
    scopes = found.get("scopes")
    others = [url for url in Servers(config_folder(os.environ)).urls if url != account.url]
    show_facts(
        [
            ("user", found["user"] + (" (administrator)" if found.get("is_admin") else "")),
            ("server", account.url),
            ("token may", "everything that you may" if scopes is None else ", ".join(scopes)),
            ("signed in to too", ", ".join(others)),
        ]
    )
