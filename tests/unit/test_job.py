from __future__ import annotations

import asyncio
import base64
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from ci.protocol import Assign, Change, JobEnded, Lease, LogEnded, StepAsks, StepChanged, Stream
from ci.spec import CloneSpec, JobSpec, StepKind, StepSpec
from ci.status import Outcome, Status
from runners.clone import Clone
from runners.ending import Halt
from runners.engines.base import EngineError, Exit, Launch
from runners.engines.fake import FakeEngine, FakeJanitor
from runners.execution import Execution
from runners.handover import Handover
from runners.spool import OrderCancel, OrderGranted, OrderKill, SpoolReader, SpoolWriter


def step(slug: str, number: int = 1, **more: object) -> StepSpec:
    """A step of the fake engine; upper-case names become its environment."""
    facts: dict[str, object] = {
        "number": number,
        "name": slug,
        "slug": slug,
        "kind": StepKind.COMMANDS,
        "image": "busybox",
        "commands": ("true",),
        "environment": {name: str(value) for name, value in more.items() if name.isupper()},
    }
    facts |= {name: value for name, value in more.items() if not name.isupper()}
    return StepSpec.model_validate(facts)


class Run:
    """One execution in this process, and what its spool says."""

    def __init__(self, folder: Path, *steps: StepSpec, **spec: object) -> None:
        self.state = folder / "fake"
        self.engine = FakeEngine(self.state)
        facts = {"name": "j", "slug": "j", "grace_seconds": 1, **spec, "steps": steps}
        self.assign = Assign(
            lease=Lease(job=1, attempt=1, epoch=1), spec=JobSpec.model_validate(facts), masks=("s3cr3t",)
        )
        self._data = folder
        self._reader: SpoolReader | None = None
        self._news = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    def start(self) -> Run:
        spool = SpoolWriter.create(self._data / "spool" / "1-1")
        self.reader = SpoolReader(self._data / "spool" / "1-1")
        handover = Handover(
            assign=self.assign,
            spool=str(self.reader.folder),
            data=str(self._data),
            server="s",
            runner="7",
            disconnect_limit_seconds=900,
        )
        self.execution = Execution(handover, spool, self.engine, self._make_clone)
        asyncio.get_running_loop().add_reader(self.reader.bell_fd, self._ring)
        self.task = asyncio.create_task(self.execution.run())
        return self

    def _make_clone(self) -> Clone:
        assert self.assign.spec.clone
        return Clone(self.assign.spec.clone, self._data)

    def _ring(self) -> None:
        self.reader.drain_bell()
        self._news.set()

    @property
    def changes(self) -> list[Change]:
        return [change for _, change in self.reader.changes()]

    def of(self, number: int) -> list[StepChanged]:
        return [each for each in self.changes if isinstance(each, StepChanged) and each.step == number]

    def log(self, number: int = 1) -> bytes:
        return self.reader.read(number, Stream.BYTES, 0, 1 << 20)

    async def until(self, predicate: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not predicate():
                await self._news.wait()
                self._news.clear()

    async def end(self) -> JobEnded:
        assert self.task
        async with asyncio.timeout(10):
            await self.task
        last = self.changes[-1]
        assert isinstance(last, JobEnded)
        assert list(FakeJanitor(self.state).attempts("s")) == []
        closed = [each.step for each in self.changes if isinstance(each, LogEnded)]
        assert sorted(closed) == self.reader.steps()
        return last


@pytest.fixture
async def run(tmp_path: Path) -> AsyncIterator[Callable[..., Run]]:
    runs: list[Run] = []

    def make(*steps: StepSpec, **spec: object) -> Run:
        runs.append(Run(tmp_path / f"{len(runs)}", *steps, **spec))
        return runs[-1]

    yield make
    for each in runs:
        if each.task is None:
            continue
        asyncio.get_running_loop().remove_reader(each.reader.bell_fd)
        each.task.cancel()
        await asyncio.gather(each.task, return_exceptions=True)


async def test_steps_run_in_their_order_and_the_job_ends_last(run) -> None:
    job = run(step("a", FAKE_OUTPUT="a\n"), step("b", 2, depends_on=["a"], FAKE_OUTPUT="b\n")).start()
    end = await job.end()
    assert (end.status, end.reason) == (Status.SUCCESS, "")
    assert [(each.step, each.status) for each in job.changes if isinstance(each, StepChanged)] == [
        (1, Status.RUNNING),
        (1, Status.SUCCESS),
        (2, Status.RUNNING),
        (2, Status.SUCCESS),
    ]
    assert (job.log(1), job.log(2)) == (b"a\n", b"b\n")


async def test_a_step_starts_while_a_step_that_it_does_not_need_still_runs(run) -> None:
    job = run(step("slow", FAKE_HANG=1), step("a", 2), step("b", 3, depends_on=["a"])).start()
    await job.until(lambda: len(job.of(3)) == 2)
    assert [each.status for each in job.of(1)] == [Status.RUNNING]
    job.execution.order(OrderCancel(reason="enough"))
    await job.end()


async def test_a_failure_names_its_step_and_code_and_skips_what_follows(run) -> None:
    job = run(step("test", FAKE_EXIT=3), step("build", 2, depends_on=["test"])).start()
    end = await job.end()
    assert (end.status, end.outcome, end.reason) == (Status.FAILURE, Outcome.EXIT, "test: exited with 3")
    assert (job.of(1)[-1].exit_code, job.of(1)[-1].reason) == (3, "exited with 3")
    assert [(each.status, each.reason) for each in job.of(2)] == [
        (Status.SKIPPED, "needs test, which failed")
    ]


async def test_an_ignored_failure_leaves_the_job_green(run) -> None:
    end = await run(step("lint", FAKE_EXIT=1, ignore_failure=True), step("b", 2)).start().end()
    assert end.status is Status.SUCCESS


async def test_an_image_that_does_not_exist_is_an_error_with_the_engines_words(run) -> None:
    job = run(step("a", image="registry.invalid/x")).start()
    end = await job.end()
    assert (end.status, end.outcome) == (Status.ERROR, Outcome.IMAGE)
    assert "registry.invalid/x" in end.reason


async def test_an_engine_that_fails_is_an_infrastructure_error(run) -> None:
    end = await run(step("a", FAKE_LOST=1)).start().end()
    assert (end.status, end.outcome) == (Status.ERROR, Outcome.INFRA)


async def test_an_engine_that_cannot_prepare_ends_the_job_and_every_step(run) -> None:
    job = run(step("a"))

    async def prepare(*_: object) -> None:
        raise EngineError("no space left for the workspace; free some")

    job.engine.prepare = prepare
    end = await job.start().end()
    assert (end.status, end.reason) == (Status.ERROR, "no space left for the workspace; free some")
    assert [each.status for each in job.of(1)] == [Status.SKIPPED]


async def test_a_step_over_its_own_limit_is_stopped_and_says_so(run) -> None:
    job = run(step("hang", FAKE_HANG=1, timeout_seconds=1), step("b", 2, depends_on=["hang"])).start()
    end = await job.end()
    assert (end.status, end.outcome) == (Status.FAILURE, Outcome.TIMEOUT)
    assert end.reason == "hang: stopped after the step's limit of 1 s"


async def test_a_job_over_its_limit_is_stopped_with_its_grace_and_says_so(run) -> None:
    job = run(
        step("hang", FAKE_HANG=1, FAKE_IGNORE_TERM=1),
        step("b", 2, depends_on=["hang"]),
        timeout_seconds=1,
    ).start()
    end = await job.end()
    assert (end.status, end.outcome, end.reason) == (
        Status.FAILURE,
        Outcome.TIMEOUT,
        "stopped after the job's limit of 1 s",
    )
    assert [each.status for each in job.of(2)] == [Status.SKIPPED]
    assert end.after_seconds >= 2


async def test_a_cancel_ends_what_runs_and_what_waits_for_its_grant(run) -> None:
    job = run(step("hang", FAKE_HANG=1), step("deploy", 2, deploy=True), step("c", 3, depends_on=["hang"]))
    job.start()
    await job.until(lambda: job.of(1) and any(isinstance(each, StepAsks) for each in job.changes))
    job.execution.order(OrderCancel(reason="cancelled by ada"))
    end = await job.end()
    assert (end.status, end.reason) == (Status.CANCELLED, "cancelled by ada")
    assert [job.of(number)[-1].status for number in (1, 2, 3)] == [Status.CANCELLED] * 3
    assert job.reader.steps() == [1]


async def test_a_step_that_had_passed_before_a_cancel_has_passed(run) -> None:
    job = run(step("a"), step("hang", 2, FAKE_HANG=1)).start()
    await job.until(lambda: len(job.of(1)) == 2 and job.of(2))
    job.execution.order(OrderCancel(reason="enough"))
    await job.end()
    assert job.of(1)[-1].status is Status.SUCCESS


async def test_a_deploy_step_starts_only_after_its_grant(run) -> None:
    job = run(step("build"), step("deploy", 2, deploy=True, depends_on=["build"])).start()
    await job.until(lambda: any(isinstance(each, StepAsks) for each in job.changes))
    job.execution.order(OrderGranted(step=2))
    assert (await job.end()).status is Status.SUCCESS
    assert [each.status for each in job.of(2)] == [Status.WAITING, Status.RUNNING, Status.SUCCESS]


async def test_a_grant_that_came_twice_or_for_no_such_step_does_no_harm(run) -> None:
    job = run(step("a")).start()
    for number in (1, 9, 9):
        job.execution.order(OrderGranted(step=number))
    assert (await job.end()).status is Status.SUCCESS


async def test_a_service_is_stopped_with_the_job_and_counts_as_passed(run) -> None:
    job = run(step("test"), step("database", 2, kind=StepKind.SERVICE, FAKE_HANG=1)).start()
    end = await job.end()
    assert end.status is Status.SUCCESS
    assert (job.of(2)[-1].status, job.of(2)[-1].reason) == (Status.SUCCESS, "stopped with the job")


async def test_a_service_that_cannot_be_started_is_named_as_the_reason(run) -> None:
    job = run(step("test"), step("database", 2, kind=StepKind.SERVICE, FAKE_LOST=1)).start()
    end = await job.end()
    assert (end.status, end.outcome) == (Status.ERROR, Outcome.INFRA)
    assert end.reason.startswith("database: the fake engine was told to fail")


async def test_what_depends_on_a_detached_step_runs_beside_it(run) -> None:
    job = run(step("serve", FAKE_HANG=1, detach=True), step("test", 2, depends_on=["serve"])).start()
    assert (await job.end()).status is Status.SUCCESS
    assert [each.status for each in job.of(1)] == [Status.RUNNING, Status.SUCCESS]


async def test_a_kill_ends_even_what_ignores_every_signal_at_once(run) -> None:
    job = run(step("hang", FAKE_HANG=1, FAKE_IGNORE_TERM=1), grace_seconds=600).start()
    await job.until(lambda: job.of(1))
    job.execution.order(OrderKill(reason="the server has given this attempt up"))
    end = await job.end()
    assert (end.status, end.outcome) == (Status.ERROR, Outcome.INFRA)
    assert job.of(1)[-1].status is Status.ERROR


async def test_a_halt_before_the_engine_is_prepared_starts_nothing(run) -> None:
    job = run(step("a")).start()
    job.execution.halt(Halt.infra("the machine shuts down"))
    end = await job.end()
    assert (end.status, end.reason) == (Status.ERROR, "the machine shuts down")
    assert [each.status for each in job.of(1)] == [Status.SKIPPED]


async def test_a_job_whose_engine_cannot_destroy_never_says_that_it_ended(
    run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runners.execution.DESTROY_TRIES", 1)
    job = run(step("a"))

    async def destroy() -> None:
        raise EngineError("the engine is gone")

    job.engine.destroy = destroy
    job.start()
    with pytest.raises(EngineError):
        await job.task
    assert not any(isinstance(each, JobEnded) for each in job.changes)


async def test_secrets_are_masked_before_they_reach_the_spool(run) -> None:
    job = run(step("a", FAKE_OUTPUT="the s3cr3t is out\n")).start()
    await job.end()
    assert b"s3cr3t" not in job.log()


async def test_what_an_engine_says_of_a_failure_is_masked_too(run, capfd: pytest.CaptureFixture[str]) -> None:
    job = run(step("a", image="registry.invalid/s3cr3t"), step("b", 2))

    async def run_step(launch: Launch) -> Exit:
        if launch.step.slug == "a":
            return Exit(code=None, outcome=Outcome.IMAGE, reason="the registry said: no s3cr3t here")
        raise RuntimeError("a fault of ours with s3cr3t in it")

    job.engine.run = run_step
    end = await job.start().end()
    assert end.reason == "a: the registry said: no *** here"
    assert job.of(1)[-1].reason == "the registry said: no *** here"
    assert "RuntimeError: a fault of ours with *** in it" in job.of(2)[-1].reason
    assert "s3cr3t" not in (job.reader.folder / "journal").read_text()
    said = capfd.readouterr().err
    assert "a fault of ours with *** in it" in said
    assert "s3cr3t" not in said


async def test_a_step_gets_its_secrets_by_their_variables_and_a_withheld_one_empty(run) -> None:
    job = run(step("a", FAKE_OUTPUT="", secrets={"FAKE_OUTPUT": "token", "OTHER": "withheld"}))
    job.assign = job.assign.model_copy(update={"secrets": {"token": "the value s3cr3t\n"}})
    await job.start().end()
    assert job.log() == b"the value ***\n"


async def test_a_commit_is_cloned_by_the_runner_with_a_log_of_its_own(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runners.clone.PROTOCOLS", ("file",))
    sha = made_repository(tmp_path / "repo")
    clone = CloneSpec(url=f"file://{tmp_path}/repo", sha=sha, ref="refs/heads/main", repo_key="k")
    job = run(
        step("clone", 0, kind=StepKind.CLONE, commands=()),
        step("show", 1, depends_on=["clone"], FAKE_CAT="hello.txt"),
        clone=clone,
    ).start()
    assert (await job.end()).status is Status.SUCCESS
    assert job.log(1) == b"hello from the commit\n"
    assert job.log(0).splitlines()[-1].endswith(b"First things first")


async def test_a_clone_that_fails_says_why_in_its_log_and_skips_the_steps(
    run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runners.clone.PATIENCE_SECONDS", 0)
    clone = CloneSpec(url="http://127.0.0.1:1/x.git", sha="1" * 40, ref="refs/heads/main", repo_key="k")
    job = run(
        step("clone", 0, kind=StepKind.CLONE, commands=()),
        step("a", 1, depends_on=["clone"]),
        clone=clone,
    ).start()
    end = await job.end()
    assert (end.status, end.outcome) == (Status.ERROR, Outcome.INFRA)
    assert b"git cannot fetch 111111111111 from http://127.0.0.1:1/x.git" in job.log(0)
    assert job.of(1)[-1].reason == "needs clone, which ended in an error"


class _Telltale(BaseHTTPRequestHandler):
    """A git server that answers with the password it was sent."""

    def do_GET(self) -> None:
        sent = base64.b64decode(self.headers["authorization"].split()[1]).decode()
        said = f"ERR no repository for {sent}, {self.headers['authorization']}".encode()
        body = b"001e# service=git-upload-pack\n0000" + f"{len(said) + 4:04x}".encode() + said
        self.send_response(200)
        self.send_header("content-type", "application/x-git-upload-pack-advertisement")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


async def test_what_a_git_server_says_with_the_credential_in_it_is_masked(run, tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Telltale) as server:
        Thread(target=server.serve_forever, args=(0.01,)).start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}/x.git"
            clone = CloneSpec(url=url, sha="1" * 40, ref="refs/heads/main", repo_key="k")
            job = run(step("clone", 0, kind=StepKind.CLONE, commands=()), clone=clone)
            job._make_clone = lambda: Clone(clone, tmp_path, ("job", "the-clone-pa55word"))
            end = await job.start().end()
        finally:
            await asyncio.to_thread(server.shutdown)
    assert "remote error: no repository for job:***, Basic ***" in end.reason
    assert b"no repository for job:***" in job.log(0)
    for text in (end.reason.encode(), job.log(0), (job.reader.folder / "journal").read_bytes()):
        assert b"pa55word" not in text
        assert base64.b64encode(b"job:the-clone-pa55word") not in text


def made_repository(folder: Path) -> str:
    folder.mkdir()
    (folder / "hello.txt").write_text("hello from the commit\n")
    who = {f"GIT_{each}_{what}": "a@b" for each in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {"PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1", "HOME": str(folder), **who}
    for command in (
        ("init", "--quiet", "-b", "main"),
        ("add", "hello.txt"),
        ("commit", "--quiet", "-m", "First things first"),
    ):
        subprocess.run(["git", *command], cwd=folder, env=environment, check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, env=environment, capture_output=True)
    return head.stdout.decode().strip()


@pytest.mark.parametrize("said", [b"", b'{"assign":'])
def test_a_job_process_whose_assignment_never_came_whole_starts_nothing(said: bytes, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "runners.job", "fake"], input=said, capture_output=True, cwd=tmp_path
    )
    assert (done.returncode, done.stdout, list(tmp_path.iterdir())) == (0, b"", [])
