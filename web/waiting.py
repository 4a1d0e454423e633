"""`git push -o ci.wait`: the logs of the builds of a push, as text for the pusher's terminal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial

from ci import plain
from ci.protocol import Stream
from ci.server.bus import Bus
from ci.server.logs import LogKey, Logs
from ci.server.models import Step
from ci.server.store import builds, jobs, repos
from ci.server.store.database import Connection, Store
from ci.status import Status

LOOK_AGAIN_SECONDS = 15.0
_NEEDS_A_PERSON = frozenset({Status.UNKNOWN, Status.BLOCKED})  #: that may take days


@dataclass(frozen=True, kw_only=True)
class _Progress:
    """A build as it is now; `begun` holds its steps that have a log, in the order in which they began."""

    status: Status
    reason: str
    number: int
    path: str
    begun: tuple[tuple[str, Step], ...]


class Waiting:
    """Follows builds. Reads only; ends with its reader."""

    def __init__(self, store: Store, bus: Bus, logs: Logs, url: str) -> None:
        self._store = store
        self._bus = bus
        self._logs = logs
        self._url = url

    async def follow(self, build_ids: Sequence[int]) -> AsyncIterator[bytes]:
        """The masked logs, build by build and step by step; the last line of each build is its verdict."""
        for build_id in build_ids:
            async for line in self._build(build_id):
                yield line

    async def _build(self, build_id: int) -> AsyncIterator[bytes]:
        told: set[LogKey] = set()
        with self._bus.subscribe(f"build:{build_id}") as subscription:
            while True:
                progress = await self._store.read(partial(_progress, build_id))
                fresh = next((row for row in progress.begun if _key(row[1]) not in told), None)
                if fresh is not None:
                    told.add(_key(fresh[1]))
                    async for line in self._step(*fresh):
                        yield line
                elif progress.status.is_terminal or progress.status in _NEEDS_A_PERSON:
                    break
                else:
                    await subscription.wait(LOOK_AGAIN_SECONDS)
        for text in progress.reason.splitlines():
            yield b"shipway: " + plain.line(text.encode()) + b"\n"
        verdict = f"shipway: build {progress.number} {progress.status} {self._url}{progress.path}"
        yield f"{verdict}\n".encode()

    async def _step(self, title: str, step: Step) -> AsyncIterator[bytes]:
        yield plain.line(f"--- {title}".encode()) + b"\n"
        lines = plain.Lines()
        async for chunk in self._chunks(step):
            for line in lines.feed(chunk):
                yield line
        for line in lines.finish():
            yield line

    async def _chunks(self, step: Step) -> AsyncIterator[bytes]:
        """The log to its end. That of a lost attempt is never closed: it ends where nothing more can come."""
        following = self._logs.follow(_key(step), 0)
        coming = asyncio.ensure_future(anext(following, None))
        try:
            while True:
                is_over = await self._store.read(partial(_is_over, step))
                await asyncio.wait({coming}, timeout=1.0 if is_over else LOOK_AGAIN_SECONDS)
                if coming.done():
                    found = coming.result()
                    if found is None:
                        return
                    yield found[1]
                    coming = asyncio.ensure_future(anext(following, None))
                elif is_over:
                    return
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)


def _progress(build_id: int, connection: Connection) -> _Progress:
    build = builds.by_id(connection, build_id)
    assert build is not None
    repo = repos.by_id(connection, build.repo_id)
    assert repo is not None
    begun = []
    for job in jobs.of_build(connection, build_id):
        assert job.id is not None
        for attempt in range(1, job.attempt + 1):
            steps = [s for s in jobs.steps_of(connection, job.id, attempt) if s.began_after is not None]
            steps.sort(key=lambda step: (step.began_after, step.number))
            begun += [(f"{job.name} / {step.name}", step) for step in steps if step.kind != "service"]
    return _Progress(
        status=Status(build.status),
        reason=build.reason,
        number=build.number,
        path=f"/r/{repo.owner}/{repo.name}/{build.number}",
        begun=tuple(begun),
    )


def _is_over(step: Step, connection: Connection) -> bool:
    attempt = jobs.attempt_row(connection, step.job_id, step.attempt)
    return attempt is not None and attempt.is_over


def _key(step: Step) -> LogKey:
    return LogKey(job=step.job_id, attempt=step.attempt, step=step.number, stream=Stream.BYTES)
