"""What a monitor sees: counts of the whole server, health, and the server's own log as JSON."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ci.logging_format import JsonFormatter, TextFormatter
from tests.scene import Done, Scene


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    scene = Scene(tmp_path)
    await scene.open()
    yield scene
    await scene.close()


def _samples(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_metrics_count_builds_jobs_and_runners(scene: Scene) -> None:
    token = await scene.user()
    repo = await scene.repo("ada", "secret-name")
    await scene.build(repo, [("ci", [Done(name="test")])])
    await scene.build(repo, [("ci", [Done(name="test")])], status="pending")
    async with scene.client() as client:
        answer = await client.get("/metrics", headers={"authorization": f"Bearer {token}"})
        again = await client.get("/metrics", headers={"authorization": f"Bearer {token}"})
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = _samples(answer.text)
    assert found["shipway_builds", "success"] == 1
    assert found["shipway_builds", "pending"] == 1
    assert found["shipway_runners", "connected"] == 0
    assert _samples(again.text)["shipway_http_requests_total", "200", "GET", "/metrics"] == 1
    assert "secret-name" not in again.text


async def test_metrics_are_for_people_of_the_server(scene: Scene) -> None:
    await scene.user()
    async with scene.client() as client:
        assert (await client.get("/metrics")).status_code == 401
        assert (await client.get("/healthz")).json()["status"] == "ok"


async def test_a_server_that_cannot_write_says_so(scene: Scene) -> None:
    async with scene.client() as client:
        await scene.store.close()
        assert (await client.get("/healthz")).status_code >= 500


def test_a_line_of_the_log_is_one_object() -> None:
    try:
        raise ValueError("three\nlines\n")
    except ValueError as error:
        record = logging.getLogger("web").makeRecord(
            "web", logging.ERROR, "f", 1, "lost %s", ("it",), (ValueError, error, error.__traceback__)
        )
    record.build = 12
    line = JsonFormatter().format(record)
    assert "\n" not in line
    found = json.loads(line)
    assert (found["level"], found["logger"], found["message"], found["build"]) == (
        "error",
        "web",
        "lost it",
        12,
    )
    assert "ValueError: three" in found["error"]
    assert found["time"].endswith("Z")
    assert "ERROR" in TextFormatter().format(record)
