"""A step's output on its way into the spool: marks taken out, masked, capped.

    bytes -> ci.marks.Splitter -> ci.mask.Masker -> Cap -> BYTES and MARKS files of the spool

Offsets count the masked bytes without marks, as they are stored. Memory stays flat whatever comes,
lines of any length included.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import Protocol

from ci import marks
from ci.mask import Masker, Patterns

#: So much of the end of a log is kept past its cap.
TAIL_BYTES = 1 << 20
MAX_CUT_BYTES = 64 * 1024
#: A step that prints more marks than any script has commands is not followed further.
MAX_MARKS = 100_000
MAX_NOTE_CHARACTERS = 4096
#: Of all that a step puts out for others.
MAX_SAID_BYTES = 64 * 1024


class Sink(Protocol):
    """Where the two streams of a log are kept; only ever appended to."""

    def append_bytes(self, data: bytes) -> None: ...

    def append_mark(self, line: bytes) -> None: ...


class Cap:
    """Pass the first `limit` bytes on; of what follows keep the last TAIL_BYTES until `finish`.

    Marks are placed by their offset in the whole stream. Those within the part left out are recorded
    where it would stand.
    """

    def __init__(self, sink: Sink, limit: int) -> None:
        self._sink = sink
        self._limit = limit
        self._total = 0
        self._tail = bytearray()
        self._late: deque[tuple[int, Callable[[int], bytes]]] = deque()
        self._marks = 0

    @property
    def is_over(self) -> bool:
        return self._total > self._limit

    def write(self, data: bytes) -> None:
        room = self._limit - self._total
        self._total += len(data)
        if room >= len(data):
            self._sink.append_bytes(data)
            return
        if room > 0:
            self._sink.append_bytes(data[:room])
            data = data[room:]
        self._tail += data[-TAIL_BYTES:]
        if len(self._tail) > 2 * TAIL_BYTES:
            del self._tail[:-TAIL_BYTES]
            self._place_marks_left_out()

    def mark(self, offset: int, line_at: Callable[[int], bytes]) -> None:
        """`line_at` makes the record, given the offset in the stored bytes."""
        self._marks += 1
        if self._marks > MAX_MARKS:
            return
        if offset <= self._limit:
            self._sink.append_mark(line_at(offset))
        else:
            self._late.append((offset, line_at))

    def finish(self, elided_at: Callable[[int, int], bytes]) -> None:
        """Write the tail; if something is left out, first its record made by `elided_at(from, to)`."""
        keep = bytes(self._tail[-TAIL_BYTES:])
        left_out = self._total - self._limit - len(keep)
        if left_out > 0:
            # The tail begins with a whole line, unless its lines are very long.
            cut = keep.find(b"\n", 0, MAX_CUT_BYTES) + 1
            keep, left_out = keep[cut:], left_out + cut
            self._sink.append_mark(elided_at(self._limit, self._limit + left_out))
        self._sink.append_bytes(keep)
        for offset, line_at in self._late:
            self._sink.append_mark(line_at(max(self._limit, offset - max(0, left_out))))
        self._late.clear()
        self._tail.clear()

    def _place_marks_left_out(self) -> None:
        begin = self._total - len(self._tail)
        while self._late and self._late[0][0] < begin:
            _, line_at = self._late.popleft()
            self._sink.append_mark(line_at(self._limit))


class Pipeline:
    """One step's output. `write` is an engines.base.Output; all methods are safe in any thread."""

    def __init__(
        self,
        sink: Sink,
        *,
        secrets: Patterns,
        token: str,
        limit_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._secrets = secrets
        self._splitter = marks.Splitter(token)
        self._masker = Masker(secrets)
        self._cap = Cap(sink, limit_bytes)
        self._limit = limit_bytes
        self._clock = clock
        self._began = clock()
        self._waiting: deque[Callable[[int], bytes]] = deque()
        self._has_told_cap = False
        self._said: list[bytes] = []
        self._said_bytes = 0
        self._lock = Lock()

    def write(self, data: bytes) -> None:
        with self._lock:
            for piece in self._splitter.feed(data):
                if isinstance(piece, bytes):
                    self._pass(self._masker.feed(piece))
                elif isinstance(piece, marks.Said):
                    self._said_bytes += len(piece.line) + 1
                    if self._said_bytes <= MAX_SAID_BYTES:
                        self._said.append(piece.line)
                else:
                    self._mark(piece)

    def take_said(self) -> tuple[list[str], bool]:
        """The lines that the step has put out since the last call, and whether that is all of them."""
        with self._lock:
            said, is_all = self._said, self._said_bytes <= MAX_SAID_BYTES
            self._said, self._said_bytes = [], 0
        return [line.decode(errors="replace") for line in said], is_all

    def note(self, text: str) -> None:
        """A sentence of ours beside the bytes; masked like them."""
        with self._lock:
            self._place("note", self._secrets.mask(text)[:MAX_NOTE_CHARACTERS])

    def finish(self) -> None:
        """The stream has ended: everything held back is given out."""
        with self._lock:
            self._pass(self._masker.feed(self._splitter.finish()))
            self._pass(self._masker.finish())
            self._cap.finish(lambda begin, end: self._line(begin, "elided", [begin, end]))

    def _mark(self, mark: marks.Mark) -> None:
        if mark.code is None:
            self._place("begin", mark.command)
        else:
            self._place("end", [mark.command, mark.code])

    def _place(self, kind: str, value: object) -> None:
        after = self._clock() - self._began
        self._waiting.append(lambda offset: _record(offset, after, kind, value))
        self._masker.place()
        self._record_settled()

    def _pass(self, data: bytes) -> None:
        if data:
            self._cap.write(data)
        self._record_settled()
        if self._cap.is_over and not self._has_told_cap:
            self._has_told_cap = True
            text = (
                f"The log is at its limit of {self._limit:,} bytes; its last MiB follows at the step's end."
            )
            self._cap.mark(self._limit, lambda offset: self._line(offset, "note", text))

    def _record_settled(self) -> None:
        for offset in self._masker.settled():
            self._cap.mark(offset, self._waiting.popleft())

    def _line(self, offset: int, kind: str, value: object) -> bytes:
        return _record(offset, self._clock() - self._began, kind, value)


def _record(offset: int, after_seconds: float, kind: str, value: object) -> bytes:
    record = {"o": offset, "t": round(after_seconds, 3), "k": kind, "v": value}
    return json.dumps(record, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"
