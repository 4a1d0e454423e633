"""The faults of `scripts/mutants` still fit the code, and name tests that are there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PATCHES = sorted((ROOT / "tests/mutants").glob("*.patch"))


def test_there_are_faults_to_put_in() -> None:
    assert len(PATCHES) >= 10


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_a_fault_still_applies_and_its_test_is_there(patch: Path) -> None:
    head = dict(line.split(": ", 1) for line in patch.read_text().partition("\n\n")[0].splitlines())
    assert set(head) == {"row", "fault", "test"}
    done = subprocess.run(["git", "apply", "--check", str(patch)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"make {patch.name} anew: {done.stderr}"
    path, _, name = head["test"].partition("::")
    assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE), head["test"]
