"""Shell: where a step has failed, a shell in a container like its own, before anything is cleaned up."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import BinaryIO

from ci.registries import Login
from ci.shell import is_exportable, unfit
from ci.spec import JobSpec, Ready, StepKind, StepSpec
from ci.status import Outcome
from runners.engines import images, sandbox
from runners.engines.base import NO_LOGINS, Engine, Exit, Launch, Owner
from runners.engines.settings import DockerSettings


class ShellOnFail:
    """An engine that opens a shell after each step of commands that failed. For a person at a terminal."""

    def __init__(self, engine: Engine, settings: DockerSettings) -> None:
        self._engine = engine
        self._mirrors = settings.image_mirrors
        self._job: JobSpec | None = None
        self._owner: Owner | None = None
        self._one_at_a_time = asyncio.Lock()

    async def prepare(self, job: JobSpec, owner: Owner, logins: Mapping[str, Login] = NO_LOGINS) -> None:
        self._job, self._owner = job, owner
        await self._engine.prepare(job, owner, logins)

    async def fill(self, tar: BinaryIO) -> None:
        await self._engine.fill(tar)

    def ready(self, step: StepSpec) -> None:
        self._engine.ready(step)

    async def run(self, launch: Launch) -> Exit:
        ended = await self._engine.run(launch)
        is_own = launch.step.kind is StepKind.COMMANDS and ended.outcome in (Outcome.EXIT, Outcome.OOM)
        if is_own and not ended.is_success and ended.code is not None:
            async with self._one_at_a_time:
                await asyncio.to_thread(self._open, launch)
        return ended

    async def stop(self, slug: str, grace_seconds: float) -> None:
        await self._engine.stop(slug, grace_seconds)

    async def probe(self, slug: str, ready: Ready) -> str:
        return await self._engine.probe(slug, ready)

    async def read(self, path: str, limit_bytes: int) -> bytes | None:
        return await self._engine.read(path, limit_bytes)

    async def destroy(self) -> None:
        await self._engine.destroy()

    def _open(self, launch: Launch) -> None:
        assert self._job is not None and self._owner is not None, "it was prepared"
        print(f"\n{launch.step.name} failed; this is a shell in its image. `exit` goes on.", flush=True)
        image = images.mirrored(launch.step.image, self._mirrors)
        command = command_of(launch, self._job, self._owner, image)
        # Values go by the environment of the client: no list of processes shows them.
        subprocess.run(command, env={**os.environ, **_passed(launch)}, check=False, stdin=sys.stdin)


def command_of(launch: Launch, job: JobSpec, owner: Owner, image: str) -> list[str]:
    """The client's command line; it holds names of variables, and no values."""
    name, step = sandbox.name_of(owner), launch.step
    labels = [
        part for key, value in sandbox.labels_of(owner).items() for part in ("--label", f"{key}={value}")
    ]
    variables = [part for variable in _passed(launch) for part in ("-e", variable)]
    return [
        *("docker", "run", "--rm", "-it", "--network", name, *labels, *variables),
        *("-v", f"{name}:{job.workspace}", "-w", step.directory or job.directory),
        *(("-u", step.user) if step.user else ()),
        *("--entrypoint", sandbox.shell_of(step), image),
    ]


def _passed(launch: Launch) -> dict[str, str]:
    """Not what the client itself is steered by."""
    return {
        name: value
        for name, value in launch.environment.items()
        if is_exportable(name) and not unfit(name) and not name.startswith("DOCKER_") and name != "HOME"
    }
