"""Which engine: the one place of a runner that knows their names.

Only the chosen one is imported, so that the fake one needs no Docker SDK.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from ci.errors import Invalid
from runners.engines.base import Engine, Janitor

NAMES = ("docker", "fake")


def check_name(name: str) -> str:
    if name not in NAMES:
        raise Invalid(f"there is no engine {name!r}; there are {', '.join(NAMES)}")
    return name


def load_engine(name: str, environ: Mapping[str, str] = os.environ) -> Callable[[Path], Engine]:
    """Import it now; what is returned opens it for one attempt, given the runner's data folder."""
    if check_name(name) == "fake":
        from runners.engines.fake import FakeEngine

        return lambda data: FakeEngine(data / "fake")
    from runners.engines.docker import DockerEngine
    from runners.engines.settings import DockerSettings

    settings = DockerSettings.load(environ)
    return lambda data: DockerEngine(settings)


def open_janitor(name: str, data: Path, environ: Mapping[str, str] = os.environ) -> Janitor:
    """For the supervisor, across attempts."""
    if check_name(name) == "fake":
        from runners.engines.fake import FakeJanitor

        return FakeJanitor(data / "fake")
    from runners.engines.docker import DockerJanitor
    from runners.engines.settings import DockerSettings

    return DockerJanitor(DockerSettings.load(environ))
