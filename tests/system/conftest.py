from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.whole import ROOT, Shipway, Work


@pytest.fixture
def shipway(tmp_path: Path) -> Iterator[Shipway]:
    """A server with a separate runner on the fake engine."""
    shipway = Shipway(tmp_path, runner="off")
    try:
        shipway.start()
        shipway.set_up()
        shipway.runner = shipway.start_runner()
        yield shipway
    finally:
        shipway.end()


@pytest.fixture
def docker_shipway(tmp_path: Path) -> Iterator[Shipway]:
    """A server with its embedded runner on the Docker engine, and our local images."""
    subprocess.run([str(ROOT / "scripts/images")], check=True)
    shipway = Shipway(tmp_path, runner="on")
    try:
        shipway.start()
        shipway.set_up()
        yield shipway
    finally:
        shipway.end()


@pytest.fixture
def work(shipway: Shipway) -> Work:
    return Work(shipway, "ada/app")


@pytest.fixture
def docker_work(docker_shipway: Shipway) -> Work:
    return Work(docker_shipway, "ada/app")
