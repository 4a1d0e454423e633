"""Matrix: the cells that a pipeline runs in, in a stable order. Loud where it is too large."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MAX_CELLS = 256
#: Combinations that are looked at before `exclude` takes some away.
MAX_COMBINATIONS = 4_096
MAX_ROWS = 256

Cell = dict[str, str]


class TooManyCells(ValueError):
    """The text says how many there are and how many there may be."""


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """Axes in file order; rows of `include` and `exclude`."""

    axes: Mapping[str, tuple[str, ...]]
    include: tuple[Cell, ...] = ()
    exclude: tuple[Cell, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that a cell can have, in file order."""
        rows = (name for row in self.include for name in row)
        return tuple(dict.fromkeys((*self.axes, *rows)))


def cells(matrix: Matrix) -> list[Cell]:
    """The product of the axes, the last one varying fastest, without what `exclude` takes away, then the
    rows of `include`; each once. Raises TooManyCells."""
    combinations = math.prod(len(values) for values in matrix.axes.values())
    if combinations > MAX_COMBINATIONS:
        raise TooManyCells(f"the matrix has {combinations:,} combinations; {MAX_COMBINATIONS:,} is the most")
    product: list[Cell] = []
    if matrix.axes:
        rows = itertools.product(*matrix.axes.values())
        product = [dict(zip(matrix.axes, row, strict=True)) for row in rows]
    kept = [cell for cell in product if not any(_has(cell, row) for row in matrix.exclude)]
    found = _unique([*kept, *matrix.include])
    if len(found) > MAX_CELLS:
        raise TooManyCells(
            f"the matrix makes {len(found):,} jobs; {MAX_CELLS} is the most, `exclude` takes some away"
        )
    return found


def useless_rows(matrix: Matrix) -> list[int]:
    """Which rows of `exclude` take nothing away: they name a value that no axis has."""
    return [
        number
        for number, row in enumerate(matrix.exclude)
        if not all(value in matrix.axes.get(name, ()) for name, value in row.items())
    ]


def _has(cell: Cell, row: Mapping[str, str]) -> bool:
    return all(cell.get(name) == value for name, value in row.items())


def _unique(found: Sequence[Cell]) -> list[Cell]:
    seen: dict[frozenset[tuple[str, str]], Cell] = {}
    for cell in found:
        seen.setdefault(frozenset(cell.items()), cell)
    return list(seen.values())
