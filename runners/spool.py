"""The spool: the folder that is the whole interface between a job process and the supervisor.

Theory of operation. The job process writes a journal and, for each step, two files that only grow; the
supervisor ships them. Either may be killed at any moment: what stands in the folder stays true, and the
other goes on from it. The job process holds a lock for its whole life, the only sign of it. Orders go
the other way through a file of their own. A byte in a FIFO ("bell") says "look again" and means nothing
else, so that one more or one less does no harm. No secret is in the folder: the assignment goes by pipe.

    {root}/supervisor                 touched by the supervisor: its sign of life
    {root}/{job}-{attempt}/format     version of all the rest; written last: a folder without it is no spool
                           lock       held by the job process (flock)
                           journal    one change a line, numbered from 0
                           orders     one order a line
                           bell       FIFO: the job process rings
                           orders.bell  FIFO: the supervisor rings
                           logs/N.log, logs/N.marks     step N, the streams of its log
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from ci import protocol
from ci.errors import Conflict, Invalid, NotFound
from ci.mask import Patterns
from ci.protocol import Change, Stream
from runners.lines import Bell, Lines, append_line, open_lines
from runners.output import Pipeline
from runners.step_log import StepLog, Streams, log_path

FORMAT_VERSION = 1
_LOCK_TRIES = 100
_LOCK_WAIT_SECONDS = 0.01


class _Order(BaseModel):
    model_config = ConfigDict(frozen=True)


class OrderGranted(_Order):
    """The start of this step with side effects is recorded: it may start."""

    type: Literal["granted"] = "granted"
    step: int


class OrderCancel(_Order):
    """End the job in order: stop its steps with their grace, then report it as cancelled."""

    type: Literal["cancel"] = "cancel"
    reason: str


class OrderKill(_Order):
    """The attempt is over for the server: end everything at once."""

    type: Literal["kill"] = "kill"
    reason: str


Order = OrderGranted | OrderCancel | OrderKill
_ORDER: TypeAdapter[Order] = TypeAdapter(Annotated[Order, Field(discriminator="type")])

# --- the folder ---------------------------------------------------------------------------------


def folder_of(root: Path, job: int, attempt: int) -> Path:
    return root / f"{job}-{attempt}"


def folders(root: Path) -> list[Path]:
    """Every spool under `root`, oldest job first; folders that never became one are left out."""
    found = [path for path in root.glob("*-*") if (path / "format").exists()]
    return sorted(found, key=_key)


def prepare(folder: Path) -> None:
    """Make an empty spool; does nothing to one that is there. Either process may do it first."""
    if (folder / "format").exists():
        return
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    for name in ("lock", "journal", "orders"):
        (folder / name).touch()
    for name in ("bell", "orders.bell"):
        if not (folder / name).exists():
            os.mkfifo(folder / name, 0o600)
    unfinished = folder / f"format.{os.getpid()}"
    unfinished.write_text(json.dumps({"shipway_spool": FORMAT_VERSION}) + "\n")
    unfinished.rename(folder / "format")


def _check_format(folder: Path) -> None:
    try:
        text = (folder / "format").read_text()
    except FileNotFoundError:
        raise NotFound(f"{folder} is no spool: it has no file `format`.") from None
    try:
        version = json.loads(text)["shipway_spool"]
    except (ValueError, KeyError, TypeError):
        raise Invalid(f"{folder}/format is not readable as the version of a spool: {text[:80]!r}.") from None
    if version != FORMAT_VERSION:
        raise Invalid(
            f"The spool {folder} has format {version}, and this runner knows format {FORMAT_VERSION}. "
            "Finish its job with the version of shipway that began it."
        )


def _key(folder: Path) -> tuple[int, int]:
    job, _, attempt = folder.name.partition("-")
    return int(job), int(attempt)


# --- sign of life of the supervisor ----------------------------------------------------------------


def touch_supervisor(root: Path) -> None:
    """The supervisor lives; to be called every few seconds."""
    root.mkdir(parents=True, exist_ok=True)
    path = root / "supervisor"
    path.touch()
    os.utime(path)


class SupervisorWatch:
    """How long no supervisor has shown itself. Compares no wall clocks: a change of the file counts."""

    def __init__(self, root: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = root / "supervisor"
        self._clock = clock
        self._seen = self._stamp()
        self._seen_at = clock()

    def silent_seconds(self) -> float:
        stamp = self._stamp()
        if stamp != self._seen:
            self._seen, self._seen_at = stamp, self._clock()
        return self._clock() - self._seen_at

    def _stamp(self) -> int:
        try:
            return self._path.stat().st_mtime_ns
        except FileNotFoundError:
            return 0


# --- the job process's side ----------------------------------------------------------------------


class SpoolWriter:
    """The job process's side. Methods may be called from any thread."""

    def __init__(self, folder: Path, lock_fd: int, clock: Callable[[], float]) -> None:
        self._folder = folder
        self._lock_fd = lock_fd
        self._clock = clock
        self._journal_fd = os.open(folder / "journal", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._next_seq = 0
        self._orders = Lines(folder / "orders")
        self._bell = Bell(folder / "bell")
        self._orders_bell = Bell(folder / "orders.bell")
        self._secrets = Patterns(())
        self._secrets_of: Sequence[str] = ()
        self._mutex = Lock()

    @classmethod
    def create(cls, folder: Path, clock: Callable[[], float] = time.monotonic) -> SpoolWriter:
        """Make `folder` (or take it as `prepare` made it) and hold its lock as long as this process lives.

        Raises Conflict if another process holds it, or held it and died: an attempt has one job process.
        """
        prepare(folder)
        _check_format(folder)
        lock_fd = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
        if not _take_lock(lock_fd):
            os.close(lock_fd)
            raise Conflict(f"Another process works on the spool {folder}.")
        if (folder / "lock").stat().st_size:
            os.close(lock_fd)
            raise Conflict(f"The spool {folder} belongs to a process that has ended.")
        os.write(lock_fd, b"%d\n" % os.getpid())
        return cls(folder, lock_fd, clock)

    @property
    def orders_fd(self) -> int:
        """Readable once there may be new orders; `orders` empties it."""
        return self._orders_bell.fd

    def record(self, change: Change) -> int:
        """Append to the journal; durable when this returns its number."""
        with self._mutex:
            append_line(self._journal_fd, protocol.encode(change))
            seq = self._next_seq
            self._next_seq += 1
        self._bell.ring()
        return seq

    def patterns(self, masks: Sequence[str]) -> Patterns:
        """What is masked, compiled once for all logs of the job."""
        with self._mutex:
            if masks != self._secrets_of:
                self._secrets, self._secrets_of = Patterns(masks), tuple(masks)
            return self._secrets

    def open_log(self, step: int, *, masks: Sequence[str], token: str, limit_bytes: int) -> StepLog:
        """Begin the log of a step, at the moment it starts: times in its marks count from here."""
        secrets = self.patterns(masks)
        streams = Streams(self._folder, step, self._bell.ring)
        pipeline = Pipeline(streams, secrets=secrets, token=token, limit_bytes=limit_bytes, clock=self._clock)
        return StepLog(step, streams, pipeline)

    def orders(self) -> list[Order]:
        """The orders that came since the last call."""
        with self._mutex:
            self._orders_bell.drain()
            return [_ORDER.validate_json(line) for line in self._orders.new() if line is not None]

    def close(self) -> None:
        """Let go of the lock: the supervisor then takes the process for ended."""
        for fd in (self._journal_fd, self._lock_fd):
            os.close(fd)
        self._bell.close()
        self._orders_bell.close()


def _take_lock(fd: int) -> bool:
    # A reader that asks whether we live holds the lock for a moment.
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(_LOCK_WAIT_SECONDS)
    return False


# --- the supervisor's side ------------------------------------------------------------------------


class SpoolReader:
    """The supervisor's side. For one thread at a time."""

    def __init__(self, folder: Path) -> None:
        """Raises NotFound where there is no spool, Invalid where another version made it."""
        _check_format(folder)
        self.folder = folder
        self._bell = Bell(folder / "bell")
        self._orders_bell = Bell(folder / "orders.bell")
        self._lines = Lines(folder / "journal")
        self._changes: list[Change] = []
        self._is_damaged = False
        self._logs: dict[tuple[int, Stream], int] = {}
        self._orders_fd: int | None = None

    @property
    def key(self) -> tuple[int, int]:
        """(job, attempt)"""
        return _key(self.folder)

    @property
    def bell_fd(self) -> int:
        """Readable once there may be something new; `drain_bell` before looking."""
        return self._bell.fd

    def drain_bell(self) -> None:
        self._bell.drain()

    def is_alive(self) -> bool:
        """Whether the job process lives. Before it has begun it does not."""
        with open(self.folder / "lock", "rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def has_begun(self) -> bool:
        """Whether a job process has ever held the spool."""
        return (self.folder / "lock").stat().st_size > 0

    def changes(self, after_seq: int = -1) -> list[tuple[int, Change]]:
        """The journal's lines after number `after_seq`.

        At a damaged line, which only a crash of the machine leaves, the journal ends.
        """
        for line in self._lines.new():
            self._is_damaged = self._is_damaged or line is None
            if line is not None and not self._is_damaged:
                self._changes.append(protocol.decode_change(line))
        first = after_seq + 1
        return list(enumerate(self._changes[first:], first))

    def steps(self) -> list[int]:
        """The numbers of the steps that have a log."""
        names = os.listdir(self.folder / "logs")
        return sorted(int(name.removesuffix(".log")) for name in names if name.endswith(".log"))

    def size(self, step: int, stream: Stream) -> int:
        try:
            return os.fstat(self._log_fd(step, stream)).st_size
        except FileNotFoundError:
            return 0

    def read(self, step: int, stream: Stream, offset: int, limit: int) -> bytes:
        """At most `limit` bytes from `offset` on; none where there are none yet."""
        try:
            return os.pread(self._log_fd(step, stream), limit, offset)
        except FileNotFoundError:
            return b""

    def order(self, order: Order) -> None:
        """Durable when this returns; the job process is rung."""
        if self._orders_fd is None:
            self._orders_fd = open_lines(self.folder / "orders")
        append_line(self._orders_fd, order.model_dump_json())
        self._orders_bell.ring()

    def drop_log(self, step: int) -> None:
        """The server holds the step's whole log: free its space."""
        for stream in Stream:
            fd = self._logs.pop((step, stream), None)
            if fd is not None:
                os.close(fd)
            log_path(self.folder, step, stream).unlink(missing_ok=True)

    def delete(self) -> None:
        """Remove the folder; what is gone already is no error."""
        self.close()
        (self.folder / "format").unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Let go of the files; may be called again."""
        fds = list(self._logs.values()) + ([] if self._orders_fd is None else [self._orders_fd])
        self._logs, self._orders_fd = {}, None
        for fd in fds:
            os.close(fd)
        self._bell.close()
        self._orders_bell.close()

    def _log_fd(self, step: int, stream: Stream) -> int:
        fd = self._logs.get((step, stream))
        if fd is None:
            fd = os.open(log_path(self.folder, step, stream), os.O_RDONLY | os.O_CLOEXEC)
            self._logs[step, stream] = fd
        return fd
