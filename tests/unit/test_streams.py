from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from ci.protocol import MAX_PAYLOAD_BYTES, FrameKind, Lease, LogEnded, LogFrame, Stream
from runners.spool import SpoolReader, SpoolWriter
from runners.streams import WINDOW_BYTES, LogStreams

LEASE = Lease(job=1, attempt=1, epoch=3)


class Ship:
    """A spool with one log of step 1, and the streams that ship it."""

    def __init__(self, folder: Path, data: bytes) -> None:
        self.writer = SpoolWriter.create(folder)
        self.log = self.writer.open_log(1, masks=(), token="0" * 32, limit_bytes=1 << 30)
        self.log.write(data)
        self.reader = SpoolReader(folder)
        self.streams = LogStreams(self.reader)
        self.streams.look()

    def send(self) -> list[LogFrame]:
        sent: list[LogFrame] = []
        while frames := list(self.streams.next_frames(LEASE)):
            sent += frames
        return sent

    def end(self) -> LogEnded:
        ended = self.log.close()
        self.streams.ended(ended)
        return ended

    def answer(self, kind: FrameKind, offset: int, stream: Stream = Stream.BYTES) -> None:
        self.streams.take(LogFrame(kind, LEASE, 1, stream, offset))


@pytest.fixture
def ship(tmp_path: Path) -> Ship:
    return Ship(tmp_path / "1-1", b"x" * (WINDOW_BYTES + 3 * MAX_PAYLOAD_BYTES))


def test_at_most_a_window_is_on_its_way_without_an_answer(ship: Ship) -> None:
    sent = ship.send()
    assert sum(len(frame.payload) for frame in sent) == WINDOW_BYTES
    assert [frame.offset for frame in sent] == list(range(0, WINDOW_BYTES, MAX_PAYLOAD_BYTES))
    ship.answer(FrameKind.DURABLE, 2 * MAX_PAYLOAD_BYTES)
    assert [frame.offset for frame in ship.send()] == [WINDOW_BYTES, WINDOW_BYTES + MAX_PAYLOAD_BYTES]


def test_answers_that_lag_behind_send_nothing_twice(ship: Ship) -> None:
    ship.send()
    for count in range(1, 4):
        ship.answer(FrameKind.DURABLE, count * MAX_PAYLOAD_BYTES)
        ship.answer(FrameKind.DURABLE, count * MAX_PAYLOAD_BYTES)
    offsets = [frame.offset for frame in ship.send()]
    assert offsets and min(offsets) == WINDOW_BYTES


@pytest.mark.parametrize("kind", [FrameKind.RESEND, FrameKind.DURABLE])
def test_an_answer_that_goes_back_is_followed(ship: Ship, kind: FrameKind) -> None:
    ship.send()
    ship.answer(FrameKind.DURABLE, 2 * MAX_PAYLOAD_BYTES)
    ship.answer(kind, 1000)
    assert ship.send()[0].offset == 1000


def test_a_server_that_has_more_than_we_sent_is_believed(ship: Ship) -> None:
    ship.answer(FrameKind.DURABLE, 5 * MAX_PAYLOAD_BYTES)
    assert ship.send()[0].offset == 5 * MAX_PAYLOAD_BYTES


def test_after_a_new_connection_everything_not_durable_goes_again(ship: Ship) -> None:
    ship.send()
    ship.answer(FrameKind.DURABLE, MAX_PAYLOAD_BYTES)
    ship.streams.rewind()
    assert ship.send()[0].offset == MAX_PAYLOAD_BYTES


def test_size_and_checksum_close_both_streams_once_everything_is_sent(tmp_path: Path) -> None:
    ship = Ship(tmp_path / "1-1", b"hello\n")
    assert [frame.kind for frame in ship.send()] == [FrameKind.CHUNK]
    ended = ship.end()
    closes = {frame.stream: frame for frame in ship.send() if frame.kind is FrameKind.CLOSE}
    assert (ended.size, ended.crc32) == (6, zlib.crc32(b"hello\n"))
    assert closes[Stream.BYTES].offset == 6
    assert bytes(closes[Stream.BYTES].payload) == zlib.crc32(b"hello\n").to_bytes(4, "big")
    assert closes[Stream.MARKS].offset == ended.marks_size


def test_a_close_that_is_refused_sends_again_and_closes_again(tmp_path: Path) -> None:
    ship = Ship(tmp_path / "1-1", b"hello\n")
    ship.end()
    ship.send()
    ship.answer(FrameKind.RESEND, 2)
    again = [frame for frame in ship.send() if frame.stream is Stream.BYTES]
    assert [(frame.kind, frame.offset) for frame in again] == [(FrameKind.CHUNK, 2), (FrameKind.CLOSE, 6)]
    assert bytes(again[0].payload) == b"llo\n"


def test_a_log_is_dropped_only_when_both_its_streams_are_closed(tmp_path: Path) -> None:
    ship = Ship(tmp_path / "1-1", b"hello\n")
    ended = ship.end()
    ship.send()
    ship.answer(FrameKind.CLOSED, 6)
    assert ship.reader.steps() == [1]
    ship.answer(FrameKind.CLOSED, ended.marks_size, Stream.MARKS)
    assert ship.reader.steps() == []
    assert ship.send() == []


def test_what_is_shipped_is_durable_not_merely_sent(tmp_path: Path) -> None:
    ship = Ship(tmp_path / "1-1", b"hello\n")
    ship.send()
    assert not ship.streams.is_shipped
    ship.answer(FrameKind.DURABLE, 6)
    assert ship.streams.is_shipped


def test_an_answer_that_never_comes_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ship = Ship(tmp_path / "1-1", b"hello\n")
    ship.send()
    monkeypatch.setattr("runners.streams.STALLED_SECONDS", 0.0)
    assert next(iter(ship.streams.next_frames(LEASE))).offset == 0
