"""Parse: the text of one file in, a Pipeline out; or ConfigError with everything that is wrong in it."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import PurePosixPath

from ci import graph
from ci.pipeline import yaml
from ci.pipeline.conditions import read_when
from ci.pipeline.containers import MAX_NAME, read_services, read_steps
from ci.pipeline.fields import Fields, Reader
from ci.pipeline.matrix import MAX_ROWS, Cell, Matrix, TooManyCells, cells, useless_rows
from ci.pipeline.model import Pipeline, Service, Step
from ci.pipeline.problems import Mark, Problems, shown
from ci.pipeline.schema import MATRIX, PIPELINE, Shape
from ci.pipeline.yaml import Mapping, Node, Scalar, describe

MAX_CONTAINERS = 500
#: Cells x steps and services, of one file and of one build.
MAX_STEPS = 4_096
#: What all cells together may repeat of the file's text.
MAX_TEXT = 16 * 1024 * 1024

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}\Z")


def parse(source: str | bytes, *, file: str = ".ci.yml", variables: Collection[str] = ()) -> Pipeline:
    """The pipeline in `source`. `variables` are names that the event brings, for `${NAME}`.

    Raises ConfigError with every problem, in file order.
    """
    problems = Problems(file=file)
    root = yaml.load(source, problems)
    if root is None or (isinstance(root, Scalar) and root.is_null):
        problems.error(Mark(), 'the file is empty; it needs "steps"')
    elif not isinstance(root, Mapping):
        problems.error(root.mark, f'a pipeline is a map with "steps", this is {describe(root)}')
    else:
        pipeline = _Parser(problems, file, variables).pipeline(root)
        _check_size(pipeline, root, len(source), problems)
        problems.raise_errors()
        return pipeline
    problems.raise_errors()
    raise AssertionError("an error was added above")


def name_of(file: str) -> str:
    """What a file's pipeline is called: `.ci/test.yml` is `test`, `.ci.yml` is `ci`."""
    return PurePosixPath(file).name.lstrip(".").removesuffix(".yml").removesuffix(".yaml") or "ci"


class _Parser:
    def __init__(self, problems: Problems, file: str, variables: Collection[str]) -> None:
        self._problems = problems
        self._file = file
        self._variables = frozenset(variables)

    def pipeline(self, root: Mapping) -> Pipeline:
        bare = Reader(problems=self._problems)
        matrix_node = root.by_name.get("matrix")
        matrix = _MatrixReader(bare).matrix(matrix_node) if matrix_node is not None else None
        names = self._variables.union(matrix.names if matrix else ())
        reader = Reader(problems=self._problems, names=names)
        fields = reader.fields(root, PIPELINE)
        assert fields is not None, "the root is a map"
        when = read_when(fields)
        steps = read_steps(fields)
        services = read_services(fields)
        check_graph(steps, services, self._problems)
        self._warn_of_status(fields)
        return Pipeline(
            file=self._file,
            name=name_of(self._file),
            steps=steps,
            services=services,
            when=when,
            cells=self._cells(matrix, matrix_node),
            labels=_labels(fields),
            skip_clone=fields.flag("skip_clone"),
            warnings=self._problems.warnings,
        )

    def _warn_of_status(self, fields: Fields) -> None:
        node = fields.known.get("when")
        for condition in node.items if isinstance(node, yaml.Sequence) else (node,):
            if isinstance(condition, Mapping) and (status := condition.by_name.get("status")):
                message = '"status" says nothing here: no pipeline waits for another one yet'
                self._problems.warn(status.mark, message)

    def _cells(self, matrix: Matrix | None, node: Node | None) -> tuple[Cell, ...]:
        if matrix is None or node is None:
            return ({},)
        try:
            found = cells(matrix)
        except TooManyCells as error:
            self._problems.error(node.mark, str(error))
            return ({},)
        if not found and not self._problems.has_errors:
            self._problems.error(node.mark, "the matrix is empty: it makes no job at all")
        return tuple(found) or ({},)


def _labels(fields: Fields) -> tuple[tuple[str, str], ...]:
    node = fields.get("labels", Shape.TEXT_MAP)
    if node is None:
        return ()
    if not isinstance(node, Mapping):
        fields.reader.problems.error(node.mark, f'"labels" is a map of text, this is {describe(node)}')
        return ()
    found = [
        (key.text, fields.reader.text(value, f"the label {shown(key.text)}")) for key, value in node.entries
    ]
    return tuple((name, value) for name, value in found if value)


def _check_size(pipeline: Pipeline, root: Mapping, size: int, problems: Problems) -> None:
    containers = len(pipeline.steps) + len(pipeline.services)
    jobs = len(pipeline.cells)
    if containers > MAX_CONTAINERS:
        message = f"{containers:,} steps and services in one pipeline; {MAX_CONTAINERS} is the most"
        problems.error(root.mark, message)
    if jobs * containers > MAX_STEPS:
        message = (
            f"{jobs} jobs of {containers} steps are {jobs * containers:,} steps; {MAX_STEPS:,} is the most"
        )
        problems.error(root.by_name.get("matrix", root).mark, message)
    if jobs * size > MAX_TEXT:
        message = f"{jobs} jobs of a file of {size // 1024} KiB are more than {MAX_TEXT >> 20} MiB"
        problems.error(root.by_name.get("matrix", root).mark, message)


# --- dependencies ---------------------------------------------------------------------------------


def check_graph(steps: Sequence[Step], services: Sequence[Service], problems: Problems) -> None:
    """Every dependency exists, and none leads back to where it came from."""
    names = {step.name for step in steps}
    service_names = {service.name for service in services} - names
    edges: dict[str, tuple[str, ...]] = {}
    for step in steps:
        wanted = step.depends_on or ()
        for name in wanted:
            if name not in names and name != "clone":
                problems.error(
                    step.depends_on_mark or step.mark, _unknown(step, name, names, service_names, problems)
                )
        edges[step.name] = tuple(dict.fromkeys(name for name in wanted if name in names))
    if cycle := graph.find_cycle(edges):
        mark = next(step.depends_on_mark or step.mark for step in steps if step.name == cycle[0])
        path = " -> ".join(shown(name) for name in cycle[:20])
        problems.error(mark, f"steps wait for each other in a circle: {path}")


def _unknown(step: Step, name: str, names: set[str], services: set[str], problems: Problems) -> str:
    if name in services:
        return (
            f"step {shown(step.name)} depends on the service {shown(name)}; services start before all steps"
        )
    hint = problems.did_you_mean(name, names)
    return f"step {shown(step.name)} depends on unknown step {shown(name)}{hint}"


# --- matrix ---------------------------------------------------------------------------------------


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
        values = node.items if isinstance(node, yaml.Sequence) else (node,)
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
        if not isinstance(node, yaml.Sequence):
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
        for row in exclude.items if isinstance(exclude, yaml.Sequence) else ():
            for key, _ in row.entries if isinstance(row, Mapping) else ():
                if key.text not in matrix.axes:
                    hint = self._problems.did_you_mean(key.text, matrix.axes)
                    self._problems.error(key.mark, f"the matrix has no axis {shown(key.text)}{hint}")
        if exclude is not None and not self._problems.has_errors:
            for number in useless_rows(matrix):
                row_mark = exclude.items[number].mark if isinstance(exclude, yaml.Sequence) else exclude.mark
                self._problems.warn(row_mark, "this row excludes nothing: no axis has such a value")
