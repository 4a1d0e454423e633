"""Graph: who waits for whom, over names only. Law 9: no levels; each node is ready by its own edges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

#: A node and the nodes that it waits for, each once, in an order that is kept.
Edges = Mapping[str, tuple[str, ...]]


def find_cycle(edges: Edges) -> tuple[str, ...]:
    """The path of one cycle, its first node again at the end; empty where there is none."""
    left = dict(edges)
    for node in order_or_rest(edges)[0]:
        del left[node]
    if not left:
        return ()
    # Each node that is left waits for another one that is left: walking on must come back.
    node, seen = next(iter(left)), dict[str, None]()
    while node not in seen:
        seen[node] = None
        node = next(other for other in left[node] if other in left)
    path = list(seen)
    return (*path[path.index(node) :], node)


def order_or_rest(edges: Edges) -> tuple[list[str], list[str]]:
    """An order that respects every edge, first come first; and the nodes that no order has (cycles, and
    what waits for them). Edges to nodes that do not exist hold nothing up."""
    waits = {node: {other for other in others if other in edges} for node, others in edges.items()}
    dependants: dict[str, list[str]] = {node: [] for node in edges}
    for node, others in waits.items():
        for other in others:
            dependants[other].append(node)
    found = [node for node, others in waits.items() if not others]
    for node in found:  # grows as it goes
        for dependant in dependants[node]:
            waits[dependant].discard(node)
            if not waits[dependant]:
                found.append(dependant)
    done = set(found)
    return found, [node for node in edges if node not in done]


def order(edges: Edges) -> list[str]:
    """An order that respects every edge. Raises ValueError with the path of a cycle."""
    found, rest = order_or_rest(edges)
    if rest:
        raise ValueError(f"a cycle: {' -> '.join(find_cycle(edges))}")
    return found


def ready(edges: Edges, ended: Set[str], begun: Iterable[str] = ()) -> list[str]:
    """The nodes that may begin now: all that they wait for has ended, and they have not begun."""
    taken = ended | set(begun)
    return [node for node, others in edges.items() if node not in taken and ended >= set(others)]


def ancestors(edges: Edges) -> dict[str, frozenset[str]]:
    """For each node all that it waits for, over any number of edges. The graph must have no cycle."""
    found: dict[str, frozenset[str]] = {}
    for node in order(edges):
        direct = frozenset(other for other in edges[node] if other in edges)
        found[node] = direct.union(*(found[other] for other in direct))
    return found


def without(edges: Edges, left_out: Set[str]) -> dict[str, tuple[str, ...]]:
    """The graph without some nodes: who waited for one of them waits for what it waited for."""
    resolved: dict[str, tuple[str, ...]] = {}
    for node in order(edges):
        waits: dict[str, None] = {}
        for other in edges[node]:
            waits.update(dict.fromkeys(resolved[other] if other in left_out else (other,)))
        resolved[node] = tuple(waits)
    return {node: resolved[node] for node in edges if node not in left_out}
