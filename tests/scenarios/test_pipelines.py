"""Ten pipelines as people write them for three servers, run by `shipway exec` in local images."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from runners.exec.command import execute

pytestmark = pytest.mark.docker
ROOT = Path(__file__).parents[2]

PIPELINES: dict[str, tuple[str, str, dict[str, Any], list[str]]] = {
    "a compiled program, tested and packed": (
        ".woodpecker.yml",
        """
when: [{event: push, branch: main}, {event: pull_request}]
steps:
  - name: build
    image: busybox
    commands: ["mkdir -p out", "echo '#!/bin/sh' > out/app", "echo 'echo v1' >> out/app", "chmod +x out/app"]
  - name: test
    image: busybox
    commands: ["./out/app | grep v1"]
    depends_on: build
  - name: pack
    image: busybox
    commands: ["tar -czf app.tgz out", "tar -tzf app.tgz"]
    depends_on: test
""",
        {},
        ["test", "│ out/app"],
    ),
    "a cache between steps, old list of secrets": (
        ".woodpecker.yml",
        """
pipeline:
  restore: {image: busybox, commands: ["mkdir -p .cache && echo warm > .cache/x"]}
  use: {image: busybox, secrets: [npm_token], commands: ["cat .cache/x", 'test "$NPM_TOKEN" = s3cr3t-token']}
branches: [main]
""",
        {"secret": ["npm_token"]},
        ["│ warm"],
    ),
    "cells of a matrix with a service": (
        ".woodpecker.yml",
        """
matrix: {DB: [one, two]}
services: {db: {image: busybox, commands: ["while true; do echo ${DB} | nc -l -p 9000; done"]}}
steps:
  ask: {image: busybox, commands: ["until nc db 9000 </dev/null | grep ${DB}; do sleep 0.1; done"]}
""",
        {},
        ["job woodpecker (one) passed", "job woodpecker (two) passed"],
    ),
    "a plugin after the tests, not on a push": (
        ".woodpecker.yml",
        """
steps:
  test: {image: busybox, commands: ["true"]}
  publish:
    image: environ:1
    settings: {repo: ada/app, tags: [latest, "1.10"], password: {from_secret: npm_token}}
    when: {event: tag}
""",
        {"secret": ["npm_token"], "event": "tag", "tag": "v1"},
        ["PLUGIN_TAGS=latest,1.10", "PLUGIN_PASSWORD=***"],
    ),
    "documents that wait for each other": (
        ".drone.yml",
        """
kind: pipeline
name: test
steps: [{name: unit, image: "busybox:1", commands: [echo unit]}]
---
kind: pipeline
name: release
depends_on: [test]
steps: [{name: ship, image: "busybox:1", commands: [echo "shipped ${DRONE_BRANCH}"]}]
""",
        {"branch": "main"},
        ["│ unit", "│ shipped main", "job release passed"],
    ),
    "anchors, a temporary volume and another workspace": (
        ".drone.yml",
        """
kind: pipeline
name: p
workspace: {base: /go, path: src/app}
x-common: &common {image: "busybox:1", volumes: [{name: deps, path: /deps}]}
steps:
- {<<: *common, name: fetch, commands: ["echo dep > /deps/a", pwd]}
- {<<: *common, name: build, commands: [cat /deps/a]}
volumes: [{name: deps, temp: {}}]
""",
        {},
        ["│ /go/src/app", "│ dep"],
    ),
    "a step as another user, in another folder": (
        ".drone.yml",
        """
kind: pipeline
name: p
steps:
- {name: a, image: "busybox:1", user: "1000", working_dir: /tmp, commands: [id -u, pwd, touch /drone/src/x]}
""",
        {},
        ["│ 1000", "│ /tmp"],
    ),
    "outputs that decide what follows": (
        ".ci.yml",
        """
steps:
  look: {image: busybox, commands: ['echo "KIND=release" >> $CI_OUTPUT', 'echo "V=1.2" >> $CI_OUTPUT']}
  release: {image: busybox, depends_on: look, when: {outputs: {KIND: release}}, commands: ['echo "out $V"']}
  draft: {image: busybox, depends_on: look, when: {outputs: {KIND: draft}}, commands: ["false"]}
""",
        {},
        ["│ out 1.2", 'the output KIND is "release", not draft'],
    ),
    "a flaky step that is tried again": (
        ".ci.yml",
        """
steps:
  flaky:
    image: busybox
    retry: 3
    commands: ["echo x >> tries", 'echo "try $(wc -l < tries)"', 'test "$(wc -l < tries)" = 2']
""",
        {},
        ["│ try 1", "│ try 2"],
    ),
    "variables from a file, and a failure that is forgiven": (
        ".ci.yml",
        """
steps:
  write: {image: busybox, commands: ["echo 'NAME=\\"ada lovelace\\"' > build.env"]}
  read: {image: busybox, environment_file: build.env, commands: ['echo "hi $NAME"'], depends_on: write}
  lint: {image: busybox, failure: ignore, commands: [exit 1], depends_on: []}
""",
        {},
        ["│ hi ada lovelace", "✗ failed"],
    ),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline_runs_here(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run([str(ROOT / "scripts/images")], check=True, timeout=120)
    monkeypatch.setenv("SHIPWAY_IMAGE_MIRRORS", "docker.io/library/=shipway-test/")
    monkeypatch.setenv("npm_token", "s3cr3t-token")
    file, text, options, says = PIPELINES[name]
    (tmp_path / file).write_text(text)
    (tmp_path / "README").write_text("x")
    code = execute([tmp_path], **options)
    out = capsys.readouterr().out.replace("\0", "\n")
    assert code == 0, out
    for each in says:
        assert each in out, out
    assert "s3cr3t-token" not in out
