"""`shipway repo`: the repos of a server and their settings."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ci.client import place
from ci.client.options import JsonOption, RepoArgument, ServerOption, connect, group
from ci.client.output import ago, show_facts, show_json, show_table, status
from ci.errors import Invalid

repo = group("Repos of a server: list, look at, add, switch on and off, remove, change.")


@repo.command("ls")
def list_repos(server: ServerOption = "", as_json: JsonOption = False) -> None:
    """The repos that you may see."""
    with connect(server) as api:
        found = api.get("/api/repos")
    if as_json:
        show_json(found)
        return
    rows = [
        (
            each["repo"],
            each["forge"],
            "private" if each["is_private"] else "public",
            status(each["last_build"]["status"]) if each["last_build"] else "",
            ago(each["last_build"]["created_at"]) if each["last_build"] else "",
            each["last_build"]["event"]["title"] if each["last_build"] else "",
        )
        for each in found["repos"]
    ]
    columns = ("REPO", "FORGE", "SEEN BY", "LAST", "WHEN", "WHAT")
    show_table(columns, rows, empty="no repo yet: `shipway repo add OWNER/NAME --clone-url URL`, or push one")


@repo.command()
def show(repo: RepoArgument = "", server: ServerOption = "", as_json: JsonOption = False) -> None:
    """One repo."""
    with connect(server) as api:
        found = api.get(place.repo(repo, api.account.url).api)
    if as_json:
        show_json(found)
        return
    last = found["last_build"]
    show_facts(
        [
            ("repo", found["repo"]),
            ("forge", found["forge"]),
            ("seen by", "those who may" if found["is_private"] else "everybody"),
            (
                "enabled",
                "" if found.get("is_enabled", True) else "no: deliveries are kept, and build nothing",
            ),
            ("default branch", found["default_branch"]),
            ("branches", ", ".join(found["branches"])),
            (
                "last build",
                f"{last['number']} {last['status']} {ago(last['created_at'])}" if last else "none",
            ),
            ("link", found["url"]),
        ]
    )


@repo.command()
def add(
    path: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Its path on the server.")],
    clone_url: Annotated[str, typer.Option(help="Where git fetches it from: http or https.")],
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Add a repo that lives elsewhere; prints its webhook and the secret, once."""
    with connect(server) as api:
        where = place.repo(path, api.account.url)
        found = api.post("/api/repos", {"path": str(where), "clone_url": clone_url})
    if as_json:
        show_json(found)
    else:
        show_facts([("repo", found["repo"]), ("hook", found["hook"]), ("secret", found["secret"])])


def _change(repo: str, word: str, server: str, as_json: bool) -> None:
    with connect(server) as api:
        where = place.repo(repo, api.account.url)
        found = api.post(f"{where.api}/{word}")
    show_json(found) if as_json else print(f"{where} is {word}d")


@repo.command()
def enable(repo: RepoArgument = "", server: ServerOption = "", as_json: JsonOption = False) -> None:
    """Let its events make builds again."""
    _change(repo, "enable", server, as_json)


@repo.command()
def disable(repo: RepoArgument = "", server: ServerOption = "", as_json: JsonOption = False) -> None:
    """Keep its deliveries, but build nothing."""
    _change(repo, "disable", server, as_json)


@repo.command()
def settings(
    repo: RepoArgument = "",
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Change a setting; may be repeated."),
    ] = None,
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """What an administrator has set for a repo; --set changes it."""
    with connect(server) as api:
        where = place.repo(repo, api.account.url)
        if change:
            found = api.post(f"{where.api}/settings", dict(map(_pair, change)))
        else:
            found = api.get(f"{where.api}/settings")
    if as_json:
        show_json(found)
    else:
        show_facts([(name, _shown(value)) for name, value in found.items()])


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise Invalid(f"--set {text!r} is not NAME=VALUE")
    return name.replace("-", "_"), value


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value if value is not None else "")
