"""The runners' control socket, and the request with which a runner registers.

One `_Session` a connection, three tasks each: one receives and answers, one looks what the runner must
hear (a job, a cancel, an end), one sends, so that messages go out in one order. The session remembers
nothing that matters: whatever it says is looked up in the store, when a topic rings and every 15 s.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from ci import protocol
from ci.errors import Conflict, Forbidden, Invalid, ShipwayError, TooLarge, Unavailable
from ci.protocol import (
    Accept,
    AskDead,
    Cancel,
    Dead,
    Drain,
    Heartbeat,
    Hello,
    Lease,
    Lost,
    Record,
    Released,
    RunnerMessage,
    ServerMessage,
    Take,
)
from ci.server.bus import Bus
from ci.server.clock import Clock
from ci.server.lifecycle import Lifecycle
from ci.server.queue import Queue
from ci.server.store import meta, runners
from ci.server.store.database import Connection, Store
from web import schemas
from web.openapi import Operation, describe

HELLO_SECONDS = 30.0
MAX_MESSAGE_CHARS = 1 << 20
MAX_REGISTRATION_BYTES = 64 << 10
_QUEUED_MESSAGES = 256
# WebSocket close codes: 1002 protocol error, 1008 policy, 1013 try again later, 4000-4999 are ours.
CLOSE_PROTOCOL = 1002
CLOSE_POLICY = 1008
CLOSE_AGAIN = 1013
CLOSE_REPLACED = 4001
_log = logging.getLogger(__name__)


class Registration(BaseModel):
    """What a new runner sends, once."""

    code: Annotated[str, Field(max_length=100)]
    name: Annotated[str, Field(max_length=200)]
    labels: Annotated[dict[str, str], Field(default_factory=dict, max_length=100)]
    capacity: int
    credential: Annotated[str, Field(default="", max_length=100, repr=False)]


class _Closing(Exception):
    """End the connection with this code and a reason that the runner prints."""

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        super().__init__(reason)


class RunnerDoor:
    """The two ways in for runners. `control` is a WebSocket endpoint, `register` a POST."""

    def __init__(self, *, store: Store, bus: Bus, clock: Clock, queue: Queue, lifecycle: Lifecycle) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._queue = queue
        self._lifecycle = lifecycle
        self._sessions: dict[int, _Session] = {}

    @describe(
        Operation(
            summary="Register a runner with a code; it keeps the credential",
            answer=schemas.RegistrationAnswer,
            status=201,
            body=schemas.Registration,
            errors=(Conflict, Forbidden),
        )
    )
    async def register(self, request: Request) -> Response:
        registration = await _registration(request)
        now = self._clock.now()

        def add(connection: Connection) -> tuple[int, str, str]:
            runner_id, credential = runners.register(
                connection,
                code=registration.code,
                name=registration.name,
                labels=registration.labels,
                capacity=registration.capacity,
                now=now,
                credential=registration.credential,
            )
            return runner_id, credential, meta.server_id(connection, now)

        runner_id, credential, server_id = await self._store.write(add)
        self._bus.publish("runners")
        answer = {
            "runner": runner_id,
            "name": registration.name,
            "server": server_id,
            "credential": credential,
        }
        return JSONResponse(answer, status_code=201)

    async def runner_of(self, websocket: WebSocket) -> int | None:
        """The id of the runner whose credential the connection carries; for the log socket too."""
        scheme, _, credential = websocket.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not credential:
            return None
        found = await self._store.read(
            lambda connection: runners.by_credential(connection, credential.strip())
        )
        return found.id if found else None

    async def control(self, websocket: WebSocket) -> None:
        runner_id = await self.runner_of(websocket)
        if runner_id is None:
            await refuse(websocket)
            return
        await websocket.accept()
        session = _Session(websocket, runner_id, self._queue, self._lifecycle, self._bus, self._store)
        try:
            hello = await session.first()
            before = self._sessions.get(runner_id)
            self._sessions[runner_id] = session
            if before is not None:
                await before.replace()
            await session.run(hello)
        except WebSocketDisconnect:
            pass
        except _Closing as closing:
            await _close(websocket, closing.code, str(closing))
        finally:
            if self._sessions.get(runner_id) is session:
                del self._sessions[runner_id]
                await self._lifecycle.goodbye(runner_id)


class _Session:
    def __init__(
        self,
        websocket: WebSocket,
        runner_id: int,
        queue: Queue,
        lifecycle: Lifecycle,
        bus: Bus,
        store: Store,
    ) -> None:
        self._websocket = websocket
        self._runner_id = runner_id
        self._queue = queue
        self._lifecycle = lifecycle
        self._store = store
        self._topics = bus.subscribe("queue", "runners", f"runner:{runner_id}")
        self._outgoing: asyncio.Queue[ServerMessage] = asyncio.Queue(_QUEUED_MESSAGES)
        self._free = 0
        self._leases: dict[tuple[int, int], Lease] = {}  #: given to the runner, their end not yet said
        self._cancelled: set[Lease] = set()
        self._is_draining = False
        self._task: asyncio.Task[object] | None = None
        self._is_replaced = False
        self._is_over = asyncio.Event()

    async def first(self) -> Hello:
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                message = await self._next()
        except TimeoutError:
            raise _Closing(CLOSE_PROTOCOL, f"no hello within {HELLO_SECONDS:.0f} s") from None
        if not isinstance(message, Hello):
            raise _Closing(CLOSE_PROTOCOL, f"the first message must be hello, not {message.type}")
        return message

    async def replace(self) -> None:
        """The runner has connected anew: nothing of this connection may be applied after this returns."""
        self._is_replaced = True
        if self._task is not None:
            self._task.cancel()
            await self._is_over.wait()

    async def run(self, hello: Hello) -> None:
        """Serve the connection until it ends. Raises _Closing or WebSocketDisconnect."""
        self._task = asyncio.current_task()
        try:
            if self._is_replaced:
                raise asyncio.CancelledError
            with self._topics:
                await self._greet(hello)
                async with asyncio.TaskGroup() as group:
                    for work in (self._receive(), self._look(), self._send()):
                        group.create_task(work)
        except asyncio.CancelledError:
            if not self._is_replaced:
                raise
            raise _Closing(CLOSE_REPLACED, "this runner has connected again") from None
        except BaseExceptionGroup as group:
            raise _end_of(group.exceptions[0]) from None
        except ShipwayError as error:
            raise _end_of(error) from None
        finally:
            self._is_over.set()

    async def _greet(self, hello: Hello) -> None:
        welcome = await self._lifecycle.hello(self._runner_id, hello)
        self._leases = {lease.key: lease for lease in welcome.leases}
        await self._put(welcome)
        await self._put(*await self._lifecycle.pending_grants(self._runner_id))
        self._topics.ring("hello")

    # --- in ---------------------------------------------------------------------------------------

    async def _next(self) -> RunnerMessage:
        event = await self._websocket.receive()
        if event["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(event.get("code", 1005), event.get("reason"))
        text = event.get("text")
        if text is None:
            raise _Closing(CLOSE_PROTOCOL, "control messages are text frames")
        if len(text) > MAX_MESSAGE_CHARS:
            raise _Closing(CLOSE_PROTOCOL, f"a control message has at most {MAX_MESSAGE_CHARS} characters")
        try:
            return protocol.decode_from_runner(text)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise _Closing(CLOSE_PROTOCOL, f"not a message of ours: {place}: {first['msg']}") from error

    async def _receive(self) -> None:
        while True:
            await self._put(*await self._answer(await self._next()))

    async def _answer(self, message: RunnerMessage) -> Iterable[ServerMessage]:
        match message:
            case Heartbeat():
                self._queue.heartbeat(self._runner_id, message.leases)
            case Take():
                self._free = message.free
                self._topics.ring("take")
            case Accept():
                begin = await self._queue.accept(self._runner_id, message.lease)
                return [begin] if begin else await self._lifecycle.over(self._runner_id, [message.lease])
            case Record():
                return await self._lifecycle.apply(self._runner_id, message)
            case Lost():
                return await self._lifecycle.lost(self._runner_id, message)
            case AskDead():
                return [Dead(attempts=await self._lifecycle.ask_dead(message.attempts))]
            case Hello():
                raise _Closing(CLOSE_PROTOCOL, "hello is said once a connection")
        return []

    # --- out --------------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Subscribed before the first look; looks again when something rings, and every 15 s."""
        while True:
            await self._topics.wait()
            await self._drain()
            await self._put(*await self._cancels())
            await self._put(*await self._ends())
            await self._put(*await self._jobs())

    async def _drain(self) -> None:
        runner = await self._store.read(lambda connection: runners.find(connection, self._runner_id))
        if runner is None:
            raise _Closing(CLOSE_POLICY, "this runner was removed from the server")
        if runner.is_draining != self._is_draining:
            self._is_draining = runner.is_draining
            await self._put(Drain(is_draining=runner.is_draining))

    async def _cancels(self) -> list[Cancel]:
        wanted = await self._lifecycle.pending_cancels(self._runner_id)
        fresh = [cancel for cancel in wanted if cancel.lease not in self._cancelled]
        self._cancelled.update(cancel.lease for cancel in fresh)
        return fresh

    async def _ends(self) -> list[Released | Dead]:
        if not self._leases:
            return []
        found = await self._lifecycle.over(self._runner_id, self._leases.values())
        for message in found:
            over = [message.lease.key] if isinstance(message, Released) else message.attempts
            for key in over:
                self._leases.pop(key, None)
        return found

    async def _jobs(self) -> list[ServerMessage]:
        if self._free <= 0:
            return []
        offered, self._free = self._free, 0
        assigned = await self._queue.take(self._runner_id, offered)
        if self._free == 0:  # no newer Take came meanwhile
            self._free = offered - len(assigned)
        self._leases.update({each.lease.key: each.lease for each in assigned})
        return list(assigned)

    async def _put(self, *messages: ServerMessage) -> None:
        for message in messages:
            await self._outgoing.put(message)

    async def _send(self) -> None:
        while True:
            message = await self._outgoing.get()
            try:
                await self._websocket.send_text(protocol.encode(message))
            except (RuntimeError, OSError) as error:  # closed under our hands
                raise WebSocketDisconnect from error


