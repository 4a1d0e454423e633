"""Parse: the text of one file in, its Pipelines out; or ConfigError with everything that is wrong in it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import PurePosixPath

from ci.pipeline import inputs, yaml
from ci.pipeline.axes import MAX_NAME, read_cells, read_matrix
from ci.pipeline.conditions import read_when
from ci.pipeline.containers import read_clones, read_services, read_steps
from ci.pipeline.dialects import Dialect, dialect_of
from ci.pipeline.environment import read_environment
from ci.pipeline.fields import Fields, Reader
from ci.pipeline.includes import Library, filled
from ci.pipeline.model import Container, FromSecret, Need, Pipeline, When
from ci.pipeline.needs import check_graph, read_needs
from ci.pipeline.problems import Problems, shown
from ci.pipeline.schema import PIPELINE, Shape
from ci.pipeline.volumes import read_volumes
from ci.pipeline.workspace import read_clone_options, read_concurrency, read_workspace
from ci.pipeline.yaml import Mapping, describe

MAX_CONTAINERS = 500
#: Cells x steps and services, of one file and of one build.
MAX_STEPS = 4_096
#: What all cells together may repeat of the file's text.
MAX_TEXT = 16 * 1024 * 1024


def parse(
    source: str | bytes, *, file: str = ".ci.yml", variables: Collection[str] = (), dialect: str = ""
) -> Pipeline:
    """The one pipeline in `source`. Raises ConfigError with every problem, in file order."""
    found = parse_all(source, file=file, variables=variables, dialect=dialect)
    return found[0]


def parse_all(
    source: str | bytes,
    *,
    file: str = ".ci.yml",
    variables: Collection[str] = (),
    dialect: str = "",
    library: Library | None = None,
) -> tuple[Pipeline, ...]:
    """The pipelines in `source`, at least one, in file order.

    `variables` are names that the event brings, for `${NAME}`; `dialect` is the name of one, empty: by the
    file's name; `library` holds the files that it includes.

    Raises ConfigError with every problem, in file order.
    """
    problems = Problems(file=file)
    spoken = dialect_of(file, dialect)
    found = []
    for node in spoken.translate(yaml.load_all(source, problems, spoken.rules), problems):
        whole, size = filled(node, problems, library or Library())
        pipeline = _Parser(problems, file, variables, spoken).pipeline(whole)
        _check_size(pipeline, whole, len(source) + size, problems)
        found.append(pipeline)
    problems.raise_errors()
    assert found, "a file without a pipeline has an error"
    return tuple(found)


def name_of(file: str) -> str:
    """What a file's pipeline is called: `.ci/test.yml` is `test`, `.ci.yml` is `ci`."""
    return PurePosixPath(file).name.lstrip(".").removesuffix(".yml").removesuffix(".yaml") or "ci"


class _Parser:
    def __init__(self, problems: Problems, file: str, variables: Collection[str], dialect: Dialect) -> None:
        self._problems = problems
        self._dialect = dialect
        self._file = file
        self._variables = frozenset(variables)

    def pipeline(self, root: Mapping) -> Pipeline:
        matrix_node = root.by_name.get("matrix")
        matrix = read_matrix(matrix_node, self._problems)
        names = self._variables.union(
            matrix.names if matrix else (), inputs.names(root.by_name.get("inputs"))
        )
        reader = Reader(problems=self._problems, names=names, is_lenient=self._dialect.is_lenient)
        fields = reader.fields(root, PIPELINE)
        assert fields is not None, "the root is a map"
        steps, services = read_steps(fields), read_services(fields)
        check_graph(steps, services, self._problems)
        base, path = read_workspace(fields)
        volumes = read_volumes(fields)
        clones = read_clones(fields)
        _check_mounts((*clones, *steps, *services), {volume.name for volume in volumes}, self._problems)
        when, needs = read_when(fields), read_needs(fields) or ()
        self._check_pipeline_when(when, needs, fields)
        return Pipeline(
            file=self._file,
            name=_name(fields) or name_of(self._file),
            mark=root.mark,
            steps=steps,
            clones=clones,
            services=services,
            when=when,
            needs=needs,
            run_on=fields.words("runs_on"),
            cells=read_cells(matrix, matrix_node, self._problems),
            labels=_labels(fields),
            environment=read_environment(fields),
            timeout_seconds=fields.seconds("timeout"),
            skip_clone=fields.flag("skip_clone"),
            clone=read_clone_options(fields),
            workspace=base,
            path=path,
            volumes=volumes,
            pull_secrets=_pull_secrets(fields),
            concurrency=read_concurrency(fields),
            inputs=inputs.read_inputs(fields),
            is_lenient=self._dialect.is_lenient,
            warnings=self._problems.warnings,
        )

    def _check_pipeline_when(self, when: When, needs: tuple[Need, ...], fields: Fields) -> None:
        node = fields.known.get("when")
        for condition in node.items if isinstance(node, yaml.Sequence) else (node,):
            inner = condition.by_name if isinstance(condition, Mapping) else {}
            if (status := inner.get("status")) and not needs:
                message = '"status" says nothing here: the pipeline depends on no other one'
                self._problems.warn(status.mark, message)
            if outputs := inner.get("outputs"):
                self._problems.error(outputs.mark, '"outputs" belongs to the "when" of a step')


def _name(fields: Fields) -> str:
    name = fields.text("name") or ""
    if name and (len(name) > MAX_NAME or not name.isprintable() or not name.strip()):
        message = f"the name of a pipeline is one line of at most {MAX_NAME} characters"
        fields.reader.problems.error(fields.known["name"].mark, message)
    return name


def _pull_secrets(fields: Fields) -> tuple[FromSecret, ...]:
    node = fields.get("pull_secrets", Shape.TEXTS)
    nodes = () if node is None else node.items if isinstance(node, yaml.Sequence) else (node,)
    found = [(each.mark, fields.reader.text(each, '"pull_secrets"')) for each in nodes]
    return tuple(FromSecret(name=name, mark=mark) for mark, name in found if name)


def _check_mounts(containers: Iterable[Container], names: set[str], problems: Problems) -> None:
    for item in containers:
        for mount in item.mounts:
            if mount.volume and "$" not in mount.volume and mount.volume not in names:
                hint = problems.did_you_mean(mount.volume, names)
                what = f'{shown(item.name)} mounts the volume {shown(mount.volume)}, which "volumes" of the'
                problems.error(mount.mark, f"{what} pipeline does not name{hint}")


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
