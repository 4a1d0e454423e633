"""What of somebody else's bytes reaches a terminal (T15)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci.client.terminal import Safe, plain

#: What is dangerous in a log, and what may be left of it between two words.
DANGEROUS = [
    b"\x1b]0;a new title\x07",
    b"\x1b]2;a new title\x1b\\",
    b"\x1b]52;c;ZWNobyBoaQ==\x07",  # the clipboard
    b"\x1b]8;;http://evil.example\x1b\\",
    b"\x1b]1337;File=:AAAA\x07",  # a file
    b'\x1bP$q"p\x1b\\',  # DCS: the terminal types an answer
    b"\x1b[6n",
    b"\x1b[c",
    b"\x1b[21t",  # the terminal types its title
    b"\x1b[2J\x1b[H",
    b"\x1b[1A\x1b[2K",
    b"\x1b[?1049h",
    b"\x1b[?1000h",  # the mouse
    b"\x1b[>4;1m",
    b"\x1b_payload\x1b\\",
    b"\x1b^payload\x1b\\",
    b"\x1bXpayload\x1b\\",
    b"\x1bc",  # reset
    b"\x1b(0",  # another alphabet
    b"\x07\x08\x7f\x00\x0e",
    b"\xc2\x9b6n",  # C1 in UTF-8
    b"\xc2\x9d0;title\xc2\x9c",
    b"\xc2\x90q\xc2\x9c",
]


@pytest.mark.parametrize("colours", [True, False])
@pytest.mark.parametrize("sequence", DANGEROUS, ids=repr)
def test_what_could_do_something_to_a_terminal_is_taken_out(sequence: bytes, colours: bool) -> None:
    safe = Safe(colours=colours)
    assert safe.feed(b"one" + sequence + b"two\n") + safe.feed(b"", is_end=True) == "onetwo\n"


def test_a_bare_byte_that_is_c1_for_an_old_terminal_is_no_control_either() -> None:
    assert Safe(colours=True).feed(b"a\x9b6nb\n") == "a\ufffd6nb\n"


def test_colours_stay_on_a_terminal_and_go_in_a_pipe() -> None:
    text = b"\x1b[1;38:5:196mred\x1b[0m\n"
    assert Safe(colours=True).feed(text) == text.decode()
    assert Safe(colours=False).feed(text) == "red\n"


def test_a_title_without_end_hides_no_more_than_its_line() -> None:
    assert Safe(colours=True).feed(b"\x1b]0;no end\nnext\n") == "\nnext\n"


def test_a_progress_bar_moves_on_a_terminal_and_is_lines_in_a_pipe() -> None:
    assert Safe(colours=True).feed(b"10%\r20%\r\n") == "10%\r20%\n"
    assert Safe(colours=False).feed(b"10%\r20%\r\n") == "10%\n20%\n"


@given(st.data())
def test_it_does_not_matter_where_the_bytes_are_cut(data: st.DataObject) -> None:
    pieces = st.sampled_from(
        [*DANGEROUS, b"word", b"\n", b"\r", "ü€😀".encode(), b"\x1b[31m", b"\x1b", b"\xff"]
    )
    whole = b"".join(data.draw(st.lists(pieces, max_size=12)))
    colours = data.draw(st.booleans())
    at_once = Safe(colours=colours)
    expected = at_once.feed(whole) + at_once.feed(b"", is_end=True)
    cut = Safe(colours=colours)
    found, at = "", 0
    while at < len(whole):
        size = data.draw(st.integers(1, 5))
        found += cut.feed(whole[at : at + size])
        at += size
    assert found + cut.feed(b"", is_end=True) == expected


@given(st.binary(max_size=300))
def test_nothing_but_text_and_colours_ever_comes_out(data: bytes) -> None:
    shown = Safe(colours=False).feed(data, is_end=True)
    assert all(each in "\t\n" or not (each < " " or "\x7f" <= each <= "\x9f") for each in shown)
    assert "\x1b" not in shown


def test_one_line_of_text_stays_one_line() -> None:
    assert plain("a\x1b]0;t\x07b\nc\td") == "ab c d"
