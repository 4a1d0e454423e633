"""Glob patterns over names with slashes: branches, refs, paths.

`*` and `?` stay within one part, `**` as a whole part stands for any number of parts, `[a-z]` and `[!a-z]`
for one character, `{a,b}` for alternatives, and a backslash takes the meaning from what follows it.
Matching never goes back further than the last star, so no pattern is slow.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

MAX_LENGTH = 1_000
MAX_ALTERNATIVES = 64

#: Matches one part of a path; None is `**`.
_Part = Callable[[str], object] | None


class BadPattern(ValueError):
    """The text says what is wrong with the pattern."""


@dataclass(frozen=True)
class Glob:
    alternatives: tuple[tuple[_Part, ...], ...]

    def matches(self, text: str) -> bool:
        parts = text.split("/")
        return any(_matches_parts(pattern, parts) for pattern in self.alternatives)


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> Glob:
    """Raises BadPattern."""
    if len(pattern) > MAX_LENGTH:
        raise BadPattern(f"the pattern is longer than {MAX_LENGTH} characters")
    return Glob(tuple(_parts(alternative) for alternative in _expanded(pattern)))


def weight(pattern: str) -> int:
    """How many characters all alternatives of the pattern have: what compiling it costs."""
    return sum(len(alternative) for alternative in _expanded(pattern[: MAX_LENGTH + 1]))


def matches(pattern: str, text: str) -> bool:
    return compiled(pattern).matches(text)


def escaped(text: str) -> str:
    """A pattern that matches nothing but `text`."""
    return re.sub(r"([*?\[\]{},\\])", r"\\\1", text)


def _matches_parts(pattern: tuple[_Part, ...], parts: list[str]) -> bool:
    at, place = 0, 0
    star, star_place = -1, 0
    while place < len(parts):
        part = pattern[at] if at < len(pattern) else _never
        if part is None:
            star, star_place = at, place
            at += 1
        elif part(parts[place]):
            at += 1
            place += 1
        elif star >= 0:
            star_place += 1
            at, place = star + 1, star_place
        else:
            return False
    return all(part is None for part in pattern[at:])


def _never(_: str) -> bool:
    return False


# --- from text to parts ---------------------------------------------------------------------------


def _expanded(pattern: str) -> list[str]:
    """`a{b,c}` as `ab` and `ac`, without recursion; at most MAX_ALTERNATIVES."""
    done: list[str] = []
    todo = [pattern]
    while todo:
        text = todo.pop(0)
        found = _first_braces(text)
        if found is None:
            done.append(text)
        else:
            begin, end, options = found
            todo += [text[:begin] + option + text[end:] for option in options]
        if len(done) + len(todo) > MAX_ALTERNATIVES:
            raise BadPattern(f"the pattern has more than {MAX_ALTERNATIVES} alternatives")
    return done


def _first_braces(text: str) -> tuple[int, int, list[str]] | None:
    """Where the first outer `{...}` begins and ends, and its options."""
    depth, begin, cut = 0, 0, 0
    options: list[str] = []
    for place, char in _unescaped(text):
        if char == "{":
            depth += 1
            if depth == 1:
                begin, cut = place, place + 1
        elif char in ",}" and depth == 1:
            options.append(text[cut:place])
            cut = place + 1
        if char == "}" and depth > 0:
            depth -= 1
            if depth == 0:
                return begin, place + 1, options
    if depth:
        raise BadPattern('the pattern has a "{" without its "}"')
    return None


def _unescaped(text: str) -> list[tuple[int, str]]:
    """The characters that may have a meaning: neither escaped nor inside of `[...]`."""
    found = []
    for token in _TOKEN.finditer(text):
        if len(token[0]) == 1:
            found.append((token.start(), token[0]))
    return found


_TOKEN = re.compile(r"\\.|\[[!^]?\]?(?:\\.|[^\]\\/])*\]|.", re.DOTALL)


def _parts(pattern: str) -> tuple[_Part, ...]:
    parts: list[_Part] = []
    for text in _split(pattern):
        if text != "**":
            parts.append(_part(text))
        elif not parts or parts[-1] is not None:
            parts.append(None)
    return tuple(parts)


def _split(pattern: str) -> list[str]:
    parts = [""]
    for token in _TOKEN.finditer(pattern):
        if token[0] == "/":
            parts.append("")
        else:
            parts[-1] += token[0]
    return parts


def _part(text: str) -> Callable[[str], object]:
    if not any(char in text for char in "*?[\\"):
        return text.__eq__
    runs: list[str] = [""]
    for token in _TOKEN.finditer(text):
        if token[0] == "*":
            runs.append("")
        else:
            runs[-1] += _one(token[0])
    if len(runs) == 1:
        return re.compile(runs[0] + r"\Z", re.DOTALL).match
    # Atomic: after the first place where a run fits, an earlier star never tries another one.
    middle = "".join(f"(?>.*?{run})" for run in runs[1:-1] if run)
    return re.compile(f"{runs[0]}{middle}.*{runs[-1]}" + r"\Z", re.DOTALL).match


def _one(token: str) -> str:
    """A regular expression for one character of a part."""
    if token == "?":
        return "."
    if token.startswith("[") and len(token) > 1:
        negated = token[1] in "!^"
        inside = token[2:-1] if negated else token[1:-1]
        return _characters(inside, negated=negated)
    return re.escape(token[1:] if len(token) == 2 and token[0] == "\\" else token)


_RANGE = re.compile(r"\\?(.)(?:-\\?(.))?", re.DOTALL)


def _characters(inside: str, *, negated: bool) -> str:
    wanted = ""
    for found in _RANGE.finditer(inside):
        low, high = found[1], found[2] or found[1]
        if low > high:
            raise BadPattern(f'the range "{low}-{high}" in the pattern is upside down')
        wanted += f"{re.escape(low)}-{re.escape(high)}"
    return f"[{'^' if negated else ''}{wanted}]"
