"""Every law of the transition table both ways, the folds, and the page that publishes them."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci.status import _WORST_FIRST, TRANSITIONS, Outcome, Status, may_advance, of_build, of_job

PAGE = (Path(__file__).parent.parent.parent / "docs/reference/status.md").read_text()
ENDED = {Status.SUCCESS, Status.FAILURE, Status.ERROR, Status.CANCELLED, Status.SKIPPED}
#: Written out once more, by hand: the table is the law, so a slip in it must show.
LAWS = {
    "blocked": "waiting pending running success failure error cancelled skipped unknown",
    "waiting": "blocked pending running success failure error cancelled skipped unknown",
    "pending": "blocked waiting running success failure error cancelled skipped unknown",
    "running": "blocked waiting pending success failure error cancelled skipped unknown",
    "unknown": "blocked pending running success failure error cancelled",
    "success": "",
    "failure": "",
    "error": "",
    "cancelled": "",
    "skipped": "",
}


@pytest.mark.parametrize(("old", "new"), list(product(Status, Status)))
def test_a_status_advances_exactly_where_the_table_says(old: Status, new: Status) -> None:
    assert may_advance(old, new) == (new.value in LAWS[old.value].split())


def test_what_has_ended_absorbs_and_unknown_has_not_ended() -> None:
    assert {status for status in Status if status.is_terminal} == ENDED
    assert not any(may_advance(old, new) for old in ENDED for new in Status)
    assert all(not may_advance(status, status) for status in Status)


@pytest.mark.parametrize(
    ("jobs", "build"),
    [
        ("", "skipped"),
        ("success", "success"),
        ("success skipped", "success"),
        ("skipped skipped", "skipped"),
        ("success failure", "failure"),
        ("failure error", "error"),
        ("cancelled success", "cancelled"),
        ("failure cancelled", "failure"),
        ("pending pending", "pending"),
        ("pending waiting", "pending"),
        ("running pending", "running"),
        ("success pending", "running"),
        ("failure waiting", "running"),
        ("skipped pending", "pending"),
        ("success unknown", "unknown"),
        ("running unknown", "running"),
        ("success blocked", "blocked"),
        ("unknown pending", "unknown"),
    ],
)
def test_jobs_fold_into_their_build(jobs: str, build: str) -> None:
    for order in permutations(jobs.split()):
        assert of_build(Status(status) for status in order) is Status(build)


@pytest.mark.parametrize(
    ("steps", "job"),
    [
        ([], "success"),
        ([("success", False), ("failure", False)], "failure"),
        ([("success", False), ("failure", True)], "success"),
        ([("failure", True)], "success"),
        ([("error", True)], "error"),
        ([("error", False), ("failure", False)], "error"),
        ([("skipped", False)], "skipped"),
        ([("success", False), ("skipped", False)], "success"),
        ([("cancelled", False), ("success", False)], "cancelled"),
        ([("failure", False), ("cancelled", False)], "failure"),
    ],
)
def test_steps_fold_into_their_job(steps: list[tuple[str, bool]], job: str) -> None:
    for order in permutations(steps):
        assert of_job((Status(status), ignored) for status, ignored in order) is Status(job)


@given(st.lists(st.sampled_from(Status), min_size=1))
def test_a_build_has_ended_exactly_when_all_its_jobs_have(jobs: list[Status]) -> None:
    assert of_build(jobs).is_terminal == all(job.is_terminal for job in jobs)


def test_the_page_publishes_the_tables() -> None:
    for status in Status:
        targets = ", ".join(f"`{to.value}`" for to in Status if to in TRANSITIONS[status])
        line = next(line for line in PAGE.splitlines() if line.startswith(f"| `{status.value}` |"))
        assert line.endswith(f"| {targets or 'nothing: it has ended'} |")
    assert ", ".join(f"`{status.value}`" for status in _WORST_FIRST) + "." in PAGE
    for outcome in Outcome:
        assert f"| `{outcome.value}` |" in PAGE


def test_words_for_people() -> None:
    assert (Status.SUCCESS.word, Status.FAILURE.word, Status.UNKNOWN.word) == ("passed", "failed", "unknown")
