"""A runner as a real process with the fake engine, and a server in memory that speaks the protocol."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import sys
import zlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from ci import protocol
from ci.protocol import (
    Accept,
    AskDead,
    Assign,
    Begin,
    Cancel,
    Change,
    Dead,
    FrameKind,
    Granted,
    Heartbeat,
    Hello,
    JobEnded,
    Lease,
    LogEnded,
    LogFrame,
    Lost,
    Record,
    Recorded,
    Released,
    RunnerMessage,
    ServerMessage,
    StepAsks,
    StepChanged,
    Stream,
    Take,
    Welcome,
)
from ci.spec import JobSpec, StepKind, StepSpec
from ci.status import Status
from runners.credential import Credential
from runners.engines.fake import FakeJanitor

SERVER_ID = "00000000000000aa"
RUNNER_ID = 7
CREDENTIAL = "the-runners-credential"
PATIENCE_SECONDS = 20.0


def step(slug: str, number: int = 1, **more: object) -> StepSpec:
    """A step of the fake engine; upper-case names become its environment."""
    environment = {name: str(value) for name, value in more.items() if name.isupper()}
    rest = {name: value for name, value in more.items() if not name.isupper()}
    return StepSpec.model_validate(
        {
            "number": number,
            "name": slug,
            "slug": slug,
            "kind": StepKind.COMMANDS,
            "image": "busybox",
            "commands": ("true",),
            "environment": environment,
            **rest,
        }
    )


class ServerJob:
    """One job on the server, with all its attempts' journals and logs."""

    def __init__(self, number: int, spec: JobSpec) -> None:
        self.number = number
        self.spec = spec
        self.attempt = 1
        self.epoch = 0
        self.is_leased = False
        self.is_accepted = False
        self.is_over = False
        self.changes: dict[int, list[Change]] = defaultdict(list)
        self.logs: dict[tuple[int, int, Stream], bytearray] = defaultdict(bytearray)
        self.closed: set[tuple[int, int, Stream]] = set()
        self.losses: list[str] = []

    @property
    def lease(self) -> Lease:
        return Lease(job=self.number, attempt=self.attempt, epoch=self.epoch)

    def log(self, step: int = 1, attempt: int = 1) -> bytes:
        return bytes(self.logs[attempt, step, Stream.BYTES])

    def statuses(self, step: int, attempt: int = 1) -> list[Status]:
        return [
            change.status
            for change in self.changes[attempt]
            if isinstance(change, StepChanged) and change.step == step
        ]

    def last(self, step: int, attempt: int = 1) -> StepChanged:
        found = [
            change
            for change in self.changes[attempt]
            if isinstance(change, StepChanged) and change.step == step
        ]
        return found[-1]

    def end(self, attempt: int = 1) -> JobEnded:
        return next(change for change in self.changes[attempt] if isinstance(change, JobEnded))

    @property
    def is_complete(self) -> bool:
        changes = self.changes[self.attempt]
        ended = [change.step for change in changes if isinstance(change, LogEnded)]
        wanted = {(self.attempt, number, stream) for number in ended for stream in Stream}
        return any(isinstance(change, JobEnded) for change in changes) and wanted <= self.closed


