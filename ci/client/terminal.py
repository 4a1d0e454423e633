"""Bytes of others made safe for a person's terminal, a piece at a time.

A log may hold anything. What could do something to a terminal or to its owner is taken out: titles,
clipboard and file writes (OSC), device control (DCS, APC, PM, SOS), cursor moves and clears that hide what
was said, answers that a terminal types by itself, bells, other controls. Colours stay where they are wanted.
"""

from __future__ import annotations

import codecs
import re

_MAX_PENDING = 4096
#: Everything but C0 (without tab and line feed), DEL and C1.
_TEXT = re.compile(r"[^\x00-\x08\x0b-\x1f\x7f-\x9f]+")
_STRING = re.compile(r"\x1b[\]PX^_]|[\x90\x98\x9d-\x9f]")
_STRING_END = re.compile(r"\x07|\x9c|\x1b\\|(?=\n)")
_CSI = re.compile(r"(?:\x1b\[|\x9b)([0-?]*)([ -/]*)([@-~])")
_CSI_PART = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*")
_ESCAPE = re.compile(r"\x1b[ -/]*[0-~]")
_ESCAPE_PART = re.compile(r"\x1b[ -/]*")
_COLOUR = re.compile(r"[0-9;:]{0,64}")


class Safe:
    """A stream of bytes in, text for a terminal out. `colours`: keep SGR, and a lone carriage return."""

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rest = ""
        self._is_in_string = False

    def feed(self, data: bytes, *, is_end: bool = False) -> str:
        """What may be shown of it; an escape sequence that is not complete waits for its rest."""
        text = self._rest + self._decoder.decode(data, is_end)
        out: list[str] = []
        at = 0
        while at < len(text):
            taken, shown = self._next(text, at, is_end)
            if not taken:
                break
            out.append(shown)
            at += taken
        self._rest = text[at:] if len(text) - at <= _MAX_PENDING else ""
        return "".join(out)

    def _next(self, text: str, at: int, is_end: bool) -> tuple[int, str]:
        """How many characters from `at` on are decided, and what is shown of them; 0: more must come."""
        if self._is_in_string:
            taken = self._in_string(text, at)
            if taken or self._is_in_string:
                return taken, ""
        if found := _TEXT.match(text, at):
            return len(found[0]), found[0]
        if found := _STRING.match(text, at):
            self._is_in_string = True
            return len(found[0]), ""
        if found := _CSI.match(text, at):
            is_colour = self._colours and found[3] == "m" and not found[2] and _COLOUR.fullmatch(found[1])
            return len(found[0]), f"\x1b[{found[1]}m" if is_colour else ""
        if not is_end and self._may_go_on(text, at):
            return 0, ""
        if found := _ESCAPE.match(text, at):
            return len(found[0]), ""
        if text[at] == "\r" and text[at + 1 : at + 2] != "\n":
            return 1, "\r" if self._colours else "\n"
        return 1, ""

    def _in_string(self, text: str, at: int) -> int:
        """Inside what a title or the clipboard would get: all goes, up to its end or that of the line."""
        found = _STRING_END.search(text, at)
        if found is not None:
            self._is_in_string = False
            return found.end() - at
        keep = 1 if text.endswith("\x1b") else 0  # perhaps the half of its end
        return len(text) - at - keep

    def _may_go_on(self, text: str, at: int) -> bool:
        for part in (_CSI_PART, _ESCAPE_PART):
            found = part.match(text, at)
            if found is not None and found.end() == len(text):
                return True
        return text[at] == "\r" and at + 1 == len(text)


def plain(text: str) -> str:
    """One line of somebody else's text, for a table or a sentence: no escape, no control, no line end."""
    shown = Safe(colours=False).feed(text.encode(errors="replace"), is_end=True)
    return shown.replace("\n", " ").replace("\t", " ")
