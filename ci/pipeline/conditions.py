"""Conditions: reads `when` of a pipeline, a step or a service."""

from __future__ import annotations

from ci import glob
from ci.errors import ConfigError
from ci.pipeline.expression import BadExpression
from ci.pipeline.expression import parse as parse_expression
from ci.pipeline.fields import Fields, Reader
from ci.pipeline.model import SUCCESS, Condition, Paths, Patterns, Values, When, Words
from ci.pipeline.problems import shown
from ci.pipeline.schema import CONDITION, EVENTS, PATHS, PATTERNS, Shape
from ci.pipeline.yaml import Mapping, Node, Scalar, Sequence, describe

MAX_CONDITIONS = 100
MAX_PATTERNS = 200
#: Of all patterns of one file, with their alternatives written out: compiling them takes time.
MAX_PATTERN_CHARACTERS = 16_000
_MAX_BAD_PATTERNS = 20
#: The keys of a condition that take patterns of one text of the event.
BY_PATTERNS = ("branch", "ref", "tag", "repo", "cron", "target", "action", "instance", "platform")


def read_when(fields: Fields) -> When:
    """The `when` of a map; one that matches always where there is none."""
    node = fields.get("when", Shape.WHEN)
    if node is None or (isinstance(node, Scalar) and node.is_null):
        return When()
    nodes = node.items if isinstance(node, Sequence) else (node,)
    if len(nodes) > MAX_CONDITIONS:
        fields.reader.problems.error(node.mark, f'"when" has more than {MAX_CONDITIONS} conditions')
        return When()
    found = [_condition(item, fields.reader) for item in nodes]
    return When(conditions=tuple(condition for condition in found if condition is not None))


def _condition(node: Node, reader: Reader) -> Condition | None:
    fields = reader.fields(node, CONDITION)
    if fields is None:
        return None
    return Condition(
        events=_events(fields),
        path=_paths(fields),
        matrix=_values(fields, "matrix"),
        evaluate=_expression(fields),
        local=fields.flag("local") if "local" in fields.known else None,
        statuses=fields.words("status") or SUCCESS,
        outputs=_values(fields, "outputs"),
        patterns={name: found for name in BY_PATTERNS if (found := _patterns(fields, name)) is not None},
    )


def _events(fields: Fields) -> Words | None:
    node = fields.get("event", Shape.EVENTS)
    if node is None:
        return None
    if not isinstance(node, Mapping):
        return Words(include=fields.reader.words(node, CONDITION.keys["event"]))
    inner = fields.reader.fields(node, EVENTS)
    if inner is None:
        return None
    return Words(include=inner.words("include"), exclude=inner.words("exclude"))


def _values(fields: Fields, name: str) -> Values:
    node = fields.get(name, Shape.TEXTS_MAP)
    if node is None:
        return ()
    if not isinstance(node, Mapping):
        fields.reader.problems.error(node.mark, f'"{name}" is a map of patterns, this is {describe(node)}')
        return ()
    return tuple((key.text, _globs(value, shown(key.text), fields.reader)) for key, value in node.entries)


def _expression(fields: Fields) -> str:
    """Its text. What has references in it can be read only once they are filled in."""
    node = fields.get("evaluate", Shape.TEXT)
    text = None if node is None else fields.reader.text(node, '"evaluate"')
    if node is None or not text:
        return ""
    try:
        if "${" not in text:
            parse_expression(text)
    except BadExpression as error:
        fields.reader.problems.error(node.mark, f'"evaluate": {error}')
    return text


def _patterns(fields: Fields, name: str) -> Patterns | None:
    node = fields.get(name, Shape.PATTERNS)
    if node is None:
        return None
    if not isinstance(node, Mapping):
        return Patterns(include=_globs(node, f'"{name}"', fields.reader))
    inner = fields.reader.fields(node, PATTERNS)
    if inner is None:
        return None
    return Patterns(include=_inner_globs(inner, "include"), exclude=_inner_globs(inner, "exclude"))


def _paths(fields: Fields) -> Paths | None:
    node = fields.get("path", Shape.PATTERNS)
    if node is None:
        return None
    if not isinstance(node, Mapping):
        return Paths(include=_globs(node, '"path"', fields.reader))
    inner = fields.reader.fields(node, PATHS)
    if inner is None:
        return None
    return Paths(
        include=_inner_globs(inner, "include"),
        exclude=_inner_globs(inner, "exclude"),
        ignore_message=inner.text("ignore_message") or "",
        on_empty=inner.flag("on_empty", default=True),
    )


def _inner_globs(fields: Fields, name: str) -> tuple[str, ...]:
    node = fields.get(name, Shape.TEXTS)
    return () if node is None else _globs(node, f'"{name}"', fields.reader)


def _globs(node: Node, what: str, reader: Reader) -> tuple[str, ...]:
    nodes = node.items if isinstance(node, Sequence) else (node,)
    if len(nodes) > MAX_PATTERNS:
        reader.problems.error(node.mark, f"{what} has more than {MAX_PATTERNS} patterns")
        return ()
    return tuple(pattern for item in nodes if (pattern := _glob(item, what, reader)))


def _glob(node: Node, what: str, reader: Reader) -> str:
    pattern = reader.text(node, what)
    if not pattern:
        if pattern is not None:
            reader.problems.error(node.mark, f"{what} is a pattern, this is {describe(node)}")
        return ""
    try:
        _count(pattern, node, reader)
        glob.compiled(pattern)
    except glob.BadPattern as error:
        reader.problems.error(node.mark, f"{what}: {error}")
        reader.counts["bad patterns"] += 1
        if reader.counts["bad patterns"] > _MAX_BAD_PATTERNS:
            raise ConfigError(reader.problems.in_order) from error
        return ""
    return pattern


def _count(pattern: str, node: Node, reader: Reader) -> None:
    """Refuses the whole file, for every further pattern would cost more."""
    reader.counts["pattern characters"] += glob.weight(pattern)
    if reader.counts["pattern characters"] > MAX_PATTERN_CHARACTERS:
        message = f"the patterns of this file have more than {MAX_PATTERN_CHARACTERS:,} characters together"
        reader.problems.error(node.mark, message)
        raise ConfigError(reader.problems.in_order)
