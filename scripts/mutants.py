"""See scripts/mutants. Each test is also run once on the unchanged copy: it must be green there."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "tests/mutants"
_FAILED = 1  #: pytest's exit code where tests ran and some failed


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A fault, and the test that notices it."""

    name: str
    path: Path
    fault: str
    test: str


def read(path: Path) -> Mutant:
    lines = path.read_text().partition("\n\n")[0].splitlines()
    head = dict(line.split(": ", 1) for line in lines)
    return Mutant(name=path.stem, path=path, fault=head["fault"], test=head["test"])


def mutants(names: list[str]) -> list[Mutant]:
    found = [read(path) for path in sorted(FOLDER.glob("*.patch"))]
    unknown = set(names) - {mutant.name for mutant in found}
    if unknown:
        sys.exit(f"there is no mutant {', '.join(sorted(unknown))} in {FOLDER.relative_to(ROOT)}")
    return [mutant for mutant in found if not names or mutant.name in names]


def copy_to(folder: Path) -> None:
    """What git knows, as it stands in the working tree."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout
    subprocess.run(
        ["tar", "--create", "--null", "--files-from=-", "--ignore-failed-read", f"--file={folder}/tree.tar"],
        cwd=ROOT,
        input=names,
        check=True,
        stderr=subprocess.DEVNULL,
    )
    subprocess.run(["tar", "--extract", f"--file={folder}/tree.tar"], cwd=folder, check=True)
    (folder / "tree.tar").unlink()


def patch(folder: Path, mutant: Mutant, *options: str) -> bool:
    command = ["git", "apply", *options, str(mutant.path)]
    return subprocess.run(command, cwd=folder, capture_output=True).returncode == 0


def run(folder: Path, tests: list[str]) -> subprocess.CompletedProcess[str]:
    """In the copy: its modules stand before those of the installed tree."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def problem(folder: Path, mutant: Mutant) -> str:
    """Why this mutant is not noticed; empty: it is."""
    if not patch(folder, mutant):
        return "the patch does not apply any more: make it anew"
    try:
        done = run(folder, [mutant.test])
    finally:
        patch(folder, mutant, "--reverse")
    if done.returncode == 0:
        return f"{mutant.test} stays green"
    if done.returncode != _FAILED:
        return f"{mutant.test} did not run:\n{done.stdout[-1500:]}{done.stderr[-500:]}"
    return ""


def main() -> int:
    chosen = mutants(sys.argv[1:])
    failed = 0
    with tempfile.TemporaryDirectory(prefix="shipway-mutants-") as name:
        folder = Path(name)
        copy_to(folder)
        clean = run(folder, sorted({mutant.test for mutant in chosen}))
        if clean.returncode != 0:
            print(f"without any fault:\n{clean.stdout[-3000:]}{clean.stderr[-500:]}")
            return 1
        for mutant in chosen:
            why = problem(folder, mutant)
            failed += bool(why)
            print(
                f"{'NOT NOTICED' if why else 'noticed':<12} {mutant.name}: {mutant.fault}{why and f': {why}'}"
            )
            sys.stdout.flush()
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
