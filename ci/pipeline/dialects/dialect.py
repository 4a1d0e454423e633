"""Dialect: another way to write a pipeline file, translated into the native language before it is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ci.pipeline import yaml_rules
from ci.pipeline.problems import Mark, Problems
from ci.pipeline.yaml import Mapping, Node, Scalar, describe
from ci.pipeline.yaml_rules import Rules

#: Documents of a file, and where problems go; a map in the native language for each pipeline, with the marks
#: of what it was made of.
Translate = Callable[[Sequence[Node], Problems], list[Mapping]]


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """`is_lenient`: a variable that nobody knows is empty text, and no error."""

    name: str
    translate: Translate
    rules: Rules  #: how it reads YAML
    recognises: Callable[[Sequence[Node]], bool]  #: whether documents of no telling name are written in it
    files: tuple[
        str, ...
    ] = ()  #: of these names, at the root of a repo, in the order that they are looked for
    folder: str = ""  #: or every YAML file of this folder
    is_folder_first: bool = True
    is_lenient: bool = False

    def is_named(self, path: str) -> bool:
        """Whether the path of a file says that it is written in it."""
        folder, _, name = path.rpartition("/")
        return name in self.files or (bool(self.folder) and f"/{folder}".endswith(f"/{self.folder}"))


def _native(documents: Sequence[Node], problems: Problems) -> list[Mapping]:
    """The one document as it is."""
    root = documents[0] if documents else None
    if root is None or (isinstance(root, Scalar) and root.is_null):
        problems.error(Mark(), 'the file is empty; it needs "steps"')
    elif not isinstance(root, Mapping):
        problems.error(root.mark, f'a pipeline is a map with "steps", this is {describe(root)}')
    elif len(documents) > 1:
        message = "a second document begins here; a file holds one pipeline: put it into .ci/"
        problems.error(documents[1].mark, message)
    else:
        return [root]
    return []


NATIVE = Dialect(
    name="native",
    translate=_native,
    rules=yaml_rules.NATIVE,
    recognises=lambda documents: False,
    files=(".ci.yml", ".ci.yaml"),
    folder=".ci",
    is_folder_first=False,
)
