"""`shipway schedule`: what a repo builds by the clock."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ci.client import place
from ci.client.command import Answer, pick, said, speaks, table
from ci.client.http import Api
from ci.client.options import RepoOption, group
from ci.client.output import ago

schedule = group("Schedules of a repo: what it builds by the clock.")

NameArgument = Annotated[str, typer.Argument(metavar="SCHEDULE", help="Its name, or its id.")]
CronOption = Annotated[str | None, typer.Option(help="Five fields, such as `30 2 * * *`.")]
ZoneOption = Annotated[str | None, typer.Option(help="Such as Europe/Berlin. [UTC]")]
BranchOption = Annotated[str | None, typer.Option(help="Which branch; left out: the default branch.")]


@schedule.command("ls")
@speaks
def list_schedules(api: Api, repo: RepoOption = "") -> Answer:
    """The schedules: when each runs next, and what became of its last run."""
    where = place.repo(repo, api.account.url)
    found = api.get(f"{where.api}/schedules")
    rows = [
        (
            each["name"],
            f"{each['cron']} {each['time_zone']}",
            each["branch"],
            ago(each["next_at"]) if each["is_enabled"] else "disabled",
            ago(each["last_at"]) or "never",
            each["last_verdict"],
        )
        for each in found["schedules"]
    ]
    columns = ("SCHEDULE", "CRON", "BRANCH", "NEXT", "LAST", "WHAT BECAME OF IT")
    empty = f"no schedule of {where}: `shipway schedule add NAME --cron '30 2 * * *'` makes one"
    return table(found, columns, rows, empty=empty)


@schedule.command()
@speaks
def add(
    api: Api,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for.")],
    cron: Annotated[str, typer.Option(help="Five fields, such as `30 2 * * *`.")],
    zone: ZoneOption = None,
    branch: BranchOption = None,
    repo: RepoOption = "",
) -> Answer:
    """Build a branch by the clock."""
    where = place.repo(repo, api.account.url)
    body = {"name": name, **_plan(cron, zone, branch)}
    return _told(api.post(f"{where.api}/schedules", body))


@schedule.command("set")
@speaks
def change(  # noqa: PLR0913 - each is an option of the command line
    api: Api,
    schedule: NameArgument,
    name: Annotated[str | None, typer.Option(help="Call it so from now on.")] = None,
    cron: CronOption = None,
    zone: ZoneOption = None,
    branch: BranchOption = None,
    repo: RepoOption = "",
) -> Answer:
    """Change a schedule; what is not named stays."""
    named = {} if name is None else {"name": name}
    return _told(_post(api, repo, schedule, body={**named, **_plan(cron, zone, branch)}))


@schedule.command()
@speaks
def enable(api: Api, schedule: NameArgument, repo: RepoOption = "") -> Answer:
    """Let it run again."""
    return _told(_post(api, repo, schedule, body={"is_enabled": True}))


@schedule.command()
@speaks
def disable(api: Api, schedule: NameArgument, repo: RepoOption = "") -> Answer:
    """Keep it, but let it not run."""
    found = _post(api, repo, schedule, body={"is_enabled": False})
    return said(found, f"{found['name']} does not run any more")


@schedule.command("run")
@speaks
def run_now(api: Api, schedule: NameArgument, repo: RepoOption = "") -> Answer:
    """Run it now, beside its planned runs."""
    found = _post(api, repo, schedule, "/run")
    return said(found, f"{found['name']} runs now; `shipway schedule ls` tells what became of it")


@schedule.command("rm")
@speaks
def remove(api: Api, schedule: NameArgument, repo: RepoOption = "") -> Answer:
    """Remove it."""
    return said(_post(api, repo, schedule, "/remove"), f"{schedule} is removed")


def _plan(cron: str | None, zone: str | None, branch: str | None) -> dict[str, str]:
    given = {"cron": cron, "time_zone": zone, "branch": branch}
    return {name: value for name, value in given.items() if value is not None}


def _post(api: Api, repo: str, schedule: str, word: str = "", *, body: dict[str, Any] | None = None) -> Any:
    base = f"{place.repo(repo, api.account.url).api}/schedules"
    found = pick(api.get(base)["schedules"], schedule, "schedule")
    return api.post(f"{base}/{found['id']}{word}", body)


def _told(found: dict[str, Any]) -> Answer:
    runs = f"next {ago(found['next_at'])}" if found["is_enabled"] else "disabled"
    return said(found, f"{found['name']}: {found['meaning']}; {runs}")
