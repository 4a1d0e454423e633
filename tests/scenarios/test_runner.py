from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from ci.errors import Conflict
from ci.protocol import Begin, Dead, Granted, StepAsks
from ci.status import Outcome, Status
from runners.spool import SpoolWriter, prepare

LINES = b"".join(b"line %d\n" % number for number in range(1, 201))


async def gone(path: Path) -> None:
    """Wait until a file or folder is no more."""
    async with asyncio.timeout(20):
        while path.exists():
            await asyncio.sleep(0.02)


async def test_an_assigned_job_runs_and_its_log_and_result_arrive(server, runner, step) -> None:
    job = server.add(step("hello", FAKE_OUTPUT="hello s3cr3t world\n"))
    await runner.start()
    await server.until(lambda: job.is_over)
    await gone(runner.spool(1))
    assert b"s3cr3t" not in job.log() and job.log().startswith(b"hello ")
    assert job.statuses(1) == [Status.RUNNING, Status.SUCCESS]
    assert job.end().status is Status.SUCCESS
    assert runner.on_engine() == []


async def test_nothing_starts_before_the_server_says_begin(server, runner, step) -> None:
    server.begins_at_once = False
    job = server.add(step("hello", FAKE_OUTPUT="hello\n"))
    await runner.start()
    await server.until(lambda: job.is_accepted)
    job.is_accepted = False
    await server.stop()
    await server.start()
    await server.until(lambda: job.is_accepted)
    assert not runner.spool(1).exists()
    await server.say(Begin(lease=job.lease))
    await server.until(lambda: job.is_over)
    assert (job.attempt, job.log()) == (1, b"hello\n")


async def test_a_killed_supervisor_loses_nothing_and_goes_on_in_the_same_attempt(
    server, runner, step
) -> None:
    job = server.add(step("slow", FAKE_LINES=200, FAKE_SLEEP=8))
    await runner.start()
    await server.until(lambda: len(job.log()) > 20)
    pid = runner.job_pid(1)
    await runner.kill()
    os.kill(pid, 0)
    await runner.start()
    await server.until(lambda: job.is_over)
    assert (job.attempt, job.epoch, job.losses) == (1, 2, [])
    assert job.log() == LINES
    assert [held.is_alive for held in server.hellos[-1].held] == [True]


async def test_what_ended_while_no_supervisor_lived_is_shipped_by_the_next_one(server, runner, step) -> None:
    job = server.add(step("slow", FAKE_LINES=200, FAKE_SLEEP=0.6))
    await runner.start()
    await server.until(lambda: len(job.log()) > 20)
    pid = runner.job_pid(1)
    await runner.kill()
    await gone(Path(f"/proc/{pid}"))
    await runner.start()
    await server.until(lambda: job.is_over)
    assert (job.attempt, job.log(), job.end().status) == (1, LINES, Status.SUCCESS)
    assert [held.is_alive for held in server.hellos[-1].held] == [False]


async def test_a_killed_server_is_found_again_in_the_same_attempt(server, runner, step) -> None:
    job = server.add(step("slow", FAKE_LINES=200, FAKE_SLEEP=1.5))
    await runner.start()
    await server.until(lambda: len(job.log()) > 100)
    await server.stop()
    await server.start()
    await server.until(lambda: job.is_over)
    assert (job.attempt, job.epoch, job.log()) == (1, 2, LINES)


async def test_a_killed_job_process_is_reported_lost_after_everything_of_it_is_destroyed(
    server, runner, step
) -> None:
    left_when_told: list[object] = []
    server.on_lost = lambda: left_when_told.append(runner.on_engine())
    job = server.add(step("slow", FAKE_LINES=200, FAKE_SLEEP=1))
    await runner.start()
    await server.until(lambda: len(job.log()) > 100)
    os.kill(runner.job_pid(1), signal.SIGKILL)
    await server.until(lambda: job.losses)
    await server.until(lambda: job.is_over)
    assert left_when_told == [[]]
    assert "died" in job.losses[0]
    assert job.log(attempt=1) and LINES.startswith(job.log(attempt=1))
    assert (job.attempt, job.log(attempt=2)) == (2, LINES)


