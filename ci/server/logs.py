"""The logs on the server: append-only streams of bytes, whose position is a byte offset (law 4).

Theory of operation. `write` puts bytes into the file at once, where readers see them; a task for each log
that has unsynced bytes then syncs them in a thread, in groups of at most SYNC_SECONDS or SYNC_BYTES, and
wakes those who wait in `synced`. So a flood on one log costs another nothing but its share of the disk.
Readers pull from the file, each from its own offset; a log's pulse says "look again" to all of them
at the same moment, so that those who follow its end ask for the same bytes, which are read once.

Methods that are coroutines, and `write`, belong to the event loop; the others may be called from any
thread.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ci.errors import Conflict, NotFound, ShipwayError, Unavailable
from ci.protocol import Stream
from ci.server import log_file, log_index
from ci.server.clock import Clock
from ci.server.log_file import LogFile

SYNC_SECONDS = 0.05
SYNC_BYTES = 256 * 1024
PULSE_SECONDS = 0.03
PULSE_BYTES = 64 * 1024
CHUNK_BYTES = 256 * 1024
LOOK_AGAIN_SECONDS = 15.0
#: Logs kept open at the same time, two files each; more only while all of them have unsynced bytes.
MAX_OPEN = 128
_SYNC_THREADS = 4
#: Bytes this near to the end are taken to be in memory still, and read without a thread.
_HOT_BYTES = 1 << 20
_SUFFIX = {Stream.BYTES: "log", Stream.MARKS: "marks"}


@dataclass(frozen=True, slots=True)
class LogKey:
    job: int
    attempt: int
    step: int
    stream: Stream = Stream.BYTES


class _Signal:
    """Wakes all who wait at the moment, and none who come later."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    async def wait(self, timeout_seconds: float | None = None) -> None:
        """Returns when it was given, or the time is over."""
        event = self._event
        try:
            async with asyncio.timeout(timeout_seconds):
                await event.wait()
        except TimeoutError:
            return

    def give(self) -> None:
        self._event.set()
        self._event = asyncio.Event()


class _Log:
    """What the event loop knows of an open log."""

    def __init__(self, path: Path, *, has_index: bool) -> None:
        self.path = path
        self.file = LogFile(path, has_index=has_index)
        self.has_synced = _Signal()
        self.hurry = _Signal()
        self.pulse = _Signal()
        self.closing = asyncio.Lock()
        self.sync_task: asyncio.Task[None] | None = None
        self.synced_at = float("-inf")
        self.failure: ShipwayError | None = None  #: set when this object is no longer the log
        self.waiting = 0  #: coroutines that hold on to it
        self.announced = self.file.written  #: how much of it the pulse has told of
        self._pulsed_at = float("-inf")
        self._timer: asyncio.TimerHandle | None = None
        self._chunk: tuple[int, bytes] = (0, b"")

    @property
    def is_idle(self) -> bool:
        return self.sync_task is None and not self.waiting

    @property
    def is_behind(self) -> bool:
        file = self.file
        return file.synced < file.written or file.scanned < file.synced

    @contextmanager
    def held(self) -> Iterator[None]:
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1

    def has_grown(self) -> None:
        if self.waiting:
            self.look()

    def look(self) -> None:
        """Pulse if there is more than was told, but no more often than readers are to be woken."""
        grown = self.file.written - self.announced
        wait = self._pulsed_at + PULSE_SECONDS - asyncio.get_running_loop().time()
        if grown and (wait <= 0 or grown >= PULSE_BYTES):
            self.give_pulse()
        elif grown and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(wait, self.give_pulse)

    def give_pulse(self) -> None:
        self.rest()
        self._pulsed_at = asyncio.get_running_loop().time()
        self.announced = self.file.written
        self.pulse.give()

    def rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None

    async def chunk(self, offset: int) -> bytes:
        """The next bytes from `offset` on; the same object for all who ask for the same."""
        limit = min(CHUNK_BYTES, self.announced - offset)
        if self._chunk[0] == offset and len(self._chunk[1]) == limit:
            return self._chunk[1]
        if offset >= self.file.written - _HOT_BYTES:
            data = log_file.read(self.path, offset, limit)
        else:
            data = await asyncio.to_thread(log_file.read, self.path, offset, limit)
        self._chunk = offset, data
        return data


