"""Two small things the spool is made of: files of checked lines, and bells.

A line is the CRC-32 of its text, eight hex digits, then a space and the text (JSON). A bell is a FIFO; a
byte in it says "look again" and nothing else.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


class Lines:
    """A file of checked lines that is read as it grows. A line that is not whole yet is not there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def new(self) -> Iterator[bytes | None]:
        """The JSON of each whole line not given before; None for one that is damaged."""
        with open(self._path, "rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.split(b"\n")[:-1]:
            checksum, _, text = line.partition(b" ")
            yield text if checksum == _checksum(text) else None


def _checksum(text: bytes) -> bytes:
    return b"%08x" % zlib.crc32(text)


def append_line(fd: int, text: str) -> None:
    """Durable when this returns."""
    data = text.encode()
    line = memoryview(b"%s %s\n" % (_checksum(data), data))
    while line:
        line = line[os.write(fd, line) :]
    os.fdatasync(fd)


def open_lines(path: Path) -> int:
    """For appending. A line that a killed writer left unfinished is ended, so that it spoils no other."""
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    size = os.fstat(fd).st_size
    if size and os.pread(fd, 1, size - 1) != b"\n":
        os.write(fd, b"\n")
    return fd


class Bell:
    """Open for reading and writing on both sides, so that it neither blocks, ends nor breaks."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def ring(self) -> None:
        # Where it blocks it is so full of rings that one more says nothing new.
        with suppress(BlockingIOError):
            os.write(self.fd, b"!")

    def drain(self) -> None:
        with suppress(BlockingIOError):
            os.read(self.fd, 1 << 16)

    def close(self) -> None:
        """May be called again."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1
