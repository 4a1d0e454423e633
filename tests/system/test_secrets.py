"""A secret on a whole Shipway with real containers: it reaches its step, and stands nowhere else."""

from __future__ import annotations

import base64
import sqlite3
import subprocess
import urllib.parse

import pytest

from bench.whole import Shipway, Work, until

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
