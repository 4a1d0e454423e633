"""Shipway builds Shipway: this commit, pushed to a server of its own, by its own `.ci.yml`, on a real engine.

usage: scripts/bench own      prints the logs, and ends with the build's exit code

The image that the pipeline names is made here, from Debian, under a name of ours (scripts/images --debian);
`SHIPWAY_IMAGE_MIRRORS` leads to it, and `SHIPWAY_CA_BUNDLE` gives the steps this machine's authorities.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.whole import ROOT, Shipway, until

_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
_LIMIT_SECONDS = 3600
_IMAGE = "python:3.13-bookworm"


def main() -> int:
    subprocess.run([str(ROOT / "scripts/images"), "--debian"], check=True)
    subprocess.run(["docker", "tag", "shipway-test/debian:12", f"shipway-test/{_IMAGE}"], check=True)
    if Path(_AUTHORITIES).exists():
        os.environ.setdefault("SHIPWAY_CA_BUNDLE", _AUTHORITIES)
    with tempfile.TemporaryDirectory() as folder:
        shipway = Shipway(Path(folder), runner="on")
        try:
            shipway.start()
            shipway.set_up()
            before = _volumes()
            code = _build(shipway)
            until(lambda: _volumes() <= before, seconds=120)  # a workspace of a gigabyte takes its time to go
            return code
        finally:
            shipway.end()


def _build(shipway: Shipway) -> int:
    began = time.monotonic()
    _push(shipway)
    build = shipway.wait("ada/shipway/1", seconds=_LIMIT_SECONDS)
    for job in build["jobs"]:
        for step in job["attempts"][-1]["steps"]:
            print(f"--- {step['name']}: {step['status']} {step['reason']}")
            log = shipway.raw(f"ada/shipway/1/{job['slug']}/{step['slug']}").decode(errors="replace")
            print("\n".join(log.splitlines()[-12 if step["status"] == "success" else -200 :]))
    print(f"\n{build['status']} after {time.monotonic() - began:.0f} s")
    return 0 if build["status"] == "success" else 1


def _volumes() -> set[str]:
    said = subprocess.run(["docker", "volume", "ls", "-q"], check=True, capture_output=True, text=True)
    return set(said.stdout.split())


def _push(shipway: Shipway) -> None:
    remote = f"{shipway.url}/git/ada/shipway.git"
    environment = {
        **os.environ,
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.http://ada:{shipway.token}@127.0.0.1:{shipway.port}/.insteadOf",
        "GIT_CONFIG_VALUE_0": f"{shipway.url}/",
    }
    subprocess.run(
        ["git", "push", "-q", remote, "HEAD:refs/heads/main"], cwd=ROOT, env=environment, check=True
    )


if __name__ == "__main__":
    sys.exit(main())
