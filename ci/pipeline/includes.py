"""Includes: parts of a pipeline that stand in other files, put under what the file itself says.

An included file is named by a path at the same commit, or by a repo and the full id of a commit, so that the
same file always means the same. Who fetches them is not known here: texts come in by `Include.name`.

Maps are merged key by key, and what stands later wins, the file itself last. Lists and texts are replaced as
a whole, but steps and services are merged by their names, the included ones first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping as Texts
from dataclasses import dataclass, field, replace

from ci.errors import ConfigError
from ci.pipeline import yaml
from ci.pipeline.fields import Fields, Reader
from ci.pipeline.problems import Mark, Problems, shown
from ci.pipeline.schema import INCLUDE
from ci.pipeline.yaml import Kind, Mapping, Node, Scalar, Sequence, describe

MAX_INCLUDES = 20
_REPO = re.compile(r"[A-Za-z0-9_.-]{1,100}/[A-Za-z0-9_.-]{1,100}\Z")
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?\Z")
_ELSEWHERE = re.compile(r"[^/@]+/[^/@]+@[0-9a-f]{40,64}:.")
_HERE = "./"
_KEY = "include"
_BY_NAME = ("steps", "services")


@dataclass(frozen=True, kw_only=True)
class Include:
    file: str  #: a path from the root of its repository
    repo: str = ""  #: `owner/name`; empty: the repo of the pipeline, at the commit that is built
    commit: str = ""
    mark: Mark = field(default=Mark(), compare=False)

    @property
    def name(self) -> str:
        """What messages call it, and its key in a `Library`; never the name of a pipeline file."""
        return f"{self.repo}@{self.commit}:{self.file}" if self.repo else f"{_HERE}{self.file}"


@dataclass(frozen=True, kw_only=True)
class Library:
    """The texts of included files by `Include.name`, and of those that cannot be had, why."""

    texts: Texts[str, str] = field(default_factory=dict)
    missing: Texts[str, str] = field(default_factory=dict)


def is_included(name: str) -> bool:
    """Whether it is the name of an included file, and not of a pipeline file."""
    return name.startswith(_HERE) or _ELSEWHERE.match(name) is not None


def wanted(source: str | bytes, file: str) -> tuple[Include, ...]:
    """What a native pipeline file includes; nothing of one that cannot be read, which is said elsewhere."""
    problems = Problems(file=file)
    try:
        root = yaml.load(source, problems)
    except ConfigError:
        return ()
    return _read(root, problems) if isinstance(root, Mapping) else ()


def filled(root: Mapping, problems: Problems, library: Library) -> tuple[Mapping, int]:
    """The pipeline with what it includes put under it, and the characters of that.

    Raises ConfigError where something of it is not there: what else is wrong would be of that alone.
    """
    before = problems.errors
    found = _read(root, problems)
    size = sum(len(library.texts.get(each.name, "")) for each in found)
    if size > yaml.MAX_BYTES:
        message = f"the included files are larger than {yaml.MAX_BYTES // 1024} KiB together"
        problems.error(root.by_name[_KEY].mark, message)
        found = ()
    parts = [_loaded(each, problems, library) for each in found]
    if problems.errors > before:
        problems.raise_errors()
    merged: Node = Mapping((), root.mark)
    for part in (*(part for part in parts if part is not None), root):
        merged = _merged(merged, part, top=True)
    assert isinstance(merged, Mapping), "of maps"
    return (merged, size) if found else (root, 0)


# --- reading what is wanted -------------------------------------------------------------------------


def _read(root: Mapping, problems: Problems) -> tuple[Include, ...]:
    node = root.by_name.get(_KEY)
    if node is None or (isinstance(node, Scalar) and node.is_null):
        return ()
    nodes = node.items if isinstance(node, Sequence) else (node,)
    if len(nodes) > MAX_INCLUDES:
        problems.error(node.mark, f"a pipeline includes at most {MAX_INCLUDES} files")
        return ()
    found = [_include(item, Reader(problems=problems)) for item in nodes]
    return tuple(dict.fromkeys(each for each in found if each is not None))


def _include(node: Node, reader: Reader) -> Include | None:
    if isinstance(node, Scalar):
        found = Include(file=node.value, mark=node.mark)
        return found if _is_path(found.file, node.mark, reader.problems) else None
    fields = reader.fields(node, INCLUDE)
    if fields is None:
        return None
    file, repo, commit = (fields.text(key) or "" for key in ("file", "repo", "commit"))
    if not _is_place(repo, commit, fields) or not _is_path(file, node.mark, reader.problems):
        return None
    return Include(file=file, repo=repo, commit=commit, mark=node.mark)


def _is_path(path: str, mark: Mark, problems: Problems) -> bool:
    parts = path.split("/")
    if path and len(path) <= 500 and path.isprintable() and not {"", ".", ".."} & set(parts):
        return True
    problems.error(mark, f"a file is included by its path from the root of its repo, this is {shown(path)}")
    return False


def _is_place(repo: str, commit: str, fields: Fields) -> bool:
    problems = fields.reader.problems
    if commit and not repo:
        problems.error(fields.mark, '"commit" needs "repo"; a file of the same repo is of the same commit')
    elif repo and not _REPO.match(repo):
        problems.error(fields.mark, f"a repo is OWNER/NAME, this is {shown(repo)}")
    elif repo and not _COMMIT.match(commit):
        what = f"this is {shown(commit)}" if commit else "there is none"
        message = f'a file of another repo is pinned by "commit", the 40 digits of its full id; {what}'
        problems.error(fields.mark, message)
    else:
        return True
    return False


# --- loading ----------------------------------------------------------------------------------------


def _loaded(include: Include, problems: Problems, library: Library) -> Mapping | None:
    text = library.texts.get(include.name)
    if text is None:
        why = library.missing.get(include.name, "it is not there")
        problems.error(include.mark, f"{shown(include.name, 200)} cannot be included: {why}")
        return None
    own = Problems(file=include.name)
    try:
        root = yaml.load(text, own)
    except ConfigError:
        root = None
    else:
        _check(root, own)
    problems.take(own)
    if not isinstance(root, Mapping):
        return None
    placed = _placed(root, include.name)
    assert isinstance(placed, Mapping), "as it was"
    return placed


def _check(root: Node | None, problems: Problems) -> None:
    if not isinstance(root, Mapping):
        what = "nothing" if root is None else describe(root)
        problems.error(Mark(), f"an included file is a map with keys of a pipeline, this is {what}")
    elif _KEY in root.by_name:
        problems.error(root.by_name[_KEY].mark, "a file that is included includes nothing itself")


def _placed(node: Node, file: str) -> Node:
    """The same with `file` in every mark. Not deep: a file's depth is bounded."""
    mark = replace(node.mark, file=file)
    match node:
        case Scalar():
            return replace(node, mark=mark)
        case Sequence(items=items):
            return Sequence(tuple(_placed(item, file) for item in items), mark)
        case Mapping(entries=entries):
            placed = ((replace(key, mark=replace(key.mark, file=file)), value) for key, value in entries)
            return Mapping(tuple((key, _placed(value, file)) for key, value in placed), mark)


