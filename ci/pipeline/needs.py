"""Needs: reads `depends_on`, and looks whether what steps and services wait for can ever end."""

from __future__ import annotations

from collections.abc import Sequence

from ci import graph
from ci.pipeline.fields import Fields, Reader
from ci.pipeline.model import Container, Need, Service, Step
from ci.pipeline.problems import Problems, shown
from ci.pipeline.schema import NEED, Shape
from ci.pipeline.yaml import Mapping, Node, Scalar
from ci.pipeline.yaml import Sequence as NodeSequence

CLONE = "clone"


def read_needs(fields: Fields) -> tuple[Need, ...] | None:
    """What the map waits for; None where it does not say. In file order, each name once."""
    node = fields.get("depends_on", Shape.NEEDS)
    if node is None or (isinstance(node, Scalar) and node.is_null):
        return None
    nodes = node.items if isinstance(node, NodeSequence) else (node,)
    found = [need for each in nodes if (need := _need(each, fields.reader))]
    return tuple({need.name: need for need in found}.values())


def _need(node: Node, reader: Reader) -> Need | None:
    if not isinstance(node, Mapping):
        name = reader.text(node, '"depends_on"')
        return Need(name=name, mark=node.mark) if name else None
    fields = reader.fields(node, NEED)
    if fields is None:
        return None
    name = fields.text("name")
    if not name:
        if fields.lacks("name"):
            reader.problems.error(node.mark, 'a dependency needs "name"')
        return None
    return Need(name=name, mark=node.mark, is_optional=fields.flag("optional"))


def check_graph(steps: Sequence[Step], services: Sequence[Service], problems: Problems) -> None:
    """Every dependency exists or is optional, and none leads back to where it came from.

    A step may not wait for a service (they run as long as the job does; `ready` is what is meant).
    """
    names = {step.name for step in steps}
    service_names = {service.name for service in services} - names
    edges: dict[str, tuple[str, ...]] = {}
    marks = {}
    for item in (*steps, *services):
        key = f"service {item.name}" if isinstance(item, Service) else item.name
        known = _known(item, names, service_names)
        for need in item.needs or ():
            if need.name not in known and need.name != CLONE and not need.is_optional:
                problems.error(need.mark, _unknown(item, need.name, names, service_names, problems))
        edges[key] = tuple(known[need.name] for need in item.needs or () if need.name in known)
        marks[key] = item.needs_mark or item.mark
    if cycle := graph.find_cycle(edges):
        path = " -> ".join(shown(name) for name in cycle[:20])
        problems.error(marks[cycle[0]], f"steps wait for each other in a circle: {path}")


def _known(item: Container, names: set[str], services: set[str]) -> dict[str, str]:
    """Name in `depends_on` -> the node that it means. Only a service may wait for a service."""
    found = {name: name for name in names}
    if isinstance(item, Service):
        found |= {name: f"service {name}" for name in services}
    return found


def _unknown(item: Container, name: str, names: set[str], services: set[str], problems: Problems) -> str:
    kind = "service" if isinstance(item, Service) else "step"
    if name in services:
        return (
            f"step {shown(item.name)} depends on the service {shown(name)}; services start before all steps"
        )
    hint = problems.did_you_mean(name, names)
    return f"{kind} {shown(item.name)} depends on unknown step {shown(name)}{hint}"
