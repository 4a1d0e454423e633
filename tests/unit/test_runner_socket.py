"""The control socket: a real uvicorn, a real WebSocket, a runner that is a script."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import httpx
import pytest
import uvicorn
import websockets
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from websockets.asyncio.client import ClientConnection, connect

from ci import protocol
from ci.errors import ShipwayError
from ci.protocol import (
    Accept,
    AskDead,
    Assign,
    Begin,
    Cancel,
    Dead,
    Drain,
    Granted,
    Heartbeat,
    Held,
    Hello,
    Lost,
    Record,
    Recorded,
    Released,
    RunnerMessage,
    StepAsks,
    Take,
    Welcome,
)
from ci.server.auth import ANONYMOUS
from ci.server.runners import Runners
from ci.server.store import codes, runners
from ci.status import Status
from tests.unit.world import ADA, Core, core, job_ended, spec
from web.runner_socket import CLOSE_PROTOCOL, CLOSE_REPLACED, RunnerDoor

SECONDS = 10.0
T = TypeVar("T")


@dataclass
class World:
    core: Core
    url: str
    credentials: dict[str, str] = field(default_factory=dict)

    async def code(self) -> str:
        now = self.core.clock.now()
        return await self.core.store.write(lambda c: codes.new_code(c, codes.RUNNER, now))

    async def post(self, body: dict[str, object]) -> httpx.Response:
        async with httpx.AsyncClient() as client:
            return await client.post(f"http://{self.url}/api/runners/register", json=body)

    async def register(self, name: str) -> None:
        body = {"code": await self.code(), "name": name, "labels": {}, "capacity": 2}
        answer = await self.post(body)
        assert answer.status_code == 201, answer.text
        self.credentials[name] = answer.json()["credential"]

    @asynccontextmanager
    async def runner(self, name: str = "a", held: tuple[Held, ...] = ()) -> AsyncIterator[Script]:
        if name not in self.credentials:
            await self.register(name)
        header = {"Authorization": f"Bearer {self.credentials[name]}"}
        async with connect(f"ws://{self.url}/runner/control", additional_headers=header) as raw:
            script = Script(raw)
            await script.say(Hello(software="script 1", capacity=2, engine="none", held=held))
            yield script


@dataclass
class Script:
    """A runner that says what a test tells it, and hands over what it hears."""

    socket: ClientConnection

    async def say(self, message: RunnerMessage) -> None:
        await self.socket.send(protocol.encode(message))

    async def hear(self, kind: type[T]) -> T:
        """The next message, which must be of this kind."""
        async with asyncio.timeout(SECONDS):
            message = protocol.decode_from_server(await self.socket.recv())
        assert isinstance(message, kind), message
        return message

    async def begin(self) -> Assign:
        await self.say(Take(free=1))
        assigned = await self.hear(Assign)
        await self.say(Accept(lease=assigned.lease))
        assert (await self.hear(Begin)).lease == assigned.lease
        return assigned

    async def closed(self) -> tuple[int, str]:
        """The code and reason with which the server ends the connection."""
        async with asyncio.timeout(SECONDS):
            with pytest.raises(websockets.ConnectionClosed) as ended:
                while True:
                    await self.socket.recv()
        assert ended.value.rcvd is not None
        return ended.value.rcvd.code, ended.value.rcvd.reason


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with core(tmp_path) as parts:
        door = RunnerDoor(
            store=parts.store, bus=parts.bus, clock=parts.clock, queue=parts.queue, lifecycle=parts.lifecycle
        )
        async with served(door) as url:
            yield World(parts, url)


@asynccontextmanager
async def served(door: RunnerDoor) -> AsyncIterator[str]:
    async def problem(request: Request, error: Exception) -> Response:
        return JSONResponse({"code": getattr(error, "code", ""), "message": str(error)}, status_code=400)

    routes = [
        Route("/api/runners/register", door.register, methods=["POST"]),
        WebSocketRoute("/runner/control", door.control),
    ]
    app = Starlette(routes=routes, exception_handlers={ShipwayError: problem})
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="warning", ws="websockets-sansio", lifespan="off")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
        listener.close()


# --- registration -----------------------------------------------------------------------------------


async def test_a_code_registers_one_runner_once(world: World) -> None:
    code = await world.code()
    first = await world.post({"code": code.lower(), "name": "a", "labels": {"x": "y"}, "capacity": 1})
    assert first.status_code == 201
    assert set(first.json()) == {"runner", "name", "server", "credential"}
    again = await world.post({"code": code, "name": "b", "labels": {}, "capacity": 1})
    assert (again.status_code, again.json()["code"]) == (400, "forbidden")
    assert "make a new one on the page Runners" in again.json()["message"]


async def test_a_registration_whose_answer_was_lost_may_be_repeated_by_the_same_runner(world: World) -> None:
    body = {"code": await world.code(), "name": "a", "labels": {}, "capacity": 1}
    mine = {**body, "credential": "runner_" + "m" * 43}
    first, again = await world.post(mine), await world.post(mine)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert first.json()["credential"] == mine["credential"]
    other = await world.post({**body, "credential": "runner_" + "o" * 43})
    assert other.json()["code"] == "forbidden"


@pytest.mark.parametrize(
    "credential", ["runner_short", "x", "runner_" + "a" * 42 + "!", "runner_" + "a" * 43 + "\n"]
)
async def test_a_credential_that_may_be_guessed_is_refused_and_spends_nothing(
    world: World, credential: str
) -> None:
    body = {"code": await world.code(), "name": "a", "labels": {}, "capacity": 1}
    refused = await world.post({**body, "credential": credential})
    assert refused.json()["code"] == "invalid"
    assert (await world.post(body)).status_code == 201


async def test_a_refused_registration_does_not_spend_its_code(world: World) -> None:
    code = await world.code()
    await world.register("a")
    taken = await world.post({"code": code, "name": "a", "labels": {}, "capacity": 1})
    assert taken.json()["code"] == "conflict"
    assert (await world.post({"code": code, "name": "b", "labels": {}, "capacity": 1})).status_code == 201


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"code": 1}',
        b'{"code":"x","name":"a","labels":{},"capacity":"many"}',
        b"x" * 70_000,
    ],
)
async def test_a_malformed_registration_is_refused_with_a_sentence(world: World, body: bytes) -> None:
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"http://{world.url}/api/runners/register", content=body)
    assert answer.json()["code"] in ("invalid", "too_large")
    assert answer.json()["message"]


async def test_no_connection_without_a_credential(world: World) -> None:
    for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic x"}):
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with connect(f"ws://{world.url}/runner/control", additional_headers=header):
                pass
        assert refused.value.response.status_code == 401


# --- the life of a job ------------------------------------------------------------------------------


async def test_a_job_goes_over_the_wire_from_offer_to_release(world: World) -> None:
    build = await world.core.build()
    async with world.runner() as runner:
        welcome = await runner.hear(Welcome)
        assert (welcome.name, welcome.leases, welcome.dead) == ("a", (), ())
        assigned = await runner.begin()
        await runner.say(Record(lease=assigned.lease, seq=0, change=job_ended()))
        assert await runner.hear(Recorded) == Recorded(lease=assigned.lease, seq=0)
        assert await runner.hear(Released) == Released(lease=assigned.lease)
    assert (await world.core.build_row(build)).status == "success"


async def test_a_standing_offer_is_met_when_a_job_comes(world: World) -> None:
    async with world.runner() as runner:
        await runner.hear(Welcome)
        await runner.say(Take(free=1))
        await runner.say(AskDead(attempts=()))
        await runner.hear(Dead)  # the offer was read before this
        await world.core.build()
        world.core.bus.publish("queue")
        assert (await runner.hear(Assign)).lease.attempt == 1


async def test_an_offer_is_spent_by_what_it_got(world: World) -> None:
    for _ in range(3):
        await world.core.build()
    async with world.runner() as runner:
        await runner.hear(Welcome)
        first = await runner.begin()
        world.core.bus.publish("queue")
        await runner.say(Take(free=1))
        second = await runner.hear(Assign)
        assert first.lease.job != second.lease.job


async def test_a_grant_comes_only_for_a_lease_that_holds(world: World) -> None:
    await world.core.build(spec(deploy=True))
    async with world.runner() as runner:
        await runner.hear(Welcome)
        assigned = await runner.begin()
        await runner.say(Record(lease=assigned.lease, seq=0, change=StepAsks(step=2, after_seconds=0.0)))
        await runner.hear(Recorded)
        assert await runner.hear(Granted) == Granted(lease=assigned.lease, step=2)
        await world.core.lifecycle.lost(1, Lost(lease=assigned.lease, reason="killed"))
        assert await runner.hear(Dead) == Dead(attempts=(assigned.lease.key,))


async def test_cancel_and_drain_reach_a_runner_at_once_and_once(world: World) -> None:
    build = await world.core.build()
    async with world.runner() as runner:
        await runner.hear(Welcome)
        assigned = await runner.begin()
        await world.core.lifecycle.cancel(build, ADA)
        assert await runner.hear(Cancel) == Cancel(lease=assigned.lease, reason="cancelled by ada")
        await world.core.store.write(lambda c: runners.drain(c, 1, is_draining=True))
        world.core.bus.publish("runners")
        assert await runner.hear(Drain) == Drain(is_draining=True)
        await runner.say(Record(lease=assigned.lease, seq=0, change=job_ended(Status.CANCELLED)))
        await runner.hear(Recorded)
        await runner.hear(Released)


async def test_a_removed_runner_is_told_so_at_once_and_cannot_come_back(world: World) -> None:
    build = await world.core.build()
    async with world.runner() as runner:
        await runner.hear(Welcome)
        await runner.begin()
        core = world.core
        await Runners(core.store, core.bus, core.clock).remove(1, ANONYMOUS)
        assert await runner.closed() == (1008, "this runner was removed from the server")
    with pytest.raises(websockets.InvalidStatus, match="401"):
        async with world.runner():
            pass
    (job,) = await world.core.jobs_of(build)
    assert (job.status, job.attempt, job.runner_id) == ("pending", 2, None)


async def test_an_acknowledgement_of_a_lease_that_is_over_is_answered_with_dead(world: World) -> None:
    build = await world.core.build()
    async with world.runner() as runner:
        await runner.hear(Welcome)
        await runner.say(Take(free=1))
        assigned = await runner.hear(Assign)
        await world.core.lifecycle.cancel(build, ADA)
        assert await runner.hear(Dead) == Dead(attempts=(assigned.lease.key,))
        await runner.say(Accept(lease=assigned.lease))
        assert await runner.hear(Dead) == Dead(attempts=(assigned.lease.key,))


# --- reconnect --------------------------------------------------------------------------------------


async def test_a_cut_runner_goes_on_in_the_same_attempt_under_a_new_epoch(world: World) -> None:
    await world.core.build()
    async with world.runner() as runner:
        await runner.hear(Welcome)
        lease = (await runner.begin()).lease
        runner.socket.transport.abort()
    held = Held(lease=lease, is_alive=True)
    async with world.runner(held=(held,)) as runner:
        (renewed,) = (await runner.hear(Welcome)).leases
        assert (renewed.key, renewed.epoch) == (lease.key, lease.epoch + 1)
        await runner.say(Record(lease=renewed, seq=0, change=job_ended()))
        await runner.hear(Recorded)
        assert await runner.hear(Released) == Released(lease=renewed)


async def test_a_grant_and_a_release_that_a_cut_swallowed_are_said_again(world: World) -> None:
    await world.core.build(spec(deploy=True))
    async with world.runner() as runner:
        await runner.hear(Welcome)
        lease = (await runner.begin()).lease
        asks = Record(lease=lease, seq=0, change=StepAsks(step=2, after_seconds=0.0))
        await runner.say(asks)
        await runner.hear(Recorded)
        runner.socket.transport.abort()
    held = Held(lease=lease, is_alive=True)
    async with world.runner(held=(held,)) as runner:
        (renewed,) = (await runner.hear(Welcome)).leases
        assert await runner.hear(Granted) == Granted(lease=renewed, step=2)
        await runner.say(Record(lease=renewed, seq=1, change=job_ended()))
        await runner.hear(Recorded)
        runner.socket.transport.abort()
    async with world.runner(held=(Held(lease=renewed, is_alive=False),)) as runner:
        assert (await runner.hear(Welcome)).dead == (renewed,)


async def test_a_second_connection_replaces_the_first(world: World) -> None:
    await world.core.build()
    async with world.runner() as old:
        await old.hear(Welcome)
        lease = (await old.begin()).lease
        async with world.runner(held=(Held(lease=lease, is_alive=True),)) as new:
            (renewed,) = (await new.hear(Welcome)).leases
            assert await old.closed() == (CLOSE_REPLACED, "this runner has connected again")
            await new.say(Heartbeat(leases=(renewed,)))
            await new.say(Record(lease=renewed, seq=0, change=job_ended()))
            await new.hear(Recorded)
            (row,) = await world.core.store.read(runners.all_runners)
            assert row.is_connected


async def test_a_runner_that_is_gone_is_shown_as_not_connected(world: World) -> None:
    with world.core.bus.subscribe("runners") as topics:
        async with world.runner() as runner:
            await runner.hear(Welcome)
        async with asyncio.timeout(SECONDS):
            while (await world.core.store.read(runners.all_runners))[0].is_connected:
                await topics.wait(1)


# --- what is no message -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        ("not json", "not a message of ours"),
        ('{"type": "nonsense"}', "not a message of ours"),
        (b"\x00", "text frames"),
        ('"' + "x" * (2 << 20) + '"', "at most"),
        (protocol.encode(Hello(software="x", capacity=1, engine="")), "hello is said once"),
    ],
)
async def test_what_is_no_message_of_ours_ends_the_connection_with_a_reason(
    world: World, frame: str | bytes, reason: str
) -> None:
    async with world.runner() as runner:
        await runner.hear(Welcome)
        await runner.socket.send(frame)
        code, said = await runner.closed()
    assert code == CLOSE_PROTOCOL
    assert reason in said


async def test_the_first_message_must_be_hello(world: World) -> None:
    await world.register("a")
    header = {"Authorization": f"Bearer {world.credentials['a']}"}
    async with connect(f"ws://{world.url}/runner/control", additional_headers=header) as raw:
        await raw.send(protocol.encode(Take(free=1)))
        assert await Script(raw).closed() == (CLOSE_PROTOCOL, "the first message must be hello, not take")


async def test_a_runner_of_another_protocol_is_told_to_upgrade(world: World) -> None:
    await world.register("a")
    header = {"Authorization": f"Bearer {world.credentials['a']}"}
    async with connect(f"ws://{world.url}/runner/control", additional_headers=header) as raw:
        await raw.send(protocol.encode(Hello(version=99, software="x", capacity=1, engine="")))
        _, reason = await Script(raw).closed()
    assert "upgrade the older" in reason
