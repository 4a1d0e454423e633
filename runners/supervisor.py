"""Supervisor: the runner's long-lived process. Holds leases, hands jobs to job processes, ships spools.

Theory of operation. It can be killed at any moment: all that it knows stands in the spools and on the
server. Everything runs in one event loop; what blocks (the engine's janitor, starting processes) runs in
threads. The two links run on their own: without a server the jobs go on, up to the disconnect limit. The
first request to stop drains (what runs is finished and shipped), the second kills.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from ci import __version__
from ci.protocol import (
    HEARTBEAT_SECONDS,
    AskDead,
    Assign,
    Dead,
    Drain,
    Heartbeat,
    Hello,
    LogFrame,
    ServerMessage,
    Take,
    Welcome,
)
from runners import spool
from runners.control import Control
from runners.credential import Credential
from runners.ending import duration
from runners.engines.base import Janitor
from runners.handover import Handover
from runners.keeper import Keeper, Talk
from runners.link import Link
from runners.machine import Machine
from runners.reaper import Key, Reaper
from runners.settings import RunnerSettings
from runners.shipper import LogShipper
from runners.spawner import Spawner

LOOK_SECONDS = 1.0
#: After a kill, the last words get so long to reach the server; what does not waits in the spool.
LAST_WORDS_SECONDS = 10.0
DEFAULT_DISCONNECT_LIMIT_SECONDS = 900.0


class Supervisor:
    """One runner. `run` returns once it is drained or killed, both asked for by `stop`."""

    def __init__(self, settings: RunnerSettings, credential: Credential, janitor: Janitor) -> None:
        self._settings = settings
        self._credential = credential
        self._machine = Machine(janitor, credential.server, self._engine_changed)
        self._spawner = Spawner(settings.engine, settings.data)
        self._control = Control(self._hello, self._take)
        talk = Talk(
            is_open=lambda: self._control.is_open,
            send=self._control.send,
            on_change=self._changed,
            on_failure=self._fail,
        )
        self._keeper = Keeper(settings, self._machine, self._spawner, self._handover, talk)
        self._shipper = LogShipper(self._keeper.attempts.values, self._take_frame)
        self._reaper = Reaper(self._machine, str(credential.runner), self._keeper.may_need, self._ask_dead)
        self._control_link = self._link("control", "/runner/control", self._control)
        self._logs_link = self._link("logs", "/runner/logs", self._shipper)
        self._disconnect_limit = DEFAULT_DISCONNECT_LIMIT_SECONDS
        self._last_contact = time.monotonic()
        self._offered = 0  #: what the server may still assign
        self._stops = 0
        self._is_draining = False
        self._done = asyncio.Event()
        self._failure: BaseException | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self) -> None:
        self._settings.spools.mkdir(parents=True, exist_ok=True)
        spool.touch_supervisor(self._settings.spools)
        self._keeper.adopt()
        await self._machine.probe()
        for work in (
            self._control_link.run(),
            self._logs_link.run(),
            self._beat(),
            self._look(),
            self._machine.keep_probing(),
            self._reaper.run(),
            self._spawner.start_spare(),
        ):
            self._spawn(work)
        await self._done.wait()
        self._spawner.close()
        await self._keeper.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._failure:
            raise self._failure

    def stop(self) -> None:
        """The first call drains, the second kills, the third leaves everything as it is."""
        self._stops += 1
        if self._stops == 1:
            count = self._keeper.places_taken
            rest = f"finishing {count} job{'s' if count != 1 else ''} (once more to kill)" if count else "bye"
            print(f"runner: draining, {rest}", file=sys.stderr, flush=True)
        elif self._stops == 2:
            self._keeper.kill_all("the runner was told to stop at once")
            asyncio.get_running_loop().call_later(LAST_WORDS_SECONDS, self._done.set)
        else:
            self._done.set()
        self._changed()

    # --- what we say ---------------------------------------------------------------------------------

    def _hello(self) -> Hello:
        return Hello(
            software=f"shipway {__version__}",
            labels=self._settings.all_labels,
            capacity=self._settings.capacity if self._machine.is_there else 0,
            engine=self._machine.engine,
            held=self._keeper.held(),
        )

    @property
    def _free(self) -> int:
        if self._stops or self._is_draining or not self._machine.is_there:
            return 0
        return max(0, self._settings.capacity - self._keeper.places_taken)

    def _changed(self) -> None:
        """There may be bytes to ship, and the number of free places may be another."""
        self._shipper.ring()
        free = self._free
        # The server counts down by itself with each job that it assigns.
        if self._control.is_open and (free > self._offered or free == 0 < self._offered):
            self._offered = free
            self._control.send(Take(free=free))
        self._keeper.accept_offers()
        if self._stops and not self._keeper.attempts:
            self._done.set()

    def _ask_dead(self, keys: tuple[Key, ...]) -> None:
        self._control.send(AskDead(attempts=keys))

    def _engine_changed(self) -> None:
        """The server learns it from a new Hello."""
        self._control_link.renew()

    def _handover(self, assign: Assign, folder: Path) -> Handover:
        return Handover(
            assign=assign,
            spool=str(folder.resolve()),
            data=str(self._settings.data.resolve()),
            server=self._credential.server,
            runner=str(self._credential.runner),
            disconnect_limit_seconds=self._disconnect_limit,
        )

    # --- what the server says --------------------------------------------------------------------------

    def _take(self, message: ServerMessage) -> None:
        match message:
            case Welcome():
                self._welcome(message)
            case Assign():
                self._offered = max(0, self._offered - 1)
                self._keeper.assigned(message)
            case Dead():
                self._dead(message.attempts)
            case Drain():
                self._is_draining = message.is_draining
            case _:
                self._keeper.take(message)
        self._changed()

    def _welcome(self, message: Welcome) -> None:
        self._disconnect_limit = message.disconnect_limit_seconds
        self._offered = 0
        self._is_draining = False
        self._keeper.welcome(message)

    def _dead(self, keys: tuple[Key, ...]) -> None:
        for key in keys:
            if key in self._keeper.attempts:
                self._keeper.dead(key)
            else:
                self._spawn(self._reaper.dead(key))

    def _take_frame(self, frame: LogFrame) -> None:
        if not self._keeper.take_frame(frame):
            # Either a newer epoch is on its way to us, or the attempt is over: a new Hello tells.
            self._control_link.renew()

    # --- loops --------------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        """Our sign of life to the server; never behind other messages."""
        while True:
            beat = Heartbeat(leases=self._keeper.leases(), free=self._free)
            self._spawn(self._control.send_now(beat))
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def _look(self) -> None:
        """Look at everything again, and show our job processes that we live."""
        while True:
            await asyncio.to_thread(spool.touch_supervisor, self._settings.spools)
            self._spawner.reap()
            self._keeper.look_all()
            self._look_at_contact()
            await asyncio.sleep(LOOK_SECONDS)

    def _look_at_contact(self) -> None:
        now = time.monotonic()
        if self._control.is_open:
            self._last_contact = now
        elif now - self._last_contact > self._disconnect_limit:
            self._keeper.kill_all(f"no contact with the server for {duration(self._disconnect_limit)}")

    # --- small things ---------------------------------------------------------------------------------------

    def _link(self, name: str, path: str, served: Control | LogShipper) -> Link:
        return Link(
            name,
            self._settings.socket_url(path),
            self._credential.credential,
            served.serve,
            is_loopback=self._settings.is_server_on_loopback,
        )

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """A loop that fails ends the supervisor: the next one goes on from the spools."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self._done.set()
