"""What the pages read from the tables, and lines from stored logs."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ci.server.auth import ANONYMOUS, Actor
from ci.server.logs import LogKey
from ci.server.store import repos, views
from tests.scene import Done, Scene, fill
from web.log_text import LogText

ADMIN = Actor(user_id=1, name="ada", is_admin=True)
EVE = Actor(user_id=2, name="eve")


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    scene = Scene(tmp_path)
    await scene.open()
    yield scene
    await scene.close()


async def test_lists_show_what_an_actor_may_read_and_nothing_else(scene: Scene) -> None:
    for owner, name, is_private in (("ada", "secret", True), ("ada", "open", False), ("eve", "own", True)):
        repo = await scene.repo(owner, name, is_private=is_private)
        await scene.build(repo, [("ci", [Done(name="test")])])

    async def seen(actor: Actor) -> set[str]:
        rows = await scene.store.read(lambda c: views.builds(c, actor))
        listed = await scene.store.read(lambda c: views.repos(c, actor))
        assert {row.repo.name for row in rows} == {row.repo.name for row in listed}
        return {row.repo.name for row in rows}

    assert await seen(ADMIN) == {"secret", "open", "own"}
    assert await seen(EVE) == {"open", "own"}
    assert await seen(ANONYMOUS) == {"open"}


async def test_a_row_counts_steps_and_knows_what_runs_and_what_failed(scene: Scene) -> None:
    ids = await fill(scene)
    rows = await scene.store.read(lambda c: views.builds(c, ADMIN))
    by_id = {row.build.id: row for row in rows}
    running, failed = by_id[ids["running"]], by_id[ids["failed"]]
    assert (running.steps_done, running.steps_total) == (3, 5)
    assert running.newest is not None and running.newest[1].name == "test"
    assert failed.failed is not None and failed.failed.name == "test"
    assert failed.segments == (("success", 1), ("success", 1), ("success", 1), ("failure", 1), ("skipped", 1))


async def test_many_steps_fold_into_segments(scene: Scene) -> None:
    repo = await scene.repo("ada", "app")
    steps = [Done(name=f"s{number}") for number in range(20)] + [Done(name="bad", status="failure")]
    await scene.build(repo, [("ci", steps)])
    rows = await scene.store.read(lambda c: views.builds(c, ADMIN))
    assert rows[0].segments == (("success", 20), ("failure", 1))


async def test_a_list_goes_on_where_it_ended(scene: Scene) -> None:
    repo = await scene.repo("ada", "app")
    for _ in range(5):
        await scene.build(repo, [("ci", [Done(name="test")])])
    first = await scene.store.read(lambda c: views.builds(c, ADMIN, limit=2))
    more = await scene.store.read(lambda c: views.builds(c, ADMIN, before_id=first[-1].build.id))
    assert [row.build.number for row in (*first, *more)] == [5, 4, 3, 2, 1]


async def test_a_build_knows_the_one_before_it_on_the_same_ref(scene: Scene) -> None:
    repo_id = await scene.repo("ada", "app")
    await scene.build(repo_id, [("ci", [Done(name="test")])])
    await scene.build(repo_id, [("ci", [Done(name="test")])], ref="refs/heads/other")
    await scene.build(repo_id, [("ci", [Done(name="test")])])
    repo = await scene.store.read(lambda c: repos.by_id(c, repo_id))
    assert repo is not None
    view = await scene.store.read(lambda c: views.build(c, repo, 3))
    assert view is not None and view.previous is not None and view.previous.number == 1


async def test_counts_are_of_what_waits_and_who_is_there(scene: Scene) -> None:
    await fill(scene)
    counts = await scene.store.read(views.counts)
    assert counts == views.Counts(waiting=1, runners_connected=2, runners_total=3, has_users=False)


_NUMBERS = itertools.count(10)

# --- lines of a log ------------------------------------------------------------------------------------


async def _text(scene: Scene, key: LogKey, data: bytes) -> LogText:
    await scene.logs.append(key, 0, data)
    return LogText(scene.logs, key)


async def test_a_tail_of_a_log_that_is_one_giant_line_is_cut(scene: Scene) -> None:
    text = await _text(scene, LogKey(1, 1, 0), b"x" * 3_000_000)
    window = text.tail(10, 1000)
    assert window.is_cut and (window.first, len(window.lines[0])) == (1, 1000)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(st.binary(max_size=30).map(lambda b: b.replace(b"\n", b"")), max_size=60),
    ends_open=st.booleans(),
    first=st.integers(1, 70),
    count=st.integers(1, 70),
)
async def test_windows_and_line_numbers_agree_with_splitting(
    scene: Scene, lines: list[bytes], ends_open: bool, first: int, count: int
) -> None:
    data = b"\n".join(lines) + (b"" if ends_open else b"\n")
    if not data:
        return
    expected = data.split(b"\n")
    if not expected[-1]:
        expected.pop()
    text = await _text(scene, LogKey(next(_NUMBERS), 1, 0), data)
    assert text.count() == len(expected)
    assert list(text.window(first, count).lines) == expected[first - 1 : first - 1 + count]
    assert list(text.tail(count).lines) == expected[-count:]
    offsets = list(range(0, len(data) + 1, 7))
    begins = [0] + [at + 1 for at, byte in enumerate(data) if byte == 10]
    wanted = [next((n for n, b in enumerate(begins) if b >= o), len(begins)) + 1 for o in offsets]
    assert text.lines_at(offsets) == wanted