# --- merging ----------------------------------------------------------------------------------------


def _merged(under: Node, over: Node, *, top: bool = False) -> Node:
    if not isinstance(under, Mapping) or not isinstance(over, Mapping):
        return over
    entries = {key.text: (key, value) for key, value in under.entries}
    for key, value in over.entries:
        if key.text not in entries:
            entries[key.text] = (key, value)
        elif top and key.text in _BY_NAME:
            entries[key.text] = (key, _merged_by_name(entries[key.text][1], value))
        else:
            entries[key.text] = (key, _merged(entries[key.text][1], value))
    return Mapping(tuple(entries.values()), over.mark)


def _merged_by_name(under: Node, over: Node) -> Node:
    """Of steps: the included ones first, each with what a later one of its name says put over it."""
    below, above = _named(under), _named(over)
    if below is None or above is None:
        return over
    found = list(below)
    names = [name for name, _ in found]
    for name, node in above:
        if name and name in names:
            place = names.index(name)
            found[place] = (name, _merged(found[place][1], node))
        else:
            found.append((name, node))
    return Sequence(tuple(node for _, node in found), over.mark)


def _named(node: Node) -> list[tuple[str, Node]] | None:
    """(name, node) of each step, a map from names written as a list; None where it is neither."""
    if isinstance(node, Mapping):
        return [(key.text, _with_name(key, value)) for key, value in node.entries]
    if isinstance(node, Sequence):
        return [(_name(item), item) for item in node.items]
    return None


def _name(node: Node) -> str:
    found = node.by_name.get("name") if isinstance(node, Mapping) else None
    return found.value if isinstance(found, Scalar) else ""


def _with_name(key: Scalar, node: Node) -> Node:
    if not isinstance(node, Mapping) or "name" in node.by_name:
        return node
    name = Scalar("name", key.mark, Kind.TEXT)
    return Mapping(((name, replace(key, kind=Kind.TEXT)), *node.entries), node.mark)
