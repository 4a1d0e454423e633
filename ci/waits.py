"""Waits: when a job that depends on others of its build may start, or never will. Pure.

As a step does (runners/plan.py), a job looks at the worst end of all its ancestors: one that failed, ended
in an error or was cancelled counts as a failure; what was skipped counts as nothing, for the reason it was
skipped for is an ancestor too. One whose end is unknown is waited for until a person has said it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ci.status import Status

_BAD = frozenset({Status.FAILURE, Status.ERROR, Status.CANCELLED})


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a job of a build stands. `depends_on` holds slugs; what is not in the build is not waited for."""

    slug: str
    name: str
    status: Status
    depends_on: tuple[str, ...] = ()
    run_on: tuple[str, ...] = ("success",)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What becomes of a waiting job now: `pending`, or (with a reason) `skipped`."""

    slug: str
    status: Status
    reason: str = ""


def decide(jobs: Sequence[Standing]) -> list[Decision]:
    """Every waiting job of which all dependencies have ended. To be asked again after each round."""
    known = {job.slug: job for job in jobs}
    return [
        _decision(job, known)
        for job in jobs
        if job.status is Status.WAITING
        and all(known[slug].status.is_terminal for slug in job.depends_on if slug in known)
    ]


def reason(job: Standing, jobs: Iterable[Standing]) -> str:
    """Why it waits, as a sentence."""
    names = [each.name for each in jobs if each.slug in job.depends_on and not each.status.is_terminal]
    return f"waits for {', '.join(names)}" if names else ""


def _decision(job: Standing, known: Mapping[str, Standing]) -> Decision:
    culprit = next((each for each in _ancestors(job, known) if each.status in _BAD), None)
    if ("success" if culprit is None else "failure") in job.run_on:
        return Decision(slug=job.slug, status=Status.PENDING)
    if culprit is None:
        why = "runs only after a failure, and nothing failed"
    else:
        words = {Status.ERROR: "ended in an error", Status.CANCELLED: "was cancelled"}
        why = f"needs {culprit.name}, which {words.get(culprit.status, culprit.status.word)}"
    return Decision(slug=job.slug, status=Status.SKIPPED, reason=why)


def _ancestors(job: Standing, known: Mapping[str, Standing]) -> list[Standing]:
    """All that it depends on, nearest first."""
    found: dict[str, None] = {}
    front = [slug for slug in job.depends_on if slug in known]
    while front:
        found.update(dict.fromkeys(front))
        nearer = [known[slug] for slug in front]
        front = [far for each in nearer for far in each.depends_on if far in known and far not in found]
    return [known[slug] for slug in found]
