"""Builds that a person runs by hand, and deliveries that one wants to be looked at again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import update

from ci.errors import Conflict, Invalid, NotFound
from ci.server.starts import parse_variables
from ci.server.store.tables import REPO
from tests.unit.gitting import add_repo
from tests.unit.world import ADA
from tests.unit.yard import Yard, yard


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Yard]:
    async with yard(tmp_path) as made:
        yield made


async def disable(here: Yard, *, is_enabled: bool = False) -> None:
    await here.core.store.write(
        lambda c: c.execute(update(REPO).where(REPO.c.id == here.repo.id).values(is_enabled=is_enabled))
    )
    await here.reload()


async def test_a_branch_runs_by_hand_as_an_event_of_its_own_kind(here: Yard) -> None:
    await here.push()
    assert await here.starts.by_hand(here.repo, "", {"TARGET": "staging"}, ADA) == ("ada", "site", 2)
    build = (await here.builds())[-1]
    assert (build.event["kind"], build.event["branch"], build.event["sender"]) == ("manual", "main", "ada")
    assert build.event["after"] == here.work.sha()
    assert build.event["variables"] == {"TARGET": "staging"}
    assert build.event["changed_files"] is None
    assert ("ada", "build.run", "ada/site/2") in await here.deeds()


async def test_a_run_by_hand_leaves_the_pushes_of_its_branch_as_they_were(here: Yard) -> None:
    await here.push()
    here.work.commit_files({"a": "1"}, "second")
    here.work.git("push", "-q", "origin", "HEAD:refs/heads/main")  # nobody reported it yet
    await here.starts.by_hand(here.repo, "main", {}, ADA)
    await here.pushes.compare_refs(here.repo)
    assert [build.event["kind"] for build in await here.builds()] == ["push", "manual", "push"]


@pytest.mark.parametrize("branch", ["nope", "main:x", "../main", "-main", "ma in", "a" * 300, "\ud800"])
async def test_a_branch_that_is_not_there_is_named(here: Yard, branch: str) -> None:
    await here.push()
    with pytest.raises(Invalid, match=r"there is no branch"):
        await here.starts.by_hand(here.repo, branch, {}, ADA)


async def test_a_repo_without_a_branch_says_to_push_one(here: Yard) -> None:
    with pytest.raises(Invalid, match="push one first"):
        await here.starts.by_hand(here.repo, "", {}, ADA)


async def test_a_file_without_a_job_for_manual_says_so(here: Yard) -> None:
    text = 'when:\n  event: push\nsteps:\n  - name: a\n    image: busybox\n    commands: ["true"]\n'
    here.work.commit_files({".ci.yml": text}, "only pushes")
    await here.push()
    with pytest.raises(Invalid, match=r"branch main: no build: .*manual"):
        await here.starts.by_hand(here.repo, "main", {}, ADA)


async def test_a_commit_without_a_file_says_so(here: Yard) -> None:
    here.work.git("rm", "-q", ".ci.yml")
    here.work.commit_files({"README": "x"}, "no file")
    await here.push()
    with pytest.raises(Invalid, match=r"has no pipeline file; looked for: \.ci\.yml"):
        await here.starts.by_hand(here.repo, "main", {}, ADA)


async def test_a_disabled_repo_runs_nothing_by_hand(here: Yard) -> None:
    await here.push()
    await disable(here)
    with pytest.raises(Conflict, match="ada/site is disabled"):
        await here.starts.by_hand(here.repo, "main", {}, ADA)


def test_variables_are_lines_of_name_and_value() -> None:
    assert parse_variables(["A=1", "", "  ", "B_2=x=y", "C="]) == {"A": "1", "B_2": "x=y", "C": ""}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("A", "'A' is not NAME=value"),
        ("=x", "no name of a variable"),
        ("2A=x", "no name of a variable"),
        ("A-B=x", "no name of a variable"),
        ("CI=x", "CI is a name of ours"),
        ("CI_COMMIT_SHA=x", "CI_COMMIT_SHA is a name of ours"),
        ("PLUGIN_HOST=x", "without PLUGIN_ before it"),
        ("A=" + "x" * 20000, "more than 16 KiB"),
    ],
)
def test_a_line_that_is_no_variable_is_named(line: str, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        parse_variables([line])
    with pytest.raises(Invalid, match="given twice"):
        parse_variables(["A=1", "A=2"])


# --- replay -----------------------------------------------------------------------------------------------


async def test_what_a_disabled_repo_got_is_kept_and_replayed_once_it_is_enabled(here: Yard) -> None:
    await here.push()
    await disable(here)
    here.work.commit_files({"a": "1"}, "second")
    await here.push()
    row = (await here.rows())[-1]
    assert "the repo is disabled; enable it in its settings" in row.verdict
    assert len(await here.builds()) == 1
    await disable(here, is_enabled=True)
    await here.inbox.replay(row.id or 0, here.repo, ADA)
    row = (await here.rows())[-1]
    assert (row.state, row.verdict) == ("processed", "refs/heads/main: built #2")
    assert ("ada", "delivery.replay", row.delivery) in await here.deeds()


async def test_a_delivery_that_built_is_not_replayed_and_points_to_rerun(here: Yard) -> None:
    await here.push()
    with pytest.raises(Conflict, match="made #1; run that again with Rerun"):
        await here.inbox.replay((await here.rows())[0].id or 0, here.repo, ADA)
    assert len(await here.builds()) == 1


async def test_a_delivery_of_another_repo_is_not_found(here: Yard) -> None:
    await here.push()
    other = await add_repo(here.core.store, here.forges.builtin, "bob", "other")
    with pytest.raises(NotFound):
        await here.inbox.replay((await here.rows())[0].id or 0, other, ADA)


async def test_a_build_knows_the_one_before_it_of_its_branch(here: Yard) -> None:
    await here.push()
    await here.starts.by_hand(here.repo, "", {}, ADA)
    (job,) = await here.core.jobs_of((await here.builds())[-1].id or 0)
    known = {name: value for name, value in job.spec["environment"].items() if name.startswith("CI_PREV_")}
    assert known["CI_PREV_PIPELINE_NUMBER"] == "1"
    assert known["CI_PREV_PIPELINE_EVENT"] == "push"
    assert known["CI_PREV_PIPELINE_STATUS"] == "pending"
    assert known["CI_PREV_PIPELINE_URL"].endswith("/ada/site/1")
    assert known["CI_PREV_COMMIT_BRANCH"] == "main"
    (first,) = await here.core.jobs_of((await here.builds())[0].id or 0)
    assert not any(name.startswith("CI_PREV_PIPELINE") for name in first.spec["environment"])
