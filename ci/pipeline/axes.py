"""Axes: reads `matrix`, and makes the cells that a pipeline runs in."""

from __future__ import annotations

import re

from ci.pipeline.fields import Reader
from ci.pipeline.matrix import MAX_ROWS, Cell, Matrix, TooManyCells, cells, useless_rows
from ci.pipeline.problems import Problems, shown
from ci.pipeline.schema import MATRIX
from ci.pipeline.yaml import Mapping, Node, Scalar, Sequence, describe

MAX_NAME = 200
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}\Z")


def read_matrix(node: Node | None, problems: Problems) -> Matrix | None:
    return None if node is None else _MatrixReader(Reader(problems=problems)).matrix(node)


def read_cells(matrix: Matrix | None, node: Node | None, problems: Problems) -> tuple[Cell, ...]:
    """The cells of the matrix in order; the one empty cell without one."""
    if matrix is None or node is None:
        return ({},)
    try:
        found = cells(matrix)
    except TooManyCells as error:
        problems.error(node.mark, str(error))
        return ({},)
    if not found and not problems.has_errors:
        problems.error(node.mark, "the matrix is empty: it makes no job at all")
    return tuple(found) or ({},)


class _MatrixReader:
    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._problems = reader.problems

    def matrix(self, node: Node) -> Matrix | None:
        if not isinstance(node, Mapping):
            self._problems.error(node.mark, f"a matrix is a map of lists, this is {describe(node)}")
            return None
        axes: dict[str, tuple[str, ...]] = {}
        rows: dict[str, tuple[Cell, ...]] = {}
        for key, value in node.entries:
            if key.text in MATRIX.keys:
                rows[key.text] = self._rows(value, key.text)
            elif self._is_name(key):
                axes[key.text] = self._axis(value, key.text)
        matrix = Matrix(axes=axes, include=rows.get("include", ()), exclude=rows.get("exclude", ()))
        self._check_exclude(node, matrix)
        return matrix

    def _is_name(self, key: Scalar) -> bool:
        if key.text.startswith("CI_") or key.text == "CI":
            self._problems.error(key.mark, f"the variable {shown(key.text)} is ours; name the axis otherwise")
        elif not _VARIABLE.match(key.text):
            self._problems.error(key.mark, f"an axis is named like a variable, this is {shown(key.text)}")
        else:
            return True
        return False

    def _axis(self, node: Node, name: str) -> tuple[str, ...]:
        values = node.items if isinstance(node, Sequence) else (node,)
        found = [self._value(value, f"a value of {shown(name)}") for value in values]
        if not found:
            self._problems.error(node.mark, f"the axis {shown(name)} is empty")
        return tuple(dict.fromkeys(value for value in found if value is not None))

    def _value(self, node: Node, what: str) -> str | None:
        if isinstance(node, Scalar):
            if len(node.value) <= MAX_NAME:
                return node.value
            self._problems.error(node.mark, f"{what} is longer than {MAX_NAME} characters")
            return None
        self._problems.error(node.mark, f"{what} is text, this is {describe(node)}")
        return None

    def _rows(self, node: Node, what: str) -> tuple[Cell, ...]:
        if not isinstance(node, Sequence):
            self._problems.error(node.mark, f'"{what}" is a list of maps, this is {describe(node)}')
            return ()
        if len(node.items) > MAX_ROWS:
            self._problems.error(node.mark, f'"{what}" has more than {MAX_ROWS} rows')
            return ()
        return tuple(row for item in node.items if (row := self._row(item, what)))

    def _row(self, node: Node, what: str) -> Cell:
        if not isinstance(node, Mapping) or not node.entries:
            self._problems.error(node.mark, f'a row of "{what}" is a map, this is {describe(node)}')
            return {}
        pairs = {
            key.text: self._value(value, f"a value of {shown(key.text)}")
            for key, value in node.entries
            if self._is_name(key)
        }
        return {name: value for name, value in pairs.items() if value is not None}

    def _check_exclude(self, node: Mapping, matrix: Matrix) -> None:
        exclude = node.by_name.get("exclude")
        for row in exclude.items if isinstance(exclude, Sequence) else ():
            for key, _ in row.entries if isinstance(row, Mapping) else ():
                if key.text not in matrix.axes:
                    hint = self._problems.did_you_mean(key.text, matrix.axes)
                    self._problems.error(key.mark, f"the matrix has no axis {shown(key.text)}{hint}")
        if exclude is not None and not self._problems.has_errors:
            for number in useless_rows(matrix):
                row_mark = exclude.items[number].mark if isinstance(exclude, Sequence) else exclude.mark
                self._problems.warn(row_mark, "this row excludes nothing: no axis has such a value")
