"""How fast deliveries of GitHub are accepted durably: pushes of 10 KB over 16 connections.

In turns with a bare ASGI application with the same body, HMAC and a plain group commit in SQLite
(bench/hooks_baseline.py). Meanwhile the server processes what it has accepted, and asks a fake GitHub for
each commit, whose message says that nothing is to be built. Then the server is killed with -9 in the middle
of a round, and every delivery that it had acknowledged is looked for.
"""

from __future__ import annotations

import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.report import Report
from bench.whole import ROOT, Shipway, until
from tests.fake_github import TOKEN, FakeGitHub, push_json

COUNT = 4000
CONNECTIONS = 16
ROUNDS = 7
_PYTHON = [sys.executable, "-P", "-m"]


def main() -> None:
    report = Report(bench="hooks")
    with tempfile.TemporaryDirectory() as folder, FakeGitHub().running() as github:
        shipway = Shipway(Path(folder), runner="off")
        try:
            shipway.start()
            shipway.set_up()
            _measure(report, _target(shipway, github), shipway, Path(folder))
        finally:
            shipway.end()


@dataclass(frozen=True, kw_only=True)
class _Target:
    """A hook of Shipway's and what is sent to it."""

    path: str
    secret: str
    template: str


def _target(shipway: Shipway, github: FakeGitHub) -> _Target:
    repo = github.repo(4711, name="app", private=True)
    repo.commit("refs/heads/main", {".ci.yml": "steps: {}"}, "Load [skip ci]")
    asked = {"forge": "github", "path": "ada/app", "token": TOKEN, "api_url": github.url}
    hook = shipway.api("POST", "/api/repos", **asked)
    template = json.dumps(push_json(repo, "refs/heads/main"))
    path = "/hooks/" + hook["hook"].rpartition("/")[2]
    return _Target(path=path, secret=hook["secret"], template=template)


def _measure(report: Report, target: _Target, shipway: Shipway, folder: Path) -> None:
    ours, theirs, waits = [], [], []
    with _baseline(folder, target.secret) as port:
        for number in range(ROUNDS + 1):
            mine = _load(shipway.port, target)
            other = _load(port, target)
            if number:  # the first warms both up
                ours.append(len(mine["acknowledged"]) / mine["seconds"])
                theirs.append(len(other["acknowledged"]) / other["seconds"])
                waits.append(statistics.quantiles(mine["milliseconds"], n=100)[98])
    report.add("accepted by Shipway", ours, "req/s")
    report.add("accepted by the baseline", theirs, "req/s", "python -m bench.hooks_baseline")
    report.ratio("Shipway / baseline", ours, theirs, "python -m bench.hooks_baseline")
    report.add("p99 of an answer", waits, "ms")
    report.add("acknowledged and lost after kill -9", [float(_lost(shipway, target))], "deliveries")


@contextmanager
def _baseline(folder: Path, secret: str) -> Iterator[int]:
    command = [*_PYTHON, "bench.hooks_baseline", str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(secret + "\n")
    process.stdin.close()
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


def _sender(port: int, target: _Target) -> subprocess.Popen[str]:
    command = [*_PYTHON, "bench.hook_load", str(port), target.path, str(COUNT), str(CONNECTIONS)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _load(port: int, target: _Target) -> dict[str, Any]:
    said, _ = _sender(port, target).communicate(f"{target.secret}\n{target.template}\n")
    found: dict[str, Any] = json.loads(said)
    return found


def _lost(shipway: Shipway, target: _Target) -> int:
    before = _rows(shipway)
    sender = _sender(shipway.port, target)
    assert sender.stdin is not None
    sender.stdin.write(f"{target.secret}\n{target.template}\n")
    sender.stdin.flush()
    until(lambda: len(_rows(shipway)) > len(before) + COUNT // 3, seconds=300)
    assert shipway.server is not None
    shipway.server.kill()
    said, _ = sender.communicate()
    acknowledged = set(json.loads(said)["acknowledged"])
    assert 0 < len(acknowledged) < COUNT
    return len(acknowledged - _rows(shipway))


def _rows(shipway: Shipway) -> set[str]:
    with sqlite3.connect(shipway.data / "shipway.db", timeout=30) as database:
        return {row[0] for row in database.execute("SELECT delivery FROM inbox")}


if __name__ == "__main__":
    main()
