"""Log bytes made safe for somebody's terminal: escape sequences and control characters are taken out.

A log may hold anything (titles, clipboard writes, cursor moves); what we print into a push or a shell holds
printable text, tabs and line ends only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

MAX_LINE_BYTES = 4096

_ESCAPES = re.compile(
    rb"\x1b[\]P_^X].*?(?:\x07|\x1b\\|$)"  # OSC, DCS, APC, PM, SOS with their text
    rb"|\x1b\[[0-?]*[ -/]*[@-~]"  # CSI
    rb"|\x1b[ -/]*[0-~]?",  # the rest
    re.DOTALL,
)
_CONTROLS = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]")


def line(raw: bytes) -> bytes:
    """One line without its LF, as a terminal should see it: the text after the last lone CR, cut at 4 KiB."""
    shown = _ESCAPES.sub(b"", raw.rstrip(b"\r")).rsplit(b"\r", 1)[-1]
    text = _CONTROLS.sub(b"", shown).decode(errors="replace").encode()
    if len(text) <= MAX_LINE_BYTES:
        return text
    return text[:MAX_LINE_BYTES].decode(errors="ignore").encode() + b" ..."


class Lines:
    """Chunks in, safe lines out (each with its LF). A line without end is given out in pieces of 64 KiB."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        for raw in whole:
            yield line(raw) + b"\n"
        if len(self._rest) > 64 * 1024:
            yield from self.finish()

    def finish(self) -> Iterator[bytes]:
        rest, self._rest = self._rest, b""
        if rest:
            yield line(rest) + b"\n"
