"""Streams: how far each log of an attempt has come on its way to the server. No I/O but the spool's.

Theory of operation. A stream (one attempt, step and kind) knows how far the server's copy is durable and
how far we have sent. The server answers chunks with its durable length: one that is lower than what it
said before means that bytes of its were lost, and we go back to it. When everything is sent, size and
CRC-32 close the stream; the server agrees, or names an offset to send again from. On a new connection or
under a new epoch all streams go back to what is durable, so a byte may travel twice and never counts twice.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

from ci.protocol import MAX_PAYLOAD_BYTES, FrameKind, Lease, LogEnded, LogFrame, Stream
from runners.spool import SpoolReader

WINDOW_BYTES = 8 << 20
#: An answer that is due for so long was lost with what it answers: send again.
STALLED_SECONDS = 10.0
_CRC = struct.Struct("!I")


@dataclass
class StreamState:
    """One stream on its way. `end` is (size, CRC-32), once the step's log is complete."""

    step: int
    stream: Stream
    durable: int = 0
    sent: int = 0
    end: tuple[int, int] | None = None
    is_close_sent: bool = False
    is_closed: bool = False
    moved_at: float = 0.0

    def rewind(self, offset: int | None = None) -> None:
        if offset is not None:
            self.durable = offset
        self.sent = self.durable
        self.is_close_sent = False
        self.moved_at = time.monotonic()

    def next_frame(self, spool: SpoolReader, lease: Lease) -> LogFrame | None:
        """What is to be sent now, if anything."""
        if self.is_closed:
            return None
        if self._is_stalled():
            self.rewind()
        if self.sent - self.durable < WINDOW_BYTES and not self.is_close_sent:
            payload = spool.read(self.step, self.stream, self.sent, MAX_PAYLOAD_BYTES)
            if payload:
                frame = LogFrame(FrameKind.CHUNK, lease, self.step, self.stream, self.sent, payload)
                self._note_sent(len(payload))
                return frame
        if self.end is not None and self.sent == self.end[0] and not self.is_close_sent:
            size, crc32 = self.end
            self.is_close_sent = True
            self.moved_at = time.monotonic()
            return LogFrame(FrameKind.CLOSE, lease, self.step, self.stream, size, _CRC.pack(crc32))
        return None

    def take(self, frame: LogFrame) -> None:
        """The server's answer."""
        match frame.kind:
            case FrameKind.DURABLE:
                self._take_durable(frame.offset)
            case FrameKind.CLOSED:
                self.is_closed = True
            case FrameKind.RESEND:
                self.rewind(frame.offset)

    @property
    def is_shipped(self) -> bool:
        """Everything that is known to be there is durable on the server."""
        return self.is_closed or self.sent == self.durable

    def _take_durable(self, offset: int) -> None:
        if offset < self.durable:
            return self.rewind(offset)
        if offset > self.durable:
            self.durable = offset
            self.sent = max(self.sent, offset)
            self.moved_at = time.monotonic()

    def _note_sent(self, count: int) -> None:
        if self.sent == self.durable:
            self.moved_at = time.monotonic()
        self.sent += count

    def _is_stalled(self) -> bool:
        is_due = self.sent > self.durable or self.is_close_sent
        return is_due and time.monotonic() - self.moved_at > STALLED_SECONDS


class LogStreams:
    """The streams of one attempt."""

    def __init__(self, spool: SpoolReader) -> None:
        self._spool = spool
        self._states: dict[tuple[int, Stream], StreamState] = {}
        self._ends: dict[tuple[int, Stream], tuple[int, int]] = {}

    def ended(self, change: LogEnded) -> None:
        for stream, end in (
            (Stream.BYTES, (change.size, change.crc32)),
            (Stream.MARKS, (change.marks_size, change.marks_crc32)),
        ):
            self._ends[change.step, stream] = end
            if state := self._states.get((change.step, stream)):
                state.end = end

    def look(self) -> None:
        """Find the logs that were begun since."""
        for step in self._spool.steps():
            for stream in Stream:
                key = (step, stream)
                if key not in self._states:
                    self._states[key] = StreamState(step, stream, end=self._ends.get(key))

    def rewind(self) -> None:
        for state in self._states.values():
            state.rewind()

    def next_frames(self, lease: Lease) -> Iterator[LogFrame]:
        """At most one frame of each stream."""
        for state in self._states.values():
            if frame := state.next_frame(self._spool, lease):
                yield frame

    def take(self, frame: LogFrame) -> None:
        state = self._states.get((frame.step, frame.stream))
        if state is None:
            return
        state.take(frame)
        if all(self._states[frame.step, stream].is_closed for stream in Stream):
            self._spool.drop_log(frame.step)

    @property
    def is_shipped(self) -> bool:
        self.look()
        return all(
            state.is_closed or state.durable >= self._spool.size(state.step, state.stream)
            for state in self._states.values()
        )
