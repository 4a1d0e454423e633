"""Patterns: the regular expressions of `matches`, in time linear in the text."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import re2

from ci.pipeline.expression.errors import BadExpression

_MEMORY_BYTES = 1 << 20


def compiled(pattern: str, offset: int) -> Any:
    """Raises BadExpression."""
    try:
        return _compiled(pattern)
    except re2.error as error:
        why = str(error.args[0] if error.args else error)
        raise BadExpression(f"{pattern[:60]!r} is no regular expression: {_words(why)}", offset) from None


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MEMORY_BYTES
    return re2.compile(pattern, options=options)


def _words(why: str) -> str:
    return why[2:-1] if why.startswith("b'") else why
