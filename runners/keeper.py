"""Keeper: the attempts that this runner has, from the offer to the deleted spool.

Theory of operation. Each attempt is in one Phase (attempt.py). `look` reads what the spool says and is
called after every bell, answer, exit and second: it sends new journal lines, and finds out that a job
ended or that its process died. Two ends are tasks of their own: a loss (destroy, let the last bytes
arrive, tell), and a doom (the server calls the attempt dead: kill, destroy, drop).
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ci.errors import Conflict, ShipwayError
from ci.protocol import (
    Accept,
    Assign,
    Begin,
    Cancel,
    FrameKind,
    Granted,
    Held,
    Lease,
    LogFrame,
    Lost,
    Recorded,
    Released,
    RunnerMessage,
    Welcome,
)
from runners import spool
from runners.attempt import Attempt, Phase, lease_of
from runners.handover import Handover
from runners.machine import Machine
from runners.processes import kill_job_process, pid_of, watch_bell, watch_exit
from runners.settings import RunnerSettings
from runners.spawner import Spawner
from runners.spool import OrderCancel, OrderGranted, OrderKill, SpoolReader, SpoolWriter

KILL_PATIENCE_SECONDS = 20.0
#: The last output of a dead job gets so long to arrive before its loss is told.
LAST_BYTES_SECONDS = 10.0
TELL_AGAIN_SECONDS = 15.0
_LOOK_SECONDS = 0.05
_LAST_WORDS_BYTES = 4000


@dataclass(frozen=True, kw_only=True)
class Talk:
    """The keeper's way out. `on_change` is told whenever there may be bytes to ship, or a place was
    taken or became free."""

    is_open: Callable[[], bool]
    send: Callable[[RunnerMessage], None]
    on_change: Callable[[], None]
    on_failure: Callable[[BaseException], None]


class Keeper:
    """For the supervisor's event loop."""

    def __init__(
        self,
        settings: RunnerSettings,
        machine: Machine,
        spawner: Spawner,
        make_handover: Callable[[Assign, Path], Handover],
        talk: Talk,
    ) -> None:
        self._root = settings.spools
        self._capacity = settings.capacity
        self._machine = machine
        self._spawner = spawner
        self._make_handover = make_handover
        self._talk = talk
        self.attempts: dict[tuple[int, int], Attempt] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # --- what there is -----------------------------------------------------------------------------

    def adopt(self) -> None:
        """Take over the spools that a supervisor before us left, living jobs and unshipped logs alike."""
        for folder in spool.folders(self._root):
            try:
                reader = SpoolReader(folder)
            except ShipwayError as error:
                print(f"spool: {error}", file=sys.stderr)
                continue
            if not reader.has_begun():
                _claim(folder)
            attempt = Attempt(lease_of(folder, reader.key))
            self.attempts[attempt.key] = attempt
            self._opened(attempt, reader)

    @property
    def places_taken(self) -> int:
        return sum(attempt.takes_a_place for attempt in self.attempts.values())

    def held(self) -> tuple[Held, ...]:
        """For a Hello. Until its Welcome names the new epochs, no log goes out under the old ones."""
        for attempt in self.attempts.values():
            attempt.stale_epoch = attempt.lease.epoch
        return tuple(
            Held(lease=attempt.lease, is_alive=attempt.phase in (Phase.OFFERED, Phase.HANDED, Phase.RUNNING))
            for attempt in self.attempts.values()
            if attempt.phase is not Phase.DOOMED
        )

    def leases(self) -> tuple[Lease, ...]:
        """What heartbeats keep alive."""
        return tuple(each.lease for each in self.attempts.values() if each.phase is not Phase.DOOMED)

    def may_need(self, key: tuple[int, int]) -> bool:
        """Whether what an attempt has on the engine is in use, or being removed by a task of ours."""
        return key in self.attempts

    # --- what the server says ------------------------------------------------------------------------

    def welcome(self, message: Welcome) -> None:
        for lease in message.leases:
            attempt = self.attempts.get(lease.key)
            if attempt is None:
                continue
            attempt.renew(lease)
            attempt.is_accepted = False
            attempt.told_loss_at = None
        for lease in message.dead:
            self.dead(lease.key)
        self.accept_offers()
        self.look_all()

    def assigned(self, message: Assign) -> None:
        known = self.attempts.get(message.lease.key)
        if known is not None and known.phase is not Phase.OFFERED:
            return
        self.attempts[message.lease.key] = Attempt(message.lease, message)
        self.accept_offers()

    def accept_offers(self) -> None:
        """Accept what is offered while there are places. An offer beyond them, made while ours was on its
        way, waits for one."""
        used = [each for each in self.attempts.values() if each.takes_a_place]
        places = self._capacity - sum(each.phase is not Phase.OFFERED or each.is_accepted for each in used)
        for attempt in used:
            if places > 0 and attempt.phase is Phase.OFFERED and not attempt.is_accepted:
                places -= 1
                attempt.is_accepted = True
                self._talk.send(Accept(lease=attempt.lease))

    def take(self, message: Begin | Recorded | Granted | Cancel | Released) -> None:
        """A word of the server about one lease; under another epoch than ours it means nothing."""
        attempt = self.attempts.get(message.lease.key)
        if attempt is None or attempt.lease != message.lease:
            return
        match message:
            case Begin():
                self._begin(attempt)
            case Recorded():
                attempt.recorded(message.seq)
                self.look(attempt)
            case Granted():
                attempt.order(OrderGranted(step=message.step))
            case Cancel():
                attempt.order(OrderCancel(reason=message.reason))
            case Released():
                self._released(attempt)

    def _begin(self, attempt: Attempt) -> None:
        if attempt.phase is Phase.OFFERED and attempt.assign is not None:
            attempt.phase = Phase.HANDED
            self._spawn(self._hand(attempt, attempt.assign))
            attempt.assign = None

    def _released(self, attempt: Attempt) -> None:
        if attempt.phase in (Phase.ENDED, Phase.LOST):
            self._drop(attempt)
        else:
            self.dead(attempt.key)

    def dead(self, key: tuple[int, int]) -> None:
        attempt = self.attempts.get(key)
        if attempt is None or attempt.phase is Phase.DOOMED:
            return
        was, attempt.phase = attempt.phase, Phase.DOOMED
        self._spawn(self._remove(attempt, was))

    def take_frame(self, frame: LogFrame) -> bool:
        """The log socket's answer. False: the server calls the present lease stale."""
        attempt = self.attempts.get(frame.lease.key)
        if attempt is None or frame.lease != attempt.lease:
            return True
        if frame.kind is FrameKind.STALE:
            is_news = attempt.stale_epoch != frame.lease.epoch
            attempt.stale_epoch = frame.lease.epoch
            return not is_news
        attempt.take(frame)
        return True

    # --- looking --------------------------------------------------------------------------------------

    def look_all(self) -> None:
        for attempt in tuple(self.attempts.values()):
            self.look(attempt)

    def look(self, attempt: Attempt) -> None:
        """Bring everything that follows from the spool up to date; find out that the process died."""
        # Asked before the journal is read: what a process wrote before its end is then seen.
        is_dead = attempt.spool is not None and not attempt.spool.is_alive()
        self._look_at_journal(attempt)
        if is_dead and attempt.phase is Phase.RUNNING and attempt.spool is not None:
            attempt.phase = Phase.LOST
            self._spawn(self._lose(attempt, attempt.spool))
        self._tell_loss(attempt)

    def _look_at_journal(self, attempt: Attempt) -> None:
        attempt.look()
        if self._talk.is_open():
            for record in attempt.next_records():
                self._talk.send(record)
        self._talk.on_change()

    def kill_all(self, reason: str) -> None:
        """Order every job process to end at once; their journals still tell it."""
        for attempt in tuple(self.attempts.values()):
            if attempt.phase is Phase.OFFERED:
                del self.attempts[attempt.key]
            elif attempt.phase in (Phase.HANDED, Phase.RUNNING) and not attempt.is_kill_ordered:
                attempt.is_kill_ordered = True
                attempt.order(OrderKill(reason=reason))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for attempt in self.attempts.values():
            self._leave(attempt)

    # --- from the offer to the running job ---------------------------------------------------------------

    async def _hand(self, attempt: Attempt, assign: Assign) -> None:
        folder = spool.folder_of(self._root, *attempt.key)
        try:
            await asyncio.to_thread(spool.prepare, folder)
            reader = SpoolReader(folder)
            attempt.open(reader)
            await self._spawner.hand(self._make_handover(assign, folder))
        except (OSError, ShipwayError) as error:
            print(f"job {attempt.key[0]}: {error}", file=sys.stderr, flush=True)
            if attempt.phase is Phase.HANDED:
                attempt.phase = Phase.LOST
                attempt.loss = f"the runner cannot start the job: {error}"
                self._tell_loss(attempt)
            return
        finally:
            attempt.is_handed.set()
        if attempt.phase is Phase.HANDED:
            self._opened(attempt, reader)
        self._spawn(self._spawner.start_spare())

    def _opened(self, attempt: Attempt, reader: SpoolReader) -> None:
        if attempt.spool is None:
            attempt.open(reader)
        attempt.phase = Phase.RUNNING
        attempt.leave.append(watch_bell(reader, lambda: self._look_at_journal(attempt)))
        pid = pid_of(reader)
        if pid is not None and reader.is_alive():
            attempt.leave.append(watch_exit(pid, lambda: self.look(attempt)))
        for order in attempt.waiting_orders:
            reader.order(order)
        attempt.waiting_orders.clear()
        self.look(attempt)

    # --- the three ends ------------------------------------------------------------------------------------

    async def _lose(self, attempt: Attempt, reader: SpoolReader) -> None:
        """Destroy before telling (law 11); let what it printed last arrive."""
        await self._machine.remove_surely(attempt.key)
        until = time.monotonic() + LAST_BYTES_SECONDS
        while attempt.phase is Phase.LOST and not attempt.is_log_shipped and time.monotonic() < until:
            await asyncio.sleep(_LOOK_SECONDS)
        if attempt.phase is Phase.LOST:
            attempt.loss = "the job process died without a last word"
            job, number = attempt.key
            words = _last_words(reader)
            print(f"job {job}, attempt {number}: {attempt.loss}{words}", file=sys.stderr, flush=True)
            self._tell_loss(attempt)

    def _tell_loss(self, attempt: Attempt) -> None:
        now = time.monotonic()
        is_due = attempt.told_loss_at is None or now - attempt.told_loss_at > TELL_AGAIN_SECONDS
        if attempt.loss is not None and is_due and self._talk.is_open():
            attempt.told_loss_at = now
            self._talk.send(Lost(lease=attempt.lease, reason=attempt.loss))

    async def _remove(self, attempt: Attempt, was: Phase) -> None:
        """Over for the server: end the process, remove everything, drop the spool."""
        if was is Phase.HANDED:
            await attempt.is_handed.wait()
        if attempt.spool is not None and attempt.spool.is_alive():
            attempt.order(OrderKill(reason="the server has given this attempt up"))
            await _ended(attempt.spool)
        if was is not Phase.OFFERED:
            await self._machine.remove_surely(attempt.key)
        self._drop(attempt)

    def _drop(self, attempt: Attempt) -> None:
        self._leave(attempt)
        if attempt.spool is not None:
            attempt.spool.delete()
        if self.attempts.get(attempt.key) is attempt:
            del self.attempts[attempt.key]
        self._talk.on_change()

    def _leave(self, attempt: Attempt) -> None:
        for leave in attempt.leave:
            leave()
        attempt.leave.clear()
        if attempt.spool is not None:
            attempt.spool.close()

    # --- small things --------------------------------------------------------------------------------------

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._talk.on_failure(error)


def _claim(folder: Path) -> None:
    """Nobody has begun in it: after this nobody can, and the attempt is lost."""
    try:
        SpoolWriter.create(folder).close()
    except Conflict:
        return  # it began at this moment


async def _ended(reader: SpoolReader) -> None:
    """Wait for the end of the process; one that takes too long is killed."""
    until = time.monotonic() + KILL_PATIENCE_SECONDS
    while reader.is_alive():
        if time.monotonic() > until:
            kill_job_process(reader)
        await asyncio.sleep(_LOOK_SECONDS)


def _last_words(reader: SpoolReader) -> str:
    """What the process wrote to its standard error at the end, for our own log."""
    try:
        text = (reader.folder / "stderr").read_bytes()[-_LAST_WORDS_BYTES:].decode(errors="replace")
    except FileNotFoundError:
        return ""
    return f"; it wrote:\n{text.rstrip()}" if text.strip() else ""
