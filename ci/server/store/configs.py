"""Configs: how the pipeline files of a build, and those that they include, stand in its row.

One file stands as it is under its name. Several stand as JSON, under the name of their folder; one file and
what it includes under the name of the file, with `/` at its end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from ci.server.models import Build


def stored(files: Mapping[str, str], included: Mapping[str, str]) -> tuple[str, str]:
    """(`config_file`, `config`) of a build."""
    if not included and len(files) < 2:
        return next(iter(files.items()), ("", ""))
    first = next(iter(files))
    place = first if len(files) == 1 else first.rpartition("/")[0]
    return f"{place}/", json.dumps({**files, **included})


def name(config_file: str) -> str:
    """What people call it: `.ci.yml`, or `.ci/` of a folder."""
    return config_file.removesuffix("/") if config_file.endswith((".yml/", ".yaml/")) else config_file


def files(build: Build) -> dict[str, str]:
    """The stored files by name."""
    if not build.config_file.endswith("/"):
        return {build.config_file: build.config} if build.config_file else {}
    try:
        found = json.loads(build.config)
    except ValueError:
        return {}
    return {str(name): str(text) for name, text in found.items()} if isinstance(found, dict) else {}
