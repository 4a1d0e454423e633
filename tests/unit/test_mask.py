"""The masker: no secret comes through, whatever its form and however the stream is cut."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Iterable, Sequence
from itertools import pairwise
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci.mask import Masker, Patterns, forms, is_useless

PEM = "-----BEGIN KEY-----\n" + "\n".join(f"MIIEpAIB{i}KCAQEA7x" for i in range(40)) + "\n-----END KEY-----\n"


def masked(secrets: Iterable[str], pieces: Iterable[bytes]) -> bytes:
    masker = Masker(secrets)
    return b"".join([masker.feed(piece) for piece in pieces]) + masker.finish()


def ranges_of(patterns: Iterable[bytes], stream: bytes) -> list[tuple[int, int]]:
    """The plain way: every occurrence by search, those that overlap joined."""
    found = []
    for pattern in patterns:
        at = stream.find(pattern)
        while at >= 0:
            found.append((at, at + len(pattern)))
            at = stream.find(pattern, at + 1)
    joined: list[tuple[int, int]] = []
    for begin, end in sorted(found):
        if joined and begin < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((begin, end))
    return joined


def replaced(stream: bytes, ranges: Sequence[tuple[int, int]]) -> bytes:
    parts, at = [], 0
    for begin, end in ranges:
        parts += [stream[at:begin], b"***"]
        at = end
    return b"".join([*parts, stream[at:]])


def cut(stream: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[begin:end] for begin, end in pairwise(edges)]


#: Few letters, so that secrets overlap, contain and begin each other.
SECRETS = st.lists(st.text("ab\n", min_size=4, max_size=9), min_size=1, max_size=4)
CUTS = st.lists(st.integers(0, 10_000), max_size=12)


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[str], bytes]:
    secrets = draw(SECRETS)
    known = sorted({form for secret in secrets for form in forms(secret)})
    piece = st.sampled_from(known) if known else st.just(b"")
    part = piece | piece.map(lambda form: form[:-1]) | st.text("abc\n", max_size=6).map(str.encode)
    return secrets, b"".join(draw(st.lists(part, max_size=12)))


@given(streams(), CUTS)
def test_any_cutting_gives_the_same_and_no_secret_comes_through(
    case: tuple[list[str], bytes], places: list[int]
) -> None:
    secrets, stream = case
    patterns = {form for secret in secrets for form in forms(secret)}
    expected = replaced(stream, ranges_of(patterns, stream))
    assert masked(secrets, [stream]) == expected
    assert masked(secrets, cut(stream, places)) == expected
    assert masked(secrets, [stream[at : at + 1] for at in range(len(stream))]) == expected
    assert not any(pattern in expected for pattern in patterns)


@given(streams(), CUTS)
def test_a_place_is_told_exactly_and_within_a_secret_after_its_mask(
    case: tuple[list[str], bytes], places: list[int]
) -> None:
    secrets, stream = case
    patterns = {form for secret in secrets for form in forms(secret)}
    ranges = ranges_of(patterns, stream)
    masker = Masker(secrets)
    told, asked, at = [], [], 0
    for piece in cut(stream, places):
        masker.feed(piece)
        at += len(piece)
        masker.place()
        asked.append(at)
        told += masker.settled()
    masker.finish()
    told += masker.settled()
    within = {place: next((end for begin, end in ranges if begin < place < end), place) for place in asked}
    expected = [
        len(replaced(stream[: within[place]], [found for found in ranges if found[0] < place]))
        for place in asked
    ]
    assert told == expected


@given(st.binary(max_size=300), CUTS)
def test_a_stream_without_secrets_is_untouched(stream: bytes, places: list[int]) -> None:
    assert masked(["correct horse battery"], cut(stream, places)) == stream
    assert masked([], cut(stream, places)) == stream


@given(st.text(min_size=8, max_size=60), st.binary(max_size=5), st.binary(max_size=5))
def test_base64_of_any_text_around_a_secret_gives_nothing_but_its_edges(
    secret: str, before: bytes, after: bytes
) -> None:
    encoded = base64.b64encode(before + secret.encode() + after)
    # Two characters at each edge are shared with the neighbours.
    raw = len(secret.encode())
    shown = masked([secret], [encoded])
    if raw >= 8 and "*" not in secret and not is_useless(secret):
        assert b"***" in shown
        assert len(shown) <= len(base64.b64encode(before)) + len(base64.b64encode(after)) + 3 + 4


@pytest.mark.parametrize(
    "shown",
    [
        "pa\"ss wörd/+'x",
        json.dumps("pa\"ss wörd/+'x")[1:-1],
        json.dumps("pa\"ss wörd/+'x", ensure_ascii=False)[1:-1],
        quote("pa\"ss wörd/+'x"),
        quote("pa\"ss wörd/+'x", safe=""),
        quote_plus("pa\"ss wörd/+'x"),
        quote("pa\"ss wörd/+'x", safe="").lower(),
        "pa\"ss wörd/+'x".encode().hex(),
        "pa\"ss wörd/+'x".encode().hex().upper(),
        "pa\"ss wörd/+'\\''x",
        shlex.quote("pa\"ss wörd/+'x")[1:-1],
        "pa\"ss wörd/+\\'x",  # $'...'
        "pa\\\"ss wörd/+'x",  # "..."
        "pa\\\"ss\\ wörd/+\\'x",  # printf %q
        json.dumps("pa\"ss wörd/+'x")[1:-1].replace("/", "\\/"),
        base64.b64encode("pa\"ss wörd/+'x".encode()).decode().rstrip("="),
        base64.urlsafe_b64encode("pa\"ss wörd/+'x".encode()).decode().rstrip("="),
    ],
)
def test_every_form_in_which_programs_print_it_is_masked(shown: str) -> None:
    out = masked(["pa\"ss wörd/+'x"], [f"<{shown}>".encode()])
    assert out.startswith(b"<***") and out.endswith(b">")
    assert len(out) <= len(b"<***xx>")


def test_white_space_around_a_secret_does_not_save_it() -> None:
    assert masked(["  token-1234\n"], [b"a token-1234 b"]) == b"a *** b"


def test_a_key_of_many_lines_is_masked_whole_by_line_and_in_base64() -> None:
    assert masked([PEM], [b"x\n" + PEM.encode() + b"y\n"]) == b"x\n***y\n"
    carriage = PEM.replace("\n", "\r\n").encode()
    assert masked([PEM], [carriage]).replace(b"***\r\n", b"") == b""
    wrapped = base64.encodebytes(PEM.encode())
    left = masked([PEM], [wrapped]).replace(b"***", b"").replace(b"\n", b"")
    assert len(left) < 8
    escaped = json.dumps({"key": PEM}).encode()
    assert masked([PEM], [escaped]) == b'{"key": "***"}'


def test_overlapping_secrets_become_one_mask_and_touching_ones_two() -> None:
    assert masked(["abcdef", "defghi"], [b"<abcdefghi>"]) == b"<***>"
    assert masked(["abcd", "efgh"], [b"<abcdefgh>"]) == b"<******>"
    assert masked(["abcd", "xabcdy"], [b"<xabcdy> <xabcd>"]) == b"<***> <x***>"


def test_only_the_end_that_begins_a_secret_is_held_back() -> None:
    masker = Masker([PEM])
    assert masker.feed(b"a line of 40 bytes\n") == b"a line of 40 bytes\n"
    assert masker.feed(b"--") == b""
    assert masker.feed(b"- done\n") == b"--- done\n"
    masker = Masker(["ssecret", "retry!"])
    assert masker.feed(b"a ssecret") == b"a ***"  # the mask is out though `ret` may begin the other
    assert masker.feed(b"ry! b") == b" b"


def test_a_secret_that_never_ends_comes_out_at_the_end_of_the_stream() -> None:
    masker = Masker(["secret-value"])
    assert masker.feed(b"my secret-val") == b"my "
    assert masker.finish() == b"secret-val"
    assert masker.finish() == b""


def test_short_values_are_not_masked() -> None:
    assert masked(["1", "abc", "", " \n "], [b"1 abc \n"]) == b"1 abc \n"


def test_lines_of_a_secret_that_stand_in_many_logs_are_left_alone() -> None:
    secret = "{\nkind: tok-9182\n-----\ntrue\n2024\nlatest\n}"
    assert masked([secret], [b"true 2024 ----- latest { tok-9182 kind: tok-9182"]) == (
        b"true 2024 ----- latest { tok-9182 ***"
    )


@pytest.mark.parametrize(
    "value", ["abc", " abc\n", "true", "FALSE", "main", "latest", "8080", "------", "  "]
)
def test_useless_values_shred_no_log(value: str) -> None:
    assert is_useless(value)
    line = f"{value} {value.lower()} branch=main:latest true 18080 --------".encode()
    assert masked([value], [line]) == line


@pytest.mark.parametrize("value", ["hunter2", "12345678", "pa ss", "tokens!"])
def test_short_values_that_are_not_common_are_masked(value: str) -> None:
    assert masked([value], [value.encode()]) == b"***"


def test_json_written_for_html_is_masked() -> None:
    assert masked(["a<b>c&d/e"], [rb"<a\u003cb\u003ec\u0026d/e>"]) == b"<***>"


def test_a_text_is_masked_at_once() -> None:
    assert Patterns(["hunter2"]).mask("clone of https://x:hunter2@host failed") == (
        "clone of https://x:***@host failed"
    )


def test_many_long_secrets_use_the_compact_automaton_and_mask_alike() -> None:
    secrets = [f"{i:05d}" + "x" * 400 for i in range(60)]
    stream = b"-".join(secret.encode() for secret in secrets)
    assert masked(secrets, [stream]) == b"-".join([b"***"] * 60)
