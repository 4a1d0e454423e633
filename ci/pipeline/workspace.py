"""Workspace: reads where it lies, how our own clone fills it, and what may run beside the job."""

from __future__ import annotations

import posixpath
import re

from ci.pipeline.dialects.images import own_clone
from ci.pipeline.fields import Fields
from ci.pipeline.model import CloneOptions, Group
from ci.pipeline.problems import shown
from ci.pipeline.schema import CLONE, CONCURRENCY, Shape
from ci.pipeline.schema import WORKSPACE as SECTION
from ci.pipeline.yaml import Kind, Mapping, Scalar

WORKSPACE = "/workspace"
_PATH = re.compile(r"[A-Za-z0-9_./ @+,=-]{1,200}\Z")
#: What a workspace would hide or spoil in a container.
_FORBIDDEN = frozenset(
    {"/", *(f"/{name}" for name in ("bin", "boot", "dev", "etc", "lib", "lib64", "proc", "run", "sbin"))}
    | {"/sys", "/usr", "/usr/bin", "/usr/sbin", "/usr/lib", "/var", "/var/run", "/mnt", "/media"}
)


def read_workspace(fields: Fields) -> tuple[str, str]:
    """(where the volume is mounted, the folder below it that is cloned into)."""
    node = fields.get("workspace", Shape.WORKSPACE)
    if node is None or (isinstance(node, Scalar) and node.is_null):
        return WORKSPACE, ""
    if not isinstance(node, Mapping):
        return _base(fields, fields.reader.text(node, '"workspace"') or WORKSPACE), ""
    inner = fields.reader.fields(node, SECTION)
    if inner is None:
        return WORKSPACE, ""
    base = _base(inner, inner.text("base") or WORKSPACE)
    return base, inner.text("path") or ""


def _base(fields: Fields, text: str) -> str:
    base = posixpath.normpath(text)
    if not base.startswith("/") or not _PATH.match(base):
        fields.reader.problems.error(
            fields.mark, f"the base of a workspace is absolute, this is {shown(text)}"
        )
    elif base in _FORBIDDEN or base.startswith(("/proc/", "/sys/", "/dev/")):
        message = f"a workspace at {shown(base)} would hide what an image needs; take a folder of its own"
        fields.reader.problems.error(fields.mark, message)
    else:
        return "/" + base.lstrip("/")
    return WORKSPACE


def read_clone_options(fields: Fields) -> CloneOptions:
    """The options of our own clone; containers in its place are read by `containers.read_clones`."""
    node = fields.get("clone", Shape.CLONE)
    node = None if node is None else own_clone(node) or node
    if node is None or not is_options(node):
        return CloneOptions()
    inner = fields.reader.fields(node, CLONE)
    if inner is None:
        return CloneOptions()
    return CloneOptions(depth=inner.number("depth", 0, 1_000_000), tags=inner.flag("tags"))


def is_options(node: object) -> bool:
    """Whether `clone` holds our own clone's options: a map in which no value is a container."""
    return isinstance(node, Mapping) and not any(isinstance(value, Mapping) for _, value in node.entries)


def read_concurrency(fields: Fields) -> Group | None:
    node = fields.get("concurrency", Shape.CONCURRENCY)
    if node is None or (isinstance(node, Scalar) and node.is_null):
        return None
    if isinstance(node, Scalar) and node.kind is Kind.INT:
        limit = fields.reader.number(node, '"concurrency"', 1, 1_000)
        return Group(limit=limit or 1)
    if not isinstance(node, Mapping):
        return Group(name=fields.reader.text(node, '"concurrency"') or "")
    inner = fields.reader.fields(node, CONCURRENCY)
    if inner is None:
        return None
    return Group(
        name=inner.text("group") or "",
        limit=inner.number("limit", 1, 1_000) or 1,
        cancels=inner.flag("cancel"),
    )
