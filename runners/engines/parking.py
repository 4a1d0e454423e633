"""Parking: the network namespaces of one attempt, each held by a parked container.

Theory of operation. A namespace is made when nobody is done with one; making it costs more than all the
rest of a small step. It is never in two running containers: `take` gives it out, `give_back` has its
holder clean it, in a thread, and only then it is free again. What is not clean is thrown away. A step
that is created ahead names the namespace it was created in; it gets that one if it is free by then.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from socket import socket
from threading import Condition, Lock, Thread

from runners.engines import park
from runners.engines.base import EngineError

_CLEAN_SECONDS = 5.0


@dataclass(eq=False)
class Namespace:
    """`container` holds it and answers on `connection`, line by line."""

    container: str
    connection: socket
    answers: Callable[[], bytes | None] = field(repr=False)
    is_reserved: bool = False
    is_single: bool = False  #: has a name on the network: for one container, never handed on
    _lock: Lock = field(default_factory=Lock, repr=False)

    def clean(self) -> bool:
        """Whether it may be handed on. Blocks for some milliseconds."""
        answer = self._ask(park.CLEAN)
        return answer is not None and park.sockets_left(answer) == 0

    def why_closed(self, port: int) -> str:
        """Why nothing in it takes TCP connections from outside at `port`, as a clause; empty: it does."""
        answer = self._ask(park.LISTENING)
        return park.why_closed(answer, port) if answer is not None else "its network is gone"

    def _ask(self, order: bytes) -> bytes | None:
        try:
            with self._lock:
                self.connection.settimeout(_CLEAN_SECONDS)
                self.connection.sendall(order)
                return self.answers()
        except OSError:
            return None


class Parking:
    """`make` makes a namespace whose holder has these aliases; `drop` removes a holder, later."""

    def __init__(self, make: Callable[[Sequence[str]], Namespace], drop: Callable[[str], None]) -> None:
        self._make = make
        self._drop = drop
        self._changed = Condition()
        self._free: list[Namespace] = []
        self._busy: list[Namespace] = []
        self._cleaning: list[Namespace] = []
        self._coming = 0  # being made ahead
        self._waiting: list[object] = []  # who waits, the first to come first
        self._failure: EngineError | None = None

    def make_ahead(self) -> None:
        """Begin to make one that nobody has asked for yet."""
        self._coming += 1
        Thread(target=self._make_free, name="engine-park", daemon=True).start()

    def first(self) -> Namespace:
        """One that may be used beside its holder's back, for the workspace; it stays where it is."""
        with self._changed:
            self._changed.wait_for(lambda: self._free or self._busy or not self._coming)
            self._raise_failure()
            found = (*self._free, *self._busy)
            if not found:
                raise EngineError("the attempt has no parked container left")
            return found[0]

    def take(self, aliases: Sequence[str] = (), wanted: Namespace | None = None) -> Namespace:
        """Blocks until a namespace is there that no running container is in."""
        if aliases:
            return self._take_new(aliases)
        turn = object()
        with self._changed:
            self._waiting.append(turn)
            try:
                self._changed.wait_for(lambda: self._is_settled(turn, wanted))
            finally:
                self._waiting.remove(turn)
            self._raise_failure()
            found = wanted if wanted in self._free else self._pick_free()
            if wanted is not None:
                wanted.is_reserved = False
            if found is not None:
                found.is_reserved = False
                self._free.remove(found)
                self._busy.append(found)
                return found
        return self._take_new(())

    def reserve(self) -> Namespace | None:
        """One in which the next container may be created: free, or busy and soon free. None: no idea."""
        with self._changed:
            candidates = (*self._free, *self._cleaning, *self._busy)
            found = next((one for one in candidates if not one.is_reserved and not one.is_single), None)
            if found is not None:
                found.is_reserved = True
            return found

    def release(self, namespace: Namespace) -> None:
        """Whoever reserved it does not need it."""
        with self._changed:
            namespace.is_reserved = False

    def give_back(self, namespace: Namespace) -> None:
        """Its container has died. The holder cleans it in a thread; returns at once."""
        with self._changed:
            if namespace not in self._busy:
                return
            self._busy.remove(namespace)
            if not namespace.is_single:
                self._cleaning.append(namespace)
        if namespace.is_single:
            return self.throw_away(namespace)
        Thread(target=self._clean, args=(namespace,), name="engine-clean", daemon=True).start()

    def throw_away(self, namespace: Namespace) -> None:
        with self._changed:
            for held in (self._free, self._busy, self._cleaning):
                if namespace in held:
                    held.remove(namespace)
            self._changed.notify_all()
        _close(namespace)
        self._drop(namespace.container)

    def close(self) -> None:
        """The attempt ends: nobody is cleaned or waited for any more."""
        with self._changed:
            self._failure = EngineError("the attempt was destroyed")
            held = (*self._free, *self._busy, *self._cleaning)
            self._changed.notify_all()
        for namespace in held:
            _close(namespace)

    def _take_new(self, aliases: Sequence[str]) -> Namespace:
        namespace = self._make(aliases)
        namespace.is_single = bool(aliases)
        with self._changed:
            self._busy.append(namespace)
            is_late = self._failure is not None
        if is_late:
            self.throw_away(namespace)
            self._raise_failure()
        return namespace

    def _is_settled(self, turn: object, wanted: Namespace | None) -> bool:
        """Nothing better comes by waiting. Called under the lock."""
        if self._failure is not None:
            return True
        if wanted is not None and wanted in self._cleaning:
            return False
        coming = len(self._cleaning) + self._coming
        return bool(self._free) or coming <= self._waiting.index(turn)

    def _pick_free(self) -> Namespace | None:
        return min(self._free, key=lambda one: one.is_reserved, default=None)

    def _clean(self, namespace: Namespace) -> None:
        is_clean = namespace.clean()
        if not is_clean:
            return self.throw_away(namespace)
        with self._changed:
            if namespace in self._cleaning:
                self._cleaning.remove(namespace)
                self._free.append(namespace)
            self._changed.notify_all()

    def _make_free(self) -> None:
        made, failure = None, None
        try:
            made = self._make(())
        except EngineError as error:
            failure = error
        with self._changed:
            self._coming -= 1
            is_late = self._failure is not None
            self._failure = self._failure or failure
            if made is not None and not is_late:
                self._free.append(made)
            self._changed.notify_all()
        if made is not None and is_late:
            self.throw_away(made)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise EngineError(str(self._failure))


def _close(namespace: Namespace) -> None:
    with contextlib.suppress(OSError):
        namespace.connection.close()
