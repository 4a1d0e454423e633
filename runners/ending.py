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
    def undecided_status(self) -> Status:
        return Status.CANCELLED if self.status is Status.CANCELLED else Status.SKIPPED

    @property
    def undecided_outcome(self) -> Outcome:
        return Outcome.CANCELLED if self.status is Status.CANCELLED else Outcome.SKIPPED


def end_of(
    step: StepSpec, exit_: Exit, halt: Halt | None, *, is_timed_out: bool, is_stopped_with_job: bool
) -> End:
    """What the end of a step means. A step that passed before our stop reached it has passed."""
    if exit_.is_success:
        return End(Status.SUCCESS, Outcome.EXIT)
    if is_stopped_with_job:
        return End(Status.SUCCESS, None, "stopped with the job")
    if halt is not None and exit_.outcome is not Outcome.OOM:
        return End(halt.status, halt.outcome, halt.reason)
    if is_timed_out:
        limit = duration(step.timeout_seconds or 0)
        return End(Status.FAILURE, Outcome.TIMEOUT, f"stopped after the step's limit of {limit}")
    status = _STATUS.get(exit_.outcome, Status.ERROR)
    return End(status, exit_.outcome, exit_.reason or _code_in_words(exit_.code))


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
