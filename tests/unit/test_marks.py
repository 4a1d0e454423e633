"""Command marks are taken out of a stream however it is cut, and nothing else is."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci.marks import MAX_LINE_BYTES, Mark, Said, Splitter, encode

TOKEN = "0123456789abcdef" * 2
OTHER = "f" * 32
BEGIN = encode(TOKEN, "b", "3")
END = encode(TOKEN, "e", "3,127")


def split(pieces: Iterable[bytes]) -> list[bytes | Mark]:
    """What comes out, neighbouring bytes joined."""
    splitter = Splitter(TOKEN)
    found = [item for piece in pieces for item in splitter.feed(piece)]
    joined: list[bytes | Mark] = []
    for item in [*found, splitter.finish()]:
        if isinstance(item, bytes) and joined and isinstance(joined[-1], bytes):
            joined[-1] += item
        elif item:
            joined.append(item)
    return joined


def test_a_mark_is_an_application_string_of_the_terminal() -> None:
    assert encode(TOKEN, "b", "3") == b"\x1b_shipway;" + TOKEN.encode() + b";b;3\x1b\\"


def test_marks_come_out_in_order_with_the_bytes_between() -> None:
    assert split([b"a" + BEGIN + b"bc\n" + END + BEGIN]) == [
        b"a",
        Mark(3),
        b"bc\n",
        Mark(3, 127),
        Mark(3),
    ]


@pytest.mark.parametrize(
    "text",
    [
        encode(OTHER, "b", "3"),
        encode(TOKEN, "x", "3"),
        encode(TOKEN, "b", ""),
        encode(TOKEN, "b", "3,4"),
        encode(TOKEN, "e", "3"),
        encode(TOKEN, "e", "3,-1"),
        encode(TOKEN, "b", "1" * 10),
        BEGIN[:-1],
        BEGIN[:-1] + b"x",
        BEGIN[:-2] + b"\x07",
        b"\x1b",
        b"\x1b[31mred\x1b[0m\x1b_",
    ],
)
def test_what_only_looks_like_a_mark_stays_in_the_bytes(text: bytes) -> None:
    assert split([text]) == [text]
    assert split([text[at : at + 1] for at in range(len(text))]) == [text]
    assert split([text + BEGIN])[-1] == Mark(3)


def test_a_mark_right_after_an_unfinished_one_is_found() -> None:
    for unfinished in (BEGIN[:-1], BEGIN[:-2], BEGIN[:5]):
        assert split([unfinished + END]) == [unfinished, Mark(3, 127)]


PART = st.sampled_from(
    [BEGIN, END, encode(TOKEN, "e", "0,0"), encode(OTHER, "b", "1"), BEGIN[:-1], END[:20], b"\x1b", b"\n"]
) | st.binary(max_size=8)


@given(st.lists(PART, max_size=10), st.lists(st.integers(0, 2000), max_size=10))
def test_any_cutting_gives_the_same_and_no_byte_is_lost(parts: list[bytes], places: list[int]) -> None:
    stream = b"".join(parts)
    whole = split([stream])
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    assert split([stream[a:b] for a, b in pairwise(edges)]) == whole
    assert split([stream[at : at + 1] for at in range(len(stream))]) == whole
    back = b"".join(
        item
        if isinstance(item, bytes)
        else encode(TOKEN, "b", str(item.command))
        if item.code is None
        else encode(TOKEN, "e", f"{item.command},{item.code}")
        for item in whole
    )
    assert back == stream


def test_only_what_may_begin_a_mark_is_held_back() -> None:
    splitter = Splitter(TOKEN)
    assert splitter.feed(b"no escape\n") == [b"no escape\n"]
    assert splitter.feed(b"\x1b[32mgreen") == [b"\x1b[32mgreen"]
    assert splitter.feed(b"x\x1b") == [b"x"]
    assert splitter.feed(b"[0m") == [b"\x1b[0m"]
    assert splitter.feed(BEGIN[:-1]) == []
    assert splitter.feed(BEGIN[-1:]) == [Mark(3)]


def test_a_line_that_is_put_out_is_no_byte_of_the_log() -> None:
    text = encode(TOKEN, "o", "VERSION=1 2;3,4") + b"log" + encode(TOKEN, "o", "")
    assert split([text]) == [Said(b"VERSION=1 2;3,4"), b"log", Said(b"")]
    assert split([bytes([byte]) for byte in text]) == split([text])


def test_a_line_that_is_too_long_to_be_put_out_stays_in_the_log_and_nothing_is_held_back_for_it() -> None:
    longest = encode(TOKEN, "o", "x" * MAX_LINE_BYTES)
    assert split([longest]) == [Said(b"x" * MAX_LINE_BYTES)]
    longer = encode(TOKEN, "o", "x" * (MAX_LINE_BYTES + 1))
    splitter = Splitter(TOKEN)
    assert splitter.feed(longer[:-2]) == [longer[:-2]]
    assert splitter.feed(longer[-2:]) == [longer[-2:]]
