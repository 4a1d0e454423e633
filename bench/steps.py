"""Ten trivial sequential steps, hardened, on one workspace, against ten `docker run --rm` on one volume.

The clock of `ten steps` runs from the first `run()` to the last exit code; the parked containers that
hold namespaces are made inside it. Set-up, removal and the whole build are rows of their own. Steps are
announced (`ready`) as the job process announces them. Rounds are interleaved; medians count.
usage: scripts/bench steps [--json]
"""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench.report import Report
from bench.whole import ROOT, Shipway, Work
from ci.spec import JobSpec, StepKind, StepSpec
from runners.engines.base import Launch, Owner
from runners.engines.docker import DockerEngine
from runners.engines.settings import DockerSettings

ROUNDS = 7
BUILDS = 3
STEPS = 10
IMAGE = "shipway-test/busybox:1"
VOLUME = "shipway-bench-ws"
BASELINE = f"for i in $(seq {STEPS}); do docker run --rm -v {VOLUME}:/ws -w /ws {IMAGE} true; done"


@dataclass
class Round:
    """Seconds."""

    set_up: float = 0.0
    steps: float = 0.0
    removal: float = 0.0
    each: list[float] = field(default_factory=list)


class Nowhere:
    def write(self, data: bytes) -> None:
        """Trivial steps print marks only."""


def job() -> JobSpec:
    steps = [
        StepSpec(
            number=number,
            name=f"s{number}",
            slug=f"s{number}",
            kind=StepKind.COMMANDS,
            image=IMAGE,
            commands=("true",),
            depends_on=(f"s{number - 1}",) if number > 1 else (),
        )
        for number in range(1, STEPS + 1)
    ]
    return JobSpec(name="bench", slug="bench", steps=tuple(steps))


async def ours(number: int) -> Round:
    engine, spec, measured = DockerEngine(DockerSettings()), job(), Round()
    owner = Owner(server=f"bench-{secrets.token_hex(4)}", runner="bench", job=number, attempt=1)
    began = time.perf_counter()
    try:
        await engine.prepare(spec, owner)
        measured.set_up = time.perf_counter() - began
        began = time.perf_counter()
        for step, after in zip(spec.steps, [*spec.steps[1:], None], strict=True):
            step_began = time.perf_counter()
            launch = Launch(step=step, environment={"A": "1"}, mark_token="0" * 32, output=Nowhere())
            running = asyncio.create_task(engine.run(launch))
            await asyncio.sleep(0)
            if after is not None:
                engine.ready(after)
            exit_ = await running
            assert exit_.is_success, exit_
            measured.each.append(time.perf_counter() - step_began)
        measured.steps = time.perf_counter() - began
    finally:
        began = time.perf_counter()
        await engine.destroy()
        measured.removal = time.perf_counter() - began
    return measured


def theirs() -> float:
    began = time.perf_counter()
    subprocess.run(["sh", "-ec", BASELINE], check=True)
    return time.perf_counter() - began


def whole_builds() -> list[float]:
    """Seconds from a push to the end of its build: server, runner, clone, ten steps."""
    lines = ["steps:", *(f"  s{n}: {{image: {IMAGE}, commands: ['true']}}" for n in range(1, STEPS + 1))]
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        shipway = Shipway(Path(folder), "on")
        try:
            shipway.start()
            shipway.set_up()
            shipway.wait_for_runner()
            work = Work(shipway, "ada/bench")
            for number in range(1, BUILDS + 1):
                work.commit({".ci.yml": "\n".join(lines) + "\n", "n": str(number)})
                began = time.perf_counter()
                work.push()
                build = shipway.wait(f"ada/bench/{number}")
                seconds.append(time.perf_counter() - began)
                assert build["status"] == "success", build
        finally:
            shipway.end()
    return seconds


def main() -> None:
    subprocess.run([str(ROOT / "scripts/images")], check=True)
    subprocess.run(["docker", "volume", "create", VOLUME], check=True, stdout=subprocess.DEVNULL)
    report, rounds, baseline = Report(bench="steps"), [], []
    try:
        asyncio.run(ours(0))  # the images and the holders' image are there from now on
        for number in range(1, ROUNDS + 1):
            rounds.append(asyncio.run(ours(number)))
            baseline.append(theirs())
    finally:
        subprocess.run(["docker", "volume", "rm", VOLUME], check=True, stdout=subprocess.DEVNULL)
    steps = [one.steps for one in rounds]
    report.add("ten steps, first run() to last exit code", steps, "s")
    report.add("ten docker run", baseline, "s", BASELINE)
    report.ratio("ten steps / ten docker run", steps, baseline, BASELINE)
    report.ratio(
        "set-up and ten steps / ten docker run", [r.set_up + r.steps for r in rounds], baseline, BASELINE
    )
    report.add("a step after the first", [each for one in rounds for each in one.each[1:]], "s")
    report.add("the first step, with its namespace", [one.each[0] for one in rounds], "s")
    report.add("set-up: network and volume", [one.set_up for one in rounds], "s")
    report.add("removal of all", [one.removal for one in rounds], "s")
    report.add("whole build: push to end, clone and ten steps", whole_builds(), "s")


if __name__ == "__main__":
    main()
