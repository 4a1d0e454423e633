"""The repos of examples/ do what they say: each is pushed as it is to a real server, and runs on Docker."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from bench.whole import ROOT, Shipway, Work

pytestmark = [pytest.mark.docker, pytest.mark.timeout(120)]
EXAMPLES = ("hello", "dag-and-service", "matrix")


@pytest.fixture(scope="module")
def shipway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shipway]:
    """All the examples are pushed at once, and run beside each other."""
    subprocess.run([str(ROOT / "scripts/images")], check=True)
    shipway = Shipway(tmp_path_factory.mktemp("shipway"), runner="on")
    try:
        shipway.start()
        shipway.set_up()
        for name in EXAMPLES:
            work = Work(shipway, f"ada/{name}")
            shutil.copytree(ROOT / "examples" / name, work.folder, dirs_exist_ok=True)
            work.commit({})
            work.push()
        yield shipway
    finally:
        shipway.end()


def green(shipway: Shipway, name: str) -> list[dict[str, Any]]:
    """The jobs of the example's build."""
    build = shipway.wait(f"ada/{name}/1", seconds=90)
    assert build["status"] == "success", build
    jobs: list[dict[str, Any]] = build["jobs"]
    return jobs


def statuses(job: dict[str, Any]) -> dict[str, str]:
    return {step["slug"]: step["status"] for step in job["attempts"][-1]["steps"]}


def log(shipway: Shipway, name: str, job: dict[str, Any], step: str) -> str:
    return shipway.raw(f"ada/{name}/1/{job['slug']}/{step}").decode()


def test_every_example_is_tested_here() -> None:
    pipelines = [path.parent.name for path in (ROOT / "examples").glob("*/.ci.y*ml")]
    assert sorted(pipelines) == sorted([*EXAMPLES, "deploy"])  # that one: test_deploy.py


def test_hello_prints_its_build_and_a_file_of_its_commit(shipway: Shipway) -> None:
    (job,) = green(shipway, "hello")
    greeting = (ROOT / "examples/hello/greeting.txt").read_text()
    said = log(shipway, "hello", job, "hello")
    assert said.startswith(f"Hello from build 1 of ada/hello\n{greeting}3\n2\n1\n")


def test_the_graph_runs_beside_its_service_and_forgives_its_style(shipway: Shipway) -> None:
    (job,) = green(shipway, "dag-and-service")
    assert statuses(job) == {
        "clone": "success",
        "lint": "success",
        "build": "success",
        "test": "success",
        "style": "failure",
        "package": "success",
        "release": "skipped",
        "tell": "skipped",
        "shop": "success",
    }
    answers = [line for line in log(shipway, "dag-and-service", job, "test").splitlines() if line[0] in "25"]
    assert answers == ["2 apples", "5 pears"]
    assert log(shipway, "dag-and-service", job, "package") == "ask.sh\nout/fruits.txt\n"
    assert "open on port 7000" in log(shipway, "dag-and-service", job, "shop")


def test_each_cell_of_the_matrix_is_a_job_with_a_workspace_of_its_own(shipway: Shipway) -> None:
    jobs = green(shipway, "matrix")
    assert [job["matrix"] for job in jobs] == [
        {"FLAVOUR": "vanilla", "SIZE": "1.0"},
        {"FLAVOUR": "vanilla", "SIZE": "1.10"},
        {"FLAVOUR": "lemon", "SIZE": "1.0"},
        {"FLAVOUR": "mint", "SIZE": "2.0", "TOPPING": "chocolate"},
    ]
    for job in jobs:
        cell = job["matrix"]
        label = f"{cell['FLAVOUR']} {cell['SIZE']}\n"
        topping = "with chocolate\n" if "TOPPING" in cell else ""
        assert log(shipway, "matrix", job, "mix") == f"mixing {cell['FLAVOUR']}, size {cell['SIZE']}\n"
        assert log(shipway, "matrix", job, "taste") == label + topping
