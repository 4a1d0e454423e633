"""Dialects: which of them a file is written in."""

from __future__ import annotations

from collections.abc import Sequence

from ci.pipeline.dialects.dialect import NATIVE, Dialect
from ci.pipeline.dialects.drone import DRONE
from ci.pipeline.dialects.woodpecker import WOODPECKER
from ci.pipeline.yaml import Node

__all__ = ["DIALECTS", "Dialect", "dialect_of", "recognised"]

#: By name, in the order in which a repo's files are looked for.
DIALECTS = {dialect.name: dialect for dialect in (NATIVE, WOODPECKER, DRONE)}


def dialect_of(file: str, forced: str = "") -> Dialect:
    """The dialect named `forced`, or by the name of the file. Raises KeyError for an unknown name."""
    if forced:
        return DIALECTS[forced]
    return next((dialect for dialect in DIALECTS.values() if dialect.is_named(file)), NATIVE)


def recognised(documents: Sequence[Node]) -> Dialect:
    """The dialect of a file whose name says nothing, by what it says."""
    return next((dialect for dialect in DIALECTS.values() if dialect.recognises(documents)), NATIVE)
