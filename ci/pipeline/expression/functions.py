"""Functions of expressions: one table. Those with a predicate are run by the evaluator."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cmp_to_key, partial
from typing import Any

from ci.pipeline.expression import values
from ci.pipeline.expression.values import Budget, Wrong

_MANY = 1000


@dataclass(frozen=True, kw_only=True)
class Function:
    """`least` and `most` arguments. `call` gets the budget and the values."""

    least: int
    most: int
    call: Callable[..., Any] | None = None
    refusal: str = ""  #: why it cannot be used


def _trim(_: Budget, text: Any, characters: Any = None) -> str:
    found = values.text(text, "trim")
    return found.strip() if characters is None else found.strip(values.text(characters, "trim"))


def _trim_prefix(_: Budget, text: Any, prefix: Any = " ") -> str:
    return values.text(text, "trimPrefix").removeprefix(values.text(prefix, "trimPrefix"))


def _trim_suffix(_: Budget, text: Any, suffix: Any = " ") -> str:
    return values.text(text, "trimSuffix").removesuffix(values.text(suffix, "trimSuffix"))


def _upper(budget: Budget, text: Any) -> str:
    budget.make(len(values.text(text, "upper")))
    return str(text).upper()


def _lower(budget: Budget, text: Any) -> str:
    budget.make(len(values.text(text, "lower")))
    return str(text).lower()


def _pieces(budget: Budget, text: Any, by: Any, most: Any, what: str) -> list[str]:
    whole, delimiter = values.text(text, what), values.text(by, what)
    budget.make(len(whole) + 1)
    count = -1 if most is None else values.whole(most, what)
    if count == 0:
        return []
    if not delimiter:
        found = list(whole)
        return (
            found if count < 0 or len(found) <= count else [*found[: count - 1], "".join(found[count - 1 :])]
        )
    return whole.split(delimiter, -1 if count < 0 else count - 1)


def _split(budget: Budget, text: Any, by: Any, most: Any = None) -> list[str]:
    return _pieces(budget, text, by, most, "split")


def _split_after(budget: Budget, text: Any, by: Any, most: Any = None) -> list[str]:
    found = _pieces(budget, text, by, most, "splitAfter")
    return [piece + str(by) for piece in found[:-1]] + found[-1:]


def _replace(budget: Budget, text: Any, old: Any, new: Any, most: Any = None) -> str:
    whole, gone, come = (values.text(each, "replace") for each in (text, old, new))
    count = -1 if most is None else values.whole(most, "replace")
    found = whole.count(gone) if count < 0 else min(whole.count(gone), count)
    budget.make(len(whole) + found * len(come))
    return whole.replace(gone, come, count)


def _repeat(budget: Budget, text: Any, count: Any) -> str:
    whole, times = values.text(text, "repeat"), values.whole(count, "repeat")
    if times < 0:
        raise Wrong("repeat takes a count from 0 on")
    budget.make(len(whole) * times)
    return whole * times


def _join(budget: Budget, items: Any, by: Any = "") -> str:
    found = [values.text(item, "join") for item in values.array(items, "join")]
    delimiter = values.text(by, "join")
    budget.make(sum(map(len, found)) + len(found) * len(delimiter))
    return delimiter.join(found)


def _index_of(_: Budget, text: Any, part: Any) -> int:
    return values.text(text, "indexOf").find(values.text(part, "indexOf"))


def _last_index_of(_: Budget, text: Any, part: Any) -> int:
    return values.text(text, "lastIndexOf").rfind(values.text(part, "lastIndexOf"))


def _has_prefix(_: Budget, text: Any, prefix: Any) -> bool:
    return values.text(text, "hasPrefix").startswith(values.text(prefix, "hasPrefix"))


def _has_suffix(_: Budget, text: Any, suffix: Any) -> bool:
    return values.text(text, "hasSuffix").endswith(values.text(suffix, "hasSuffix"))


# --- numbers -------------------------------------------------------------------------------------------


def _numbers(given: tuple[Any, ...], what: str) -> list[int | float]:
    """Of arguments, and of lists among them."""
    found: list[int | float] = []
    for each in given:
        found += _numbers(tuple(each), what) if isinstance(each, list) else [values.number(each, what)]
    return found


def _most(_: Budget, *given: Any) -> int | float | None:
    return max(_numbers(given, "max"), default=None)


def _least(_: Budget, *given: Any) -> int | float | None:
    return min(_numbers(given, "min"), default=None)


def _abs(_: Budget, value: Any) -> int | float:
    return values.in_range(abs(values.number(value, "abs")))


def _rounded(how: Callable[[float], float], what: str, _: Budget, value: Any) -> float:
    found = float(values.number(value, what))
    return found if math.isnan(found) or math.isinf(found) else float(how(found))


def _half_away(value: float) -> float:
    return math.copysign(math.floor(abs(value) + 0.5), value)


def _mean(_: Budget, *given: Any) -> float:
    found = _numbers(given, "mean")
    return float(sum(found) / len(found)) if found else 0.0


def _median(_: Budget, *given: Any) -> float:
    found = sorted(_numbers(given, "median"))
    if not found:
        return 0.0
    middle = len(found) // 2
    return float(found[middle]) if len(found) % 2 else (found[middle - 1] + found[middle]) / 2


def _bits(how: Callable[[int, int], int], what: str, _: Budget, left: Any, right: Any) -> int:
    found = how(values.whole(left, what), values.whole(right, what))
    return int(values.in_range(found))


def _bit_not(_: Budget, value: Any) -> int:
    return ~values.whole(value, "bitnot")


def _shift(what: str, _: Budget, left: Any, right: Any) -> int:
    value, places = values.whole(left, what), values.whole(right, what)
    if not 0 <= places < 64:
        raise Wrong(f"{what} takes 0 to 63 places")
    mask = (1 << 64) - 1
    if what == "bitshr":
        return value >> places
    found = ((value & mask) << places if what == "bitshl" else (value & mask) >> places) & mask
    return found - (1 << 64) if found >> 63 else found


# --- lists and maps ------------------------------------------------------------------------------------


def _len(_: Budget, value: Any) -> int:
    if not isinstance(value, str | list | dict):
        raise Wrong(f"len takes a text, a list or a map, not {values.kind(value)}")
    return len(value)


def _first(_: Budget, items: Any) -> Any:
    return next(iter(values.array(items, "first")), None)


def _last(_: Budget, items: Any) -> Any:
    found = values.array(items, "last")
    return found[-1] if found else None


def _take(budget: Budget, items: Any, count: Any) -> list[Any]:
    found, most = values.array(items, "take"), values.whole(count, "take")
    if most < 0:
        raise Wrong("take takes a count from 0 on")
    budget.make(min(most, len(found)))
    return found[:most]


def _reverse(budget: Budget, items: Any) -> list[Any]:
    budget.make(len(values.array(items, "reverse")))
    return list(reversed(items))


def _concat(budget: Budget, *lists: Any) -> list[Any]:
    found = [values.array(each, "concat") for each in lists]
    budget.make(sum(map(len, found)))
    return [item for each in found for item in each]


def _flatten(budget: Budget, items: Any) -> list[Any]:
    found: list[Any] = []
    for item in values.array(items, "flatten"):
        budget.step()
        inner = _flatten(budget, item) if isinstance(item, list) else [item]
        budget.make(len(inner))
        found += inner
    return found


def _uniq(budget: Budget, items: Any) -> list[Any]:
    found: list[Any] = []
    for item in values.array(items, "uniq"):
        budget.step(1 + len(found) * values.size(item))
        if not any(values.same(item, other) for other in found):
            found.append(item)
    return found


def _compare(left: Any, right: Any) -> int:
    if values.less(left, right):
        return -1
    return 1 if values.less(right, left) else 0


def sorted_by(budget: Budget, items: list[Any], keys: list[Any], order: Any) -> list[Any]:
    if order not in ("asc", "desc"):
        raise Wrong('the order is "asc" or "desc"')
    budget.step(sum(map(values.size, keys)) * max(1, len(keys).bit_length()))
    budget.make(len(items))
    sign = 1 if order == "asc" else -1  # equal ones stay in their order, either way

    def compare(left: int, right: int) -> int:
        return sign * _compare(keys[left], keys[right])

    return [items[place] for place in sorted(range(len(items)), key=cmp_to_key(compare))]


def _sort(budget: Budget, items: Any, order: Any = "asc") -> list[Any]:
    found = values.array(items, "sort")
    return sorted_by(budget, found, found, order)


def _keys(budget: Budget, value: Any) -> list[str]:
    budget.make(len(values.mapping(value, "keys")))
    return list(value)


def _values(budget: Budget, value: Any) -> list[Any]:
    budget.make(len(values.mapping(value, "values")))
    return list(value.values())


def _to_pairs(budget: Budget, value: Any) -> list[Any]:
    budget.make(2 * len(values.mapping(value, "toPairs")))
    return [[key, each] for key, each in value.items()]


def _from_pairs(budget: Budget, pairs: Any) -> dict[str, Any]:
    found = {}
    budget.make(len(values.array(pairs, "fromPairs")))
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2:
            raise Wrong("fromPairs takes a list of pairs")
        found[values.text(pair[0], "fromPairs")] = pair[1]
    return found


def _get(_: Budget, of: Any, key: Any) -> Any:
    if isinstance(of, dict):
        return of.get(key) if isinstance(key, str) else None
    if isinstance(of, list) and isinstance(key, int) and not isinstance(key, bool):
        return of[key] if -len(of) <= key < len(of) else None
    return None


# --- other forms ---------------------------------------------------------------------------------------


def _type(_: Budget, value: Any) -> str:
    return values.kind(value)


def _int(_: Budget, value: Any) -> int | float:
    if isinstance(value, str):
        digits = value.removeprefix("-").removeprefix("+")
        if not (digits.isascii() and digits.isdigit() and len(digits) < 30):
            raise Wrong(f"int takes a whole number, not the text {value[:40]!r}")
        return values.in_range(int(value))
    found = values.number(value, "int")
    if isinstance(found, float) and (math.isnan(found) or math.isinf(found)):
        raise Wrong("int takes a number that has an end")
    return values.in_range(int(found))


def _float(_: Budget, value: Any) -> float:
    if isinstance(value, str):
        try:
            return float(value if value == value.strip() and "_" not in value else "no")
        except ValueError:
            raise Wrong(f"float takes a number, not the text {value[:40]!r}") from None
    return float(values.number(value, "float"))


def _string(budget: Budget, value: Any) -> str:
    budget.step(values.size(value))
    found = values.as_text(value)
    budget.make(len(found))
    return found


def _to_json(budget: Budget, value: Any) -> str:
    budget.step(values.size(value))
    try:
        found = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False)
    except ValueError:
        raise Wrong("toJSON takes numbers that have an end") from None
    budget.make(len(found))
    return found


def _from_json(budget: Budget, value: Any) -> Any:
    source = values.text(value, "fromJSON")
    budget.make(len(source))
    try:
        found = json.loads(source, parse_int=_json_int, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Wrong("fromJSON takes JSON, and this text is none") from None
    budget.step(values.size(found))
    return found


def _json_int(digits: str) -> float:
    """Numbers of JSON are floats, as there."""
    return float(digits) if len(digits) < 400 else math.inf


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _to_base64(budget: Budget, value: Any) -> str:
    data = values.text(value, "toBase64").encode(errors="replace")
    budget.make(2 * len(data))
    return base64.b64encode(data).decode()


def _from_base64(budget: Budget, value: Any) -> str:
    source = values.text(value, "fromBase64")
    budget.make(len(source))
    try:
        return base64.b64decode(source.encode(), validate=True).decode(errors="replace")
    except (binascii.Error, ValueError):
        raise Wrong("fromBase64 takes base64, and this text is none") from None


def _of(least: int, most: int, call: Callable[..., Any]) -> Function:
    return Function(least=least, most=most, call=call)


_DATES = "a decision must be the same whenever it is made; compare times in a step"
FUNCTIONS: dict[str, Function] = {
    "trim": _of(1, 2, _trim),
    "trimPrefix": _of(1, 2, _trim_prefix),
    "trimSuffix": _of(1, 2, _trim_suffix),
    "upper": _of(1, 1, _upper),
    "lower": _of(1, 1, _lower),
    "split": _of(2, 3, _split),
    "splitAfter": _of(2, 3, _split_after),
    "replace": _of(3, 4, _replace),
    "repeat": _of(2, 2, _repeat),
    "join": _of(1, 2, _join),
    "indexOf": _of(2, 2, _index_of),
    "lastIndexOf": _of(2, 2, _last_index_of),
    "hasPrefix": _of(2, 2, _has_prefix),
    "hasSuffix": _of(2, 2, _has_suffix),
    "max": _of(1, _MANY, _most),
    "min": _of(1, _MANY, _least),
    "abs": _of(1, 1, _abs),
    "ceil": _of(1, 1, partial(_rounded, math.ceil, "ceil")),
    "floor": _of(1, 1, partial(_rounded, math.floor, "floor")),
    "round": _of(1, 1, partial(_rounded, _half_away, "round")),
    "mean": _of(1, _MANY, _mean),
    "median": _of(1, _MANY, _median),
    "bitand": _of(2, 2, partial(_bits, lambda a, b: a & b, "bitand")),
    "bitor": _of(2, 2, partial(_bits, lambda a, b: a | b, "bitor")),
    "bitxor": _of(2, 2, partial(_bits, lambda a, b: a ^ b, "bitxor")),
    "bitnand": _of(2, 2, partial(_bits, lambda a, b: a & ~b, "bitnand")),
    "bitnot": _of(1, 1, _bit_not),
    "bitshl": _of(2, 2, partial(_shift, "bitshl")),
    "bitshr": _of(2, 2, partial(_shift, "bitshr")),
    "bitushr": _of(2, 2, partial(_shift, "bitushr")),
    "len": _of(1, 1, _len),
    "first": _of(1, 1, _first),
    "last": _of(1, 1, _last),
    "take": _of(2, 2, _take),
    "reverse": _of(1, 1, _reverse),
    "concat": _of(1, _MANY, _concat),
    "flatten": _of(1, 1, _flatten),
    "uniq": _of(1, 1, _uniq),
    "sort": _of(1, 2, _sort),
    "keys": _of(1, 1, _keys),
    "values": _of(1, 1, _values),
    "toPairs": _of(1, 1, _to_pairs),
    "fromPairs": _of(1, 1, _from_pairs),
    "get": _of(2, 2, _get),
    "type": _of(1, 1, _type),
    "int": _of(1, 1, _int),
    "float": _of(1, 1, _float),
    "string": _of(1, 1, _string),
    "toJSON": _of(1, 1, _to_json),
    "fromJSON": _of(1, 1, _from_json),
    "toBase64": _of(1, 1, _to_base64),
    "fromBase64": _of(1, 1, _from_base64),
    **{name: Function(least=0, most=0, refusal=_DATES) for name in ("now", "date", "duration", "timezone")},
}
#: The second argument is a predicate: the evaluator runs them.
PREDICATES: dict[str, Function] = {
    **{
        name: Function(least=2, most=2)
        for name in (
            *("all", "any", "one", "none", "map", "filter"),
            *("find", "findIndex", "findLast", "findLastIndex", "groupBy"),
        )
    },
    "count": Function(least=1, most=2),
    "sum": Function(least=1, most=2),
    "sortBy": Function(least=2, most=3),
    "reduce": Function(least=2, most=3),
}
