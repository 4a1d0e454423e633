"""The language: a pipeline of 200 lines from text to jobs, 1,000 files linted, 256 cells.

    scripts/bench compile [--json]

The baseline of the first row is PyYAML's own C loader on the same text, in the same run, interleaved.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from ci.pipeline.compile import build_jobs
from ci.pipeline.lint import check
from ci.pipeline.plan import CONTEXT, event_of

_ROUNDS = 15


def text(lines: int = 200) -> str:
    """A pipeline of about so many lines, as people write them."""
    steps = [
        f"  step{number}:\n    image: example/image:{number}\n    environment: {{ A: b, N: '{number}' }}\n"
        f"    commands:\n      - echo ${{CI_COMMIT_SHA}} {number}\n      - make test\n"
        f"    depends_on: [{'clone' if number == 0 else f'step{number - 1}'}]\n"
        f"    when: {{ branch: [main, 'release/*'], event: push }}\n"
        for number in range(lines // 8)
    ]
    return "steps:\n" + "".join(steps).replace("    depends_on: [clone]\n", "")


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    event = event_of("push", branch="main")
    source = text()
    matrix = (
        source
        + "matrix: { A: ["
        + ",".join(map(str, range(16)))
        + "], B: ["
        + ",".join(map(str, range(16)))
        + "] }\n"
    )
    # 256 cells x 25 steps would be more than a build may have: the matrix has a pipeline of its own size.
    cells = matrix.replace(source, text(120))
    ours, loader, wide = [], [], []
    for _ in range(_ROUNDS):
        loader.append(seconds(lambda: yaml.CSafeLoader(source).get_single_data()))
        ours.append(seconds(lambda: build_jobs({".ci.yml": source}, event, CONTEXT)))
        wide.append(seconds(lambda: build_jobs({".ci.yml": cells}, event, CONTEXT)))
    found = {
        "lines": source.count("\n"),
        "compile_ms": 1000 * statistics.median(ours),
        "loader_ms": 1000 * statistics.median(loader),
        "ratio": statistics.median(ours) / statistics.median(loader),
        "cells": 256,
        "cells_lines": cells.count("\n"),
        "cells_seconds": statistics.median(wide),
        "lint_seconds": _lint(source, (250, 500, 1000)),
    }
    if "--json" in sys.argv:
        print(json.dumps(found, indent=2))
        return
    print(f"{found['lines']} lines from text to jobs: {found['compile_ms']:.1f} ms")
    print(
        f"  {found['ratio']:.1f} x PyYAML's C loader alone ({found['loader_ms']:.1f} ms); wanted: under 10 ms"
    )
    print(f"256 cells of {found['cells_lines']} lines: {found['cells_seconds']:.2f} s; wanted: under 1 s")
    for count, took in found["lint_seconds"].items():
        print(f"{count} files linted: {took:.2f} s, {1000 * took / count:.2f} ms a file")


def _lint(source: str, counts: tuple[int, ...]) -> dict[int, float]:
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / ".ci.yml"
        file.write_text(source)
        return {count: seconds(lambda: [check(file) for _ in range(count)]) for count in counts}  # noqa: B023


if __name__ == "__main__":
    main()
