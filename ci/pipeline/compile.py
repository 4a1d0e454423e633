"""Compile: pipelines and an event in, JobSpecs out. The server compiles; no runner sees YAML (law 7)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from ci import glob
from ci.environ import Context
from ci.errors import ConfigError, Problem
from ci.event import Event
from ci.pipeline import job_graph, operators, substitute
from ci.pipeline.includes import Library, is_included
from ci.pipeline.job_compiler import Build, Compiled, PipelineCompiler, wrong
from ci.pipeline.matrix import MAX_CELLS
from ci.pipeline.model import Pipeline
from ci.pipeline.parse import MAX_STEPS, name_of, parse_all
from ci.pipeline.problems import Mark
from ci.pipeline.step_compiler import SecretUse

T = TypeVar("T")

__all__ = ["Compiled", "SecretUse", "build_jobs", "compile_pipeline", "compile_pipelines"]


def build_jobs(
    files: Mapping[str, str],
    event: Event,
    context: Context,
    *,
    missing: Mapping[str, str] | None = None,
    dialect: str = "",
    is_local: bool = False,
) -> Compiled:
    """The jobs of a build: one job a cell of each pipeline, in the order of the file names.

    `files` hold what they include too, by `Include.name`; `missing` says why one of those is not there.

    Raises ConfigError with the problems of all files.
    """
    if not files:
        message = (
            "there is no pipeline file at this commit; add .ci.yml, or .ci/ with a file for each pipeline"
        )
        raise ConfigError([Problem(message=message)])
    library = Library(texts={k: v for k, v in files.items() if is_included(k)}, missing=missing or {})
    pipelines, problems = _parsed(files, library, event, dialect)
    if problems:
        raise ConfigError(problems)
    return compile_pipelines(pipelines, event, context, is_local=is_local)


def compile_pipeline(pipeline: Pipeline, event: Event, context: Context) -> Compiled:
    """The jobs of one pipeline. Raises ConfigError for what is wrong only once values are filled in."""
    return compile_pipelines([pipeline], event, context)


def _parsed(
    files: Mapping[str, str], library: Library, event: Event, dialect: str
) -> tuple[list[Pipeline], list[Problem]]:
    pipelines: list[Pipeline] = []
    problems: list[Problem] = []
    own = [(file, text) for file, text in files.items() if file not in library.texts]
    for file, text in sorted(own, key=lambda item: (name_of(item[0]), item[0])):
        try:
            pipelines += parse_all(
                text, file=file, variables=event.variables, dialect=dialect, library=library
            )
        except ConfigError as error:
            problems += error.problems
    return pipelines, problems


def compile_pipelines(
    pipelines: Sequence[Pipeline], event: Event, context: Context, *, is_local: bool = False
) -> Compiled:
    """The jobs of the pipelines of one build, in their order; who waits for whom is settled between them."""
    build = Build(event=event, context=context, is_local=is_local)
    for pipeline in pipelines:
        build.warn(pipeline.warnings)
    job_graph.check(pipelines)
    compilers = [_guarded(pipeline, partial(PipelineCompiler, build, pipeline)) for pipeline in pipelines]
    own = {each.pipeline.name: "; and ".join(each.reasons) for each in compilers if not each.runs}
    left_out = job_graph.left_out(pipelines, own)
    slugs: dict[str, list[str]] = {}
    for compiler in compilers:
        pipeline = compiler.pipeline
        reasons = [left_out[pipeline.name]] if pipeline.name in left_out else compiler.reasons
        for reason in reasons:
            build.leave_out(pipeline, reason)
        if pipeline.name not in left_out:
            jobs = _guarded(pipeline, compiler.compile)
            slugs.setdefault(pipeline.name, []).extend(job.slug for job in jobs)
            _check_size(pipeline, build)
    waits = job_graph.edges(pipelines, slugs)
    build.jobs = [job.model_copy(update={"depends_on": waits[job.slug]}) for job in build.jobs]
    return build.compiled()


def _guarded(pipeline: Pipeline, make: Callable[[], T]) -> T:
    try:
        return make()
    except (substitute.TooMuchText, operators.Missing, glob.BadPattern) as error:
        raise wrong(pipeline, Mark(), str(error)) from error


def _check_size(pipeline: Pipeline, build: Build) -> None:
    steps = sum(len(job.steps) for job in build.jobs)
    if len(build.jobs) > MAX_CELLS or steps > MAX_STEPS + MAX_CELLS:
        message = f"the build has {len(build.jobs)} jobs and {steps:,} steps; {MAX_CELLS} and {MAX_STEPS:,}"
        raise wrong(pipeline, Mark(), f"{message} are the most")
