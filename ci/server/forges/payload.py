"""JSON from strangers: parsed within bounds, and read without a surprise of type or text."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from typing import Any, NoReturn

from ci.errors import Invalid
from ci.server.forges.bare import is_ref_name, is_sha

MAX_DEPTH = 64
_MAX_REF = 2000  #: more than a name may have, so that a long one is refused, and not cut


def parse(body: bytes) -> Payload:
    """The object that the body is. Raises Invalid for anything else, and for what is nested too deep."""
    try:
        found: Any = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"the body is no JSON: {str(error)[:200]}") from error
    # Brackets within texts are counted too, so few of them prove it, and many prove nothing.
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH and _is_deeper(found, MAX_DEPTH):
        raise Invalid(f"the body is nested deeper than {MAX_DEPTH} levels")
    if not isinstance(found, dict):
        raise Invalid("the body is no JSON object")
    return Payload(found)


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


def _is_deeper(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            inner
            for each in level
            for inner in (each.values() if isinstance(each, dict) else each if isinstance(each, list) else ())
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def clean(text: str) -> str:
    """As it can be stored and printed: no NUL, no lone surrogate."""
    return text.encode(errors="replace").decode().replace("\0", "\ufffd")


class Payload:
    """An object of a payload. A value of another type than asked for is as one that is not there."""

    def __init__(self, fields: Mapping[str, Any], name: str = "") -> None:
        self._fields = fields
        self._name = name

    def has(self, name: str) -> bool:
        return self._fields.get(name) is not None

    def at(self, name: str) -> Payload:
        """An object within; an empty one if there is none."""
        found = self._fields.get(name)
        return Payload(found if isinstance(found, dict) else {}, f"{self._name}{name}.")

    def each(self, name: str, most: int) -> list[Payload]:
        found = self._fields.get(name)
        objects = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
        return [Payload(one, f"{self._name}{name}.") for one in objects[:most]]

    def text(self, name: str, most: int = 1000) -> str:
        found = self._fields.get(name)
        return clean(found[:most]) if isinstance(found, str) else ""

    def texts(self, name: str, most: int) -> list[str]:
        found = self._fields.get(name)
        words = [one for one in found if isinstance(one, str)] if isinstance(found, list) else []
        return [clean(one[:1000]) for one in words[:most]]

    def flag(self, name: str) -> bool:
        return self._fields.get(name) is True

    def key(self, name: str) -> str:
        """An id: a number, or a text without anything strange; empty if it is neither."""
        found = self._fields.get(name)
        if isinstance(found, int) and not isinstance(found, bool) and 0 <= found < 1 << 63:
            return str(found)
        is_word = isinstance(found, str) and 0 < len(found) <= 100 and found.isascii() and found.isalnum()
        return str(found) if is_word else ""

    def number(self, name: str) -> int:
        """A whole number above 0. Raises Invalid."""
        found = self._fields.get(name)
        if isinstance(found, int) and not isinstance(found, bool) and 0 < found < 1 << 53:
            return found
        raise Invalid(f"{self._name}{name} is no number above 0")

    def sha(self, name: str) -> str:
        """Raises Invalid."""
        found = self._fields.get(name)
        if not isinstance(found, str) or not is_sha(found):
            raise Invalid(f"{self._name}{name} is no commit id of 40 hex digits")
        return found

    def ref(self, name: str) -> str:
        """A full ref name. Raises Invalid."""
        found = self.text(name, _MAX_REF)
        if not is_ref_name(found):
            raise Invalid(f"{self._name}{name} is no full ref name such as refs/heads/main: {found[:80]!r}")
        return found

    def short_ref(self, name: str, kind: str) -> str:
        """The name of a branch (`kind` refs/heads/) or a tag. Raises Invalid."""
        found = self.text(name, _MAX_REF)
        if not is_ref_name(kind + found):
            raise Invalid(f"{self._name}{name} is no name of a branch or tag: {found[:80]!r}")
        return found

    def time(self, name: str) -> float:
        """UTC seconds since 1970; 0 where there is none."""
        try:
            return datetime.datetime.fromisoformat(self.text(name, 40)).timestamp()
        except (ValueError, OverflowError):
            return 0.0
