"""What goes on being true when processes are killed: no byte lost, no step run twice, nothing left behind."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.whole import ROOT, Shipway, Work, pids_with, until

ORACLE = ROOT.parent / "shared" / "oracle"
LINES = 1_000_000  #: of 100 bytes: 100 MB
needs_oracle = pytest.mark.skipif(not ORACLE.exists(), reason="the oracle is not beside this checkout")

FLOOD = """
steps:
  flood:
    image: busybox
    commands:
      - sh lines.sh {count} 100 {rate} a
"""


def flood(work: Work, count: int = LINES, rate: int = 100_000) -> None:
    lines = (ORACLE / "lines.sh").read_text()
    work.commit({".ci.yml": FLOOD.format(count=count, rate=rate), "lines.sh": lines})


def verify(shipway: Shipway, path: str, count: int) -> None:
    file = shipway.folder / "log"
    file.write_bytes(shipway.raw(path))
    ended = subprocess.run(
        [sys.executable, str(ORACLE / "verify.py"), str(file), str(count)], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout


def stored_bytes(shipway: Shipway) -> int:
    return sum(path.stat().st_size for path in (shipway.data / "logs").rglob("*") if path.is_file())


def server_label(shipway: Shipway) -> str:
    credential = next(shipway.folder.rglob("credential.json"))
    return f"label=shipway.server={json.loads(credential.read_text())['server']}"


def step_containers(shipway: Shipway) -> set[str]:
    """Those of steps: not the parked ones, which hold the network."""
    filters = ["--filter", server_label(shipway), "--filter", "label=shipway.step"]
    listed = subprocess.run(
        ["docker", "ps", "-q", "--no-trunc", *filters], capture_output=True, text=True, check=True
    )
    return set(listed.stdout.split())


def resources(shipway: Shipway, attempt: int) -> str:
    """Everything on the engine with this attempt's label."""
    labels = ["--filter", server_label(shipway), "--filter", f"label=shipway.attempt={attempt}"]
    found = ""
    for command in (["ps", "-aq"], ["network", "ls", "-q"], ["volume", "ls", "-q"]):
        found += subprocess.run(["docker", *command, *labels], capture_output=True, text=True).stdout
    return found


@needs_oracle
@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("place", ["docker_shipway", "runner_shipway"])
def test_a_server_killed_three_times_in_a_flood_loses_nothing(
    place: str, request: pytest.FixtureRequest
) -> None:
    """The runner is embedded in one case, on its own in the other."""
    shipway: Shipway = request.getfixturevalue(place)
    work = Work(shipway, "ada/app")
    flood(work)
    work.push()
    kill_at = sorted(random.randrange(5, 90) * (1 << 20) for _ in range(3))
    shipway.wait(f"{work.path}/1", "running")
    running: set[str] = set()
    for size in kill_at:
        until(lambda size=size: stored_bytes(shipway) > size, 120)
        running |= step_containers(shipway)
        assert shipway.server is not None
        shipway.server.kill()
        shipway.start()
    build = shipway.wait(f"{work.path}/1", seconds=180)
    assert build["status"] == "success"
    assert build["jobs"][0]["attempt"] == 1
    assert len(running) == 1  # the same container from the first kill to the last
    verify(shipway, f"{work.path}/1/{build['jobs'][0]['slug']}/flood", LINES)


@needs_oracle
@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_supervisor_killed_twice_in_a_flood_loses_nothing(runner_shipway: Shipway) -> None:
    shipway, work, count = runner_shipway, Work(runner_shipway, "ada/app"), 400_000
    flood(work, count)
    work.push()
    for size in sorted(random.randrange(2, 30) * (1 << 20) for _ in range(2)):
        until(lambda size=size: stored_bytes(shipway) > size, 120)
        assert shipway.runner is not None
        shipway.runner.kill()
        shipway.runner = shipway.start_runner(engine="docker")
    build = shipway.wait("ada/app/1", seconds=180)
    assert (build["status"], build["jobs"][0]["attempt"]) == ("success", 1)
    verify(shipway, f"ada/app/1/{build['jobs'][0]['slug']}/flood", count)


