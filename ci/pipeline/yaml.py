"""YAML: text in, a tree of nodes with places out. The only file that imports yaml.

The parser's events are read once, and the tree is built from them, so the first breach of a limit ends
the reading: nothing hostile is ever built, recursed into or expanded. Only ConfigError comes out.
Scalars keep their literal text beside what the core schema of YAML 1.2 takes them for, so that `1.10`
stays `1.10` where text is wanted, and `yes` and `on` are text everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import NoReturn

import yaml

from ci.errors import ConfigError
from ci.pipeline.problems import Mark, Problems, shown

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
#: Nodes of the tree, counted as if every alias were written out.
MAX_NODES = 20_000
MAX_ALIASES = 1_000
MAX_MERGED_KEYS = 2_000
#: libyaml compares each directive with all before it.
_MAX_DIRECTIVES = 10
_TOO_DEEP = f"lists and maps are nested more than {MAX_DEPTH} deep"
_LOADER_TOO_DEEP = "exceeded maximum nesting depth"


class Kind(StrEnum):
    """What the core schema takes a scalar for."""

    TEXT = "text"
    NULL = "nothing"
    BOOL = "true or false"
    INT = "a number"
    FLOAT = "a fraction"


@dataclass(frozen=True, slots=True)
class Scalar:
    text: str
    mark: Mark
    kind: Kind = Kind.TEXT
    is_plain: bool = False  #: without quotes

    @property
    def is_null(self) -> bool:
        return self.kind is Kind.NULL

    @property
    def value(self) -> str:
        """The literal text; nothing (`~`, `null`, empty) is the empty text."""
        return "" if self.is_null else self.text


@dataclass(frozen=True, slots=True)
class Sequence:
    items: tuple[Node, ...]
    mark: Mark


@dataclass(frozen=True)
class Mapping:
    """Keys are unique; merge keys are already merged in. In file order."""

    entries: tuple[tuple[Scalar, Node], ...]
    mark: Mark

    @cached_property
    def by_name(self) -> dict[str, Node]:
        return {key.text: node for key, node in self.entries}


Node = Scalar | Sequence | Mapping


def describe(node: Node) -> str:
    """What a node is, in words for a message."""
    match node:
        case Sequence():
            return "a list"
        case Mapping():
            return "a map"
        case Scalar(kind=Kind.NULL):
            return "nothing"
        case Scalar(text=text):
            return shown(text)


# --- the core schema ------------------------------------------------------------------------------

_CORE = (
    (Kind.NULL, re.compile(r"(?:null|Null|NULL|~|)\Z")),
    (Kind.BOOL, re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")),
    (Kind.INT, re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z")),
    (
        Kind.FLOAT,
        re.compile(
            r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
        ),
    ),
)
_CORE_LONGEST = 64
_TAGS = {
    "tag:yaml.org,2002:null": Kind.NULL,
    "tag:yaml.org,2002:bool": Kind.BOOL,
    "tag:yaml.org,2002:int": Kind.INT,
    "tag:yaml.org,2002:float": Kind.FLOAT,
    "tag:yaml.org,2002:str": Kind.TEXT,
    "!": Kind.TEXT,
}
_COLLECTION_TAGS = ("tag:yaml.org,2002:seq", "tag:yaml.org,2002:map", "!")


def kind_of(text: str) -> Kind:
    """What the core schema takes the plain scalar `text` for."""
    if len(text) > _CORE_LONGEST:
        return Kind.TEXT
    return next((kind for kind, pattern in _CORE if pattern.match(text)), Kind.TEXT)


# --- reading ----------------------------------------------------------------------------------------

_BAD_CHARACTER = re.compile("[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_DIRECTIVE = re.compile("^%", re.MULTILINE)


def load(source: str | bytes, problems: Problems) -> Node | None:
    """The one document of `source`; None where there is none. Raises ConfigError.

    What can be gone on after (a key that stands twice, an unknown tag) is added to `problems` instead.
    """
    text = _checked_text(source, problems)
    try:
        return _Reader(text, problems).document()
    except yaml.YAMLError as error:
        _refuse_yaml_error(text, error, problems)


def _checked_text(source: str | bytes, problems: Problems) -> str:
    if len(source) > MAX_BYTES:
        _refuse(problems, Mark(), f"the file is larger than {MAX_BYTES // 1024} KiB")
    text = (_decoded(source, problems) if isinstance(source, bytes) else source).removeprefix("\ufeff")
    if bad := _BAD_CHARACTER.search(text):
        mark = _mark_at(text, bad.start())
        _refuse(problems, mark, f"the character U+{ord(bad[0]):04X} is not allowed in YAML")
    if len(text.encode()) > MAX_BYTES:
        _refuse(problems, Mark(), f"the file is larger than {MAX_BYTES // 1024} KiB")
    if len(_DIRECTIVE.findall(text)) > _MAX_DIRECTIVES:
        _refuse(problems, Mark(), f"more than {_MAX_DIRECTIVES} lines begin with %")
    return text


def _decoded(source: bytes, problems: Problems) -> str:
    try:
        return source.decode("utf-8")
    except UnicodeDecodeError as error:
        before = source[: error.start].decode("utf-8")
        message = f"the byte 0x{source[error.start]:02x} is not UTF-8 text"
        _refuse(problems, _mark_at(before, len(before)), message)


def _mark_at(text: str, index: int) -> Mark:
    before = text[:index]
    return Mark(before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)


def _refuse(problems: Problems, mark: Mark, message: str) -> NoReturn:
    problems.error(mark, message)
    raise ConfigError(problems.in_order)


def _refuse_yaml_error(text: str, error: yaml.YAMLError, problems: Problems) -> NoReturn:
    found = getattr(error, "problem_mark", None)
    mark = Mark(found.line + 1, found.column + 1) if found else Mark()
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read"
    if what == _LOADER_TOO_DEEP:  # the loader looks far ahead, and has a limit of its own
        _refuse(problems, mark, _TOO_DEEP)
    line = "".join(text.splitlines()[mark.line - 1 : mark.line])
    problems.error(mark, f"this is not YAML: {what}{_hint(line, str(what))}")
    raise ConfigError(problems.in_order)


def _hint(line: str, what: str) -> str:
    if line.lstrip(" ").startswith("\t"):
        return "; the line is indented with a tab, use spaces"
    if "cannot start any token" in what:
        return "; put the text into quotes"
    if "mapping values are not allowed" in what:
        return '; text with ": " in it needs quotes'
    return ""


@dataclass
class _Open:
    """A list or map that is being read."""

    mark: Mark
    anchor: str | None
    is_map: bool
    children: list[Node]
    weight: int = 1
    height: int = 1


@dataclass(frozen=True)
class _Anchored:
    node: Node
    weight: int
    height: int


def _mark_of(event: yaml.Event) -> Mark:
    place = event.start_mark
    return Mark(place.line + 1, place.column + 1) if place else Mark()


class _Reader:
    """Builds the tree of one document from the parser's events, without recursion."""

    def __init__(self, text: str, problems: Problems) -> None:
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=yaml.CLoader)
        self._problems = problems
        self._anchors: dict[str, _Anchored | None] = {}
        self._stack: list[_Open] = []
        self._root: Node | None = None
        self._weight = 0
        self._aliases = 0
        self._merged = 0

    def document(self) -> Node | None:
        for event in self._events:
            mark = _mark_of(event)
            match event:
                case yaml.ScalarEvent():
                    self._add(self._scalar(event, mark), 1, 0, event.anchor)
                case yaml.AliasEvent():
                    self._alias(event.anchor, mark)
                case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                    self._begin(event, mark)
                case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                    self._end()
                case yaml.DocumentStartEvent() if self._root is not None:
                    message = "a second document begins here; a file holds one pipeline: put it into .ci/"
                    _refuse(self._problems, mark, message)
        return self._root

    def _scalar(self, event: yaml.ScalarEvent, mark: Mark) -> Scalar:
        if event.tag is None or (event.tag == "!" and event.implicit[1]):
            kind = kind_of(event.value) if event.implicit[0] else Kind.TEXT
        elif event.tag in _TAGS:
            kind = _TAGS[event.tag]
        else:
            self._unknown_tag(event.tag, mark)
            kind = Kind.TEXT
        return Scalar(event.value, mark, kind, is_plain=event.implicit[0])

    def _unknown_tag(self, tag: str, mark: Mark) -> None:
        name = tag.replace("tag:yaml.org,2002:", "!!")
        self._problems.error(mark, f"the tag {shown(name)} means nothing here")

    def _begin(self, event: yaml.CollectionStartEvent, mark: Mark) -> None:
        if event.tag is not None and event.tag not in _COLLECTION_TAGS:
            self._unknown_tag(event.tag, mark)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        self._stack.append(_Open(mark, event.anchor, isinstance(event, yaml.MappingStartEvent), []))
        self._check_depth(0, mark)

    def _check_depth(self, height: int, mark: Mark) -> None:
        if len(self._stack) + height > MAX_DEPTH:
            _refuse(self._problems, mark, _TOO_DEEP)

    def _alias(self, name: str | None, mark: Mark) -> None:
        assert name is not None, "an alias has a name"
        self._aliases += 1
        if self._aliases > MAX_ALIASES:
            _refuse(self._problems, mark, f"the file uses more than {MAX_ALIASES} aliases")
        if name not in self._anchors:
            message = f'the alias "*{name}" has no anchor "&{name}" before it'
            self._problems.error(mark, message + self._problems.did_you_mean(name, self._anchors))
            return self._add(Scalar("", mark, Kind.NULL), 1, 0, None)
        anchored = self._anchors[name]
        if anchored is None:
            _refuse(self._problems, mark, f'the alias "*{name}" stands inside of its own anchor')
        self._check_depth(anchored.height, mark)
        return self._add(anchored.node, anchored.weight, anchored.height, None)

    def _add(self, node: Node, weight: int, height: int, anchor: str | None) -> None:
        self._weight += weight
        if self._weight > MAX_NODES:
            message = f"the file holds more than {MAX_NODES:,} values, with every alias written out"
            _refuse(self._problems, node.mark, message)
        self._keep(node, weight, height, anchor)

    def _keep(self, node: Node, weight: int, height: int, anchor: str | None) -> None:
        if anchor is not None:
            self._anchors[anchor] = _Anchored(node, weight, height)
        if not self._stack:
            self._root = node
            return
        parent = self._stack[-1]
        parent.children.append(node)
        parent.weight += weight
        parent.height = max(parent.height, height + 1)

    def _end(self) -> None:
        done = self._stack.pop()
        self._weight += 1
        node = self._mapping(done) if done.is_map else Sequence(tuple(done.children), done.mark)
        self._keep(node, done.weight, done.height, done.anchor)

    def _mapping(self, done: _Open) -> Mapping:
        own: dict[str, tuple[Scalar, Node]] = {}
        merges: list[Node] = []
        for key, value in zip(done.children[::2], done.children[1::2], strict=True):
            if not isinstance(key, Scalar) or key.is_null:
                self._problems.error(key.mark, f"a key must be text, this is {describe(key)}")
            elif key.text == "<<" and key.is_plain:
                merges.append(value)
            elif key.text in own:
                first = own[key.text][0].mark.line
                self._problems.error(
                    key.mark, f"the key {shown(key.text)} stands twice, first in line {first}"
                )
            else:
                own[key.text] = (key, value)
        for merge in merges:
            self._merge(merge, own)
        return Mapping(tuple(own.values()), done.mark)

    def _merge(self, source: Node, into: dict[str, tuple[Scalar, Node]]) -> None:
        """What stands in the map itself wins, then what is merged first."""
        sources = source.items if isinstance(source, Sequence) else (source,)
        for mapping in sources:
            if not isinstance(mapping, Mapping):
                message = f'"<<" merges a map or a list of maps, this is {describe(mapping)}'
                self._problems.error(mapping.mark, message)
                continue
            self._merged += len(mapping.entries)
            if self._merged > MAX_MERGED_KEYS:
                _refuse(self._problems, mapping.mark, f'"<<" merges more than {MAX_MERGED_KEYS:,} keys')
            for key, value in mapping.entries:
                into.setdefault(key.text, (key, value))
