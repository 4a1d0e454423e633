"""How fast deliveries are accepted durably: 10 KB pushes over 16 connections.

In turns with a bare ASGI application with the same body, HMAC and a plain group commit in SQLite
(bench/hooks_baseline.py). Then the server is killed with -9 in the middle of a round, and every delivery
that it had acknowledged is looked for.
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
from pathlib import Path
from typing import Any

from bench.report import Report
from bench.whole import ROOT, Shipway, until

COUNT = 4000
CONNECTIONS = 16
ROUNDS = 7
_PYTHON = [sys.executable, "-P", "-m"]


def main() -> None:
    report = Report(bench="hooks")
    with tempfile.TemporaryDirectory() as folder:
        shipway = Shipway(Path(folder), runner="off")
        try:
            shipway.start()
            shipway.set_up()
            _measure(report, shipway, Path(folder))
        finally:
            shipway.end()


def _measure(report: Report, shipway: Shipway, folder: Path) -> None:
    body = {"path": "ada/app", "clone_url": "http://127.0.0.1:9/ada/app.git"}
    hook = shipway.api("POST", "/api/repos", **body)
    path, secret = "/hooks/" + hook["hook"].rpartition("/")[2], hook["secret"]
    ours, theirs, waits = [], [], []
    with _baseline(folder, secret) as port:
        for number in range(ROUNDS + 1):
            mine = _load(shipway.port, path, secret)
            other = _load(port, path, secret)
            if number:  # the first warms both up
                ours.append(len(mine["acknowledged"]) / mine["seconds"])
                theirs.append(len(other["acknowledged"]) / other["seconds"])
                waits.append(statistics.quantiles(mine["milliseconds"], n=100)[98])
    report.add("accepted by Shipway", ours, "req/s")
    report.add("accepted by the baseline", theirs, "req/s", "python -m bench.hooks_baseline")
    report.ratio("Shipway / baseline", ours, theirs, "python -m bench.hooks_baseline")
    report.add("p99 of an answer", waits, "ms")
    report.add("acknowledged and lost after kill -9", [float(_lost(shipway, path, secret))], "deliveries")


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


def _sender(port: int, path: str) -> subprocess.Popen[str]:
    command = [*_PYTHON, "bench.hook_load", str(port), path, str(COUNT), str(CONNECTIONS)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _load(port: int, path: str, secret: str) -> dict[str, Any]:
    said, _ = _sender(port, path).communicate(secret + "\n")
    found: dict[str, Any] = json.loads(said)
    return found


def _lost(shipway: Shipway, path: str, secret: str) -> int:
    before = _rows(shipway)
    sender = _sender(shipway.port, path)
    assert sender.stdin is not None
    sender.stdin.write(secret + "\n")
    sender.stdin.flush()
    until(lambda: len(_rows(shipway)) > len(before) + COUNT // 3)
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
