"""Inputs: typed values that a person gives to a build by hand; other events have their defaults."""

from __future__ import annotations

import re
from collections.abc import Mapping as MappingOf
from collections.abc import Sequence as SequenceOf

from ci.event import Event, Kind
from ci.pipeline.fields import Fields, Reader
from ci.pipeline.model import Input
from ci.pipeline.problems import Mark, Problems, shown
from ci.pipeline.schema import INPUT, Shape
from ci.pipeline.yaml import Mapping, Node, Scalar, describe

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}\Z")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?\Z")
_FLAGS = {"true": "true", "yes": "true", "false": "false", "no": "false"}
MAX_INPUTS = 50


class WrongInput(ValueError):
    """A value that an input does not take. `mark` is where the input stands."""

    def __init__(self, message: str, mark: Mark) -> None:
        super().__init__(message)
        self.mark = mark


def names(node: Node | None) -> set[str]:
    """What `${NAME}` may use, before anything else is read."""
    return {key.text for key, _ in node.entries} if isinstance(node, Mapping) else set()


def read_inputs(fields: Fields) -> tuple[Input, ...]:
    node = fields.get("inputs", Shape.INPUTS)
    if node is None or (isinstance(node, Scalar) and node.is_null):
        return ()
    problems = fields.reader.problems
    if not isinstance(node, Mapping):
        problems.error(node.mark, f'"inputs" is a map, this is {describe(node)}')
        return ()
    if len(node.entries) > MAX_INPUTS:
        problems.error(node.mark, f"{MAX_INPUTS} inputs are the most")
        return ()
    found = [_input(key, value, fields.reader) for key, value in node.entries]
    return tuple(each for each in found if each)


def _input(key: Scalar, node: Node, reader: Reader) -> Input | None:
    if not _NAME.match(key.text) or key.text.startswith(("CI_", "PLUGIN_", "SHIPWAY_")) or key.text == "CI":
        message = f"{shown(key.text)} cannot be an input: it has letters, digits and _, and is none of ours"
        reader.problems.error(key.mark, message)
        return None
    if isinstance(node, Scalar):  # `NAME: default`, or nothing
        return Input(name=key.text, mark=key.mark, default=None if node.is_null else node.text)
    inner = reader.fields(node, INPUT)
    if inner is None:
        return None
    kind, options = inner.word("type") or "text", inner.texts("options") or ()
    if (kind == "choice") != bool(options):
        reader.problems.error(node.mark, 'an input of type "choice" has "options", and no other has them')
        return None
    found = Input(
        name=key.text,
        mark=key.mark,
        type=kind,
        default=inner.text("default"),
        options=options,
        is_required=inner.flag("required"),
        description=inner.text("description") or "",
    )
    _check_default(found, reader.problems)
    return found


def _check_default(found: Input, problems: Problems) -> None:
    try:
        if found.default is not None:
            value(found, found.default)
    except WrongInput as error:
        problems.error(found.mark, f'"default": {error}')


def value(wanted: Input, text: str) -> str:
    """The text as the input has it. Raises WrongInput."""
    name = shown(wanted.name)
    if wanted.type == "number" and not _NUMBER.match(text.strip()):
        raise WrongInput(f"the input {name} is a number, this is {shown(text)}", wanted.mark)
    if wanted.type == "flag":
        if text.strip().lower() not in _FLAGS:
            raise WrongInput(f"the input {name} is true or false, this is {shown(text)}", wanted.mark)
        return _FLAGS[text.strip().lower()]
    if wanted.type == "choice" and text not in wanted.options:
        words = ", ".join(wanted.options)
        raise WrongInput(f"the input {name} is one of {words}; this is {shown(text)}", wanted.mark)
    return text.strip() if wanted.type == "number" else text


def with_inputs(event: Event, wanted: SequenceOf[Input]) -> Event:
    """The event with the value of each input among its variables. Raises WrongInput."""
    if not wanted:
        return event
    found: dict[str, str] = {}
    for each in wanted:
        given = event.variables.get(each.name, "")
        if given == "" and each.default is None and each.is_required and event.kind is Kind.MANUAL:
            raise WrongInput(f"the input {shown(each.name)} must be given", each.mark)
        text = given if given != "" else each.default
        if text is not None:
            found[each.name] = value(each, text)
    variables: MappingOf[str, str] = {**event.variables, **found}
    return event.model_copy(update={"variables": dict(variables)})
