"""Screen: what a person sees while steps run: their lines as they come, and at the end how each one ended."""

from __future__ import annotations

import sys
from typing import TextIO

from ci.protocol import StepChanged, Stream
from ci.spec import JobSpec
from ci.status import Status
from runners.ending import duration
from runners.spool import SpoolReader

_PIECE_BYTES = 1 << 16
_COLOURS = (36, 33, 35, 32, 34, 96, 93, 95, 92, 94)
_WORDS = {
    Status.SUCCESS: ("✓", 32),
    Status.FAILURE: ("✗", 31),
    Status.ERROR: ("!", 31),
    Status.CANCELLED: ("■", 33),
    Status.SKIPPED: ("–", 90),
}


class Screen:
    """Follows the spool of one job. `look` is called when something may be new."""

    def __init__(self, job: JobSpec, reader: SpoolReader, out: TextIO | None = None) -> None:
        self._job = job
        self._reader = reader
        self._out = out or sys.stdout
        self._colours = self._out.isatty()
        self._width = max((len(step.name) for step in job.steps), default=0)
        self._seen: dict[int, int] = {}
        self._rest: dict[int, bytes] = {}
        self._last_change = -1
        self._began: dict[int, float] = {}

    def look(self) -> None:
        for step in self._reader.steps():
            self._print_new(step)
        for seq, change in self._reader.changes(self._last_change):
            self._last_change = seq
            if isinstance(change, StepChanged):
                self._tell(change)
        self._out.flush()

    def _print_new(self, step: int) -> None:
        while data := self._reader.read(step, Stream.BYTES, self._seen.get(step, 0), _PIECE_BYTES):
            self._seen[step] = self._seen.get(step, 0) + len(data)
            *lines, rest = (self._rest.pop(step, b"") + data).split(b"\n")
            for line in lines:
                self._line(step, line)
            self._rest[step] = rest

    def _line(self, step: int, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip("\r")
        self._out.write(f"{self._head(step)} {text.rpartition(chr(13))[2]}\n")

    def _tell(self, change: StepChanged) -> None:
        if change.status is Status.RUNNING:
            self._began[change.step] = change.after_seconds
        if not change.status.is_terminal:
            return
        self._print_new(change.step)
        if rest := self._rest.pop(change.step, b""):
            self._line(change.step, rest)
        mark, colour = _WORDS[change.status]
        words = f"{mark} {change.status.word}"
        if change.step in self._began:
            words += f" in {seconds(change.after_seconds - self._began[change.step])}"
        if change.reason:
            words += f": {change.reason}"
        self._out.write(f"{self._head(change.step)} {self._painted(words, colour)}\n")

    def _head(self, number: int) -> str:
        name = next((step.name for step in self._job.steps if step.number == number), "")
        return self._painted(f"{name:<{self._width}} │", _COLOURS[number % len(_COLOURS)])

    def _painted(self, text: str, colour: int) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colours else text


def seconds(amount: float) -> str:
    return f"{amount:.1f} s" if amount < 90 else duration(round(amount))
