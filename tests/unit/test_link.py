from __future__ import annotations

import asyncio

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection, serve

from runners import link
from runners.link import Link, delay_seconds


def test_the_first_retry_is_fast_and_the_last_ones_are_seldom() -> None:
    assert all(0.05 <= delay_seconds(1) / 2 <= 0.1 for _ in range(100))
    assert all(7.5 <= delay_seconds(50) <= 15 for _ in range(100))


def test_no_two_runners_come_back_at_the_same_moment() -> None:
    assert len({delay_seconds(5) for _ in range(20)}) == 20


async def test_a_cut_connection_is_made_again_and_carries_the_credential() -> None:
    seen: list[str] = []
    served = asyncio.Semaphore(0)

    async def accept(connection: ServerConnection) -> None:
        assert connection.request
        seen.append(connection.request.headers["Authorization"])
        connection.transport.abort()

    async def use(connection: ClientConnection) -> None:
        served.release()
        async for _ in connection:
            """Until it is cut."""

    async with serve(accept, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        made = Link("test", f"ws://127.0.0.1:{port}/x", "the-credential", use, is_loopback=True)
        task = asyncio.create_task(made.run())
        async with asyncio.timeout(10):
            for _ in range(3):
                await served.acquire()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert set(seen) == {"Bearer the-credential"}


async def test_renew_closes_the_connection_so_that_a_new_one_is_made() -> None:
    served = asyncio.Semaphore(0)

    async def accept(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async def use(connection: ClientConnection) -> None:
        served.release()
        async for _ in connection:
            """Until it is cut."""

    async with serve(accept, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        made = Link("test", f"ws://127.0.0.1:{port}/x", "c", use, is_loopback=True)
        task = asyncio.create_task(made.run())
        async with asyncio.timeout(10):
            for _ in range(2):
                await served.acquire()
                made.renew()
            await served.acquire()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_refused_credential_is_said_once_with_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "LONGEST_DELAY_SECONDS", 0.01)
    tries = asyncio.Semaphore(0)

    async def refuse(connection: ServerConnection, request: object) -> object:
        tries.release()
        return connection.respond(401, "no")

    async def use(connection: ClientConnection) -> None:
        raise AssertionError("never connected")

    async def accept(connection: ServerConnection) -> None:
        raise AssertionError("never connected")

    async with serve(accept, "127.0.0.1", 0, process_request=refuse) as server:  # type: ignore[arg-type]
        port = server.sockets[0].getsockname()[1]
        made = Link("control", f"ws://127.0.0.1:{port}/x", "c", use, is_loopback=True)
        task = asyncio.create_task(made.run())
        async with asyncio.timeout(10):
            for _ in range(3):
                await tries.acquire()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    said = capsys.readouterr().err
    assert said.count("does not accept this runner's credential") == 1
    assert "register with a new code" in said
