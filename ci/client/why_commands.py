"""`shipway queue` and `shipway why`: the reason for every wait, failure, and build that never was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any

import typer

from ci.client import builds, place
from ci.client.command import Answer, speaks, table
from ci.client.http import Api, Refused
from ci.client.output import ago, labels, status
from ci.client.place import BuildPath, RepoPath
from ci.client.terminal import plain
from ci.status import Status

_DELIVERIES = 10


@speaks
def queue(api: Api) -> Answer:
    """The jobs that wait, the oldest first: why, and what would help."""
    found = api.get("/api/queue")
    rows = [
        (
            f"{each['repo']}/{each['number']}",
            each["name"],
            status(each["status"]),
            ago(each["since"]),
            labels(each["labels"]),
            f"{each['why']}. {each['help']}".strip(". "),
        )
        for each in found["jobs"]
    ]
    columns = ("BUILD", "JOB", "STATUS", "SINCE", "LABELS", "WHY, AND WHAT HELPS")
    answer = table(found, columns, rows, empty="no job waits", is_last_below=True)
    hidden = f"and {found['hidden']} of repos that you may not see" if found["hidden"] else ""
    return replace(answer, note=hidden)


@speaks
def why(
    api: Api,
    what: Annotated[
        str,
        typer.Argument(
            metavar="[WHAT]",
            help="OWNER/NAME/NUMBER: a build. OWNER/NAME, or a git clone: the repo's events.",
        ),
    ] = "",
) -> Answer:
    """Why a build waits, failed, or never was."""
    found = _build_of(what, api)
    return _why_repo(api, place.repo(what, api.account.url)) if found is None else _why_build(api, found)


def _build_of(what: str, api: Api) -> BuildPath | None:
    has_number = bool(what) and what.rstrip("/").replace("#", "/").rpartition("/")[2].isdigit()
    return place.build(what, api) if has_number or "://" in what else None


def _why_build(api: Api, path: BuildPath) -> Answer:
    build = builds.fetch(api, path)
    waiting = [job for job in _queue(api) if (job["repo"], job["number"]) == (build["repo"], build["number"])]
    lines = (*_mistakes(build), *_waits(waiting), *_losses(build), *_failures(build))

    def show() -> None:
        for line in (builds.verdict(build), *lines, *filter(None, [_next(path, build)])):
            print(plain(line))

    return Answer(found={"build": build, "queue": waiting}, show=show)


def _mistakes(build: dict[str, Any]) -> Iterator[str]:
    for problem in build["problems"]:
        yield "  {file}:{line}:{column}: {message}".format(**problem)


def _waits(waiting: Sequence[dict[str, Any]]) -> Iterator[str]:
    for job in waiting:
        yield f"  {job['name']} waits: {job['why']}"
        if job["help"]:
            yield f"    {job['help']}"


def _losses(build: dict[str, Any]) -> Iterator[str]:
    for job in build["jobs"]:
        for attempt in job["attempts"]:
            if attempt["lost_reason"]:
                yield f"  attempt {attempt['attempt']} of {job['name']} was lost: {attempt['lost_reason']}"


def _failures(build: dict[str, Any]) -> Iterator[str]:
    for run in builds.steps(build):
        if run.status in (*builds.FAILED, Status.UNKNOWN):
            yield f"  {run.title}: {run.step['reason'] or run.status.word}"


def _next(path: BuildPath, build: dict[str, Any]) -> str:
    """What a person does now, as a command."""
    status = Status(build["status"])
    if any(run.status in builds.FAILED for run in builds.steps(build)):
        return f"its log: shipway build logs {path} --failed"
    if status is Status.BLOCKED:
        return f"look, then: shipway build approve {path}"
    if status is Status.UNKNOWN:
        return f"look whether it did its work, then: shipway build resolve {path} success|failure|pending"
    return ""


def _queue(api: Api) -> list[dict[str, Any]]:
    """All that waits; nothing where the asker may not see it, as with no account."""
    found: list[dict[str, Any]] = []
    after = None
    try:
        while True:
            page = api.get("/api/queue", limit=500, after=after)
            found += page["jobs"]
            after = page["after"]
            if after is None:
                return found
    except Refused:
        return found


def _why_repo(api: Api, path: RepoPath) -> Answer:
    found = api.get(f"{path.api}/inbox")
    rows = [
        (ago(each["received_at"]), each["state"], each["verdict"] or "is not decided yet")
        for each in found["deliveries"][:_DELIVERIES]
    ]
    empty = f"nothing has reached the server for {path} yet: push, or look at the deliveries of its webhook"
    return table(found, ("CAME", "STATE", "WHAT BECAME OF IT"), rows, empty=empty, is_last_below=True)
