"""Every message between a runner and the server, one frozen class each; versioned.

Two WebSockets, both opened by the runner with `Authorization: Bearer <credential>`:

* `/runner/control` carries the JSON messages of this file as text frames, one a frame.
* `/runner/logs` carries log bytes as the binary frames at the end of this file.

Identity is never a field: the credential says which runner speaks. Every message about an attempt
carries its `Lease`; the server drops what comes under a stale epoch (and keeps it as evidence).
Messages are idempotent, so a runner that is unsure sends again. Times are durations: wall clocks of
two machines are never compared.

The life of a job on the wire (law 3):

    runner                                   server
    Hello(held leases)                  ->
                                        <-   Welcome(kept leases with new epochs, dead attempts)
    Take(free)                          ->                       one Take is one standing offer
                                        <-   Assign(lease, spec, credentials)
    Accept(lease)                       ->
                                        <-   Begin(lease)        durable: only now may anything start
    Record(lease, seq, change)          ->                       for each line of the attempt's journal
                                        <-   Recorded(lease, seq) everything up to seq is durable
    a step with side effects: the journal asks (StepAsks), and starts only after
                                        <-   Granted(lease, step)
    log bytes, CloseLog                 ->   (other socket)
    Record(JobEnded)                    ->
                                        <-   Recorded; the lease is over once every log is closed
                                        <-   Released(lease)     the runner may delete the spool
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from ci.spec import JobSpec
from ci.status import Outcome, Status

PROTOCOL_VERSION = 1
#: The previous version is accepted too, so that server and runners can be upgraded in either order.
ACCEPTED_VERSIONS = frozenset({PROTOCOL_VERSION})
HEARTBEAT_SECONDS = 5.0


#: What is no message of ours may hold a secret all the same: an error never quotes it.
_HIDES = ConfigDict(hide_input_in_errors=True)


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


class Lease(_Message):
    """One grant of one execution: attempt counts executions of the job, epoch counts grants."""

    job: int
    attempt: int
    epoch: int

    @property
    def key(self) -> tuple[int, int]:
        """(job, attempt): what spool folders, labels and logs are named by."""
        return self.job, self.attempt


# --- changes: the lines of a job's journal, written by the job process ------------------------


class StepChanged(_Message):
    """A step moved. `after_seconds` counts from the start of the attempt."""

    type: Literal["step"] = "step"
    step: int
    status: Status
    outcome: Outcome | None = None
    reason: str = ""
    exit_code: int | None = None
    after_seconds: float


class StepAsks(_Message):
    """A step with side effects is ready and waits for `Granted`."""

    type: Literal["ask"] = "ask"
    step: int
    after_seconds: float


class LogEnded(_Message):
    """A step's log is complete: its size in bytes and the CRC-32 of them. Marks likewise."""

    type: Literal["log_ended"] = "log_ended"
    step: int
    size: int
    crc32: int
    marks_size: int
    marks_crc32: int


class JobEnded(_Message):
    """All containers of the attempt are gone. `status` is the fold of the steps.

    `stops_build`: a step failed whose failure is to cancel the other jobs of the build.
    """

    type: Literal["job_ended"] = "job_ended"
    status: Status
    outcome: Outcome | None = None
    reason: str = ""
    after_seconds: float
    stops_build: bool = False


Change = Annotated[StepChanged | StepAsks | LogEnded | JobEnded, Field(discriminator="type")]

# --- runner -> server ---------------------------------------------------------------------------


class Held(_Message):
    """An attempt that the runner still has: its job process lives, or its spool is not shipped."""

    lease: Lease
    is_alive: bool


class Hello(_Message):
    type: Literal["hello"] = "hello"
    version: int = PROTOCOL_VERSION
    software: str
    labels: dict[str, str] = Field(default_factory=dict)
    capacity: int
    engine: str  #: e.g. "docker 27.1", or why there is none
    held: tuple[Held, ...] = ()


class Take(_Message):
    """The runner has this many free places; the latest Take replaces earlier ones."""

    type: Literal["take"] = "take"
    free: int


class Heartbeat(_Message):
    type: Literal["heartbeat"] = "heartbeat"
    leases: tuple[Lease, ...] = ()
    free: int = 0


class Accept(_Message):
    type: Literal["accept"] = "accept"
    lease: Lease


class Record(_Message):
    """Line `seq` (from 0) of the attempt's journal."""

    type: Literal["record"] = "record"
    lease: Lease
    seq: int
    change: Change


class Lost(_Message):
    """The job process died. Sent after everything of the attempt was destroyed on the engine."""

    type: Literal["lost"] = "lost"
    lease: Lease
    reason: str


class AskDead(_Message):
    """Which of these attempts (job, attempt) of anybody are dead? For the reaper."""

    type: Literal["ask_dead"] = "ask_dead"
    attempts: tuple[tuple[int, int], ...]


