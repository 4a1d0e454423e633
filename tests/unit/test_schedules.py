"""Schedules: one build a run, whoever is killed or looks at the same moment, and what was missed is said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ci.errors import Conflict, Invalid, NotFound
from ci.server.models import Schedule
from ci.server.schedules import LATE_SECONDS, Schedules, shown
from ci.server.store import schedules
from ci.server.store.database import Store
from ci.server.store.schedules import Last, Plan
from tests.unit.world import ADA
from tests.unit.yard import Yard, yard

HOURLY = Plan(name="hourly", cron="0 * * * *", time_zone="UTC", branch="")
HOUR = 3600.0


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Yard]:
    async with yard(tmp_path) as made:
        made.core.clock.seconds = 277 * HOUR + 60  # a minute past
        await made.push()
        yield made


async def row_of(here: Yard) -> Schedule:
    (row,) = await here.core.store.read(lambda c: schedules.of_repo(c, here.repo.id or 0))
    return row


async def run_due(here: Yard) -> int:
    made = await here.schedules.tick()
    await here.inbox.process_waiting()
    return made


async def test_a_run_makes_one_build_of_the_default_branch_and_says_so(here: Yard) -> None:
    await here.schedules.add(here.repo, HOURLY, ADA)
    assert (await row_of(here)).next_at == 278 * HOUR
    assert await run_due(here) == 0
    here.core.clock.seconds = 278 * HOUR
    assert await run_due(here) == 1
    assert await run_due(here) == 0
    row, build = await row_of(here), (await here.builds())[-1]
    assert (row.last_at, row.next_at, row.last_verdict) == (278 * HOUR, 279 * HOUR, "built #2")
    assert (build.event["kind"], build.event["branch"], build.event["sender"]) == (
        "cron",
        "main",
        "schedule hourly",
    )
    assert build.inbox_id == (await here.rows())[-1].id


async def test_two_servers_that_look_at_once_make_one_event(here: Yard) -> None:
    await here.schedules.add(here.repo, HOURLY, ADA)
    here.core.clock.seconds = 278 * HOUR
    other = Store(here.core.store.path)
    await other.open()
    twins = [Schedules(store, here.core.bus, here.core.clock) for store in (here.core.store, other) * 5]
    assert sum(await asyncio.gather(*(each.tick() for each in twins))) == 1
    await other.close()


async def test_a_run_that_somebody_else_has_claimed_or_changed_is_not_claimed_again(here: Yard) -> None:
    await here.schedules.add(here.repo, HOURLY, ADA)
    seen, last = await row_of(here), Last(at=278 * HOUR, verdict="")
    write = here.core.store.write
    assert await write(lambda c: schedules.claim(c, seen, 279 * HOUR, last))
    assert not await write(lambda c: schedules.claim(c, seen, 279 * HOUR, last))
    seen = await row_of(here)
    await here.schedules.change(here.repo, seen.id or 0, Plan(**{**vars(HOURLY), "is_enabled": False}), ADA)
    assert not await write(lambda c: schedules.claim(c, seen, 280 * HOUR, last))


async def test_a_run_that_was_claimed_and_not_processed_is_found_after_a_crash(here: Yard) -> None:
    await here.schedules.add(here.repo, HOURLY, ADA)
    here.core.clock.seconds = 278 * HOUR
    await here.schedules.tick()  # and the server is gone
    for _ in range(2):
        await here.inbox.process_waiting()
    assert [build.event["kind"] for build in await here.builds()] == ["push", "cron"]


async def test_a_waiting_run_does_not_disturb_the_comparison_of_refs(here: Yard) -> None:
    await here.schedules.add(here.repo, HOURLY, ADA)
    here.core.clock.seconds = 278 * HOUR
    await here.schedules.tick()
    await here.pushes.compare_refs(here.repo)


async def test_a_run_that_is_a_little_late_still_runs(here: Yard) -> None:
    await here.schedules.add(here.repo, HOURLY, ADA)
    here.core.clock.seconds = 278 * HOUR + LATE_SECONDS
    assert await run_due(here) == 1
    assert (await row_of(here)).last_verdict == "built #2"


async def test_missed_runs_are_counted_and_none_is_made_up(here: Yard) -> None:
    await here.schedules.add(here.repo, HOURLY, ADA)
    here.core.clock.seconds = 280 * HOUR + LATE_SECONDS + 1
    assert await run_due(here) == 0
    row = await row_of(here)
    assert row.last_verdict == "missed 3 runs while the server was down; none is made up"
    assert (row.last_at, row.next_at) == (280 * HOUR, 281 * HOUR)
    assert len(await here.builds()) == 1


async def test_the_run_that_is_only_late_runs_and_those_before_it_are_missed(here: Yard) -> None:
    await here.schedules.add(here.repo, HOURLY, ADA)
    here.core.clock.seconds = 279 * HOUR + 5
    assert await run_due(here) == 1
    row = await row_of(here)
    assert row.last_verdict == "built #2; missed 1 run while the server was down; none is made up"
    assert row.last_at == 279 * HOUR


async def test_a_schedule_of_a_branch_that_is_gone_says_so(here: Yard) -> None:
    await here.schedules.add(here.repo, Plan(**{**vars(HOURLY), "branch": "old"}), ADA)
    here.core.clock.seconds = 278 * HOUR
    await run_due(here)
    assert (await row_of(here)).last_verdict == "no build: there is no branch 'old' in ada/site"
    assert (await here.rows())[-1].verdict == "no build: there is no branch 'old' in ada/site"


async def test_one_that_is_off_does_not_run_and_goes_on_from_now_when_it_is_on_again(here: Yard) -> None:
    number = await here.schedules.add(here.repo, HOURLY, ADA)
    await here.schedules.change(here.repo, number, Plan(**{**vars(HOURLY), "is_enabled": False}), ADA)
    here.core.clock.seconds = 290 * HOUR
    assert await run_due(here) == 0
    await here.schedules.change(here.repo, number, HOURLY, ADA)
    assert (await row_of(here)).next_at == 291 * HOUR
    assert await run_due(here) == 0


async def test_run_now_is_a_run_beside_the_planned_ones(here: Yard) -> None:
    number = await here.schedules.add(here.repo, HOURLY, ADA)
    await here.schedules.run_now(here.repo, number, ADA)
    await here.inbox.process_waiting()
    row = await row_of(here)
    assert (row.last_at, row.next_at, row.last_verdict) == (277 * HOUR + 60, 278 * HOUR, "built #2")
    assert (await here.builds())[-1].event["sender"] == "ada"


async def test_names_are_taken_once_and_what_is_wrong_is_said(here: Yard) -> None:
    number = await here.schedules.add(here.repo, HOURLY, ADA)
    with pytest.raises(Conflict, match="a schedule 'hourly' already"):
        await here.schedules.add(here.repo, HOURLY, ADA)
    other = await here.schedules.add(here.repo, Plan(**{**vars(HOURLY), "name": "other"}), ADA)
    with pytest.raises(Conflict, match="a schedule 'hourly' already"):
        await here.schedules.change(here.repo, other, HOURLY, ADA)
    with pytest.raises(Invalid, match="no name of a schedule"):
        await here.schedules.add(here.repo, Plan(**{**vars(HOURLY), "name": "<b>"}), ADA)
    await here.schedules.remove(here.repo, number, ADA)
    with pytest.raises(NotFound):
        await here.schedules.find(here.repo, number)
    actions = [action for _, action, _ in await here.deeds()]
    assert actions == ["schedule.add", "schedule.add", "schedule.remove"]


async def test_a_reader_gets_the_next_run_in_its_zone(here: Yard) -> None:
    await here.schedules.add(
        here.repo, Plan(name="n", cron="30 2 * * *", time_zone="Asia/Tokyo", branch=""), ADA
    )
    found = shown(await row_of(here))
    assert found.next_words.endswith("02:30 JST")
    assert found.meaning == "At 02:30 every day"
