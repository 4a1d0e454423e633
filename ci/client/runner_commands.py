"""`shipway runners`: what runners there are, a code for a new one, and what an admin does with them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ci.client.http import Api, Refused
from ci.client.options import JsonOption, ServerOption, connect, group
from ci.client.output import ago, labels, show_json, show_table
from ci.client.terminal import plain

runners = group("Runners of a server: list, add, pause, drain, resume, remove.")
NameArgument = Annotated[str, typer.Argument(metavar="RUNNER", help="Its name, or its id.")]


@runners.command("ls")
def list_runners(server: ServerOption = "", as_json: JsonOption = False) -> None:
    """The runners: how each stands, what it runs, which labels it has."""
    with connect(server) as api:
        found = api.get("/api/runners")
    if as_json:
        show_json(found)
        return
    rows = [
        (
            each["name"],
            _state(each),
            f"{each['running']}/{each['capacity']}",
            "now" if each["is_connected"] else ago(each["seen_at"]) or "never",
            str(each["lost_leases"]),
            ", ".join(each["jobs"]),
            labels(each["labels"]),
        )
        for each in found["runners"]
    ]
    columns = ("RUNNER", "STATE", "JOBS", "SEEN", "LOST", "RUNS", "LABELS")
    show_table(columns, rows, empty="no runner yet: `shipway runners code` makes a code for one")


def _state(runner: dict[str, Any]) -> str:
    if not runner["is_connected"]:
        return "offline"
    if not runner["capacity"]:
        return "no engine"
    if runner["is_draining"]:
        return "draining"
    if runner["is_paused"]:
        return "paused"
    return "working" if runner["running"] else "idle"


@runners.command()
def code(server: ServerOption = "", as_json: JsonOption = False) -> None:
    """Make a code with which one new runner registers within an hour; prints it alone, for a pipe."""
    with connect(server) as api:
        found = api.post("/api/runners/code")
    show_json(found) if as_json else print(found["code"])


def _change(name: str, word: str, server: str, as_json: bool) -> str:
    with connect(server) as api:
        runner = _find(api, name)
        found = api.post(f"/api/runners/{runner['id']}/{word}")
    if as_json:
        show_json(found)
    return plain(str(runner["name"]))


def _find(api: Api, name: str) -> dict[str, Any]:
    """By its name; by its id only where no runner has that for a name."""
    found: list[dict[str, Any]] = api.get("/api/runners")["runners"]
    for key in ("name", "id"):
        for runner in found:
            if str(runner[key]) == name:
                return runner
    known = ", ".join(str(runner["name"]) for runner in found) or "none"
    raise Refused(f"there is no runner {name!r}; there are: {plain(known)}", code="not_found", status=404)


@runners.command()
def pause(runner: NameArgument, server: ServerOption = "", as_json: JsonOption = False) -> None:
    """It takes no new job until it is resumed."""
    name = _change(runner, "pause", server, as_json)
    if not as_json:
        print(f"{name} is paused: it finishes what it runs and takes no new job")


@runners.command()
def drain(runner: NameArgument, server: ServerOption = "", as_json: JsonOption = False) -> None:
    """It finishes what it runs and takes no new job: for a machine that goes away."""
    name = _change(runner, "drain", server, as_json)
    if not as_json:
        print(f"{name} is draining: it finishes what it runs; then its machine may go away")


@runners.command()
def resume(runner: NameArgument, server: ServerOption = "", as_json: JsonOption = False) -> None:
    """It takes jobs again, whether it was paused or draining."""
    name = _change(runner, "resume", server, as_json)
    if not as_json:
        print(f"{name} takes jobs again")


@runners.command("rm")
def remove(
    runner: NameArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Remove it: its credential is dead at once, and what it runs is lost and runs elsewhere."""
    if not yes:
        typer.confirm(f"Remove {runner}? What it runs is lost", abort=True, err=True)
    name = _change(runner, "remove", server, as_json)
    if not as_json:
        print(f"{name} is removed")
