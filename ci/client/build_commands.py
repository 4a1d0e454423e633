"""`shipway build`: what was built, what is built now, and what a person does about it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any

import typer
from rich.text import Text

from ci.client import builds, output, place, typed
from ci.client.command import Answer, said, speaks, table
from ci.client.http import Api, segment
from ci.client.logs import Logs, Pace, Wanted
from ci.client.options import (
    BeforeOption,
    BuildArgument,
    JsonOption,
    LimitOption,
    RepoArgument,
    ServerOption,
    YesOption,
    connect,
    group,
    pairs,
)
from ci.client.output import age, ago, lasted, note, show_facts, show_json, show_table, status
from ci.client.place import BuildPath
from ci.client.terminal import plain
from ci.errors import Invalid
from ci.status import Status

build = group("Builds: list, look at, follow, start, stop, decide.")
_COLUMNS = ("BUILD", "STATUS", "BRANCH", "AGE", "TOOK", "WHAT")
VERDICTS = ("success", "failure", "cancelled", "pending")


@build.command("ls")
@speaks
def list_builds(
    api: Api,
    repo: Annotated[str, typer.Argument(metavar="[REPO]", help="OWNER/NAME; nothing: all repos.")] = "",
    query: Annotated[
        str, typer.Option("-q", "--query", help="As on the page: `status:failed branch:main words`.")
    ] = "",
    limit: LimitOption = 20,
    before: BeforeOption = None,
) -> Answer:
    """The newest builds, of one repo or of all."""
    path = f"{place.repo(repo, api.account.url).api}/builds" if repo else "/api/builds"
    found = api.get(path, q=query, limit=limit, before=before)
    rows = [_row(each) for each in found["builds"]]
    answer = table(
        found, _COLUMNS, rows, empty=f"no build matches {query!r}" if query else "no build yet: push a commit"
    )
    has_more = found["before"] is not None and sys.stdout.isatty()
    return replace(answer, note=f"older ones: --before {found['before']}" if has_more else "")


def _row(build: dict[str, Any]) -> Sequence[str | Text]:
    event = build["event"]
    return (
        f"{build['repo']}/{build['number']}",
        status(build["status"]),
        event["tag"] or event["branch"] or event["ref"],
        age(build["started_at"] or build["created_at"]),
        lasted(build["started_at"], build["finished_at"]),
        event["title"],
    )


@build.command()
@speaks
def show(api: Api, build: BuildArgument = "") -> Answer:
    """One build: how it stands, its jobs and steps."""
    found = builds.fetch(api, place.build(build, api))
    return Answer(found=found, show=lambda: _show(found))


def _show(found: dict[str, Any]) -> None:
    event = found["event"]
    show_facts(
        [
            ("build", f"{found['repo']}/{found['number']}"),
            ("status", status(found["status"])),
            ("reason", found["reason"]),
            ("what", event["title"]),
            (
                "event",
                f"{event['kind']} {event['tag'] or event['branch'] or event['ref']} {event['after'][:9]}",
            ),
            ("by", event["sender"] or event["author"]),
            ("began", ago(found["started_at"])),
            ("took", lasted(found["started_at"], found["finished_at"])),
            ("rerun of", str(found["rerun_of"] or "")),
            ("link", found["url"]),
        ]
    )
    for problem in found["problems"]:
        kind = "warning: " if problem["is_warning"] else ""
        print("{file}:{line}:{column}: ".format(**problem) + kind + plain(problem["message"]))
    rows = [_step_row(run) for run in builds.steps(found)]
    if rows:
        print()
        show_table(("JOB", "STEP", "STATUS", "TOOK", "WHY"), rows, empty="")


def _step_row(run: builds.StepRun) -> Sequence[str | Text]:
    began, ended = run.step["began_after"], run.step["ended_after"]
    took = output.duration(ended - began) if began is not None and ended is not None else ""
    again = f" #{run.attempt['attempt']}" if run.attempt["attempt"] > 1 else ""
    why = run.step["reason"] or (run.job["reason"] if not run.has_begun else "")
    return run.job["name"] + again, run.step["name"], status(run.step["status"]), took, why


@build.command()
def watch(build: BuildArgument = "", server: ServerOption = "", as_json: JsonOption = False) -> int:
    """Tell each change of a build and its steps until it has ended; exits 0 if it passed, else 1.

    With --json, nothing before the end, and then the build.
    """
    with connect(server) as api:
        path = place.build(build, api)
        found = _watch(api, path, (lambda _: None) if as_json else _tell)
    if as_json:
        show_json(found)
    else:
        note(f"{builds.verdict(found)} {found['url']}")
    return builds.exit_code(found)


def _watch(api: Api, path: BuildPath, tell: Callable[[builds.StepRun], None]) -> dict[str, Any]:
    seen: dict[tuple[int, ...], str] = {}
    pace = Pace()
    while True:
        found = builds.fetch(api, path)
        changed = False
        for run in builds.steps(found):
            word = run.step["status"]
            if seen.get(run.key) != word and (run.has_begun or run.status.is_terminal):
                changed = True
                tell(run)
            seen[run.key] = word
        if builds.is_settled(found):
            return found
        pace.wait(has_moved=changed)


def _tell(run: builds.StepRun) -> None:
    why = f": {run.step['reason']}" if run.step["reason"] else ""
    line = Text(plain(f"{run.title} ")).append_text(status(run.step["status"]))
    output.console().print(line.append(plain(why)), overflow="ignore", crop=False)


@build.command()
def logs(  # noqa: PLR0913 - each is an option of the command line
    build: BuildArgument = "",
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Until the build has ended.")] = False,
    job: Annotated[str, typer.Option(help="Only this job.")] = "",
    step: Annotated[str, typer.Option(help="Only this step; also a service.")] = "",
    failed: Annotated[bool, typer.Option("--failed", help="Only steps that failed.")] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="The very bytes, with every escape sequence: for files.")
    ] = False,
    server: ServerOption = "",
) -> int:
    """The logs, step after step. With -f as they grow; exits then 0 if the build passed, else 1.

    What a log could do to your terminal (titles, clipboard, cursor moves) is taken out; colours stay.
    """
    with connect(server) as api:
        path = place.build(build, api)
        wanted = Wanted(job=job, step=step, is_failed_only=failed)
        reader = Logs(api, path, wanted, is_raw=raw)
        if not follow:
            found = reader.show()
            if next(builds.steps(found), None) is None:
                note(f"shipway: {plain(builds.verdict(found))} {found['url']}")
            return 0
        found = reader.follow()
    note(f"shipway: {plain(builds.verdict(found))} {found['url']}")
    return builds.exit_code(found)


# --- what a person starts and ends -----------------------------------------------------------------


@build.command()
@speaks
def run(
    api: Api,
    repo: RepoArgument = "",
    branch: Annotated[str, typer.Option(help="Which branch; left out: the default branch.")] = "",
    var: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A variable of this build; may be repeated. No secret."),
    ] = None,
) -> Answer:
    """Run a branch by hand, where it stands now."""
    where = place.repo(repo, api.account.url)
    body = {"branch": branch, "variables": pairs("--var", var)}
    return _started(api.post(f"{where.api}/builds", body))


@build.command()
@speaks
def cancel(api: Api, build: BuildArgument = "") -> Answer:
    """Ask for its end. It is cancelled once its containers have ended."""
    path = place.build(build, api)
    return said(api.post(f"{path.api}/cancel"), f"asked for the end of {path}")


@build.command()
@speaks
def rerun(
    api: Api,
    build: BuildArgument = "",
    failed: Annotated[bool, typer.Option("--failed", help="Only the jobs that did not pass.")] = False,
) -> Answer:
    """A new build of the same event and files."""
    path = place.build(build, api)
    return _started(api.post(f"{path.api}/rerun", {"only": "failed"} if failed else None))


def _started(found: dict[str, Any]) -> Answer:
    return said(found, f"{found['repo']}/{found['number']}  {found['url']}")


# --- what a person decides -------------------------------------------------------------------------


@build.command()
@speaks
def approve(api: Api, build: BuildArgument = "", yes: YesOption = False) -> Answer:
    """Let a stranger's build run, as it stands now; shows first what it is about.

    With --yes it does not ask: you have looked at what it runs.
    """
    path = place.build(build, api)
    question = api.get(f"{path.api}/approval")
    if not yes:
        _show_question(path, question)
    typed.confirm("Let it run?", is_sure=yes)
    found = api.post(f"{path.api}/approve", {"binding": question["binding"]})
    return said(found, f"{path} is approved: {Status(found['status']).word}")


def _show_question(path: BuildPath, question: dict[str, Any]) -> None:
    changed = question["changed_files"]
    show_facts(
        [
            ("build", str(path)),
            ("reason", question["reason"]),
            ("pull request", f"{question['pull_request'] or ''} {question['title']}".strip()),
            ("from", f"{question['sender']} ({question['source_repo']})"),
            ("commit", question["head"]),
            ("into", question["target"]),
            ("changes", "nobody knows which files" if changed is None else ", ".join(changed)),
            ("pipeline", "CHANGED by it" if question["changes_config"] else "not changed by it"),
            ("look at it", question["link"]),
        ]
    )
    for file in question["config"]:
        print(f"\n{plain(file['file'])}: {plain(file['note'])}".rstrip(": "))
        for line in file["diff"].splitlines():
            print(f"  {plain(line)}")


@build.command()
@speaks
def reject(api: Api, build: BuildArgument = "") -> Answer:
    """Say that a stranger's build shall not run."""
    path = place.build(build, api)
    question = api.get(f"{path.api}/approval")
    return said(api.post(f"{path.api}/reject", {"binding": question["binding"]}), f"{path} is rejected")


