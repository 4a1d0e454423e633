"""The bus: nothing that rings between two looks is missed."""

from __future__ import annotations

import asyncio

from ci.server.bus import Bus


async def test_what_rang_before_the_wait_is_heard() -> None:
    bus = Bus()
    with bus.subscribe("builds", "queue") as topics:
        bus.publish("builds", "elsewhere")
        bus.publish("queue")
        assert await topics.wait(5) == {"builds", "queue"}


async def test_a_wait_ends_empty_when_its_time_is_over() -> None:
    with Bus().subscribe("builds") as topics:
        assert await topics.wait(0.0) == frozenset()


async def test_a_waiting_listener_wakes() -> None:
    bus = Bus()
    with bus.subscribe("a") as topics:
        waiting = asyncio.create_task(topics.wait(5))
        await asyncio.sleep(0)
        bus.publish("a")
        assert await waiting == {"a"}


async def test_listeners_do_not_take_from_one_another() -> None:
    bus = Bus()
    with bus.subscribe("a") as one, bus.subscribe("a") as two:
        bus.publish("a")
        assert await one.wait(5) == await two.wait(5) == {"a"}


async def test_a_closed_listener_hears_nothing_and_leaves_nothing_behind() -> None:
    bus = Bus()
    with bus.subscribe("a") as topics:
        pass
    bus.publish("a")
    assert await topics.wait(0.0) == frozenset()
    assert bus._listeners == {}
