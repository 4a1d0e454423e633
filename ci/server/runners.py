"""What a person does with runners: a code for a new one, pause, drain, resume, remove.

A paused runner is given no jobs until somebody says so; a draining one is told to finish what it runs, for
its machine goes away. Removing one makes its credential worthless at once and loses what it runs, by the
rules of every lost lease.
"""

from __future__ import annotations

from collections.abc import Callable

from ci.errors import NotFound
from ci.server.auth import Actor
from ci.server.bus import Bus, job_topics
from ci.server.clock import Clock
from ci.server.models import Job, Runner
from ci.server.store import attempts, audit, codes, jobs, runners
from ci.server.store.audit import Deed
from ci.server.store.database import Connection, Store


class Runners:
    def __init__(self, store: Store, bus: Bus, clock: Clock) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock

    async def new_code(self, actor: Actor) -> str:
        """One runner can register with it within an hour."""
        now = self._clock.now()

        def make(connection: Connection) -> str:
            audit.note(connection, actor, Deed(action="runner.code", details="good for one hour"), now)
            return codes.new_code(connection, codes.RUNNER, now)

        return await self._store.write(make)

    async def pause(self, runner_id: int, actor: Actor) -> None:
        await self._change(runner_id, actor, "pause", lambda c: runners.pause(c, runner_id))

    async def drain(self, runner_id: int, actor: Actor) -> None:
        await self._change(runner_id, actor, "drain", lambda c: runners.drain(c, runner_id, is_draining=True))

    async def resume(self, runner_id: int, actor: Actor) -> None:
        await self._change(runner_id, actor, "resume", lambda c: runners.resume(c, runner_id))

    async def _change(
        self, runner_id: int, actor: Actor, word: str, change: Callable[[Connection], bool]
    ) -> None:
        def apply(connection: Connection) -> None:
            runner = _find(connection, runner_id)
            change(connection)
            deed = Deed(action=f"runner.{word}", object=runner.name)
            audit.note(connection, actor, deed, self._clock.now())

        await self._store.write(apply)
        self._bus.publish("runners", "queue", f"runner:{runner_id}")

    async def remove(self, runner_id: int, actor: Actor) -> None:
        """Its credential is dead when this returns. Raises NotFound."""

        def forget(connection: Connection) -> list[Job]:
            now = self._clock.now()
            runner = _find(connection, runner_id)
            lost = jobs.leased_to(connection, runner_id)
            for job in lost:
                attempts.lose(connection, job, f"runner {runner.name} was removed", now)
            runners.remove(connection, runner_id)
            words = f"it ran {len(lost)} job{'' if len(lost) == 1 else 's'}" if lost else ""
            audit.note(
                connection, actor, Deed(action="runner.remove", object=runner.name, details=words), now
            )
            return lost

        lost = await self._store.write(forget)
        for job in lost:
            self._bus.publish(*job_topics(job.id, job.build_id))
        self._bus.publish("runners", "queue", f"runner:{runner_id}")


def _find(connection: Connection, runner_id: int) -> Runner:
    found = runners.find(connection, runner_id)
    if found is None:
        raise NotFound("there is no such runner")
    return found
