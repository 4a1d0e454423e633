"""Lookup: which files of a commit are its pipelines. The first form that exists wins; forms never mix."""

from __future__ import annotations

import re
from collections.abc import Iterable

#: One file, or one file for each pipeline.
SINGLE = (".ci.yml", ".ci.yaml")
FOLDER = ".ci"
_IN_FOLDER = re.compile(r"\.ci/[^/]+\.ya?ml\Z")


def choose(paths: Iterable[str]) -> tuple[str, ...]:
    """The pipeline files among the paths of a commit, sorted; empty where there is none."""
    found = set(paths)
    single = next((name for name in SINGLE if name in found), None)
    if single is not None:
        return (single,)
    return tuple(sorted(path for path in found if _IN_FOLDER.match(path)))
