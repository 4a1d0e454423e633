"""`shipway plan`: what an event would start, as text and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ci.errors import Invalid
from ci.pipeline.plan import plan
from ci.spec import JobSpec

FILES = {
    ".ci/test.yml": "steps:\n  unit: {image: py, commands: [make]}\n"
    "  docs: {image: py, commands: [make], when: {path: 'docs/**'}}\nservices: {db: {image: pg}}\n",
    ".ci/deploy.yml": "depends_on: test\nconcurrency: prod\nlabels: {zone: a}\nwhen: {branch: main}\nsteps:\n"
    "  go: {image: x, settings: {key: {from_secret: token}}}\n"
    "  tell: {image: x, commands: [y], depends_on: go, when: {status: failure}}\n",
}


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_a_plan_says_what_would_run_and_what_not(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan([repo], changed=["src/a.py"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:6] == [
        "job deploy (after test; needs zone=a; in the group prod)",
        "  + clone: clone",
        "  + go: plugin, x, after clone, deploys",
        "  + tell: x, after go, on failure",
        "",
        "job test",
    ]
    assert lines[6:10] == [
        "  + clone: clone",
        "  + unit: py, after clone",
        "  - docs: left out: its path filter does not match: no changed file matches docs/**",
        "  + db: service, pg",
    ] or lines[8].startswith("  - docs: left out: ")
    assert lines[-1] == "secrets: token"


def test_what_an_event_leaves_out_is_told_with_its_reason(
    repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan([repo], branch="other") == 0
    out = capsys.readouterr().out
    assert "job test" in out
    assert "left out: " in out and "deploy.yml" in out.split("left out: ")[1]


def test_the_jobs_are_given_as_a_runner_gets_them(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan([repo], as_json=True) == 0
    found = json.loads(capsys.readouterr().out)
    jobs = [JobSpec.model_validate(job) for job in found["jobs"]]
    assert [job.slug for job in jobs] == ["deploy", "test"]
    assert found["secrets"] == ["token"]


def test_files_that_cannot_be_used_are_told_with_their_places(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".ci.yml").write_text("steps: {a: {image: b, comands: c}}")
    assert plan([tmp_path]) == 2
    assert 'unknown key "comands" in a step' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"event": "pushed"}, "there is no event 'pushed'"),
        ({"event": "tag"}, "needs --tag"),
        ({"variable": ["A"]}, "a variable is NAME=VALUE"),
        ({"dialect": "english"}, "there is no dialect 'english'"),
    ],
)
def test_options_that_mean_nothing_are_refused(repo: Path, options: dict[str, object], says: str) -> None:
    with pytest.raises(Invalid, match=says):
        plan([repo], **options)  # type: ignore[arg-type]


def test_a_folder_without_pipelines_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="there is no pipeline file in"):
        plan([tmp_path])


@pytest.mark.parametrize("options", [{"event": "tag", "tag": "v1"}, {"event": "pull_request", "fork": True}])
def test_every_kind_of_event_has_a_plan(repo: Path, options: dict[str, object]) -> None:
    assert plan([repo], **options) == 0  # type: ignore[arg-type]


def test_a_file_of_no_telling_name_is_known_by_what_it_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "build.yml"
    file.write_text("kind: pipeline\ntype: docker\nname: x\nsteps: [{name: a, image: b, commands: [c]}]\n")
    assert plan([file]) == 0
    assert "job x" in capsys.readouterr().out
