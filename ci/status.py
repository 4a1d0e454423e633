"""Status of a build, a job or a step: the one transition table, and how statuses fold.

Theory of operation. A status changes only through `advance`. Terminal statuses absorb: a late message
changes nothing. `unknown` is not terminal: it waits for a person, who resolves it to what really
happened. Steps fold into a job by `of_job`, jobs into a build by `of_build`; both are published in
docs/reference/status.md, and a test holds that page to these tables.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Status(StrEnum):
    BLOCKED = "blocked"  #: a person must act first
    WAITING = "waiting"  #: its own dependencies have not ended
    PENDING = "pending"  #: ready, but no runner, or no place in its concurrency group, is free
    RUNNING = "running"
    SUCCESS = "success"
    FAILURE = "failure"  #: the user's commands failed
    ERROR = "error"  #: we, or the machine, failed; always with a cause a person can act on
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    UNKNOWN = "unknown"  #: a step with side effects may have run; a person must say

    @property
    def is_terminal(self) -> bool:
        return not TRANSITIONS[self]

    @property
    def word(self) -> str:
        """What a person reads, on pages and in terminals."""
        return {Status.SUCCESS: "passed", Status.FAILURE: "failed"}.get(self, self.value)


class Outcome(StrEnum):
    """Why something ended or waits, beside its status; each has a sentence (`reason`) with it."""

    EXIT = "exit"
    OOM = "oom"
    TIMEOUT = "timeout"
    IMAGE = "image"
    CONFIG = "config"
    SECRET = "secret"
    INFRA = "infra"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    BLOCKED = "blocked"
    LOST_UNKNOWN = "lost-unknown"


_ENDS = frozenset(
    {Status.SUCCESS, Status.FAILURE, Status.ERROR, Status.CANCELLED, Status.SKIPPED, Status.UNKNOWN}
)

#: from -> allowed to. PENDING again after RUNNING is a retry as a new attempt. BLOCKED and UNKNOWN reach
#: RUNNING, and RUNNING and UNKNOWN reach BLOCKED, only in a build: a person has decided on one of its jobs
#: while others have ended or run, or an approval no longer held when a later job was to start.
TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.BLOCKED: frozenset({Status.WAITING, Status.PENDING, Status.RUNNING}) | _ENDS,
    Status.WAITING: frozenset({Status.BLOCKED, Status.PENDING, Status.RUNNING}) | _ENDS,
    Status.PENDING: frozenset({Status.BLOCKED, Status.WAITING, Status.RUNNING}) | _ENDS,
    Status.RUNNING: frozenset({Status.BLOCKED, Status.PENDING, Status.WAITING}) | _ENDS,
    Status.UNKNOWN: frozenset(
        {
            Status.SUCCESS,
            Status.FAILURE,
            Status.ERROR,
            Status.CANCELLED,
            Status.BLOCKED,
            Status.PENDING,
            Status.RUNNING,
        }
    ),
    Status.SUCCESS: frozenset(),
    Status.FAILURE: frozenset(),
    Status.ERROR: frozenset(),
    Status.CANCELLED: frozenset(),
    Status.SKIPPED: frozenset(),
}


def may_advance(old: Status, new: Status) -> bool:
    """Whether `old` -> `new` is in the table. The same status again is no transition: False."""
    return new in TRANSITIONS[old]


#: Worst first: the fold of many statuses is the first of these that occurs among them.
_WORST_FIRST = (
    Status.RUNNING,
    Status.BLOCKED,
    Status.UNKNOWN,
    Status.PENDING,
    Status.WAITING,
    Status.ERROR,
    Status.FAILURE,
    Status.CANCELLED,
    Status.SUCCESS,
    Status.SKIPPED,
)


def of_build(jobs: Iterable[Status]) -> Status:
    """Fold jobs into their build. Not ended while one job is not; no jobs at all is `skipped`.

    A build in which some jobs ended while others still wait is `running`.
    """
    found = set(jobs)
    if not found:
        return Status.SKIPPED
    open_ones = {status for status in found if not status.is_terminal}
    has_begun = bool(found - open_ones - {Status.SKIPPED})
    if has_begun and open_ones and not open_ones & {Status.BLOCKED, Status.UNKNOWN}:
        return Status.RUNNING
    return next(status for status in _WORST_FIRST if status in found)


def of_job(steps: Iterable[tuple[Status, bool]]) -> Status:
    """Fold the ended steps of a job, as (status, whether its failure is ignored), into the job.

    `failure: ignore` turns a failure, never an error, into a success. Services and detached steps
    that were stopped with the job count as a success.
    """
    found = {
        Status.SUCCESS if status is Status.FAILURE and is_ignored else status for status, is_ignored in steps
    }
    if not found:
        return Status.SUCCESS
    return next(status for status in _WORST_FIRST if status in found)
