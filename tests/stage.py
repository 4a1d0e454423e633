"""A stage for engines: every attempt has a server id of its own, and is removed afterwards."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from ci.marks import Mark, Said, Splitter
from ci.registries import Login
from ci.spec import JobSpec, Limits, StepKind, StepSpec
from runners.engines.base import NO_LOGINS, Engine, Exit, Janitor, Launch, Owner
from runners.engines.settings import DockerSettings

TOKEN = "0123456789abcdef" * 2
IMAGE = "shipway-test/busybox:1"
SETTINGS = DockerSettings(image_mirrors=(("docker.io/library/", "shipway-test/"),))
WAIT_SECONDS = 60


@dataclass
class Printed:
    """An output: what a step printed, and its marks."""

    data: bytearray = field(default_factory=bytearray)
    marks: list[tuple[int, int | None]] = field(default_factory=list)
    said: list[bytes] = field(default_factory=list)
    _splitter: Splitter = field(default_factory=lambda: Splitter(TOKEN))
    _wanted: list[tuple[bytes, asyncio.Event, asyncio.AbstractEventLoop]] = field(default_factory=list)

    def write(self, data: bytes) -> None:
        for piece in self._splitter.feed(data):
            if isinstance(piece, Mark):
                self.marks.append((piece.command, piece.code))
            elif isinstance(piece, Said):
                self.said.append(piece.line)
            else:
                self.data += piece
        for text, event, loop in self._wanted:
            if text in self.data:
                loop.call_soon_threadsafe(event.set)

    async def saw(self, text: bytes) -> None:
        event = asyncio.Event()
        self._wanted.append((text, event, asyncio.get_running_loop()))
        self.write(b"")
        await asyncio.wait_for(event.wait(), WAIT_SECONDS)

    @property
    def text(self) -> str:
        return self.data.decode(errors="replace")


@dataclass
class Stage:
    """One engine with one attempt of a job."""

    engine: Engine
    janitor: Janitor
    owner: Owner
    job: JobSpec

    def start(
        self, slug: str, number: int = 1, **environment: str
    ) -> tuple[asyncio.Task[Exit], Printed, asyncio.Event]:
        """The running step, its output, and the event of its own code beginning."""
        step = self.job.step(slug)
        printed, began, loop = Printed(), asyncio.Event(), asyncio.get_running_loop()

        def on_started() -> None:
            loop.call_soon_threadsafe(began.set)

        launch = Launch(
            step=step,
            environment={**step.environment, **environment},
            mark_token=TOKEN,
            output=printed,
            on_started=on_started,
            number=number,
        )
        return asyncio.create_task(self.engine.run(launch)), printed, began

    async def run(self, slug: str, **environment: str) -> tuple[Exit, Printed]:
        task, printed, _ = self.start(slug, **environment)
        return await asyncio.wait_for(task, WAIT_SECONDS), printed


def step(slug: str, *commands: str, fake: dict[str, str] | None = None, **more: object) -> StepSpec:
    """`fake` tells the fake engine what the commands do."""
    values: dict[str, object] = {
        "number": 1,
        "name": slug,
        "slug": slug,
        "kind": StepKind.COMMANDS,
        "image": IMAGE,
        "commands": commands,
        "environment": {f"FAKE_{key}": value for key, value in (fake or {}).items()},
        "limits": Limits(memory_bytes=256 << 20),
    }
    return StepSpec.model_validate({**values, **more})


def job_of(*steps: StepSpec, **more: object) -> JobSpec:
    numbered = tuple(one.model_copy(update={"number": number}) for number, one in enumerate(steps, 1))
    return JobSpec.model_validate({"name": "job", "slug": "job", "steps": numbered, **more})


@asynccontextmanager
async def staged(
    engine: Engine,
    janitor: Janitor,
    *steps: StepSpec,
    logins: Mapping[str, Login] = NO_LOGINS,
    **more: object,
) -> AsyncIterator[Stage]:
    """`more`: of the job."""
    owner = Owner(server=f"test-{uuid.uuid4().hex}", runner="r1", job=7, attempt=1)
    stage = Stage(engine, janitor, owner, job_of(*steps, **more))
    try:
        await engine.prepare(stage.job, owner, logins)
        yield stage
    finally:
        await engine.destroy()
        janitor.remove_attempt(owner.server, owner.job, owner.attempt)
