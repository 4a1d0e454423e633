"""Execution: one attempt of one job, from `engine.prepare` to the last line of its journal.

Theory of operation. `Plan` decides; here each started step is one task, which tells the plan its end and
lets it decide again at once (law 9). What happened goes to the journal through one thread, in order, so
that no fsync stands between the end of a step and the start of the next. A `Halt` ends the job early: it
is set once, nothing starts after it, and all that runs is stopped. `engine.destroy` comes before the
journal's last line; where it does not succeed that line is never written, and the supervisor, which then
finds a dead process, removes the attempt before it reports a loss (law 11).
"""

from __future__ import annotations

import asyncio
import platform
import secrets
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from ci import aliases, registries
from ci.environ import run_variables
from ci.errors import Invalid, ShipwayError
from ci.protocol import Change, JobEnded, StepAsks, StepChanged
from ci.registries import Login
from ci.settings import plugin_variables
from ci.spec import Ready, StepKind, StepSpec, Stops
from ci.status import Outcome, Status, of_job
from runners.clone import Source, fill_workspace
from runners.ending import (
    STOPPED_WITH_JOB,
    End,
    Halt,
    end_of,
    ended_unready,
    is_last_of_job,
    never_ready,
    stopped_by,
)
from runners.engines.base import Engine, EngineError, Exit, Owner
from runners.handover import Handover
from runners.journal import Journal
from runners.plan import Plan
from runners.spool import Order, OrderCancel, OrderGranted, OrderKill, SpoolWriter
from runners.step_log import StepLog
from runners.step_run import StepRun, Surroundings

DESTROY_TRIES = 4
_STUCK_SECONDS = 20.0
_SETTLE_SECONDS = 10.0
_ASK_REASON = "waits until the server has recorded its start, because it changes things outside"


