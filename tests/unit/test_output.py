"""The output pipeline: marks out, secrets masked, the cap kept, memory flat."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ci.marks import encode
from ci.mask import Patterns
from runners import output
from runners.output import TAIL_BYTES, Pipeline

TOKEN = "0123456789abcdef" * 2


class Kept:
    """A log's two streams, in memory."""

    def __init__(self) -> None:
        self.bytes = b""
        self.lines: list[bytes] = []

    def append_bytes(self, data: bytes) -> None:
        self.bytes += data

    def append_mark(self, line: bytes) -> None:
        self.lines.append(line)

    def marks(self, *, notes: bool = True) -> list[tuple[Any, ...]]:
        found = [json.loads(line) for line in self.lines]
        return [(mark["o"], mark["k"], mark["v"]) for mark in found if notes or mark["k"] != "note"]


class Counted:
    """Counts only."""

    def __init__(self) -> None:
        self.size = 0
        self.marks = 0

    def append_bytes(self, data: bytes) -> None:
        self.size += len(data)

    def append_mark(self, line: bytes) -> None:
        self.marks += 1


def pipeline(sink: output.Sink, *, secrets: tuple[str, ...] = (), limit: int = 1 << 30) -> Pipeline:
    return Pipeline(sink, secrets=Patterns(secrets), token=TOKEN, limit_bytes=limit, clock=lambda: 0.0)


def begin(command: int) -> bytes:
    return encode(TOKEN, "b", str(command))


def end(command: int, code: int) -> bytes:
    return encode(TOKEN, "e", f"{command},{code}")


def test_a_secret_over_a_mark_is_masked_and_the_mark_stands_after_it() -> None:
    kept = Kept()
    pipe = pipeline(kept, secrets=("hunter2",))
    pipe.write(b"a hun" + end(0, 0) + b"ter2 b\n")
    pipe.finish()
    assert kept.bytes == b"a *** b\n"
    assert kept.marks() == [(5, "end", [0, 0])]


def test_marks_within_what_only_began_like_a_secret_keep_their_exact_place() -> None:
    kept = Kept()
    pipe = pipeline(kept, secrets=("hunter2",))
    pipe.write(b"a hun" + end(0, 0) + b"ts" + begin(1))
    pipe.finish()
    assert kept.bytes == b"a hunts"
    assert kept.marks() == [(5, "end", [0, 0]), (7, "begin", 1)]


@given(st.lists(st.integers(0, 300), max_size=10))
def test_any_cutting_gives_the_same_streams(places: list[int]) -> None:
    stream = begin(0) + b"say hunter2\n" + end(0, 1) + b"hunhunter" + begin(1) + b"2\nhun" + end(1, 0) + b"t"
    edges = [0, *sorted(place % len(stream) for place in places), len(stream)]
    kept = Kept()
    pipe = pipeline(kept, secrets=("hunter2",))
    for first, last in itertools.pairwise(edges):
        pipe.write(stream[first:last])
    pipe.finish()
    assert kept.bytes == b"say ***\nhun***\nhunt"
    assert kept.marks() == [(0, "begin", 0), (8, "end", [0, 1]), (14, "begin", 1), (18, "end", [1, 0])]


def test_a_log_up_to_its_limit_is_kept_whole() -> None:
    kept = Kept()
    pipe = pipeline(kept, limit=100)
    pipe.write(b"x" * 99 + b"\n" + end(0, 0))
    pipe.finish()
    assert kept.bytes == b"x" * 99 + b"\n"
    assert kept.marks() == [(100, "end", [0, 0])]


def test_what_is_over_the_limit_but_within_the_tail_is_kept_whole_too() -> None:
    kept = Kept()
    pipe = pipeline(kept, limit=100)
    text = b"".join(b"line %d\n" % i for i in range(1000))
    pipe.write(text + end(0, 0))
    assert kept.bytes == text[:100]
    pipe.finish()
    assert kept.bytes == text
    assert kept.marks(notes=False) == [(len(text), "end", [0, 0])]


def test_past_the_limit_one_record_stands_for_what_is_left_out_and_the_tail_is_kept() -> None:
    kept = Kept()
    pipe = pipeline(kept, limit=1000)
    text = b"".join(b"line %7d of many\n" % i for i in range(200_000))
    pipe.write(begin(0))
    for at in range(0, len(text), 50_000):
        pipe.write(text[at : at + 50_000])
        if at == 100_000:
            pipe.write(end(0, 0) + begin(1))
    pipe.write(end(1, 2))
    pipe.finish()
    (elided,) = [mark for mark in kept.marks() if mark[1] == "elided"]
    offset, _, (first, last) = elided
    assert (offset, first) == (1000, 1000)
    assert kept.bytes == text[:first] + text[last:]
    assert text[last - 1 : last] == b"\n"
    assert TAIL_BYTES - 64 < len(text) - last <= TAIL_BYTES
    assert [mark for mark in kept.marks(notes=False) if mark[1] != "elided"] == [
        (0, "begin", 0),
        (1000, "end", [0, 0]),
        (1000, "begin", 1),
        (len(kept.bytes), "end", [1, 2]),
    ]
    assert (1000, "note") in [mark[:2] for mark in kept.marks()]


def test_marks_in_the_tail_stand_where_their_text_is_stored() -> None:
    kept = Kept()
    pipe = pipeline(kept, limit=10)
    pipe.write(b"y" * (3 * TAIL_BYTES) + b"\nlast" + end(0, 0) + b" words\n")
    pipe.finish()
    (place,) = [mark[0] for mark in kept.marks(notes=False) if mark[1] == "end"]
    assert kept.bytes[place - 4 :] == b"last words\n"


def test_notes_are_masked_and_cut() -> None:
    kept = Kept()
    pipe = pipeline(kept, secrets=("hunter2",))
    pipe.write(b"text\n")
    pipe.note("pull of hunter2 failed")
    pipe.note("é" * 100_000)
    pipe.finish()
    assert kept.marks()[0] == (5, "note", "pull of *** failed")
    assert kept.marks()[1] == (5, "note", "é" * output.MAX_NOTE_CHARACTERS)


def test_a_flood_of_marks_is_bounded() -> None:
    counted = Counted()
    pipe = pipeline(counted)
    for _ in range(150):
        pipe.write(begin(0) * 1000)
    pipe.finish()
    assert counted.marks == output.MAX_MARKS


def test_an_endless_line_and_an_endless_end_of_a_secret_take_no_memory() -> None:
    counted = Counted()
    pipe = pipeline(counted, secrets=("a" * 500, "key-of-many"), limit=20 << 20)
    tracemalloc.start()
    for _ in range(100):
        pipe.write(b"x" * (1 << 19))
    for _ in range(20):
        pipe.write(b"a" * 1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    pipe.finish()
    assert counted.size > 20 << 20
    assert peak < 8 << 20
