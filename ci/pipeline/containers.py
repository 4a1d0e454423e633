"""Containers: reads steps and services, in list and in map form."""

from __future__ import annotations

import re
from typing import Any

from ci.pipeline import substitute
from ci.pipeline.conditions import read_when
from ci.pipeline.dialects.images import changes_nothing_outside, own_clone
from ci.pipeline.endurance import read_ready, read_retry
from ci.pipeline.environment import read_environment
from ci.pipeline.fields import Fields, Reader
from ci.pipeline.model import Service, Step
from ci.pipeline.needs import read_needs
from ci.pipeline.problems import Mark, shown
from ci.pipeline.rights import read_rights, read_user
from ci.pipeline.schema import SERVICE, STEP, Section, Shape
from ci.pipeline.settings import read_settings
from ci.pipeline.volumes import read_mounts
from ci.pipeline.workspace import is_options
from ci.pipeline.yaml import Kind, Mapping, Node, Scalar, Sequence, describe
from ci.spec import Pull, Stops

MAX_NAME = 200

#: [registry/]path[:tag][@digest], as an engine takes it.
IMAGE = re.compile(
    r"(?:[A-Za-z0-9.-]+(?::[0-9]{1,5})?/)?"
    r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"
    r"(?::\w[\w.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9+.-]*:[0-9a-fA-F]{32,})?\Z",
    re.ASCII,
)


def read_steps(pipeline: Fields) -> tuple[Step, ...]:
    reader = pipeline.reader
    if "steps" not in pipeline.known:
        if pipeline.lacks("steps"):
            reader.problems.error(pipeline.mark, 'a pipeline needs "steps"')
        return ()
    found = _read_all(pipeline, "steps", STEP)
    if not found and not reader.problems.has_errors:
        reader.problems.error(pipeline.known["steps"].mark, 'a pipeline needs at least one step in "steps"')
    return tuple(step for fields, name in found if (step := _step(fields, name)))


def read_services(pipeline: Fields) -> tuple[Service, ...]:
    found = _read_all(pipeline, "services", SERVICE)
    return tuple(service for fields, name in found if (service := _service(fields, name)))


def read_clones(pipeline: Fields) -> tuple[Step, ...]:
    """The containers that fill the workspace in place of our own clone, one after the other."""
    node = pipeline.known.get("clone")
    if node is None or is_options(node) or own_clone(node) is not None:
        return ()
    found = _read_all(pipeline, "clone", STEP)
    return tuple(step for fields, name in found if (step := _step(fields, name, is_clone=True)))


def _read_all(pipeline: Fields, key: str, section: Section) -> list[tuple[Fields, str]]:
    """The maps under `key` with their names, each name once."""
    node = pipeline.get(key, Shape.CONTAINERS, Shape.CLONE)
    if node is None or (isinstance(node, Scalar) and node.is_null):
        return []
    seen: dict[str, Mark] = {}
    found = []
    for number, (given, mark, item) in enumerate(_items(node, key, pipeline.reader), 1):
        fields = pipeline.reader.fields(_unwrapped(item, section, pipeline.reader), section)
        if fields is None:
            continue
        name = fields.text("name") or given or f"{key.removesuffix('s')}-{number}"
        if _is_good_name(
            name,
            mark,
            seen,
            section,
            pipeline.reader,
            may_be_clone=key == "clone" or pipeline.flag("skip_clone"),
        ):
            found.append((fields, name))
    return found


def _items(node: Node, key: str, reader: Reader) -> list[tuple[str, Mark, Node]]:
    if isinstance(node, Mapping):
        return [(name.text, name.mark, item) for name, item in node.entries]
    if isinstance(node, Sequence):
        return [("", item.mark, item) for item in node.items]
    reader.problems.error(node.mark, f'"{key}" is a list or a map, this is {describe(node)}')
    return []


def _unwrapped(node: Node, section: Section, reader: Reader) -> Node:
    """`- build: {image: ...}` means a step named build: say so, and read on inside."""
    if not isinstance(node, Mapping) or len(node.entries) != 1:
        return node
    key, value = node.entries[0]
    if key.text in section.keys or not isinstance(value, Mapping):
        return node
    message = f'{section.title} in a list has its name as "name": write "- name: {key.text[:60]}"'
    reader.problems.error(key.mark, message)
    return value


def _is_good_name(
    name: str, mark: Mark, seen: dict[str, Mark], section: Section, reader: Reader, *, may_be_clone: bool
) -> bool:
    kind = section.title.removeprefix("a ")
    if len(name) > MAX_NAME:
        reader.problems.error(mark, f"the name of a {kind} is longer than {MAX_NAME} characters")
    elif not name.strip() or not name.isprintable():
        reader.problems.error(mark, f"the name of a {kind} is one line of text, this is {shown(name)}")
    elif name in seen:
        message = f"two {kind}s are named {shown(name)}; the other one is in line {seen[name].line}"
        reader.problems.error(mark, message)
    elif name == "clone" and kind == "step" and not may_be_clone:
        reader.problems.error(mark, 'the name "clone" belongs to the step that fills the workspace')
    else:
        seen[name] = mark
        return True
    return False


