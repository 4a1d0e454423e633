"""Operators of `${NAME...}`: what each does to a value. One table; docs and tests come from it.

Source: the studies of the peers, 1.4 and 1.7.

They take `:?`, `?`, `:+` and `+` for a default, which is a bug of theirs: here they do what a shell does.
A variable without a value and an empty one are the same, so that each operator means the same with and
without its colon.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

_MAX_PATTERN = 200
_PIECE = re.compile(r"\\.|\[[!^]?\]?[^\]]*\]|.", re.DOTALL)


class Missing(ValueError):
    """`${NAME:?message}` of a variable without a value; the text is the author's message."""


@dataclass(frozen=True, kw_only=True)
class Operator:
    """`is_posix`: every shell has it. `apply` gets the value and what stands after the sign."""

    sign: str
    meaning: str
    example: str
    apply: Callable[[str, str], str]
    is_posix: bool = False


def _length(value: str, _: str) -> str:
    return str(len(value))


def _part(value: str, argument: str) -> str:
    """`pos` or `pos:length`, in characters; negative ones count from the end."""
    start, _, length = argument.partition(":")
    begin = int(start)
    begin = max(0, len(value) + begin) if begin < 0 else begin
    if not length.strip():
        return value[begin:]
    count = int(length)
    return value[begin : begin + count] if count >= 0 else value[begin:count]


def _first(change: Callable[[str], str]) -> Callable[[str, str], str]:
    return lambda value, _: change(value[:1]) + value[1:]


def _prefix(*, is_longest: bool) -> Callable[[str, str], str]:
    def apply(value: str, pattern: str) -> str:
        found = _regex(_atoms(pattern), is_longest=is_longest).match(value)
        return value[found.end() :] if found else value

    return apply


def _suffix(*, is_longest: bool) -> Callable[[str, str], str]:
    """The begin of both read from behind."""

    def apply(value: str, pattern: str) -> str:
        found = _regex(_atoms(pattern)[::-1], is_longest=is_longest).match(value[::-1])
        return value[: len(value) - found.end()] if found else value

    return apply


_STAR = ""


def _atoms(pattern: str) -> list[str]:
    """Regular expressions of one character each, and stars. As in a shell, `*` and `?` mean a slash too."""
    found = []
    for piece in _PIECE.findall(pattern[:_MAX_PATTERN]):
        if piece == "*":
            found.append(_STAR)
        elif piece == "?":
            found.append(".")
        elif len(piece) > 2 and piece[0] == "[":
            found.append(_set(piece[1:-1]))
        else:
            found.append(re.escape(piece[1:] if len(piece) > 1 and piece[0] == "\\" else piece))
    return found


def _set(inside: str) -> str:
    """What stands between brackets; a range that ends before it begins holds nothing."""
    sign = "^" if inside[0] in "!^" else ""
    found = ""
    for first, last, single in re.findall(r"(.)-(.)|(.)", inside[len(sign) :], re.DOTALL):
        if single:
            found += re.escape(single)
        elif first <= last:
            found += f"{re.escape(first)}-{re.escape(last)}"
    if not found:
        return "." if sign else "(?!)"
    return f"[{sign}{found}]"


def _regex(atoms: Sequence[str], *, is_longest: bool) -> re.Pattern[str]:
    """Each star but the last takes as little as it can and keeps to it, which is right for all that follows
    and takes time in proportion; the last one decides how long the match is."""
    pieces: list[str] = [""]
    for atom in atoms:
        if atom == _STAR:
            pieces.append("")
        else:
            pieces[-1] += atom
    first, *middle = pieces
    if not middle:
        return re.compile(first, re.DOTALL)
    *middle, last = middle
    inner = "".join(f"(?>.*?{piece})" for piece in middle if piece)
    return re.compile(f"{first}{inner}{'.*' if is_longest else '.*?'}{last}", re.DOTALL)


def _split(argument: str) -> tuple[str, str]:
    """`old/new`; a slash after a backslash is one of the text."""
    found = re.match(r"((?:\\.|[^/\\])*)(?:/(.*))?\Z", argument, re.DOTALL)
    old, new = (found[1], found[2] or "") if found else (argument, "")
    return old.replace("\\/", "/"), new.replace("\\/", "/")


