"""`shipway convert`: a file of another dialect as clean native files, which make the same jobs."""

from __future__ import annotations

from collections.abc import Mapping as MappingOf
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from ci import aliases, environ
from ci.errors import ConfigError, Invalid, Problem
from ci.pipeline import local, schema, slug, substitute, yaml, yaml_comments, yaml_dump
from ci.pipeline.dialects import DIALECTS
from ci.pipeline.lint import DIALECT_HELP
from ci.pipeline.parse import name_of, parse_all
from ci.pipeline.problems import Problems
from ci.pipeline.schema import Shape
from ci.pipeline.yaml import Kind, Mapping, Node, Scalar, Sequence
from ci.pipeline.yaml_rules import NATIVE

#: Files that are a repo's only one.
_WHOLE = tuple(name_of(name) for dialect in DIALECTS.values() for name in dialect.files)
_FLAGS = frozenset(
    key.name
    for section in schema.SECTIONS
    for key in section.ready
    if key.shape in (Shape.FLAG, Shape.PULL, Shape.READY)
)
_FIRST = {"name": 0, "image": 1}
_FREE = frozenset({"environment", "settings", "labels", "matrix", "variables"})


@dataclass(frozen=True, kw_only=True)
class Converted:
    """`files` by their names from the root of the repository; `warnings` of the original."""

    files: MappingOf[str, str]
    warnings: tuple[Problem, ...] = ()


def convert(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A pipeline file of another server.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Write the files there.")
    ] = None,
    dialect: Annotated[str, typer.Option(help=DIALECT_HELP)] = "",
) -> int:
    """Turn a pipeline file of another server into `.ci.yml`, or `.ci/` for several pipelines.

    Printed, or with --output written; a file that is there is never replaced. Exit code 2: it cannot be used.
    """
    local.check_dialect(dialect)
    try:
        file = local.read(path, dialect)
        converted = converted_from(file.source, file=file.name, dialect=file.dialect)
    except OSError as error:
        raise Invalid(f"{path} cannot be read: {error.strerror}") from error
    except ConfigError as error:
        for problem in error.problems:
            typer.echo(str(problem), err=True)
        return 2
    for problem in converted.warnings:
        typer.echo(f"warning: {problem}", err=True)
    _write(converted, output) if output else _print(converted)
    return 0


def converted_from(source: bytes, *, file: str, dialect: str) -> Converted:
    """Raises ConfigError for what the dialect itself refuses."""
    spoken = DIALECTS[dialect]
    pipelines = parse_all(source, file=file, dialect=dialect)
    problems = Problems(file=file)
    roots = spoken.translate(yaml.load_all(source, problems, spoken.rules), problems)
    text = source.decode("utf-8").removeprefix("\ufeff")
    comments = yaml_comments.above(text, yaml.long_scalars(text, spoken.rules))
    names = _file_names(file, [pipeline.name for pipeline in pipelines])
    return Converted(
        files={
            name: yaml_dump.dump(_native(root, pipeline.name, name), comments)
            for name, root, pipeline in zip(names, roots, pipelines, strict=True)
        },
        warnings=tuple(dict.fromkeys(problem for pipeline in pipelines for problem in pipeline.warnings)),
    )


def _file_names(file: str, names: list[str]) -> list[str]:
    """One file for each pipeline, which a server reads in the order of their names."""
    if names == [name_of(file)]:
        return [".ci.yml"] if names[0] in _WHOLE else [f".ci/{names[0]}.yml"]
    slugs = slug.Slugs()
    found = [slugs.take(name) for name in names]
    if found != sorted(found):
        digits = len(str(len(found)))
        found = [f"{number:0{digits}}-{each}" for number, each in enumerate(found, 1)]
    return [f".ci/{each}.yml" for each in found]


def _native(root: Mapping, name: str, file: str) -> Mapping:
    """With the name that the pipeline has by its old file, and references that the native language takes."""
    matrix = root.by_name.get("matrix")
    known = _names(matrix)
    entries = _entries(root, known)
    if name_of(file) != name and "name" not in root.by_name:
        entries = ((Scalar("name", root.mark, is_plain=True), Scalar(name, root.mark)), *entries)
    return replace(root, entries=entries)


def _names(matrix: Node | None) -> frozenset[str]:
    if not isinstance(matrix, Mapping):
        return frozenset()
    rows = matrix.by_name.get("include")
    names = {key.text for key, _ in matrix.entries}
    if isinstance(rows, Sequence):
        names |= {key.text for row in rows.items if isinstance(row, Mapping) for key, _ in row.entries}
    return frozenset(names)


def _entries(node: Mapping, known: frozenset[str]) -> tuple[tuple[Scalar, Node], ...]:
    """What it is called first, as people write it."""
    found = [(key, _value(key.text, value, known)) for key, value in node.entries]
    return tuple(sorted(found, key=lambda entry: _FIRST.get(entry[0].text, len(_FIRST))))


def _value(key: str, value: Node, known: frozenset[str]) -> Node:
    if isinstance(value, Scalar):
        return _filled(_flag(value) if key in _FLAGS else _text(value), known, in_commands=key == "commands")
    return _filled(value, known, in_commands=key == "commands", is_free=key in _FREE)


def _filled(node: Node, known: frozenset[str], *, in_commands: bool, is_free: bool = False) -> Node:
    """`is_free`: a map whose keys mean nothing to us."""
    match node:
        case Scalar(text=text):
            node = _text(node)
            if "$" not in text:
                return node
            filled = substitute.rewritten(text, lambda each: _reference(each, known, in_commands))
            return replace(node, text=filled)
        case Sequence(items=items):
            return replace(
                node,
                items=tuple(_filled(item, known, in_commands=in_commands, is_free=is_free) for item in items),
            )
        case Mapping() if not is_free:
            return replace(node, entries=_entries(node, known))
        case Mapping(entries=entries):
            return replace(
                node,
                entries=tuple(
                    (key, _filled(value, known, in_commands=False, is_free=True)) for key, value in entries
                ),
            )


def _text(node: Scalar) -> Scalar:
    """What only the dialect takes for a flag or a number keeps its text."""
    is_same = NATIVE.kind_of(node.text) is node.kind
    return node if is_same or node.kind in (Kind.TEXT, Kind.NULL) else replace(node, kind=Kind.TEXT)


def _flag(node: Scalar) -> Scalar:
    if node.kind is not Kind.BOOL:
        return node
    return replace(node, text="true" if node.text.lower() in ("true", "yes", "on", "y") else "false")


def _reference(found: substitute.Reference, known: frozenset[str], in_commands: bool) -> str:
    """What nobody knows is left to the shell in commands, and is empty elsewhere; native files say so."""
    variable = aliases.variable_of(found.name) if found.name else None
    if found.name in known or (
        variable is not None and variable.is_ready and _is_known(variable, in_commands)
    ):
        return found.text
    if in_commands or not found.name:
        return "$" + found.text
    return found.operator.apply("", found.argument) if found.operator else ""


def _is_known(variable: environ.Variable, in_commands: bool) -> bool:
    return in_commands or variable.scope is environ.Scope.JOB


def _print(converted: Converted) -> None:
    for number, (name, text) in enumerate(converted.files.items()):
        if len(converted.files) > 1:
            print(("\n" if number else "") + f"# --- {name}")
        print(text, end="")


def _write(converted: Converted, folder: Path) -> None:
    """Raises Invalid before anything is written."""
    for name in converted.files:
        if (folder / name).exists():
            raise Invalid(f"{folder / name} is there already; move it away, or write to another folder")
    for name, text in converted.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
        print(folder / name)
