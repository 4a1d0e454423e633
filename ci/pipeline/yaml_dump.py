"""Dump: a tree of nodes as YAML that a person likes to read, and that reads back as the same tree.

By the native rules: text that would be taken for something else is quoted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping as MappingOf

from ci.pipeline.problems import Mark
from ci.pipeline.yaml import Mapping, Node, Scalar, Sequence
from ci.pipeline.yaml_rules import NATIVE, Kind

#: Mark of a key or item -> the lines of comment above it.
Comments = MappingOf[Mark, tuple[str, ...]]

_WIDTH = 88
_PLAIN = re.compile(r"[A-Za-z0-9_./$~^+*@%(\\-][^\n\t]*\Z")
_NOT_PLAIN = re.compile(r": |:$| #|^[-?:] |^[-?:]$|^---|^\.\.\.| $|^[*@%&!|>]|[\x00-\x1f\x7f-\x9f\ufeff]")
#: Other readers of YAML take them for flags.
_OLD_WORDS = frozenset({"y", "n", "yes", "no", "on", "off"})
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
_IN_FLOW = re.compile(r"[,\[\]{}]")


def dump(node: Node, comments: Comments | None = None) -> str:
    writer = _Writer(dict(comments or {}))
    writer.block(node, 0)
    return "\n".join(writer.lines) + "\n"


class _Writer:
    def __init__(self, comments: dict[Mark, tuple[str, ...]]) -> None:
        self.lines: list[str] = []
        self._comments = comments

    def block(self, node: Node, indent: int) -> None:
        match node:
            case Mapping(entries=entries) if entries:
                self._entries(entries, indent)
            case Sequence(items=items) if items:
                for item in items:
                    self._item(item, indent)
            case _:
                self.lines.append(" " * indent + _inline(node))

    def _entries(self, entries: tuple[tuple[Scalar, Node], ...], indent: int, first: str = "") -> None:
        """`first` stands before the first key, as the dash of an item does."""
        for number, (key, value) in enumerate(entries):
            is_section = indent == 0 and number > 0 and not isinstance(value, Scalar)
            if is_section:
                self.lines.append("")
            lead = first if number == 0 and first else " " * indent
            if not (number == 0 and first):
                self._comment(key.mark, indent)
            self._value(f"{lead}{_key(key)}:", value, indent)

    def _value(self, head: str, value: Node, indent: int) -> None:
        """After `head`, which ends with a colon or a dash."""
        if isinstance(value, Scalar) and "\n" in value.text and _is_literal(value.text):
            self.lines.append(f"{head} {_header(value.text)}")
            pad = " " * (indent + 2)
            # The newline at the end is the header's word; more of them are lines of their own.
            text = value.text[:-1] if value.text.endswith("\n") else value.text
            self.lines += [pad + line if line else "" for line in text.split("\n")]
            return
        flow = _flow(value)
        if flow is not None and len(head) + len(flow) < _WIDTH:
            self.lines.append(f"{head} {flow}")
        elif isinstance(value, Scalar):
            self.lines.append(f"{head} {_inline(value)}".rstrip())
        else:
            self.lines.append(head)
            self.block(value, indent + 2)

    def _item(self, item: Node, indent: int) -> None:
        self._comment(item.mark, indent)
        dash = " " * indent + "- "
        if isinstance(item, Mapping) and item.entries:
            self._comments.pop(item.entries[0][0].mark, None)  # it is the item's
            self._entries(item.entries, indent + 2, dash)
        elif isinstance(item, Sequence) and item.items and _flow(item) is None:
            self.lines.append(dash.rstrip())
            self.block(item, indent + 2)
        else:
            self._value(dash.rstrip(), item, indent)

    def _comment(self, mark: Mark, indent: int) -> None:
        for line in self._comments.pop(mark, ()):
            self.lines.append(" " * indent + line)


def _key(key: Scalar) -> str:
    return _inline(key)


def _flow(node: Node) -> str | None:
    """A list of short plain values on one line, and what is empty; None for the others."""
    match node:
        case Mapping(entries=()):
            return "{}"
        case Sequence(items=()):
            return "[]"
        case Sequence(items=items) if all(isinstance(item, Scalar) for item in items):
            words = [_inline(item) for item in items if isinstance(item, Scalar)]
            if any(not word or _IN_FLOW.search(word) or "\n" in word or " " in word for word in words):
                return None
            return f"[{', '.join(words)}]"
    return None


def _inline(node: Node) -> str:
    """A scalar on one line; of the others, the empty ones."""
    if not isinstance(node, Scalar):
        return "{}" if isinstance(node, Mapping) else "[]"
    if node.kind is Kind.NULL:
        return "null"
    return node.text if _is_plain(node.text, node.kind) else _quoted(node.text)


def _is_plain(text: str, kind: Kind) -> bool:
    if not _PLAIN.match(text) or _NOT_PLAIN.search(text) or len(text) > 1000:
        return False
    return NATIVE.kind_of(text) is kind and text.lower() not in _OLD_WORDS


def _quoted(text: str) -> str:
    if text.isprintable() and "'" not in text:
        return f"'{text}'"
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    if text.isprintable():
        return "'" + text.replace("'", "''") + "'"
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _is_literal(text: str) -> bool:
    """Whether a block scalar can hold it as it is."""
    printable = all(char == "\n" or char == "\t" or char.isprintable() for char in text)
    return printable and bool(text.strip()) and "\u2028" not in text and "\u2029" not in text


def _header(text: str) -> str:
    """`|`, with an indicator where the first line begins with a space, and one for the last newlines."""
    first = next(line for line in text.split("\n") if line)
    indent = "2" if first.startswith((" ", "\t")) or text.startswith("\n") else ""
    chomp = "-" if not text.endswith("\n") else "+" if text.endswith("\n\n") else ""
    return f"|{indent}{chomp}"
