"""Nodes: what the parser makes of an expression. `offset` is the place in the source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant(Node):
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Name(Node):
    """A variable; `is_local`: of a `let`."""

    name: str
    is_local: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment(Node):
    """`$env`: all variables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Element(Node):
    """`#`, `#index`, `#acc` of the innermost predicate."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unary(Node):
    operator: str
    operand: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Binary(Node):
    operator: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison(Node):
    """`a < b <= c`: each pair holds, and each operand is evaluated once."""

    operators: tuple[str, ...]
    operands: tuple[Node, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditional(Node):
    condition: Node
    then: Node
    otherwise: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Let(Node):
    name: str
    value: Node
    body: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence(Node):
    """The value of the last one."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member(Node):
    """`is_optional`: nil of nil ends the whole chain as nil."""

    of: Node
    key: Node
    is_optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain(Node):
    """Members of which one is optional."""

    node: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice(Node):
    of: Node
    start: Node | None
    stop: Node | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Array(Node):
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Map(Node):
    pairs: tuple[tuple[Node, Node], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicate(Node):
    """Evaluated once for each element."""

    body: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Node):
    function: str
    arguments: tuple[Node, ...]
