"""How answers look: tables that fit 80 columns and read well in a pipe, or exactly the API's JSON."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from rich.console import Console
from rich.text import Text

from ci.client.terminal import plain
from ci.status import Status

_STYLES = {
    "success": "green",
    "failure": "red",
    "error": "red",
    "running": "blue",
    "pending": "yellow",
    "waiting": "yellow",
    "blocked": "magenta",
    "unknown": "magenta",
}
_UNPRINTED = re.compile("[\x7f-\x9f]")
_PIPE_WIDTH = 1 << 14
_MIN_LAST = 10
_GAP = "  "


def console(*, is_error: bool = False) -> Console:
    """Cuts nothing where nobody looks: who reads a pipe wants the whole cell."""
    stream = sys.stderr if is_error else sys.stdout
    width = None if stream.isatty() else _PIPE_WIDTH
    return Console(stderr=is_error, width=width, highlight=False, markup=False, emoji=False, soft_wrap=False)


def show_json(found: Any) -> None:
    """Nothing where the API says nothing."""
    if found is None:
        return
    text = json.dumps(found, indent=2, ensure_ascii=False)
    print(_UNPRINTED.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def show_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str | Text]],
    *,
    empty: str,
    is_last_below: bool = False,
) -> None:
    """On a terminal the last column gets what room is left, and long cells are cut; in a pipe nothing is.

    `empty` is said where there is no row. `is_last_below`: on a terminal the last column is a sentence that
    goes under its row, whole.
    """
    found = [[_cell(cell) for cell in row] for row in rows]
    if not found:
        print(empty)
        return
    out = console()
    head = [Text(title, style="bold" if out.is_terminal else "") for title in columns]
    lines = [head, *found]
    if out.is_terminal:
        for row in lines:
            for cell in row[1:-1]:
                cell.truncate(max(out.width // 6, _MIN_LAST), overflow="ellipsis")
    widths = [max(row[at].cell_len for row in lines) for at in range(len(columns))]
    for row in lines:
        if is_last_below and out.is_terminal:
            _print_row(out, [*row[:-1], Text()], widths)
            _print_below(out, row[-1] if row is not head else Text())
        else:
            _print_row(out, row, widths)


def show_facts(rows: Iterable[tuple[str, str | Text]]) -> None:
    """Names and values under each other; what is empty is left out. A long value goes on under itself."""
    found = [(Text(name, style="dim"), _cell(value)) for name, value in rows if str(value)]
    width = max((name.cell_len for name, _ in found), default=0)
    out = console()
    for name, value in found:
        room = max(out.width - width - len(_GAP), _MIN_LAST)
        for at, line in enumerate(value.wrap(out, room)):
            line.rstrip()
            _print_row(out, [name if at == 0 else Text(), line], [width, 0])


def _print_below(out: Console, sentence: Text) -> None:
    for line in sentence.wrap(out, max(out.width - len(_GAP), _MIN_LAST)) if sentence else ():
        line.rstrip()
        out.print(Text(_GAP).append_text(line), overflow="ignore", no_wrap=True, crop=False)


def _cell(value: str | Text) -> Text:
    return value.copy() if isinstance(value, Text) else Text(plain(value))


def _print_row(out: Console, row: Sequence[Text], widths: Sequence[int]) -> None:
    line = Text()
    for cell, width in zip(row[:-1], widths, strict=False):
        line.append_text(cell).append(" " * (width - cell.cell_len) + _GAP)
    last = row[-1].copy()
    if out.is_terminal:
        last.truncate(max(out.width - line.cell_len, _MIN_LAST), overflow="ellipsis")
    line.append_text(last)
    line.rstrip()
    out.print(line, overflow="ignore", no_wrap=True, crop=False)


def status(word: str) -> Text:
    """A status as a person reads it, in its colour."""
    try:
        return Text(Status(word).word, style=_STYLES.get(word, "dim"))
    except ValueError:
        return Text(plain(word))


def note(text: str) -> None:
    """Something beside the answer: it goes to standard error, so that a pipe gets only the answer."""
    print(text, file=sys.stderr, flush=True)


def ago(then: float | None) -> str:
    """How long ago, or how far ahead, in one unit."""
    if then is None:
        return ""
    seconds = time.time() - then
    if seconds < 0:
        return f"in {duration(-seconds)}"
    return f"{age(then)} ago"


def age(then: float | None) -> str:
    """The same in one unit, for a column: `3h`."""
    return duration(max(time.time() - then, 0.0)).partition(" ")[0] if then is not None else ""


def duration(seconds: float | None) -> str:
    """In its two largest units: `3h 12m`."""
    if seconds is None:
        return ""
    whole = round(seconds)
    for (unit, size), (below, below_size) in pairwise((("d", 86400), ("h", 3600), ("m", 60), ("s", 1))):
        if whole >= size:
            rest = whole % size // below_size
            return f"{whole // size}{unit}" + (f" {rest}{below}" if rest else "")
    return f"{whole}s"


def lasted(began: float | None, ended: float | None) -> str:
    if began is None:
        return ""
    return duration((time.time() if ended is None else ended) - began)


def labels(found: dict[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in sorted(found.items()))
