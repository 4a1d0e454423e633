"""`shipway people` and `shipway audit`: the accounts of a server, and who did what."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ci.client import place, typed
from ci.client.command import Answer, facts, pick, said, speaks, table
from ci.client.http import Api
from ci.client.options import BeforeOption, YesOption, group
from ci.client.output import ago
from ci.errors import Invalid

people = group("Accounts of a server: list, make, change, remove.")

NameArgument = Annotated[str, typer.Argument(metavar="PERSON", help="The account's name, or its id.")]


@people.command("ls")
@speaks
def list_people(api: Api) -> Answer:
    """The accounts."""
    found = api.get("/api/people")
    rows = [
        (
            each["name"],
            "admin" if each["is_admin"] else "",
            _state(each),
            ago(each["seen_at"]) or "never",
            str(each["repos"]),
            str(each["tokens"]),
        )
        for each in found["people"]
    ]
    return table(found, ("PERSON", "IS", "STATE", "SEEN", "REPOS", "TOKENS"), rows, empty="no account yet")


def _state(person: dict[str, Any]) -> str:
    if person["is_disabled"]:
        return "disabled"
    return "active" if person["has_password"] else "has not come yet"


@people.command()
@speaks
def add(
    api: Api,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is called.")],
    admin: Annotated[bool, typer.Option("--admin", help="An administrator of the server.")] = False,
    takes_over: Annotated[
        bool, typer.Option("--takes-over", help="The namespace of repos that are there already.")
    ] = False,
) -> Answer:
    """Make an account; prints the code with which its owner sets a password."""
    body = {"name": name, "is_admin": admin, "takes_over": takes_over}
    return _invited(api.post("/api/people", body))


@people.command()
@speaks
def reset(api: Api, person: NameArgument) -> Answer:
    """Make a code that sets a new password."""
    return _invited(api.post(f"{_address(api, person)}/reset"))


@people.command("set")
@speaks
def change(
    api: Api,
    person: NameArgument,
    admin: Annotated[
        bool | None, typer.Option("--admin/--no-admin", help="An administrator, or not.")
    ] = None,
    disabled: Annotated[
        bool | None,
        typer.Option("--disabled/--enabled", help="Its sessions end and no token counts; or back."),
    ] = None,
) -> Answer:
    """Make somebody an administrator or not, disable an account or enable it."""
    if admin is None and disabled is None:
        raise Invalid("nothing to change: give --admin, --no-admin, --disabled or --enabled")
    address = _address(api, person)
    if admin is not None:
        api.post(f"{address}/admin", {"is_admin": admin})
    if disabled is not None:
        api.post(f"{address}/disabled", {"is_disabled": disabled})
    return said(None, f"{person} is changed")


@people.command("rm")
@speaks
def remove(api: Api, person: NameArgument, yes: YesOption = False) -> Answer:
    """Remove an account with its tokens and roles."""
    address = _address(api, person)
    typed.confirm(f"Remove {person}?", is_sure=yes)
    return said(api.post(f"{address}/delete"), f"{person} is removed")


def _address(api: Api, person: str) -> str:
    return f"/api/people/{pick(api.get('/api/people')['people'], person, 'account')['id']}"


def _invited(found: dict[str, Any]) -> Answer:
    return facts(found, [("person", found["name"]), ("code", found["code"]), ("typed at", found["url"])])


@speaks
def audit(  # noqa: PLR0913 - each is an option of the command line
    api: Api,
    repo: Annotated[
        str, typer.Argument(metavar="[REPO]", help="OWNER/NAME; nothing: the whole server.")
    ] = "",
    who: Annotated[str, typer.Option(metavar="PERSON", help="Only what this person did.")] = "",
    action: Annotated[str, typer.Option(help="Only this, such as `secret.set`.")] = "",
    query: Annotated[str, typer.Option("-q", "--query", help="What stands in the object or details.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many.")] = 50,
    before: BeforeOption = None,
) -> Answer:
    """Who did what, the newest first: in a repo, or on the whole server."""
    path = f"{place.repo(repo, api.account.url).api}/audit" if repo else "/api/audit"
    found = api.get(path, who=who, action=action, q=query, limit=limit, before=before)
    rows = [
        (str(each["id"]), ago(each["at"]), each["user_name"], each["action"], each["object"], each["details"])
        for each in found["audit"]
    ]
    return table(found, ("ID", "WHEN", "WHO", "DID", "TO", "DETAILS"), rows, empty="nothing was done")
