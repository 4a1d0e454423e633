"""Who guesses waits; nobody else does."""

from __future__ import annotations

import pytest

from tests.unit.world import HeldClock
from web.attempts import Attempts
from web.problems import TooMany


def storm(attempts: Attempts, count: int, address: str, name: str) -> None:
    for _ in range(count):
        attempts.failed(address, name)


def test_one_who_guesses_a_name_does_not_lock_its_owner_out() -> None:
    attempts = Attempts(HeldClock())
    storm(attempts, Attempts.LIMIT, "203.0.113.9", "ada")
    with pytest.raises(TooMany, match="please wait 301 s"):
        attempts.require("203.0.113.9", "ada")
    attempts.require("203.0.113.9", "grace")
    attempts.require("192.0.2.7", "ada")
    assert not attempts.is_stormed("ada")


def test_one_address_gets_so_many_for_all_names_but_loopback_is_everybody() -> None:
    attempts = Attempts(HeldClock())
    for number in range(Attempts.ADDRESS_LIMIT):
        attempts.failed("203.0.113.9", f"name{number}")
        attempts.failed("127.0.0.1", f"name{number}")
    with pytest.raises(TooMany):
        attempts.require("203.0.113.9", "ada")
    attempts.require("127.0.0.1", "ada")
    attempts.require("::1", "ada")


def test_a_crowd_that_guesses_one_name_is_stopped_for_addresses_that_are_new() -> None:
    attempts = Attempts(HeldClock())
    for number in range(Attempts.NAME_LIMIT):
        attempts.failed(f"203.0.113.{number}", "ada")
    attempts.require("192.0.2.7", "ada")
    assert attempts.is_stormed("ada")
    with pytest.raises(TooMany):
        attempts.refuse_stormed("ada")


def test_after_the_window_it_is_forgotten() -> None:
    clock = HeldClock()
    attempts = Attempts(clock)
    storm(attempts, Attempts.LIMIT, "203.0.113.9", "ada")
    clock.seconds += Attempts.WINDOW_SECONDS
    attempts.require("203.0.113.9", "ada")


def test_a_flood_makes_few_rows_and_they_say_how_many() -> None:
    clock = HeldClock()
    attempts = Attempts(clock)
    assert [attempts.failed("203.0.113.9", "ada") for _ in range(5)] == [1, 0, 0, 0, 0]
    clock.seconds += Attempts.ROW_SECONDS
    assert attempts.failed("203.0.113.9", "ada") == 5
    crowd = [attempts.failed(f"198.51.{n // 250}.{n % 250}", "ada") for n in range(2000)]
    assert sum(1 for count in crowd if count) < Attempts.MAX_ROWS


def test_memory_is_bounded() -> None:
    attempts = Attempts(HeldClock())
    for number in range(20_000):
        attempts.failed(f"address {number}", f"name {number}")
    assert len(attempts._failed) <= Attempts._MAX_KEYS
    assert len(attempts._unnoted) <= Attempts._MAX_KEYS
