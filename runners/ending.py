"""How a step ended, in status, outcome and words; and why a job was ended early. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ci.spec import StepSpec
from ci.status import Outcome, Status
from runners.engines.base import Exit

#: What an exit code that is not the program's own choice says.
_CODES = {
    126: "the command cannot be executed",
    127: "command not found",
    137: "killed",
    139: "segmentation fault",
    143: "terminated",
}
#: `failure` is the user's, `error` is ours or the machine's.
_STATUS = {
    Outcome.EXIT: Status.FAILURE,
    Outcome.OOM: Status.FAILURE,
    Outcome.TIMEOUT: Status.FAILURE,
    Outcome.CANCELLED: Status.CANCELLED,
    Outcome.SKIPPED: Status.SKIPPED,
}


@dataclass(frozen=True)
class End:
    """`reason` is a sentence, or a part of one; empty for a success."""

    status: Status
    outcome: Outcome | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Halt:
    """Why a job ends early: what its running steps become, and those that never started."""

    status: Status
    outcome: Outcome
    reason: str
    grace_seconds: float = 0.0

    @classmethod
    def cancel(cls, reason: str, grace_seconds: float) -> Halt:
        return cls(
            status=Status.CANCELLED, outcome=Outcome.CANCELLED, reason=reason, grace_seconds=grace_seconds
        )

    @classmethod
    def timeout(cls, limit_seconds: float, grace_seconds: float) -> Halt:
        reason = f"stopped after the job's limit of {duration(limit_seconds)}"
        return cls(status=Status.FAILURE, outcome=Outcome.TIMEOUT, reason=reason, grace_seconds=grace_seconds)

    @classmethod
    def infra(cls, reason: str, grace_seconds: float = 0.0) -> Halt:
        return cls(status=Status.ERROR, outcome=Outcome.INFRA, reason=reason, grace_seconds=grace_seconds)

    @property
    def end(self) -> End:
        """Of a step that runs."""
        return End(self.status, self.outcome, self.reason)

    @property
    def undecided_end(self) -> End:
        """Of a step that had not started."""
        if self.status is Status.CANCELLED:
            return End(Status.CANCELLED, Outcome.CANCELLED, self.reason)
        return End(Status.SKIPPED, Outcome.SKIPPED, self.reason)


def end_of(step: StepSpec, exit_: Exit, stop: End | None) -> End:
    """What the end of a step means; `stop`: what it becomes because we stopped it.

    A step that passed before our stop reached it has passed.
    """
    if exit_.is_success:
        return End(Status.SUCCESS, Outcome.EXIT)
    if stop is not None and (exit_.outcome is not Outcome.OOM or stop.status is Status.SUCCESS):
        return stop
    if exit_.outcome is Outcome.EXIT and exit_.code in step.stop_on_exit:
        return End(Status.SUCCESS, Outcome.EXIT, f"exited with {exit_.code}, which ends the job here")
    status = _STATUS.get(exit_.outcome, Status.ERROR)
    return End(status, exit_.outcome, exit_.reason or _code_in_words(exit_.code))


def is_last_of_job(step: StepSpec, exit_: Exit) -> bool:
    """Whether the step says by its exit code that nothing more of the job is to be done."""
    return exit_.outcome is Outcome.EXIT and exit_.code in step.stop_on_exit


#: What a service or detached step becomes that ran until there was nothing left to accompany.
STOPPED_WITH_JOB = End(Status.SUCCESS, None, "stopped with the job")


def over_limit(seconds: float) -> End:
    return End(Status.FAILURE, Outcome.TIMEOUT, f"stopped after the step's limit of {duration(seconds)}")


def silent(seconds: float) -> End:
    reason = f"stopped because it printed nothing for {duration(seconds)}, its limit without output"
    return End(Status.FAILURE, Outcome.TIMEOUT, reason)


def never_ready(seconds: float, why: str) -> End:
    reason = f"did not become ready in {duration(seconds)}: {why}; its log may say more"
    return End(Status.ERROR, Outcome.TIMEOUT, reason)


def ended_unready(end: End, tail: str) -> End:
    """`tail`: the end of its log, masked."""
    if end.status is not Status.FAILURE:
        return end
    last = f'; its last line: "{tail}"' if tail else ""
    return End(Status.ERROR, end.outcome, f"ended before it was ready: {end.reason}{last}")


def stopped_by(culprit: StepSpec) -> End:
    return End(Status.CANCELLED, Outcome.CANCELLED, f"stopped because {culprit.name} failed")


def _code_in_words(code: int | None) -> str:
    if code is None:
        return "ended without an exit code"
    meaning = _CODES.get(code)
    return f"exited with {code} ({meaning})" if meaning else f"exited with {code}"


def duration(seconds: float) -> str:
    """In the largest unit that is exact: "90 s", "15 min", "2 h"."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
