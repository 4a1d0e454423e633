"""`shipway lint`: every problem of the pipeline files, with its place."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from ci.errors import ConfigError, Problem
from ci.pipeline import job_graph, local, lookup, yaml
from ci.pipeline.model import Pipeline
from ci.pipeline.parse import parse_all

_EXIT_WRONG = 2
DIALECT_HELP = (
    "What the files are written in, such as `native`; without it, by their names and what they say."
)


def lint(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILES or repo]", help="Pipeline files, or the folder of a repo."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the problems as one JSON list.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="A warning fails like an error.")] = False,
    dialect: Annotated[str, typer.Option(help=DIALECT_HELP)] = "",
    lender: Annotated[list[str] | None, typer.Option(metavar="REPO=FOLDER", help=local.LENDER_HELP)] = None,
) -> int:
    """Check pipeline files: every problem at once, with its line and column.

    Exit code 0: they can be used. 2: they cannot, or there is none.
    """
    local.check_dialect(dialect)
    files = [file for path in paths or [Path(".")] for file in local.find(path)]
    lenders = local.lenders(lender or ())
    found = [check(file, dialect, lenders) for file in files]
    problems = [problem for each in found for problem in each.problems]
    problems += _between([pipeline for each in found for pipeline in each.pipelines])
    if as_json:
        print(json.dumps([asdict(problem) for problem in problems], indent=2))
    else:
        _print(files, problems)
    is_wrong = any(strict or not problem.is_warning for problem in problems)
    return _EXIT_WRONG if is_wrong else 0


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What one file holds, and its problems in file order, warnings too."""

    pipelines: tuple[Pipeline, ...] = ()
    problems: tuple[Problem, ...] = ()


def check(path: Path, dialect: str = "", lenders: local.Lenders | None = None) -> Checked:
    if path.is_dir():
        message = f"there is no pipeline file in this folder; looked for: {lookup.PLACES}"
        return Checked(problems=(Problem(message=message, file=str(path)),))
    try:
        file = local.read(path, dialect, lenders)
        found = parse_all(file.source, file=file.name, dialect=file.dialect, library=file.library)
    except ConfigError as error:
        return Checked(problems=error.problems)
    except OSError as error:
        message = f"it cannot be read: {error.strerror}"
        return Checked(problems=(Problem(message=message, file=str(path)),))
    warnings = dict.fromkeys(problem for pipeline in found for problem in pipeline.warnings)
    return Checked(pipelines=found, problems=tuple(warnings))


def _between(pipelines: Sequence[Pipeline]) -> tuple[Problem, ...]:
    """What is wrong only between files."""
    try:
        job_graph.check(pipelines)
    except ConfigError as error:
        return error.problems
    return ()


def _print(files: list[Path], problems: list[Problem]) -> None:
    for problem in problems:
        kind = "warning: " if problem.is_warning else ""
        print(f"{problem.file}:{problem.line}:{problem.column}: {kind}{problem.message}")
        for line in _excerpt(problem):
            print(line)
    errors = sum(not problem.is_warning for problem in problems)
    print(
        f"{_counted(len(files), 'file')}: {_counted(errors, 'error')}, "
        f"{_counted(len(problems) - errors, 'warning')}"
    )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _excerpt(problem: Problem, width: int = 100) -> list[str]:
    """The line of the problem and a caret under its column; nothing where the line is not to be had."""
    try:
        lines = (
            Path(problem.file)
            .read_bytes()[: yaml.MAX_BYTES]
            .decode(errors="replace")
            .removeprefix("\ufeff")
            .splitlines()
        )
    except OSError:
        return []
    if not problem.line <= len(lines):
        return []
    start = max(0, problem.column - width + 10)
    text = lines[problem.line - 1][start : start + width]
    shown = "".join(char if char.isprintable() else " " for char in text)
    return [f"    {shown}", "    " + " " * (problem.column - 1 - start) + "^"]
