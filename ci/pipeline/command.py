"""`shipway lint`: every problem of the pipeline files, with its place. The only I/O of the language."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ci.errors import ConfigError, Problem
from ci.pipeline import lookup, yaml
from ci.pipeline.parse import parse

_EXIT_WRONG = 2


def lint(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILES or repo]", help="Pipeline files, or the folder of a repo."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the problems as one JSON list.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="A warning fails like an error.")] = False,
) -> int:
    """Check pipeline files: every problem at once, with its line and column.

    Exit code 0: they can be used. 2: they cannot, or there is none.
    """
    files = [file for path in paths or [Path(".")] for file in _files(path)]
    problems = [problem for file in files for problem in check(file)]
    if as_json:
        print(json.dumps([asdict(problem) for problem in problems], indent=2))
    else:
        _print(files, problems)
    is_wrong = any(strict or not problem.is_warning for problem in problems)
    return _EXIT_WRONG if is_wrong else 0


def check(path: Path) -> tuple[Problem, ...]:
    """The problems of one file, in file order, warnings too."""
    if path.is_dir():
        message = f"there is no pipeline file in this folder; looked for: {lookup.PLACES}"
        return (Problem(message=message, file=str(path)),)
    try:
        return parse(_read(path), file=str(path)).warnings
    except ConfigError as error:
        return error.problems
    except OSError as error:
        return (Problem(message=f"it cannot be read: {error.strerror}", file=str(path)),)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(yaml.MAX_BYTES + 1)


def _files(path: Path) -> list[Path]:
    """The file itself, or the pipeline files of the folder; the folder where it has none."""
    if not path.is_dir():
        return [path]
    candidates = [path / name for name in lookup.SINGLE]
    for folder in lookup.FOLDERS:
        candidates += (path / folder).glob("*") if (path / folder).is_dir() else []
    names = [file.relative_to(path).as_posix() for file in candidates if file.is_file()]
    return [path / name for name in lookup.choose(names)] or [path]


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
        lines = _read(Path(problem.file)).decode(errors="replace").removeprefix("\ufeff").splitlines()
    except OSError:
        return []
    if not problem.line <= len(lines):
        return []
    start = max(0, problem.column - width + 10)
    text = lines[problem.line - 1][start : start + width]
    shown = "".join(char if char.isprintable() else " " for char in text)
    return [f"    {shown}", "    " + " " * (problem.column - 1 - start) + "^"]
