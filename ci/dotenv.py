"""Dotenv: the variables in a file of the workspace, and what a step puts out. Pure.

A file is read by the rules of the dotenv family: comments, `export`, quotes; nothing is expanded. What a step
puts out are lines `NAME=value`, taken as they stand to the end of the line; a value of several lines is
`NAME<<WORD`, its lines, `WORD`.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass

from dotenv import parser

from ci import environ, shell

MAX_OUTPUTS = 200


@dataclass(frozen=True, kw_only=True)
class Variables:
    """`complaints` are sentences about lines that were left out."""

    values: dict[str, str]
    complaints: tuple[str, ...] = ()


def of_file(text: str) -> Variables:
    values: dict[str, str] = {}
    complaints: list[str] = []
    for binding in parser.parse_stream(io.StringIO(text)):
        if binding.error:
            complaints.append(f"line {binding.original.line} is no NAME=value")
        elif binding.key:
            _keep(binding.key, binding.value or "", values, complaints)
    return Variables(values=values, complaints=tuple(complaints))


def of_outputs(lines: Iterable[str]) -> Variables:
    values: dict[str, str] = {}
    complaints: list[str] = []
    rest = iter(lines)
    for line in rest:
        name, equals, value = line.partition("=")
        begun, mark, word = line.partition("<<")
        if mark and word.strip() and "=" not in begun:
            name, equals, value = begun, "=", "\n".join(_until(rest, word.strip()))
        if not line.strip():
            continue
        if not equals:
            complaints.append(f"the line {line[:40]!r} is no NAME=value")
        else:
            _keep(name.strip(), value, values, complaints)
    return Variables(values=values, complaints=tuple(complaints))


def _until(lines: Iterable[str], word: str) -> Iterable[str]:
    for line in lines:
        if line == word:
            return
        yield line


def _keep(name: str, value: str, values: dict[str, str], complaints: list[str]) -> None:
    if why := _unfit(name):
        complaints.append(f"the variable {name[:40]!r} is left out: {why}")
    elif len(values) < MAX_OUTPUTS or name in values:
        values[name] = environ.bounded(value)
    else:
        complaints.append(f"the variable {name[:40]!r} is left out: {MAX_OUTPUTS} are the most")


def _unfit(name: str) -> str:
    if name == "CI" or name.startswith("CI_"):
        return "such names are ours"
    return shell.unfit(name)
