"""Job graph: which pipelines of a build wait for which, and what is left out with what it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ci import graph
from ci.errors import ConfigError, Problem
from ci.pipeline.model import Need, Pipeline
from ci.pipeline.problems import Mark, Problems, shown


def check(pipelines: Sequence[Pipeline]) -> None:
    """Names are unique where one is waited for, every need exists or is optional, and none leads back to
    where it came from. Raises ConfigError with the problems of all pipelines."""
    problems = [problem for pipeline in pipelines for problem in _problems(pipeline, pipelines)]
    names = {pipeline.name for pipeline in pipelines}
    edges = {
        pipeline.name: tuple(need.name for need in pipeline.needs if need.name in names)
        for pipeline in pipelines
    }
    cycle = () if problems else graph.find_cycle(edges)
    if cycle:
        first = next(pipeline for pipeline in pipelines if pipeline.name == cycle[0])
        path = " -> ".join(shown(name) for name in cycle[:20])
        problems.append(
            _problem(first, first.needs[0].mark, f"pipelines wait for each other in a circle: {path}")
        )
    if problems:
        raise ConfigError(problems)


def _problems(pipeline: Pipeline, pipelines: Sequence[Pipeline]) -> list[Problem]:
    found = []
    names = [each.name for each in pipelines]
    for need in pipeline.needs:
        if names.count(need.name) > 1:
            found.append(_problem(pipeline, need.mark, f"two pipelines are named {shown(need.name)}"))
        if need.name not in names and not need.is_optional and not pipeline.is_lenient:
            hint = Problems(file=pipeline.file).did_you_mean(need.name, names)
            message = f"the pipeline depends on unknown pipeline {shown(need.name)}{hint}"
            found.append(_problem(pipeline, need.mark, message))
    return found


def _problem(pipeline: Pipeline, mark: Mark, message: str) -> Problem:
    return mark.problem(pipeline.file, message)


def left_out(pipelines: Sequence[Pipeline], reasons: Mapping[str, str]) -> dict[str, str]:
    """Name -> why a pipeline does not run: by its own conditions (`reasons`), or because one that it needs
    does not. A need that is optional holds nothing up."""
    by_name = {pipeline.name: pipeline for pipeline in pipelines}
    edges = {
        name: tuple(need.name for need in pipeline.needs if need.name in by_name)
        for name, pipeline in by_name.items()
    }
    found = dict(reasons)
    for name in graph.order(edges):
        for need in by_name[name].needs:
            if name not in found and not need.is_optional and (why := _why(need, by_name, found)):
                found[name] = why
    return found


def _why(need: Need, known: Mapping[str, Pipeline], found: Mapping[str, str]) -> str:
    if need.name not in known:
        return f"it depends on {shown(need.name)}, and there is no such pipeline"
    return f"it depends on {shown(need.name)}, which does not run" if need.name in found else ""


def edges(pipelines: Sequence[Pipeline], slugs: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Slug of a job -> the slugs of the jobs that it waits for: all jobs of each pipeline that is needed.

    `slugs` are those of the jobs of each pipeline that runs, by its name.
    """
    found = {}
    for pipeline in pipelines:
        waits = [slug for need in pipeline.needs for slug in slugs.get(need.name, ())]
        found.update(dict.fromkeys(slugs.get(pipeline.name, ()), tuple(dict.fromkeys(waits))))
    return found
