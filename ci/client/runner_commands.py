"""`shipway runners`: what runners there are, a code for a new one, and what an admin does with them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ci.client import typed
from ci.client.command import Answer, facts, pick, said, speaks, table
from ci.client.http import Api
from ci.client.options import YesOption, group
from ci.client.output import ago, labels

runners = group("Runners of a server: list, look at, add, pause, drain, resume, remove.")
NameArgument = Annotated[str, typer.Argument(metavar="RUNNER", help="Its name, or its id.")]


@runners.command("ls")
@speaks
def list_runners(api: Api) -> Answer:
    """The runners: how each stands, what it runs, which labels it has."""
    found = api.get("/api/runners")
    rows = [
        (
            each["name"],
            each["state"],
            f"{each['running']}/{each['capacity']}",
            _seen(each),
            str(each["lost_leases"]),
            ", ".join(each["jobs"]),
            labels(each["labels"]),
        )
        for each in found["runners"]
    ]
    columns = ("RUNNER", "STATE", "JOBS", "SEEN", "LOST", "RUNS", "LABELS")
    return table(found, columns, rows, empty="no runner yet: `shipway runners code` makes a code for one")


def _seen(runner: dict[str, Any]) -> str:
    return "now" if runner["is_connected"] else ago(runner["seen_at"]) or "never"


@runners.command()
@speaks
def show(api: Api, runner: NameArgument) -> Answer:
    """One runner: how it stands, what it runs, and which jobs it lost."""
    found = api.get(f"/api/runners/{_find(api, runner)['id']}")
    return facts(
        found,
        [
            ("runner", found["name"]),
            ("state", found["state"]),
            ("", found["says"]),
            ("seen", _seen(found)),
            ("jobs", f"{found['running']} of {found['capacity']}"),
            ("runs", ", ".join(found["jobs"])),
            ("labels", labels(found["labels"])),
            ("engine", found["engine"]),
            ("software", found["software"]),
            ("since", ago(found["registered_at"])),
            ("lost leases", str(found["lost_leases"])),
            *((f"lost {ago(each['at'])}", f"{each['job']}: {each['reason']}") for each in found["lost"]),
        ],
    )


@runners.command()
@speaks
def code(api: Api) -> Answer:
    """Make a code with which one new runner registers within an hour; prints it alone, for a pipe."""
    found = api.post("/api/runners/code")
    return said(found, found["code"])


def _find(api: Api, name: str) -> dict[str, Any]:
    return pick(api.get("/api/runners")["runners"], name, "runner")


def _change(api: Api, name: str, word: str) -> Any:
    return api.post(f"/api/runners/{_find(api, name)['id']}/{word}")


@runners.command()
@speaks
def pause(api: Api, runner: NameArgument) -> Answer:
    """It takes no new job until it is resumed."""
    found = _change(api, runner, "pause")
    return said(found, f"{found['name']} is paused: it finishes what it runs and takes no new job")


@runners.command()
@speaks
def drain(api: Api, runner: NameArgument) -> Answer:
    """It finishes what it runs and takes no new job: for a machine that goes away."""
    found = _change(api, runner, "drain")
    return said(found, f"{found['name']} is {found['state']}: {found['says']}")


@runners.command()
@speaks
def resume(api: Api, runner: NameArgument) -> Answer:
    """It takes jobs again, whether it was paused or draining."""
    found = _change(api, runner, "resume")
    return said(found, f"{found['name']} takes jobs again")


@runners.command("rm")
@speaks
def remove(api: Api, runner: NameArgument, yes: YesOption = False) -> Answer:
    """Remove it: its credential is dead at once, and what it runs is lost and runs elsewhere."""
    typed.confirm(f"Remove {runner}? What it runs is lost", is_sure=yes)
    found = _change(api, runner, "remove")
    return said(found, f"{found['removed']} is removed")
