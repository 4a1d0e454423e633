"""Expressions of `evaluate`. The language is not here yet: each one is refused."""

from collections.abc import Mapping
from typing import Protocol


class BadExpression(ValueError):
    """What is wrong with an expression, as a sentence. `offset` is the character of its source."""

    def __init__(self, message: str, offset: int = 0) -> None:
        super().__init__(message)
        self.offset = offset


class Expression(Protocol):
    def decide(self, variables: Mapping[str, str]) -> bool: ...


def parse(source: str) -> Expression:
    """Raises BadExpression."""
    raise BadExpression("an expression is not yet supported")