async def test_a_job_process_killed_while_no_supervisor_lived_is_lost_too(server, runner, step) -> None:
    job = server.add(step("hang", FAKE_HANG=1))
    await runner.start()
    await server.until(lambda: job.statuses(1))
    pid = runner.job_pid(1)
    await runner.kill()
    os.kill(pid, signal.SIGKILL)
    await gone(Path(f"/proc/{pid}"))
    await runner.start()
    await server.until(lambda: job.losses)
    await gone(runner.spool(1))


async def test_bytes_that_the_server_lost_are_sent_again(server, runner, step) -> None:
    server.frames_until_loss = 8
    job = server.add(step("slow", FAKE_LINES=200, FAKE_SLEEP=1))
    await runner.start()
    await server.until(lambda: server.frames_until_loss is None)
    await server.cut_logs()
    await server.until(lambda: job.is_over)
    assert job.log() == LINES


async def test_cancel_stops_the_containers_and_is_confirmed(server, runner, step) -> None:
    job = server.add(step("hang", FAKE_HANG=1), step("after", 2, depends_on=["hang"]))
    await runner.start()
    await server.until(lambda: job.statuses(1))
    await server.cancel(job)
    await server.until(lambda: job.is_over)
    assert job.end().status is Status.CANCELLED
    assert job.last(1).reason == job.last(2).reason == "cancelled by ada"
    assert (job.last(1).status, job.last(2).status) == (Status.CANCELLED, Status.CANCELLED)


async def test_two_jobs_run_side_by_side_and_a_third_waits_for_a_place(server, runner, step) -> None:
    jobs = [server.add(step("hang", FAKE_HANG=1)) for _ in range(3)]
    await runner.start()
    await server.until(lambda: jobs[0].statuses(1) and jobs[1].statuses(1))
    assert not jobs[2].is_leased
    await server.cancel(jobs[0])
    await server.until(lambda: jobs[2].statuses(1))
    for job in jobs[1:]:
        await server.cancel(job)
    await server.until(lambda: all(job.is_over for job in jobs))


async def test_a_flood_delays_neither_another_log_nor_heartbeats(server, runner, step) -> None:
    flood = server.add(step("flood", FAKE_LINES=500_000))
    quiet = server.add(step("quiet", FAKE_LINES=20, FAKE_SLEEP=1))
    await runner.start()
    await server.until(lambda: quiet.log().endswith(b"line 20\n"))
    assert not flood.is_over
    await server.until(lambda: flood.is_over)
    assert len(flood.log()) == sum(len(f"line {number}\n") for number in range(1, 500_001))


async def test_a_step_with_side_effects_waits_for_the_servers_grant_with_its_reason(
    server, runner, step
) -> None:
    server.grants_at_once = False
    job = server.add(step("deploy", deploy=True, FAKE_OUTPUT="deployed\n"))
    await runner.start()
    await server.until(lambda: any(isinstance(change, StepAsks) for change in job.changes[1]))
    assert job.statuses(1) == [Status.WAITING]
    assert "recorded its start" in job.last(1).reason
    await server.say(Granted(lease=job.lease, step=1))
    await server.until(lambda: job.is_over)
    assert job.statuses(1) == [Status.WAITING, Status.RUNNING, Status.SUCCESS]
    assert job.log() == b"deployed\n"


async def test_the_first_sigterm_finishes_what_runs_and_takes_nothing_new(server, runner, step) -> None:
    job = server.add(step("slow", FAKE_LINES=200, FAKE_SLEEP=1))
    await runner.start()
    await server.until(lambda: job.log())
    runner.signal(signal.SIGTERM)
    later = server.add(step("later"))
    assert await runner.exit_code() == 0
    assert (job.is_over, job.log(), later.is_leased) == (True, LINES, False)


async def test_the_second_sigterm_kills_and_still_tells_how_it_ended(server, runner, step) -> None:
    job = server.add(step("hang", FAKE_HANG=1, FAKE_IGNORE_TERM=1))
    await runner.start()
    await server.until(lambda: job.statuses(1))
    runner.signal(signal.SIGTERM)
    runner.signal(signal.SIGINT)
    assert await runner.exit_code() == 0
    assert (job.end().status, job.end().outcome) == (Status.ERROR, Outcome.INFRA)
    assert runner.on_engine() == []


