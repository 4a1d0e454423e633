"""Engine and janitor of any container daemon: the contract of engines.base over engines.daemon."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import BinaryIO

from ci.registries import Login
from ci.spec import JobSpec, Ready, StepSpec
from runners.engines import sandbox
from runners.engines.attempt import Attempt, remove_all
from runners.engines.base import NO_LOGINS, EngineError, Exit, Launch, Owner
from runners.engines.container_step import NOT_RUNNING, ContainerStep
from runners.engines.daemon import Daemon
from runners.engines.image_store import ImageStore
from runners.engines.settings import DockerSettings
from runners.engines.threads import in_thread

_PIECE_BYTES = 256 * 1024


class ContainerEngine:
    """See engines.base.Engine."""

    def __init__(self, daemon: Daemon, settings: DockerSettings) -> None:
        self._daemon = daemon
        self._settings = settings
        self._images = ImageStore(daemon, settings)
        self._made: Attempt | None = None
        self._steps: dict[str, ContainerStep] = {}
        self._stopped_early: set[str] = set()

    async def prepare(self, job: JobSpec, owner: Owner, logins: Mapping[str, Login] = NO_LOGINS) -> None:
        self._images.logins = logins
        attempt = self._made = Attempt(self._daemon, self._settings, job, owner, self._images)
        await in_thread("engine-prepare", attempt.make)

    async def fill(self, tar: BinaryIO) -> None:
        attempt = self._attempt()
        await in_thread("engine-fill", lambda: attempt.fill(_pieces(tar)))

    def ready(self, step: StepSpec) -> None:
        if self._made is not None and not self._made.is_destroyed:
            self._of(step).ready()

    async def run(self, launch: Launch) -> Exit:
        if launch.number > 1:
            self._steps[launch.step.slug] = ContainerStep(self._attempt(), launch.step, launch.number)
        step = self._of(launch.step)
        return await in_thread(f"step-{launch.step.slug}", lambda: step.run(launch))

    async def stop(self, slug: str, grace_seconds: float) -> None:
        self._stopped_early.add(slug)  # for a step that has not been heard of yet
        if (step := self._steps.get(slug)) is not None:
            await in_thread("engine-stop", lambda: step.stop(grace_seconds))

    async def probe(self, slug: str, ready: Ready) -> str:
        step = self._steps.get(slug)
        if step is None:
            return NOT_RUNNING
        return await in_thread(f"probe-{slug}", lambda: step.why_unready(ready))

    async def read(self, path: str, limit_bytes: int) -> bytes | None:
        attempt = self._attempt()
        return await in_thread("engine-read", lambda: attempt.read(path, limit_bytes))

    async def destroy(self) -> None:
        if self._made is not None:
            await in_thread("engine-destroy", self._made.destroy)

    def _attempt(self) -> Attempt:
        if self._made is None or self._made.is_destroyed:
            raise EngineError("the attempt is not prepared, or already destroyed")
        return self._made

    def _of(self, step: StepSpec) -> ContainerStep:
        if step.slug not in self._steps:
            made = self._steps[step.slug] = ContainerStep(self._attempt(), step)
            if step.slug in self._stopped_early:
                made.stop(0)
        return self._steps[step.slug]


class ContainerJanitor:
    """See engines.base.Janitor."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def describe(self) -> str:
        return self._daemon.version()

    def attempts(self, server: str) -> Iterable[tuple[str, int, int]]:
        found = set()
        for labels in self._daemon.owners():
            if labels.get("shipway.server") == server:
                job, attempt = labels["shipway.job"], labels["shipway.attempt"]
                found.add((labels.get("shipway.runner", ""), int(job), int(attempt)))
        return sorted(found)

    def remove_attempt(self, server: str, job: int, attempt: int) -> None:
        remove_all(self._daemon, sandbox.attempt_labels(server, job, attempt))


def _pieces(tar: BinaryIO) -> Iterator[bytes]:
    while piece := tar.read(_PIECE_BYTES):
        yield piece
