"""The bus says "look again", and carries no data: the database is the truth (law 1).

Subscribe before the first look, look again at least every 15 s (`LOOK_AGAIN_SECONDS`) whatever rang.
Topics: "builds" "build:ID" "job:ID" "queue" "runners" "runner:ID" "inbox" "deliveries"
"repo:ID" "log:JOB/ATTEMPT/STEP".
Everything here belongs to one event loop; publish from its thread.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

LOOK_AGAIN_SECONDS = 15.0


class Subscription:
    """One listener. What rings between two waits is remembered, so nothing is missed."""

    def __init__(self, bus: Bus, topics: tuple[str, ...]) -> None:
        self._bus = bus
        self._topics = topics
        self._rung: set[str] = set()
        self._event = asyncio.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def wait(self, timeout_seconds: float | None = LOOK_AGAIN_SECONDS) -> frozenset[str]:
        """The topics that rang since the last wait; empty when the time is over."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._event.wait()
        except TimeoutError:
            return frozenset()
        self._event.clear()
        rung, self._rung = frozenset(self._rung), set()
        return rung

    def close(self) -> None:
        self._bus.remove(self, self._topics)

    def ring(self, topic: str) -> None:
        self._rung.add(topic)
        self._event.set()


class Bus:
    def __init__(self) -> None:
        self._listeners: dict[str, set[Subscription]] = {}

    def subscribe(self, *topics: str) -> Subscription:
        subscription = Subscription(self, topics)
        for topic in topics:
            self._listeners.setdefault(topic, set()).add(subscription)
        return subscription

    def publish(self, *topics: str) -> None:
        """Ring. Call it only after the commit of what changed."""
        for topic in topics:
            for subscription in self._listeners.get(topic, ()):
                subscription.ring(topic)

    def remove(self, subscription: Subscription, topics: tuple[str, ...]) -> None:
        for topic in topics:
            listeners = self._listeners.get(topic, set())
            listeners.discard(subscription)
            if not listeners:
                self._listeners.pop(topic, None)


def job_topics(job_id: int | None, build_id: int) -> tuple[str, str, str]:
    """What rings when a job or one of its steps has changed."""
    return f"job:{job_id}", f"build:{build_id}", "builds"
