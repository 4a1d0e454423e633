"""The graph: order, readiness and circles, over names only."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci import graph

NAMES = [f"n{number}" for number in range(8)]
GRAPHS = st.dictionaries(
    st.sampled_from(NAMES), st.lists(st.sampled_from(NAMES), max_size=4, unique=True).map(tuple), max_size=8
)


@st.composite
def acyclic(draw: st.DrawFn) -> dict[str, tuple[str, ...]]:
    edges: dict[str, tuple[str, ...]] = {}
    for name in draw(st.permutations(NAMES)):
        edges[name] = tuple(draw(st.lists(st.sampled_from([*edges]), unique=True))) if edges else ()
    return dict(draw(st.permutations([*edges.items()])))


@given(acyclic())
def test_an_order_respects_every_edge(edges: dict[str, tuple[str, ...]]) -> None:
    found = graph.order(edges)
    assert sorted(found) == sorted(edges)
    assert all(found.index(other) < found.index(node) for node, others in edges.items() for other in others)
    assert graph.find_cycle(edges) == ()


@given(acyclic())
def test_each_node_is_ready_as_soon_as_its_own_edges_have_ended(edges: dict[str, tuple[str, ...]]) -> None:
    ended: set[str] = set()
    while batch := graph.ready(edges, ended):
        assert all(ended >= set(edges[node]) for node in batch)
        assert all(node in batch for node in edges if node not in ended and ended >= set(edges[node]))
        ended.add(batch[0])
    assert ended == set(edges)


@given(GRAPHS)
def test_a_circle_is_a_real_path_and_found_if_there_is_one(edges: dict[str, tuple[str, ...]]) -> None:
    path = graph.find_cycle(edges)
    if not path:
        graph.order(edges)
        return
    assert path[0] == path[-1]
    assert all(after in edges[before] for before, after in itertools.pairwise(path))
    with pytest.raises(ValueError, match=r"a cycle: .* -> "):
        graph.order(edges)


@given(acyclic(), st.sets(st.sampled_from(NAMES)))
def test_without_a_node_its_dependants_wait_for_what_it_waited_for(
    edges: dict[str, tuple[str, ...]], left_out: set[str]
) -> None:
    kept = graph.without(edges, left_out)
    before, after = graph.ancestors(edges), graph.ancestors(kept)
    assert set(kept) == set(edges) - left_out
    assert all(after[node] == before[node] - left_out for node in kept)


def test_what_has_begun_is_not_ready_again() -> None:
    edges: dict[str, tuple[str, ...]] = {"a": (), "b": (), "c": ("a",)}
    assert graph.ready(edges, set()) == ["a", "b"]
    assert graph.ready(edges, {"a"}, begun=["b"]) == ["c"]


def test_no_deep_graph_is_recursed_into() -> None:
    edges = {f"n{n}": (f"n{n - 1}",) if n else () for n in reversed(range(20_000))}
    assert graph.order(edges)[-1] == "n19999"
    assert len(graph.find_cycle({**edges, "n0": ("n19999",)})) == 20_001
