"""What tests need of npm, as tests/browser/package-lock.json pins it; installed when first asked for."""

from __future__ import annotations

import subprocess
from pathlib import Path

FOLDER = Path(__file__).parent / "browser"


def file(path: str) -> Path:
    """A file of a package, such as `axe-core/axe.min.js`."""
    found = FOLDER / "node_modules" / path
    if not found.exists():
        command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run(command, cwd=FOLDER, check=True, capture_output=True)
    return found
