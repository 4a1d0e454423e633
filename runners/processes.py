"""Job processes that may or may not be our children: which they are, when they end, how to end them.

The spool's lock says whether one lives; a process id alone never does, for ids are used again.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress

from runners.spool import SpoolReader

RING_PAUSE_SECONDS = 0.005


def pid_of(spool: SpoolReader) -> int | None:
    """The process that holds the spool, or held it last."""
    text = (spool.folder / "lock").read_text().strip()
    return int(text) if text.isdigit() else None


def watch_exit(pid: int, on_exit: Callable[[], None]) -> Callable[[], None]:
    """Call `on_exit` once when the process ends. Returns what ends the watch."""
    loop = asyncio.get_running_loop()
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        handle = loop.call_soon(on_exit)
        return handle.cancel

    def leave() -> None:
        nonlocal fd
        if fd >= 0:
            loop.remove_reader(fd)
            os.close(fd)
            fd = -1

    def ended() -> None:
        leave()
        on_exit()

    loop.add_reader(fd, ended)
    return leave


def watch_bell(spool: SpoolReader, on_ring: Callable[[], None]) -> Callable[[], None]:
    """Call `on_ring` when the bell rings: at once, and then at most every few milliseconds, however small
    the pieces are that a flood is written in. Returns what ends the watch."""
    loop = asyncio.get_running_loop()
    fd = spool.bell_fd
    pause: asyncio.TimerHandle | None = None

    def listen() -> None:
        loop.add_reader(fd, ring)

    def ring() -> None:
        nonlocal pause
        loop.remove_reader(fd)
        pause = loop.call_later(RING_PAUSE_SECONDS, listen)
        spool.drain_bell()
        on_ring()

    def leave() -> None:
        loop.remove_reader(fd)
        if pause:
            pause.cancel()

    listen()
    return leave


def kill_job_process(spool: SpoolReader) -> None:
    """SIGKILL to the process and its group, if it lives."""
    pid = pid_of(spool)
    if pid is not None and spool.is_alive():
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
