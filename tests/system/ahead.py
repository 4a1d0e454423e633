"""`shipway` with a clock that a file sets ahead: `python ahead.py FILE serve ...`; FILE holds seconds.

Only what people read and what waits for hours is read from it; leases count their own passes.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import web.main
from ci.cli import main
from ci.server.clock import Clock
from ci.server.wiring import Server


class Ahead(Clock):
    def __init__(self, file: Path) -> None:
        self._file = file

    def now(self) -> float:
        return super().now() + float(self._file.read_text())


if __name__ == "__main__":
    clock = Ahead(Path(sys.argv.pop(1)))
    web.main.Server = functools.partial(Server, clock=clock)  # type: ignore[misc]
    sys.exit(main())
