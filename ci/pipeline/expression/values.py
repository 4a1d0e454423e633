"""Values of expressions: their kinds, how they are compared, and what they may cost."""

from __future__ import annotations

import math
from typing import Any

MAX_STEPS = 100_000
#: Characters of text and items of lists that one expression may make in all.
MAX_MADE = 1_000_000
_LEAST, _MOST = -(1 << 63), (1 << 63) - 1


class Wrong(Exception):
    """What is wrong with a value, as a sentence; the evaluator knows where."""


class Budget:
    """What is left of the work that an expression may make."""

    def __init__(self) -> None:
        self._steps = MAX_STEPS
        self._made = MAX_MADE

    def step(self, count: int = 1) -> None:
        self._steps -= count
        if self._steps < 0:
            raise Wrong(f"it takes more than {MAX_STEPS:,} steps")

    def make(self, size: int) -> None:
        """Before something of this size is made."""
        self._made -= size
        if self._made < 0:
            raise Wrong(f"it makes more than {MAX_MADE:,} characters and items")


def kind(value: Any) -> str:
    match value:
        case None:
            return "nil"
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "float"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "map"


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def number(value: Any, what: str) -> int | float:
    if not is_number(value):
        raise Wrong(f"{what} takes a number, this is {_shown(value)}; int(...) makes one of a text")
    found: int | float = value
    return found


def whole(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise Wrong(f"{what} takes a whole number, this is {_shown(value)}")
    return value


def text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise Wrong(f"{what} takes a text, this is {_shown(value)}")
    return value


def truth(value: Any, what: str) -> bool:
    if not isinstance(value, bool):
        raise Wrong(f"{what} takes true or false, this is {_shown(value)}")
    return value


def array(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise Wrong(f"{what} takes a list, this is {_shown(value)}")
    return value


def mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Wrong(f"{what} takes a map, this is {_shown(value)}")
    return value


def in_range(value: int | float) -> int | float:
    """Whole numbers have 64 bits."""
    if isinstance(value, int) and not _LEAST <= value <= _MOST:
        raise Wrong("the result is no whole number of 64 bits")
    return value


def equal(left: Any, right: Any) -> bool:
    """By value; a number is never equal to a text, and asking so is a mistake."""
    if left is None or right is None:
        return left is right
    if is_number(left) and is_number(right):
        return bool(left == right)
    if kind(left) != kind(right):
        raise Wrong(
            f"{_shown(left)} cannot be compared with {_shown(right)}; int(...) or string(...) may help"
        )
    return same(left, right)


def same(left: Any, right: Any) -> bool:
    """As `equal`; of different kinds: False. For items of lists."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(value, right[key]) for key, value in left.items())
    return bool(left == right)


def less(left: Any, right: Any) -> bool:
    is_ordered = (is_number(left) and is_number(right)) or (isinstance(left, str) and isinstance(right, str))
    if not is_ordered:
        raise Wrong(f"{_shown(left)} and {_shown(right)} have no order; int(...) makes a number of a text")
    return bool(left < right)


def size(value: Any) -> int:
    """What it costs to look at all of it."""
    if isinstance(value, str):
        return len(value) // 16 + 1
    if isinstance(value, list):
        return sum(map(size, value)) + 1
    if isinstance(value, dict):
        return sum(map(size, value.values())) + len(value) + 1
    return 1


def as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "nil"
    if isinstance(value, float):
        return _float_text(value)
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "[" + " ".join(map(as_text, value)) + "]"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{as_text(value[key])}" for key in sorted(value)) + "]"
    return str(value)


def _float_text(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value.is_integer() and abs(value) < 1e21 else repr(value)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "a map"
    return "nil" if value is None else f"{as_text(value)}"
