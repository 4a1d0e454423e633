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
from functools import cached_property
from typing import NoReturn

import yaml

from ci.errors import ConfigError
from ci.pipeline import substitute
from ci.pipeline.problems import Mark, Problems, shown
from ci.pipeline.yaml_rules import NATIVE, Rules
from ci.pipeline.yaml_rules import Kind as Kind

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
#: Nodes of the tree, counted as if every alias were written out.
MAX_NODES = 20_000
MAX_ALIASES = 1_000
MAX_DOCUMENTS = 1_000
MAX_MERGED_KEYS = 2_000
#: libyaml compares each directive with all before it.
_MAX_DIRECTIVES = 10
_TOO_DEEP = f"lists and maps are nested more than {MAX_DEPTH} deep"
_LOADER_TOO_DEEP = "exceeded maximum nesting depth"


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


_TAGS = {
    "tag:yaml.org,2002:null": Kind.NULL,
    "tag:yaml.org,2002:bool": Kind.BOOL,
    "tag:yaml.org,2002:int": Kind.INT,
    "tag:yaml.org,2002:float": Kind.FLOAT,
    "tag:yaml.org,2002:str": Kind.TEXT,
    "!": Kind.TEXT,
}
_COLLECTION_TAGS = ("tag:yaml.org,2002:seq", "tag:yaml.org,2002:map", "!")


# --- reading ----------------------------------------------------------------------------------------

