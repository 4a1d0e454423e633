"""The contract of engines.base, kept by every engine: each test runs with all of them.

A step says what it does twice: in commands for an engine that runs them, in FAKE_ variables for the one
that does not.
"""

from __future__ import annotations

import asyncio
import io
import tarfile
import uuid
from collections.abc import Callable

import pytest

from ci.environ import OUTPUT_FILE
from ci.spec import Ready, StepKind
from ci.status import Outcome
from runners.engines.base import Engine, EngineError, Exit, Janitor, Owner
from tests.stage import WAIT_SECONDS, job_of, staged, step

Pair = Callable[[], tuple[Engine, Janitor]]


async def test_a_step_prints_and_ends_with_its_code(pair: Pair) -> None:
    says = step("says", "echo hi", fake={"OUTPUT": "hi\n"})
    async with staged(*pair(), says) as stage:
        exit_, printed = await stage.run("says")
    assert (exit_, printed.text) == (Exit(code=0), "hi\n")


async def test_each_command_is_marked_and_the_last_one_has_the_steps_code(pair: Pair) -> None:
    fails = step("fails", "echo hi", "exit 3", fake={"OUTPUT": "hi\n", "EXIT": "3"})
    async with staged(*pair(), fails) as stage:
        exit_, printed = await stage.run("fails")
    assert (exit_.code, exit_.outcome, exit_.reason) == (3, Outcome.EXIT, "exited with 3")
    assert printed.marks == [(0, None), (0, 0), (1, None), (1, 3)]


async def test_a_service_runs_its_commands_until_it_is_stopped(pair: Pair) -> None:
    commands = ("echo open", "sleep 600")
    shop = step("shop", *commands, kind=StepKind.SERVICE, fake={"OUTPUT": "open\n", "HANG": "1"})
    async with staged(*pair(), shop) as stage:
        task, printed, _ = stage.start("shop")
        await printed.saw(b"open")
        assert not task.done()
        await stage.engine.stop("shop", WAIT_SECONDS)
        await asyncio.wait_for(task, WAIT_SECONDS)
    assert printed.marks[0] == (0, None)


async def test_an_image_that_does_not_exist_is_said_to_be_the_reason(pair: Pair) -> None:
    gone = step("gone", "true", image="registry.invalid/none:1")
    async with staged(*pair(), gone) as stage:
        exit_, printed = await stage.run("gone")
    assert (exit_.code, exit_.outcome, printed.text) == (None, Outcome.IMAGE, "")
    assert "registry.invalid/none:1" in exit_.reason


async def test_a_step_stopped_before_it_ran_never_starts(pair: Pair) -> None:
    says = step("says", "echo hi", fake={"OUTPUT": "hi\n"})
    async with staged(*pair(), says) as stage:
        await stage.engine.stop("says", 5)
        exit_, printed = await stage.run("says")
    assert (exit_.code, exit_.outcome, printed.text) == (None, Outcome.CANCELLED, "")


async def test_a_running_step_is_ended_by_term(pair: Pair) -> None:
    hangs = step("hangs", "echo up; sleep 600", fake={"OUTPUT": "up\n", "HANG": "1"})
    async with staged(*pair(), hangs) as stage:
        task, printed, began = stage.start("hangs")
        await asyncio.wait_for(began.wait(), WAIT_SECONDS)
        await printed.saw(b"up")
        await stage.engine.stop("hangs", WAIT_SECONDS)
        await stage.engine.stop("hangs", WAIT_SECONDS)
        exit_ = await asyncio.wait_for(task, WAIT_SECONDS / 2)
    assert (exit_.code, exit_.outcome) == (143, Outcome.EXIT)


async def test_a_step_that_ignores_term_is_killed_after_the_grace(pair: Pair) -> None:
    commands = "trap '' TERM; echo up; sleep 600"
    deaf = step("deaf", commands, fake={"OUTPUT": "up\n", "HANG": "1", "IGNORE_TERM": "1"})
    async with staged(*pair(), deaf) as stage:
        task, printed, _ = stage.start("deaf")
        await printed.saw(b"up")
        began = asyncio.get_running_loop().time()
        await stage.engine.stop("deaf", 0.5)
        exit_ = await asyncio.wait_for(task, WAIT_SECONDS)
    assert exit_.code == 137
    assert asyncio.get_running_loop().time() - began >= 0.5


async def test_many_steps_run_at_the_same_time(pair: Pair) -> None:
    hang = {"OUTPUT": "up\n", "HANG": "1"}
    steps = [step(f"s{number}", "echo up; sleep 600", fake=hang) for number in range(5)]
    async with staged(*pair(), *steps) as stage:
        running = [stage.start(one.slug) for one in steps]
        for _, printed, _ in running:
            await printed.saw(b"up")
        for one in steps:
            await stage.engine.stop(one.slug, 0)
        ends = [await asyncio.wait_for(task, WAIT_SECONDS) for task, _, _ in running]
    assert {end.code for end in ends} <= {137, 143}


async def test_a_step_reads_what_the_workspace_was_filled_with(pair: Pair) -> None:
    reads = step("reads", "cat hello.txt", fake={"CAT": "hello.txt"})
    async with staged(*pair(), reads) as stage:
        await stage.engine.fill(tar_of({"hello.txt": b"from the clone\n"}))
        exit_, printed = await stage.run("reads")
    assert (exit_.code, printed.text) == (0, "from the clone\n")


