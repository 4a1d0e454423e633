"""Whatever a step or a pipeline file does, its build ends with a reason in words, its log is whole, and
nothing of it stays on the engine."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from itertools import pairwise
from typing import Any

import httpx
import pytest

from bench.whole import ROOT, Shipway, Work, until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]

#: Every step for itself, all at once, so that one bad neighbour shows.
STEPS = r"""
skip_clone: true
steps:
  no-image:
    image: shipway-test.invalid/no/such:1
    commands: [echo never]
    depends_on: []
  no-shell:
    image: noshell:1
    commands: [echo never]
    depends_on: []
  eats-stdin:
    image: busybox
    commands: [cat, echo after]
    depends_on: []
  binary:
    image: busybox
    commands: [head -c 65536 /dev/zero, "printf '\\377\\376\\033_shipway;\\033\\\\\\033]0;title\\007\\r\\n'"]
    depends_on: []
  long-line:
    image: busybox
    commands: ["head -c 1048576 /dev/zero | tr '\\0' x", 'printf y']
    depends_on: []
  no-newline:
    image: busybox
    commands: [printf the-end]
    depends_on: []
  children:
    image: busybox
    commands: ['sleep 1000 & (sleep 1000; echo late) & echo started']
    depends_on: []
  not-found:
    image: busybox
    commands: [no-such-program]
    depends_on: []
  bomb:
    image: busybox
    commands: ['b() { b | b; }; b 2>/dev/null', 'while :; do :; done']
    timeout: 5s
    depends_on: []
"""


@dataclass(frozen=True)
class Expected:
    status: str
    outcome: str
    reason: str = ""
    log: bytes | None = None


EXPECTED = {
    "no-image": Expected("error", "image", "shipway-test.invalid/no/such:1", b""),
    "no-shell": Expected("error", "image", "has no /bin/sh", b""),
    "eats-stdin": Expected("success", "exit", log=b"after\n"),
    "binary": Expected(
        "success", "exit", log=b"\0" * 65536 + b"\xff\xfe\x1b_shipway;\x1b\\\x1b]0;title\x07\r\n"
    ),
    "long-line": Expected("success", "exit", log=b"x" * (1 << 20) + b"y"),
    "no-newline": Expected("success", "exit", log=b"the-end"),
    "children": Expected("success", "exit", log=b"started\n"),
    "not-found": Expected("failure", "exit", "command not found"),
    "bomb": Expected("failure", "timeout", "limit of 5 s"),
}


@pytest.fixture(scope="module")
def shipway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shipway]:
    subprocess.run([str(ROOT / "scripts/images")], check=True)
    shipway = Shipway(tmp_path_factory.mktemp("shipway"), runner="on")
    try:
        shipway.start()
        shipway.set_up()
        shipway.wait_for_runner()
        yield shipway
    finally:
        shipway.end()


def page(shipway: Shipway, address: str) -> str:
    headers = {"Authorization": f"Bearer {shipway.token}"}
    answer = httpx.get(shipway.url + address, headers=headers)
    assert answer.status_code == 200, answer.text
    return " ".join(unescape(answer.text).split())


def server_id(shipway: Shipway) -> str:
    text = (shipway.data / "runner" / "credential.json").read_text()
    return str(json.loads(text)["server"])


def leftovers(shipway: Shipway, build: Any) -> str:
    """What of the build's jobs is on the engine."""
    found = ""
    for job in build["jobs"]:
        label = ["--filter", f"label=shipway.job={job['id']}"]
        label += ["--filter", f"label=shipway.server={server_id(shipway)}"]
        for command in (["ps", "-aq"], ["network", "ls", "-q"], ["volume", "ls", "-q"]):
            found += subprocess.run(["docker", *command, *label], capture_output=True, text=True).stdout
    return found


def steps_of(build: Any) -> dict[str, Any]:
    return {step["slug"]: step for step in build["jobs"][0]["attempts"][-1]["steps"]}


@pytest.fixture(scope="module")
def bad_build(shipway: Shipway) -> Any:
    work = Work(shipway, "ada/bad")
    work.commit({".ci.yml": STEPS})
    work.push()
    shipway.wait("ada/bad/1", "running")
    seen = until(lambda: leftovers(shipway, shipway.build("ada/bad/1")))
    assert seen, "the labels that this test looks for are right"
    return shipway.wait("ada/bad/1", seconds=90)


@pytest.mark.parametrize("slug", EXPECTED)
def test_a_bad_step_ends_with_a_reason_and_its_whole_log(shipway: Shipway, bad_build: Any, slug: str) -> None:
    step, expected = steps_of(bad_build)[slug], EXPECTED[slug]
    assert (step["status"], step["outcome"]) == (expected.status, expected.outcome), step
    assert bool(step["reason"]) == (step["status"] != "success")
    job = bad_build["jobs"][0]["slug"]
    if expected.log is not None:
        assert shipway.raw(f"ada/bad/1/{job}/{slug}") == expected.log
    if expected.reason:
        assert expected.reason in page(shipway, f"/r/ada/bad/1/{job}/{slug}")


def test_the_build_page_says_what_failed_first(shipway: Shipway, bad_build: Any) -> None:
    text = page(shipway, "/r/ada/bad/1")
    assert "shipway-test.invalid/no/such:1 cannot be pulled" in text
    assert "has no /bin/sh" in text


