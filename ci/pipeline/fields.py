"""Fields: reads the maps of a file by the schema. Knows shapes, nothing of what a pipeline is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from ci import aliases, environ
from ci.pipeline import substitute
from ci.pipeline.problems import Mark, Problems, shown
from ci.pipeline.schema import Key, Section, Shape
from ci.pipeline.yaml import Kind, Mapping, Node, Scalar, Sequence, describe

_DURATION = re.compile(r"(?:(\d{1,4})h)?(?:(\d{1,6})m)?(?:(\d{1,7})s?)?\Z")
_NUMBER = re.compile(r"[0-9]{1,9}\Z", re.ASCII)
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([kmgt]?)i?b?\Z", re.ASCII)
_AMOUNT = re.compile(r"[0-9]{1,4}(?:\.[0-9]{1,3})?\Z", re.ASCII)
MAX_SIZE_BYTES = 16 << 40
MAX_DURATION_SECONDS = 7 * 24 * 3600


@dataclass(frozen=True, kw_only=True)
class Reader:
    """What reading needs beside the node: where problems go, and which names `${NAME}` may use."""

    problems: Problems
    names: Collection[str] = ()
    is_lenient: bool = False  #: a variable that nobody knows is empty text
    counts: Counter[str] = field(default_factory=Counter)  #: of what a file may not have too much

    def fields(self, node: Node, section: Section) -> Fields | None:
        """The fields of a map; None (and a problem) if it is none."""
        if not isinstance(node, Mapping):
            self.problems.error(node.mark, f"{section.title} is a map, this is {describe(node)}")
            return None
        known: dict[str, Node] = {}
        hints = ""
        for key, value in node.entries:
            found = section.keys.get(key.text)
            if found is not None and found.is_ready:
                known[key.text] = value
                if found.instead:
                    message = f'"{found.name}" in {section.title} is out of use: write {found.instead}'
                    self.problems.warn(key.mark, message)
            else:
                hints += self._refuse_key(key, found, section)
        misspelt = frozenset(each.name for each in section.ready if f'"{each.name}"?' in hints)
        return Fields(reader=self, section=section, node=node, known=known, misspelt=misspelt)

    def _refuse_key(self, key: Scalar, found: Key | None, section: Section) -> str:
        """Returns which key may be meant, as it is said to the reader."""
        if found is not None:
            self.problems.error(key.mark, f'"{found.name}" in {section.title} is not yet supported')
            return ""
        ready = [known.name for known in section.ready]
        hint = self.problems.did_you_mean(key.text, ready)
        words = hint or f"; {section.title} has {', '.join(ready)}"
        self.problems.error(key.mark, f"unknown key {shown(key.text)} in {section.title}{words}")
        return hint

    # --- single values ----------------------------------------------------------------------------

    def text(self, node: Node, what: str) -> str | None:
        """The literal text of a scalar, its references checked."""
        if not isinstance(node, Scalar):
            self.problems.error(node.mark, f"{what} is text, this is {describe(node)}")
            return None
        self._check_references(node)
        return node.value

    def texts(self, node: Node, what: str) -> tuple[str, ...]:
        nodes = node.items if isinstance(node, Sequence) else (node,)
        found = [self.text(item, what) for item in nodes]
        return tuple(text for text in found if text is not None)

    def flag(self, node: Node, what: str) -> bool | None:
        if isinstance(node, Scalar) and node.kind is Kind.BOOL:
            return node.text.lower() == "true"
        self.problems.error(node.mark, f"{what} is true or false, this is {describe(node)}")
        return None

    def seconds(self, node: Node, what: str) -> int | None:
        found = _DURATION.match(node.text) if isinstance(node, Scalar) else None
        hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (0, 0, 0)
        total = hours * 3600 + minutes * 60 + seconds
        if 0 < total <= MAX_DURATION_SECONDS:
            return total
        message = f"{what} is a duration such as 90, 10m or 1h30m, at most 7 days; this is {describe(node)}"
        self.problems.error(node.mark, message)
        return None

    def number(self, node: Node, what: str, least: int = 0, most: int = 1_000_000) -> int | None:
        if isinstance(node, Scalar) and _NUMBER.match(node.text) and least <= int(node.text) <= most:
            return int(node.text)
        message = f"{what} is a whole number from {least:,} to {most:,}, this is {describe(node)}"
        self.problems.error(node.mark, message)
        return None

    def size(self, node: Node, what: str) -> int | None:
        """Bytes. `2g`, `512m`, `64k`, `1024`, with `b` or `ib` after the letter too; powers of 1024."""
        found = _SIZE.match(node.text.lower()) if isinstance(node, Scalar) else None
        size = int(float(found[1]) * 1024 ** " kmgt".index(found[2] or " ")) if found else 0
        if 0 < size <= MAX_SIZE_BYTES:
            return size
        message = f"{what} is a size such as 512m or 2g, at most 16t; this is {describe(node)}"
        self.problems.error(node.mark, message)
        return None

    def words(self, node: Node, key: Key) -> tuple[str, ...]:
        nodes = node.items if isinstance(node, Sequence) else (node,)
        return tuple(word for item in nodes if (word := self._word(item, key)))

    def _word(self, node: Node, key: Key) -> str:
        word = node.text if isinstance(node, Scalar) else ""
        if word in key.words:
            return word
        hint = self.problems.did_you_mean(word, key.words)
        words = ", ".join(key.words)
        self.problems.error(node.mark, f'"{key.name}" is one of {words}; this is {describe(node)}{hint}')
        return ""

    # --- references -------------------------------------------------------------------------------

    def _check_references(self, node: Scalar) -> None:
        for reference in substitute.references(node.text):
            message = self._wrong_reference(reference)
            if message:
                self.problems.error(node.mark, message)

    def _wrong_reference(self, reference: substitute.Reference) -> str:
        if not reference.name:
            return no_reference(reference)
        if reference.name in self.names:
            return ""
        variable = aliases.variable_of(reference.name)
        if variable is None:
            return "" if self.is_lenient or _has_default(reference) else self._unknown(reference.name)
        if not variable.is_ready:
            return "" if self.is_lenient else f"the variable {reference.name} is not yet supported"
        if variable.scope is not environ.Scope.JOB and not self.is_lenient:
            return f"the variable {reference.name} is known only in the step: use it in its commands"
        return ""

    def _unknown(self, name: str) -> str:
        hint = self.problems.did_you_mean(name, (*self.names, *environ.TABLE))
        return f"there is no variable {name} to fill in{hint or ';'} write $${{{name}}} to keep it as text"


def _has_default(reference: substitute.Reference) -> bool:
    """Whether the file says what to do where there is no value."""
    return reference.operator is not None and reference.operator.sign.lstrip(":") in ("-", "=", "+")


def no_reference(reference: substitute.Reference) -> str:
    text = shown(reference.text, 40)
    return f"{text} is no reference that can be filled in; write $$ in place of the $ to keep it as text"


@dataclass(frozen=True, kw_only=True)
class Fields:
    """The known keys of one map. Each accessor takes keys of its own shape; a missing key gives None."""

    reader: Reader
    section: Section
    node: Mapping
    known: dict[str, Node]
    misspelt: frozenset[str] = frozenset()  #: keys that an unknown one probably means

    @property
    def mark(self) -> Mark:
        return self.node.mark

    def lacks(self, name: str) -> bool:
        """Whether the key is missing and no misspelt one, which is a problem already, stands for it."""
        return name not in self.known and name not in self.misspelt

    def get(self, name: str, *shapes: Shape) -> Node | None:
        assert self.section.keys[name].shape in shapes, (
            f"{name} is read as another shape than the schema says"
        )
        return self.known.get(name)

    def text(self, name: str) -> str | None:
        node = self.get(name, Shape.TEXT)
        return None if node is None else self.reader.text(node, f'"{name}"')

    def texts(self, name: str) -> tuple[str, ...] | None:
        node = self.get(name, Shape.TEXTS)
        return None if node is None else self.reader.texts(node, f'"{name}"')

    def flag(self, name: str, default: bool = False) -> bool:
        node = self.get(name, Shape.FLAG)
        found = None if node is None else self.reader.flag(node, f'"{name}"')
        return default if found is None else found

    def seconds(self, name: str) -> int | None:
        node = self.get(name, Shape.DURATION)
        return None if node is None else self.reader.seconds(node, f'"{name}"')

    def number(self, name: str, least: int = 0, most: int = 1_000_000) -> int | None:
        node = self.get(name, Shape.NUMBER)
        return None if node is None else self.reader.number(node, f'"{name}"', least, most)

    def numbers(self, name: str, least: int = 0, most: int = 1_000_000) -> tuple[int, ...]:
        node = self.get(name, Shape.NUMBERS)
        nodes = () if node is None else node.items if isinstance(node, Sequence) else (node,)
        found = [self.reader.number(each, f'"{name}"', least, most) for each in nodes]
        return tuple(number for number in found if number is not None)

    def size(self, name: str) -> int | None:
        node = self.get(name, Shape.SIZE)
        return None if node is None else self.reader.size(node, f'"{name}"')

    def amount(self, name: str) -> float | None:
        node = self.get(name, Shape.AMOUNT)
        if node is None:
            return None
        if isinstance(node, Scalar) and _AMOUNT.match(node.text) and float(node.text):
            return float(node.text)
        self.reader.problems.error(node.mark, f'"{name}" is a number such as 0.5, this is {describe(node)}')
        return None

    def words(self, name: str) -> tuple[str, ...]:
        node = self.get(name, Shape.WORD, Shape.WORDS)
        return () if node is None else self.reader.words(node, self.section.keys[name])

    def word(self, name: str) -> str:
        node = self.get(name, Shape.WORD)
        if isinstance(node, Sequence):
            self.reader.problems.error(node.mark, f'"{name}" is one word, this is a list')
            return ""
        return next(iter(self.words(name)), "")
