"""What is wrong with an expression."""

from __future__ import annotations


class BadExpression(ValueError):
    """A sentence. `offset` is the character of the source, from 0."""

    def __init__(self, message: str, offset: int = 0) -> None:
        super().__init__(message)
        self.offset = offset
