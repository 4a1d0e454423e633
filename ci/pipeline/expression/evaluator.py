"""Evaluator: the value of an expression for one build's variables."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ci.pipeline.expression import nodes, patterns, values
from ci.pipeline.expression.errors import BadExpression
from ci.pipeline.expression.functions import FUNCTIONS, sorted_by
from ci.pipeline.expression.nodes import Node
from ci.pipeline.expression.values import Budget, Wrong


class _Stop(Exception):
    """A chain met nil at `?.`."""


class Evaluator:
    """For one evaluation."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self._budget = Budget()
        self._locals: list[tuple[str, Any]] = []
        self._elements: list[dict[str, Any]] = []

    def value(self, node: Node) -> Any:
        """Raises BadExpression."""
        try:
            self._budget.step()
            return _HOW[type(node)](self, node)
        except Wrong as error:
            raise BadExpression(str(error), node.offset) from None

    # --- names ------------------------------------------------------------------------------------------

    def _constant(self, node: nodes.Constant) -> Any:
        return node.value

    def _name(self, node: nodes.Name) -> Any:
        if node.is_local:
            return next(value for name, value in reversed(self._locals) if name == node.name)
        return self._variables.get(node.name, "")

    def _environment(self, _: nodes.Environment) -> Any:
        self._budget.make(len(self._variables))
        return dict(self._variables)

    def _element(self, node: nodes.Element) -> Any:
        element = self._elements[-1]
        if node.name == "acc" and "acc" not in element:
            raise Wrong("#acc is for the predicate of reduce")
        return element[node.name]

    def _let(self, node: nodes.Let) -> Any:
        self._locals.append((node.name, self.value(node.value)))
        try:
            return self.value(node.body)
        finally:
            self._locals.pop()

    def _sequence(self, node: nodes.Sequence) -> Any:
        return [self.value(part) for part in node.parts][-1]

    # --- operators ----------------------------------------------------------------------------------------

    def _conditional(self, node: nodes.Conditional) -> Any:
        condition = values.truth(self.value(node.condition), "a condition")
        return self.value(node.then if condition else node.otherwise)

    def _unary(self, node: nodes.Unary) -> Any:
        operand = self.value(node.operand)
        if node.operator == "not":
            return not values.truth(operand, "not")
        number = values.number(operand, f"the sign {node.operator}")
        return values.in_range(-number) if node.operator == "-" else number

    def _binary(self, node: nodes.Binary) -> Any:
        if node.operator in ("and", "or"):
            left = values.truth(self.value(node.left), node.operator)
            if left is (node.operator == "or"):
                return left
            return values.truth(self.value(node.right), node.operator)
        if node.operator == "??":
            left = self.value(node.left)
            return self.value(node.right) if left is None else left
        return _OPERATORS[node.operator](self._budget, self.value(node.left), self.value(node.right))

    def _comparison(self, node: nodes.Comparison) -> Any:
        left = self.value(node.operands[0])
        for operator, operand in zip(node.operators, node.operands[1:], strict=True):
            right = self.value(operand)
            self._budget.step(values.size(left))
            if not _COMPARED[operator](left, right):
                return False
            left = right
        return True

    # --- members --------------------------------------------------------------------------------------------

    def _chain(self, node: nodes.Chain) -> Any:
        try:
            return self.value(node.node)
        except _Stop:
            return None

    def _member(self, node: nodes.Member) -> Any:
        of = self._variables if isinstance(node.of, nodes.Environment) else self.value(node.of)
        if of is None and node.is_optional:
            raise _Stop
        key = self.value(node.key)
        if isinstance(of, Mapping):
            found = of.get(values.text(key, "a map"))
            return "" if found is None and of is self._variables else found
        if isinstance(of, list):
            place = values.whole(key, "a list")
            if not -len(of) <= place < len(of):
                raise Wrong(f"the list has {len(of)} items, and none at {place}")
            return of[place]
        raise Wrong(f"{values.kind(of)} has no members; a map or a list has")

    def _slice(self, node: nodes.Slice) -> Any:
        of = self.value(node.of)
        if not isinstance(of, str | list):
            raise Wrong(f"a part is taken of a text or a list, not of {values.kind(of)}")
        start = 0 if node.start is None else values.whole(self.value(node.start), "a part")
        stop = len(of) if node.stop is None else values.whole(self.value(node.stop), "a part")
        self._budget.make(len(of))
        return of[start:stop]

    def _array(self, node: nodes.Array) -> Any:
        self._budget.make(len(node.items))
        return [self.value(item) for item in node.items]

    def _map(self, node: nodes.Map) -> Any:
        self._budget.make(len(node.pairs))
        return {
            values.text(self.value(key), "the key of a map"): self.value(each) for key, each in node.pairs
        }

    # --- calls ----------------------------------------------------------------------------------------------

    def _call(self, node: nodes.Call) -> Any:
        how = _PREDICATES.get(node.function)
        if how is not None:
            return how(self, *node.arguments)
        function = FUNCTIONS[node.function].call
        assert function is not None, "the parser refuses those that cannot be called"
        return function(self._budget, *(self.value(argument) for argument in node.arguments))

    def _each(self, items: Node, predicate: Node, **more: Any) -> Iterator[tuple[Any, Any]]:
        """Each element with what the predicate says of it. `more`: what the predicate sees beside it."""
        assert isinstance(predicate, nodes.Predicate)
        for index, item in enumerate(values.array(self.value(items), "a predicate")):
            yield item, self._said(predicate, {"": item, "index": index, **more})

    def _said(self, predicate: nodes.Predicate, element: dict[str, Any]) -> Any:
        self._elements.append(element)
        try:
            return self.value(predicate.body)
        finally:
            self._elements.pop()

    def _held(self, items: Node, predicate: Node) -> Iterator[tuple[Any, bool]]:
        for item, said in self._each(items, predicate):
            yield item, values.truth(said, "a predicate")

    def _all(self, items: Node, predicate: Node) -> bool:
        return all(holds for _, holds in self._held(items, predicate))

    def _any(self, items: Node, predicate: Node) -> bool:
        return any(holds for _, holds in self._held(items, predicate))

    def _none(self, items: Node, predicate: Node) -> bool:
        return not self._any(items, predicate)

    def _one(self, items: Node, predicate: Node) -> bool:
        return sum(holds for _, holds in self._held(items, predicate)) == 1

    def _mapped(self, items: Node, predicate: Node) -> list[Any]:
        found = [said for _, said in self._each(items, predicate)]
        self._budget.make(len(found))
        return found

    def _filter(self, items: Node, predicate: Node) -> list[Any]:
        found = [item for item, holds in self._held(items, predicate) if holds]
        self._budget.make(len(found))
        return found

    def _find(self, items: Node, predicate: Node) -> Any:
        return next((item for item, holds in self._held(items, predicate) if holds), None)

    def _find_last(self, items: Node, predicate: Node) -> Any:
        return next((item for item, holds in reversed(list(self._held(items, predicate))) if holds), None)

    def _find_index(self, items: Node, predicate: Node) -> Any:
        held = enumerate(holds for _, holds in self._held(items, predicate))
        return next((index for index, holds in held if holds), None)

    def _find_last_index(self, items: Node, predicate: Node) -> Any:
        held = list(enumerate(holds for _, holds in self._held(items, predicate)))
        return next((index for index, holds in reversed(held) if holds), None)

    def _count(self, items: Node, predicate: Node | None = None) -> int:
        if predicate is None:
            found = values.array(self.value(items), "count")
            return sum(values.truth(item, "count") for item in found)
        return sum(holds for _, holds in self._held(items, predicate))

    def _sum(self, items: Node, predicate: Node | None = None) -> Any:
        if predicate is None:
            found = values.array(self.value(items), "sum")
        else:
            found = [said for _, said in self._each(items, predicate)]
        return values.in_range(sum(values.number(each, "sum") for each in found))

    def _group_by(self, items: Node, predicate: Node) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for item, said in self._each(items, predicate):
            self._budget.make(1)
            found.setdefault(values.as_text(said), []).append(item)
        return found

    def _sort_by(self, items: Node, predicate: Node, order: Node | None = None) -> list[Any]:
        pairs = list(self._each(items, predicate))
        words = "asc" if order is None else self.value(order)
        return sorted_by(self._budget, [item for item, _ in pairs], [said for _, said in pairs], words)

    def _reduce(self, items: Node, predicate: Node, first: Node | None = None) -> Any:
        assert isinstance(predicate, nodes.Predicate)
        found = values.array(self.value(items), "reduce")
        if first is None and not found:
            raise Wrong("reduce takes a list that is not empty, or a first value")
        result = found[0] if first is None else self.value(first)
        for index, item in list(enumerate(found))[1 if first is None else 0 :]:
            result = self._said(predicate, {"": item, "index": index, "acc": result})
        return result


