"""Comments: the blocks of them that stand right above a key or an item, by the place of that."""

from __future__ import annotations

from collections.abc import Iterable

from ci.pipeline.problems import Mark


def above(text: str, in_scalars: Iterable[tuple[int, int]]) -> dict[Mark, tuple[str, ...]]:
    """Mark of the next token -> the comment lines above it. `in_scalars`: the lines, from and to, of text
    that goes over several; what looks like a comment there is none."""
    hidden = {line for start, stop in in_scalars for line in range(start, stop + 1)}
    found: dict[Mark, tuple[str, ...]] = {}
    block: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if number in hidden or not bare:
            block = [] if number in hidden else block
        elif bare.startswith("#"):
            block.append(bare)
        else:
            for mark in _tokens(number, line) if block else ():
                found[mark] = tuple(block)
            block = []
    return found


def _tokens(number: int, line: str) -> list[Mark]:
    """Where the line's first token stands: the key, or the dash and what follows it."""
    column = len(line) - len(line.lstrip())
    found = [Mark(number, column + 1)]
    while line[column : column + 2] == "- ":
        column += 2
        column += len(line[column:]) - len(line[column:].lstrip())
        found.append(Mark(number, column + 1))
    return found
