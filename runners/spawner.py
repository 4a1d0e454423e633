"""Spawner: starts job processes, one of them always ahead, so that no import stands between a job and its
first step. A job process lives in a session of its own and survives us."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Lock

from runners.handover import Handover


class Spawner:
    def __init__(self, engine: str, data: Path) -> None:
        self._engine = engine
        self._data = data
        self._spare: subprocess.Popen[bytes] | None = None
        self._lock = Lock()
        self._is_closed = False
        self._handed: list[subprocess.Popen[bytes]] = []

    async def start_spare(self) -> None:
        await asyncio.to_thread(self._start_spare)

    async def hand(self, handover: Handover) -> None:
        """Give the assignment to a job process. Returns when it holds its spool, or has died before."""
        self._handed.append(await asyncio.to_thread(self._hand, handover))

    def reap(self) -> None:
        """Forget the job processes that have ended, so that none stays a zombie."""
        self._handed = [process for process in self._handed if process.poll() is None]

    def close(self) -> None:
        """The spare sees the end of its input, and ends."""
        with self._lock:
            self._is_closed = True
            spare, self._spare = self._spare, None
        if spare is not None:
            _let_go(spare)
            spare.wait()

    def _start_spare(self) -> None:
        with self._lock:
            is_there = self._spare is not None and self._spare.poll() is None
            if not is_there and not self._is_closed:
                self._spare = self._start()

    def _take(self) -> subprocess.Popen[bytes]:
        with self._lock:
            spare, self._spare = self._spare, None
        if spare is not None and spare.poll() is None:
            return spare
        return self._start()

    def _hand(self, handover: Handover) -> subprocess.Popen[bytes]:
        process = self._take()
        assert process.stdin and process.stdout
        with suppress(BrokenPipeError):
            process.stdin.write(handover.to_line())
            process.stdin.flush()
            process.stdout.readline()
        _let_go(process)
        return process

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "runners.job", self._engine],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            cwd=self._data,
        )


def _let_go(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin and process.stdout
    with suppress(BrokenPipeError):
        process.stdin.close()
    process.stdout.close()
