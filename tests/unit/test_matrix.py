"""The cells of a matrix: unique, in a stable order, never silently too many."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci.pipeline.matrix import Matrix, TooManyCells, cells, useless_rows

NAMES = st.sampled_from(["A", "B", "C"])
VALUES = st.sampled_from(["1", "2", "3"])
ROWS = st.lists(st.dictionaries(NAMES, VALUES, min_size=1), max_size=4).map(tuple)
MATRICES = st.builds(
    Matrix,
    axes=st.dictionaries(NAMES, st.lists(VALUES, min_size=1, unique=True).map(tuple)),
    include=ROWS,
    exclude=ROWS,
)


@given(MATRICES)
def test_cells_are_unique_and_the_same_each_time(matrix: Matrix) -> None:
    found = cells(matrix)
    assert len({frozenset(cell.items()) for cell in found}) == len(found)
    assert cells(matrix) == found


@given(MATRICES)
def test_a_cell_is_included_or_of_the_product_and_not_excluded(matrix: Matrix) -> None:
    for cell in cells(matrix):
        is_excluded = any(all(cell.get(name) == row[name] for name in row) for row in matrix.exclude)
        is_product = set(cell) == set(matrix.axes) and all(cell[name] in matrix.axes[name] for name in cell)
        assert cell in matrix.include or (is_product and not is_excluded)


def test_the_last_axis_varies_fastest_and_included_rows_come_last() -> None:
    matrix = Matrix(
        axes={"B": ("2", "1"), "A": ("x", "y")},
        include=({"A": "z"}, {"B": "2", "A": "x"}),
        exclude=({"B": "1"},),
    )
    assert cells(matrix) == [{"B": "2", "A": "x"}, {"B": "2", "A": "y"}, {"A": "z"}]


def test_rows_alone_make_the_cells() -> None:
    assert cells(Matrix(axes={}, include=({"A": "1"}, {"A": "2"}))) == [{"A": "1"}, {"A": "2"}]


def test_exclude_may_bring_a_large_product_under_the_cap() -> None:
    values = tuple(str(number) for number in range(17))
    with pytest.raises(TooManyCells, match="makes 289 jobs; 256 is the most"):
        cells(Matrix(axes={"A": values, "B": values}))
    rows = tuple({"A": "0", "B": value} for value in values) + tuple(
        {"A": "1", "B": value} for value in values
    )
    assert len(cells(Matrix(axes={"A": values, "B": values}, exclude=rows))) == 255


def test_a_product_beyond_all_measure_is_refused_before_it_is_made() -> None:
    values = tuple(str(number) for number in range(1000))
    axes = {f"A{number}": values for number in range(15)}
    with pytest.raises(TooManyCells, match=r"combinations; 4,096 is the most"):
        cells(Matrix(axes=axes, exclude=({"A0": "0"},)))


def test_a_row_that_excludes_nothing_is_told() -> None:
    assert useless_rows(Matrix(axes={"A": ("1",)}, exclude=({"A": "1"}, {"A": "2"}))) == [1]
