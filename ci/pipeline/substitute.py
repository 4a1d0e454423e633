"""Substitution of `${NAME}`, in one scalar at a time after parsing: a value never changes the structure.

In `commands` only what we control and the file's own matrix is pasted: a branch may be named `$(reboot)`
too. Every other reference is left as it stands, for the shell and its environment (law 6); where no shell
has the operator, the result becomes a variable of the step, and the reference names it.
`$$` is one `$` that means nothing to us.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from ci import aliases, environ, glob
from ci.pipeline import operators
from ci.pipeline.operators import Operator

#: How much text all references of a build may bring in.
MAX_PASTED = 4 * 1024 * 1024
MAX_REFERENCE = 1_000
_MAX_DEPTH = 8
#: Variables of a step that hold what no shell could work out from an outsider's value.
COMPUTED = "CI_SUBSTITUTED_"

#: What means something to YAML within a line, but for quotes and what a backslash stands before; each has
#: a place where no character is.
_SPECIAL = re.compile(r"(?<!\\)[{}\[\],:#&*!|>%@`]")
_SHELTERED = {char: 0xF5D0 + number for number, char in enumerate("{}[],:#&*!|>%@`")}
_UNSHELTERED = {code: char for char, code in _SHELTERED.items()}
_ESCAPED = re.compile(r"\\([\\/])")
_QUOTED = re.compile(r"""\\.|"(?:\\.|[^"\\])*"|'[^']*'""", re.DOTALL)


