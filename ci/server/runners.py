"""What a person does with runners: a code for a new one, pause, drain, resume, remove.

A paused runner is given no jobs until somebody says so; a draining one is told to finish what it runs, for
its machine goes away. Removing one makes its credential worthless at once and loses what it runs, by the
rules of every lost lease. How one stands is said here once, for the pages, the API and the command line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ci.errors import NotFound
from ci.server.auth import Actor
from ci.server.bus import Bus, job_topics
from ci.server.clock import Clock
from ci.server.models import Job, Runner
from ci.server.store import attempts, audit, codes, jobs, runners
from ci.server.store.audit import Deed
from ci.server.store.database import Connection, Store
from ci.server.store.views import RunnerRow
from ci.status import Status


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a runner stands: in a word, as a sentence (empty where the word says it all), as a status that has
    its colour."""

    word: str
    says: str = ""
    status: Status = Status.SUCCESS


def standing(row: RunnerRow) -> Standing:
    runner, jobs_left = row.runner, f"{row.load} job{'' if row.load == 1 else 's'}"
    if not runner.is_connected:
        return Standing(word="offline", says=_offline(row, jobs_left), status=Status.ERROR)
    if runner.is_draining and not row.load:
        says = "nothing is left on it and it takes no new job: it may be stopped now"
        return Standing(word="drained", says=says)
    if runner.is_draining:
        says = f"it finishes {jobs_left} and takes no new one; it may be stopped when that is done"
        return Standing(word="draining", says=says, status=Status.RUNNING)
    if runner.is_paused:
        finishes = f"finishes {jobs_left} and " if row.load else ""
        says = f"it {finishes}takes no new job until it is resumed"
        return Standing(word="paused", says=says, status=Status.WAITING)
    if not runner.capacity:
        says = f"it takes no job, for its engine does not answer: {runner.engine or 'it says no more'}"
        return Standing(word="no engine", says=says, status=Status.ERROR)
    if row.load:
        return Standing(word="working", status=Status.RUNNING)
    return Standing(word="idle")


def _offline(row: RunnerRow, jobs_left: str) -> str:
    if row.load:
        return f"{jobs_left} of it go on there; they are taken from it 60 s after its last word"
    if row.runner.is_draining:
        return "it was drained: its machine may go away, and it may be removed here"
    return "start it on its machine, or remove it here if it does not come again"


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
