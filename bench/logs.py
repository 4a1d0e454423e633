"""Container to durable log, through both processes and the socket, against `docker run ... > file`.

The clock runs from the step's first stored byte to the close of its log, which the server records after
the last fdatasync. 100-byte lines; interleaved, medians.
usage: scripts/bench logs [--json]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from bench.report import Report
from bench.whole import ROOT, Shipway, Work, pids_with, until

ROUNDS = 5
SIZE = 512 << 20
MAX_MEMORY = 64 << 20
LINE = "." * 99
SCRIPT = f"yes {LINE} | head -c {SIZE}"
CONFIG = f"skip_clone: true\nsteps:\n  flood:\n    image: busybox\n    commands: ['{SCRIPT}']\n"
BASELINE = f"docker run --rm --log-driver none shipway-test/busybox sh -c '{SCRIPT}' > FILE"


class Memory:
    """Peak resident bytes of each process of ours above what it had when the watch began."""

    def __init__(self, shipway: Shipway) -> None:
        assert shipway.server is not None
        self._server = shipway.server.popen.pid
        self._runner = str(shipway.data / "runner")
        self._start: dict[int, int] = {}
        self.grown: dict[int, int] = {}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._is_over.wait(0.1):
            for pid in [self._server, *pids_with(self._runner), *pids_with("runners.job")]:
                resident = _resident(pid)
                if resident:
                    first = self._start.setdefault(pid, resident)
                    self.grown[pid] = max(self.grown.get(pid, 0), resident - first)


def _resident(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * 4096


def main() -> int:
    subprocess.run([str(ROOT / "scripts/images")], check=True)
    report = Report(bench="logs")
    ours, theirs = [], []
    with tempfile.TemporaryDirectory(prefix="shipway-bench-") as name:
        folder = Path(name)
        shipway = Shipway(folder, runner="on")
        try:
            shipway.start()
            shipway.set_up()
            work = Work(shipway, "ada/app")
            work.commit({".ci.yml": CONFIG})
            shipway.wait_for_runner()
            with Memory(shipway) as memory:
                for number in range(1, ROUNDS + 1):
                    theirs.append(_baseline(folder / "file"))
                    ours.append(_build(shipway, work, number))
        finally:
            shipway.end()
    rate = report.add("container to durable log", ours, "MB/s")
    report.add("docker run > file", theirs, "MB/s", BASELINE)
    ratio = report.ratio("container to durable log", ours, theirs, BASELINE)
    grown = max(memory.grown.values()) / 2**20
    report.add_value(
        "memory grown, largest process", grown, [value / 2**20 for value in memory.grown.values()], "MiB", ""
    )
    return 0 if rate >= 60 and ratio >= 0.2 and grown <= MAX_MEMORY / 2**20 else 1


def _baseline(file: Path) -> float:
    began = time.monotonic()
    with file.open("wb") as output:
        command = [
            "docker",
            "run",
            "--rm",
            "--log-driver",
            "none",
            "shipway-test/busybox",
            "sh",
            "-c",
            SCRIPT,
        ]
        subprocess.run(command, stdout=output, check=True)
    seconds = time.monotonic() - began
    assert file.stat().st_size == SIZE
    return SIZE / seconds / 1e6


def _build(shipway: Shipway, work: Work, number: int) -> float:
    before = _stored(shipway)
    work.push("--force", work.remote, f"HEAD:refs/heads/round-{number}")
    until(lambda: _stored(shipway) > before, 60)
    began = time.monotonic()
    build = shipway.wait(f"{work.path}/{number}", seconds=120)
    seconds = time.monotonic() - began
    assert build["status"] == "success"
    assert _stored(shipway) - before >= SIZE
    return SIZE / seconds / 1e6


def _stored(shipway: Shipway) -> int:
    return sum(path.stat().st_size for path in (shipway.data / "logs").rglob("*.log"))


if __name__ == "__main__":
    sys.exit(main())
