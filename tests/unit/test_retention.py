"""What is removed when it is old, what never is, and that no event builds twice for it (law 2)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from ci.errors import Conflict
from ci.server.logs import LogKey, Logs
from ci.server.retention import DAY_SECONDS, Retention
from ci.server.store import inbox
from ci.server.store.tables import ATTEMPT, BUILD, JOB, OUTBOX, REPO, STEP
from tests.unit.world import ADA, ended, job_ended, running
from tests.unit.yard import Yard, yard


@dataclass
class Here:
    yard: Yard
    logs: Logs
    retention: Retention

    async def built(self, branch: str = "main", name: str = "") -> int:
        """A push whose build has passed, with a log; returns the id of its job."""
        self.yard.work.commit_files({"a": name or str(self.yard.core.clock.seconds)}, "change")
        await self.yard.push(branch)
        core = self.yard.core
        runner = await core.runner(f"r{(await self.yard.builds())[-1].id}")
        assigned = await core.started(runner)
        steps = [each.number for each in assigned.spec.steps]
        changes = [change for number in steps for change in (running(number), ended(number))]
        await core.record(runner, assigned.lease, *changes, job_ended())
        await self.logs.append(LogKey(assigned.lease.job, 1, steps[-1]), 0, b"hello\n")
        return assigned.lease.job

    async def keep(self, *, builds: int = 0, logs: int = 0) -> None:
        values = {"keep_builds_days": builds, "keep_logs_days": logs}
        await self.yard.core.store.write(lambda c: c.execute(update(REPO).values(**values)))

    async def numbers(self) -> list[int]:
        return [build.number for build in await self.yard.builds()]

    def later(self, days: float) -> None:
        self.yard.core.clock.seconds += days * DAY_SECONDS


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Here]:
    async with yard(tmp_path) as made:
        logs = Logs(tmp_path / "logs", clock=made.core.clock)
        await logs.start()
        yield Here(made, logs, Retention(made.core.store, made.core.bus, made.core.clock, logs))
        await logs.close()


async def test_old_builds_go_with_their_rows_and_logs_and_their_numbers_stay_taken(here: Here) -> None:
    jobs = [await here.built() for _ in range(3)]
    await here.keep(builds=30)
    here.later(29)
    await here.retention.round()
    assert await here.numbers() == [1, 2, 3]
    here.later(2)
    await here.retention.round()
    assert await here.numbers() == [3]
    assert here.logs.jobs() == jobs[2:]
    for table in (JOB, STEP, ATTEMPT):
        column = table.c.get("job_id", table.c.id)
        rows = await here.yard.core.store.read(
            lambda c, column=column: c.execute(select(column)).scalars().all()
        )
        assert set(rows) == set(jobs[2:]), table.name
    await here.built()
    assert await here.numbers() == [3, 4]


async def test_the_newest_build_of_each_branch_stays(here: Here) -> None:
    for branch in ("main", "main", "topic", "topic", "main"):
        await here.built(branch)
    await here.keep(builds=1)
    here.later(400)
    await here.retention.round()
    assert await here.numbers() == [4, 5]


async def test_builds_that_have_not_ended_or_ask_a_person_stay(here: Here) -> None:
    for status in ("running", "blocked", "unknown", "pending"):
        await here.built()
        number = (await here.numbers())[-1]
        await here.yard.core.store.write(
            lambda c, number=number, status=status: c.execute(  # type: ignore[misc]
                update(BUILD).where(BUILD.c.number == number).values(status=status)
            )
        )
    await here.built()
    await here.keep(builds=1, logs=1)
    here.later(400)
    await here.retention.round()
    assert await here.numbers() == [1, 2, 3, 4, 5]


async def test_a_build_whose_job_a_rerun_keeps_stays_as_long_as_the_rerun(here: Here) -> None:
    first = await here.built()
    await here.built()
    store = here.yard.core.store
    await store.write(lambda c: c.execute(update(JOB).where(JOB.c.id != first).values(kept_from=first)))
    await here.keep(builds=1)
    here.later(10)
    await here.retention.round()
    assert await here.numbers() == [1, 2]
    await here.built()
    here.later(10)
    await here.retention.round()
    assert await here.numbers() == [3]


async def test_a_rerun_of_a_removed_build_stays_by_itself(here: Here) -> None:
    for _ in range(2):
        await here.built()
    await here.yard.core.store.write(
        lambda c: c.execute(update(BUILD).where(BUILD.c.number == 2).values(rerun_of=1))
    )
    await here.keep(builds=1)
    here.later(10)
    await here.retention.round()
    assert [(build.number, build.rerun_of) for build in await here.yard.builds()] == [(2, None)]


async def test_the_delivery_of_a_removed_build_never_builds_again(here: Here) -> None:
    await here.built()
    await here.built()
    await here.keep(builds=1)
    here.later(10)
    await here.retention.round()
    row = (await here.yard.rows())[0]
    assert (row.state, row.verdict) == (inbox.KEPT, "refs/heads/main: built #1")
    assert await here.yard.core.store.read(lambda c: inbox.made_a_build(c, row.id or 0))
    with pytest.raises(Conflict, match="was removed when it was old; no event builds twice"):
        await here.yard.inbox.replay(row.id or 0, here.yard.repo, ADA)


async def test_old_logs_go_and_their_builds_stay(here: Here) -> None:
    old = await here.built()
    here.later(20)
    new = await here.built()
    await here.keep(logs=30)
    here.later(15)
    await here.retention.round()
    assert here.logs.jobs() == [new]
    assert await here.numbers() == [1, 2]
    assert not here.logs.has_files(LogKey(old, 1, 1))


async def test_for_ever_is_for_ever(here: Here) -> None:
    jobs = [await here.built() for _ in range(2)]
    here.later(5000)
    await here.retention.round()
    assert await here.numbers() == [1, 2] and here.logs.jobs() == jobs


async def test_more_builds_than_one_transaction_removes(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ci.server.retention.BATCH", 2)
    for _ in range(6):
        await here.built()
    await here.keep(builds=1)
    here.later(10)
    assert await here.retention.remove_old_builds(await here.yard.reload()) == 5
    count = select(func.count()).select_from(OUTBOX)
    assert await here.yard.core.store.read(lambda c: c.execute(count).scalar_one()) == 0
