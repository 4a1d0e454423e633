"""What is left of an attempt: nothing, whenever it is destroyed (law 11)."""

from __future__ import annotations

import asyncio
import subprocess

import pytest

from runners.engines import sandbox
from runners.engines.base import EngineError, Owner
from runners.engines.docker import Client
from tests.docker.conftest import Docker
from tests.stage import step

pytestmark = pytest.mark.docker


def left_of(owner: Owner) -> list[str]:
    """By name, for what has lost its label is lost for the reaper."""
    name = sandbox.name_of(owner)
    return [
        line
        for command in (
            ("ps", "-a", "--format={{.Names}}"),
            ("volume", "ls", "-q"),
            ("network", "ls", "--format={{.Name}}"),
        )
        for line in _docker(*command).splitlines()
        if line.startswith(name)
    ]


def _docker(*arguments: str) -> str:
    return subprocess.run(
        ("docker", *arguments), check=True, capture_output=True, text=True, timeout=60
    ).stdout


@pytest.mark.parametrize("delay_ms", [0, 5, 20, 60, 150, 300])
async def test_nothing_is_left_when_it_is_destroyed_while_things_are_made(
    docker: Docker, delay_ms: int
) -> None:
    names = [f"s{number}" for number in range(4)]
    async with docker(*(step(name, "sleep 600") for name in names)) as stage:
        running = [stage.start(name)[0] for name in names]
        await asyncio.sleep(delay_ms / 1000)  # the moment is what varies; nothing is waited for
        await stage.engine.destroy()
        ends = await asyncio.gather(*running, return_exceptions=True)
        assert all(isinstance(end, EngineError) or not end.is_success for end in ends)  # type: ignore[union-attr]
        assert left_of(stage.owner) == []
    assert left_of(stage.owner) == []


async def test_a_volume_that_the_engine_makes_again_carries_its_owner(docker: Docker) -> None:
    async with docker(step("a", "true")) as stage:
        await stage.run("a")
        await stage.engine.destroy()
        spec = stage.job.step("a")
        place = sandbox.Place(
            owner=stage.owner,
            network="none",
            volume=sandbox.name_of(stage.owner),
            workspace="/workspace",
            directory="/workspace",
            machine_memory_bytes=1 << 30,
        )
        daemon = Client()
        image = daemon.image(spec.image)
        assert image
        config = sandbox.step_config(
            spec, image, place, namespace="none", door=sandbox.Door.JOINED, environment={}
        )
        config["HostConfig"]["NetworkMode"] = "none"
        daemon.create(f"{place.volume}-late", config)  # as by a process that was killed just then
        daemon.close()
        assert list(stage.janitor.attempts(stage.owner.server)) == [("r1", 7, 1)]
        stage.janitor.remove_attempt(stage.owner.server, 7, 1)
        assert left_of(stage.owner) == []
