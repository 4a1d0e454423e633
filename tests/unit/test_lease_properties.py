"""Whatever order runners, sockets and silences come in: no job runs under two live leases, what has ended
stays ended, and a step with side effects is granted at most once unless a person says so."""

from __future__ import annotations

import asyncio
import random
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ci.protocol import Begin, Granted, Held, Lease, Lost, Record, Recorded, StepAsks, Welcome
from ci.status import Status
from tests.unit.world import ADA, Core, core, ended, hello, job_ended, running, spec

MOVES = (
    "begin",
    "begin",
    "take",
    "accept",
    "hello",
    "forget",
    "step",
    "ask",
    "end",
    "lost",
    "beat",
    "age",
    "cancel",
    "old",
)


class Players:
    """Two runners that remember every lease they ever saw, and say whatever they like about them."""

    def __init__(self, world: Core, runners: list[int], seed: int) -> None:
        self.world = world
        self.runners = runners
        self.random = random.Random(seed)
        self.seen: dict[int, list[Lease]] = {runner: [] for runner in runners}
        self.begun: dict[tuple[int, int], int] = {}  #: (job, attempt) -> runner that may run it
        self.granted: dict[int, set[int]] = {}  #: job -> attempts whose side effects were granted
        self.ended: dict[int, str] = {}

    async def move(self, name: str) -> None:
        runner = self.random.choice(self.runners)
        leases = self.seen[runner]
        if name == "take":
            leases += [each.lease for each in await self.world.queue.take(runner, 1)]
        elif name == "begin":
            for each in await self.world.queue.take(runner, 1):
                leases.append(each.lease)
                await self._accept(runner, each.lease)
        elif name == "age":
            await self.world.age(self.random.choice((1, 13)))
        elif name == "cancel":
            if self.random.random() < 0.2:
                await self._cancel()
        elif name in ("hello", "forget"):
            await self._hello(runner, remembers=name == "hello")
        elif leases:
            is_old = name == "old" or self.random.random() < 0.2
            lease = self.random.choice(leases) if is_old else leases[-1]
            await self._say(name, runner, lease)

    async def _cancel(self) -> None:
        row = await self.world.build_row(1)
        if not Status(row.status).is_terminal:
            await self.world.lifecycle.cancel(1, ADA)

    async def _hello(self, runner: int, *, remembers: bool) -> None:
        newest = {lease.key: lease for lease in self.seen[runner]} if remembers else {}
        held = [Held(lease=lease, is_alive=True) for lease in newest.values()]
        welcome: Welcome = await self.world.lifecycle.hello(runner, hello(*held))
        self.seen[runner] += welcome.leases

    async def _say(self, name: str, runner: int, lease: Lease) -> None:
        if name in ("accept", "old"):
            await self._accept(runner, lease)
        elif name == "beat":
            self.world.queue.heartbeat(runner, (lease,))
        elif name == "lost":
            await self.world.lifecycle.lost(runner, Lost(lease=lease, reason="killed"))
        else:
            change = {
                "step": self.random.choice((running(1), ended(1), running(2))),
                "ask": StepAsks(step=2, after_seconds=1.0),
                "end": job_ended(self.random.choice((Status.SUCCESS, Status.FAILURE))),
            }[name]
            await self._record(runner, lease, change)

    async def _accept(self, runner: int, lease: Lease) -> None:
        begin = await self.world.queue.accept(runner, lease)
        if isinstance(begin, Begin):
            assert self.begun.setdefault(lease.key, runner) == runner, "one execution on two runners"
            job = await self.world.job(lease.job)
            assert (job.attempt, job.epoch) == (lease.attempt, lease.epoch)

    async def _record(self, runner: int, lease: Lease, change: object) -> None:
        job = await self.world.job(lease.job)
        from_here = await self.world.store.read(lambda c: _recorded(c, lease))
        record = Record(lease=lease, seq=from_here + 1, change=change)
        answers = await self.world.lifecycle.apply(runner, record)
        for answer in answers:
            if isinstance(answer, Granted | Recorded):
                assert (job.runner_id, job.epoch, job.attempt) == (runner, lease.epoch, lease.attempt)
            if isinstance(answer, Granted):
                self.granted.setdefault(lease.job, set()).add(lease.attempt)

    async def check(self) -> None:
        for job in await self.world.jobs_of(1):
            assert job.id is not None
            status = Status(job.status)
            before = self.ended.get(job.id)
            assert before in (None, job.status), "a terminal status moved"
            if status.is_terminal:
                self.ended[job.id] = job.status
            assert job.is_accepted <= (job.runner_id is not None)
            assert (status is Status.RUNNING) == job.is_accepted
            assert len(self.granted.get(job.id, set())) <= 1, "side effects granted in two attempts"
            if self.granted.get(job.id):
                assert status not in (Status.PENDING, Status.WAITING), "granted, and queued again"
            assert job.lost_attempts < 3
        build = await self.world.build_row(1)
        if all(Status(job.status).is_terminal for job in await self.world.jobs_of(1)):
            assert Status(build.status).is_terminal and build.finished_at is not None


def _recorded(connection, lease: Lease) -> int:  # type: ignore[no-untyped-def]
    from ci.server.store import jobs

    row = jobs.attempt_row(connection, lease.job, lease.attempt)
    return row.recorded_seq if row else -1


async def _play(moves: list[str], seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with core(Path(folder)) as world:
            await world.build(spec("one", deploy=True), spec("two"))
            players = Players(world, [await world.runner("a"), await world.runner("b")], seed)
            for move in moves:
                await players.move(move)
                await players.check()


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from(MOVES), min_size=10, max_size=60), st.integers(0, 1 << 20))
def test_leases_attempts_and_epochs_hold_in_any_order(moves: list[str], seed: int) -> None:
    asyncio.run(_play(moves, seed))
