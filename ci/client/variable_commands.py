"""`shipway variable`: plain variables, for what is no secret. Their values are shown."""

from __future__ import annotations

from typing import Annotated

import typer

from ci.client import place
from ci.client.command import Answer, said, speaks, table
from ci.client.http import Api, segment
from ci.client.options import OwnerOption, RepoOption, WideOption, group, pairs
from ci.client.output import ago

variable = group("Plain variables of a repo, an owner or the whole server. What is secret is a secret.")


@variable.command("ls")
@speaks
def list_variables(
    api: Api, repo: RepoOption = "", owner: OwnerOption = "", server_wide: WideOption = False
) -> Answer:
    """The variables, with their values."""
    scope = place.scope(api, repo, owner, server_wide)
    found = api.get(f"{scope.api}/variables")
    rows = [
        (each["name"], ago(each["changed_at"]), each["changed_by"], each["value"])
        for each in found["variables"]
    ]
    empty = f"no variable of {scope.words}: `shipway variable set NAME=VALUE` makes one"
    return table(found, ("NAME", "CHANGED", "BY", "VALUE"), rows, empty=empty)


@variable.command("set")
@speaks
def set_variable(
    api: Api,
    pair: Annotated[str, typer.Argument(metavar="NAME=VALUE", help="Others on this machine can see it.")],
    repo: RepoOption = "",
    owner: OwnerOption = "",
    server_wide: WideOption = False,
) -> Answer:
    """Set a variable that every build from now on gets."""
    scope = place.scope(api, repo, owner, server_wide)
    ((name, value),) = pairs("the argument", [pair]).items()
    found = api.put(f"{scope.api}/variables/{segment(name)}", {"value": value})
    return said(found, f"{name} is set for {scope.words}")


@variable.command("rm")
@speaks
def remove(
    api: Api,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Letter case counts.")],
    repo: RepoOption = "",
    owner: OwnerOption = "",
    server_wide: WideOption = False,
) -> Answer:
    """Remove a variable; builds from now on do not get it."""
    scope = place.scope(api, repo, owner, server_wide)
    found = api.delete(f"{scope.api}/variables/{segment(name)}")
    return said(found, f"{name} is removed from {scope.words}")
