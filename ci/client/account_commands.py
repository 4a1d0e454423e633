"""`shipway token`, `session`, `password`: what is one's own on a server."""

from __future__ import annotations

from typing import Annotated

import typer

from ci.client import typed
from ci.client.command import Answer, pick, said, speaks, table
from ci.client.http import Api
from ci.client.options import group
from ci.client.output import ago
from ci.errors import Invalid

token = group("Tokens of yours, for programs: list, make, revoke.")
session = group("Sessions of yours in browsers: list, end.")


@token.command("ls")
@speaks
def list_tokens(api: Api) -> Answer:
    """Your tokens, without their values: what each may, and when it was used last."""
    found = api.get("/api/account/tokens")
    rows = [
        (
            str(each["id"]),
            each["name"],
            ", ".join(each["scopes"]),
            ago(each["used_at"]) or "never",
            ago(each["expires_at"]) or "never",
        )
        for each in found["tokens"]
    ]
    return table(found, ("ID", "TOKEN", "MAY", "USED", "EXPIRES"), rows, empty="you have no token")


@token.command()
@speaks
def add(
    api: Api,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help="What it may: read, write, admin; may be repeated; left out: read."),
    ] = None,
    days: Annotated[str, typer.Option(help="Until it expires; or `never`.")] = "90",
) -> Answer:
    """Make a token; prints it alone, for a pipe. It is never shown again."""
    body = {"name": name, "scopes": scope or ["read"], "days": days}
    found = api.post("/api/account/tokens", body)
    return said(found, found["token"])


@token.command("rm")
@speaks
def revoke(
    api: Api, token: Annotated[str, typer.Argument(metavar="TOKEN", help="Its name, or its id.")]
) -> Answer:
    """Revoke a token: it counts no more at once."""
    row = pick(api.get("/api/account/tokens")["tokens"], token, "token")
    return said(api.post(f"/api/account/tokens/{row['id']}/revoke"), f"{row['name']} is revoked")


@session.command("ls")
@speaks
def list_sessions(api: Api) -> Answer:
    """Your sessions: from where, with what, until when."""
    found = api.get("/api/account/sessions")
    rows = [
        (str(each["id"]), each["address"], ago(each["seen_at"]), ago(each["expires_at"]), each["software"])
        for each in found["sessions"]
    ]
    return table(found, ("ID", "FROM", "SEEN", "ENDS", "WITH"), rows, empty="you have no session")


@session.command("rm")
@speaks
def end(
    api: Api,
    session: Annotated[int | None, typer.Argument(metavar="[ID]", help="Of the session.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
) -> Answer:
    """End a session, or all of them. Tokens stay."""
    if (session is None) != every:
        raise Invalid("give the ID of a session, as `shipway session ls` tells it, or --all")
    if every:
        found = api.post("/api/account/sessions/revoke-others")
        return said(found, f"ended: {found['ended']}")
    return said(api.post(f"/api/account/sessions/{session}/revoke"), f"session {session} has ended")


@speaks
def password(api: Api) -> Answer:
    """Change your password; all your sessions end, tokens stay.

    The old one and the new one are asked for, or are the two lines of standard input.
    """
    old = typed.line("Your password: ", "the password")
    new = typed.line("The new one: ", "the new password")
    found = api.post("/api/account/password", {"old": old, "new": new})
    return said(found, "the password is changed; your sessions have ended")