async def test_an_attempt_that_the_server_calls_dead_is_killed_and_removed(server, runner, step) -> None:
    job = server.add(step("hang", FAKE_HANG=1, FAKE_IGNORE_TERM=1))
    await runner.start()
    await server.until(lambda: job.statuses(1))
    pid = runner.job_pid(1)
    await server.say(Dead(attempts=((1, 1),)))
    await gone(runner.spool(1))
    await gone(Path(f"/proc/{pid}"))
    assert runner.on_engine() == []


async def test_a_lease_that_the_server_calls_stale_is_renewed_and_goes_on(server, runner, step) -> None:
    job = server.add(step("slow", FAKE_LINES=200, FAKE_SLEEP=1))
    await runner.start()
    await server.until(lambda: len(job.log()) > 100)
    job.epoch += 1
    await server.until(lambda: job.is_over)
    assert (job.attempt, job.log()) == (1, LINES)
    assert len(server.hellos) == 2


async def test_a_spool_in_which_no_job_process_had_begun_starts_none(server, runner, step) -> None:
    job = server.add(step("hello"))
    job.is_leased = job.is_accepted = True
    prepare(runner.spool(1))
    await server.stop()
    await runner.start()
    async with asyncio.timeout(20):
        while not (runner.spool(1) / "lock").stat().st_size:
            await asyncio.sleep(0.02)
    with pytest.raises(Conflict):
        SpoolWriter.create(runner.spool(1))
    await server.start()
    await server.until(lambda: job.losses)
    await server.until(lambda: job.is_over)
    assert (job.attempt, job.changes[1]) == (2, [])


async def test_without_a_server_for_the_disconnect_limit_the_job_ends_and_says_so(
    server, runner, step
) -> None:
    server.disconnect_limit_seconds = 3
    job = server.add(step("hang", FAKE_HANG=1))
    await runner.start()
    await server.until(lambda: job.statuses(1))
    pid = runner.job_pid(1)
    await server.stop()
    await gone(Path(f"/proc/{pid}"))
    await server.start()
    await server.until(lambda: job.is_over)
    assert (job.end().status, job.end().outcome) == (Status.ERROR, Outcome.INFRA)
    assert "3 s" in job.end().reason


async def test_a_job_without_a_supervisor_for_the_disconnect_limit_stops_itself(server, runner, step) -> None:
    server.disconnect_limit_seconds = 3
    job = server.add(step("hang", FAKE_HANG=1))
    await runner.start()
    await server.until(lambda: job.statuses(1))
    pid = runner.job_pid(1)
    await runner.kill()
    await gone(Path(f"/proc/{pid}"))
    assert runner.on_engine() == []
    await runner.start()
    await server.until(lambda: job.is_over)
    assert "no supervisor of this runner" in job.end().reason


async def test_what_a_dead_attempt_left_on_the_engine_is_removed_and_nothing_else(
    server, runner, step
) -> None:
    for name, number in (("7", 90), ("8", 91), ("8", 92)):
        folder = runner.engine_state / f"{number}-1-00000000000000aa"
        folder.mkdir(parents=True)
        about = f'{{"server": "00000000000000aa", "runner": "{name}", "job": {number}, "attempt": 1}}'
        (folder / "owner.json").write_text(about)
    server.dead = {(91, 1)}
    await runner.start()
    await gone(runner.engine_state / "90-1-00000000000000aa")
    await server.until(lambda: server.hellos)
    assert ("8", 92, 1) in runner.on_engine()


async def test_a_second_runner_with_the_same_data_folder_leaves_with_a_sentence(server, runner) -> None:
    await runner.start()
    await server.until(lambda: server.hellos)
    second = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "shipway"),
        *("runner", "--server", server.url, "--data", str(runner.data), "--engine", "fake"),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await second.communicate()
    assert (second.returncode, said.startswith(b"a runner with this data folder runs already")) == (0, True)


@pytest.mark.parametrize("place", ["ci", "runners"])
async def test_no_module_of_the_current_folder_is_imported(server, runner, step, place: str) -> None:
    (runner.data / place).mkdir()
    (runner.data / place / "__init__.py").write_text("raise SystemExit('imported from the current folder')")
    job = server.add(step("hello", FAKE_OUTPUT="hello\n"))
    await runner.start()
    await server.until(lambda: job.is_over)
    assert job.log() == b"hello\n"