class FakeServer:
    """Keeps everything over `stop` and `start`, as a server keeps it over a kill."""

    def __init__(self) -> None:
        self.port = 0
        self.jobs: dict[int, ServerJob] = {}
        self.hellos: list[Hello] = []
        self.heartbeats: list[Heartbeat] = []
        self.asked_dead: list[tuple[int, int]] = []
        self.dead: set[tuple[int, int]] = set()
        self.on_lost: Callable[[], None] = lambda: None
        self.grants_at_once = True
        self.begins_at_once = True
        self.disconnect_limit_seconds = 900.0
        self.frames_until_loss: int | None = None  #: then what is in memory of the logs is lost
        self._free = 0
        self._server: Server | None = None
        self._control: ServerConnection | None = None
        self._log_connections: set[ServerConnection] = set()
        self._changed = asyncio.Condition()
        self.durable: dict[tuple[int, int, int, Stream], int] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await serve(
            self._serve, "127.0.0.1", self.port, compression=None, max_size=None, ping_interval=None
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """As kill -9: connections are cut, and the port is free."""
        assert self._server
        for connection in (*self._server.connections,):
            connection.transport.abort()
        self._server.close()
        await self._server.wait_closed()

    async def cut_logs(self) -> None:
        for connection in tuple(self._log_connections):
            connection.transport.abort()

    def add(self, *steps: StepSpec, **spec: object) -> ServerJob:
        job = ServerJob(
            len(self.jobs) + 1, JobSpec.model_validate({"name": "j", "slug": "j", **spec, "steps": steps})
        )
        self.jobs[job.number] = job
        return job

    async def until(self, predicate: Callable[[], object], what: str = "") -> None:
        async with asyncio.timeout(PATIENCE_SECONDS), self._changed:
            await self._changed.wait_for(predicate)

    async def say(self, message: ServerMessage) -> None:
        assert self._control
        await self._control.send(protocol.encode(message))

    async def cancel(self, job: ServerJob, reason: str = "cancelled by ada") -> None:
        await self.say(Cancel(lease=job.lease, reason=reason))

    async def offer(self) -> None:
        """Assign what waits, as far as the runner is free."""
        for job in self.jobs.values():
            if self._free > 0 and not job.is_leased and not job.is_over:
                self._free -= 1
                job.is_leased, job.epoch = True, job.epoch + 1
                await self.say(Assign(lease=job.lease, spec=job.spec, masks=("s3cr3t",)))

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _serve(self, connection: ServerConnection) -> None:
        assert connection.request
        if connection.request.headers.get("Authorization") != f"Bearer {CREDENTIAL}":
            return await connection.close(1008, "who are you?")
        try:
            if connection.request.path == "/runner/control":
                await self._serve_control(connection)
            else:
                await self._serve_logs(connection)
        except ConnectionClosed:
            return  # cut by the runner, or by a test

    # --- control -----------------------------------------------------------------------------------

    async def _serve_control(self, connection: ServerConnection) -> None:
        hello = protocol.decode_from_runner(await connection.recv())
        assert isinstance(hello, Hello)
        self._control, self._free = connection, 0
        await self.say(self._welcome(hello))
        self.hellos.append(hello)
        await self._notify()
        async for text in connection:
            for answer in self._answer(protocol.decode_from_runner(text)):
                await self.say(answer)
            await self.offer()
            await self._notify()
        if self._control is connection:
            self._control = None
            await self._notify()

    @property
    def is_connected(self) -> bool:
        return self._control is not None

    def _welcome(self, hello: Hello) -> Welcome:
        kept, dead = [], []
        for held in hello.held:
            job = self.jobs.get(held.lease.job)
            if job and job.is_leased and not job.is_over and job.attempt == held.lease.attempt:
                job.epoch += 1
                kept.append(job.lease)
            else:
                dead.append(held.lease)
        return Welcome(
            server=SERVER_ID,
            runner=RUNNER_ID,
            name="r",
            leases=tuple(kept),
            dead=tuple(dead),
            disconnect_limit_seconds=self.disconnect_limit_seconds,
        )

    def _answer(self, message: RunnerMessage) -> list[ServerMessage]:
        match message:
            case Take():
                self._free = message.free
            case Heartbeat():
                self.heartbeats.append(message)
            case Accept():
                job = self.jobs[message.lease.job]
                job.is_accepted = True
                return [Begin(lease=message.lease)] if self.begins_at_once else []
            case Record():
                return self._record(message)
            case Lost():
                return self._lost(message)
            case AskDead():
                self.asked_dead += message.attempts
                return [Dead(attempts=tuple(pair for pair in message.attempts if pair in self.dead))]
        return []

    def _record(self, message: Record) -> list[ServerMessage]:
        job = self.jobs[message.lease.job]
        if message.lease != job.lease:
            return []
        changes = job.changes[job.attempt]
        if message.seq == len(changes):
            changes.append(message.change)
        answers: list[ServerMessage] = [Recorded(lease=job.lease, seq=len(changes) - 1)]
        if isinstance(message.change, StepAsks) and self.grants_at_once:
            answers.append(Granted(lease=job.lease, step=message.change.step))
        return answers + self._released(job)

    def _released(self, job: ServerJob) -> list[ServerMessage]:
        if not job.is_complete or job.is_over:
            return []
        job.is_over = True
        return [Released(lease=job.lease)]

    def _lost(self, message: Lost) -> list[ServerMessage]:
        job = self.jobs[message.lease.job]
        if message.lease == job.lease:
            self.on_lost()
            job.losses.append(message.reason)
            job.attempt, job.is_leased, job.is_accepted = job.attempt + 1, False, False
        return [Dead(attempts=(message.lease.key,))]

    # --- logs --------------------------------------------------------------------------------------

    async def _serve_logs(self, connection: ServerConnection) -> None:
        self._log_connections.add(connection)
        try:
            async for data in connection:
                assert isinstance(data, bytes)
                frame = LogFrame.decode(data)
                kind, offset = self._take_frame(frame)
                answer = LogFrame(kind, frame.lease, frame.step, frame.stream, offset)
                await connection.send(answer.encode())
                job = self.jobs[frame.lease.job]
                for message in self._released(job):
                    await self.say(message)
                await self._notify()
        finally:
            self._log_connections.discard(connection)

    def _take_frame(self, frame: LogFrame) -> tuple[FrameKind, int]:
        job = self.jobs[frame.lease.job]
        if frame.lease != job.lease or job.is_over:
            return FrameKind.STALE, 0
        key = (job.attempt, frame.step, frame.stream)
        log = job.logs[key]
        if frame.kind is FrameKind.CHUNK:
            if self.frames_until_loss == 0:
                del log[len(log) // 2 :]
                self.frames_until_loss = None
                return FrameKind.RESEND, len(log)
            if self.frames_until_loss:
                self.frames_until_loss -= 1
            if frame.offset <= len(log):
                log += bytes(frame.payload)[len(log) - frame.offset :]
                return FrameKind.DURABLE, len(log)
            return FrameKind.RESEND, len(log)
        (crc32,) = struct.unpack("!I", frame.payload)
        if (len(log), zlib.crc32(log)) != (frame.offset, crc32):
            return FrameKind.RESEND, min(len(log), frame.offset)
        job.closed.add(key)
        return FrameKind.CLOSED, frame.offset


class RunnerProcess:
    """`shipway runner`, in its own process, in a data folder of its own."""

    def __init__(self, server: FakeServer, data: Path, capacity: int = 2) -> None:
        self.data = data
        self._server = server
        self._capacity = capacity
        self.process: asyncio.subprocess.Process | None = None
        data.mkdir()
        Credential(url=server.url, server=SERVER_ID, runner=RUNNER_ID, name="r", credential=CREDENTIAL).save(
            data
        )
        self.engine_state = data / "fake"

    async def start(self) -> None:
        command = Path(sys.executable).parent / "shipway"
        self.process = await asyncio.create_subprocess_exec(
            str(command),
            *("runner", "--server", self._server.url, "--data", str(self.data), "--engine", "fake"),
            *("--capacity", str(self._capacity), "--name", "r"),
            stdin=asyncio.subprocess.DEVNULL,
        )

    async def kill(self) -> None:
        assert self.process
        self.process.kill()
        await self.process.wait()

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        assert self.process
        self.process.send_signal(number)

    async def exit_code(self) -> int:
        assert self.process
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.process.wait()

    def job_pid(self, job: int, attempt: int = 1) -> int:
        return int((self.spool(job, attempt) / "lock").read_text())

    def on_engine(self) -> list[tuple[str, int, int]]:
        return list(FakeJanitor(self.engine_state).attempts(SERVER_ID))

    def spool(self, job: int, attempt: int = 1) -> Path:
        return self.data / "spool" / f"{job}-{attempt}"

    async def stop(self) -> None:
        """Everything that was started here ends."""
        if self.process and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        for lock in self.data.glob("spool/*/lock"):
            pid = lock.read_text().strip()
            if pid and Path(f"/proc/{pid}").exists():
                os.killpg(int(pid), signal.SIGKILL)


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    server = FakeServer()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def runner(server: FakeServer, tmp_path: Path) -> AsyncIterator[RunnerProcess]:
    runner = RunnerProcess(server, tmp_path / "runner")
    yield runner
    await runner.stop()


@pytest.fixture(name="step")
def step_maker() -> Callable[..., StepSpec]:
    return step
