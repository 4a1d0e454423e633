from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from ci.spec import StepSpec
from runners.engines.base import Engine, Janitor
from runners.engines.docker import DockerEngine, DockerJanitor, DockerSettings
from runners.engines.fake import FakeEngine, FakeJanitor
from tests.stage import SETTINGS, Stage, staged

Docker = Callable[..., AbstractAsyncContextManager[Stage]]
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="session")
def _images() -> None:
    subprocess.run([str(ROOT / "scripts/images")], check=True, timeout=120)


@pytest.fixture(params=["fake", pytest.param("docker", marks=pytest.mark.docker)])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], tuple[Engine, Janitor]]]:
    """Makes an engine and its janitor; each call is another process, as it were."""
    if request.param == "fake":
        yield lambda: (FakeEngine(tmp_path), FakeJanitor(tmp_path))
    else:
        request.getfixturevalue("_images")
        yield lambda: (DockerEngine(SETTINGS), DockerJanitor(SETTINGS))


@pytest.fixture
def docker(_images: None) -> Docker:
    """A Docker stage of some steps: `async with docker(step(...)) as stage`."""

    def make(
        *steps: StepSpec, settings: DockerSettings = SETTINGS, **job: object
    ) -> AbstractAsyncContextManager[Stage]:
        return staged(DockerEngine(settings), DockerJanitor(settings), *steps, **job)

    return make
