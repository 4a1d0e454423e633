"""Repos that were written for other servers, pushed as they are to a running one: they end green."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from bench.whole import ROOT, Shipway, Work

pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]

WOODPECKER = {
    ".woodpecker/lint.yaml": """\
when:
  - event: [push, pull_request]
    branch: main

clone:
  git:
    image: woodpeckerci/plugin-git
    settings:
      depth: 5
      partial: false

variables:
  - &image busybox

steps:
  - name: style
    image: *image
    failure: ignore
    commands:
      - echo "bad style in ${CI_REPO_NAME}"
      - exit 1
  - name: count
    image: *image
    commands:
      - test "$(ls | wc -l)" = 1
      - echo "${CI_COMMIT_SHA:0:8} on $CI_COMMIT_BRANCH"
""",
    ".woodpecker/test.yaml": """\
depends_on: [lint]
matrix:
  VERSION: ["1.10", "2"]
skip_clone: false
services:
  - name: shop
    image: busybox
    commands:
      - while true; do echo apple | nc -l -p 7000; done
steps:
  - name: unit
    image: busybox
    environment:
      VERSION: ${VERSION}
    commands:
      - until nc shop 7000 </dev/null | grep apple; do sleep 0.1; done
      - echo "tested $VERSION"
  - name: told
    image: environ:1
    settings:
      tag: v${VERSION}
      tags: [a, b]
      deep: { key: [1, true] }
    when:
      - evaluate: 'VERSION == "2" && CI_PIPELINE_EVENT == "push"'
""",
    ".woodpecker/deploy.yaml": """\
depends_on:
  - lint
  - test
runs_on: [success, failure]
when:
  event: push
labels:
  platform: linux/amd64
steps:
  - name: publish
    image: busybox
    when:
      event: tag
    commands: [exit 1]
  - name: tell
    image: busybox
    commands: ['echo "all is $CI_PIPELINE_STATUS"']
    when:
      - status: [success, failure]
""",
}
DRONE = {
    ".drone.yml": r"""kind: pipeline
type: docker
name: build

platform: { os: linux, arch: amd64 }
workspace: { base: /drone, path: src/app }

steps:
- name: fetch
  image: busybox:1
  pull: if-not-exists
  commands:
  - pwd
  - echo "kept" > /cache/it
  volumes: &cache
  - { name: cache, path: /cache }
- name: test
  image: busybox:1
  environment: { GREETING: "a\\/b" }
  commands:
  - cat /cache/it
  - echo "${DRONE_COMMIT_SHA:0:8} of ${DRONE_REPO}" "$GREETING"
  - export X=y && echo $${X}
  volumes: *cache
  depends_on: [fetch]
- name: beside
  image: busybox:1
  commands: [ echo beside ]
  depends_on: [ fetch ]
- name: told
  image: environ:1
  settings: { tag: 1.10, skip-verify: true, empty: "" }
  depends_on: [test, beside]
- name: notify
  image: busybox:1
  commands: [ 'echo "build is $DRONE_BUILD_STATUS"' ]
  when: { status: [ success, failure ] }
  depends_on: [told]

volumes:
- name: cache
  temp: {}

trigger:
  branch: { include: [main, feature/*] }
---
kind: pipeline
type: docker
name: after
clone: { disable: true }
steps:
- name: enough
  image: busybox:1
  commands: [ exit 78 ]
- name: never
  image: busybox:1
  commands: [ exit 1 ]
depends_on: [build]
---
kind: pipeline
name: alarm
steps:
- { name: ring, image: "busybox:1", commands: [ exit 1 ] }
trigger: { status: [failure] }
depends_on: [build]
""",
    "app.txt": "x\n",
}
REPOS = {"wood": {**WOODPECKER, "app.txt": "x\n"}, "dr": DRONE}


@pytest.fixture(scope="module")
def shipway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shipway]:
    subprocess.run([str(ROOT / "scripts/images")], check=True)
    shipway = Shipway(tmp_path_factory.mktemp("shipway"), runner="on")
    try:
        shipway.start()
        shipway.set_up()
        for name, files in REPOS.items():
            work = Work(shipway, f"ada/{name}")
            work.commit(files)
            work.push()
        yield shipway
    finally:
        shipway.end()


def jobs(shipway: Shipway, name: str) -> dict[str, dict[str, Any]]:
    build = shipway.wait(f"ada/{name}/1", seconds=120)
    assert build["status"] == "success", (build["reason"], build["problems"])
    return {job["slug"]: job for job in build["jobs"]}


def statuses(job: dict[str, Any]) -> dict[str, str]:
    return {step["slug"]: step["status"] for step in job["attempts"][-1]["steps"]}


def log(shipway: Shipway, name: str, job: str, step: str) -> str:
    return shipway.raw(f"ada/{name}/1/{job}/{step}").decode()


def environment(text: str) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in text.split("\0"))
    return {name: value for name, _, value in pairs if name.startswith("PLUGIN_")}


def test_a_woodpecker_repo_runs_unchanged(shipway: Shipway) -> None:
    found = jobs(shipway, "wood")
    assert len(found) == 4
    assert shipway.wait("ada/wood/1", seconds=10)["config_file"] == ".woodpecker/"
    assert {name: job["status"] for name, job in found.items()} == dict.fromkeys(found, "success")
    assert statuses(found["lint"]) == {"clone": "success", "style": "failure", "count": "success"}
    assert log(shipway, "wood", "lint", "style") == "bad style in wood\n"
    assert log(shipway, "wood", "lint", "count").endswith(" on main\n")
    first, second = (slug for slug in found if slug.startswith("test"))
    assert statuses(found[first])["told"] == "skipped"
    assert "tested 1.10\n" in log(shipway, "wood", first, "unit")
    assert environment(log(shipway, "wood", second, "told")) == {
        "PLUGIN_TAG": "v2",
        "PLUGIN_TAGS": "a,b",
        "PLUGIN_DEEP": '{"key":[1,true]}',
    }
    assert set(found["deploy"]["depends_on"]) == {"lint", first, second}
    assert statuses(found["deploy"]) == {"clone": "success", "publish": "skipped", "tell": "success"}
    assert log(shipway, "wood", "deploy", "tell") == "all is success\n"


def test_a_drone_repo_runs_unchanged(shipway: Shipway) -> None:
    found = jobs(shipway, "dr")
    assert {name: job["status"] for name, job in found.items()} == {
        "build": "success",
        "after": "success",
        "alarm": "skipped",
    }
    assert log(shipway, "dr", "build", "fetch") == "/drone/src/app\n"
    assert log(shipway, "dr", "build", "test").splitlines()[1].endswith(" of ada/dr a/b")
    assert log(shipway, "dr", "build", "test").splitlines()[2] == "y"
    assert environment(log(shipway, "dr", "build", "told")) == {
        "PLUGIN_TAG": "1.1",
        "PLUGIN_SKIP_VERIFY": "true",
        "PLUGIN_SKIP-VERIFY": "true",
    }
    assert log(shipway, "dr", "build", "notify") == "build is success\n"
    assert statuses(found["after"]) == {"enough": "success", "never": "skipped"}
