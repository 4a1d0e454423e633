"""Keeper: the attempts that this runner has, from the offer to the deleted spool.

Theory of operation. Each attempt is in one Phase (attempt.py). `look` reads what the spool says and is
called after every bell, answer, exit and second: it sends new journal lines, and finds out that a job
ended or that its process died. Two ends are tasks of their own: a loss (destroy, let the last bytes
arrive, tell), and a doom (the server calls the attempt dead: kill, destroy, drop).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from ci.protocol import (
    Assign,
    RunnerMessage,
)
from runners.attempt import Attempt
from runners.handover import Handover
from runners.machine import Machine
from runners.spawner import Spawner

KILL_PATIENCE_SECONDS = 20.0
#: The last output of a dead job gets so long to arrive before its loss is told.
LAST_BYTES_SECONDS = 10.0
TELL_AGAIN_SECONDS = 15.0
_LOSS_LOOK_SECONDS = 0.1


class Keeper:
    """For the supervisor's event loop. `on_change` is called whenever there may be bytes to ship or a
    place was freed or taken."""

    def __init__(
        self,
        root: Path,
        machine: Machine,
        spawner: Spawner,
        make_handover: Callable[[Assign, Path], Handover],
        send: Callable[[RunnerMessage], None],
        on_change: Callable[[], None],
    ) -> None:
        self._root = root
        self._machine = machine
        self._spawner = spawner
        self._make_handover = make_handover
        self._send = send
        self._on_change = on_change
        self.attempts: dict[tuple[int, int], Attempt] = {}
        self._tasks: set[asyncio.Task[None]] = set()
