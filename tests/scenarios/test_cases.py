"""The cases that everybody who comes from another server tries first: files, and what they are to do.

Those that need no container run by `shipway exec` on the fake engine, which does what FAKE_ variables say;
the others on Docker. Cases that stand elsewhere are named in CASES.
"""

from __future__ import annotations

import ast
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from ci.errors import Invalid
from ci.pipeline.compile import build_jobs
from ci.pipeline.plan import CONTEXT, event_of
from runners.exec.command import execute

ROOT = Path(__file__).parents[2]
#: Number of the case in the study of the peers, 7.2 -> where it is tested.
CASES = {
    1: "tests/scenarios/test_cases.py::test_1_steps_run_in_order_over_the_same_folder",
    2: "tests/scenarios/test_cases.py::test_2_parallel_steps_overlap_and_are_waited_for",
    3: "tests/scenarios/test_cases.py::test_3_a_step_may_wait_for_a_later_one",
    4: "tests/scenarios/test_cases.py::test_4_exit_code_78_ends_the_pipeline_as_a_success",
    5: "tests/scenarios/test_cases.py::test_5_an_ignored_failure_leaves_the_build_green",
    6: "tests/scenarios/test_cases.py::test_6_a_failure_stops_the_others_and_the_notice_still_runs",
    7: "tests/scenarios/test_cases.py::test_7_steps_run_by_the_status_before_them",
    8: "tests/scenarios/test_cases.py::test_8_branches_are_included_and_excluded_by_globs",
    9: "tests/scenarios/test_cases.py::test_9_pipelines_wait_for_each_other_and_one_is_for_failures",
    10: "tests/scenarios/test_cases.py::test_10_nobody_sleeps_until_a_service_is_up",
    11: "tests/scenarios/test_cases.py::test_11_a_service_that_dies_is_named_with_its_last_line",
    12: "tests/scenarios/test_cases.py::test_12_a_detached_step_runs_beside_the_others",
    13: "tests/docker/test_plugins.py::test_every_kind_of_setting_reaches_a_plugin_exactly",
    14: "tests/system/test_secrets.py::test_fork_pr_gets_no_secret_env",
    15: "tests/system/test_secrets.py::test_a_secret_that_is_not_there_ends_the_build_before_anything_runs",
    16: "tests/unit/test_mask.py::test_a_key_of_many_lines_is_masked_whole_by_line_and_in_base64",
    17: "tests/unit/test_operators.py::test_a_row",
    18: "tests/scenarios/test_cases.py::test_18_a_branch_that_is_a_command_is_inert",
    19: "tests/scenarios/test_cases.py::test_19_any_bytes_are_in_the_log",
    24: "tests/unit/test_dialects.py::test_a_long_line_does_not_cut_the_file",
    25: "tests/unit/test_compile.py::test_a_right_that_the_repo_does_not_have_is_refused_where_the_file_asks",
}


def test_every_case_has_its_test() -> None:
    for place in CASES.values():
        file, _, name = place.partition("::")
        found = ast.parse((ROOT / file).read_text())
        names = [
            node.name for node in ast.walk(found) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        assert name in names, place


@pytest.fixture(autouse=True)
def _environment(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path_factory.mktemp("engine")))
    monkeypatch.setenv("SHIPWAY_IMAGE_MIRRORS", "docker.io/library/=shipway-test/")


@pytest.fixture
def case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs files, by their names; gives the exit code and the printed lines."""

    def run(name: str, text: str, *, engine: str = "fake", **options: Any) -> tuple[int, list[str]]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        code = execute([tmp_path], engine=engine, **options)
        return code, capsys.readouterr().out.splitlines()

    return run


def ends(lines: list[str]) -> dict[str, str]:
    """Step -> how it ended."""
    matches = [re.match(r"(\S+)\s+│ [✓✗!■–] (\w+)(?: in [^:]*)?(?:: (.*))?", line) for line in lines]
    return {match[1]: match[2] for match in matches if match}


def reasons(lines: list[str]) -> dict[str, str]:
    matches = [re.match(r"(\S+)\s+│ [✓✗!■–] \w+(?: in [\d.]+ s)?: (.*)", line) for line in lines]
    return {match[1]: match[2] for match in matches if match}


FAKE = "image: x, commands: [y]"


@pytest.mark.docker
def test_1_steps_run_in_order_over_the_same_folder(case: Any) -> None:
    text = """
kind: pipeline
name: push
steps:
- { name: one, image: 'busybox:1', commands: [ 'echo 1 > file' ] }
- { name: two, image: 'busybox:1', commands: [ 'echo 2 >> file' ] }
- { name: three, image: 'busybox:1', commands: [ 'cat file' ] }
"""
    subprocess.run([str(ROOT / "scripts/images")], check=True, timeout=120)
    code, lines = case(".drone.yml", text, engine="docker")
    assert code == 0
    assert [line.split("│ ")[1] for line in lines if line.startswith("three")][:2] == ["1", "2"]


def test_2_parallel_steps_overlap_and_are_waited_for(case: Any) -> None:
    text = f"""
