"""Steps that do what they should not: each ends clearly, and loses nothing."""

from __future__ import annotations

import asyncio
import hashlib
import threading

import pytest

from ci.spec import Limits, StepKind
from ci.status import Outcome
from runners.engines.base import Exit, Launch
from tests.docker.conftest import Docker
from tests.stage import IMAGE, TOKEN, WAIT_SECONDS, Printed, step

pytestmark = pytest.mark.docker
SMALL = Limits(memory_bytes=64 << 20, pids=64)


async def test_a_line_of_a_mebibyte_without_an_end_is_kept_whole(docker: Docker) -> None:
    async with docker(step("long", "head -c 1048576 /dev/zero | tr '\\0' x")) as stage:
        exit_, printed = await stage.run("long")
    assert (exit_, bytes(printed.data)) == (Exit(code=0), b"x" * (1 << 20))


async def test_every_byte_value_is_kept(docker: Docker) -> None:
    octal = "".join(f"\\{number:03o}" for number in range(256))
    async with docker(step("binary", f"printf '{octal}'")) as stage:
        _, printed = await stage.run("binary")
    assert bytes(printed.data) == bytes(range(256))


async def test_fifty_megabytes_arrive_whole_though_their_reader_is_slow(docker: Docker) -> None:
    size = 50_000_000
    async with docker(step("much", f"yes 0123456789abcdef | head -c {size}")) as stage:
        found, printed = hashlib.sha256(), Printed()
        is_slow = threading.Event()

        class Slow:
            def write(self, data: bytes) -> None:
                is_slow.wait(0.5)  # the first piece waits; the container waits with it
                is_slow.set()
                printed.data.clear()
                printed.write(data)
                found.update(printed.data)

        launch = Launch(step=stage.job.step("much"), environment={}, mark_token=TOKEN, output=Slow())
        exit_ = await asyncio.wait_for(stage.engine.run(launch), WAIT_SECONDS)
    whole = (b"0123456789abcdef\n" * (size // 17 + 1))[:size]
    assert (exit_.code, found.hexdigest()) == (0, hashlib.sha256(whole).hexdigest())


async def test_the_last_lines_before_a_failure_are_there(docker: Docker) -> None:
    steps = [step(f"s{number}", "seq 1 200; exit 1") for number in range(8)]
    async with docker(*steps) as stage:
        ends = await asyncio.gather(*(stage.run(one.slug) for one in steps))
    expected = "".join(f"{number}\n" for number in range(1, 201))
    assert [(exit_.code, printed.text) for exit_, printed in ends] == [(1, expected)] * 8


async def test_children_left_behind_hold_nothing_up(docker: Docker) -> None:
    async with docker(step("leaves", "sleep 600 & (sleep 600 &) ; echo done")) as stage:
        exit_, printed = await asyncio.wait_for(stage.run("leaves"), WAIT_SECONDS / 2)
    assert (exit_, printed.text) == (Exit(code=0), "done\n")


async def test_a_step_may_close_its_output_and_go_on(docker: Docker) -> None:
    async with docker(step("closes", "echo a; exec >&- 2>&-; sleep 1; exit 3")) as stage:
        exit_, printed = await stage.run("closes")
    assert (exit_.code, printed.text) == (3, "a\n")


async def test_a_fork_bomb_meets_its_limit_and_can_be_stopped(docker: Docker) -> None:
    bomb = step("bomb", "echo up; f() { f | f & }; f; sleep 600", limits=SMALL)
    async with docker(bomb, step("after", "echo fine")) as stage:
        task, printed, _ = stage.start("bomb")
        await printed.saw(b"up")
        exit_, after = await stage.run("after")
        assert (exit_, after.text) == (Exit(code=0), "fine\n")
        await stage.engine.stop("bomb", 1)
        ended = await asyncio.wait_for(task, WAIT_SECONDS)
    assert not ended.is_success


async def test_too_many_processes_fail_with_the_shells_words(docker: Docker) -> None:
    many = "i=0; while [ $i -lt 200 ]; do sleep 600 & i=$((i+1)); done"
    async with docker(step("many", many, limits=SMALL)) as stage:
        exit_, printed = await stage.run("many")
    assert exit_.code not in (0, None)
    assert "can't fork" in printed.text


async def test_too_much_memory_is_its_own_outcome_with_the_limit(docker: Docker) -> None:
    async with docker(step("eats", "echo up; tail /dev/zero", limits=SMALL)) as stage:
        exit_, printed = await stage.run("eats")
    assert (exit_.outcome, exit_.reason) == (
        Outcome.OOM,
        "out of memory: it used more than its limit of 64 MiB",
    )
    assert "up" in printed.text


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("no-such-command", 127, "not found in this image"),
        ("/etc/passwd", 126, "cannot be executed"),
        ("sh -c 'kill -SEGV $$'", 139, "segmentation fault"),
        ("sh -c 'kill -KILL $$'", 137, "killed"),
        ("sh -c 'kill -TERM $$'", 143, "SIGTERM"),
        ("exit 42", 42, "exited with 42"),
        ("exit 125", 125, "exited with 125"),
    ],
)
async def test_exit_codes_are_told_in_words(docker: Docker, command: str, code: int, words: str) -> None:
    async with docker(step("fails", command)) as stage:
        exit_, _ = await stage.run("fails")
    assert (exit_.code, exit_.outcome) == (code, Outcome.EXIT)
    assert words in exit_.reason


async def test_commands_in_an_image_without_a_shell_say_what_would_help(docker: Docker) -> None:
    async with docker(step("bare", "echo hi", image="shipway-test/noshell:1")) as stage:
        exit_, printed = await stage.run("bare")
    assert (exit_.code, exit_.outcome, printed.text) == (None, Outcome.IMAGE, "")
    assert exit_.reason.startswith("image shipway-test/noshell:1 has no /bin/sh, and commands need one")


async def test_an_image_with_nothing_to_run_is_told_so(docker: Docker) -> None:
    nothing = step("nothing", image="shipway-test/empty:1", kind=StepKind.PLUGIN)
    async with docker(nothing) as stage:
        exit_, _ = await stage.run("nothing")
    assert exit_.outcome is Outcome.IMAGE
    assert "neither entrypoint nor command" in exit_.reason


@pytest.mark.parametrize("image", ["UPPER/case", "a b", "", "x" * 300, "busybox:no-such-tag"])
async def test_an_image_name_of_any_shape_is_an_image_outcome(docker: Docker, image: str) -> None:
    async with docker(step("odd", "true", image=image)) as stage:
        exit_, _ = await stage.run("odd")
    assert (exit_.code, exit_.outcome) == (None, Outcome.IMAGE)
    assert exit_.reason


async def test_a_step_kills_all_it_can_and_nothing_else(docker: Docker) -> None:
    async with docker(step("kills", "kill -9 -1; sleep 600 & kill -9 -1; echo here")) as stage:
        exit_, printed = await stage.run("kills")
    assert (exit_.code, printed.text) == (0, "here\n")


async def test_an_image_from_the_mirror_is_used_under_its_public_name(docker: Docker) -> None:
    async with docker(step("short", "echo hi", image="busybox")) as stage:
        exit_, _ = await stage.run("short")
    assert IMAGE.startswith("shipway-test/busybox")
    assert exit_ == Exit(code=0)
