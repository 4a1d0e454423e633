"""The log of one step while it runs: its two files in the spool, behind the pipeline of `output`."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ci.errors import Unavailable
from ci.protocol import LogEnded, Stream
from runners.output import Pipeline

_TAIL_BYTES = 300
_SUFFIX = {Stream.BYTES: "log", Stream.MARKS: "marks"}


def log_path(folder: Path, step: int, stream: Stream) -> Path:
    return folder / "logs" / f"{step}.{_SUFFIX[stream]}"


class _Growing:
    """A file that is only ever appended to, with the size and the CRC-32 of what stands in it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self.size = 0
        self.crc32 = 0

    def append(self, data: bytes) -> None:
        """Raises Unavailable where the disk is full; what was written till then counts."""
        view = memoryview(data)
        while view:
            try:
                count = os.write(self._fd, view)
            except OSError as error:
                raise Unavailable(f"The log cannot be kept in {self._path}: {error.strerror}.") from error
            self.crc32 = zlib.crc32(view[:count], self.crc32)
            self.size += count
            view = view[count:]

    def close(self) -> None:
        os.fdatasync(self._fd)
        os.close(self._fd)


class Streams:
    """The two files of a step's log."""

    def __init__(self, folder: Path, step: int, ring: Callable[[], None]) -> None:
        self._ring = ring
        self.tail = b""
        self.bytes = _Growing(log_path(folder, step, Stream.BYTES))
        self.marks = _Growing(log_path(folder, step, Stream.MARKS))

    def append_bytes(self, data: bytes) -> None:
        self.tail = (self.tail + data[-_TAIL_BYTES:])[-_TAIL_BYTES:]
        self.bytes.append(data)
        self._ring()

    def append_mark(self, line: bytes) -> None:
        self.marks.append(line)
        self._ring()


class StepLog:
    """The log of one step that runs. `write` is an engines.base.Output; safe in any thread."""

    def __init__(self, step: int, streams: Streams, pipeline: Pipeline) -> None:
        self._step = step
        self._streams = streams
        self._pipeline = pipeline

    def write(self, data: bytes) -> None:
        """Raises Unavailable where the disk is full: the step cannot go on."""
        self._pipeline.write(data)

    def note(self, text: str) -> None:
        """A sentence of ours beside the output; masked too."""
        self._pipeline.note(text)

    def tail(self) -> str:
        """The last line with something in it, as it is kept; of a long one its end."""
        lines = [line.strip() for line in self._streams.tail.decode(errors="replace").splitlines()]
        return next((line for line in reversed(lines) if line), "")

    def take_said(self) -> tuple[list[str], bool]:
        """What the step has put out for others since the last call: lines, and whether that is all."""
        return self._pipeline.take_said()

    def close(self) -> LogEnded:
        """The output has ended. Everything is on the disk when this returns; to be called once.

        Where the disk is full this is the end of what could be kept; `write` has raised it already.
        """
        with suppress(Unavailable):
            self._pipeline.finish()
        kept, marks = self._streams.bytes, self._streams.marks
        kept.close()
        marks.close()
        return LogEnded(
            step=self._step,
            size=kept.size,
            crc32=kept.crc32,
            marks_size=marks.size,
            marks_crc32=marks.crc32,
        )
