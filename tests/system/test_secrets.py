"""A secret on a whole Shipway with real containers: it reaches its step, and stands nowhere else."""

from __future__ import annotations

import asyncio
import base64
import sqlite3
import subprocess
import urllib.parse

import pytest

from bench.whole import Shipway, Work, until
from ci.event import Event, Kind
from ci.server.config import Settings
from ci.server.models import PullRequest
from ci.server.store import repos
from ci.server.trigger import Origin
from ci.server.wiring import Server
from tests.system.test_mask_every_channel import forms as all_forms

pytestmark = pytest.mark.docker

CANARY = "canary/4711+value&more"
FILE = """
steps:
  say:
    image: busybox
    environment:
      TOKEN: { from_secret: token }
    commands:
      - test "$(printf %s "$TOKEN" | wc -c)" = 22 && echo it is here
      - echo "plain $TOKEN"
      - echo "base64 $(printf %s "$TOKEN" | base64)"
      - printf %s "$TOKEN" | cut -c1-8 | tr -d '\\n'; printf %s "$TOKEN" | cut -c9-
      - echo "on stderr $TOKEN" >&2
      - echo "$TOKEN" > left-in-the-workspace
      - while [ ! -e /tmp/go ]; do sleep 0.1; [ "$((n = n + 1))" -lt 100 ] || break; done
  plug:
    image: plugin:1
    settings:
      target: { from_secret: token }
"""


def forms() -> list[bytes]:
    value = CANARY.encode()
    return [
        value,
        base64.b64encode(value),
        value.hex().encode(),
        urllib.parse.quote(CANARY, safe="").encode(),
    ]