RunnerMessage = Annotated[
    Hello | Take | Heartbeat | Accept | Record | Lost | AskDead, Field(discriminator="type")
]

# --- server -> runner ---------------------------------------------------------------------------


class Welcome(_Message):
    """`leases`: what the runner held and keeps, each under its new epoch. `dead`: what it must kill."""

    type: Literal["welcome"] = "welcome"
    server: str
    runner: int
    name: str
    leases: tuple[Lease, ...] = ()
    dead: tuple[Lease, ...] = ()
    disconnect_limit_seconds: float = 900.0


class Assign(_Message):
    """The only message with secrets. `credentials` are for the clone: user and password for its host.
    `masks` are all the values that must never be seen in a log."""

    type: Literal["assign"] = "assign"
    lease: Lease
    spec: JobSpec
    secrets: dict[str, str] = Field(default_factory=dict, repr=False)
    credentials: tuple[str, str] | None = Field(default=None, repr=False)
    masks: tuple[str, ...] = Field(default=(), repr=False)


class Begin(_Message):
    type: Literal["begin"] = "begin"
    lease: Lease


class Recorded(_Message):
    type: Literal["recorded"] = "recorded"
    lease: Lease
    seq: int


class Granted(_Message):
    type: Literal["granted"] = "granted"
    lease: Lease
    step: int


class Cancel(_Message):
    """A request: the attempt is cancelled once the runner says that its containers have ended."""

    type: Literal["cancel"] = "cancel"
    lease: Lease
    reason: str


class Released(_Message):
    type: Literal["released"] = "released"
    lease: Lease


class Dead(_Message):
    """These attempts are over for the server: kill what runs, remove what is left, drop the spool."""

    type: Literal["dead"] = "dead"
    attempts: tuple[tuple[int, int], ...]


class Drain(_Message):
    """Stop taking; finish what runs. `is_draining` False: take again."""

    type: Literal["drain"] = "drain"
    is_draining: bool = True


ServerMessage = Annotated[
    Welcome | Assign | Begin | Recorded | Granted | Cancel | Released | Dead | Drain,
    Field(discriminator="type"),
]

_RUNNER: TypeAdapter[RunnerMessage] = TypeAdapter(RunnerMessage, config=_HIDES)
_SERVER: TypeAdapter[ServerMessage] = TypeAdapter(ServerMessage, config=_HIDES)
_CHANGE: TypeAdapter[Change] = TypeAdapter(Change, config=_HIDES)


def encode(message: RunnerMessage | ServerMessage | Change) -> str:
    return message.model_dump_json()


def decode_from_runner(text: str | bytes) -> RunnerMessage:
    """Raises pydantic.ValidationError for anything that is not one of our messages."""
    return _RUNNER.validate_json(text)


def decode_from_server(text: str | bytes) -> ServerMessage:
    return _SERVER.validate_json(text)


def decode_change(text: str | bytes) -> Change:
    return _CHANGE.validate_json(text)


# --- log frames ------------------------------------------------------------------------------------


class Stream(IntEnum):
    """The two append-only streams of a step's log: its bytes, and the side records beside them."""

    BYTES = 0
    MARKS = 1


class FrameKind(IntEnum):
    CHUNK = 1  #: runner: `payload` begins at `offset`
    DURABLE = 2  #: server: everything below `offset` is synced; the runner goes on from there
    CLOSE = 3  #: runner: the stream is `offset` bytes long; payload is its CRC-32 as !I
    CLOSED = 4  #: server: size and CRC agree and are recorded
    RESEND = 5  #: server: they do not; send again from `offset`
    STALE = 6  #: server: this lease is over; stop sending


_FRAME = struct.Struct("!BBIQIIQ")
FRAME_HEADER_BYTES = _FRAME.size
MAX_PAYLOAD_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class LogFrame:
    """One binary frame. `offset` counts the bytes of this (job, attempt, step, stream) before it."""

    kind: FrameKind
    lease: Lease
    step: int
    stream: Stream
    offset: int
    payload: bytes | memoryview = b""

    def encode(self) -> bytes:
        lease = self.lease
        header = _FRAME.pack(
            self.kind, self.stream, self.step, lease.job, lease.attempt, lease.epoch, self.offset
        )
        return b"".join((header, self.payload))

    @classmethod
    def decode(cls, data: bytes) -> LogFrame:
        """Raises ValueError for anything that is not a frame of ours."""
        if len(data) < FRAME_HEADER_BYTES:
            raise ValueError(f"a log frame has at least {FRAME_HEADER_BYTES} bytes, not {len(data)}")
        kind, stream, step, job, attempt, epoch, offset = _FRAME.unpack_from(data)
        lease = Lease(job=job, attempt=attempt, epoch=epoch)
        payload = memoryview(data)[FRAME_HEADER_BYTES:]
        return cls(FrameKind(kind), lease, step, Stream(stream), offset, payload)
