"""Operators of `${NAME...}`: at least five rows for each, against the values of VALUES."""

from __future__ import annotations

import subprocess
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ci.pipeline import operators
from ci.pipeline.operators import TABLE, Missing, parsed
from ci.pipeline.substitute import Substitution, references

VALUES = {
    "tag": "v1.20.3-rc.1",
    "ref": "refs/tags/v1.2",
    "name": "Hello World",
    "low": "abc",
    "star": "a*b",
    "empty": "",
    "wide": "Grüße, 世界",
}
FILL = Substitution(values=VALUES, outside={})

ROWS = [
    ("${low^^}", "ABC"),
    ("${tag^^}", "V1.20.3-RC.1"),
    ("${name^^}", "HELLO WORLD"),
    ("${empty^^}", ""),
    ("${wide^^}", "GRÜSSE, 世界"),
    ("${low^}", "Abc"),
    ("${tag^}", "V1.20.3-rc.1"),
    ("${name^}", "Hello World"),
    ("${empty^}", ""),
    ("<${low^}>", "<Abc>"),
    ("${name,,}", "hello world"),
    ("${low,,}", "abc"),
    ("${empty,,}", ""),
    ("${wide,,}", "grüße, 世界"),
    ("${tag,,}/x", "v1.20.3-rc.1/x"),
    ("${name,}", "hello World"),
    ("${wide,}", "grüße, 世界"),
    ("${low,}", "abc"),
    ("${empty,}", ""),
    ("${name,}${name,}", "hello Worldhello World"),
    ("${empty:-d}", "d"),
    ("${nobody:-d}", "d"),
    ("${low:-d}", "abc"),
    ("${empty:-}", ""),
    ("${empty:---a b --c}", "--a b --c"),
    ("${empty:-${low}}", "abc"),
    ("${empty:-${nobody:-${low^^}}}", "ABC"),
    ("${empty:=d}", "d"),
    ("${low:=d}", "abc"),
    ("${nobody:=a/b}", "a/b"),
    ("${empty:=}", ""),
    ("${empty:=${low}x}", "abcx"),
    ("${low:?no}", "abc"),
    ("${tag:?}", "v1.20.3-rc.1"),
    ("${name:?a sentence}", "Hello World"),
    ("${wide:?x}", "Grüße, 世界"),
    ("${star:?x}", "a*b"),
    ("${low:+y}", "y"),
    ("${empty:+y}", ""),
    ("${nobody:+y}", ""),
    ("${low:+}", ""),
    ("${low:+${name}}", "Hello World"),
    ("${empty-d}", "d"),
    ("${low-d}", "abc"),
    ("${nobody-a-b}", "a-b"),
    ("${empty-}", ""),
    ("${nobody-${low}}", "abc"),
    ("${empty=d}", "d"),
    ("${low=d}", "abc"),
    ("${nobody=a=b}", "a=b"),
    ("${empty=}", ""),
    ("${nobody=${low}}", "abc"),
    ("${low?no}", "abc"),
    ("${tag?}", "v1.20.3-rc.1"),
    ("${name?a sentence}", "Hello World"),
    ("${wide?x}", "Grüße, 世界"),
    ("${star?x}", "a*b"),
    ("${low+y}", "y"),
    ("${empty+y}", ""),
    ("${nobody+y}", ""),
    ("${low+}", ""),
    ("${low+${name}}", "Hello World"),
    ("${tag##v}", "1.20.3-rc.1"),
    ("${ref##*/}", "v1.2"),
    ("${ref##*}", ""),
    ("${low##b}", "abc"),
    ("${tag##*[0-9]}", ""),
    ("${star##a\\*}", "b"),
    ("${tag#v}", "1.20.3-rc.1"),
    ("${ref#*/}", "tags/v1.2"),
    ("${ref#*}", "refs/tags/v1.2"),
    ("${low#?}", "bc"),
    ("${low#[!b]}", "bc"),
    ("${empty#x}", ""),
    ("${tag%%.*}", "v1"),
    ("${ref%%/*}", "refs"),
    ("${ref%%*}", ""),
    ("${low%%b}", "abc"),
    ("${tag%%-*}", "v1.20.3"),
    ("${tag%.*}", "v1.20.3-rc"),
    ("${ref%/*}", "refs/tags"),
    ("${ref%*}", "refs/tags/v1.2"),
    ("${low%?}", "ab"),
    ("${name%o*}", "Hello W"),
    ("${ref//\\//-}", "refs-tags-v1.2"),
    ("${low//b/}", "ac"),
    ("${low//x/y}", "abc"),
    ("${tag//1/one}", "vone.20.3-rc.one"),
    ("${empty//a/b}", ""),
    ("${ref/#refs/r}", "r/tags/v1.2"),
    ("${low/#b/x}", "abc"),
    ("${low/#ab}", "c"),
    ("${empty/#a/b}", ""),
    ("${tag/#v/}", "1.20.3-rc.1"),
    ("${ref/%v1.2/x}", "refs/tags/x"),
    ("${low/%b/x}", "abc"),
    ("${low/%bc}", "a"),
    ("${empty/%a/b}", ""),
    ("${tag/%.1/.2}", "v1.20.3-rc.2"),
    ("${ref/\\//-}", "refs-tags/v1.2"),
    ("${low/b/x}", "axc"),
    ("${low/x/y}", "abc"),
    ("${name/l/L}", "HeLlo World"),
    ("${name/o W}", "Hellorld"),
    ("${low:1}", "bc"),
    ("${low:0:2}", "ab"),
    ("${tag:0:7}", "v1.20.3"),
    ("${low: -2}", "bc"),
    ("${low:0:-1}", "ab"),
    ("${low:9}", ""),
    ("${wide:7:2}", "世界"),
    ("${#low}", "3"),
    ("${#empty}", "0"),
    ("${#nobody}", "0"),
    ("${#wide}", "9"),
    ("${#tag}", "12"),
]


