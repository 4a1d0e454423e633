"""One stream of a log on the disk: its bytes, how many of them are synced, whether it is closed, its index.

    {attempt}.{step}.log | .marks       the bytes
    ....synced                          the record: synced length, birth, CRC-32, closed; see _RECORD
    ....index                           rows of log_index; of the bytes stream only

The record is written after the bytes it counts were synced, so that whatever was lost with the power, the
first `synced` bytes are there. What stands behind them when a file is opened again was never
acknowledged, and is cut off. Everything here blocks, and knows nothing of the event loop.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ci.errors import Unavailable
from ci.server import log_index

#: Synced length, seconds since 1970 at the first byte, CRC-32 and whether closed.
_RECORD = struct.Struct("!QdIB3x")
_SCAN_BYTES = 1 << 20
#: So much is scanned in one go, at most: syncs wait meanwhile.
_SCAN_PASS_BYTES = 8 << 20


class LogFile:
    """`write` and `reset` belong to one thread; `sync`, `scan` and `seal` to another, one call at a time."""

    def __init__(self, path: Path, *, has_index: bool) -> None:
        """Look at what is there, cut off what was never acknowledged, and create nothing."""
        self._path = path
        self._has_index = has_index
        self._fds: tuple[int, int] | None = None
        self.synced, self.born, self._sealed_crc, self.is_closed = read_record(path)
        self._is_new = self.born == 0.0
        size = _size(path)
        if size > self.synced:
            os.truncate(path, self.synced)
        self.synced = self.written = min(size, self.synced)
        self._crc = 0
        self._restart_scan()

    @property
    def scanned(self) -> int:
        return self._scan.offset

    @property
    def crc32(self) -> int:
        """Of the first `scanned` bytes; of a closed log, of all."""
        return self._sealed_crc if self.is_closed else self._crc

    def write(self, offset: int, data: bytes | memoryview, now: float) -> None:
        """Put `data` at `offset`, which is at most `written`; what is there already is left as it is.

        Readers see it from now on. Raises Unavailable, with nothing written, where the disk is full.
        """
        rest = memoryview(data)[self.written - offset :]
        end = self.written + len(rest)
        try:
            fd, _ = self._open(now)
            at = self.written
            while at < end:
                at += os.pwrite(fd, rest[at - self.written :], at)
        except OSError as error:
            raise Unavailable(f"The log cannot be kept in {self._path}: {error.strerror}.") from error
        self.written = end

    def sync(self) -> None:
        """Make what was written until now durable. Raises OSError; then only `synced` bytes are sure."""
        upto = self.written
        fd, record_fd = self._open(self.born)
        os.fdatasync(fd)
        self._write_record(record_fd, upto)
        if self._is_new:
            _sync_folders(self._path)
            self._is_new = False
        self.synced = upto

    def scan(self, now: float) -> None:
        """Go on with the CRC-32 and the index, over synced bytes."""
        end = min(self.synced, self._scan.offset + _SCAN_PASS_BYTES)
        rows = b""
        milliseconds = int(max(0.0, now - self.born) * 1000)
        for data in pieces(self._path, self._scan.offset, end):
            for line, offset in self._scan.feed(data):
                rows += self._row(line, offset, milliseconds)
            self._crc = zlib.crc32(data, self._crc)
        if rows and self._has_index:
            with open(index_path(self._path), "ab") as file:
                file.write(rows)

    def seal(self) -> None:
        """Record, durably, that the log is whole. Everything is synced and scanned."""
        fd, record_fd = self._open(self.born)
        os.ftruncate(fd, self.synced)  # what a failed write may have left behind the end
        self._sealed_crc = self._crc
        self._write_record(record_fd, self.synced, is_closed=True)
        os.fdatasync(record_fd)
        _sync_folders(self._path)
        self.is_closed = True

    def reset(self) -> None:
        """Forget all bytes: they are not what the runner has."""
        if self._fds is not None:
            self._write_record(self._fds[1], 0)
            os.fdatasync(self._fds[1])
            os.ftruncate(self._fds[0], 0)
        self.synced = self.written = 0
        index_path(self._path).unlink(missing_ok=True)
        self._restart_scan()

    def release(self) -> None:
        """Let go of the files; the next write opens them again."""
        fds, self._fds = self._fds, None
        for fd in fds or ():
            os.close(fd)

    def _open(self, now: float) -> tuple[int, int]:
        if self._fds is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            fd = os.open(self._path, flags, 0o600)
            try:
                self._fds = fd, os.open(record_path(self._path), flags, 0o600)
            except OSError:
                os.close(fd)
                raise
            if not self.born:
                self.born = now or 1.0
                self._write_record(self._fds[1], self.synced)
        return self._fds

    def _write_record(self, fd: int, length: int, *, is_closed: bool = False) -> None:
        os.pwrite(fd, _RECORD.pack(length, self.born, self._sealed_crc, is_closed), 0)

    def _restart_scan(self) -> None:
        self._scan = log_index.Scan()
        self._crc = 0
        self._rows = 0
        self._known = b""
        if self._has_index:
            rows = read_index(self._path)
            self._known = log_index.up_to(rows, self.written)
            if len(self._known) < len(rows):
                os.truncate(index_path(self._path), len(self._known))

    def _row(self, line: int, offset: int, milliseconds: int) -> bytes:
        """The row, if it does not stand in the index from before a restart."""
        size = log_index.ROW.size
        self._rows += 1
        if self._rows * size <= len(self._known):
            return b""
        return log_index.ROW.pack(line, offset, milliseconds)


def record_path(path: Path) -> Path:
    return path.with_name(path.name + ".synced")


def index_path(path: Path) -> Path:
    return path.with_name(path.name + ".index")


def read_record(path: Path) -> tuple[int, float, int, bool]:
    """(synced length, birth, CRC-32, whether closed); zeros where there is none."""
    try:
        record = record_path(path).read_bytes()
        length, born, crc32, is_closed = _RECORD.unpack(record)
    except (FileNotFoundError, struct.error):
        return 0, 0.0, 0, False
    return length, born, crc32, bool(is_closed)


def read_index(path: Path) -> bytes:
    try:
        rows = index_path(path).read_bytes()
    except FileNotFoundError:
        return b""
    return rows[: len(rows) // log_index.ROW.size * log_index.ROW.size]


def readable_size(path: Path) -> int:
    """Of a log that nobody has open."""
    return min(_size(path), read_record(path)[0])


def read(path: Path, offset: int, limit: int) -> bytes:
    """From a file descriptor of its own, so that it may be called from any thread."""
    try:
        with _reading(path) as fd:
            return os.pread(fd, limit, offset)
    except FileNotFoundError:
        return b""


def rebuild_index(path: Path, size: int) -> bytes:
    """Make the index of a closed log again; its times are lost. Raises FileNotFoundError."""
    scan = log_index.Scan()
    rows = b"".join(
        log_index.ROW.pack(line, offset, 0)
        for data in pieces(path, 0, size)
        for line, offset in scan.feed(data)
    )
    unfinished = path.with_name(f"{path.name}.index.{threading.get_ident()}")
    unfinished.write_bytes(rows)
    unfinished.rename(index_path(path))
    return rows


def pieces(path: Path, begin: int, end: int) -> Iterator[bytes]:
    if begin >= end:
        return
    with _reading(path) as fd:
        while begin < end:
            data = os.pread(fd, min(_SCAN_BYTES, end - begin), begin)
            if not data:
                return
            yield data
            begin += len(data)


@contextmanager
def _reading(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _sync_folders(path: Path) -> None:
    """The names of new files are durable only with the folders they stand in."""
    for folder in (path.parent, path.parent.parent, path.parent.parent.parent):
        with _reading(folder) as fd:
            os.fsync(fd)
