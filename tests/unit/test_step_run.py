"""What a step may ask of its run: tries, limits, readiness, outputs, files; what its end does to the job."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping

import pytest

from ci.protocol import JobEnded, StepChanged, Stream
from ci.registries import Login
from ci.spec import JobSpec, Ready, Retry, StepKind, StepSpec, Stops, Wanted
from ci.status import Outcome, Status
from runners.engines.base import NO_LOGINS, Owner
from runners.engines.fake import FakeEngine
from runners.spool import OrderCancel
from tests.unit.test_job import Run, run, step

__all__ = ["run"]  # the fixture


def notes(job: Run, number: int = 1) -> list[str]:
    lines = job.reader.read(number, Stream.MARKS, 0, 1 << 20).splitlines()
    return [mark["v"] for mark in map(json.loads, lines) if mark["k"] == "note"]


def ends(job: Run) -> dict[int, tuple[Status, str]]:
    last = {each.step: each for each in job.changes if isinstance(each, StepChanged)}
    return {number: (each.status, each.reason) for number, each in last.items()}


# --- tries ------------------------------------------------------------------------------------


async def test_a_step_that_fails_is_run_again_in_one_log_and_its_last_end_counts(run) -> None:
    job = run(step("a", FAKE_OUTPUT="x\n", FAKE_EXIT="3,4,0", retry=Retry(attempts=3))).start()
    assert (await job.end()).status is Status.SUCCESS
    assert job.log() == b"x\nx\nx\n"
    assert notes(job) == [
        "Run 1 of 3: exited with 3. It is run again now.",
        "Run 2 of 3: exited with 4. It is run again now.",
    ]
    assert [each.status for each in job.of(1)] == [Status.RUNNING, Status.SUCCESS]


async def test_a_step_that_fails_in_every_try_says_how_the_last_one_ended(run) -> None:
    end = await run(step("a", FAKE_EXIT="3,4,5", retry=Retry(attempts=2))).start().end()
    assert (end.status, end.reason) == (Status.FAILURE, "a: exited with 4")


async def test_a_step_may_be_run_again_only_where_the_fault_is_not_its_own(run) -> None:
    retry = Retry(attempts=2, on_any_failure=False)
    job = run(step("a", FAKE_EXIT="3,0", retry=retry), step("b", 2, FAKE_LOST="1", retry=retry)).start()
    await job.end()
    assert ends(job)[1] == (Status.FAILURE, "exited with 3")
    assert notes(job) == []
    assert len(notes(job, 2)) == 1


async def test_a_try_over_its_limit_may_be_followed_by_another(run) -> None:
    hangs = step("a", FAKE_HANG="1", timeout_seconds=1, retry=Retry(attempts=2))
    job = run(hangs).start()
    end = await job.end()
    assert (end.outcome, end.reason) == (Outcome.TIMEOUT, "a: stopped after the step's limit of 1 s")
    assert notes(job) == ["Run 1 of 2: stopped after the step's limit of 1 s. It is run again now."]


async def test_a_cancel_ends_the_pause_between_tries_and_nothing_is_run_again(run) -> None:
    job = run(step("a", FAKE_EXIT="3,0", retry=Retry(attempts=2, pause_seconds=600))).start()
    await job.until(lambda: job.reader.steps() and notes(job))
    assert notes(job) == ["Run 1 of 2: exited with 3. It is run again in 10 min."]
    job.execution.order(OrderCancel(reason="enough"))
    assert (await job.end()).status is Status.CANCELLED
    assert ends(job)[1] == (Status.CANCELLED, "enough")


# --- limits -----------------------------------------------------------------------------------


async def test_a_step_that_prints_nothing_for_its_limit_is_stopped(run) -> None:
    job = run(step("a", FAKE_OUTPUT="begun\n", FAKE_HANG="1", no_output_seconds=1)).start()
    end = await job.end()
    assert (end.status, end.outcome) == (Status.FAILURE, Outcome.TIMEOUT)
    assert end.reason == "a: stopped because it printed nothing for 1 s, its limit without output"


async def test_a_step_that_goes_on_printing_is_not_silent(run) -> None:
    job = run(step("a", FAKE_LINES="30", FAKE_SLEEP="3", no_output_seconds=2)).start()
    assert (await job.end()).status is Status.SUCCESS


# --- what an end does to the job --------------------------------------------------------------


async def test_an_exit_code_may_end_the_job_as_a_success(run) -> None:
    job = run(
        step("check", FAKE_EXIT="78", stop_on_exit=(78,)),
        step("build", 2, depends_on=["check"]),
        step("notify", 3, depends_on=["check"], run_on=("failure", "success")),
        step("db", 4, kind=StepKind.SERVICE, FAKE_HANG="1"),
    ).start()
    end = await job.end()
    assert (end.status, end.reason) == (Status.SUCCESS, "")
    assert job.of(1)[-1].exit_code == 78
    why = "check exited with 78, which ends the job here"
    assert ends(job) == {
        1: (Status.SUCCESS, "exited with 78, which ends the job here"),
        2: (Status.SKIPPED, why),
        3: (Status.SKIPPED, why),
        4: (Status.SUCCESS, "stopped with the job"),
    }


async def test_what_runs_beside_a_step_that_ends_the_job_is_let_finish(run) -> None:
    check = step("check", FAKE_EXIT="78", stop_on_exit=(78,))
    end = await run(check, step("b", 2, FAKE_SLEEP="0.5", FAKE_EXIT=1)).start().end()
    assert (end.status, end.reason) == (Status.FAILURE, "b: exited with 1")


async def test_a_failure_may_stop_the_rest_of_the_job_but_not_what_runs_on_failures(run) -> None:
    job = run(
        step("lint", FAKE_EXIT="1", failure_stops=Stops.JOB),
        step("slow", 2, FAKE_HANG="1"),
        step("late", 3, depends_on=["slow"]),
        step("notify", 4, depends_on=["late"], run_on=("failure",)),
        step("db", 5, kind=StepKind.SERVICE, FAKE_HANG="1"),
    ).start()
    end = await job.end()
    assert (end.status, end.reason, end.stops_build) == (Status.FAILURE, "lint: exited with 1", False)
    assert ends(job) == {
        1: (Status.FAILURE, "exited with 1"),
        2: (Status.CANCELLED, "stopped because lint failed"),
        3: (Status.SKIPPED, "lint failed, and that ends the job"),
        4: (Status.SUCCESS, ""),
        5: (Status.SUCCESS, "stopped with the job"),
    }


async def test_a_failure_may_stop_the_build_and_a_passed_step_stops_nothing(run) -> None:
    assert (await run(step("a", FAKE_EXIT="1", failure_stops=Stops.BUILD)).start().end()).stops_build
    assert not (await run(step("a", failure_stops=Stops.BUILD)).start().end()).stops_build


# --- readiness --------------------------------------------------------------------------------

QUICK = Ready(port=5432, interval_seconds=0.05, timeout_seconds=0.3)


async def test_steps_wait_until_a_service_is_ready(run) -> None:
    job = run(step("test"), step("db", 2, kind=StepKind.SERVICE, FAKE_HANG="1", ready=QUICK)).start()
    assert (await job.end()).status is Status.SUCCESS


async def test_a_service_that_is_never_ready_is_the_reason_why_steps_are_skipped(run) -> None:
    db = step("db", 2, kind=StepKind.SERVICE, FAKE_HANG="1", FAKE_UNREADY="1", ready=QUICK)
    job = run(step("test"), db).start()
    end = await job.end()
    why = "did not become ready in 0.3 s: the fake engine was told so (FAKE_UNREADY); its log may say more"
    assert (end.status, end.outcome, end.reason) == (Status.ERROR, Outcome.TIMEOUT, f"db: {why}")
    assert ends(job)[1] == (Status.SKIPPED, "needs db, which ended in an error")


async def test_a_service_that_dies_before_it_is_ready_is_named_with_its_last_line(run) -> None:
    ready = QUICK.model_copy(update={"timeout_seconds": 600})
    says = "starting\nFATAL: no password\n\n"
    more = {"FAKE_OUTPUT": says, "FAKE_SLEEP": "0.3", "FAKE_UNREADY": "1", "FAKE_EXIT": "1"}
    job = run(step("test"), step("db", 2, kind=StepKind.SERVICE, ready=ready, **more)).start()
    end = await job.end()
    assert end.status is Status.ERROR
    assert end.reason == 'db: ended before it was ready: exited with 1; its last line: "FATAL: no password"'


# --- outputs and files ------------------------------------------------------------------------


async def test_what_a_step_puts_out_are_variables_of_the_steps_that_depend_on_it(run) -> None:
    puts = {"FAKE_PUT": "FAKE_OUTPUT=from a\nCI_COMMIT_SHA=x"}
    job = run(
        step("a", **puts), step("b", 2, depends_on=["a"]), step("other", 3), step("c", 4, depends_on=["b"])
    ).start()
    await job.end()
    assert (job.log(2), job.log(3), job.log(4)) == (b"from a", b"", b"from a")
    assert notes(job) == [
        "Of what it put out, the variable 'CI_COMMIT_SHA' is left out: such names are ours."
    ]


async def test_the_nearest_step_wins_and_a_steps_own_variables_win_over_all(run) -> None:
    job = run(
        step("a", FAKE_PUT="FAKE_OUTPUT=a"),
        step("b", 2, depends_on=["a"], FAKE_PUT="FAKE_OUTPUT=b"),
        step("c", 3, depends_on=["b"]),
        step("d", 4, depends_on=["b"], FAKE_OUTPUT="own"),
    ).start()
    await job.end()
    assert (job.log(3), job.log(4)) == (b"b", b"own")


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ({"kind": ("rel*",)}, ""),
        ({"kind": ("a", "release")}, ""),
        ({"kind": ("draft",)}, 'the output kind is "release", not draft'),
        ({"other": ("a", "b")}, "the output other was not put out by any step before, not a or b"),
    ],
)
async def test_a_step_may_wait_for_what_was_put_out(
    run, wanted: dict[str, tuple[str, ...]], why: str
) -> None:
    job = run(
        step("a", FAKE_PUT="kind=release"),
        step("b", 2, depends_on=["a"], wanted_outputs=(Wanted(outputs=wanted),)),
    ).start()
    assert (await job.end()).status is Status.SUCCESS
    assert ends(job)[2] == ((Status.SKIPPED, why) if why else (Status.SUCCESS, ""))


FILES = {"build.env": b"FAKE_OUTPUT='of the file'\nPATH=/evil\n"}


class Filled(FakeEngine):
    """Its workspace holds FILES from the beginning."""

    async def prepare(self, job: JobSpec, owner: Owner, logins: Mapping[str, Login] = NO_LOGINS) -> None:
        await super().prepare(job, owner, logins)
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w") as tar:
            for name, data in FILES.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
        made.seek(0)
        await self.fill(made)


def filled(run, *steps: StepSpec) -> Run:
    job = run(*steps)
    job.engine = Filled(job.state)
    return job.start()


async def test_variables_come_from_a_file_of_the_workspace(run) -> None:
    job = filled(
        run,
        step("a", environment_files=("/workspace/build.env",)),
        step("b", 2, environment_files=("/workspace/build.env",), FAKE_OUTPUT="own"),
    )
    await job.end()
    assert (job.log(1), job.log(2)) == (b"of the file", b"own")
    assert notes(job)[0].startswith("In /workspace/build.env, the variable 'PATH' is left out: ")


async def test_a_step_whose_file_is_not_there_fails_and_names_it(run) -> None:
    end = await filled(run, step("a", environment_files=("/workspace/no.env",))).end()
    assert isinstance(end, JobEnded)
    assert (end.status, end.reason) == (
        Status.FAILURE,
        "a: its environment file /workspace/no.env is not there",
    )


async def test_a_secret_in_a_reason_with_an_output_is_masked(run) -> None:
    job = run(
        step("a", FAKE_PUT="kind=s3cr3t"),
        step("b", 2, depends_on=["a"], wanted_outputs=(Wanted(outputs={"kind": ("x",)}),)),
    ).start()
    await job.end()
    assert "s3cr3t" not in ends(job)[2][1]