def _step(fields: Fields, name: str, *, is_clone: bool = False) -> Step | None:
    image = _image(fields, f"step {shown(name)}")
    commands = _commands(fields)
    problems = fields.reader.problems
    if "commands" in fields.known and not commands and not problems.has_errors:
        problems.error(fields.known["commands"].mark, f"step {shown(name)} has no command in it")
    if commands and "settings" in fields.known:
        message = f"step {shown(name)} has commands and settings: the commands see them as PLUGIN_* variables"
        problems.warn(fields.known["settings"].mark, message)
    has_program = bool(commands or "entrypoint" in fields.known or "arguments" in fields.known)
    may_repeat = has_program or changes_nothing_outside(image) or is_clone
    failure = fields.word("failure")
    return Step(
        **_container(fields, name, image, commands, is_plugin=not has_program),
        ignore_failure=failure == "ignore",
        failure_stops={"stop": Stops.JOB, "cancel": Stops.BUILD}.get(failure, Stops.NOTHING),
        detach=fields.flag("detach"),
        deploy=fields.flag("deploy", default=not may_repeat),
        is_clone=is_clone,
        timeout_seconds=fields.seconds("timeout"),
        no_output_seconds=fields.seconds("no_output_timeout"),
        retry=read_retry(fields),
        stop_on_exit=fields.numbers("stop_on_exit", 1, 255),
    )


def _service(fields: Fields, name: str) -> Service:
    image = _image(fields, f"service {shown(name)}")
    return Service(
        **_container(fields, name, image, _commands(fields), is_plugin=False), ready=read_ready(fields)
    )


def _container(
    fields: Fields, name: str, image: str, commands: tuple[str, ...], *, is_plugin: bool
) -> dict[str, Any]:
    """What a step and a service have in common, as arguments of both."""
    needs_node = fields.known.get("depends_on")
    return {
        "name": name,
        "image": image,
        "mark": fields.mark,
        "commands": commands,
        "environment": read_environment(fields, is_plugin=is_plugin),
        "environment_files": fields.texts("environment_file") or (),
        "settings": read_settings(fields),
        "when": read_when(fields),
        "needs": read_needs(fields),
        "needs_mark": needs_node.mark if needs_node else None,
        "entrypoint": fields.texts("entrypoint") or (),
        "arguments": _arguments(fields, commands),
        "directory": fields.text("directory") or "",
        "user": read_user(fields),
        "pull": _pull(fields),
        "mounts": read_mounts(fields),
        "rights": read_rights(fields),
        "memory_bytes": fields.size("memory"),
        "cpus": fields.amount("cpus"),
    }


def _arguments(fields: Fields, commands: tuple[str, ...]) -> tuple[str, ...]:
    found = fields.texts("arguments") or ()
    if found and commands:
        message = '"arguments" are for the image\'s own program; "commands" run without it'
        fields.reader.problems.error(fields.known["arguments"].mark, message)
    return found


def _pull(fields: Fields) -> Pull:
    node = fields.get("pull", Shape.PULL)
    if node is None or (isinstance(node, Scalar) and node.is_null):
        return Pull.MISSING
    if isinstance(node, Scalar) and node.kind is Kind.BOOL:
        return Pull.ALWAYS if node.text.lower() == "true" else Pull.MISSING
    return Pull(next(iter(fields.reader.words(node, fields.section.keys["pull"])), Pull.MISSING))


def _image(fields: Fields, what: str) -> str:
    problems = fields.reader.problems
    if "image" not in fields.known:
        if fields.lacks("image"):
            problems.error(fields.mark, f'{what} needs "image"')
        return ""
    image = fields.text("image")
    if image is not None and "$" not in image and not IMAGE.match(image):
        problems.error(fields.known["image"].mark, f"{shown(image)} is not the name of an image")
    return image or ""


def _commands(fields: Fields) -> tuple[str, ...]:
    node = fields.get("commands", Shape.TEXTS)
    if node is None:
        return ()
    nodes = node.items if isinstance(node, Sequence) else (node,)
    found = [_command(item, fields.reader) for item in nodes]
    return tuple(command for command in found if command)


def _command(node: Node, reader: Reader) -> str:
    if isinstance(node, Mapping):
        message = 'a command is text, this is a map: put the line into quotes because of the ": " in it'
        reader.problems.error(node.mark, message)
        return ""
    if isinstance(node, Sequence):
        reader.problems.error(node.mark, "a command is text, this is a list")
        return ""
    for name in substitute.single_quoted(node.text):
        message = f"the shell fills in ${{{name}}}, and does not in single quotes; use double quotes"
        reader.problems.warn(node.mark, message)
    if substitute.lone_escape(node.text):
        reader.problems.warn(node.mark, '"$$" means one "$"; write "$$$$" for the process id of the shell')
    return node.value