# --- the supervisor and the job process -----------------------------------------------------------

SLOW = """
steps:
  slow:
    image: busybox
    commands:
      - for i in $(seq 200); do echo line $i; sleep 0.05; done
"""


@pytest.mark.docker
@pytest.mark.timeout(180)
def test_a_killed_supervisor_that_starts_again_goes_on_in_the_same_attempt(
    runner_shipway: Shipway,
) -> None:
    shipway, work = runner_shipway, Work(runner_shipway, "ada/app")
    work.commit({".ci.yml": SLOW})
    work.push()
    until(lambda: stored_bytes(shipway) > 200, 60)
    before = step_containers(shipway)
    assert shipway.runner is not None
    shipway.runner.kill()
    shipway.runner = shipway.start_runner(engine="docker")
    until(lambda: stored_bytes(shipway) > 1000, 60)
    assert step_containers(shipway) == before
    build = shipway.wait("ada/app/1", seconds=90)
    assert (build["status"], build["jobs"][0]["attempt"]) == ("success", 1)
    log = shipway.raw(f"ada/app/1/{build['jobs'][0]['slug']}/slow").decode().splitlines()
    assert log == [f"line {number}" for number in range(1, 201)]


def kill_job_process(shipway: Shipway) -> None:
    folder = str(shipway.folder / "r1")
    jobs = [pid for pid in pids_with("runners.job") if holds_lock(pid, folder)]
    assert jobs, "no job process was found"
    for pid in jobs:
        os.kill(pid, signal.SIGKILL)


def holds_lock(pid: int, folder: str) -> bool:
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(link)
        except OSError:
            continue
        if target.startswith(folder) and target.endswith("/lock"):
            return True
    return False


@pytest.mark.docker
@pytest.mark.timeout(240)
@pytest.mark.parametrize("has_server", [True, False])
def test_a_killed_job_process_is_attempt_two_and_nothing_of_the_first_is_left(
    has_server: bool, runner_shipway: Shipway, bystander: str
) -> None:
    shipway, work = runner_shipway, Work(runner_shipway, "ada/app")
    work.commit({".ci.yml": SLOW})
    work.push()
    until(lambda: stored_bytes(shipway) > 200, 60)
    assert resources(shipway, 1)
    if not has_server:
        assert shipway.server is not None
        shipway.server.kill()
    kill_job_process(shipway)
    until(lambda: not resources(shipway, 1), 60)
    if not has_server:
        shipway.start()
    build = shipway.wait("ada/app/1", seconds=90)
    assert (build["status"], build["jobs"][0]["attempt"]) == ("success", 2)
    state = subprocess.run(
        ["docker", "inspect", "-f", "{{.State.Running}}", bystander], capture_output=True, text=True
    )
    assert state.stdout.strip() == "true"


@pytest.mark.docker
@pytest.mark.timeout(180)
def test_a_killed_job_process_in_a_deploy_step_makes_the_job_unknown(runner_shipway: Shipway) -> None:
    shipway, work = runner_shipway, Work(runner_shipway, "ada/app")
    work.commit({".ci.yml": SLOW + "    deploy: true\n"})
    work.push()
    until(lambda: stored_bytes(shipway) > 200, 60)
    kill_job_process(shipway)
    build = shipway.wait("ada/app/1", "unknown", seconds=90)
    assert build["jobs"][0]["attempt"] == 1


@pytest.fixture
def runner_shipway(tmp_path: Path) -> Any:
    subprocess.run([str(ROOT / "scripts/images")], check=True)
    shipway = Shipway(tmp_path, runner="off")
    try:
        shipway.start()
        shipway.set_up()
        shipway.runner = shipway.start_runner(engine="docker")
        yield shipway
    finally:
        shipway.end()


@pytest.fixture
def bystander() -> Any:
    """A container of somebody else."""
    ran = subprocess.run(
        ["docker", "run", "-d", "--rm", "shipway-test/busybox", "sleep", "600"],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    yield ran.stdout.strip()
    subprocess.run(["docker", "rm", "-f", ran.stdout.strip()], capture_output=True)
