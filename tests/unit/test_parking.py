"""Namespaces are handed on one after the other, never shared. Holders are the other ends of real sockets."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from runners.engines.base import EngineError
from runners.engines.parking import Namespace, Parking


class Holders:
    """Makes namespaces whose holders answer `clean` with what `left` says."""

    def __init__(self) -> None:
        self.made: list[tuple[str, ...]] = []
        self.dropped: list[str] = []
        self.left = b"sockets 0\n"
        self.may_make = threading.Event()
        self.may_make.set()
        self.may_answer = threading.Event()
        self.may_answer.set()
        self._numbers = itertools.count(1)
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def make(self, aliases: Sequence[str]) -> Namespace:
        assert self.may_make.wait(10)
        name = f"holder{next(self._numbers)}"
        self.made.append(tuple(aliases))
        ours, theirs = socket.socketpair()
        self._sockets += [ours, theirs]
        self._threads.append(threading.Thread(target=self._answer, args=(theirs,)))
        self._threads[-1].start()
        return Namespace(name, ours, lambda: ours.recv(100) or None)

    def close(self) -> None:
        self.may_answer.set()
        for one in self._sockets:
            with contextlib.suppress(OSError):  # closed already
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join(10)

    def _answer(self, theirs: socket.socket) -> None:
        try:
            while theirs.recv(100):
                assert self.may_answer.wait(10)
                theirs.sendall(self.left)
        except OSError:
            return


@pytest.fixture
def holders() -> Iterator[Holders]:
    made = Holders()
    yield made
    made.close()


def test_a_namespace_is_handed_on_after_its_container(holders: Holders) -> None:
    parking = Parking(holders.make, holders.dropped.append)
    first = parking.take()
    parking.give_back(first)
    assert parking.take() is first
    assert (len(holders.made), holders.dropped) == (1, [])


def test_whoever_runs_at_the_same_time_has_another_one(holders: Holders) -> None:
    parking = Parking(holders.make, holders.dropped.append)
    assert len({parking.take().container for _ in range(3)}) == 3


def test_a_namespace_that_is_not_clean_is_thrown_away(holders: Holders) -> None:
    holders.left = b"sockets 1\n"
    has_dropped = threading.Event()

    def drop(name: str) -> None:
        holders.dropped.append(name)
        has_dropped.set()

    parking = Parking(holders.make, drop)
    first = parking.take()
    parking.give_back(first)
    assert parking.take() is not first
    assert has_dropped.wait(10)
    assert holders.dropped == ["holder1"]


def test_a_dead_holder_is_replaced(holders: Holders) -> None:
    parking = Parking(holders.make, holders.dropped.append)
    first = parking.take()
    first.connection.shutdown(socket.SHUT_RDWR)
    parking.give_back(first)
    assert parking.take() is not first


def test_nothing_is_taken_before_it_is_clean(holders: Holders) -> None:
    parking = Parking(holders.make, holders.dropped.append)
    first = parking.take()
    holders.may_answer.clear()
    parking.give_back(first)
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(parking.take)
        assert not taken.done()
        holders.may_answer.set()
        assert taken.result(10) is first


def test_one_that_is_being_made_ahead_is_waited_for_by_one_only(holders: Holders) -> None:
    parking = Parking(holders.make, holders.dropped.append)
    holders.may_make.clear()
    parking.make_ahead()
    with ThreadPoolExecutor(2) as pool:
        taken = [pool.submit(parking.take) for _ in range(2)]
        holders.may_make.set()
        assert len({one.result(10).container for one in taken}) == 2
    assert len(holders.made) == 2


def test_a_name_on_the_network_is_for_one_container(holders: Holders) -> None:
    parking = Parking(holders.make, holders.dropped.append)
    named = parking.take(("db",))
    parking.give_back(named)
    assert holders.dropped == [named.container]
    assert parking.take() is not named
    assert holders.made == [("db",), ()]


def test_a_reserved_namespace_is_given_to_whom_it_was_promised(holders: Holders) -> None:
    parking = Parking(holders.make, holders.dropped.append)
    one, two = parking.take(), parking.take()
    promised = parking.reserve()
    assert promised in (one, two)
    assert parking.reserve() is not promised
    parking.give_back(one)
    parking.give_back(two)
    assert parking.take(wanted=promised) is promised


def test_a_promise_of_a_busy_namespace_does_not_make_anyone_wait_or_share(holders: Holders) -> None:
    parking = Parking(holders.make, holders.dropped.append)
    busy = parking.take()
    assert parking.reserve() is busy
    assert parking.take(wanted=busy) is not busy


def test_a_failure_to_make_one_ahead_is_told_to_whoever_asks(holders: Holders) -> None:
    def fail(aliases: Sequence[str]) -> Namespace:
        raise EngineError("cannot be closed off")

    parking = Parking(fail, holders.dropped.append)
    parking.make_ahead()
    with pytest.raises(EngineError, match="closed off"):
        parking.take()
    with pytest.raises(EngineError, match="closed off"):
        parking.first()


def test_after_the_end_of_the_attempt_nothing_is_given_out(holders: Holders) -> None:
    parking = Parking(holders.make, holders.dropped.append)
    parking.take()
    parking.close()
    with pytest.raises(EngineError, match="destroyed"):
        parking.take()
