"""The sparse index of a log: rows (line, offset, milliseconds), about one for each 1,000 lines or 64 KiB.

Line `line` (from 0) begins at byte `offset`; the time counts from the log's first byte to when the row
was made. The rows depend on the bytes alone and can be made again from them at any time; only the
times are then lost.
"""

from __future__ import annotations

import struct

ROW = struct.Struct("!QQQ")
LINES_PER_ROW = 1000
BYTES_PER_ROW = 64 * 1024
#: Rows are decided at multiples of this, so that they do not depend on how the log was read.
_WINDOW_BYTES = 16 * 1024


class Scan:
    """Read a log once, from its beginning, in any pieces, and find the rows."""

    def __init__(self) -> None:
        self.offset = 0
        self.lines = 0
        self._line_begin = 0  # where the last line that has begun begins
        self._row_line = 0
        self._row_offset = 0

    def feed(self, data: bytes) -> list[tuple[int, int]]:
        """(line, offset) of the rows that are decided by now; the first bytes give (0, 0)."""
        rows = [(0, 0)] if data and not self.offset else []
        at = 0
        while at < len(data):
            end = min(len(data), at + _WINDOW_BYTES - self.offset % _WINDOW_BYTES)
            count = data.count(b"\n", at, end)
            if count:
                self.lines += count
                self._line_begin = self.offset + data.rfind(b"\n", at, end) + 1 - at
            self.offset += end - at
            at = end
            if self.offset % _WINDOW_BYTES == 0 and self._is_due():
                self._row_line, self._row_offset = self.lines, self._line_begin
                rows.append((self.lines, self._line_begin))
        return rows

    def _is_due(self) -> bool:
        is_far = self.offset - self._row_offset >= BYTES_PER_ROW
        has_many = self.lines - self._row_line >= LINES_PER_ROW
        return (is_far or has_many) and self._line_begin > self._row_offset


def last_row_before(rows: bytes, line: int) -> tuple[int, int]:
    """(line, offset) of the last row at or before `line`."""
    low, high = 0, len(rows) // ROW.size
    while low < high:
        middle = (low + high) // 2
        if ROW.unpack_from(rows, middle * ROW.size)[0] <= line:
            low = middle + 1
        else:
            high = middle
    if not low:
        return 0, 0
    found = ROW.unpack_from(rows, (low - 1) * ROW.size)
    return found[0], found[1]


def up_to(rows: bytes, size: int) -> bytes:
    """The rows of the first `size` bytes of the log."""
    count = len(rows) // ROW.size
    while count and ROW.unpack_from(rows, (count - 1) * ROW.size)[1] >= size:
        count -= 1
    return rows[: count * ROW.size]
