"""A short run of `scripts/fuzz`; its seed is printed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts/fuzz.py"


def test_mutated_files_are_compiled_or_refused_and_nothing_else_happens() -> None:
    command = [sys.executable, "-P", str(SCRIPT), "--count", "3000", "--seconds", "20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    assert "mutants of" in done.stdout