def test_the_build_of_bad_steps_says_the_worst_and_leaves_nothing_on_the_engine(
    shipway: Shipway, bad_build: Any
) -> None:
    assert (bad_build["status"], bad_build["outcome"]) == ("error", "image")
    assert "no/such:1" in bad_build["reason"]
    assert leftovers(shipway, bad_build) == ""


# --- a step that does not want to end ---------------------------------------------------------------

DEAF = """
skip_clone: true
steps:
  deaf:
    image: busybox
    commands: ["trap '' TERM; echo deaf; (while :; do sleep 1; done) & while :; do sleep 1; done"]
  after:
    image: busybox
    commands: [echo never]
"""


def test_a_step_that_ignores_term_is_killed_after_its_grace_and_the_build_is_cancelled(
    shipway: Shipway,
) -> None:
    work = Work(shipway, "ada/deaf")
    work.commit({".ci.yml": DEAF})
    work.push()
    until(lambda: log_of(shipway, "ada/deaf/1/ci/deaf") == b"deaf\n")
    shipway.api("POST", "/api/repos/ada/deaf/builds/1/cancel")
    build = shipway.wait("ada/deaf/1", seconds=40)
    assert (build["status"], build["outcome"]) == ("cancelled", "cancelled")
    assert "ada" in build["reason"]
    steps = steps_of(build)
    assert {slug: step["status"] for slug, step in steps.items()} == {
        "deaf": "cancelled",
        "after": "cancelled",
    }
    assert shipway.raw("ada/deaf/1/ci/deaf") == b"deaf\n"
    assert "cancelled by ada" in page(shipway, "/r/ada/deaf/1/ci/deaf")
    assert leftovers(shipway, build) == ""


def log_of(shipway: Shipway, path: str) -> bytes:
    headers = {"Authorization": f"Bearer {shipway.token}"}
    answer = httpx.get(f"{shipway.url}/r/{path}/raw", headers=headers)
    return answer.content if answer.status_code == 200 else b""


# --- pipeline files that cannot be used -------------------------------------------------------------

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n" for before, name in pairwise("abcdefghi")
)
FILES = {
    "broken": ("steps:\n  a: [\n  b: }\n", "not YAML"),
    "unknown-key": ("steps:\n  a:\n    image: busybox\n    comands: [x]\n", 'did you mean "commands"'),
    "bomb": (f"variables:\n  z: 1\n{BOMB}steps: *i\n", "20,000"),
    "brackets": ("steps: " + "[" * 60_000, "32"),
    "twice": ("steps:\n  a: {image: busybox, image: other, commands: [x]}\n", "twice"),
    "too-large": ("# " + "x" * (300 << 10) + "\nsteps: {}\n", "256 KiB"),
    "binary": ("steps: \x00\x07\n", "U+0000"),
    "empty": ("", "steps"),
    "a-list": ("- a\n- b\n", "map"),
}


def test_a_pipeline_file_that_cannot_be_used_is_an_error_that_says_where(shipway: Shipway) -> None:
    work = Work(shipway, "ada/files")
    for number, (name, (text, word)) in enumerate(FILES.items(), start=1):
        work.commit({".ci.yml": text}, name)
        work.push()
        build = shipway.wait(f"ada/files/{number}")
        assert (build["status"], build["outcome"]) == ("error", "config"), name
        problems = [problem["message"] for problem in build["problems"]]
        assert any(word in message for message in problems), (name, problems)
        said = page(shipway, f"/r/ada/files/{number}")
        assert ".ci.yml:" in said and all(message in said for message in problems), (name, problems)


# --- a cancel at any moment -------------------------------------------------------------------------

CANCELLED = {
    "offered": "steps:\n  a: {image: busybox, commands: [sleep 100]}\n",
    "clone": "steps:\n  a: {image: busybox, commands: [sleep 100]}\n",
    "services": """
skip_clone: true
services:
  db: {image: busybox, commands: [sleep 100]}
steps:
  a: {image: busybox, commands: [sleep 100]}
""",
    "deploy": "skip_clone: true\nsteps:\n  a: {image: busybox, deploy: true, commands: [sleep 100]}\n",
}
#: Which step has begun when the cancel comes; none: right after the push.
WHEN = {"offered": "", "clone": "clone", "services": "db", "deploy": "a"}


@pytest.mark.parametrize("phase", CANCELLED)
def test_a_cancel_in_any_phase_ends_the_build_and_leaves_nothing(shipway: Shipway, phase: str) -> None:
    path = f"ada/cancel-{phase}"
    work = Work(shipway, path)
    work.commit({".ci.yml": CANCELLED[phase]})
    work.push()
    if WHEN[phase]:
        until(lambda: has_begun(shipway.build(f"{path}/1"), WHEN[phase]))
    shipway.api("POST", f"/api/repos/{path}/builds/1/cancel")
    build = shipway.wait(f"{path}/1", seconds=30)
    assert (build["status"], build["outcome"], build["reason"]) == (
        "cancelled",
        "cancelled",
        "cancelled by ada",
    )
    assert {step["status"] for step in steps_of(build).values()} <= {"cancelled", "success"}
    until(lambda: not leftovers(shipway, build), 10)


def has_begun(build: Any, slug: str) -> bool:
    steps = steps_of(build) if build["jobs"][0]["attempts"] else {}
    return slug in steps and steps[slug]["status"] not in ("pending", "waiting")