_BAD_CHARACTER = re.compile("[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_DIRECTIVE = re.compile("^%", re.MULTILINE)


def load(source: str | bytes, problems: Problems, rules: Rules = NATIVE) -> Node | None:
    """The one document of `source`; None where there is none. Raises ConfigError."""
    found = load_all(source, problems, rules)
    if len(found) > 1:
        message = "a second document begins here; a file holds one pipeline: put it into .ci/"
        _refuse(problems, found[1].mark, message)
    return found[0] if found else None


def load_all(source: str | bytes, problems: Problems, rules: Rules = NATIVE) -> list[Node]:
    """The documents of `source` that hold anything, in order; marks count from the begin of the file, and
    the limits are those of all documents together. Raises ConfigError.

    What can be gone on after (a key that stands twice, an unknown tag) is added to `problems` instead.
    """
    text = _checked_text(source, problems)
    text, is_sheltered = _prepared(text, rules)
    parts = split_documents(text) if rules.splits_by_lines else [(0, text)]
    reader = _Reader(problems, rules, is_sheltered=is_sheltered)
    found: list[Node] = []
    for lines_before, part in parts:
        try:
            found += reader.documents(part, lines_before)
        except yaml.YAMLError as error:
            _refuse_yaml_error(part, error, lines_before, problems)
    return found


def _prepared(text: str, rules: Rules) -> tuple[str, bool]:
    """The text as YAML is to see it, and whether references are sheltered in it. Places after a backslash are
    a column to the left."""
    if not rules.fills_in_first:
        return text, False
    halved = substitute.halved(text)
    sheltered = substitute.sheltered(halved)
    return sheltered, sheltered != halved


def long_scalars(text: str, rules: Rules = NATIVE) -> list[tuple[int, int]]:
    """The first and the last line of each value that goes over several. `text` has been read before."""
    found = []
    text, _ = _prepared(text, rules)
    for lines_before, part in split_documents(text) if rules.splits_by_lines else [(0, text)]:
        for event in yaml.parse(part, Loader=yaml.CLoader):
            start, stop = event.start_mark, event.end_mark
            if isinstance(event, yaml.ScalarEvent) and start and stop and stop.line > start.line:
                # A block ends where the next token begins.
                last = stop.line + (1 if event.style not in ("|", ">") else 0)
                found.append((start.line + 2 + lines_before, last + lines_before))
    return found


def split_documents(text: str) -> list[tuple[int, str]]:
    """(number of lines before it, text) of each document: a line that begins with `---` begins one wherever
    it stands, and one that begins with `...` ends the file.

    Source: the study of the peer whose files these are, 1.1.
    """
    found: list[tuple[int, list[str]]] = [(0, [])]
    for number, line in enumerate(text.splitlines(keepends=True)):
        if line.startswith("..."):
            break
        if line.startswith("---"):
            found.append((number, [line]))
        else:
            found[-1][1].append(line)
    return [(before, "".join(lines)) for before, lines in found if any(line.strip() for line in lines)]


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


def _refuse_yaml_error(text: str, error: yaml.YAMLError, lines_before: int, problems: Problems) -> NoReturn:
    found = getattr(error, "problem_mark", None)
    mark = Mark(found.line + 1 + lines_before, found.column + 1) if found else Mark()
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read"
    if what == _LOADER_TOO_DEEP:  # the loader looks far ahead, and has a limit of its own
        _refuse(problems, mark, _TOO_DEEP)
    line = "".join(text.splitlines()[mark.line - 1 - lines_before : mark.line - lines_before])
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
    children: list[Node | _Splice]
    weight: int = 1
    height: int = 1


@dataclass(frozen=True)
class _Anchored:
    node: Node
    weight: int
    height: int


@dataclass(frozen=True)
class _Splice:
    """`- <<: *list`: the items of another list stand here."""

    items: tuple[Node, ...]


class _Reader:
    """Builds the trees of documents from the parser's events, without recursion."""

    def __init__(self, problems: Problems, rules: Rules, *, is_sheltered: bool) -> None:
        self._is_sheltered = is_sheltered
        self._problems = problems
        self._rules = rules
        self._anchors: dict[str, _Anchored | None] = {}
        self._stack: list[_Open] = []
        self._found: list[Node] = []
        self._lines_before = 0
        self._documents = 0
        self._weight = 0
        self._aliases = 0
        self._merged = 0

    def documents(self, text: str, lines_before: int) -> list[Node]:
        """Anchors do not reach from one document into the next."""
        self._lines_before, self._found = lines_before, []
        events: Iterator[yaml.Event] = yaml.parse(text, Loader=yaml.CLoader)
        for event in events:
            mark = self._mark(event)
            match event:
                case yaml.ScalarEvent():
                    self._add(self._scalar(event, mark), 1, 0, event.anchor)
                case yaml.AliasEvent():
                    self._alias(event.anchor, mark)
                case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                    self._begin(event, mark)
                case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                    self._end()
                case yaml.DocumentStartEvent():
                    self._begin_document(mark)
        return self._found

    def _begin_document(self, mark: Mark) -> None:
        self._anchors.clear()
        self._documents += 1
        if self._documents > MAX_DOCUMENTS:
            _refuse(self._problems, mark, f"the file has more than {MAX_DOCUMENTS:,} documents")

    def _mark(self, event: yaml.Event) -> Mark:
        place = event.start_mark
        return Mark(place.line + 1 + self._lines_before, place.column + 1) if place else Mark()

    def _scalar(self, event: yaml.ScalarEvent, mark: Mark) -> Scalar:
        text = substitute.unsheltered(event.value) if self._is_sheltered else event.value
        if event.tag is None or (event.tag == "!" and event.implicit[1]):
            kind = self._rules.kind_of(text) if event.implicit[0] else Kind.TEXT
        elif event.tag in _TAGS:
            kind = _TAGS[event.tag]
        else:
            self._unknown_tag(event.tag, mark)
            kind = Kind.TEXT
        return Scalar(text, mark, kind, is_plain=event.implicit[0])

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
            self._found.append(node)
            return
        parent = self._stack[-1]
        parent.children.append(node)
        parent.weight += weight
        parent.height = max(parent.height, height + 1)

    def _end(self) -> None:
        done = self._stack.pop()
        self._weight += 1
        if not done.is_map:
            self._keep(self._sequence(done), done.weight, done.height, done.anchor)
        elif splice := self._splice(done):
            self._stack[-1].children.append(splice)
        else:
            self._keep(self._mapping(done), done.weight, done.height, done.anchor)

    def _sequence(self, done: _Open) -> Sequence:
        items: list[Node] = []
        for child in done.children:
            items += child.items if isinstance(child, _Splice) else (child,)
        if len(items) > MAX_NODES:
            _refuse(self._problems, done.mark, f"a list holds more than {MAX_NODES:,} values")
        return Sequence(tuple(items), done.mark)

    def _splice(self, done: _Open) -> _Splice | None:
        """Of a list's item that is `<<: *list` or `<<: [*list, *other]` and nothing else. A list of maps that
        is written there, not named, is the usual merging of maps."""
        if not self._stack or self._stack[-1].is_map or len(done.children) != 2:
            return None
        key, value = done.children
        if (
            not isinstance(key, Scalar)
            or key.text != "<<"
            or not key.is_plain
            or not isinstance(value, Sequence)
        ):
            return None
        is_named = any(each is not None and each.node is value for each in self._anchors.values())
        if not is_named and all(isinstance(item, Mapping) for item in value.items):
            return None
        items: list[Node] = []
        for item in value.items:
            items += item.items if isinstance(item, Sequence) and not is_named else (item,)
        return _Splice(tuple(items))

    def _mapping(self, done: _Open) -> Mapping:
        own: dict[str, tuple[Scalar, Node]] = {}
        merges: list[Node] = []
        for key, value in zip(done.children[::2], done.children[1::2], strict=True):
            assert not isinstance(key, _Splice) and not isinstance(value, _Splice), (
                "they stand in lists alone"
            )
            if not isinstance(key, Scalar) or key.is_null:
                self._problems.error(key.mark, f"a key must be text, this is {describe(key)}")
            elif key.text == "<<" and key.is_plain:
                self._merge(value, own) if self._rules.fills_further else merges.append(value)
            elif self._rules.fills_further:
                self._fill(own, key, value)
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
        """What stands in the map itself wins, then what is merged first; where maps are filled further, what
        comes later wins."""
        sources = source.items if isinstance(source, Sequence) else (source,)
        for mapping in sources:
            if not isinstance(mapping, Mapping):
                message = f'"<<" merges a map or a list of maps, this is {describe(mapping)}'
                self._problems.error(mapping.mark, message)
                continue
            self._count_merged(len(mapping.entries), mapping.mark)
            for key, value in mapping.entries:
                if self._rules.fills_further:
                    self._fill(into, key, value)
                else:
                    into.setdefault(key.text, (key, value))

    def _fill(self, into: dict[str, tuple[Scalar, Node]], key: Scalar, value: Node) -> None:
        """A map that stands twice is one map with the keys of both; anything else is replaced."""
        known = into.get(key.text)
        if known is None or not isinstance(known[1], Mapping) or not isinstance(value, Mapping):
            into[key.text] = (key if known is None else known[0], value)
            return
        self._count_merged(len(known[1].entries) + len(value.entries), key.mark)
        together = {each.text: (each, node) for each, node in (*known[1].entries, *value.entries)}
        into[key.text] = (known[0], Mapping(tuple(together.values()), known[1].mark))

    def _count_merged(self, keys: int, mark: Mark) -> None:
        self._merged += keys
        if self._merged > MAX_MERGED_KEYS:
            _refuse(self._problems, mark, f'"<<" merges more than {MAX_MERGED_KEYS:,} keys')
