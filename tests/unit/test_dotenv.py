"""Variables of files, and what steps put out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci import dotenv


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("A=1\nB=two words\n", {"A": "1", "B": "two words"}),
        ("# said\nexport A=1 # why\n\nB='#no' \n", {"A": "1", "B": "#no"}),
        ("A=\"x\\ny\"\nB='x\\ny'\n", {"A": "x\ny", "B": "x\\ny"}),
        ('A="several\nlines"', {"A": "several\nlines"}),
        ("A=$B ${C}", {"A": "$B ${C}"}),
        ("A=\r\nB", {"A": "", "B": ""}),
        ("", {}),
    ],
)
def test_a_file_is_read_by_the_rules_of_the_family(text: str, values: dict[str, str]) -> None:
    assert dotenv.of_file(text) == dotenv.Variables(values=values)


def test_a_line_of_a_file_that_means_nothing_is_named() -> None:
    read = dotenv.of_file("A=1\n=2\nB=3\n")
    assert read.values == {"A": "1", "B": "3"}
    assert read.complaints == ("line 2 is no NAME=value",)


@pytest.mark.parametrize(
    ("lines", "values"),
    [
        (["A=1", "B= 2 '3' # 4 "], {"A": "1", "B": " 2 '3' # 4 "}),
        (["A=1", "A=2"], {"A": "2"}),
        (["A=b=c", ""], {"A": "b=c"}),
        (["A<<END", "1", "B=2", "", "END", "C=3"], {"A": "1\nB=2\n", "C": "3"}),
        (["A<<END", "1"], {"A": "1"}),
        (["A=x<<y"], {"A": "x<<y"}),
    ],
)
def test_what_is_put_out_is_taken_as_it_stands(lines: list[str], values: dict[str, str]) -> None:
    assert dotenv.of_outputs(lines) == dotenv.Variables(values=values)


@pytest.mark.parametrize("name", ["CI", "CI_COMMIT_SHA", "PATH", "LD_PRELOAD", "IFS", "a b", "", "1A"])
def test_a_name_that_is_not_for_steps_to_set_is_left_out_with_a_word(name: str) -> None:
    read = dotenv.of_outputs([f"{name}=x", "B=1"])
    assert read.values == {"B": "1"}
    assert len(read.complaints) == 1


def test_there_is_an_end_to_names_and_values() -> None:
    read = dotenv.of_outputs([f"A{number}=1" for number in range(dotenv.MAX_OUTPUTS + 1)])
    assert len(read.values) == dotenv.MAX_OUTPUTS
    assert read.complaints[0].endswith("is left out: 200 are the most")
    assert len(dotenv.of_outputs(["A=" + "x" * 100_000]).values["A"]) == 32 * 1024


@given(st.text(max_size=200), st.lists(st.text(max_size=20), max_size=10))
def test_nothing_makes_it_fail(text: str, lines: list[str]) -> None:
    for read in (dotenv.of_file(text), dotenv.of_outputs(lines)):
        assert all(name.isidentifier() for name in read.values)
