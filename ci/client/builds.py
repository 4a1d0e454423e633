"""What a build's JSON says, read once for all commands: its jobs, steps, verdict and exit code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ci.client.http import Api
from ci.client.place import BuildPath
from ci.status import Status

#: A person must act, and that may take days: nobody waits for it at a terminal.
NEEDS_A_PERSON = frozenset({Status.UNKNOWN, Status.BLOCKED})
_PASSED = frozenset({Status.SUCCESS, Status.SKIPPED})
FAILED = frozenset({Status.FAILURE, Status.ERROR})


@dataclass(frozen=True, kw_only=True)
class StepRun:
    """A step in one attempt of its job."""

    job: dict[str, Any]
    attempt: dict[str, Any]
    step: dict[str, Any]

    @property
    def title(self) -> str:
        again = f" (attempt {self.attempt['attempt']})" if self.attempt["attempt"] > 1 else ""
        return f"{self.job['name']} / {self.step['name']}{again}"

    @property
    def key(self) -> tuple[int, int, int]:
        return int(self.job["id"]), int(self.attempt["attempt"]), int(self.step["number"])

    @property
    def status(self) -> Status:
        return Status(self.step["status"])

    @property
    def has_begun(self) -> bool:
        return self.step["began_after"] is not None

    @property
    def is_over(self) -> bool:
        """Nothing more can come: it has ended and its log is complete, or its attempt is dead."""
        is_complete = self.status.is_terminal and self.step["log_size"] is not None
        return bool(self.attempt["is_over"]) or is_complete


def steps(build: dict[str, Any]) -> Iterator[StepRun]:
    """All steps of all attempts, in the order in which they began; what has not begun comes last."""
    for job in build["jobs"]:
        for attempt in job["attempts"]:
            runs = [StepRun(job=job, attempt=attempt, step=step) for step in attempt["steps"]]
            yield from sorted(runs, key=_order)


def _order(run: StepRun) -> tuple[bool, float, int]:
    began = run.step["began_after"]
    return began is None, began or 0.0, run.step["number"]


def fetch(api: Api, path: BuildPath) -> dict[str, Any]:
    found: dict[str, Any] = api.get(path.api)
    return found


def is_settled(build: dict[str, Any]) -> bool:
    """Whether waiting for it at a terminal is over."""
    status = Status(build["status"])
    return status.is_terminal or status in NEEDS_A_PERSON


def exit_code(build: dict[str, Any]) -> int:
    return 0 if Status(build["status"]) in _PASSED else 1


def verdict(build: dict[str, Any]) -> str:
    """One sentence: `build 12 failed: test exited with 1`."""
    status = Status(build["status"])
    words = {Status.BLOCKED: "waits for a person", Status.UNKNOWN: "may have worked: a person must say"}
    said = f"build {build['number']} {words.get(status, status.word)}"
    return f"{said}: {build['reason']}" if build["reason"] and status is not Status.SUCCESS else said
