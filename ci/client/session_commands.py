"""`shipway login`, `logout`, `whoami`, `join`, `setup`: who somebody is on which server."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Annotated

import typer

from ci.client import typed
from ci.client.command import Answer, facts, speaks
from ci.client.http import Api
from ci.client.options import JsonOption, ServerOption
from ci.client.output import note, show_json
from ci.client.servers import Account, Servers, clean_url, config_folder, is_loopback
from ci.errors import Invalid

TOKEN_DAYS = 365


UrlArgument = Annotated[str, typer.Argument(metavar="URL", help="The server's address.")]


def login(
    url: UrlArgument = "",
    name: Annotated[str, typer.Option("--name", help="Sign in with this name and its password.")] = "",
    scope: Annotated[
        list[str] | None, typer.Option(help="With --name: what the token may: read, write, admin.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Sign in to a server, and keep a token of yours for the commands.

    The token (from the page Account) is asked for, or read from standard input; with --name, the password
    is, and the server makes a token. Neither is ever an option, where others could read it.
    """
    account = _at(url)
    if name:
        account = _by_password(account, name, scope or ["read", "write"])
    else:
        account = replace(account, token=typed.line(f"Token, from {account.url}/account: ", "a token"))
    _keep(account, as_json)


def setup(
    name: Annotated[str, typer.Option("--name", help="What the first account is called.")],
    url: UrlArgument = "",
    as_json: JsonOption = False,
) -> None:
    """Make a new server's first account, an administrator's, and sign in to it.

    The code that `shipway serve` prints and a password are asked for, or are the two lines of standard input.
    """
    account = _at(url)
    with Api(account) as api:
        found = api.post("/api/setup", {**_code_and_password(), "name": name})
    _keep(replace(account, token=found["token"]), as_json)


def join(url: UrlArgument = "", as_json: JsonOption = False) -> None:
    """Set the password of your account with the code that an administrator gave you.

    The code and the password are asked for, or are the two lines of standard input.
    """
    account = _at(url)
    with Api(account) as api:
        found = api.post("/api/join", _code_and_password())
    sign_in = f"shipway login {account.url} --name {found['user']}"
    show_json(found) if as_json else print(f"the password of {found['user']} is set: `{sign_in}`")


def _code_and_password() -> dict[str, str]:
    code = typed.line("The code: ", "a code")
    return {"code": code, "password": typed.line("A password: ", "a password")}


def _at(url: str) -> Account:
    """Nobody yet, on the server that is meant."""
    address = url or os.environ.get("SHIPWAY_URL") or Servers(config_folder(os.environ)).current
    if not address:
        raise Invalid("which server? Give its address: shipway login https://ci.example.org")
    account = Account(url=clean_url(address))
    if account.url.startswith("http://") and not is_loopback(account.url):
        note(f"warning: {account.url} is not https: whoever is on the way can read what you send")
    return account


def _keep(account: Account, as_json: bool) -> None:
    """If the server knows the token."""
    with Api(account) as api:
        found = api.get("/api/account")
    Servers(config_folder(os.environ)).keep(replace(account, user=str(found["user"])))
    show_json(found) if as_json else print(f"signed in to {account.url} as {found['user']}")


def _by_password(account: Account, name: str, scopes: list[str]) -> Account:
    """A new token, asked for in a session that ends again."""
    with Api(account) as api:
        api.sign_in(name, typed.line("Password: ", "a password"))
        body = {"name": f"shipway on {os.uname().nodename}"[:100], "scopes": scopes, "days": TOKEN_DAYS}
        token = str(api.post("/api/account/tokens", body)["token"])
        api.sign_out()
    return replace(account, token=token)


def logout(server: ServerOption = "") -> None:
    """Forget a server's token here. It stays good until you revoke it on the page Account."""
    servers = Servers(config_folder(os.environ))
    url = servers.named(server) if server else servers.current
    if not url or servers.account(url) is None:
        raise Invalid(f"you are not signed in{f' to {url}' if url else ''}")
    servers.forget(url)
    print(f"signed out of {url}; the token is good until you revoke it on {url}/account")


@speaks
def whoami(api: Api) -> Answer:
    """Who you are on the server, and what your token may."""
    found = api.get("/api/account")
    scopes = found["scopes"]
    others = [url for url in Servers(config_folder(os.environ)).urls if url != api.account.url]
    return facts(
        found,
        [
            ("user", found["user"] + (" (administrator)" if found["is_admin"] else "")),
            ("server", api.account.url),
            ("token may", "everything that you may" if scopes is None else ", ".join(scopes)),
            ("signed in to too", ", ".join(others)),
        ],
    )
