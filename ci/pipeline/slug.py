"""Slugs: names of any shape as `[a-z0-9-]`, unique and always the same for the same file."""

from __future__ import annotations

import re
import unicodedata

_LENGTH = 40


def slug_of(name: str) -> str:
    """At most 40 characters; `x` where nothing of the name is left."""
    plain = unicodedata.normalize("NFKD", name[:400].lower()).encode("ascii", "ignore").decode()
    words = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    return words[:_LENGTH].strip("-") or "x"


class Slugs:
    """Those of one job or build; the second `test` becomes `test-2`."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._next: dict[str, int] = {}

    def take(self, name: str) -> str:
        stem = found = slug_of(name)
        while found in self._taken:
            number = self._next[stem] = self._next.get(stem, 1) + 1
            found = f"{stem}-{number}"
        self._taken.add(found)
        return found
