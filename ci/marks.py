"""Command marks: what the gate prints into a step's output to say where a command begins and ends.

A mark is `ESC _ shipway;TOKEN;KIND;VALUE ESC \\`, an application string that terminals swallow. The
token is made anew for each step, so output that was printed by another step, or by a program that does
not know it, is never taken for a mark. Kind `b`, value `N`: command N (from 0) begins. Kind `e`, value
`N,CODE`: it ended. Kind `o`, any text without ESC: a line that the step puts out for other steps.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

TOKEN_LENGTH = 32
#: A longer line that is put out is no mark.
MAX_LINE_BYTES = 32 * 1024
_END = b"\x1b\\"
_DIGITS = rb"[0-9]{1,9}"
#: All that may follow the prefix, whole, and every beginning of it.
_TEXT = rb"[^\x1b]{0,%d}" % MAX_LINE_BYTES
_REST = re.compile(rb"(?:(b);(D)|(e);(D),(D)|o;(T))\x1b\\".replace(b"D", _DIGITS).replace(b"T", _TEXT))
_BEGINNING = re.compile(
    rb"(?:b(?:;(?:D\x1b?)?)?|e(?:;(?:D(?:,(?:D\x1b?)?)?)?)?|o(?:;T\x1b?)?)?".replace(b"D", _DIGITS).replace(
        b"T", _TEXT
    )
)
_LONGEST_REST = len(b"o;") + MAX_LINE_BYTES + len(_END)


@dataclass(frozen=True, slots=True)
class Mark:
    """`code` is None where the command begins, its exit code where it ended."""

    command: int
    code: int | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """A line that the step puts out."""

    line: bytes


def prefix(token: str) -> bytes:
    return b"\x1b_shipway;" + token.encode("ascii") + b";"


def encode(token: str, kind: str, value: str) -> bytes:
    return prefix(token) + f"{kind};{value}".encode("ascii") + _END


Piece: TypeAlias = bytes | Mark | Said


class Splitter:
    """Take the marks with one token out of a stream of bytes that comes in any pieces.

    Holds back only what may begin a mark. What looks like a mark and is none stays in the bytes.
    """

    def __init__(self, token: str) -> None:
        self._prefix = prefix(token)
        self._held = b""

    def feed(self, data: bytes) -> list[Piece]:
        """Bytes and marks in their order; no empty bytes."""
        if self._held:
            data = self._held + data
        found: list[Piece] = []
        begin = self._take_marks(data, found)
        hold = self._hold_from(data, begin)
        if begin < hold:
            found.append(data[begin:hold] if begin or hold < len(data) else data)
        self._held = data[hold:]
        return found

    def finish(self) -> bytes:
        """What was held back, at the end of the stream: an unfinished mark is no mark."""
        rest, self._held = self._held, b""
        return rest

    def _take_marks(self, data: bytes, found: list[Piece]) -> int:
        """Put every whole mark, and what stands before it, into `found`; return where the rest begins."""
        begin = 0
        at = data.find(self._prefix)
        while at >= 0:
            match = _REST.match(data, at + len(self._prefix))
            if match is None:
                at = data.find(self._prefix, at + 1)
                continue
            if begin < at:
                found.append(data[begin:at])
            found.append(_mark(match))
            begin = match.end()
            at = data.find(self._prefix, begin)
        return begin

    def _hold_from(self, data: bytes, begin: int) -> int:
        """The first place from which all the rest may be the beginning of a mark, else the end."""
        size = len(self._prefix)
        at = data.find(self._prefix, max(begin, len(data) - size - _LONGEST_REST))
        while at >= 0:
            if _BEGINNING.fullmatch(data, at + size):
                return at
            at = data.find(self._prefix, at + 1)
        at = data.find(b"\x1b", max(begin, len(data) - size + 1))
        while at >= 0:
            if self._prefix.startswith(data[at:]):
                return at
            at = data.find(b"\x1b", at + 1)
        return len(data)


def _mark(match: re.Match[bytes]) -> Mark | Said:
    if match[6] is not None:
        return Said(match[6])
    if match[1]:
        return Mark(int(match[2]))
    return Mark(int(match[4]), int(match[5]))
