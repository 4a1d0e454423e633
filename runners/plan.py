"""Plan: which steps of a job may start, which never will, and how the job ends. Pure: no clock, no I/O.

Theory of operation. A step is decided the moment its own dependencies are settled (law 9): it starts, or
it is skipped. A dependency is settled once it has ended; a service or detached step already once it has
started. A step looks at the worst status of all its ancestors: any that failed, ended in an error or was
cancelled counts as a failure (`ignore_failure` forgives a failure); what was skipped counts as nothing,
for the reason it was skipped for is an ancestor too. Steps that name no service still wait until the
services without dependencies of their own have started, so that a name resolves at a step's first line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ci import glob
from ci.spec import JobSpec, StepKind, StepSpec
from ci.status import Status, of_job

_SHOWN = 100
_BAD = frozenset({Status.FAILURE, Status.ERROR, Status.CANCELLED})


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What becomes of a step now: it starts, or (with a reason) it is skipped."""

    step: StepSpec
    skip_reason: str = ""

    @property
    def is_start(self) -> bool:
        return not self.skip_reason


class Plan:
    """The steps of one job and where each of them stands."""

    def __init__(self, spec: JobSpec) -> None:
        self._steps = {step.slug: step for step in spec.steps}
        self._needs = _needs(spec)
        self._ancestors = {slug: _ancestors(slug, self._needs) for slug in self._steps}
        self._status = dict.fromkeys(self._steps, Status.WAITING)
        self._started: set[str] = set()
        self._decided: set[str] = set()
        self._stopped_with_job: set[str] = set()
        self._outputs: dict[str, Mapping[str, str]] = {}
        self._culprit: str | None = None

    def status(self, slug: str) -> Status:
        return self._status[slug]

    def decide(self) -> list[Decision]:
        """Every step that is due now and was not before; each step is given once in its life."""
        decisions: list[Decision] = []
        while due := [self._decision(step) for step in self._steps.values() if self._is_due(step)]:
            for decision in due:
                self._decided.add(decision.step.slug)
                is_start = decision.is_start
                self._status[decision.step.slug] = Status.RUNNING if is_start else Status.SKIPPED
            decisions += due
        return decisions

    def started(self, slug: str) -> None:
        """The step's own code has begun: what depends on a service or detached step may go on."""
        self._started.add(slug)

    def has_started(self, slug: str) -> bool:
        return slug in self._started

    def ended(self, slug: str, status: Status, outputs: Mapping[str, str] | None = None) -> None:
        """`outputs`: what it put out for the steps that depend on it."""
        self._status[slug] = status
        self._outputs[slug] = outputs or {}

    def outputs(self, slug: str) -> dict[str, str]:
        """What all that the step depends on has put out; of two of one name the nearer one's."""
        found: dict[str, str] = {}
        for ancestor in reversed(self._ancestors[slug]):
            found |= self._outputs.get(ancestor, {})
        return found

    def end_undecided(self, status: Status) -> list[StepSpec]:
        """Nothing more may start: every step that was not decided yet ends as `status`."""
        return self._end([step for step in self._steps.values() if step.slug not in self._decided], status)

    def stop_for(self, slug: str) -> tuple[list[StepSpec], list[StepSpec]]:
        """The step's failure ends the job: it counts for every step from now on, as an ancestor's would.

        -> (steps that are skipped for it, steps to be stopped). What runs on a failure is neither, nor is
        what only accompanies the others.
        """
        self._culprit = slug
        others = [step for step in self._steps.values() if "failure" not in step.run_on]
        undecided = self._end([step for step in others if step.slug not in self._decided], Status.SKIPPED)
        running = [step for step in others if self._status[step.slug] is Status.RUNNING and not _lasts(step)]
        return undecided, running

    def _end(self, steps: list[StepSpec], status: Status) -> list[StepSpec]:
        for step in steps:
            self._decided.add(step.slug)
            self._status[step.slug] = status
        return steps

    def stop_rest(self) -> list[StepSpec]:
        """Services and detached steps that still run, once no other step runs or is to come; else none.

        They end as a success, for it is we who stop them.
        """
        if any(not self._status[step.slug].is_terminal for step in self._steps.values() if not _lasts(step)):
            return []
        rest = [
            step
            for step in self._steps.values()
            if self._status[step.slug] is Status.RUNNING and step.slug not in self._stopped_with_job
        ]
        self._stopped_with_job.update(step.slug for step in rest)
        return rest

    def is_stopped_with_job(self, slug: str) -> bool:
        return slug in self._stopped_with_job

    @property
    def has_failed(self) -> bool:
        """Whether the job would fail if it ended now."""
        return any(self._is_bad(slug) for slug in self._steps)

    @property
    def is_over(self) -> bool:
        return all(status.is_terminal for status in self._status.values())

    def near(self) -> list[StepSpec]:
        """Undecided steps of which every dependency is settled or runs: their start is near."""
        return [
            step
            for step in self._steps.values()
            if step.slug not in self._decided
            and all(slug in self._decided for slug in self._needs[step.slug])
        ]

    def fold(self) -> Status:
        """The job's status. The own failure of a service is shown, and fails no job."""
        return of_job(
            (self._status[step.slug], step.ignore_failure or step.kind is StepKind.SERVICE)
            for step in self._steps.values()
        )

    def _is_due(self, step: StepSpec) -> bool:
        is_open = step.slug not in self._decided
        return is_open and all(self._is_settled(slug) for slug in self._needs[step.slug])

    def _is_settled(self, slug: str) -> bool:
        has_started = _lasts(self._steps[slug]) and slug in self._started
        return has_started or self._status[slug].is_terminal

    def _decision(self, step: StepSpec) -> Decision:
        if step.skip_reason:
            return Decision(step=step, skip_reason=step.skip_reason)
        culprit = next((slug for slug in self._ancestors[step.slug] if self._is_bad(slug)), self._culprit)
        status = "success" if culprit is None else "failure"
        if status in step.run_on:
            return Decision(step=step, skip_reason=self._unmet_outputs(step, status))
        if culprit is None:
            return Decision(step=step, skip_reason="runs only after a failure, and nothing failed")
        return Decision(
            step=step, skip_reason=f"needs {self._steps[culprit].name}, which {self._word(culprit)}"
        )

    def _unmet_outputs(self, step: StepSpec, status: str) -> str:
        """Why what was put out before is not what the step waits for; empty: it is, or it waits for none."""
        known = self.outputs(step.slug)
        unmet = [_unmet(wanted.outputs, known) for wanted in step.wanted_outputs if status in wanted.run_on]
        return "; ".join(dict.fromkeys(unmet)) if all(unmet) else ""

    def _is_bad(self, slug: str) -> bool:
        step, status = self._steps[slug], self._status[slug]
        if _lasts(step) and slug in self._started:
            return False
        return status in _BAD and not (step.ignore_failure and status is Status.FAILURE)

    def _word(self, slug: str) -> str:
        status = self._status[slug]
        return {Status.ERROR: "ended in an error", Status.CANCELLED: "was cancelled"}.get(status, status.word)


