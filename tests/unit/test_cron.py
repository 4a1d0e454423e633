"""When schedules run, above all where clocks change. Every time is written out; no real clock is asked."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci.errors import Invalid
from ci.server import cron

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold).timestamp()


def runs(expression: str, start: float, count: int, zone: str = "Europe/Berlin") -> list[str]:
    found, times = cron.parse(expression, zone), []
    for _ in range(count):
        start = found.after(start)
        times.append(datetime.fromtimestamp(start, ZoneInfo(zone)).isoformat())
    return times


def test_a_run_in_the_hour_that_is_left_out_happens_right_after_it_and_once() -> None:
    assert runs("30 2 * * *", at("2026-03-28T12:00"), 2) == [
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]


def test_a_run_in_the_hour_that_comes_twice_happens_in_the_first_alone() -> None:
    assert runs("30 2 * * *", at("2026-10-24T12:00"), 2) == [
        "2026-10-25T02:30:00+02:00",
        "2026-10-26T02:30:00+01:00",
    ]


def test_asked_in_the_second_of_two_equal_hours_the_first_is_over() -> None:
    assert runs("30 2 * * *", at("2026-10-25T02:10", fold=1), 1) == ["2026-10-26T02:30:00+01:00"]


def test_what_runs_every_half_hour_keeps_its_distance_through_both_changes() -> None:
    assert runs("*/30 * * * *", at("2026-10-25T01:59"), 5) == [
        "2026-10-25T02:00:00+02:00",
        "2026-10-25T02:30:00+02:00",
        "2026-10-25T02:00:00+01:00",
        "2026-10-25T02:30:00+01:00",
        "2026-10-25T03:00:00+01:00",
    ]
    assert runs("*/30 * * * *", at("2026-03-29T01:20"), 2) == [
        "2026-03-29T01:30:00+01:00",
        "2026-03-29T03:00:00+02:00",
    ]


def test_the_29th_of_february_comes_every_four_years() -> None:
    assert runs("0 0 29 2 *", 0.0, 2, "UTC") == ["1972-02-29T00:00:00+00:00", "1976-02-29T00:00:00+00:00"]


def test_runs_between_two_times_are_counted_and_the_latest_is_known() -> None:
    every_hour = cron.parse("0 * * * *", "UTC")
    assert every_hour.between(3600.0, 3600.0 + 3599) == (1, 3600.0)
    assert every_hour.between(3600.0, 4 * 3600.0) == (4, 4 * 3600.0)


def test_a_year_of_missed_minutes_is_counted_quickly_up_to_the_limit() -> None:
    every_minute = cron.parse("* * * * *", "UTC")
    assert every_minute.between(60.0, 365 * 86400.0 + 30) == (cron.MAX_COUNT, 365 * 86400.0)


@pytest.mark.parametrize(
    ("expression", "zone", "says"),
    [
        ("* * * *", "UTC", "five fields"),
        ("@daily", "UTC", "five fields"),
        ("* * * * * *", "UTC", "five fields"),
        ("61 * * * *", "UTC", "bad minute"),
        ("0 0 31 2 *", "UTC", "bad day-of-month"),
        ("0 0 * * *", "Mars/Olympus", "no time zone 'Mars/Olympus'"),
        ("0 0 * * *", "../../etc/passwd", "no time zone"),
        ("0 0 * * *", "", "no time zone"),
    ],
)
def test_what_is_no_schedule_is_refused_with_the_reason(expression: str, zone: str, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        cron.parse(expression, zone)


@given(st.text(max_size=40), st.text(max_size=20))
def test_any_text_is_a_schedule_or_refused(expression: str, zone: str) -> None:
    try:
        found = cron.parse(expression, zone)
    except Invalid:
        return
    assert found.after(1e9) > 1e9


@given(st.integers(0, 4_000_000_000), st.sampled_from(["30 2 * * *", "*/20 * * * *", "0 1-3 * * SUN"]))
def test_the_next_run_is_always_later(seconds: int, expression: str) -> None:
    assert cron.parse(expression, "Europe/Berlin").after(float(seconds)) > seconds


def test_words_are_in_the_zone_of_the_schedule() -> None:
    assert (
        cron.parse("30 2 * * *", "Europe/Berlin").words(at("2026-11-27T02:30"))
        == "Fri 27 Nov 2026, 02:30 CET"
    )
    assert "02:30" in cron.parse("30 2 * * *", "Europe/Berlin").meaning
