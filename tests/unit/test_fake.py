from __future__ import annotations

import asyncio
import io
from pathlib import Path

import pytest

from ci.spec import JobSpec, StepKind, StepSpec
from ci.status import Outcome
from runners.engines.base import EngineError, Exit, Launch, Owner
from runners.engines.fake import FakeEngine, FakeJanitor

OWNER = Owner(server="s1", runner="r1", job=7, attempt=1)
TOKEN = "0" * 32


class Collected:
    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


def step(*commands: str, **environment: str) -> StepSpec:
    return StepSpec(
        number=1,
        name="a",
        slug="a",
        kind=StepKind.COMMANDS,
        image="busybox",
        commands=commands or ("true",),
        environment=environment,
    )


async def run(state: Path, spec: StepSpec) -> tuple[Exit, bytes]:
    engine = FakeEngine(state)
    await engine.prepare(JobSpec(name="j", slug="j", steps=(spec,)), OWNER)
    output = Collected()
    launch = Launch(step=spec, environment=spec.environment, mark_token=TOKEN, output=output)
    try:
        return await engine.run(launch), output.data
    finally:
        await engine.destroy()


async def test_output_lies_between_the_marks_of_the_first_command(tmp_path: Path) -> None:
    exit_, data = await run(tmp_path, step("one", "two", FAKE_OUTPUT="hi\n", FAKE_LINES="2"))
    lead = f"\x1b_shipway;{TOKEN};".encode()
    assert exit_ == Exit(code=0)
    assert data.split(lead) == [
        b"",
        b"b;0\x1b\\hi\nline 1\nline 2\n",
        b"e;0,0\x1b\\",
        b"b;1\x1b\\",
        b"e;1,0\x1b\\",
    ]


async def test_lines_are_spread_over_the_sleep(tmp_path: Path) -> None:
    began = asyncio.get_running_loop().time()
    await run(tmp_path, step(FAKE_LINES="4", FAKE_SLEEP="0.2"))
    assert asyncio.get_running_loop().time() - began >= 0.2


async def test_lost_is_the_engines_own_failure(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="FAKE_LOST"):
        await run(tmp_path, step(FAKE_LOST="1"))


async def start(engine: FakeEngine, spec: StepSpec) -> asyncio.Task[Exit]:
    """Returns once the step's own code has begun."""
    await engine.prepare(JobSpec(name="j", slug="j", steps=(spec,)), OWNER)
    started, loop = asyncio.Event(), asyncio.get_running_loop()
    launch = Launch(
        step=spec,
        environment=spec.environment,
        mark_token=TOKEN,
        output=Collected(),
        on_started=lambda: loop.call_soon_threadsafe(started.set) and None,
    )
    running = asyncio.create_task(engine.run(launch))
    await asyncio.wait_for(started.wait(), 5)
    return running


async def test_a_step_that_ignores_term_is_killed_after_the_grace(tmp_path: Path) -> None:
    engine, loop = FakeEngine(tmp_path), asyncio.get_running_loop()
    running = await start(engine, step(FAKE_HANG="1", FAKE_IGNORE_TERM="1"))
    began = loop.time()
    await engine.stop("a", 0.2)
    exit_ = await running
    assert (exit_.code, exit_.outcome) == (137, Outcome.EXIT)
    assert loop.time() - began >= 0.2


async def test_another_process_sees_an_attempt_and_ends_it(tmp_path: Path) -> None:
    engine, janitor = FakeEngine(tmp_path), FakeJanitor(tmp_path)
    running = await start(engine, step(FAKE_HANG="1"))
    assert list(janitor.attempts("s1")) == [("r1", 7, 1)]
    assert list(janitor.attempts("s2")) == []
    janitor.remove_attempt("s1", 7, 1)
    assert not (await asyncio.wait_for(running, 5)).is_success
    with pytest.raises(EngineError, match="not prepared"):
        await engine.fill(io.BytesIO())
    assert list(janitor.attempts("s1")) == []
