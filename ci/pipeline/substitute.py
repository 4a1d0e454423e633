"""Substitution of `${NAME}`, in one scalar at a time after parsing: a value never changes the structure.

In `commands` only what we control and the file's own matrix is pasted: a branch may be named `$(reboot)`
too. Every other reference is left as it stands, for the shell and its environment (law 6).
`$$` is one `$` that means nothing to us.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from ci import environ
from ci.pipeline import glob

#: How much text all references of a build may bring in.
MAX_PASTED = 4 * 1024 * 1024

_REFERENCE = re.compile(r"\$\$|\$\{([^{}$\n]{0,200})\}|\$\{")
_QUOTED = re.compile(r"""\\.|"(?:\\.|[^"\\])*"|'[^']*'""", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class TooMuchText(ValueError):
    """The references of a build bring in more than MAX_PASTED."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """`name` is empty for what is more than a plain name: an operator, or a brace without its end."""

    text: str
    name: str = ""


def references(text: str) -> Iterator[Reference]:
    for found in _REFERENCE.finditer(text):
        if found[0] == "$$":
            continue
        inside = found[1] or ""
        yield Reference(text=found[0], name=inside if _NAME.match(inside) else "")


def lone_escape(text: str) -> bool:
    """Whether `$$` stands where the shell's process id may be meant."""
    return re.search(r"(?<!\$)\$\$(?![\w{($])", text) is not None


def single_quoted(text: str) -> list[str]:
    """The variables of ours that stay as they are in `text`, for they stand in single quotes of a shell."""
    quoted = [token for token in _QUOTED.findall(text) if token.startswith("'")]
    names = [reference.name for token in quoted for reference in references(token)]
    return [
        name
        for name in names
        if name in environ.TABLE and environ.TABLE[name].controller is not environ.Controller.US
    ]


@dataclass(kw_only=True)
class Substitution:
    """Fills in the references of one cell. `values` may be pasted anywhere; `outside` not in commands."""

    values: Mapping[str, str]
    outside: Mapping[str, str]
    room: list[int] = field(default_factory=lambda: [MAX_PASTED])  #: shared by the cells of a build

    def text(self, source: str) -> str:
        """Every reference filled in; what has no value is empty."""
        return self._filled(source, self._anything)

    def pattern(self, source: str) -> str:
        """Like `text`, for a glob: in a value, a star is a star."""
        return self._filled(source, lambda found: glob.escaped(self._anything(found)))

    def quoted(self, source: str) -> str:
        """Like `text`, for an expression: a value can end no text in quotes."""
        return self._filled(source, lambda found: re.sub(r"""([\\"'`])""", r"\\\1", self._anything(found)))

    def command(self, source: str) -> str:
        """The references filled in that are safe in a script; the others are left to the shell."""
        return self._filled(source, lambda found: self.values.get(found[1] or "", found[0]))

    def _anything(self, found: re.Match[str]) -> str:
        name = found[1] or ""
        if not _NAME.match(name):
            return found[0]
        return self.values.get(name, self.outside.get(name, ""))

    def _filled(self, source: str, value: Callable[[re.Match[str]], str]) -> str:
        def pasted(found: re.Match[str]) -> str:
            return "$" if found[0] == "$$" else self._counted(value(found))

        return _REFERENCE.sub(pasted, source) if "$" in source else source

    def _counted(self, value: str) -> str:
        self.room[0] -= len(value)
        if self.room[0] < 0:
            raise TooMuchText(f"the references bring in more than {MAX_PASTED // 1024:,} KiB of text")
        return value


def for_cell(facts: environ.Facts, cell: Mapping[str, str], room: list[int]) -> Substitution:
    """What may be pasted for one job: its matrix values, and the variables of the whole job."""
    made = environ.made(facts, environ.Scope.JOB)
    trusted: dict[str, str] = {}
    outside = environ.given(facts.event)
    for name, variable in environ.TABLE.items():
        if variable.scope is not environ.Scope.JOB or not variable.is_ready:
            continue
        target = trusted if variable.controller is environ.Controller.US else outside
        target[name] = made.get(name, "")
    return Substitution(values={**trusted, **cell}, outside=outside, room=room)
