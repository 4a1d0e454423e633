"""The settings of a plugin as the variables that its image reads: `PLUGIN_*`. Pure.

The contract that plugin images of this line of servers share: names in capitals, both with `-` and `.` as
they are and with `_` for them; a text, a number and a flag as they are; null is not set at all; a list of
plain values joined by commas; everything deeper as JSON, its keys in order, `<`, `>` and `&` escaped. A node
`{"from_secret": NAME}`, at any depth, stands for the secret's value. Source: the studies of the peers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

FROM_SECRET = "from_secret"
PREFIX = "PLUGIN_"
_ESCAPED = {char: f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def secret_names(settings: Mapping[str, Any]) -> Iterator[str]:
    """The secrets that the settings name, at any depth; a name may come twice."""
    for value in settings.values():
        yield from _names(value)


def plugin_variables(settings: Mapping[str, Any], secrets: Mapping[str, str]) -> dict[str, str]:
    """`PLUGIN_*` for these settings. Every secret that they name is in `secrets`; else KeyError."""
    found = {
        variable(name): text(_resolved(value, secrets))
        for name, value in settings.items()
        if value is not None
    }
    for name, value in settings.items():
        # No shell can export such a name: it stands in the container's config, where no secret may be.
        if value is not None and variable(name) != _as_it_is(name) and not list(_names(value)):
            found[_as_it_is(name)] = found[variable(name)]
    return found


def _as_it_is(name: str) -> str:
    return PREFIX + name.upper()


def variable(name: str) -> str:
    """The variable that holds the setting."""
    return PREFIX + name.upper().replace("-", "_").replace(".", "_")


def is_reference(value: object) -> bool:
    return isinstance(value, Mapping) and set(value) == {FROM_SECRET} and isinstance(value[FROM_SECRET], str)


def _names(value: Any) -> Iterator[str]:
    if is_reference(value):
        yield value[FROM_SECRET]
    elif isinstance(value, Mapping):
        yield from secret_names(value)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _names(each)


def _resolved(value: Any, secrets: Mapping[str, str]) -> Any:
    if is_reference(value):
        return secrets[value[FROM_SECRET]]
    if isinstance(value, Mapping):
        return {key: _resolved(each, secrets) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_resolved(each, secrets) for each in value]
    return value


def text(value: Any) -> str:
    """A value without references to secrets, as a variable."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    is_plain = isinstance(value, list) and not any(isinstance(each, list | dict) for each in value)
    if is_plain:
        return ",".join(text(each) for each in value)
    found = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return "".join(_ESCAPED.get(char, char) for char in found)
