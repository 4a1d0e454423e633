"""One line of a log, as a terminal would show it, in runs of text with class names. Never raises.

Understood: SGR (16, 256 and true colours, which are brought to the 256), bold, dim, italic, underline,
inverse, strike; a carriage return (what was written last wins); links (OSC 8) to http and https. All other
escape sequences and control characters are dropped. static/ansi.js is the same in JavaScript, and a test
holds the two together.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

MAX_LINE_CHARACTERS = 4096
_ESCAPE = re.compile(
    r"\x1b\[(?P<sgr>[0-9;:]*)m"
    r"|\x1b\]8;[^;\x07\x1b]*;(?P<link>[^\x07\x1b]*)(?:\x07|\x1b\\|$)"
    r"|\x1b[\]P_^X].*?(?:\x07|\x1b\\|$)"
    r"|\x1b\[[0-?]*[ -/]*[@-~]"
    r"|\x1b[ -/]*[0-~]?",
    re.DOTALL,
)
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
_FLAGS = {1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "inverse", 9: "strike"}
_OFF = {22: ("bold", "dim"), 23: ("italic",), 24: ("underline",), 27: ("inverse",), 29: ("strike",)}
_CUBE = (0, 95, 135, 175, 215, 255)


@dataclass(frozen=True, slots=True)
class Run:
    text: str
    classes: str = ""
    link: str = ""


@dataclass(frozen=True, slots=True)
class Style:
    """What holds from one character on, and over line ends."""

    foreground: int | None = None
    background: int | None = None
    flags: frozenset[str] = frozenset()
    link: str = ""

    @property
    def classes(self) -> str:
        front, back = self.foreground, self.background
        if "inverse" in self.flags:
            front, back = back, front
        names = [f"a-{flag}" for flag in _FLAGS.values() if flag in self.flags and flag != "inverse"]
        if front is not None:
            names.append(f"fg{front}")
        if back is not None:
            names.append(f"bg{back}")
        if "inverse" in self.flags and front is None and back is None:
            names.append("a-inverse")
        return " ".join(names)


PLAIN = Style()


def runs(line: bytes | str, style: Style = PLAIN) -> tuple[list[Run], Style]:
    """The runs of one line (without its LF), and the style with which the next line begins."""
    text = line.decode(errors="replace") if isinstance(line, bytes) else line
    found: list[Run] = []
    *gone, shown = text.rstrip("\r").split("\r")
    for part in gone:
        for match in _ESCAPE.finditer(part):
            style = _after(match, style)
    at = 0
    for match in _ESCAPE.finditer(shown):
        _add(found, shown[at : match.start()], style)
        style = _after(match, style)
        at = match.end()
    _add(found, shown[at:], style)
    return found, style


def plain(line: bytes | str) -> str:
    """The text alone."""
    return "".join(run.text for run in runs(line)[0])


def _add(found: list[Run], text: str, style: Style) -> None:
    text = _CONTROLS.sub("", text)
    if not text:
        return
    run = Run(text, style.classes, style.link)
    if found and (found[-1].classes, found[-1].link) == (run.classes, run.link):
        run = replace(run, text=found.pop().text + text)
    found.append(run)


def _after(match: re.Match[str], style: Style) -> Style:
    if match["sgr"] is not None:
        return _sgr(match["sgr"], style)
    if match["link"] is not None:
        url = match["link"]
        return replace(style, link=url if url.startswith(("http://", "https://")) else "")
    return style


def _sgr(text: str, style: Style) -> Style:
    codes = [int(part or 0) if len(part) < 9 else 0 for part in text.replace(":", ";").split(";")]
    at = 0
    while at < len(codes):
        code = codes[at]
        at += 1
        if code in (38, 48):
            colour, used = _extended(codes[at:])
            at += used
            if colour is not None:
                style = _coloured(style, colour, is_front=code == 38)
        else:
            style = _simple(code, style)
    return style


def _simple(code: int, style: Style) -> Style:
    if code == 0:
        return Style(link=style.link)
    if code in _FLAGS:
        return replace(style, flags=style.flags | {_FLAGS[code]})
    if code in _OFF:
        return replace(style, flags=style.flags.difference(_OFF[code]))
    if code in (39, 49):
        return _coloured(style, None, is_front=code == 39)
    for first, base, is_front in ((30, 0, True), (90, 8, True), (40, 0, False), (100, 8, False)):
        if first <= code < first + 8:
            return _coloured(style, code - first + base, is_front=is_front)
    return style


def _coloured(style: Style, colour: int | None, *, is_front: bool) -> Style:
    return replace(style, foreground=colour) if is_front else replace(style, background=colour)


def _extended(codes: list[int]) -> tuple[int | None, int]:
    """(colour of the 256, codes used) of what follows 38 or 48."""
    if len(codes) >= 2 and codes[0] == 5:
        return (codes[1] if codes[1] < 256 else None), 2
    if len(codes) >= 4 and codes[0] == 2:
        return nearest(*codes[1:4]), 4
    return None, len(codes)


def nearest(red: int, green: int, blue: int) -> int:
    """The nearest of the 6x6x6 cube, or of the greys."""
    red, green, blue = (min(value, 255) for value in (red, green, blue))
    if max(red, green, blue) - min(red, green, blue) < 10:
        grey = (red + green + blue) // 3
        if grey < 4:
            return 16
        return 231 if grey > 246 else 232 + min(23, max(0, (grey - 3) // 10))
    places = [_cube_place(value) for value in (red, green, blue)]
    return 16 + 36 * places[0] + 6 * places[1] + places[2]


def _cube_place(value: int) -> int:
    return min(range(6), key=lambda place: abs(_CUBE[place] - value))


def rgb(colour: int) -> tuple[int, int, int]:
    """Of 16 to 255; the first 16 are the theme's."""
    if colour >= 232:
        grey = 8 + 10 * (colour - 232)
        return grey, grey, grey
    place = colour - 16
    return _CUBE[place // 36], _CUBE[place // 6 % 6], _CUBE[place % 6]
