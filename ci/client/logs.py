"""The logs of a build on a terminal: step after step in the order in which they began, as they grow."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ci.client import builds
from ci.client.builds import StepRun
from ci.client.http import Api
from ci.client.place import BuildPath
from ci.client.terminal import Safe, plain

#: Between two looks at what grows: short after something came, longer while nothing does.
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 1.5


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which steps, by name or slug; empty means all. Services only by name."""

    job: str = ""
    step: str = ""
    is_failed_only: bool = False

    def fits(self, run: StepRun) -> bool:
        is_job = self.job in ("", run.job["name"], run.job["slug"])
        is_step = self.step in ("", run.step["name"], run.step["slug"])
        is_shown = bool(self.step) or run.step["kind"] != "service"
        return is_job and is_step and is_shown and (not self.is_failed_only or run.status in builds.FAILED)


class Pace:
    """How long to wait before looking again."""

    def __init__(self) -> None:
        self._seconds = FIRST_PAUSE_SECONDS

    def wait(self, *, has_moved: bool) -> None:
        self._seconds = FIRST_PAUSE_SECONDS if has_moved else min(self._seconds * 1.5, LONGEST_PAUSE_SECONDS)
        time.sleep(self._seconds)


class Logs:
    def __init__(self, api: Api, path: BuildPath, wanted: Wanted, *, is_raw: bool = False) -> None:
        self._api = api
        self._path = path
        self._wanted = wanted
        self._is_raw = is_raw
        self._told: set[tuple[int, int, int]] = set()

    def show(self) -> dict[str, Any]:
        """What there is now; returns the build."""
        build = builds.fetch(self._api, self._path)
        for run in self._new(build):
            self._print(run, lambda _: False)
        return build

    def follow(self) -> dict[str, Any]:
        """Until the build has ended, or waits for a person; returns it as it is then."""
        pace = Pace()
        while True:
            build = builds.fetch(self._api, self._path)
            fresh = self._new(build)
            for run in fresh[:1]:
                self._print(run, self._goes_on)
            if not fresh and builds.is_settled(build):
                return build
            if not fresh:
                pace.wait(has_moved=False)

    def _new(self, build: dict[str, Any]) -> list[StepRun]:
        return [
            run
            for run in builds.steps(build)
            if run.has_begun and run.key not in self._told and self._wanted.fits(run)
        ]

    def _goes_on(self, run: StepRun) -> bool:
        """Whether more of this step's log may come."""
        build = builds.fetch(self._api, self._path)
        now = next((each for each in builds.steps(build) if each.key == run.key), None)
        return now is not None and not now.is_over

    def _print(self, run: StepRun, goes_on: Callable[[StepRun], bool]) -> None:
        self._told.add(run.key)
        out = _Out(is_raw=self._is_raw)
        out.title(run.title)
        path, attempt = self._path.log(run.job["slug"], run.step["slug"]), run.attempt["attempt"]
        offset, pace, may_grow = 0, Pace(), True
        while True:
            data = self._api.part(path, offset, attempt=attempt)
            offset += len(data)
            out.write(data)
            if run.is_over and offset == run.step["log_size"]:
                break
            if not data and not may_grow:
                break
            if not data:
                may_grow = goes_on(run)  # and look once more, for what came before it ended
                if may_grow:
                    pace.wait(has_moved=False)
        out.end()


class _Out:
    """Standard output for one step's log."""

    def __init__(self, *, is_raw: bool) -> None:
        self._is_raw = is_raw
        self._has_colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        self._safe = Safe(colours=self._has_colours)
        self._ends_with_line = True

    def title(self, text: str) -> None:
        if self._is_raw:
            return
        shown = plain(text)
        print(f"\x1b[1m--- {shown}\x1b[0m" if self._has_colours else f"--- {shown}", flush=True)

    def write(self, data: bytes) -> None:
        if self._is_raw:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        else:
            self._print(self._safe.feed(data))

    def end(self) -> None:
        if self._is_raw:
            return
        self._print(self._safe.feed(b"", is_end=True))
        if not self._ends_with_line:
            print()
        if self._has_colours:
            print("\x1b[0m", end="", flush=True)

    def _print(self, text: str) -> None:
        if text:
            self._ends_with_line = text.endswith("\n")
            print(text, end="", flush=True)
