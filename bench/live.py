"""One line every 100 ms: from the container's write to the browser's side of the websocket.

The step stamps each line itself (busybox `ts`, microseconds, one process a line: no buffer);
container and reader share this machine's clock.
usage: scripts/bench live [--json]
"""

from __future__ import annotations

import asyncio
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import websockets

from bench.report import Report
from bench.whole import ROOT, Shipway, Work

LINES = 100
CONFIG = f"""
skip_clone: true
steps:
  clock:
    image: busybox
    commands:
      - for i in $(seq {LINES}); do echo line | ts %.s; usleep 100000; done
"""


def main() -> int:
    subprocess.run([str(ROOT / "scripts/images")], check=True)
    with tempfile.TemporaryDirectory(prefix="shipway-bench-") as folder:
        shipway = Shipway(Path(folder), runner="on")
        try:
            shipway.start()
            shipway.set_up()
            work = Work(shipway, "ada/app")
            work.commit({".ci.yml": CONFIG})
            work.push()
            build = shipway.wait("ada/app/1", "running")
            job = build["jobs"][0]["slug"]
            delays = asyncio.run(_delays(shipway, f"/r/ada/app/1/{job}/clock/live?attempt=1&offset=0"))
        finally:
            shipway.end()
    report = Report(bench="live")
    delays.sort()
    report.add_value("write to websocket, p50", delays[len(delays) // 2], delays, "ms", "")
    p95 = report.add_value("write to websocket, p95", delays[int(len(delays) * 0.95)], delays, "ms", "")
    return 0 if p95 < 60 else 1


async def _delays(shipway: Shipway, path: str) -> list[float]:
    """Milliseconds, for each line that was printed after we had connected."""
    url = shipway.url.replace("http", "ws") + path
    headers = {"Authorization": f"Bearer {shipway.token}"}
    delays, rest = [], b""
    async with websockets.connect(url, additional_headers=headers) as socket:
        connected = time.time()
        async for frame in socket:
            if isinstance(frame, str):
                if '"end"' in frame:
                    break
                continue
            now = time.time()
            struct.unpack_from("!Q", frame)
            *lines, rest = (rest + frame[8:]).split(b"\n")
            stamps = [float(line.split()[0]) for line in lines if line]
            delays += [(now - stamp) * 1000 for stamp in stamps if stamp > connected]
    return delays


if __name__ == "__main__":
    sys.exit(main())
