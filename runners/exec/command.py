"""`shipway exec`: run the working tree's pipelines here, with the server's own code and no server."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ci import waits
from ci.errors import ConfigError, Invalid
from ci.pipeline import local, plan
from ci.pipeline.compile import Compiled
from ci.pipeline.lint import DIALECT_HELP
from ci.protocol import JobEnded
from ci.spec import JobSpec
from ci.status import Status, of_build
from ci.waits import Standing
from runners.engine_choice import load_engine, open_janitor
from runners.engines.settings import DockerSettings
from runners.exec import cut, local_job
from runners.exec.cut import Cut
from runners.exec.screen import seconds
from runners.exec.shell import ShellOnFail
from runners.exec.working_tree import facts

_EXIT = {Status.SUCCESS: 0, Status.SKIPPED: 0, Status.FAILURE: 1, Status.CANCELLED: 130, Status.ERROR: 3}
#: Whoever may use the engine is root on its machine anyhow: nothing is held back from one's own files.
_RIGHTS = {"SHIPWAY_ALLOW": "network volumes security", "SHIPWAY_HOST_FOLDERS": "/"}


def execute(  # noqa: PLR0913 - each is an option of the command line
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILES or repo]", help="Pipeline files, or the folder of a repo."),
    ] = None,
    event: Annotated[str, typer.Option(help="What happened: push, tag, pull_request, cron, ...")] = "push",
    branch: Annotated[str, typer.Option(help="The branch; without it, the one that is checked out.")] = "",
    tag: Annotated[str, typer.Option(help="The tag, of the event `tag`.")] = "",
    job: Annotated[
        list[str] | None, typer.Option(help="Only this job, such as one cell of a matrix; may come again.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only this step, and services.")] = None,
    skip: Annotated[list[str] | None, typer.Option(help="Not this step.")] = None,
    start: Annotated[str, typer.Option("--from", metavar="STEP", help="Nothing that comes before it.")] = "",
    secret: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A secret, from the environment; NAME=@FILE: from a file."),
    ] = None,
    variable: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="As a person gives it to a build.")
    ] = None,
    shell_on_fail: Annotated[
        bool, typer.Option("--shell-on-fail", help="Open a shell in the image of a step that failed.")
    ] = False,
    engine: Annotated[str, typer.Option(help="What runs containers.")] = "docker",
    dialect: Annotated[str, typer.Option(help=DIALECT_HELP)] = "",
    lender: Annotated[list[str] | None, typer.Option(metavar="REPO=FOLDER", help=local.LENDER_HELP)] = None,
) -> int:
    """Run the working tree's pipelines on this machine, without a server.

    The exit code is the build's: 0 passed, 1 failed, 2 the files cannot be used, 3 the machine failed.
    """
    local.check_dialect(dialect)
    lenders = local.lenders(lender or ())
    folder = _folder(paths)
    values = _secrets(secret or [])
    try:
        files = local.read_all(paths or [], dialect, lenders)
        compiled = _compiled(files, folder, event, branch, tag, variable or [])
    except ConfigError as error:
        for problem in error.problems:
            typer.echo(str(problem), err=True)
        return 2
    for problem in compiled.warnings:
        typer.echo(f"warning: {problem}", err=True)
    _check_secrets(compiled, values)
    steps = Cut(only=tuple(only or ()), skip=tuple(skip or ()), start=start)
    jobs = _chosen(compiled, job or [])
    cut.check(steps, jobs)
    if not jobs:
        print(f"nothing to run: {compiled.skipped}")
        return 0
    runner = _Runner(folder, engine, values, has_shell=shell_on_fail)
    ends = asyncio.run(runner.run([cut.applied(steps, each) for each in jobs]))
    return _EXIT.get(of_build(end.status for end in ends.values()), 3)


def _folder(paths: Sequence[Path] | None) -> Path:
    """What is run over: the folder that was named, or the current one."""
    named = [path for path in paths or [] if path.is_dir()]
    return (named[0] if named else Path()).resolve()


def _compiled(
    files: list[local.PipelineFile], folder: Path, event: str, branch: str, tag: str, variables: list[str]
) -> Compiled:
    known = facts(folder)
    known["branch"] = branch or known.get("branch", "main")
    happened = plan.event_of(
        event, **{**known, "branch": known["branch"]}, tag=tag, variables=plan.pairs(variables)
    )
    context = replace(plan.CONTEXT, name=folder.name or "repo", clone_depth=1)
    return plan.compiled_from(files, happened, context, is_local=True)


def _secrets(given: Sequence[str]) -> dict[str, str]:
    """Raises Invalid, with names and never with values."""
    found = {}
    for text in given:
        name, equals, source = text.partition("=")
        if not equals:
            if name not in os.environ:
                raise Invalid(f"--secret {name}: there is no variable {name}; set it, or give {name}=@FILE")
            found[name.lower()] = os.environ[name]
        elif source.startswith("@"):
            try:
                found[name.lower()] = Path(source[1:]).read_text().removesuffix("\n")
            except (OSError, UnicodeDecodeError) as error:
                raise Invalid(f"--secret {name}: {source[1:]} cannot be read: {error}") from error
        else:
            raise Invalid(
                f"--secret {name}=...: a value would stand in the list of processes; export {name} and give "
                f"--secret {name}, or {name}=@FILE"
            )
    return found


def _check_secrets(compiled: Compiled, values: Mapping[str, str]) -> None:
    missing = sorted({use.name for use in compiled.secrets} - values.keys())
    if missing:
        flags = " ".join(f"--secret {name}" for name in missing)
        raise Invalid(f"the files name secrets that were not given: add {flags}")


def _chosen(compiled: Compiled, names: Sequence[str]) -> list[JobSpec]:
    known = {name for job in compiled.jobs for name in (job.name, job.slug)}
    for name in names:
        if name not in known:
            raise Invalid(f"there is no job {name!r}; there are {', '.join(j.name for j in compiled.jobs)}")
    return [job for job in compiled.jobs if not names or {job.name, job.slug} & set(names)]


class _Runner:
    """Runs jobs one after the other, each when those that it waits for have ended."""

    def __init__(self, folder: Path, engine: str, secrets: Mapping[str, str], *, has_shell: bool) -> None:
        self._folder = folder
        self._engine = engine
        self._secrets = secrets
        self._has_shell = has_shell
        self._environ = {**_RIGHTS, **os.environ}

    async def run(self, jobs: Sequence[JobSpec]) -> dict[str, JobEnded]:
        names = {job.slug for job in jobs}
        known = {
            job.slug: Standing(
                slug=job.slug,
                name=job.name,
                status=Status.WAITING if names & set(job.depends_on) else Status.PENDING,
                depends_on=job.depends_on,
                run_on=job.run_on,
            )
            for job in jobs
        }
        ends: dict[str, JobEnded] = {}
        while len(ends) < len(jobs):
            for decision in waits.decide(list(known.values())):
                known[decision.slug] = replace(known[decision.slug], status=decision.status)
                if decision.status is Status.SKIPPED:
                    ends[decision.slug] = JobEnded(
                        status=Status.SKIPPED, reason=decision.reason, after_seconds=0
                    )
                    print(f"job {known[decision.slug].name}: skipped: {decision.reason}")
            job = next((job for job in jobs if known[job.slug].status is Status.PENDING), None)
            if job is None:
                continue
            ends[job.slug] = end = await self._run_job(job, len(jobs))
            known[job.slug] = replace(known[job.slug], status=end.status)
            if end.status is Status.CANCELLED:
                break
        return ends

    async def _run_job(self, job: JobSpec, count: int) -> JobEnded:
        if count > 1:
            print(f"job {job.name}")
        engine = load_engine(self._engine, self._environ)(self._folder_of_engine)
        janitor = open_janitor(self._engine, self._folder_of_engine, self._environ)
        settings = DockerSettings.load(self._environ)
        has_shell = self._has_shell and sys.stdin.isatty()
        holding = ShellOnFail(engine, settings) if has_shell else engine
        end = await local_job.run(job, self._folder, holding, janitor, self._secrets)
        reason = f": {end.reason}" if end.reason else ""
        print(f"job {job.name} {end.status.word} in {seconds(end.after_seconds)}{reason}", flush=True)
        return end

    @property
    def _folder_of_engine(self) -> Path:
        return Path(self._environ.get("TMPDIR", "/tmp")) / f"shipway-exec-{os.getuid()}"