async def test_a_hint_changes_nothing_whether_the_step_runs_or_not(pair: Pair) -> None:
    one = step("one", "echo one", fake={"OUTPUT": "one\n"})
    two = step("two", "echo two", fake={"OUTPUT": "two\n"})
    async with staged(*pair(), one, two) as stage:
        for _ in range(3):
            stage.engine.ready(one)
            stage.engine.ready(two)
        exit_, printed = await stage.run("one")
    assert (exit_, printed.text) == (Exit(code=0), "one\n")


async def test_destroy_ends_what_runs_and_may_come_again(pair: Pair) -> None:
    hangs = step("hangs", "echo up; sleep 600", fake={"OUTPUT": "up\n", "HANG": "1"})
    async with staged(*pair(), hangs) as stage:
        task, printed, _ = stage.start("hangs")
        await printed.saw(b"up")
        await stage.engine.destroy()
        await stage.engine.destroy()
        exit_ = await asyncio.wait_for(task, WAIT_SECONDS)
        assert not exit_.is_success
        assert list(stage.janitor.attempts(stage.owner.server)) == []
        with pytest.raises(EngineError):
            await stage.engine.fill(tar_of({}))


async def test_a_destroy_in_the_middle_of_prepare_leaves_nothing(pair: Pair) -> None:
    engine, janitor = pair()
    owner = Owner(server=f"test-{uuid.uuid4().hex}", runner="r1", job=7, attempt=1)
    preparing = asyncio.create_task(engine.prepare(job_of(step("says", "echo hi")), owner))
    await asyncio.sleep(0)  # it has begun
    await engine.destroy()
    await asyncio.gather(preparing, return_exceptions=True)
    assert list(janitor.attempts(owner.server)) == []


async def test_destroy_without_prepare_is_fine(pair: Pair) -> None:
    engine, _ = pair()
    await engine.destroy()


async def test_another_process_removes_the_attempt_and_no_other(pair: Pair) -> None:
    hangs = step("hangs", "echo up; sleep 600", fake={"OUTPUT": "up\n", "HANG": "1"})
    async with staged(*pair(), hangs) as stage, staged(*pair(), hangs) as other:
        running = []
        for one in (stage, other):
            task, printed, _ = one.start("hangs")
            await printed.saw(b"up")
            running.append(task)
        _, janitor = pair()
        assert list(janitor.attempts(stage.owner.server)) == [("r1", 7, 1)]
        janitor.remove_attempt(stage.owner.server, 7, 1)
        janitor.remove_attempt(stage.owner.server, 7, 1)
        assert not (await asyncio.wait_for(running[0], WAIT_SECONDS)).is_success
        assert list(janitor.attempts(stage.owner.server)) == []
        assert list(janitor.attempts(other.owner.server)) == [("r1", 7, 1)]
        assert not running[1].done()


def test_an_engine_says_its_name_and_version(pair: Pair) -> None:
    _, janitor = pair()
    name, version = janitor.describe().split(" ")
    assert name in ("fake", "docker")
    assert version


def tar_of(files: dict[str, bytes], mode: int = 0o666) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            tar.addfile(entry, io.BytesIO(data))
    buffer.seek(0)
    return buffer


async def test_a_step_that_is_run_again_is_a_fresh_container(pair: Pair) -> None:
    again = step("again", "mkdir /made-before")
    async with staged(*pair(), again) as stage:
        await stage.engine.stop("again", 0)
        exit_, _ = await stage.run("again")
        assert exit_.outcome is Outcome.CANCELLED
        for number in (2, 3):
            task, _, _ = stage.start("again", number)
            assert await asyncio.wait_for(task, WAIT_SECONDS) == Exit(code=0)


async def test_what_a_step_puts_out_is_marked_and_no_part_of_its_log(pair: Pair) -> None:
    puts = step("puts", "echo log", 'echo "A=1 2" >>"$CI_OUTPUT"', fake={"OUTPUT": "log\n", "PUT": "A=1 2"})
    async with staged(*pair(), puts) as stage:
        exit_, printed = await stage.run("puts", CI_OUTPUT=OUTPUT_FILE)
    assert (exit_.code, printed.text, printed.said) == (0, "log\n", [b"A=1 2"])


async def test_files_of_the_workspace_are_read_up_to_a_limit_and_nothing_else_is(pair: Pair) -> None:
    async with staged(*pair(), step("a", "true")) as stage:
        await stage.engine.fill(tar_of({"build.env": b"A=1\n", "sub/more": b"x" * 100_000}))
        assert await stage.engine.read("/workspace/build.env", 100) == b"A=1\n"
        assert await stage.engine.read("/workspace/sub/more", 5) == b"xxxxx"
        assert await stage.engine.read("/workspace/sub", 5) is None
        assert await stage.engine.read("/workspace/no", 5) is None
        await stage.run("a")  # its namespace is being cleaned, or gone
        assert await stage.engine.read("/workspace/build.env", 100) == b"A=1\n"


async def test_a_service_is_not_ready_before_it_runs_and_then_when_it_says_so(pair: Pair) -> None:
    serve = ("echo up", "touch /up", "sleep 600")
    db = step("db", *serve, kind=StepKind.SERVICE, fake={"OUTPUT": "up\n", "HANG": "1"})
    ready = Ready(command="test -e /up")
    async with staged(*pair(), db) as stage:
        assert await stage.engine.probe("db", ready) == "it does not run yet"
        task, printed, _ = stage.start("db")
        await printed.saw(b"up\n")
        while await stage.engine.probe("db", ready):
            await asyncio.sleep(0.05)
        await stage.engine.stop("db", 0)
        await asyncio.wait_for(task, WAIT_SECONDS)
