"""Lookup: which files of a commit are its pipelines. The first form that exists wins; forms never mix."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ci.pipeline.dialects import DIALECTS, Dialect

#: The names and the folders that any repo may have, in the order in which they are looked for.
SINGLE = tuple(name for dialect in DIALECTS.values() for name in dialect.files)
FOLDERS = tuple(dialect.folder for dialect in DIALECTS.values() if dialect.folder)
#: All of them in words.
PLACES = ", ".join((*SINGLE[:1], *(f"{folder}/" for folder in FOLDERS), *SINGLE[1:]))
_YAML = re.compile(r"[^/]+\.ya?ml\Z")


@dataclass(frozen=True, kw_only=True)
class Form:
    """One way to keep pipelines: the first of `names` that exists, or (None) every YAML file that lies
    directly in `folder`. Paths from the root of the repository; the empty folder is the root."""

    folder: str
    names: tuple[str, ...] | None = None

    def choose(self, paths: Iterable[str]) -> tuple[str, ...]:
        """The pipeline files among the paths of a commit, sorted."""
        found = set(paths)
        if self.names is not None:
            return tuple(name for name in self.names if name in found)[:1]
        prefix = f"{self.folder}/" if self.folder else ""
        return tuple(
            sorted(path for path in found if path.startswith(prefix) and _YAML.fullmatch(path[len(prefix) :]))
        )


def _usual(dialect: Dialect) -> tuple[Form, ...]:
    """One file, or one file for each pipeline: what comes first there comes first here."""
    forms = [Form(folder="", names=dialect.files)]
    if dialect.folder:
        forms.insert(0 if dialect.is_folder_first else 1, Form(folder=dialect.folder))
    return tuple(forms)


_USUAL = tuple(form for dialect in DIALECTS.values() for form in _usual(dialect))


def forms(config_path: str = "") -> tuple[Form, ...]:
    """The forms in the order in which they are looked for; only that one where the repo names a path: a
    file, or a folder with `/` at its end."""
    if not config_path:
        return _USUAL
    if config_path.endswith("/"):
        return (Form(folder=config_path.strip("/")),)
    path = config_path.lstrip("/")
    return (Form(folder=path.rpartition("/")[0], names=(path,)),)


def choose(paths: Iterable[str], config_path: str = "") -> tuple[str, ...]:
    """The pipeline files among the paths of a commit, sorted; empty where there is none."""
    found = tuple(paths)
    return next((names for form in forms(config_path) if (names := form.choose(found))), ())
