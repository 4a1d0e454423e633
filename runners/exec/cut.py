"""Cut: a job of which only some steps run. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ci import graph
from ci.errors import Invalid
from ci.spec import JobSpec, StepKind, StepSpec


@dataclass(frozen=True, kw_only=True)
class Cut:
    """By names or slugs. `only`: nothing else; `skip`: not these; `start`: nothing before it."""

    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    start: str = ""


def check(cut: Cut, jobs: Iterable[JobSpec]) -> None:
    """Raises Invalid for a name that no step of any job has."""
    known = {name for job in jobs for step in job.steps for name in (step.name, step.slug)}
    for name in (*cut.only, *cut.skip, *((cut.start,) if cut.start else ())):
        if name not in known:
            raise Invalid(f"there is no step {name!r}; there are {', '.join(sorted(known))}")


def applied(cut: Cut, job: JobSpec) -> JobSpec:
    """The same job; what is left out says why, and who waited for it waits for what it waited for."""
    reasons = {step.slug: reason for step in job.steps if (reason := _reason(cut, step, job))}
    edges = {step.slug: step.depends_on for step in job.steps}
    kept = graph.without(edges, reasons.keys())
    steps = [
        step.model_copy(
            update={
                "skip_reason": step.skip_reason or reasons.get(step.slug, ""),
                "depends_on": kept.get(step.slug, ()),
            }
        )
        for step in job.steps
    ]
    return job.model_copy(update={"steps": tuple(steps)})


def _reason(cut: Cut, step: StepSpec, job: JobSpec) -> str:
    names = {step.name, step.slug}
    if names & set(cut.skip):
        return "left out by --skip"
    if step.kind in (StepKind.CLONE, StepKind.SERVICE):
        return ""
    if cut.only and not names & set(cut.only):
        return "left out by --only"
    if cut.start and not _is_from(cut.start, step, job):
        return "before the step of --from"
    return ""


def _is_from(start: str, step: StepSpec, job: JobSpec) -> bool:
    """The step itself, what comes from it, and what stands after it in the file and is not before it."""
    first = next((each for each in job.steps if start in (each.name, each.slug)), None)
    if first is None or step.slug == first.slug:
        return True
    ancestors = graph.ancestors({each.slug: each.depends_on for each in job.steps})
    return first.slug in ancestors[step.slug] or (
        step.number > first.number and step.slug not in ancestors[first.slug]
    )