# --- operators -------------------------------------------------------------------------------------------


def _plus(budget: Budget, left: Any, right: Any) -> Any:
    if isinstance(left, str) and isinstance(right, str):
        budget.make(len(left) + len(right))
        return left + right
    if isinstance(left, str) or isinstance(right, str):
        raise Wrong("+ takes two texts or two numbers; string(...) makes a text of a number")
    return values.in_range(values.number(left, "+") + values.number(right, "+"))


def _times(_: Budget, left: Any, right: Any) -> Any:
    return values.in_range(values.number(left, "*") * values.number(right, "*"))


def _minus(_: Budget, left: Any, right: Any) -> Any:
    return values.in_range(values.number(left, "-") - values.number(right, "-"))


def _divided(_: Budget, left: Any, right: Any) -> float:
    above, below = float(values.number(left, "/")), float(values.number(right, "/"))
    if below == 0:
        return math.nan if above == 0 or math.isnan(above) else math.copysign(math.inf, above)
    return above / below


def _remainder(_: Budget, left: Any, right: Any) -> int:
    above, below = values.whole(left, "%"), values.whole(right, "%")
    if below == 0:
        raise Wrong("% takes no 0 on its right")
    found = abs(above) % abs(below)
    return -found if above < 0 else found


def _power(_: Budget, left: Any, right: Any) -> float:
    base, exponent = float(values.number(left, "**")), float(values.number(right, "**"))
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return math.inf
    except ValueError:
        return math.nan


