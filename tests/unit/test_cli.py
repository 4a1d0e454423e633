"""`shipway` itself: what it says and how it exits when it is used wrongly."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def shipway(folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and standard error of a command that is run in `folder`, with no setting from outside."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SHIPWAY_")}
    done = subprocess.run(
        [str(Path(sys.executable).with_name("shipway")), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stderr


def test_a_command_that_does_not_exist_is_answered_with_those_that_do(tmp_path: Path) -> None:
    code, said = shipway(tmp_path, "srve")
    assert code == 2
    assert "no command 'srve'" in said and "serve" in said


def test_a_wrong_value_of_a_flag_is_wrong_use(tmp_path: Path) -> None:
    code, said = shipway(tmp_path, "serve", "--runner", "maybe")
    assert (code, said) == (2, "shipway: --runner must be one of auto, on, off, not 'maybe'\n")


def test_a_repo_is_added_to_a_server_that_exists_and_makes_none(tmp_path: Path) -> None:
    code, said = shipway(
        tmp_path, "admin", "repo", "add", "team/app", "--clone-url", "https://git.example.org/app"
    )
    assert code == 2
    assert f"no server has its data in {tmp_path / 'shipway-data'}" in said
    assert not any(tmp_path.iterdir())