class Logs:
    def __init__(self, folder: Path, *, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._open: OrderedDict[LogKey, _Log] = OrderedDict()
        self._threads: ThreadPoolExecutor | None = None
        self._is_closing = False

    async def start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._threads = ThreadPoolExecutor(_SYNC_THREADS, "logs")
        self._is_closing = False

    async def close(self) -> None:
        """Sync everything, end all who follow, and let go of the files."""
        self._is_closing = True
        for log in list(self._open.values()):
            log.hurry.give()
            log.give_pulse()
            if log.sync_task is not None:
                await log.sync_task
            log.file.release()
        self._open.clear()
        if self._threads is not None:
            self._threads.shutdown()

    # --- writing ---------------------------------------------------------------------------------

    def write(self, key: LogKey, offset: int, data: bytes | memoryview) -> int:
        """Append `data`, which begins at `offset`, and return the size of the log, not yet durable.

        What is there already is trimmed off. Behind a gap, or to a closed log, nothing is written: the
        returned size is then less than the end of `data`. Raises Unavailable where the disk is full.
        """
        log = self._get(key)
        file = log.file
        if file.is_closed or not offset <= file.written < offset + len(data):
            return file.written
        file.write(offset, data, self._clock.now())
        log.has_grown()
        self._see_to_sync(key, log)
        return file.written

    async def synced(self, key: LogKey, size: int) -> int:
        """Wait until at least `size` bytes are durable; return how many are: less, if they will never be.

        Raises Unavailable where the disk failed: the log then goes on from what it had recorded.
        """
        log = self._get(key)
        with log.held():
            while log.file.synced < size and log.sync_task is not None:
                await log.has_synced.wait(LOOK_AGAIN_SECONDS)
        if log.failure is not None:
            raise log.failure
        return log.file.synced

    async def append(self, key: LogKey, offset: int, data: bytes | memoryview) -> int:
        """Append, and return the durable size once `data` is durable; behind a gap, at once."""
        end = offset + len(data)
        size = self.write(key, offset, data)
        return await self.synced(key, end) if size >= end else self._get(key).file.synced

    async def close_stream(self, key: LogKey, size: int, crc32: int) -> int | None:
        """Agree that the log is whole, durably: None. Else the offset from which to send again.

        Raises Conflict for a log that was closed with other bytes.
        """
        log = self._get(key)
        with log.held():
            async with log.closing:
                return await self._close_stream(key, log, size, crc32)

    async def _close_stream(self, key: LogKey, log: _Log, size: int, crc32: int) -> int | None:
        file = log.file
        if file.is_closed:
            if (file.synced, file.crc32) == (size, crc32):
                return None
            raise Conflict(f"The log of {key} was closed with {file.synced} bytes, not {size}.")
        if file.written < size:
            return file.synced
        await self._catch_up(key, log)
        if (file.written, file.crc32) != (size, crc32):
            file.reset()
            log.give_pulse()
            return 0
        await self._in_thread(key, log, file.seal)
        log.give_pulse()
        return None

    async def _catch_up(self, key: LogKey, log: _Log) -> None:
        """Until everything is synced and scanned."""
        self._see_to_sync(key, log)
        log.hurry.give()
        while log.sync_task is not None:
            await log.has_synced.wait(LOOK_AGAIN_SECONDS)
        if log.failure is not None:
            raise log.failure

    def _see_to_sync(self, key: LogKey, log: _Log) -> None:
        if log.sync_task is None:
            log.sync_task = asyncio.create_task(self._sync(key, log), name=f"sync {log.path.name}")
        elif log.file.written - log.file.synced >= SYNC_BYTES:
            log.hurry.give()

    async def _sync(self, key: LogKey, log: _Log) -> None:
        file = log.file
        try:
            while log.is_behind:
                await self._gather(log)
                if file.synced < file.written:
                    await self._in_thread(key, log, file.sync)
                    log.has_synced.give()
                await self._in_thread(key, log, file.scan, self._clock.now())
        except Unavailable:
            pass  # told by log.failure to all who wait
        finally:
            log.sync_task = None
            log.has_synced.give()
            if log.failure is not None:
                file.release()

    async def _gather(self, log: _Log) -> None:
        """Wait for more to sync together, but never long."""
        loop = asyncio.get_running_loop()
        wait = log.synced_at + SYNC_SECONDS - loop.time()
        is_much = log.file.written - log.file.synced >= SYNC_BYTES
        if wait > 0 and not is_much and not log.closing.locked() and not self._is_closing:
            await log.hurry.wait(wait)
        log.synced_at = loop.time()

    async def _in_thread(self, key: LogKey, log: _Log, function: Callable[..., None], *args: object) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)
        except OSError as error:
            # After a failed sync nobody knows what is on the disk: begin again from the record.
            failure = Unavailable(f"The log {log.path} cannot be kept: {error.strerror}.")
            self._drop(key, log, failure)
            raise failure from error

    # --- reading -------------------------------------------------------------------------------

    def size(self, key: LogKey) -> int:
        """Bytes that can be read now."""
        log = self._open.get(key)
        return log.file.written if log is not None else log_file.readable_size(self._path(key))

    def is_closed(self, key: LogKey) -> bool:
        log = self._open.get(key)
        return log.file.is_closed if log is not None else log_file.read_record(self._path(key))[3]

    def read(self, key: LogKey, offset: int, limit: int) -> bytes:
        """At most `limit` bytes from `offset` on; none behind the end."""
        limit = min(limit, self.size(key) - offset)
        return log_file.read(self._path(key), offset, limit) if limit > 0 else b""

    def index(self, key: LogKey) -> bytes:
        """Rows of log_index.ROW, (line, offset, milliseconds since the log's first byte), in order."""
        path, size = self._path(key), self.size(key)
        rows = log_file.read_index(path)
        if not rows and size and self.is_closed(key):
            rows = log_file.rebuild_index(path, size)
        return log_index.up_to(rows, size)

    def line_offset(self, key: LogKey, line: int) -> int:
        """Where line `line` (from 0) begins; the size of the log if it has no such line."""
        size = self.size(key)
        at_line, offset = log_index.last_row_before(self.index(key), line)
        for data in log_file.pieces(self._path(key), offset, size):
            count = data.count(b"\n")
            if at_line + count < line:
                at_line += count
                offset += len(data)
                continue
            begin = 0
            for _ in range(line - at_line):
                begin = data.index(b"\n", begin) + 1
            return offset + begin
        return size

    async def follow(self, key: LogKey, offset: int) -> AsyncIterator[tuple[int, bytes]]:
        """Yield (offset, bytes) from `offset` on without gaps, until the log is closed and all is read.

        What is there comes at once, what is added every PULSE_SECONDS or PULSE_BYTES, at most CHUNK_BYTES
        together; pieces end anywhere, within a character too. Ends also when the server stops or the log is
        deleted. A slow reader delays nobody.
        """
        log = self._get(key)
        while not isinstance(log.failure, NotFound):
            log.look()
            data = b""
            with log.held():
                if offset < log.announced:
                    data = await log.chunk(offset)
                elif log.file.is_closed:
                    return
                if not data:
                    await log.pulse.wait(LOOK_AGAIN_SECONDS)
            if data:
                yield offset, data
                offset += len(data)
            if self._is_closing:
                return
            if log is not self._open.get(key) and not isinstance(log.failure, NotFound):
                log = self._get(key)

    # --- keeping --------------------------------------------------------------------------------

    async def delete(self, job: int) -> None:
        """Remove all logs of a job; who follows one comes to its end."""
        for key, log in [found for found in self._open.items() if found[0].job == job]:
            self._drop(key, log, NotFound(f"The logs of job {job} were deleted."))
        folder = self._path(LogKey(job, 0, 0)).parent
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    def jobs(self) -> list[int]:
        """The jobs that have a folder here. Blocks."""
        folders = self._folder.glob("*/*")
        return sorted(int(each.name) for each in folders if each.name.isascii() and each.name.isdigit())

    def has_files(self, key: LogKey) -> bool:
        """Whether anything of the job's logs is here; not after `delete`. Blocks."""
        return self._path(key).parent.exists()

    def _path(self, key: LogKey) -> Path:
        folder = self._folder / str(key.job // 1000) / str(key.job)
        return folder / f"{key.attempt}.{key.step}.{_SUFFIX[key.stream]}"

    def _get(self, key: LogKey) -> _Log:
        if self._is_closing:
            raise Unavailable("The server is stopping.")
        log = self._open.get(key)
        if log is None:
            self._make_room()
            try:
                log = _Log(self._path(key), has_index=key.stream is Stream.BYTES)
            except OSError as error:
                raise Unavailable(f"The log of {key} cannot be read: {error.strerror}.") from error
            self._open[key] = log
        self._open.move_to_end(key)
        return log

    def _make_room(self) -> None:
        if len(self._open) < MAX_OPEN:
            return
        for key, log in self._open.items():
            if log.is_idle:
                self._forget(key, log)
                return

    def _drop(self, key: LogKey, log: _Log, reason: ShipwayError) -> None:
        log.failure = reason
        if self._open.get(key) is log:
            self._forget(key, log)
        log.give_pulse()
        log.rest()

    def _forget(self, key: LogKey, log: _Log) -> None:
        del self._open[key]
        log.rest()
        if log.sync_task is None:
            log.file.release()
