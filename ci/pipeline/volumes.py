"""Volumes: reads the volumes of a pipeline, and where its containers see them."""

from __future__ import annotations

import re

from ci.pipeline.fields import Fields, Reader
from ci.pipeline.model import Mount
from ci.pipeline.problems import shown
from ci.pipeline.schema import MOUNT, VOLUME, Shape
from ci.pipeline.yaml import Mapping, Node, Scalar, Sequence, describe
from ci.spec import Volume

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\Z")
#: Of Windows too; a variable may hold a whole path.
_ABSOLUTE = re.compile(r"/|\$|[A-Za-z]:[\\/]|\\\\")
_SHORT = "volume:/path"


def read_volumes(fields: Fields) -> tuple[Volume, ...]:
    node = fields.get("volumes", Shape.VOLUMES)
    if node is None or (isinstance(node, Scalar) and node.is_null):
        return ()
    if isinstance(node, Mapping):
        found = [_volume(key, value, fields.reader) for key, value in node.entries]
    elif isinstance(node, Sequence):
        found = [_volume(item, None, fields.reader) for item in node.items]
    else:
        fields.reader.problems.error(node.mark, f'"volumes" is a map, this is {describe(node)}')
        return ()
    return tuple({volume.name: volume for volume in found if volume}.values())


def _volume(key: Node, value: Node | None, reader: Reader) -> Volume | None:
    name = key.text if isinstance(key, Scalar) else ""
    if not _NAME.match(name):
        message = f"a volume's name has letters, digits, _, - and ., this is {describe(key)}"
        reader.problems.error(key.mark, message)
        return None
    if value is None or (isinstance(value, Scalar) and value.is_null):
        return Volume(name=name)
    fields = reader.fields(value, VOLUME)
    if fields is None:
        return None
    is_memory, size = fields.flag("memory"), fields.size("size")
    if size and not is_memory:
        message = f'the volume {shown(name)} has "size", which only one with "memory: true" keeps to'
        reader.problems.error(fields.known["size"].mark, message)
    return Volume(name=name, is_memory=is_memory, size_bytes=size)


def read_mounts(fields: Fields) -> tuple[Mount, ...]:
    node = fields.get("volumes", Shape.MOUNTS)
    if node is None or (isinstance(node, Scalar) and node.is_null):
        return ()
    nodes = node.items if isinstance(node, Sequence) else (node,)
    return tuple(mount for item in nodes if (mount := _mount(item, fields.reader)))


def _mount(node: Node, reader: Reader) -> Mount | None:
    if isinstance(node, Scalar):
        return _short(node, reader)
    fields = reader.fields(node, MOUNT)
    if fields is None:
        return None
    volume, host, path = (fields.text(name) or "" for name in ("volume", "host", "path"))
    if not path:
        if fields.lacks("path"):
            reader.problems.error(node.mark, 'a mount needs "path"')
        return None
    if bool(volume) == bool(host):
        reader.problems.error(node.mark, 'a mount has one of "volume" and "host"')
        return None
    mount = Mount(path=path, mark=node.mark, volume=volume, host=host, is_read_only=fields.flag("read_only"))
    return _checked(mount, reader)


def _short(node: Scalar, reader: Reader) -> Mount | None:
    """`name:/path`, `/host:/path`, each with `:ro` or `:rw` after it."""
    text = reader.text(node, '"volumes"') or ""
    source, _, rest = text.partition(":")
    path, _, mode = rest.partition(":")
    if not source or not path or mode not in ("", "ro", "rw"):
        message = f'a mount is "{_SHORT}" or "/host:/path", with ":ro" after it; this is {describe(node)}'
        reader.problems.error(node.mark, message)
        return None
    is_host = source.startswith(("/", ".", "~", "$"))
    mount = Mount(
        path=path,
        mark=node.mark,
        volume="" if is_host else source,
        host=source if is_host else "",
        is_read_only=mode == "ro",
    )
    return _checked(mount, reader)


def _checked(mount: Mount, reader: Reader) -> Mount | None:
    for what, path in (("mounted at", mount.path), ("of the machine that is mounted", mount.host)):
        if path and not _ABSOLUTE.match(path):
            message = f"the path {what} is absolute, this is {shown(path)}"
            reader.problems.error(mount.mark, message)
            return None
    return mount
