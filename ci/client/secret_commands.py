"""`shipway secret`: names of secrets, and new values from standard input. None is ever shown."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ci.client import place, typed
from ci.client.command import Answer, said, speaks, table
from ci.client.http import Api, segment
from ci.client.options import OwnerOption, RepoOption, WideOption, group
from ci.client.output import ago

secret = group("Secrets of a repo, an owner or the whole server. Values come from standard input.")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="As pipelines name it.")]


@secret.command("ls")
@speaks
def list_secrets(
    api: Api, repo: RepoOption = "", owner: OwnerOption = "", server_wide: WideOption = False
) -> Answer:
    """The names, who may read each, and when it was used last."""
    scope = place.scope(api, repo, owner, server_wide)
    found = api.get(f"{scope.api}/secrets")
    rows = [
        (
            each["name"],
            scope.words,
            ", ".join(each["events"]) or "any",
            ", ".join((*each["images"], *each["steps"])) or "any",
            ago(each["used_at"]) or "never",
            "cannot be masked safely" if each["is_weak"] else "",
        )
        for each in found["secrets"]
    ]
    columns = ("NAME", "OF", "EVENTS", "IMAGES, STEPS", "USED", "NOTE")
    return table(
        found, columns, rows, empty=f"no secret of {scope.words}: `shipway secret set NAME` makes one"
    )


@secret.command("set")
@speaks
def set_secret(  # noqa: PLR0913 - each is an option of the command line
    api: Api,
    name: NameArgument,
    repo: RepoOption = "",
    owner: OwnerOption = "",
    server_wide: WideOption = False,
    event: Annotated[list[str] | None, typer.Option(help="Only for this event; may be repeated.")] = None,
    image: Annotated[list[str] | None, typer.Option(help="Only for steps of this image.")] = None,
    step: Annotated[list[str] | None, typer.Option(help="Only for the step of this name.")] = None,
    keep_value: Annotated[
        bool, typer.Option("--keep-value", help="Only who may read it changes; nothing is read.")
    ] = False,
) -> Answer:
    """Set a secret to what comes on standard input. Of a single line, the line end is left out.

    From a file: `shipway secret set NAME < file`. On a terminal it asks, and shows nothing of what is typed.
    """
    scope = place.scope(api, repo, owner, server_wide)
    body: dict[str, Any] = {"events": event or [], "images": image or [], "steps": step or []}
    if not keep_value:
        how = f"shipway secret set {name} < file"
        body["value"] = typed.text(f"Value of {name}: ", "a secret", how=how)
    found = api.put(f"{scope.api}/secrets/{segment(name)}", body)
    note = f"warning: {found['warning']}" if found["is_weak"] else ""
    return said(found, f"{name} is set for {scope.words}", note=note)


@secret.command("rm")
@speaks
def remove(
    api: Api,
    name: NameArgument,
    repo: RepoOption = "",
    owner: OwnerOption = "",
    server_wide: WideOption = False,
) -> Answer:
    """Remove a secret; steps that name it fail from now on."""
    scope = place.scope(api, repo, owner, server_wide)
    found = api.delete(f"{scope.api}/secrets/{segment(name)}")
    return said(found, f"{name} is removed from {scope.words}")