skip_clone: true
steps:
  a: {{{FAKE}, depends_on: [], environment: {{FAKE_SLEEP: "1.5"}}}}
  b: {{{FAKE}, depends_on: [], environment: {{FAKE_SLEEP: "1.5"}}}}
  join: {{{FAKE}, depends_on: [a, b]}}
"""
    began = time.monotonic()
    code, lines = case(".ci.yml", text)
    assert (code, ends(lines)) == (0, {"a": "passed", "b": "passed", "join": "passed"})
    assert time.monotonic() - began < 2.9, "they ran one after the other"


def test_3_a_step_may_wait_for_a_later_one(case: Any) -> None:
    steps = f"- {{name: last, {FAKE}, depends_on: [first]}}\n- {{name: first, {FAKE}}}"
    code, lines = case(".drone.yml", f"kind: pipeline\nname: p\nsteps:\n{steps}\n")
    assert code == 0
    assert list(ends(lines)) == ["clone", "first", "last"]


def test_4_exit_code_78_ends_the_pipeline_as_a_success(case: Any) -> None:
    text = """
kind: pipeline
name: p
steps:
- { name: check, image: x, commands: [y], environment: { FAKE_EXIT: "78" } }
- { name: build, image: x, commands: [y] }
- { name: notify, image: x, commands: [y], when: { status: [ success, failure ] } }
"""
    code, lines = case(".drone.yml", text)
    assert (code, ends(lines)) == (
        0,
        {"clone": "passed", "check": "passed", "build": "skipped", "notify": "skipped"},
    )


def test_5_an_ignored_failure_leaves_the_build_green(case: Any) -> None:
    fails = f"name: lint, {FAKE}, failure: ignore, environment: {{FAKE_EXIT: '1'}}"
    text = f"steps:\n- {{{fails}}}\n- {{name: b, {FAKE}}}"
    code, lines = case(".woodpecker.yml", text)
    assert (code, ends(lines)) == (0, {"clone": "passed", "lint": "failed", "b": "passed"})


def test_6_a_failure_stops_the_others_and_the_notice_still_runs(case: Any) -> None:
    text = """
kind: pipeline
name: p
clone: { disable: true }
steps:
- { name: lint, image: x, commands: [y], failure: fast, environment: { FAKE_EXIT: "1" }, depends_on: [] }
- { name: slow, image: x, commands: [y], environment: { FAKE_HANG: "1" }, depends_on: [] }
- { name: later, image: x, commands: [y], depends_on: [ slow ] }
- { name: notify, image: x, commands: [y], depends_on: [ later ], when: { status: [ failure ] } }
"""
    code, lines = case(".drone.yml", text)
    assert (code, ends(lines)) == (
        1,
        {"lint": "failed", "slow": "cancelled", "later": "skipped", "notify": "passed"},
    )
    assert reasons(lines)["slow"] == "stopped because lint failed"


@pytest.mark.parametrize("fails", [False, True])
def test_7_steps_run_by_the_status_before_them(case: Any, fails: bool) -> None:
    text = f"""
steps:
- {{name: a, {FAKE}, environment: {{FAKE_EXIT: "{int(fails)}"}}}}
- {{name: on-success, {FAKE}, when: {{status: success}}}}
- {{name: on-failure, {FAKE}, when: {{status: failure}}}}
- {{name: on-both, {FAKE}, when: {{status: [success, failure]}}}}
"""
    code, lines = case(".woodpecker.yml", text)
    found = ends(lines)
    assert code == int(fails)
    assert (found["on-success"], found["on-failure"], found["on-both"]) == (
        "skipped" if fails else "passed",
        "passed" if fails else "skipped",
        "passed",
    )


@pytest.mark.parametrize(
    ("branch", "runs"), [("main", False), ("feature/a", True), ("feature/a/b", True), ("feature/skip", False)]
)
def test_8_branches_are_included_and_excluded_by_globs(case: Any, branch: str, runs: bool) -> None:
    when = "when: {branch: {include: ['feature/**'], exclude: ['feature/skip']}}"
    code, lines = case(
        ".woodpecker.yml", f"steps:\n- {{name: a, {FAKE}, {when}}}\n- {{name: b, {FAKE}}}", branch=branch
    )
    assert code == 0
    assert (ends(lines)["a"] == "passed") == runs


@pytest.mark.parametrize("fails", [False, True])
def test_9_pipelines_wait_for_each_other_and_one_is_for_failures(case: Any, fails: bool) -> None:
    step = "steps:\n- { name: a, image: x, commands: [y], environment: { FAKE_EXIT: '%d' } }\n"
    text = (
        "kind: pipeline\nname: one\n"
        + step % fails
        + "---\nkind: pipeline\nname: two\ndepends_on: [one]\n"
        + step % 0
        + "---\nkind: pipeline\nname: alarm\ndepends_on: [one, two]\ntrigger: { status: [failure] }\n"
        + step % 0
    )
    code, lines = case(".drone.yml", text)
    assert code == int(fails)
    jobs = {
        line.split()[1]: line.split()[2].rstrip(":") for line in lines if re.match(r"job \w+:? \w+", line)
    }
    jobs = {name.rstrip(":"): word for name, word in jobs.items()}
    assert jobs == {
        "one": "failed" if fails else "passed",
        "two": "skipped" if fails else "passed",
        "alarm": "passed" if fails else "skipped",
    }


@pytest.mark.docker
def test_10_nobody_sleeps_until_a_service_is_up(case: Any) -> None:
    text = """