def _end_of(error: BaseException) -> BaseException:
    """What our own errors mean for the connection: come again later, or do not."""
    if isinstance(error, ShipwayError):
        return _Closing(CLOSE_AGAIN if isinstance(error, Unavailable) else CLOSE_POLICY, str(error))
    return error


async def refuse(websocket: WebSocket) -> None:
    """401 instead of the handshake."""
    text = "this runner is not known here: its credential is missing, wrong or removed; register it again"
    if "websocket.http.response" in websocket.scope.get("extensions", {}):
        await websocket.send_denial_response(PlainTextResponse(text, status_code=401))
    else:
        await websocket.close(CLOSE_POLICY, text)


async def _close(websocket: WebSocket, code: int, reason: str) -> None:
    if websocket.client_state is not WebSocketState.CONNECTED:
        return
    short = reason.encode()[:120].decode(errors="ignore")  # the frame has room for 123 bytes
    try:
        await websocket.close(code, short)
    except (RuntimeError, OSError):  # gone already
        _log.debug("closing a runner's socket that is gone", exc_info=True)


async def _registration(request: Request) -> Registration:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_REGISTRATION_BYTES:
            raise TooLarge(f"a registration has at most {MAX_REGISTRATION_BYTES} bytes")
    try:
        return Registration.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the body"
        raise Invalid(f"this is no registration: {place}: {first['msg']}") from error