def _replace(*, is_all: bool) -> Callable[[str, str], str]:
    def apply(value: str, argument: str) -> str:
        old, new = _split(argument)
        return value.replace(old, new, -1 if is_all else 1) if old else value

    return apply


def _replace_prefix(value: str, argument: str) -> str:
    old, new = _split(argument)
    return new + value[len(old) :] if old and value.startswith(old) else value


def _replace_suffix(value: str, argument: str) -> str:
    old, new = _split(argument)
    return value[: len(value) - len(old)] + new if old and value.endswith(old) else value


def _default(value: str, argument: str) -> str:
    return value or argument


def _instead(value: str, argument: str) -> str:
    return argument if value else ""


def _needed(value: str, argument: str) -> str:
    if not value:
        raise Missing(argument or "it has no value")
    return value


def _operators() -> tuple[Operator, ...]:
    def of(
        sign: str, example: str, meaning: str, apply: Callable[[str, str], str], posix: bool = False
    ) -> Operator:
        return Operator(sign=sign, meaning=meaning, example=example, apply=apply, is_posix=posix)

    return (
        of("^^", "${NAME^^}", "in capital letters", lambda value, _: value.upper()),
        of("^", "${NAME^}", "the first letter a capital", _first(str.upper)),
        of(",,", "${NAME,,}", "in small letters", lambda value, _: value.lower()),
        of(",", "${NAME,}", "the first letter a small one", _first(str.lower)),
        of(":-", "${NAME:-text}", "`text` where there is no value", _default, True),
        of(":=", "${NAME:=text}", "`text` where there is no value", _default, True),
        of(":?", "${NAME:?text}", "an error that says `text` where there is no value", _needed, True),
        of(":+", "${NAME:+text}", "`text` where there is a value", _instead, True),
        of("-", "${NAME-text}", "`text` where there is no value", _default, True),
        of("=", "${NAME=text}", "`text` where there is no value", _default, True),
        of("?", "${NAME?text}", "an error that says `text` where there is no value", _needed, True),
        of("+", "${NAME+text}", "`text` where there is a value", _instead, True),
        of(
            "##", "${NAME##pattern}", "without the longest begin that matches", _prefix(is_longest=True), True
        ),
        of(
            "#", "${NAME#pattern}", "without the shortest begin that matches", _prefix(is_longest=False), True
        ),
        of("%%", "${NAME%%pattern}", "without the longest end that matches", _suffix(is_longest=True), True),
        of("%", "${NAME%pattern}", "without the shortest end that matches", _suffix(is_longest=False), True),
        of("//", "${NAME//old/new}", "each `old` replaced", _replace(is_all=True)),
        of("/#", "${NAME/#old/new}", "`old` at the begin replaced", _replace_prefix),
        of("/%", "${NAME/%old/new}", "`old` at the end replaced", _replace_suffix),
        of("/", "${NAME/old/new}", "the first `old` replaced", _replace(is_all=False)),
        of(":", "${NAME:2:5}", "a part: from which character on, and how many", _part),
        of("length", "${#NAME}", "how many characters it has", _length, True),
    )


#: By sign, longer signs before those that they begin with.
TABLE: Mapping[str, Operator] = {each.sign: each for each in _operators()}
_PART = re.compile(r":\s*-?[0-9]{1,6}(?::\s*-?[0-9]{1,6})?\Z")
_BARE = frozenset({"^^", "^", ",,", ","})  #: nothing stands after them
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def parsed(inside: str) -> tuple[str, Operator | None, str] | None:
    """(name, operator, what stands after its sign) of what is between the braces; None for what is no
    reference of ours, such as `array[0]`."""
    if inside.startswith("#") and _NAME.fullmatch(inside[1:]):
        return inside[1:], TABLE["length"], ""
    found = _NAME.match(inside)
    if found is None:
        return None
    name, rest = found[0], inside[found.end() :]
    if not rest:
        return name, None, ""
    for sign, operator in TABLE.items():
        if sign == ":":
            if _PART.match(rest) and not rest.startswith(":-"):
                return name, operator, rest[1:]
        elif sign != "length" and rest.startswith(sign) and (sign not in _BARE or rest == sign):
            return name, operator, rest[len(sign) :]
    return None
