"""A server's core on a real database, with a clock that a test moves; no HTTP, no runner process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from ci.event import Event, Kind
from ci.protocol import Assign, Change, Hello, JobEnded, Lease, Record, ServerMessage, StepChanged
from ci.server.auth import Actor
from ci.server.bus import Bus
from ci.server.clock import Clock
from ci.server.credentials import Credentials
from ci.server.lifecycle import Lifecycle
from ci.server.models import Build, Job, Step
from ci.server.queue import TICK_SECONDS, Queue
from ci.server.secrets import Secrets
from ci.server.store import builds, codes, jobs, repos, runners
from ci.server.store.builds import NewBuild
from ci.server.store.database import Store
from ci.server.vault import Vault
from ci.spec import CloneSpec, JobSpec, StepKind, StepSpec
from ci.status import Status

SHA = "a" * 40
ADA = Actor(user_id=1, name="ada")


class HeldClock(Clock):
    def __init__(self) -> None:
        self.seconds = 1_000_000.0

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds


def step(number: int, name: str, *, deploy: bool = False, depends_on: tuple[str, ...] = ()) -> StepSpec:
    return StepSpec(
        number=number,
        name=name,
        slug=name,
        kind=StepKind.COMMANDS,
        image="busybox",
        commands=("true",),
        deploy=deploy,
        depends_on=depends_on,
    )


CLONE = CloneSpec(url="https://git.example/ada/app.git", sha=SHA, ref="refs/heads/main", repo_key="1")


def spec(
    name: str = "ci",
    *,
    deploy: bool = False,
    labels: dict[str, str] | None = None,
    clone: CloneSpec | None = None,
) -> JobSpec:
    """A job of two steps, `test` and then `end`, the second with side effects if asked for."""
    steps = (step(1, "test"), step(2, "end", deploy=deploy, depends_on=("test",)))
    return JobSpec(name=name, slug=name, labels=labels or {}, steps=steps, clone=clone)


def event(ref: str = "refs/heads/main", after: str = SHA) -> Event:
    return Event(kind=Kind.PUSH, ref=ref, after=after, branch="main", variables={})


@dataclass
class Core:
    store: Store
    bus: Bus
    clock: HeldClock
    queue: Queue
    lifecycle: Lifecycle
    repo_id: int
    secrets: Secrets
    credentials: Credentials

    async def build(self, *specs: JobSpec, of: Event | None = None) -> int:
        """A build with these jobs; returns its id."""

        def make(connection):  # type: ignore[no-untyped-def]
            number = builds.next_number(connection, self.repo_id)
            new = NewBuild(repo_id=self.repo_id, number=number, event=of or event(), specs=specs or (spec(),))
            return builds.create(connection, new, self.clock.now()).build_id

        return await self.store.write(make)

    async def runner(
        self, name: str = "a", *, labels: dict[str, str] | None = None, capacity: int = 10
    ) -> int:
        def add(connection):  # type: ignore[no-untyped-def]
            code = codes.new_code(connection, codes.RUNNER, self.clock.now())
            return runners.register(
                connection, code=code, name=name, labels=labels or {}, capacity=capacity, now=self.clock.now()
            )[0]

        return await self.store.write(add)

    async def started(self, runner_id: int) -> Assign:
        """The runner takes one job and has its acknowledgement stored."""
        (assigned,) = await self.queue.take(runner_id, 1)
        assert await self.queue.accept(runner_id, assigned.lease) is not None
        return assigned

    async def record(
        self, runner_id: int, lease: Lease, *changes: Change, first: int = 0
    ) -> list[ServerMessage]:
        answers: list[ServerMessage] = []
        for seq, change in zip(count(first), changes, strict=False):
            answers += await self.lifecycle.apply(runner_id, Record(lease=lease, seq=seq, change=change))
        return answers

    async def age(self, passes: int = 1, *, seconds: float = TICK_SECONDS) -> None:
        for _ in range(passes):
            await self.queue.age_leases()
            self.clock.seconds += seconds

    async def lose_by_silence(self) -> None:
        """Enough passes for every lease that nobody speaks of, wherever the server stood."""
        await self.age(14)

    async def job(self, job_id: int) -> Job:
        found = await self.store.read(lambda connection: jobs.find(connection, job_id))
        assert found is not None
        return found

    async def jobs_of(self, build_id: int) -> list[Job]:
        return await self.store.read(lambda connection: jobs.of_build(connection, build_id))

    async def build_row(self, build_id: int) -> Build:
        found = await self.store.read(lambda connection: builds.by_id(connection, build_id))
        assert found is not None
        return found

    async def steps(self, job_id: int, attempt: int = 1) -> dict[str, Step]:
        found = await self.store.read(lambda connection: jobs.steps_of(connection, job_id, attempt))
        return {row.slug: row for row in found}


@asynccontextmanager
async def core(path: Path) -> AsyncIterator[Core]:
    clock, bus = HeldClock(), Bus()
    store = Store(path / "shipway.db")
    await store.open()
    try:
        repo_id = await store.write(lambda c: repos.create(c, owner="ada", name="app", now=clock.now()))
        vault = Vault(bytes(32))
        secrets = Secrets(store, vault, clock)
        credentials = Credentials(store, vault, clock)
        queue = Queue(store, bus, clock, vault, secrets, credentials)
        yield Core(store, bus, clock, queue, Lifecycle(store, bus, clock), repo_id, secrets, credentials)
    finally:
        await store.close()


def running(step_number: int) -> StepChanged:
    return StepChanged(step=step_number, status=Status.RUNNING, after_seconds=1.0)


def ended(step_number: int, status: Status = Status.SUCCESS, exit_code: int = 0) -> StepChanged:
    return StepChanged(step=step_number, status=status, exit_code=exit_code, after_seconds=2.0)


def job_ended(status: Status = Status.SUCCESS, reason: str = "") -> JobEnded:
    return JobEnded(status=status, reason=reason, after_seconds=3.0)


def hello(*held: object) -> Hello:
    return Hello(software="test", capacity=10, engine="fake", held=tuple(held))  # type: ignore[arg-type]
