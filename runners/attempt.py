"""Attempt: what the supervisor knows of one execution of one job, and the shipping of its journal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from enum import Enum, auto
from pathlib import Path

from pydantic import ValidationError

from ci.protocol import Assign, JobEnded, Lease, LogEnded, LogFrame, Record
from runners.spool import Order, SpoolReader
from runners.streams import STALLED_SECONDS, LogStreams

_LEASE_FILE = "lease"


class Phase(Enum):
    OFFERED = auto()  #: waits for the server's durable answer: nothing has started
    HANDED = auto()  #: the assignment is on its way to a job process
    RUNNING = auto()  #: a job process holds the spool
    ENDED = auto()  #: its journal is complete; what is left is shipping
    LOST = auto()  #: the job process died without a last word
    DOOMED = auto()  #: over for the server; being removed


class Attempt:
    """For the supervisor's event loop. `assign` is forgotten as soon as a job process has it."""

    def __init__(self, lease: Lease, assign: Assign | None = None) -> None:
        self.lease = lease
        self.assign = assign
        self.phase = Phase.OFFERED
        self.is_accepted = False  #: the acknowledgement is sent on this connection
        self.is_handed = asyncio.Event()
        self.stale_epoch: int | None = None
        self.loss: str | None = None  #: why it is lost, once everything of it is destroyed
        self.told_loss_at: float | None = None
        self.is_kill_ordered = False
        self.leave: list[Callable[[], object]] = []  #: ends what watches the spool
        self.spool: SpoolReader | None = None
        self.streams: LogStreams | None = None
        self.waiting_orders: list[Order] = []
        self._sent_seq = -1
        self._recorded_seq = -1
        self._looked_seq = -1
        self._moved_at = 0.0

    @property
    def key(self) -> tuple[int, int]:
        return self.lease.key

    @property
    def takes_a_place(self) -> bool:
        return self.phase in (Phase.OFFERED, Phase.HANDED, Phase.RUNNING, Phase.DOOMED)

    def open(self, spool: SpoolReader) -> None:
        self.spool = spool
        self.streams = LogStreams(spool)
        self.save_lease()

    def renew(self, lease: Lease) -> None:
        """A new epoch: everything that is not known to be durable goes out again."""
        self.lease = lease
        self.stale_epoch = None
        self._sent_seq = self._recorded_seq
        if self.streams:
            self.streams.rewind()
            self.save_lease()

    def save_lease(self) -> None:
        """For a supervisor after us. Not synced: it outlives processes, as the job does."""
        assert self.spool
        unfinished = self.spool.folder / f"{_LEASE_FILE}.new"
        unfinished.write_text(self.lease.model_dump_json())
        unfinished.rename(self.spool.folder / _LEASE_FILE)

    def order(self, order: Order) -> None:
        if self.spool is None:
            self.waiting_orders.append(order)
        else:
            self.spool.order(order)

    def look(self) -> None:
        """Read what the journal says of logs and of the end."""
        if self.spool is None or self.streams is None:
            return
        for seq, change in self.spool.changes(self._looked_seq):
            self._looked_seq = seq
            if isinstance(change, LogEnded):
                self.streams.ended(change)
            if isinstance(change, JobEnded) and self.phase is not Phase.DOOMED:
                self.phase = Phase.ENDED

    def next_records(self) -> Iterator[Record]:
        """The journal's lines that were not sent under this connection and epoch."""
        if self.spool is None or self.phase is Phase.DOOMED:
            return
        now = time.monotonic()
        if self._sent_seq == self._recorded_seq:
            self._moved_at = now
        elif now - self._moved_at > STALLED_SECONDS:
            self._sent_seq, self._moved_at = self._recorded_seq, now
        for seq, change in self.spool.changes(self._sent_seq):
            self._sent_seq = seq
            yield Record(lease=self.lease, seq=seq, change=change)

    def recorded(self, seq: int) -> None:
        """The server's answer. It may go back, and then we do."""
        if seq < self._recorded_seq:
            self._sent_seq = seq
        self._recorded_seq = seq
        self._sent_seq = max(self._sent_seq, seq)
        self._moved_at = time.monotonic()

    def next_frames(self) -> list[LogFrame]:
        """One frame, if there is one to send, of each log."""
        is_over = self.phase is Phase.DOOMED or self.stale_epoch == self.lease.epoch
        if self.streams is None or is_over:
            return []
        self.streams.look()
        return list(self.streams.next_frames(self.lease))

    def rewind_logs(self) -> None:
        if self.streams:
            self.streams.rewind()

    @property
    def is_log_shipped(self) -> bool:
        return self.streams is None or self.streams.is_shipped

    def take(self, frame: LogFrame) -> None:
        if self.streams and frame.lease.epoch == self.lease.epoch:
            self.streams.take(frame)


def lease_of(folder: Path, key: tuple[int, int]) -> Lease:
    """The lease under which a supervisor before us held the spool; epoch 0 if it never said."""
    try:
        return Lease.model_validate_json((folder / _LEASE_FILE).read_text())
    except (FileNotFoundError, ValidationError):
        job, attempt = key
        return Lease(job=job, attempt=attempt, epoch=0)