def test_a_secret_reaches_its_step_and_stands_nowhere_else(
    docker_shipway: Shipway, docker_work: Work
) -> None:
    answer = docker_shipway.api("PUT", "/api/secrets/token", value=CANARY)
    assert answer["warning"] == ""
    docker_work.commit({".ci.yml": FILE})
    docker_work.push()
    until(lambda: b"on stderr" in _log(docker_shipway, "say"), 60)
    running = subprocess.run(
        ["docker", "ps", "-q", "--filter", "label=shipway.server"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert running
    inspected = subprocess.run(["docker", "inspect", *running], capture_output=True, check=True).stdout
    build = docker_shipway.wait("ada/app/1")
    assert build["status"] == "success", build
    said = docker_shipway.raw("ada/app/1/ci/say")
    assert b"it is here\n" in said
    assert b"plain ***\n" in said
    plugin = docker_shipway.raw("ada/app/1/ci/plug")
    assert b"to *** from /workspace" in plugin
    seen = {"docker inspect": inspected, "say": said, "plug": plugin}
    seen |= {str(path): path.read_bytes() for path in docker_shipway.folder.rglob("*") if path.is_file()}
    for page in ("/", "/r/ada/app/1", "/r/ada/app/1/ci/say", "/api/repos/ada/app/builds/1", "/admin/secrets"):
        seen[page] = docker_shipway.get(page)
    assert [name for name, data in seen.items() if any(form in data for form in forms())] == []
    with sqlite3.connect(docker_shipway.data / "shipway.db") as database:
        (used_in,) = database.execute("SELECT used_in FROM secret").fetchone()
    assert used_in == "ada/app/1"


def _log(shipway: Shipway, step: str) -> bytes:
    try:
        return shipway.raw(f"ada/app/1/ci/{step}")
    except AssertionError:
        return b""


def test_a_secret_that_is_not_there_ends_the_build_before_anything_runs(
    docker_shipway: Shipway, docker_work: Work
) -> None:
    docker_work.commit({".ci.yml": FILE})
    docker_work.push()
    build = docker_shipway.wait("ada/app/1")
    assert (build["status"], build["outcome"], build["jobs"]) == ("error", "secret", [])
    assert "`shipway secret set token --repo ada/app` sets it" in build["problems"][0]["message"]
    assert build["problems"][0]["line"] == 6


NOSY = """
skip_clone: false
services:
  nosy:
    image: busybox
    environment: { TOKEN: { from_secret: token } }
    commands: [env, sleep 30]
steps:
  look:
    image: busybox
    environment: { TOKEN: { from_secret: token } }
    commands:
      - echo "the token is [$TOKEN] and $${TOKEN+it is set}"
      - env
      - cat /proc/*/environ | tr "\\0" "\\n"
      - cat /proc/mounts .git/config
      - grep -r -e . /workspace /run /tmp /dev/shm || true
  plug:
    image: environment:1
    deploy: false
    settings: { target: { from_secret: token } }
"""


async def _fork_build(shipway: Shipway, sha: str, number: int, sender: str) -> None:
    """What a forge's delivery about a pull request from a fork makes."""
    server = Server(Settings.load({}, {"data_dir": shipway.data, "url": shipway.url}))
    await server.store.open()
    try:
        repo = await server.store.read(lambda c: repos.find(c, "ada", "app"))
        assert repo is not None and repo.id is not None
        event = Event(
            kind=Kind.PULL_REQUEST,
            ref="refs/heads/main",
            branch="main",
            after=sha,
            pull_request=number,
            source_repo="mallory/app",
            is_from_fork=True,
            sender=sender,
            variables={},
        )
        seen = PullRequest(
            repo_id=repo.id, number=number, head_sha=sha, target_branch="main", updated_at=float(number)
        )
        origin = Origin(inbox_id=1, index=number, ref="refs/pull/1/head", ref_sha=sha, pull_request=seen)
        assert (await server.trigger.start_build(event, repo, origin)).number == number
    finally:
        await server.store.close()


@pytest.mark.parametrize("sender", ["mallory", "ada"], ids=["by a stranger", "by a maintainer"])
def test_fork_pr_gets_no_secret_env(docker_shipway: Shipway, docker_work: Work, sender: str) -> None:
    shipway = docker_shipway
    shipway.api("PUT", "/api/owners/ada/secrets/token", value=CANARY)
    shipway.api("PUT", "/api/variables/REGION", value="north")
    sha = docker_work.commit({".ci.yml": NOSY})
    docker_work.push()
    first = shipway.wait("ada/app/1", seconds=90)
    assert first["status"] == "success", first["reason"]
    asyncio.run(_fork_build(shipway, sha, 2, sender))
    question = shipway.api("GET", "/api/repos/ada/app/builds/2/approval")
    shipway.api("POST", "/api/repos/ada/app/builds/2/approve", binding=question["binding"])
    build = shipway.wait("ada/app/2", seconds=90)
    assert build["status"] == "success", build
    withheld = [each["message"] for each in build["problems"] if each["is_warning"]]
    assert len(withheld) == 3
    assert all("withheld from a stranger's pull request" in message for message in withheld)
    looked = shipway.raw("ada/app/2/ci/look")
    assert b"the token is [] and it is set\n" in looked
    assert b"\nREGION=north\n" in looked
    assert b"PLUGIN_TARGET=\n" in shipway.raw("ada/app/2/ci/plug")
    trusted = shipway.raw("ada/app/1/ci/look")
    assert b"the token is [***]" in trusted
    seen = {str(path): path.read_bytes() for path in shipway.folder.rglob("*") if path.is_file()}
    for page in ("/r/ada/app/2", "/r/ada/app/2/ci/look", "/api/repos/ada/app/builds/2", "/r/ada/app/secrets"):
        seen[page] = shipway.get(page)
    for step in ("clone", "look", "plug", "nosy"):
        seen[step] = shipway.raw(f"ada/app/2/ci/{step}")
    assert [name for name, data in seen.items() if any(form in data for form in all_forms(CANARY))] == []
    # Not even masked: there was nothing to mask but the runner's own credential for the clone.
    assert b"***" not in looked
