"""Which engine: the one place of a runner that knows their names."""

from __future__ import annotations

from pathlib import Path

from ci.errors import Invalid
from runners.engines.base import Engine, Janitor
from runners.engines.docker import DockerEngine, DockerJanitor, DockerSettings
from runners.engines.fake import FakeEngine, FakeJanitor

NAMES = ("docker", "fake")


def check_name(name: str) -> str:
    if name not in NAMES:
        raise Invalid(f"there is no engine {name!r}; there are {', '.join(NAMES)}")
    return name


def open_engine(name: str, data: Path) -> Engine:
    """For one attempt, in its job process."""
    if check_name(name) == "fake":
        return FakeEngine(data / "fake")
    return DockerEngine(DockerSettings())


def open_janitor(name: str, data: Path) -> Janitor:
    """For the supervisor, across attempts."""
    if check_name(name) == "fake":
        return FakeJanitor(data / "fake")
    return DockerJanitor(DockerSettings())
