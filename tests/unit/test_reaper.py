from __future__ import annotations

from collections.abc import Iterable

from runners.engines.base import EngineError
from runners.machine import Machine
from runners.reaper import Reaper


class Engine:
    """A janitor over a set of (runner, job, attempt)."""

    def __init__(self, *attempts: tuple[str, int, int]) -> None:
        self.left = set(attempts)
        self.is_there = True

    def describe(self) -> str:
        if not self.is_there:
            raise EngineError("no engine answers; start it with: systemctl start docker")
        return "test 1"

    def attempts(self, server: str) -> Iterable[tuple[str, int, int]]:
        self.describe()
        return sorted(self.left)

    def remove_attempt(self, server: str, job: int, attempt: int) -> None:
        self.describe()
        self.left = {each for each in self.left if each[1:] != (job, attempt)}


class Passes:
    """A reaper of runner "7", what it asked, and what is in use."""

    def __init__(self, engine: Engine) -> None:
        self.in_use: set[tuple[int, int]] = set()
        self.asked: list[tuple[tuple[int, int], ...]] = []
        machine = Machine(engine, "s", lambda: None)
        self.reaper = Reaper(machine, "7", self.in_use.__contains__, self.asked.append)


async def test_what_is_ours_and_in_use_stays_and_the_rest_of_ours_goes() -> None:
    engine = Engine(("7", 1, 1), ("7", 2, 1))
    passes = Passes(engine)
    passes.in_use.add((1, 1))
    await passes.reaper.look()
    assert engine.left == {("7", 1, 1)}
    assert passes.asked == []


async def test_what_appears_after_a_pass_goes_in_the_next_one() -> None:
    engine = Engine()
    passes = Passes(engine)
    await passes.reaper.look()
    engine.left.add(("7", 1, 1))
    await passes.reaper.look()
    assert engine.left == set()


async def test_what_is_another_runners_goes_only_when_the_server_calls_it_dead() -> None:
    engine = Engine(("8", 1, 1), ("8", 2, 1))
    passes = Passes(engine)
    await passes.reaper.look()
    assert passes.asked == [((1, 1), (2, 1))]
    assert len(engine.left) == 2
    await passes.reaper.dead((1, 1))
    assert engine.left == {("8", 2, 1)}


async def test_a_word_of_death_for_what_was_not_asked_removes_nothing() -> None:
    engine = Engine(("8", 1, 1))
    await Passes(engine).reaper.dead((1, 1))
    assert engine.left == {("8", 1, 1)}


async def test_an_engine_that_is_away_is_looked_at_again_later() -> None:
    engine = Engine(("7", 1, 1))
    passes = Passes(engine)
    engine.is_there = False
    await passes.reaper.look()
    engine.is_there = True
    await passes.reaper.look()
    assert engine.left == set()


async def test_an_engine_that_comes_and_goes_is_told_each_time_with_its_reason() -> None:
    engine = Engine()
    told: list[tuple[bool, str]] = []
    machine = Machine(engine, "s", lambda: told.append((machine.is_there, machine.engine)))
    engine.is_there = False
    await machine.probe()
    await machine.probe()
    engine.is_there = True
    await machine.probe()
    assert told == [(False, "no engine answers; start it with: systemctl start docker"), (True, "test 1")]