class TooMuchText(ValueError):
    """The references of a build bring in more than MAX_PASTED."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """`name` is empty for what is none of ours: `${list[0]}`, or a brace without its end."""

    text: str
    name: str = ""
    operator: Operator | None = None
    argument: str = ""


def _tokens(text: str) -> Iterator[str | Reference]:
    """The text in parts: plain ones, `$$`, and references, in order. Braces within braces belong together."""
    start = position = 0
    while (position := text.find("$", position)) >= 0:
        if text.startswith("$$", position):
            end = position + 2
            token: str | Reference = "$$"
        elif text.startswith("${", position):
            end = _end(text, position)
            token = _reference(text[position:end])
        else:
            position += 1
            continue
        if start < position:
            yield text[start:position]
        yield token
        start = position = end
    if start < len(text):
        yield text[start:]


def _end(text: str, start: int) -> int:
    """Where the reference that begins at `start` ends; after its brace where it has no end."""
    depth = 0
    for index in range(start, min(len(text), start + MAX_REFERENCE)):
        if text.startswith("${", index):
            depth += 1
        elif text[index] == "}":
            depth -= 1
            if depth == 0:
                return index + 1
        elif text[index] == "\n":
            break
    return start + 2


def _reference(text: str) -> Reference:
    found = operators.parsed(text[2:-1]) if text.endswith("}") and text.count("${") <= _MAX_DEPTH else None
    if found is None:
        return Reference(text=text)
    name, operator, argument = found
    return Reference(text=text, name=name, operator=operator, argument=argument)


def references(text: str) -> Iterator[Reference]:
    """Every reference in the text, those within others too."""
    for token in _tokens(text):
        if isinstance(token, Reference):
            yield token
            if token.argument:
                yield from references(token.argument)


def rewritten(text: str, write: Callable[[Reference], str]) -> str:
    """The text with each outermost reference as `write` has it."""
    return "".join(write(token) if isinstance(token, Reference) else token for token in _tokens(text))


def halved(text: str) -> str:
    r"""`\\` as `\`, and `\/` as `/`, outside of references."""
    if "\\" not in text:
        return text
    return "".join(
        token.text if isinstance(token, Reference) else _ESCAPED.sub(r"\1", token) for token in _tokens(text)
    )


def sheltered(text: str) -> str:
    """The text with every reference such that YAML sees no character of its own in it. Of the same length."""
    if "${" not in text or any(chr(code) in text for code in _SHELTERED.values()):
        return text
    return rewritten(text, lambda found: _SPECIAL.sub(_shelter, found.text))


def unsheltered(text: str) -> str:
    return text.translate(_UNSHELTERED)


def _shelter(match: re.Match[str]) -> str:
    return chr(_SHELTERED[match[0]])


def lone_escape(text: str) -> bool:
    """Whether `$$` stands where the shell's process id may be meant."""
    return re.search(r"(?<!\$)\$\$(?![\w{($])", text) is not None


def single_quoted(text: str) -> list[str]:
    """The variables of ours that stay as they are in `text`, for they stand in single quotes of a shell."""
    quoted = [token for token in _QUOTED.findall(text) if token.startswith("'")]
    names = [reference.name for token in quoted for reference in references(token)]
    return [name for name in names if _is_outsiders(name)]


def _is_outsiders(name: str) -> bool:
    variable = aliases.variable_of(name)
    return variable is not None and variable.controller is not environ.Controller.US


@dataclass(kw_only=True)
class Substitution:
    """Fills in the references of one cell. `values` may be pasted anywhere; `outside` not in commands."""

    values: Mapping[str, str]
    outside: Mapping[str, str]
    room: list[int] = field(default_factory=lambda: [MAX_PASTED])  #: shared by the cells of a build

    def text(self, source: str) -> str:
        """Every reference filled in; what has no value is empty. Raises operators.Missing."""
        return self._filled(source, self._anything)

    def pattern(self, source: str) -> str:
        """Like `text`, for a glob: in a value, a star is a star."""
        return self._filled(source, lambda found: glob.escaped(self._anything(found)))

    def quoted(self, source: str) -> str:
        """Like `text`, for an expression: a value can end no text in quotes."""
        return self._filled(source, lambda found: re.sub(r"""([\\"'`])""", r"\\\1", self._anything(found)))

    def command(self, source: str, computed: dict[str, str] | None = None) -> str:
        """The references filled in that are safe in a script; the others are left to the shell. `computed`
        collects the variables that the step needs for it."""
        made = {} if computed is None else computed
        return self._filled(source, lambda found: self._in_command(found, made))

    def _in_command(self, found: Reference, computed: dict[str, str]) -> str:
        operator = found.operator
        if found.name in self.values and (operator is None or operator.sign not in (":?", "?")):
            names = {reference.name for reference in references(found.argument)}
            if names <= self.values.keys():
                return self._anything(found)
        if found.name not in self.outside or operator is None or operator.is_posix:
            return found.text
        value = self._anything(found)
        for name, known in computed.items():
            if known == value:
                return f"${{{name}}}"
        name = f"{COMPUTED}{len(computed) + 1}"
        computed[name] = value
        return f"${{{name}}}"

    def _anything(self, found: Reference) -> str:
        if not found.name:
            return found.text
        value = self.values.get(found.name, self.outside.get(found.name, ""))
        if found.operator is None:
            return value
        return found.operator.apply(value, self.text(found.argument))

    def _filled(self, source: str, value: Callable[[Reference], str]) -> str:
        if "$" not in source:
            return source
        parts = []
        for token in _tokens(source):
            if isinstance(token, Reference):
                parts.append(self._counted(value(token)))
            else:
                parts.append("$" if token == "$$" else token)
        return "".join(parts)

    def _counted(self, value: str) -> str:
        self.room[0] -= len(value)
        if self.room[0] < 0:
            raise TooMuchText(f"the references bring in more than {MAX_PASTED // 1024:,} KiB of text")
        return value


def for_cell(facts: environ.Facts, cell: Mapping[str, str], room: list[int]) -> Substitution:
    """What may be pasted for one job: its matrix values, and the variables of the whole job."""
    made = environ.made(facts, environ.Scope.JOB)
    known = {**made, **aliases.made(made)}
    trusted: dict[str, str] = {}
    outside = environ.given(facts.event)
    for name in aliases.NAMES:
        variable = aliases.variable_of(name)
        assert variable is not None, "it is a name of ours"
        if variable.scope is environ.Scope.JOB and variable.is_ready:
            target = trusted if variable.controller is environ.Controller.US else outside
            target[name] = known.get(name, "")
    return Substitution(values={**trusted, **cell}, outside=outside, room=room)