def _range(budget: Budget, left: Any, right: Any) -> list[int]:
    start, stop = values.whole(left, ".."), values.whole(right, "..")
    budget.make(max(0, stop - start + 1))
    return list(range(start, stop + 1))


def _in(budget: Budget, item: Any, of: Any) -> bool:
    if isinstance(of, dict):
        return isinstance(item, str) and item in of
    if isinstance(of, list):
        budget.step(values.size(of))
        return any(values.same(item, each) for each in of)
    if of is None:
        return False
    raise Wrong(f"in looks into a list or a map, not into {values.kind(of)}; a text is asked with contains")


def _matches(budget: Budget, text: Any, pattern: Any) -> bool:
    whole, wanted = values.text(text, "matches"), values.text(pattern, "matches")
    budget.step(len(whole) // 16 + 1)
    try:
        return patterns.compiled(wanted, 0).search(whole) is not None
    except BadExpression as error:
        raise Wrong(str(error)) from None


def _contains(_: Budget, text: Any, part: Any) -> bool:
    return values.text(part, "contains") in values.text(text, "contains")


def _starts(_: Budget, text: Any, part: Any) -> bool:
    return values.text(text, "startsWith").startswith(values.text(part, "startsWith"))


def _ends(_: Budget, text: Any, part: Any) -> bool:
    return values.text(text, "endsWith").endswith(values.text(part, "endsWith"))


_OPERATORS: dict[str, Callable[[Budget, Any, Any], Any]] = {
    "+": _plus,
    "-": _minus,
    "*": _times,
    "/": _divided,
    "%": _remainder,
    "**": _power,
    "..": _range,
    "in": _in,
    "matches": _matches,
    "contains": _contains,
    "startsWith": _starts,
    "endsWith": _ends,
}
_COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "==": values.equal,
    "!=": lambda left, right: not values.equal(left, right),
    "<": values.less,
    ">": lambda left, right: values.less(right, left),
    "<=": lambda left, right: values.less(left, right) or values.equal(left, right),
    ">=": lambda left, right: values.less(right, left) or values.equal(left, right),
}
_PREDICATES: dict[str, Callable[..., Any]] = {
    "all": Evaluator._all,
    "any": Evaluator._any,
    "one": Evaluator._one,
    "none": Evaluator._none,
    "map": Evaluator._mapped,
    "filter": Evaluator._filter,
    "find": Evaluator._find,
    "findIndex": Evaluator._find_index,
    "findLast": Evaluator._find_last,
    "findLastIndex": Evaluator._find_last_index,
    "groupBy": Evaluator._group_by,
    "count": Evaluator._count,
    "sum": Evaluator._sum,
    "sortBy": Evaluator._sort_by,
    "reduce": Evaluator._reduce,
}
_HOW: dict[type[Node], Callable[[Evaluator, Any], Any]] = {
    nodes.Constant: Evaluator._constant,
    nodes.Name: Evaluator._name,
    nodes.Environment: Evaluator._environment,
    nodes.Element: Evaluator._element,
    nodes.Let: Evaluator._let,
    nodes.Sequence: Evaluator._sequence,
    nodes.Conditional: Evaluator._conditional,
    nodes.Unary: Evaluator._unary,
    nodes.Binary: Evaluator._binary,
    nodes.Comparison: Evaluator._comparison,
    nodes.Chain: Evaluator._chain,
    nodes.Member: Evaluator._member,
    nodes.Slice: Evaluator._slice,
    nodes.Array: Evaluator._array,
    nodes.Map: Evaluator._map,
    nodes.Call: Evaluator._call,
}
