"""Deaths: the ends of an attempt's containers, from one stream of events.

Only an end told by the daemon frees a namespace or ends a step. When the event stream breaks, the daemon
restarted or went away: what ran then has a hole in its output, and everyone who waits is told so.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future
from threading import Condition, Thread

from runners.engines.base import EngineError
from runners.engines.daemon import Daemon, Events


class EngineRestarted(EngineError):
    """The daemon went away while something ran."""


class Deaths:
    """For one attempt; safe in any thread."""

    def __init__(self, daemon: Daemon, labels: Mapping[str, str]) -> None:
        self._daemon = daemon
        self._labels = labels
        self._lock = Condition()
        self._awaited: dict[str, Future[int]] = {}
        self._out_of_memory: set[str] = set()
        self._is_listening = False
        self._is_over = False
        self._events: Events | None = None

    def expect(self, container: str) -> Future[int]:
        """Its exit code, when it has died. To be called before the container is started."""
        future: Future[int] = Future()
        with self._lock:
            self._awaited[container] = future
            if not self._is_listening:
                self._is_listening = True
                # Events since then are given again: nothing is missed while the stream is being opened.
                since = int(time.time()) - 1
                Thread(target=self._listen, args=(since,), name="engine-events", daemon=True).start()
        return future

    def was_out_of_memory(self, container: str, patience_seconds: float) -> bool:
        """Whether it met its memory limit. The word of that may come a little after the end itself."""
        with self._lock:
            return self._lock.wait_for(lambda: container in self._out_of_memory, patience_seconds)

    def forget(self, container: str) -> None:
        with self._lock:
            self._awaited.pop(container, None)
            self._out_of_memory.discard(container)

    def close(self) -> None:
        with self._lock:
            self._is_over = True
            events = self._events
        if events is not None:
            events.close()

    def _listen(self, since: int) -> None:
        try:
            events = self._daemon.events(self._labels, since)
            with self._lock:
                self._events = events
                is_over = self._is_over
            for event in () if is_over else events:
                self._take(event.container, event.action, event.code)
        except EngineError:
            pass  # told to everyone who waits, below
        with self._lock:
            self._is_listening = False
            broken, self._awaited = self._awaited, {}
        for future in broken.values():
            future.set_exception(EngineRestarted("the engine restarted or went away"))

    def _take(self, container: str, action: str, code: int | None) -> None:
        with self._lock:
            if action == "oom":
                self._out_of_memory.add(container)
                self._lock.notify_all()
            if action != "die" or code is None or container not in self._awaited:
                return
            future = self._awaited.pop(container)
        future.set_result(code)