@build.command()
@speaks
def resolve(
    api: Api,
    build: Annotated[str, typer.Argument(metavar="BUILD", help="OWNER/NAME/NUMBER, or in a clone NUMBER.")],
    verdict: Annotated[
        str, typer.Argument(help="How it ended: success, failure, cancelled; or pending: run it again.")
    ],
    job: Annotated[str, typer.Option(help="Which job; left out: the one that is unknown.")] = "",
) -> Answer:
    """Say how a job really ended of which nobody knows it."""
    if verdict not in VERDICTS:
        raise Invalid(f"{verdict!r} is no verdict; there are {', '.join(VERDICTS)}")
    path = place.build(build, api)
    slug = job or _unknown_job(builds.fetch(api, path))
    found = api.post(f"{path.api}/jobs/{segment(slug)}/resolve", {"verdict": verdict})
    return said(found, f"{path} {Status(found['status']).word}")


def _unknown_job(found: dict[str, Any]) -> str:
    slugs = [job["slug"] for job in found["jobs"] if job["status"] == Status.UNKNOWN.value]
    if len(slugs) == 1:
        return str(slugs[0])
    if not slugs:
        raise Invalid("no job of this build is unknown: there is nothing to resolve")
    raise Invalid(f"which job? Give --job, one of {', '.join(slugs)}")
