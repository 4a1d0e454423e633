"""The tutorial is true: each of its pipeline files is pushed as it stands, and is green."""

from __future__ import annotations

import re

import pytest

from bench.whole import ROOT, Shipway, Work

pytestmark = [pytest.mark.docker, pytest.mark.timeout(120)]
TUTORIAL = (ROOT / "docs/tutorial.md").read_text()


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", TUTORIAL, re.DOTALL)


def test_every_pipeline_file_of_the_tutorial_runs_green(docker_shipway: Shipway) -> None:
    (first,) = re.findall(r"<<'YAML'\n(.*?)^YAML$", TUTORIAL, re.DOTALL | re.MULTILINE)
    files = [first, *blocks("yaml")]
    assert len(files) == 4
    work = Work(docker_shipway, "ada/hello")
    for number, text in enumerate(files, 1):
        work.commit({".ci.yml": text})
        work.push()
        build = docker_shipway.wait(f"ada/hello/{number}", seconds=60)
        assert build["status"] == "success", (text, build)
    assert b"hello" in docker_shipway.raw("ada/hello/3/ci/ask")