@pytest.mark.parametrize(("source", "text"), ROWS)
def test_a_row(source: str, text: str) -> None:
    assert FILL.text(source) == text
    assert FILL.command(source) in (text, source), "in commands it may be left to the shell"


def test_every_operator_has_at_least_five_rows() -> None:
    signs = Counter(
        reference.operator.sign
        for source, _ in ROWS
        for reference in references(source)
        if reference.operator is not None
    )
    assert {sign: signs[sign] for sign in TABLE if signs[sign] < 5} == {}


@pytest.mark.parametrize(
    ("source", "text"), [row for row in ROWS if row[0].isascii() and "wide" not in row[0]]
)
def test_what_is_left_to_the_shell_gives_the_same_there(source: str, text: str) -> None:
    (first, *_) = references(source)
    if first.operator is None or not first.operator.is_posix or "^^" in source:
        pytest.skip("no POSIX shell has it: it is worked out before")
    script = f'printf %s "{source}"'
    done = subprocess.run(["sh", "-c", script], env=VALUES, capture_output=True, text=True, check=True)
    without_colon = first.operator.sign in "-=+?" and first.name == "empty"
    assert without_colon or done.stdout == text


@pytest.mark.parametrize("source", ["${empty:?give it}", "${nobody?give it}"])
def test_a_value_that_is_needed_and_missing_is_an_error_in_the_authors_words(source: str) -> None:
    with pytest.raises(Missing, match="give it"):
        FILL.text(source)
    assert FILL.command(source) == source, "the shell says it"


@pytest.mark.parametrize(
    "text", ["${x[0]}", "${x@Q}", "${!x}", "${x^^y}", "${x:a}", "${x:1:b}", "${x!}", "${x", "${#}"]
)
def test_what_only_some_shells_have_is_kept_as_it_is(text: str) -> None:
    assert FILL.text(text) == FILL.command(text) == text


def test_an_outsiders_value_reaches_a_command_as_a_variable_where_no_shell_has_the_operator() -> None:
    fill = Substitution(values={"us": "v"}, outside={"evil": "$(reboot);`x`"})
    computed: dict[str, str] = {}
    source = "echo ${evil^^} ${evil:0:3} ${evil^^} ${evil##x} ${us:-${evil}} ${us^^}"
    assert fill.command(source, computed) == (
        "echo ${CI_SUBSTITUTED_1} ${CI_SUBSTITUTED_2} ${CI_SUBSTITUTED_1} ${evil##x} ${us:-${evil}} V"
    )
    assert computed == {"CI_SUBSTITUTED_1": "$(REBOOT);`X`", "CI_SUBSTITUTED_2": "$(r"}


@settings(max_examples=300)
@given(
    st.text("ab*?[]!-\\./", max_size=30),
    st.text("ab.-/]", max_size=60),
    st.sampled_from(["#", "##", "%", "%%"]),
)
def test_any_pattern_takes_off_a_begin_or_an_end(pattern: str, value: str, sign: str) -> None:
    found = operators.TABLE[sign].apply(value, pattern)
    assert value.endswith(found) if "#" in sign else value.startswith(found)


@settings(max_examples=300)
@given(st.text(max_size=40))
def test_any_text_between_braces_is_read_or_is_none(inside: str) -> None:
    found = parsed(inside)
    assert found is None or found[0].isidentifier()
