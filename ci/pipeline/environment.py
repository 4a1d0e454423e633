"""Environment: reads the variables of a step or service, as a map or as a list of `NAME=value`."""

from __future__ import annotations

import re

from ci import shell
from ci.pipeline.fields import Fields, Reader
from ci.pipeline.model import FromSecret
from ci.pipeline.problems import Mark, shown
from ci.pipeline.schema import Shape
from ci.pipeline.settings import plain_value, secret
from ci.pipeline.yaml import Mapping, Node, Scalar, Sequence, describe
from ci.settings import FROM_SECRET, PREFIX
from ci.settings import text as settings_text

MAX_NAME = 200
#: What may change which program a plugin's image runs, or whom it talks to. An image that a secret is for is
#: trusted for what it does by itself, so that a plugin with variables of its own gets no such secret
#: (`StepSpec.is_told_by_settings_alone`); these are worth a word.
_TURNS_A_PLUGIN = re.compile(
    "LD_.*|GLIBC_TUNABLES|GCONV_PATH|PATH|HOME|XDG_.*|IFS|ENV|PS4|BASH_.*|BASHOPTS|SHELLOPTS|PROMPT_COMMAND"
    "|GIT_.*|DOCKER_.*|.*_PROXY|SSL_CERT_.*|CURL_CA_BUNDLE|REQUESTS_CA_BUNDLE|SSH_ASKPASS.*|SSH_AUTH_SOCK"
    "|PYTHON.*|PERL5?(LIB|OPT|DB)|RUBY(OPT|LIB)|NODE_(OPTIONS|PATH)|JAVA_TOOL_OPTIONS|_JAVA_OPTIONS",
    re.IGNORECASE,
)


def read_environment(fields: Fields, *, is_plugin: bool = False) -> tuple[tuple[str, str | FromSecret], ...]:
    node = fields.get("environment", Shape.VARIABLES)
    reader = fields.reader
    if node is None or (isinstance(node, Scalar) and node.is_null):
        return ()
    if isinstance(node, Mapping):
        pairs: list[tuple[str, Mark, str | FromSecret]] = [
            (key.text, key.mark, _value(value, key.text, reader)) for key, value in node.entries
        ]
    elif isinstance(node, Sequence):
        pairs = [_pair(item, reader) for item in node.items]
    else:
        message = f'"environment" is a map or a list of "NAME=value", this is {describe(node)}'
        reader.problems.error(node.mark, message)
        return ()
    found = {}
    for name, mark, value in pairs:
        if is_plugin and (why := _wrong_for_plugin(name)):
            reader.problems.error(mark, f"{shown(name)} {why}")
            continue
        if is_plugin and _TURNS_A_PLUGIN.fullmatch(name):
            message = f"{shown(name)} may change what its image does; no secret for certain images reaches it"
            reader.problems.warn(mark, message)
        if _is_variable(name, mark, value, reader):
            found[name] = value
    return tuple(found.items())


def _value(node: Node, name: str, reader: Reader) -> str | FromSecret:
    if isinstance(node, Mapping) and FROM_SECRET in node.by_name:
        return secret(node, reader) or ""
    if not isinstance(node, Scalar):  # encoded as a setting is
        return settings_text(plain_value(node, reader))
    return reader.text(node, f"the variable {shown(name)}") or ""


def _pair(node: Node, reader: Reader) -> tuple[str, Mark, str | FromSecret]:
    text = reader.text(node, "a variable")
    if text is None:
        return "", node.mark, ""
    name, equals, value = text.partition("=")
    if not equals:
        reader.problems.error(node.mark, f'a variable is "NAME=value", this is {shown(text)}')
        return "", node.mark, ""
    return name, node.mark, value


def _is_variable(name: str, mark: Mark, value: str | FromSecret, reader: Reader) -> bool:
    if not name:
        return False
    if "=" in name or len(name) > MAX_NAME or not name.isprintable() or " " in name:
        reader.problems.error(mark, f"{shown(name)} is not the name of a variable")
        return False
    if isinstance(value, FromSecret) and (why := shell.unfit(name)):
        reader.problems.error(mark, f"the variable {shown(name)} cannot hold a secret: {why}")
        return False
    if name == "CI" or name.startswith("CI_"):
        reader.problems.warn(mark, f"{name} replaces our variable of that name, for this container only")
    elif not shell.is_exportable(name):
        reader.problems.warn(mark, f"no shell can export {shown(name)}; it is set when the container is made")
    return True


def _wrong_for_plugin(name: str) -> str:
    if name.upper().startswith(PREFIX):
        setting = name[len(PREFIX) :].lower()
        return f'is a setting of the plugin: write {shown(setting)} under "settings"'
    if name == "CI" or name.startswith("CI_"):
        return "is a variable of ours, which a plugin must be able to believe"
    return ""
