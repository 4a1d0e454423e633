"""Printing: what a plain scalar becomes where the original server reads a value and prints it again.

A Go server that decodes `1.10` into "any value" has a number, and gives plugins its shortest form, `1.1`.
Source: drone_strider.md 4.1, corpus.md 1.7.
"""

from __future__ import annotations

import decimal
import math
import re
from collections.abc import Callable
from dataclasses import replace

from ci.pipeline.yaml import Kind, Mapping, Node, Scalar, Sequence

_TRUE = frozenset({"true", "yes", "on", "y"})
_OCTAL = re.compile(r"[-+]?0[0-7]+\Z")


#: A fraction this large or larger is printed with an exponent: as text, and as a number of JSON.
TEXT, JSON = 6, 21


def printed(node: Node, keeps: Callable[[Mapping], bool] = lambda _: False) -> Node:
    """A value in the form that the original prints; what `keeps` names (a secret's map) stays as it is."""
    if isinstance(node, Sequence) and all(isinstance(item, Scalar) for item in node.items):
        return replace(node, items=tuple(printed(item) for item in node.items))
    return _scalar(node, TEXT) if isinstance(node, Scalar) else _deep(node, keeps)


def _deep(node: Node, keeps: Callable[[Mapping], bool]) -> Node:
    match node:
        case Scalar():
            return _scalar(node, JSON)
        case Sequence(items=found):
            return replace(node, items=tuple(_deep(item, keeps) for item in found))
        case Mapping(entries=entries) if not keeps(node):
            return Mapping(
                entries=tuple((key, _deep(value, keeps)) for key, value in entries), mark=node.mark
            )
    return node


def _scalar(node: Scalar, exponent_from: int) -> Scalar:
    if node.kind is Kind.BOOL:
        return replace(node, text="true" if node.text.lower() in _TRUE else "false")
    if node.kind is Kind.INT:
        return replace(node, text=_whole(node.text))
    if node.kind is Kind.FLOAT:
        return _fraction(node, exponent_from)
    return node


def _whole(text: str) -> str:
    """As Go's `strconv.ParseInt` with base 0 reads it: `0o14` and `014` are 12, `0x1f` is 31, `1_000` 1000.
    Sixty-based numbers (`1:30`) are text in Go, and never get here."""
    plain = text.replace("_", "")
    if _OCTAL.match(plain):
        sign = "-" if plain.startswith("-") else ""
        return sign + str(int(plain.lstrip("+-"), 8))
    try:
        return str(int(plain, 0))
    except ValueError:
        return str(int(plain)) if plain.lstrip("+-").isdigit() else text


def _fraction(node: Scalar, exponent_from: int) -> Scalar:
    try:
        value = float(node.text.replace("_", ""))
    except ValueError:
        return node
    if not math.isfinite(value):
        return node
    text = shortest(value, exponent_from)
    return replace(node, text=text, kind=Kind.INT if text.lstrip("-").isdigit() else Kind.FLOAT)


def shortest(value: float, exponent_from: int = TEXT) -> str:
    """As Go prints a float64 with 'g' and the shortest precision: `1.1`, `1000`, `1e+06`."""
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    is_negative, digits, exponent = decimal.Decimal(repr(value)).normalize().as_tuple()
    number = "".join(map(str, digits))
    point = len(number) - 1 + int(exponent)  # of the first digit
    sign = "-" if is_negative else ""
    if point < -4 or point >= exponent_from:
        rest = f".{number[1:]}" if len(number) > 1 else ""
        return f"{sign}{number[0]}{rest}e{'-' if point < 0 else '+'}{abs(point):02}"
    if point < 0:
        return f"{sign}0.{'0' * (-point - 1)}{number}"
    if len(number) <= point + 1:
        return sign + number.ljust(point + 1, "0")
    return f"{sign}{number[: point + 1]}.{number[point + 1 :]}"
