"""Expression: parsed once, decided for any build."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

from ci.pipeline.expression import nodes, parser, values
from ci.pipeline.expression.errors import BadExpression
from ci.pipeline.expression.evaluator import Evaluator
from ci.pipeline.expression.nodes import Node


@dataclass(frozen=True)
class Expression:
    """Variables are text; one that has no value is the empty text."""

    root: Node

    @property
    def names(self) -> frozenset[str]:
        """The variables that it may read."""
        return frozenset(_names(self.root))

    def evaluate(self, variables: Mapping[str, str]) -> Any:
        """None, a bool, a number, a text, a list or a map. Raises BadExpression."""
        return Evaluator(variables).value(self.root)

    def decide(self, variables: Mapping[str, str]) -> bool:
        """Raises BadExpression, also where the value is neither true nor false."""
        found = self.evaluate(variables)
        if not isinstance(found, bool):
            raise BadExpression(f"it must be true or false, and is {values.kind(found)}")
        return found


@lru_cache(maxsize=256)
def parse(source: str) -> Expression:
    """Raises BadExpression."""
    return Expression(parser.parse(source))


def _names(node: Node) -> Iterator[str]:
    if isinstance(node, nodes.Name) and not node.is_local:
        yield node.name
    if isinstance(node, nodes.Member) and _is_of_all(node) and isinstance(node.key, nodes.Constant):
        yield str(node.key.value)
    for each in fields(node):
        value = getattr(node, each.name)
        for child in value if isinstance(value, tuple) else (value,):
            for inner in child if isinstance(child, tuple) else (child,):
                if isinstance(inner, Node):
                    yield from _names(inner)


def _is_of_all(node: nodes.Member) -> bool:
    return isinstance(node.of, nodes.Environment)