skip_clone: true
services:
  cache:
    image: busybox
    ready: 7000
    commands: [ sleep 1.5, "while true; do echo pong | nc -l -p 7000; done" ]
steps:
  ask: { image: busybox, commands: [ "nc cache 7000 </dev/null" ] }
"""
    subprocess.run([str(ROOT / "scripts/images")], check=True, timeout=120)
    code, lines = case(".ci.yml", text, engine="docker")
    assert code == 0, lines
    assert any(line.startswith("ask") and line.endswith("│ pong") for line in lines)


@pytest.mark.docker
def test_11_a_service_that_dies_is_named_with_its_last_line(case: Any) -> None:
    text = """
skip_clone: true
services:
  db: { image: busybox, ready: 5432, commands: [ echo "FATAL no disk", exit 7 ] }
steps:
  test: { image: busybox, commands: [ "true" ] }
"""
    subprocess.run([str(ROOT / "scripts/images")], check=True, timeout=120)
    code, lines = case(".ci.yml", text, engine="docker")
    assert code == 3
    assert ends(lines) == {"db": "error", "test": "skipped"}
    assert 'ended before it was ready: exited with 7; its last line: "FATAL no disk"' in lines[-1]


def test_12_a_detached_step_runs_beside_the_others(case: Any) -> None:
    serve = f"name: serve, {FAKE}, detach: true, environment: {{FAKE_HANG: '1'}}"
    text = f"steps:\n- {{{serve}}}\n- {{name: b, {FAKE}}}"
    code, lines = case(".woodpecker.yml", text)
    assert (code, ends(lines)) == (0, {"clone": "passed", "b": "passed", "serve": "passed"})
    assert reasons(lines)["serve"] == "stopped with the job"


EVIL = 'a$(touch /workspace/pwned)`id`"; exit 1; "\' b'


@pytest.mark.docker
@pytest.mark.parametrize(
    ("file", "name"), [(".ci.yml", "CI_COMMIT_BRANCH"), (".woodpecker.yml", "CI_COMMIT_BRANCH")]
)
def test_18_a_branch_that_is_a_command_is_inert(case: Any, file: str, name: str) -> None:
    text = f"""
skip_clone: true
steps:
- name: a
  image: busybox
  commands:
  - echo "on ${{{name}}}"
  - echo on ${{{name}##*z}}
  - test ! -e /workspace/pwned && echo inert
"""
    subprocess.run([str(ROOT / "scripts/images")], check=True, timeout=120)
    code, lines = case(file, text, engine="docker", branch=EVIL)
    assert code == 0, lines
    assert f"on {EVIL}" in "\n".join(lines)
    assert any(line.endswith("│ inert") for line in lines)


@pytest.mark.docker
def test_19_any_bytes_are_in_the_log(case: Any) -> None:
    text = r"""
skip_clone: true
steps:
  a:
    image: busybox
    commands:
      - printf 'gr\303\274n \360\237\230\200\n'
      - printf 'a\000b\n'
      - head -c 1000000 /dev/zero | tr '\0' x; echo
      - printf '10%%\r50%%\r100%%\n'
"""
    subprocess.run([str(ROOT / "scripts/images")], check=True, timeout=120)
    code, lines = case(".ci.yml", text, engine="docker")
    assert code == 0
    said = [line.split("│ ", 1)[1] for line in lines if line.startswith("a")]
    assert said[:2] == ["grün 😀", "a\0b"]
    assert said[2] == "x" * 1_000_000
    assert said[3] == "100%"


def test_25_what_a_fork_may_never_ask_for_is_said_with_its_line() -> None:
    text = "steps:\n- name: a\n  image: x\n  privileged: true\n  commands: [y]\n"
    event = event_of("pull_request", branch="main", is_from_fork=True)
    with pytest.raises(
        Invalid, match=r":2:3: step \"a\": `privileged` is never allowed in a build of a fork"
    ):
        build_jobs({".woodpecker.yml": text}, event, CONTEXT)
