"""The JSON API: what the pages show, for programs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.scene import Scene, fill

Made = tuple[Scene, httpx.AsyncClient, dict[str, int]]


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Made]:
    scene = Scene(tmp_path)
    await scene.open()
    token = await scene.user()
    ids = await fill(scene)
    async with scene.client(token) as client:
        yield scene, client, ids
    await scene.close()


async def test_builds_are_listed_filtered_and_continued(made: Made) -> None:
    _, client, _ = made
    first = (await client.get("/api/builds?limit=4")).json()
    assert [build["number"] for build in first["builds"]] == [11, 10, 9, 4]
    more = (await client.get(f"/api/builds?limit=2&before={first['before']}")).json()
    assert [build["number"] for build in more["builds"]] == [3, 2]
    failed = (await client.get("/api/builds?q=status:failed")).json()["builds"]
    assert {build["status"] for build in failed} == {"failure"}


async def test_a_build_has_its_jobs_attempts_steps_and_the_addresses_of_their_logs(made: Made) -> None:
    _, client, _ = made
    build = (await client.get("/api/repos/ada/api/builds/8")).json()
    assert (build["status"], build["event"]["title"]) == ("failure", "Fix parser for empty input")
    steps = build["jobs"][0]["attempts"][0]["steps"]
    test = next(step for step in steps if step["name"] == "test")
    assert (test["status"], test["exit_code"], test["outcome"]) == ("failure", 1, "exit")
    assert test["log"]["raw"].endswith("/r/ada/api/8/ci/test/raw?attempt=1")
    assert b"AssertionError" in (await client.get(test["log"]["raw"])).content


async def test_why_a_job_waits_is_in_the_build(made: Made) -> None:
    build = (await made[1].get("/api/repos/ada/api/builds/9")).json()
    assert build["jobs"][0]["reason"] == "no runner matches: the job needs the label arch=s390x"


async def test_a_program_cancels_and_reruns(made: Made) -> None:
    scene, client, ids = made
    cancelled = await client.post("/api/repos/ada/api/builds/11/cancel")
    assert (cancelled.status_code, cancelled.json()["cancel_reason"]) == (202, "cancelled by ada")
    assert (await client.post("/api/repos/ada/api/builds/8/rerun")).status_code == 201
    assert scene.reruns == [(ids["failed"], "ada")]
    assert (await client.post("/api/repos/ada/api/builds/7/cancel")).status_code == 409


async def test_repos_and_runners_are_listed(made: Made) -> None:
    _, client, _ = made
    repos = (await client.get("/api/repos")).json()["repos"]
    assert {repo["repo"] for repo in repos} == {"ada/api", "ada/worker"}
    runners = (await client.get("/api/runners")).json()["runners"]
    assert [(r["name"], r["is_connected"], r["running"]) for r in runners] == [
        ("r1", True, 1),
        ("r2", True, 0),
        ("r3", False, 0),
    ]


async def test_what_is_wrong_is_one_object_with_a_code_and_a_sentence(made: Made) -> None:
    answer = await made[1].get("/api/repos/ada/api/builds/999")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "urn:shipway:problem:not_found",
        "title": "It does not exist, or you may not know that it does",
        "status": 404,
        "detail": "ada/api has no build 999",
        "code": "not_found",
    }
