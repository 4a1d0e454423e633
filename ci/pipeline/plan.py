"""`shipway plan`: what an event would start, and what it leaves out and why, before anything runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ci.environ import Context
from ci.errors import ConfigError, Invalid, Problem
from ci.event import Event, Kind
from ci.pipeline import local
from ci.pipeline.compile import Compiled, compile_pipelines
from ci.pipeline.lint import DIALECT_HELP
from ci.pipeline.model import Pipeline
from ci.pipeline.parse import parse_all
from ci.spec import JobSpec, StepKind, StepSpec, Trust

_EVERYTHING = Trust(network=True, volumes=True, security=True)
_NO_COMMIT = "0" * 40


def plan(  # noqa: PLR0913 - each is an option of the command line
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILES or repo]", help="Pipeline files, or the folder of a repo."),
    ] = None,
    event: Annotated[str, typer.Option(help="What happened: push, tag, pull_request, cron, ...")] = "push",
    branch: Annotated[str, typer.Option(help="The branch; of a pull request its target.")] = "main",
    tag: Annotated[str, typer.Option(help="The tag, of the event `tag`.")] = "",
    changed: Annotated[
        list[str] | None, typer.Option(help="A changed file; without any, every path filter matches.")
    ] = None,
    variable: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="As a person gives it to a build.")
    ] = None,
    target: Annotated[str, typer.Option(help="The environment, of the event `deployment`.")] = "",
    cron: Annotated[str, typer.Option(help="The name of the schedule, of the event `cron`.")] = "",
    fork: Annotated[bool, typer.Option("--fork", help="A pull request from a fork.")] = False,
    dialect: Annotated[str, typer.Option(help=DIALECT_HELP)] = "",
    lender: Annotated[list[str] | None, typer.Option(metavar="REPO=FOLDER", help=local.LENDER_HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the jobs as a runner gets them.")] = False,
) -> int:
    """Show what an event would start: jobs, steps, what is left out and why.

    Exit code 0: there is a plan, if only an empty one. 2: the files cannot be used.
    """
    happened = event_of(
        event,
        branch=branch,
        tag=tag,
        changed_files=tuple(changed) if changed else None,
        variables=pairs(variable or []),
        deploy_target=target,
        cron=cron,
        is_from_fork=fork,
    )
    try:
        files = local.read_all(paths or [], _checked(dialect), local.lenders(lender or ()))
        compiled = compiled_from(files, happened, CONTEXT)
    except ConfigError as error:
        for problem in error.problems:
            typer.echo(f"{problem}", err=True)
        return 2
    print(json.dumps(_as_json(compiled), indent=2) if as_json else "\n".join(_lines(compiled)))
    return 0


#: Of a repo that a server admin allows everything: a plan shows what the files ask for.
CONTEXT = Context(
    owner="local",
    name="repo",
    repo_key="local",
    clone_url="https://example.org/local/repo.git",
    default_branch="main",
    number=1,
    trust=_EVERYTHING,
)


def event_of(kind: str, *, branch: str, tag: str = "", **more: Any) -> Event:
    """An event of these options. Raises Invalid."""
    kinds = [each.value for each in Kind]
    if kind not in kinds:
        raise Invalid(f"there is no event {kind!r}; there are {', '.join(kinds)}")
    ref = f"refs/heads/{branch}"
    if kind == Kind.TAG.value:
        if not tag:
            raise Invalid("the event tag needs --tag NAME")
        ref, branch = f"refs/tags/{tag}", ""
    number = 1 if kind.startswith("pull_request") else None
    if number:
        ref = "refs/pull/1/head"
    given = {"after": _NO_COMMIT, **more}
    return Event(kind=Kind(kind), ref=ref, branch=branch, tag=tag, pull_request=number, **given)


def compiled_from(
    files: list[local.PipelineFile], event: Event, context: Context, *, is_local: bool = False
) -> Compiled:
    """The jobs of these files. Raises ConfigError with the problems of all of them."""
    problems: list[Problem] = []
    pipelines: list[Pipeline] = []
    for file in files:
        try:
            pipelines += parse_all(
                file.source,
                file=file.name,
                variables=event.variables,
                dialect=file.dialect,
                library=file.library,
            )
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return compile_pipelines(pipelines, event, context, is_local=is_local)


def _checked(dialect: str) -> str:
    local.check_dialect(dialect)
    return dialect


def pairs(given: list[str]) -> dict[str, str]:
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise Invalid(f"a variable is NAME=VALUE, this is {text!r}")
        found[name] = value
    return found


def _as_json(compiled: Compiled) -> dict[str, Any]:
    return {
        "jobs": [job.model_dump(mode="json") for job in compiled.jobs],
        "left_out": [asdict(each) for each in compiled.left_out],
        "secrets": sorted({use.name for use in compiled.secrets}),
        "warnings": [asdict(problem) for problem in compiled.warnings],
    }


def _lines(compiled: Compiled) -> list[str]:
    found: list[str] = []
    for job in compiled.jobs:
        found += [*_job_lines(job), ""]
    found += [f"left out: {each.file}: {each.reason}" for each in compiled.left_out]
    if names := sorted({use.name for use in compiled.secrets}):
        found.append(f"secrets: {', '.join(names)}")
    found += [f"warning: {problem}" for problem in compiled.warnings]
    if not compiled.jobs:
        found.append("nothing would run")
    return found


def _job_lines(job: JobSpec) -> list[str]:
    about = [f"after {', '.join(job.depends_on)}"] if job.depends_on else []
    about += [f"on {' or '.join(job.run_on)}"] if job.run_on != ("success",) else []
    about += [f"needs {', '.join(f'{k}={v}' for k, v in job.labels.items())}"] if job.labels else []
    about += [f"in the group {job.concurrency.group}"] if job.concurrency else []
    head = f"job {job.name}" + (f" ({'; '.join(about)})" if about else "")
    return [head, *(f"  {_step_line(step)}" for step in job.steps)]


def _step_line(step: StepSpec) -> str:
    if step.skip_reason:
        return f"- {step.name}: left out: {step.skip_reason}"
    about = [] if step.kind is StepKind.COMMANDS else [step.kind.value]
    about += [step.image] if step.image else []
    about += [f"after {', '.join(step.depends_on)}"] if step.depends_on else []
    about += [f"on {' or '.join(step.run_on)}"] if step.run_on != ("success",) else []
    about += ["detached"] if step.detach else []
    about += ["deploys"] if step.deploy else []
    return f"+ {step.name}: {', '.join(about)}"
