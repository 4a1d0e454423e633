"""The shape of a command: it asks the API, and says what it found both as JSON and as a person reads it.

`@speaks` gives a function `--server` and `--json`, connects, and prints its Answer. So a command is what it
asks and how that looks, and none is without `--json`. What streams (logs) is written out in full instead.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from ci.client import output
from ci.client.http import Refused
from ci.client.options import JsonOption, ServerOption, connect
from ci.client.terminal import plain


@dataclass(frozen=True, kw_only=True)
class Answer:
    """`found`: what the API answered, None where it says nothing; `show` prints it for a person; `note` goes
    to standard error beside that."""

    found: Any
    show: Callable[[], None]
    note: str = ""


def said(found: Any, sentence: str, *, note: str = "") -> Answer:
    """What was done, in one sentence."""
    return Answer(found=found, show=lambda: print(plain(sentence)), note=note)


def table(
    found: Any,
    columns: Sequence[str],
    rows: Iterable[Sequence[str | Text]],
    *,
    empty: str,
    is_last_below: bool = False,
) -> Answer:
    def show() -> None:
        output.show_table(columns, rows, empty=empty, is_last_below=is_last_below)

    return Answer(found=found, show=show)


def facts(found: Any, rows: Iterable[tuple[str, str | Text]]) -> Answer:
    return Answer(found=found, show=lambda: output.show_facts(rows))


def pick(rows: Sequence[dict[str, Any]], text: str, noun: str) -> dict[str, Any]:
    """The row of that name; by its id only where none has that for a name. Raises Refused."""
    for key in ("name", "id"):
        for row in rows:
            if str(row[key]) == text:
                return row
    known = plain(", ".join(str(row["name"]) for row in rows)) or "none"
    raise Refused(f"there is no {noun} {text!r}; there are: {known}", code="not_found", status=404)


def speaks(function: Callable[..., Answer]) -> Callable[..., None]:
    """The command of a function whose first parameter is an Api and whose others are the command line's."""
    signature = inspect.signature(function, eval_str=True)
    _, *own = signature.parameters.values()

    @functools.wraps(function)
    def command(*, server: str, as_json: bool, **values: Any) -> None:
        with connect(server) as api:
            answer = function(api, **values)
            if as_json:
                output.show_json(answer.found)
                return
            answer.show()
        if answer.note:
            output.note(plain(answer.note))

    shown = [*own, *map(_option, ("server", "as_json"), (ServerOption, JsonOption), ("", False))]
    # What typer reads; it follows __wrapped__ to the parameters of the function otherwise.
    del command.__wrapped__
    command.__signature__ = signature.replace(parameters=shown, return_annotation=None)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in shown}
    return command


def _option(name: str, annotation: Any, default: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
