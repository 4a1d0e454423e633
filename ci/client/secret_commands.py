"""`shipway secret`: names of secrets, and new values from standard input. None is ever shown."""

from __future__ import annotations

import getpass
import sys
from typing import Annotated

import typer

from ci.client import place
from ci.client.http import Api, segment
from ci.client.options import JsonOption, ServerOption, connect, group
from ci.client.output import ago, note, show_json, show_table
from ci.client.terminal import plain
from ci.errors import Invalid

secret = group("Secrets of a repo, an owner or the whole server. Values come from standard input.")
MAX_BYTES = 64 << 10

RepoOption = Annotated[
    str, typer.Option("--repo", metavar="OWNER/NAME", help="Of this repo. [a git clone: its remote]")
]
OwnerOption = Annotated[str, typer.Option("--owner", metavar="OWNER", help="Of all repos of an owner.")]
WideOption = Annotated[bool, typer.Option("--server-wide", help="Of every repo of the server.")]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="As pipelines name it.")]


def _place(api: Api, repo: str, owner: str, is_server_wide: bool) -> tuple[str, str]:
    """The address of a place's secrets, and the place in words."""
    if (repo != "") + (owner != "") + is_server_wide > 1:
        raise Invalid("give one of --repo, --owner and --server-wide")
    if is_server_wide:
        return "/api/secrets", "every repo of the server"
    if owner:
        return f"/api/owners/{segment(owner)}/secrets", f"every repo of {owner}"
    where = place.repo(repo, api.account.url)
    return f"{where.api}/secrets", str(where)


@secret.command("ls")
def list_secrets(
    repo: RepoOption = "",
    owner: OwnerOption = "",
    server_wide: WideOption = False,
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """The names, who may read each, and when it was used last."""
    with connect(server) as api:
        path, words = _place(api, repo, owner, server_wide)
        found = api.get(path)
    if as_json:
        show_json(found)
        return
    rows = [
        (
            each["name"],
            each.get("place", words),
            ", ".join(each["events"]) or "any",
            ", ".join((*each["images"], *each["steps"])) or "any",
            ago(each.get("used_at")) or "never",
            "cannot be masked safely" if each.get("is_weak") else "",
        )
        for each in found["secrets"]
    ]
    columns = ("NAME", "OF", "EVENTS", "IMAGES, STEPS", "USED", "NOTE")
    show_table(columns, rows, empty=f"no secret of {words}: `shipway secret set NAME` makes one")


@secret.command("set")
def set_secret(  # noqa: PLR0913 - each is an option of the command line
    name: NameArgument,
    repo: RepoOption = "",
    owner: OwnerOption = "",
    server_wide: WideOption = False,
    event: Annotated[list[str] | None, typer.Option(help="Only for this event; may be repeated.")] = None,
    image: Annotated[list[str] | None, typer.Option(help="Only for steps of this image.")] = None,
    step: Annotated[list[str] | None, typer.Option(help="Only for the step of this name.")] = None,
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Set a secret to what comes on standard input. Of a single line, the line end is left out.

    From a file: `shipway secret set NAME < file`. On a terminal it asks, and shows nothing of what is typed.
    """
    with connect(server) as api:
        path, words = _place(api, repo, owner, server_wide)
        body = {
            "value": _value(name),
            "events": event or [],
            "images": image or [],
            "steps": step or [],
        }
        found = api.call("PUT", f"{path}/{segment(name)}", body=body)
    if as_json:
        show_json(found)
        return
    print(f"{name} is set for {words}")
    if isinstance(found, dict) and found.get("is_weak"):
        why = found.get("warning") or "it is too short or too common to be masked safely in logs"
        note(f"warning: {plain(str(why))}")


def _value(name: str) -> str:
    if sys.stdin.isatty():
        value = getpass.getpass(f"Value of {name}: ")
    else:
        raw = sys.stdin.buffer.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise Invalid(f"a secret has at most {MAX_BYTES >> 10} KiB")
        try:
            value = raw.decode()
        except UnicodeDecodeError as error:
            raise Invalid(
                "a secret is text in UTF-8; encode other bytes first, as with `base64 -w0`"
            ) from error
    if not value.strip():
        raise Invalid(
            "nothing came on standard input: give the value there, as `shipway secret set NAME < file`"
        )
    return value


@secret.command("rm")
def remove(
    name: NameArgument,
    repo: RepoOption = "",
    owner: OwnerOption = "",
    server_wide: WideOption = False,
    server: ServerOption = "",
) -> None:
    """Remove a secret; steps that name it fail from now on."""
    with connect(server) as api:
        path, words = _place(api, repo, owner, server_wide)
        api.call("DELETE", f"{path}/{segment(name)}")
    print(f"{name} is removed from {words}")
