"""Lines of a stored log, found by number through its sparse index. Everything here blocks: use a thread.

Line numbers count from 1, as people read them; a line ends in LF, and the last one may have none yet.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ci.protocol import Stream
from ci.server.log_index import ROW
from ci.server.logs import LogKey, Logs

MAX_WINDOW_BYTES = 4 << 20
_STEP_BYTES = 256 * 1024
_MAX_MARKS_BYTES = 4 << 20


@dataclass(frozen=True, kw_only=True)
class Window:
    """Lines that follow each other. `first` is the number of the first one."""

    first: int
    lines: tuple[bytes, ...]
    is_cut: bool = False  #: a line was too long to be shown whole

    @property
    def last(self) -> int:
        return self.first + len(self.lines) - 1


class LogText:
    def __init__(self, logs: Logs, key: LogKey) -> None:
        self._logs = logs
        self._key = key
        self.size = logs.size(key)
        self.index = logs.index(key)

    def rows(self) -> list[tuple[int, int]]:
        """(lines before, offset) of each row of the index."""
        found = [(line, offset) for line, offset, _ in ROW.iter_unpack(self.index)]
        return found or [(0, 0)]

    def count(self) -> int:
        """How many lines there are, a last one without LF included."""
        line, offset = self.rows()[-1]
        ends_open = False
        while offset < self.size:
            data = self._logs.read(self._key, offset, _STEP_BYTES)
            if not data:
                break
            line += data.count(b"\n")
            ends_open = not data.endswith(b"\n")
            offset += len(data)
        return line + ends_open

    def tail(self, lines: int, max_bytes: int = MAX_WINDOW_BYTES) -> Window:
        """The last lines, at most so many and about so many bytes."""
        total = self.count()
        return self.window(max(1, total - lines + 1), lines, max_bytes, from_end=True)

    def window(
        self, first: int, lines: int, max_bytes: int = MAX_WINDOW_BYTES, *, from_end: bool = False
    ) -> Window:
        """Lines from number `first` on. With `from_end` what is too much is left out at the beginning."""
        first = max(first, 1)
        begin = self._logs.line_offset(self._key, first - 1)
        end = self._logs.line_offset(self._key, first - 1 + lines)
        is_cut = end - begin > max_bytes
        if is_cut and from_end:
            first, begin = self._begin_behind(end - max_bytes, first, begin)
        data = self._logs.read(self._key, begin, min(end - begin, max_bytes))
        pieces = data.split(b"\n")
        if not pieces[-1]:
            pieces.pop()
        return Window(first=first, lines=tuple(pieces), is_cut=is_cut)

    def _begin_behind(self, offset: int, first: int, begin: int) -> tuple[int, int]:
        """(line, offset) of the first row behind `offset`; where one line is longer, what was given."""
        return next(((line + 1, at) for line, at in self.rows() if at >= offset), (first, begin))

    def line_at(self, offset: int) -> int:
        """The number of the first line that begins at or behind `offset`."""
        return self.lines_at([offset])[0]

    def lines_at(self, offsets: Sequence[int]) -> list[int]:
        """The same for many offsets, each block read once."""
        rows = self.rows()
        numbers: dict[int, int] = {}
        row = 0
        line, at, ends_open = rows[0][0], rows[0][1], False
        for offset in sorted(set(offsets)):
            while row + 1 < len(rows) and rows[row + 1][1] <= offset:
                row += 1
            if rows[row][1] > at:
                line, at, ends_open = rows[row][0], rows[row][1], False
            while at < min(offset, self.size):
                data = self._logs.read(self._key, at, min(_STEP_BYTES, offset - at))
                if not data:
                    break
                line += data.count(b"\n")
                ends_open = not data.endswith(b"\n")
                at += len(data)
            numbers[offset] = line + ends_open + 1
        return [numbers[offset] for offset in offsets]


def marks(logs: Logs, key: LogKey) -> tuple[list[dict[str, Any]], int]:
    """The side records of a log, in order, each with the line ("l") before which it stands; and the offset
    in their stream from which to go on."""
    marks_key = LogKey(key.job, key.attempt, key.step, Stream.MARKS)
    data = logs.read(marks_key, 0, _MAX_MARKS_BYTES)
    end = data.rfind(b"\n") + 1
    found = [json.loads(line) for line in data[:end].splitlines()]
    numbers = LogText(logs, key).lines_at([mark["o"] for mark in found])
    return [{**mark, "l": number} for mark, number in zip(found, numbers, strict=True)], end


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command of a step, as its marks say it."""

    number: int
    begin: int  #: offset
    end: int | None = None
    began_after: float = 0.0
    ended_after: float | None = None
    code: int | None = None


def commands(found: Sequence[dict[str, Any]]) -> list[Command]:
    open_ones: dict[int, dict[str, Any]] = {}
    done = []
    for mark in found:
        if mark["k"] == "begin":
            open_ones[mark["v"]] = mark
        elif mark["k"] == "end" and (begin := open_ones.pop(mark["v"][0], None)) is not None:
            number, code = mark["v"]
            done.append(
                Command(
                    number=number,
                    begin=begin["o"],
                    end=mark["o"],
                    began_after=begin["t"],
                    ended_after=mark["t"],
                    code=code,
                )
            )
    rest = [Command(number=m["v"], begin=m["o"], began_after=m["t"]) for m in open_ones.values()]
    return sorted([*done, *rest], key=lambda command: (command.begin, command.number))
