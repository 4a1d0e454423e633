"""Rewrite: maps of another dialect become native ones, by tables of rules.

Each key of a dialect is one row: what becomes of it, and the place that says so. A key that no row names
means nothing there; it is said and left out. Nothing (`key:`) is the same as no key, as for the originals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Mapping as MappingOf
from dataclasses import dataclass, field
from types import MappingProxyType

from ci.pipeline.problems import Mark, Problems, shown
from ci.pipeline.yaml import Kind, Mapping, Node, Scalar, Sequence, describe
from ci.settings import PREFIX

Entry = tuple[Scalar, Node]


@dataclass(frozen=True, kw_only=True)
class Rewriter:
    """What rewriting one pipeline needs beside its nodes."""

    problems: Problems
    hosts: MappingOf[str, str] = field(default_factory=dict)  #: volume -> folder of the machine
    volumes: dict[str, Mark] = field(
        default_factory=dict
    )  #: of the job, that its containers turned out to need

    def rewrite(self, node: Mapping, table: Table) -> list[Entry]:
        """The native entries, in file order."""
        found: list[Entry] = []
        for key, value in node.entries:
            rule = table.rules.get(key.text)
            if rule is None:
                self._leave_out(key, table)
            elif not is_nothing(value):
                found += rule.write(self, key, value)
        return found

    def map(self, node: Node, what: str) -> Mapping | None:
        if isinstance(node, Mapping):
            return node
        self.problems.error(node.mark, f"{what} is a map, this is {describe(node)}")
        return None

    def _leave_out(self, key: Scalar, table: Table) -> None:
        hint = self.problems.did_you_mean(key.text, table.rules)
        message = f"{shown(key.text)} means nothing in {table.title}, and is left out{hint}"
        self.problems.warn(key.mark, message)


Write = Callable[[Rewriter, Scalar, Node], Iterable[Entry]]


@dataclass(frozen=True, kw_only=True)
class Rule:
    key: str
    write: Write
    source: str  #: the section of our notes on the original that it stands in


@dataclass(frozen=True, kw_only=True)
class Table:
    """`title` is how messages call such a map."""

    title: str
    rules: MappingOf[str, Rule]


def table(title: str, source: str, rows: MappingOf[str, Write]) -> Table:
    rules = {key: Rule(key=key, write=write, source=source) for key, write in rows.items()}
    return Table(title=title, rules=MappingProxyType(rules))


# --- what a row may say ---------------------------------------------------------------------------------


def same(rewriter: Rewriter, key: Scalar, node: Node) -> Iterable[Entry]:
    """The native language has it as it is."""
    return ((key, node),)


def to(name: str) -> Write:
    """Another name for the same."""
    return lambda rewriter, key, node: ((named(name, key.mark), node),)


def by(change: Callable[[Rewriter, Node], Node | None], name: str = "") -> Write:
    """Another value (None: none at all), under the same name or another."""

    def write(rewriter: Rewriter, key: Scalar, node: Node) -> Iterable[Entry]:
        changed = change(rewriter, node)
        return () if changed is None else ((named(name or key.text, key.mark), changed),)

    return write


def silent(rewriter: Rewriter, key: Scalar, node: Node) -> Iterable[Entry]:
    """It changes nothing that a build does."""
    return ()


def dropped(why: str) -> Write:
    """It is left out, and `why` ends the sentence that says so."""

    def write(rewriter: Rewriter, key: Scalar, node: Node) -> Iterable[Entry]:
        rewriter.problems.warn(key.mark, f'"{key.text}" is left out: {why}')
        return ()

    return write


# --- nodes ----------------------------------------------------------------------------------------------


def named(text: str, mark: Mark) -> Scalar:
    return Scalar(text=text, mark=mark, is_plain=True)


def flag(is_true: bool, mark: Mark) -> Scalar:
    return Scalar(text="true" if is_true else "false", mark=mark, kind=Kind.BOOL, is_plain=True)


def number(value: int, mark: Mark) -> Scalar:
    return Scalar(text=str(value), mark=mark, kind=Kind.INT, is_plain=True)


def texts(values: Iterable[str], mark: Mark) -> Sequence:
    return Sequence(items=tuple(Scalar(text=value, mark=mark) for value in values), mark=mark)


def is_nothing(node: Node) -> bool:
    return isinstance(node, Scalar) and node.is_null


_TRUE, _FALSE = frozenset({"true", "yes", "on", "y"}), frozenset({"false", "no", "off", "n"})


def is_true(node: Node | None) -> bool:
    return isinstance(node, Scalar) and node.is_plain and node.text.lower() in _TRUE


def switch(rewriter: Rewriter, key: Scalar, node: Node) -> Iterable[Entry]:
    """True or false, in each of the words that Go reads where it wants one of them."""
    if isinstance(node, Scalar) and node.is_plain and node.text.lower() in _TRUE | _FALSE:
        node = flag(is_true(node), node.mark)
    return ((key, node),)


def items(node: Node | None) -> tuple[Node, ...]:
    """Those of a list; a single value is a list of one, and nothing is none."""
    if node is None or is_nothing(node):
        return ()
    return node.items if isinstance(node, Sequence) else (node,)


def replaced(entries: Iterable[Entry], name: str, node: Node) -> list[Entry]:
    """The entries with `name` set, in its place or at the end."""
    found = list(entries)
    for index, (key, _) in enumerate(found):
        if key.text == name:
            found[index] = (key, node)
            return found
    return [*found, (named(name, node.mark), node)]


_NEVER = "never"


def never(mark: Mark) -> tuple[Entry, ...]:
    """What a key of a condition becomes that can match nothing here."""
    return ((named(_NEVER, mark), named("true", mark)),)


def condition(entries: Iterable[Entry], mark: Mark) -> Mapping:
    """The native condition of these entries; one that is never met, where one of them is never."""
    found = tuple(entries)
    if has(found, _NEVER):
        false = Scalar(text="false", mark=mark)
        found = (*(entry for entry in found if entry[0].text == "status"), (named("evaluate", mark), false))
    return Mapping(entries=found, mark=mark)


def plugin_settings(rewriter: Rewriter, entries: list[Entry]) -> list[Entry]:
    """Of a plugin: `PLUGIN_NAME` in `environment` is the setting `name`, where the file does not have it; and
    no variable of ours can be set there."""
    own = next((value for key, value in entries if key.text == "environment"), None)
    if has(entries, "commands", "entrypoint", "arguments") or not isinstance(own, Mapping):
        return entries
    settings = next((value for key, value in entries if key.text == "settings"), None)
    known = list(settings.entries) if isinstance(settings, Mapping) else []
    kept = []
    for key, value in own.entries:
        name = key.text
        if name.upper().startswith(PREFIX):
            known += (
                []
                if has(known, name[len(PREFIX) :].lower())
                else [(named(name[len(PREFIX) :].lower(), key.mark), value)]
            )
        elif name == "CI" or name.startswith("CI_"):
            rewriter.problems.warn(
                key.mark, f"{shown(name)} is a variable of ours, which a plugin gets as it is"
            )
        else:
            kept.append((key, value))
    if len(kept) == len(own.entries):
        return entries
    entries = replaced(entries, "environment", Mapping(entries=tuple(kept), mark=own.mark))
    return replaced(entries, "settings", Mapping(entries=tuple(known), mark=own.mark)) if known else entries


def has(entries: Iterable[Entry], *names: str) -> bool:
    return any(key.text in names for key, _ in entries)
