"""Dialects: which of them a file is written in."""

from __future__ import annotations

from ci.pipeline.dialects.dialect import NATIVE, Dialect

__all__ = ["DIALECTS", "Dialect", "dialect_of"]

DIALECTS = {dialect.name: dialect for dialect in (NATIVE,)}


def dialect_of(file: str, forced: str = "") -> Dialect:
    """The dialect named `forced`, or by the name of the file. Raises KeyError for an unknown name."""
    if forced:
        return DIALECTS[forced]
    return NATIVE