class Execution:
    """Runs the attempt of `handover`. For one event loop; `order` and `halt` are called in it."""

    def __init__(
        self, handover: Handover, spool: SpoolWriter, engine: Engine, make_clone: Callable[[], Source]
    ) -> None:
        self._assign = handover.assign
        self._spec = handover.assign.spec
        self._owner = Owner(
            server=handover.server,
            runner=handover.runner,
            job=handover.assign.lease.job,
            attempt=handover.assign.lease.attempt,
        )
        self._spool = spool
        self._engine = engine
        self._clone = make_clone() if self._spec.clone else None
        self._logins, self._login_problem = _logins(handover)
        passwords = [login.password for login in self._logins.values()]
        self._masks = (*self._assign.masks, *(self._clone.masks if self._clone else ()), *passwords)
        self._secrets = spool.patterns(self._masks)
        self._plan = Plan(self._spec)
        self._journal = Journal(spool, self._journal_broke)
        self._began, self._began_at = time.monotonic(), time.time()
        self._halt: Halt | None = None
        self._halted = asyncio.Event()
        self._over = asyncio.Event()
        self._granted = {step.number: asyncio.Event() for step in self._spec.steps if step.deploy}
        self._stopped = {step.slug: asyncio.Event() for step in self._spec.steps}
        self._ended_by: dict[str, End] = {}  #: what steps become that we stopped, beside the halt
        self._stops_build = False
        self._ends: dict[str, End] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Returns after the journal's last line. Raises where the attempt cannot be told or cleaned up."""
        limit = self._spec.timeout_seconds
        timer = asyncio.get_running_loop().call_later(limit, self.halt, Halt.timeout(limit, self._grace))
        try:
            if await self._prepare():
                self._advance()
                await self._wait_until_over()
        finally:
            timer.cancel()
            await self._destroy()
        await self._settle()
        self._record(self._job_end())
        await self._journal.close()

    # --- what comes from outside -----------------------------------------------------------------

    def order(self, order: Order) -> None:
        match order:
            case OrderGranted():
                if order.step in self._granted:
                    self._granted[order.step].set()
            case OrderCancel():
                self.halt(Halt.cancel(order.reason, self._grace))
            case OrderKill():
                self.halt(Halt.infra(order.reason))

    def halt(self, halt: Halt) -> None:
        """End the job early. The first one says why; a later one may only hurry."""
        if self._over.is_set():
            return
        self._halt = self._halt or halt
        for step in self._plan.end_undecided(halt.undecided_end.status):
            self._record_end(step, halt.undecided_end)
        self._halted.set()
        for step in self._spec.steps:
            if not self._plan.status(step.slug).is_terminal:
                self._stop(step, halt.grace_seconds)
        self._look_whether_over()

    # --- the line ----------------------------------------------------------------------------------

    async def _prepare(self) -> bool:
        """Whether the job may begin."""
        if self._login_problem:
            self.halt(Halt.infra(self._login_problem))
            return False
        task = asyncio.ensure_future(self._engine.prepare(self._spec, self._owner, self._logins))
        waiter = asyncio.ensure_future(self._halted.wait())
        await asyncio.wait((task, waiter), return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()
        if not task.done():
            task.cancel()
        try:
            await task
        except EngineError as error:
            self.halt(Halt.infra(str(error)))
        except asyncio.CancelledError:
            pass
        except Exception as error:  # the edge: whatever an engine raises ends the job with a reason
            self.halt(Halt.infra(self._internal(error)))
        return not self._halted.is_set()

    def _advance(self) -> None:
        """Look at the plan again: start, skip, hint, stop what only accompanies."""
        if self._halt is None:
            for decision in self._plan.decide():
                if decision.is_start:
                    self._spawn(self._run_step(decision.step))
                else:
                    self._skip([decision.step], decision.skip_reason)
            for step in self._plan.near():
                if step.kind is not StepKind.CLONE:
                    self._engine.ready(step)
        for step in self._plan.stop_rest():
            self._stop(step, self._grace)
        self._look_whether_over()

    def _look_whether_over(self) -> None:
        if self._plan.is_over:
            self._over.set()

    async def _wait_until_over(self) -> None:
        """A halted job does not wait for an engine that does not end its steps."""
        over = asyncio.ensure_future(self._over.wait())
        halted = asyncio.ensure_future(self._halted.wait())
        await asyncio.wait((over, halted), return_when=asyncio.FIRST_COMPLETED)
        if self._halt is not None:
            patience = self._halt.grace_seconds + _STUCK_SECONDS if self._halt.grace_seconds else 0
            await asyncio.wait((over,), timeout=patience)
        over.cancel()
        halted.cancel()

    async def _settle(self) -> None:
        """After `destroy` every step ends by itself; what does not is left alone."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_SETTLE_SECONDS)
        left = tuple(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _destroy(self) -> None:
        for again in range(DESTROY_TRIES):
            try:
                return await self._engine.destroy()
            except EngineError:
                if again + 1 == DESTROY_TRIES:
                    raise
                await asyncio.sleep(2.0**again)

    # --- a step ------------------------------------------------------------------------------------

    async def _run_step(self, step: StepSpec) -> None:
        if step.deploy and not await self._is_granted(step):
            return self._finish(step, Exit(code=None, outcome=Outcome.CANCELLED))
        self._record(StepChanged(step=step.number, status=Status.RUNNING, after_seconds=self._after()))
        token = secrets.token_hex(16)
        try:
            log = self._open_log(step, token)
        except ShipwayError as error:
            exit_ = Exit(code=None, outcome=Outcome.INFRA, reason=str(error))
            return self._finish(step, exit_)
        run = StepRun(step, log, self._around(step, token))
        return self._finish(step, await run.run(), log, run)

    def _open_log(self, step: StepSpec, token: str) -> StepLog:
        return self._spool.open_log(
            step.number, masks=self._masks, token=token, limit_bytes=step.limits.log_bytes
        )

    def _around(self, step: StepSpec, token: str) -> Surroundings:
        return Surroundings(
            engine=self._engine,
            token=token,
            environment=lambda of_files: self._environment(step, of_files),
            clone=self._fill if step.kind is StepKind.CLONE else None,
            on_started=lambda: self._has_begun(step),
            stop=lambda: self._stop_try(step, self._grace),
            stopped=self._stopped[step.slug],
            say=self._say,
        )

    async def _fill(self, log: StepLog) -> Exit:
        if self._clone is None:
            raise EngineError("the job has a clone step but does not say what to clone")
        return await fill_workspace(self._clone, self._engine, log)

    def _environment(self, step: StepSpec, of_files: Mapping[str, str]) -> dict[str, str]:
        """Later ones win: the job's, what earlier steps put out, files of the workspace, the step's own."""
        of_the_job = {**self._spec.environment, **self._run_variables()}
        if step.kind is StepKind.PLUGIN:
            of_the_job = aliases.plugin_view({**of_the_job, **step.environment})
        else:
            made = aliases.made({**of_the_job, **step.environment})
            of_the_job = {**self._plan.outputs(step.slug), **made, **of_the_job}
        return {**of_the_job, **of_files, **self._own_variables(step)}

    def _own_variables(self, step: StepSpec) -> dict[str, str]:
        """What the step's file says of it. A secret that was withheld is empty."""
        known = defaultdict(str, self._assign.secrets)
        secrets = {variable: known[name] for variable, name in step.secrets.items()}
        return {**step.environment, **secrets, **plugin_variables(step.settings, known)}

    def _run_variables(self) -> dict[str, str]:
        return run_variables(
            has_failed=self._plan.has_failed,
            job_started_at=self._began_at,
            step_started_at=time.time(),
            machine=platform.node(),
            architecture=platform.machine(),
        )

    def _has_begun(self, step: StepSpec) -> None:
        if step.ready is not None:
            self._spawn(self._await_ready(step, step.ready))
        else:
            self._started(step)

    def _started(self, step: StepSpec) -> None:
        self._plan.started(step.slug)
        self._advance()

    async def _await_ready(self, step: StepSpec, ready: Ready) -> None:
        """What depends on the service goes on once it is ready; one that never is ends as an error."""
        until = time.monotonic() + ready.timeout_seconds
        while not self._plan.status(step.slug).is_terminal and not self._stopped[step.slug].is_set():
            try:
                why = await self._engine.probe(step.slug, ready)
            except EngineError as error:
                why = str(error)
            if not why:
                return self._started(step)
            if time.monotonic() + ready.interval_seconds > until:
                self._ended_by[step.slug] = never_ready(ready.timeout_seconds, why)
                return self._stop(step, self._grace)
            await asyncio.sleep(ready.interval_seconds)
        return None

    async def _is_granted(self, step: StepSpec) -> bool:
        """Ask, and wait for the server's word or the end of the job (law 3)."""
        after = self._after()
        self._record(
            StepChanged(step=step.number, status=Status.WAITING, reason=_ASK_REASON, after_seconds=after)
        )
        self._record(StepAsks(step=step.number, after_seconds=after))
        grant = asyncio.ensure_future(self._granted[step.number].wait())
        halted = asyncio.ensure_future(self._halted.wait())
        await asyncio.wait((grant, halted), return_when=asyncio.FIRST_COMPLETED)
        is_granted = grant.done() and not halted.done()
        grant.cancel()
        halted.cancel()
        return is_granted

    def _finish(
        self, step: StepSpec, exit_: Exit, log: StepLog | None = None, run: StepRun | None = None
    ) -> None:
        end = end_of(step, exit_, self._stop_of(step) or (run.limit if run else None))
        if step.ready is not None and not self._plan.has_started(step.slug):
            end = ended_unready(end, log.tail() if log else "")
        self._plan.ended(step.slug, end.status, run.outputs if run else {})
        self._record_end(step, end, exit_.code, log)
        if end.status is Status.SUCCESS and is_last_of_job(step, exit_):
            self._skip(self._plan.end_undecided(Status.SKIPPED), f"{step.name} {end.reason}")
        elif end.status in (Status.FAILURE, Status.ERROR) and step.failure_stops is not Stops.NOTHING:
            self._stop_for(step)
        self._advance()

    def _stop_of(self, step: StepSpec) -> End | None:
        """What the step is by a stop of ours, if there was one."""
        if self._plan.is_stopped_with_job(step.slug):
            return STOPPED_WITH_JOB
        return self._halt.end if self._halt else self._ended_by.get(step.slug)

    def _stop_for(self, culprit: StepSpec) -> None:
        """Its failure ends the job, and perhaps the build: what runs on a failure still does."""
        self._stops_build = self._stops_build or culprit.failure_stops is Stops.BUILD
        skipped, running = self._plan.stop_for(culprit.slug)
        self._skip(skipped, f"{culprit.name} failed, and that ends the job")
        for step in running:
            self._ended_by.setdefault(step.slug, stopped_by(culprit))
            self._stop(step, self._grace)

    def _skip(self, steps: list[StepSpec], reason: str) -> None:
        for step in steps:
            self._record_end(step, End(Status.SKIPPED, Outcome.SKIPPED, reason))

    def _stop(self, step: StepSpec, grace_seconds: float) -> None:
        """For good: it is not tried again."""
        self._stopped[step.slug].set()
        self._stop_try(step, grace_seconds)

    def _stop_try(self, step: StepSpec, grace_seconds: float) -> None:
        if step.kind is StepKind.CLONE:
            if self._clone:
                self._clone.abort()
            return
        self._spawn(self._engine.stop(step.slug, grace_seconds))

    # --- the journal -------------------------------------------------------------------------------

    def _record(self, change: Change) -> None:
        """A reason may quote what an engine, a registry or git said: masked like a log."""
        if isinstance(change, StepChanged | JobEnded) and change.reason:
            change = change.model_copy(update={"reason": self._secrets.mask(change.reason)})
        self._journal.put(lambda: change)

    def _record_end(
        self, step: StepSpec, end: End, exit_code: int | None = None, log: StepLog | None = None
    ) -> None:
        self._ends[step.slug] = end
        if log is not None:
            self._journal.put(log.close)
        self._record(
            StepChanged(
                step=step.number,
                status=end.status,
                outcome=end.outcome,
                reason=end.reason,
                exit_code=exit_code,
                after_seconds=self._after(),
            )
        )

    def _job_end(self) -> JobEnded:
        status, halt = self._plan.fold(), self._halt
        if halt is not None:
            status = of_job([(status, False), (halt.status, False)])
            end = End(status, halt.outcome, halt.reason)
        else:
            end = self._worst_end(status)
        return JobEnded(
            status=status,
            outcome=end.outcome,
            reason=end.reason,
            after_seconds=self._after(),
            stops_build=self._stops_build,
        )

    def _worst_end(self, status: Status) -> End:
        """What the first step to end so badly says of itself, named."""
        for slug, end in self._ends.items():
            step = self._spec.step(slug)
            forgives = step.ignore_failure or step.kind is StepKind.SERVICE
            is_forgiven = forgives and end.status is Status.FAILURE
            if end.status is status and status not in (Status.SUCCESS, Status.SKIPPED) and not is_forgiven:
                return End(status, end.outcome, f"{step.name}: {end.reason}" if end.reason else "")
        return End(status)

    def _journal_broke(self, error: BaseException) -> None:
        self.halt(Halt.infra(f"The job's journal cannot be written: {error}"))

    # --- small things ------------------------------------------------------------------------------

    @property
    def _grace(self) -> float:
        return float(self._spec.grace_seconds)

    def _after(self) -> float:
        return time.monotonic() - self._began

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(self._quiet(coroutine))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _quiet(self, coroutine: Coroutine[Any, Any, None]) -> None:
        try:
            await coroutine
        except EngineError as error:  # of a `stop`: `destroy` follows anyhow
            self._say(f"engine: {error}")

    def _internal(self, error: Exception) -> str:
        self._say("".join(traceback.format_exception(error)))
        return f"internal error in the runner: {type(error).__name__}: {error}"

    def _say(self, text: str) -> None:
        """Into the spool's own file: on a disk, so masked."""
        print(self._secrets.mask(text), file=sys.stderr)


def _logins(handover: Handover) -> tuple[dict[str, Login], str]:
    """The registries' logins that the job's secrets hold, and what is wrong with one of them."""
    found: dict[str, Login] = {}
    given = handover.assign.secrets  # a stranger's build gets none: then images are pulled without
    for name in (name for name in handover.assign.spec.pull_secrets if name in given):
        try:
            found |= registries.logins(given[name])
        except Invalid as error:
            return {}, f"images cannot be pulled with the secret {name}: {error}"
    return found, ""
