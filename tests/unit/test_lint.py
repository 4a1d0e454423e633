"""`shipway lint`: files, folders, places, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ci.pipeline.lint import lint

GOOD = "steps:\n  a:\n    image: busybox\n    commands: [ls]\n"
WRONG = GOOD.replace("commands", "comands")
WARNS = GOOD + "    environment: {CI_X: y}\n"


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_a_good_file_is_silent_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lint([write(tmp_path, ".ci.yml", GOOD)]) == 0
    assert capsys.readouterr().out == "1 file: 0 errors, 0 warnings\n"


def test_a_problem_is_shown_with_its_line_and_a_caret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, ".ci.yml", WRONG)
    assert lint([path]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert f'{path}:4:5: unknown key "comands" in a step; did you mean "commands"?' in lines
    assert lines[-3:-1] == ["        comands: [ls]", "        ^"]
    assert lines[-1] == "1 file: 1 error, 0 warnings"


def test_a_caret_stays_under_a_column_far_to_the_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"steps: {{a: {{image: b, commands: ['{'x' * 5000}'], nmae: c}}}}\n"
    assert lint([write(tmp_path, ".ci.yml", text)]) == 2
    _, line, caret, _ = capsys.readouterr().out.splitlines()
    assert line[caret.index("^") :].startswith("nmae")
    assert len(line) < 120


def test_a_folder_is_a_repo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, ".ci/a.yml", GOOD)
    write(tmp_path, ".ci/b.yaml", WRONG)
    write(tmp_path, ".ci/run", "no yaml: [")
    assert lint([tmp_path]) == 2
    assert "2 files: 1 error," in capsys.readouterr().out


def test_a_folder_without_pipeline_and_a_missing_file_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lint([tmp_path, tmp_path / "none.yml"]) == 2
    out = capsys.readouterr().out
    assert "there is no pipeline file in this folder; looked for: .ci.yml, .ci/, " in out
    assert "none.yml:1:1: it cannot be read: No such file or directory" in out


def test_warnings_fail_only_where_it_is_strict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, ".ci.yml", WARNS)
    assert lint([path]) == 0
    assert lint([path], strict=True) == 2
    assert "5:19: warning: CI_X replaces our variable" in capsys.readouterr().out


def test_json_has_every_problem_as_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, ".ci.yml", WARNS)
    assert lint([path], as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == [
        {
            "message": "CI_X replaces our variable of that name, for this container only",
            "file": str(path),
            "line": 5,
            "column": 19,
            "is_warning": True,
        }
    ]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a: \0", b"x" * 400_000, b"\t- a", b""])
def test_hostile_bytes_are_a_problem_with_a_place(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / ".ci.yml"
    path.write_bytes(content)
    assert lint([path]) == 2
    assert capsys.readouterr().out.startswith(f"{path}:1:")
