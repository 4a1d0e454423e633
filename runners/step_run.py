"""Step run: one step, from its start to the end that counts: its log, its limits, its further tries.

Theory of operation. Each try is a fresh container with its limits counted anew; all of them write one log. A
try that a limit has ended may be followed by another; one that the job has stopped never is.
"""

from __future__ import annotations

import asyncio
import math
import time
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ci import dotenv
from ci.errors import ShipwayError
from ci.spec import Retry, StepSpec
from ci.status import Outcome, Status
from runners.clone import CloneError
from runners.ending import End, duration, end_of, over_limit, silent
from runners.engines.base import Engine, EngineError, Exit, Launch
from runners.step_log import StepLog

MAX_FILE_BYTES = 256 * 1024
_MOST_COMPLAINTS = 10


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a step run needs of its job; all is called in the event loop."""

    engine: Engine
    token: str  #: of the step's marks
    environment: Callable[[Mapping[str, str]], Mapping[str, str]]  #: complete; is given what files say
    clone: Callable[[StepLog], Awaitable[Exit]] | None  #: in place of a container
    on_started: Callable[[], None]
    stop: Callable[[], None]  #: stops the try that is under way
    stopped: asyncio.Event  #: the job wants no further try
    say: Callable[[str], None]


class StepRun:
    """For one event loop. `limit`: what the step became by a limit of its own; `outputs`: what it put out."""

    def __init__(self, step: StepSpec, log: StepLog, around: Surroundings) -> None:
        self._step = step
        self._log = log
        self._around = around
        self._output = _Watched(log)
        self.limit: End | None = None
        self.outputs: dict[str, str] = {}

    async def run(self) -> Exit:
        """How the last try ended. Never raises for what went wrong with the step."""
        retry = self._step.retry or Retry(attempts=1)
        number = 1
        while True:
            self.limit = None
            exit_ = await self._try(number)
            end = end_of(self._step, exit_, self.limit)
            if number >= retry.attempts or not _is_worth(retry, end) or self._around.stopped.is_set():
                return exit_
            pause = retry.pause_seconds * 2 ** (number - 1)
            then = f"in {duration(round(pause, 1))}" if pause else "now"
            self._log.note(f"Run {number} of {retry.attempts}: {end.reason}. It is run again {then}.")
            if await self._is_stopped_within(pause):
                return exit_
            number += 1

    async def _is_stopped_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._around.stopped.wait(), seconds)
        return self._around.stopped.is_set()

    async def _try(self, number: int) -> Exit:
        self._output.last = math.inf
        limits = [asyncio.create_task(limit) for limit in self._limits()]
        try:
            return await self._start(number)
        except asyncio.CancelledError:
            return _infra("the engine never said how it ended")
        except _Unfit as error:
            return Exit(code=None, reason=str(error))
        except (EngineError, CloneError, ShipwayError) as error:
            return _infra(str(error))
        except Exception as error:  # the edge: whatever goes wrong with a step is its end, with a reason
            self._around.say("".join(traceback.format_exception(error)))
            return _infra(f"internal error in the runner: {type(error).__name__}: {error}")
        finally:
            for limit in limits:
                limit.cancel()
            self._take_outputs()

    async def _start(self, number: int) -> Exit:
        if self._around.clone is not None:
            return await self._around.clone(self._log)
        loop = asyncio.get_running_loop()

        def on_started() -> None:
            self._output.touch()
            loop.call_soon_threadsafe(self._around.on_started)

        launch = Launch(
            step=self._step,
            environment=self._around.environment(await self._of_files()),
            mark_token=self._around.token,
            output=self._output,
            on_started=on_started,
            number=number,
        )
        return await self._around.engine.run(launch)

    # --- files and outputs ---------------------------------------------------------------------------

    async def _of_files(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for path in self._step.environment_files:
            data = await self._around.engine.read(path, MAX_FILE_BYTES)
            if data is None:
                raise _Unfit(f"its environment file {path} is not there")
            read = dotenv.of_file(data.decode(errors="replace"))
            found |= read.values
            self._complain(f"In {path}", read.complaints)
        return found

    def _take_outputs(self) -> None:
        """Of the last try only: what was put out before is forgotten."""
        lines, is_all = self._log.take_said()
        found = dotenv.of_outputs(lines)
        self.outputs = found.values
        if not is_all:
            self._log.note("What it put out is longer than is kept: the rest is left out.")
        self._complain("Of what it put out", found.complaints)

    def _complain(self, where: str, complaints: tuple[str, ...]) -> None:
        for complaint in complaints[:_MOST_COMPLAINTS]:
            self._log.note(f"{where}, {complaint}.")

    # --- limits --------------------------------------------------------------------------------------

    def _limits(self) -> list[Coroutine[Any, Any, None]]:
        found: list[Coroutine[Any, Any, None]] = []
        if self._step.timeout_seconds is not None:
            found.append(self._limit_all(self._step.timeout_seconds))
        if self._step.no_output_seconds is not None:
            found.append(self._limit_silence(self._step.no_output_seconds))
        return found

    async def _limit_all(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._over(over_limit(seconds))

    async def _limit_silence(self, seconds: float) -> None:
        """A pull, or waiting for a place, is no silence of the step's own code."""
        while (left := self._output.last + seconds - time.monotonic()) > 0:
            await asyncio.sleep(min(left, seconds))
        self._over(silent(seconds))

    def _over(self, end: End) -> None:
        if self.limit is None:
            self.limit = end
            self._around.stop()


class _Watched:
    """An engines.base.Output that knows when something was printed last."""

    def __init__(self, log: StepLog) -> None:
        self._log = log
        self.last = math.inf  #: by the monotonic clock; never, before the step's own code began

    def touch(self) -> None:
        self.last = time.monotonic()

    def write(self, data: bytes) -> None:
        self._log.write(data)
        self.touch()


class _Unfit(Exception):
    """The step cannot start, by the fault of its pipeline."""


def _is_worth(retry: Retry, end: End) -> bool:
    return end.status is Status.ERROR or (retry.on_any_failure and end.status is Status.FAILURE)


def _infra(reason: str) -> Exit:
    return Exit(code=None, outcome=Outcome.INFRA, reason=reason)