def _unmet(wanted: Mapping[str, Sequence[str]], known: Mapping[str, str]) -> str:
    """The first output that none of its patterns matches."""
    for name, patterns in wanted.items():
        value = known.get(name, "")
        if not any(glob.matches(pattern, value) for pattern in patterns):
            said = f'is "{value[:_SHOWN]}"' if name in known else "was not put out by any step before"
            return f"the output {name} {said}, not {' or '.join(patterns)}"
    return ""


def _lasts(step: StepSpec) -> bool:
    """Whether the step runs beside the others until the job stops it."""
    return step.detach or step.kind is StepKind.SERVICE


def _needs(spec: JobSpec) -> dict[str, tuple[str, ...]]:
    early = [service.slug for service in spec.services if not service.depends_on]
    return {
        step.slug: (
            step.depends_on
            if step.kind in (StepKind.SERVICE, StepKind.CLONE)
            else tuple(dict.fromkeys((*step.depends_on, *early)))
        )
        for step in spec.steps
    }


def _ancestors(slug: str, needs: dict[str, tuple[str, ...]]) -> list[str]:
    """All that `slug` depends on, nearest first."""
    found: dict[str, None] = {}
    front = list(needs[slug])
    while front:
        found.update(dict.fromkeys(front))
        front = [far for near in front for far in needs[near] if far not in found]
    return list(found)
