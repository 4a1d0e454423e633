from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci import plain


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"\x1b[31mred\x1b[0m text", b"red text"),
        (b"\x1b]0;owned\x07title", b"title"),
        (b"\x1b]52;c;ZXZpbA==\x1b\\clip", b"clip"),
        (b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", b"link"),
        (b"10%\r20%\r30%\r", b"30%"),
        (b"tab\there \x07bell", b"tab\there bell"),
        (b"\x1b]never ends", b""),
        (b"\xff\xfe", "\ufffd\ufffd".encode()),
        (b"\xc2\x9b31mC1 \xc3\xa9", "31mC1 é".encode()),
        (b"x" * 5000, b"x" * 4096 + b" ..."),
    ],
)
def test_what_could_move_a_terminal_is_taken_out(raw: bytes, shown: bytes) -> None:
    assert plain.line(raw) == shown


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_no_control_byte_but_tab_and_line_end_comes_out_whatever_goes_in(chunks: list[bytes]) -> None:
    lines = plain.Lines()
    out = b"".join(piece for chunk in chunks for piece in lines.feed(chunk)) + b"".join(lines.finish())
    assert not any((byte < 32 and byte not in (9, 10)) or byte == 127 for byte in out)


def test_a_line_split_over_chunks_comes_out_once_and_the_last_one_at_the_end() -> None:
    lines = plain.Lines()
    assert list(lines.feed(b"one\ntw")) == [b"one\n"]
    assert list(lines.feed(b"o\nthree")) == [b"two\n"]
    assert list(lines.finish()) == [b"three\n"]


def test_a_flood_without_line_end_does_not_gather_in_memory() -> None:
    lines = plain.Lines()
    given_out = [piece for _ in range(100) for piece in lines.feed(b"y" * 10_000)]
    assert len(given_out) > 10
