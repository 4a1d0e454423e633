"""Settings: what a plugin is told, as the file says it; and secrets by their names.

Values keep their text (`1.10` is `1.10`, `yes` is `yes`) at the top and in plain lists, where the plugin gets
text anyway. Deeper, where the plugin gets JSON, true, false, null, whole numbers, and fractions that JSON
prints as they are written, are JSON's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ci.pipeline.fields import Fields, Reader
from ci.pipeline.model import FromSecret
from ci.pipeline.problems import shown
from ci.pipeline.schema import Shape
from ci.pipeline.yaml import Kind, Mapping, Node, Scalar, Sequence, describe
from ci.settings import FROM_SECRET, variable

#: A setting becomes a variable, `PLUGIN_NAME`, that a shell has to export.
_SETTING = re.compile(r"[A-Za-z0-9_.-]{1,190}\Z")
_SECRET = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}\Z")
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})\Z")


def read_settings(fields: Fields) -> dict[str, Any]:
    node = fields.get("settings", Shape.SETTINGS)
    if node is None or (isinstance(node, Scalar) and node.is_null):
        return {}
    if not isinstance(node, Mapping):
        fields.reader.problems.error(node.mark, f'"settings" is a map, this is {describe(node)}')
        return {}
    found: dict[str, Any] = {}
    variables: dict[str, str] = {}
    for key, value in node.entries:
        name = key.text
        if not _SETTING.match(name):
            message = f"{shown(name)} cannot be a setting: it has letters, digits, _, - and ."
            fields.reader.problems.error(key.mark, message)
        other = variables.setdefault(variable(name), name)
        if other != name:
            message = f"{shown(name)} and {shown(other)} are the same setting: both are {variable(name)}"
            fields.reader.problems.error(key.mark, message)
        found[name] = _value(value, fields.reader, is_deep=False)
    return found


def secret(node: Mapping, reader: Reader) -> FromSecret | None:
    """The name in `{from_secret: NAME}`; None and a problem for what is no name."""
    value = node.by_name[FROM_SECRET]
    if len(node.entries) != 1:
        reader.problems.error(node.mark, f'"{FROM_SECRET}" stands alone in its map')
        return None
    if not isinstance(value, Scalar) or not _SECRET.match(value.text):
        message = f"the name of a secret has letters, digits, _, - and ., this is {describe(value)}"
        reader.problems.error(value.mark, message)
        return None
    return FromSecret(name=value.text, mark=node.mark)


def plain_value(node: Node, reader: Reader) -> Any:
    """A list or a map outside of `settings`: as there, but no secret may stand in it."""
    found = _value(node, reader, is_deep=False)
    if any(secrets_in(found)):
        message = "a secret in a list or a map is for settings; give it a variable of its own"
        reader.problems.error(node.mark, message)
        return None
    return found


def secrets_in(value: Any) -> Iterator[FromSecret]:
    if isinstance(value, FromSecret):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from secrets_in(each)


def _value(node: Node, reader: Reader, *, is_deep: bool) -> Any:
    if isinstance(node, Scalar):
        return _scalar(node, reader, is_deep=is_deep)
    if isinstance(node, Sequence):
        is_plain = not is_deep and all(isinstance(item, Scalar) or _is_secret(item) for item in node.items)
        if is_plain:
            _warn_of_commas(node, reader)
        return [_value(item, reader, is_deep=is_deep or not is_plain) for item in node.items]
    if FROM_SECRET in node.by_name:
        return secret(node, reader)
    return {key.text: _value(value, reader, is_deep=True) for key, value in node.entries}


def _warn_of_commas(node: Sequence, reader: Reader) -> None:
    for item in node.items:
        if isinstance(item, Scalar) and "," in item.text:
            message = f"{shown(item.text)} has a comma in it: plugins get a list joined by commas"
            reader.problems.warn(item.mark, message)


def _is_secret(node: Node) -> bool:
    return isinstance(node, Mapping) and FROM_SECRET in node.by_name


def _scalar(node: Scalar, reader: Reader, *, is_deep: bool) -> Any:
    if node.is_null:
        return None
    if is_deep and node.kind is Kind.BOOL:
        return node.text.lower() == "true"
    if is_deep and node.kind is Kind.INT and _INTEGER.match(node.text):
        return int(node.text)
    if is_deep and node.kind is Kind.FLOAT and _is_canonical(node.text):
        return float(node.text)
    return reader.text(node, "a setting") or ""


def _is_canonical(text: str) -> bool:
    """Whether JSON prints the number as it is written; else its text would be lost: `1.10` is no `1.1`."""
    try:
        return repr(float(text)) == text
    except ValueError:
        return False
