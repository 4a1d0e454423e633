"""What a person decides about a build, on whole processes: how an unknown job ended, and what runs again."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from bench.whole import Shipway, Work, until
from tests.system.test_killed import kill_job_process, stored_bytes

DEPLOY = """
skip_clone: true
steps:
  ship:
    image: busybox
    commands: [ship]
    deploy: true
    environment: {FAKE_LINES: '40', FAKE_SLEEP: '4'}
  after:
    image: busybox
    commands: [announce]
    environment: {FAKE_OUTPUT: announced}
"""
GREEN = "skip_clone: true\nsteps:\n  a: {image: busybox, commands: [x], environment: {FAKE_OUTPUT: fine}}\n"
RED = "skip_clone: true\nsteps:\n  a: {image: busybox, commands: [x], environment: {FAKE_EXIT: '3'}}\n"


def lost_in_a_deploy(shipway: Shipway, work: Work, *, with_supervisor: bool) -> Any:
    """A build whose runner died while its step with side effects ran: it must be unknown."""
    work.commit({".ci.yml": DEPLOY})
    work.push()
    until(lambda: stored_bytes(shipway) > 100, 60)
    assert shipway.runner is not None
    if with_supervisor:
        shipway.runner.kill()
    kill_job_process(shipway)
    if with_supervisor:
        shipway.runner = shipway.start_runner()
    return shipway.wait(f"{work.path}/1", "unknown", seconds=90)


def page(shipway: Shipway, path: str) -> str:
    headers = {"authorization": f"Bearer {shipway.token}"}
    return httpx.get(f"{shipway.url}/r/{path}", headers=headers).text


@pytest.mark.timeout(180)
@pytest.mark.parametrize("with_supervisor", [False, True], ids=["job process", "whole runner"])
@pytest.mark.parametrize("verdict", ["success", "failure", "pending"])
def test_a_deploy_whose_runner_died_waits_for_a_person_and_obeys(
    shipway: Shipway, work: Work, verdict: str, with_supervisor: bool
) -> None:
    build = lost_in_a_deploy(shipway, work, with_supervisor=with_supervisor)
    (job,) = build["jobs"]
    assert (job["status"], job["outcome"], job["attempt"]) == ("unknown", "lost-unknown", 1)
    assert build["finished_at"] is None
    text = page(shipway, f"{work.path}/1")
    assert f"Did {job['name']} do its work?" in text and "run it again" in text
    address = f"/api/repos/{work.path}/builds/1/jobs/{job['slug']}/resolve"
    shipway.api("POST", address, verdict=verdict)
    ended = shipway.wait(f"{work.path}/1", seconds=60)
    (job,) = ended["jobs"]
    if verdict == "pending":
        assert (ended["status"], job["attempt"]) == ("success", 2)
        lost = {step["slug"]: step["status"] for step in job["attempts"][0]["steps"]}
        assert lost == {"ship": "unknown", "after": "skipped"}
        assert shipway.raw(f"{work.path}/1/{job['slug']}/after") == b"announced"
    else:
        assert (ended["status"], job["attempt"]) == (verdict, 1)
        said = {"success": "ada says that it passed", "failure": "ada says that it failed"}[verdict]
        assert ended["reason"] == said
        steps = {step["slug"]: step["status"] for step in job["attempts"][0]["steps"]}
        assert steps == {"ship": verdict, "after": "skipped"}


@pytest.mark.timeout(120)
def test_a_rerun_of_what_failed_runs_that_alone_and_shows_the_rest(shipway: Shipway, work: Work) -> None:
    work.commit({".ci/green.yml": GREEN, ".ci/red.yml": RED})
    work.push()
    assert shipway.wait(f"{work.path}/1")["status"] == "failure"
    made = shipway.api("POST", f"/api/repos/{work.path}/builds/1/rerun", only="failed")
    assert made["number"] == 2
    build = shipway.wait(f"{work.path}/2")
    green, red = build["jobs"]
    assert (green["status"], green["kept_from"]) == ("success", 1)
    assert (red["status"], red["kept_from"]) == ("failure", None)
    assert shipway.raw(f"{work.path}/2/{green['slug']}/a") == b"fine"
    assert "kept from #1" in page(shipway, f"{work.path}/2")
