"""Engine: what a runner starts containers with. The contract; every engine passes one conformance suite.

Order of calls, for one attempt:

    prepare -> (fill) -> ready* / run* / stop* / probe* / read* -> destroy

* `prepare` comes first and once. If it raises, only `destroy` may follow.
* `fill` puts the clone into the workspace; at most once, before any `run` that needs it.
* `ready` is a hint that `run` of this step is near. It may be ignored, and the step may never run.
* `run` is called for many steps at the same time. Services are run like steps and end by `stop`. For a step
  that is tried again it is called again, with the next number, after the call before has returned.
* `stop` may be called at any moment, for any step, again and again. It ends the run that is under way; a step
  not yet run then never starts, unless it is tried again.
* `destroy` may be called at any moment, in any state, again, by another process (`remove_attempts`): it
  ends what runs and removes every container, network and volume of the attempt.

Methods are coroutines; an engine does its own blocking work in threads of its own. `Output` is called
from such threads, one at a time for each step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import BinaryIO, Protocol

from ci.registries import Login
from ci.spec import JobSpec, Ready, StepSpec
from ci.status import Outcome


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Whose a resource is; becomes its labels (law 11)."""

    server: str
    runner: str
    job: int
    attempt: int


@dataclass(frozen=True, kw_only=True)
class Exit:
    """How a step ended. `code` is None where there is none (never started, engine gone).

    `outcome` EXIT with its code is the user's own result; every other outcome says in `reason`, as a
    sentence, what happened and what would help.
    """

    code: int | None
    outcome: Outcome = Outcome.EXIT
    reason: str = ""

    @property
    def is_success(self) -> bool:
        return self.outcome is Outcome.EXIT and self.code == 0


class Output(Protocol):
    """Where a step's bytes go, in the order in which they were written. May block: back-pressure."""

    def write(self, data: bytes) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Everything that `run` needs beside the spec, known only when the step starts.

    `environment` is complete (it replaces, not extends, what the spec says); it may hold secrets, so
    it must stand in no `inspect` where the step has a shell. `mark_token` names the step's command marks
    (ci.marks).
    """

    step: StepSpec
    environment: Mapping[str, str] = field(repr=False)
    mark_token: str = field(repr=False)
    output: Output
    on_started: Callable[[], None] = lambda: None  #: called from a thread, when the step's own code begins
    number: int = 1  #: of the run: each is a fresh container


NO_LOGINS: Mapping[str, Login] = MappingProxyType({})


class Engine(Protocol):
    """One engine bound to one attempt. See the module for the order of calls."""

    async def prepare(self, job: JobSpec, owner: Owner, logins: Mapping[str, Login] = NO_LOGINS) -> None:
        """Make the network, the workspace volume and what holds the namespaces. `logins`: of registries, by
        their hosts, for the images of this job."""

    async def fill(self, tar: BinaryIO) -> None:
        """Unpack a tar stream into the workspace. The stream is read once, from a thread."""

    def ready(self, step: StepSpec) -> None:
        """`run` of this step is near."""

    async def run(self, launch: Launch) -> Exit:
        """Run the step to its end. Every byte was given to `output` before this returns.

        Never raises for what a user or an image did; raises EngineError where the engine itself failed.
        """

    async def stop(self, slug: str, grace_seconds: float) -> None:
        """TERM to every process of the step, KILL after the grace. Returns when it is sent; `run` tells
        when the step has ended."""

    async def probe(self, slug: str, ready: Ready) -> str:
        """Why the running service is not ready now, as a clause; empty: it is. Returns within seconds."""

    async def read(self, path: str, limit_bytes: int) -> bytes | None:
        """The beginning of a plain file of the workspace, by its absolute path; None: there is none there."""

    async def destroy(self) -> None:
        """End and remove everything of the attempt. Never raises for what is gone already."""


class Janitor(Protocol):
    """What the supervisor needs of an engine, across attempts. Blocking calls, safe in any thread."""

    def describe(self) -> str:
        """Name and version, e.g. "docker 27.1". Raises EngineError with what is missing and how to fix it."""

    def attempts(self, server: str) -> Iterable[tuple[str, int, int]]:
        """(runner, job, attempt) of every attempt of `server` that still has a resource here."""

    def remove_attempt(self, server: str, job: int, attempt: int) -> None:
        """Remove everything with the attempt's label. Anything of anybody else stays untouched."""


class EngineError(Exception):
    """The engine failed us: unreachable, restarted, full. The text says what to do."""
