"""Words, numbers, colours: what stands between a value and a reader."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from web import ansi, answer
from web.ansi import Run
from web.assets import Assets
from web.log_text import Window
from web.render import ago, duration, size

STATIC = Path(__file__).parents[2] / "web" / "static"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0s"), (18.44, "18.4s"), (59.96, "1m 00s"), (111, "1m 51s"), (3720, "1h 02m"), (None, "–")],
)
def test_a_duration_is_short_and_never_sixty_seconds(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words


def test_an_age_has_one_unit() -> None:
    assert [ago(s) for s in (2, 60, 120, 7200, 200000)] == [
        "now",
        "60 s ago",
        "2 min ago",
        "2 h ago",
        "2 d ago",
    ]


def test_sizes_are_readable() -> None:
    assert [size(n) for n in (12, 61_000, 1_234_567, 3_000_000_000)] == ["12 B", "61 KB", "1.2 MB", "3.0 GB"]


@pytest.mark.parametrize(
    ("line", "runs"),
    [
        ("plain", [Run("plain")]),
        ("\x1b[31mred\x1b[0m rest", [Run("red", "fg1"), Run(" rest")]),
        ("\x1b[1;4;92mx\x1b[22;24m y", [Run("x", "a-bold a-underline fg10"), Run(" y", "fg10")]),
        ("\x1b[38;5;208mo\x1b[48;2;0;0;0mb", [Run("o", "fg208"), Run("b", "fg208 bg16")]),
        ("\x1b[7mi\x1b[31mj", [Run("i", "a-inverse"), Run("j", "bg1")]),
        ("10%\r55%\r\x1b[32m100%", [Run("100%", "fg2")]),
        ("dos\r", [Run("dos")]),
        ("\x1b]8;;https://x.example\x07see\x1b]8;;\x07.", [Run("see", "", "https://x.example"), Run(".")]),
        ("\x1b]8;;javascript:x\x07see", [Run("see")]),
        ("\x1b]0;title\x07\x1b[2K\x1b[1Aa\x00b\x1b(Bc", [Run("abc")]),
        ("\x1b[38;5m\x1b[999999999999mx", [Run("x")]),
    ],
)
def test_a_line_is_shown_as_a_terminal_would(line: str, runs: list[Run]) -> None:
    assert ansi.runs(line)[0] == runs


def test_colours_hold_over_the_end_of_a_line() -> None:
    _, style = ansi.runs("\x1b[31mred")
    assert ansi.runs("still", style)[0] == [Run("still", "fg1")]


@given(st.binary(max_size=200))
def test_no_bytes_make_it_fail_or_leave_a_control_character(line: bytes) -> None:
    text = "".join(run.text for run in ansi.runs(line)[0])
    assert not re.search(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]", text)


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_a_true_colour_is_brought_near(colour: tuple[int, int, int]) -> None:
    found = ansi.rgb(ansi.nearest(*colour))
    assert max(abs(a - b) for a, b in zip(colour, found, strict=True)) <= 48


def _excerpt(*lines: str) -> answer.Excerpt:
    return answer.excerpt(Window(first=1, lines=tuple(line.encode() for line in lines)))


def test_the_excerpt_shows_the_first_and_the_last_error_with_what_is_around() -> None:
    noise = [f"step {number}" for number in range(20)]
    found = _excerpt(*noise, "src/a.c:3: error: no such thing", *noise, "make: *** [all] Error 2")
    assert found.headline == "src/a.c:3: error: no such thing"
    assert [[line.number for line in group if line.is_hit] for group in found.groups] == [[21], [42]]
    assert [len(group) for group in found.groups] == [7, 4]


def test_without_an_error_the_excerpt_is_the_end() -> None:
    found = _excerpt("a", "0 errors, 3 warnings", "b")
    assert [line.text for line in found.groups[0]] == ["a", "0 errors, 3 warnings", "b"]
    assert found.hit is None


def test_nothing_printed_makes_an_empty_excerpt() -> None:
    assert _excerpt() == answer.Excerpt()


# --- contrast, by the tokens -------------------------------------------------------------------------


def _tokens() -> dict[str, tuple[str, str]]:
    css = (STATIC / "shipway.css").read_text()
    found = re.findall(r"--(\w[\w-]*): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\);", css)
    return {name: (light, dark) for name, light, dark in found}


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


OUTCOMES = ("passed", "failed", "running", "pending", "blocked", "infra", "idle")


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("ground", ["bg", "surface", "inset", "hover"])
def test_text_and_outcomes_can_be_read_on_every_ground(theme: int, ground: str) -> None:
    tokens = _tokens()
    for name in ("ink", "quiet", "accent", *OUTCOMES):
        found = _contrast(tokens[name][theme], tokens[ground][theme])
        assert found >= 4.5, f"{name} on {ground}: {found:.2f}"


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_the_sixteen_colours_of_terminals_can_be_read(theme: int) -> None:
    css = (STATIC / "ansi.css").read_text()
    palette = re.findall(r"\.fg(\d+) { color: light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", css)
    assert len(palette) == 16
    ground = ("#fdfdfc", "#0b1015")[theme]
    for number, *colours in palette:
        assert _contrast(colours[theme], ground) >= 4.5, number


def test_the_other_colours_are_those_that_the_parser_means() -> None:
    css = (STATIC / "ansi.css").read_text()
    for number in range(16, 256):
        colour = "#{:02x}{:02x}{:02x}".format(*ansi.rgb(number))
        short = "#" + colour[1::2] if colour[1::2] == colour[2::2] else colour
        assert f".fg{number}{{--f:{short}}}.bg{number}{{--b:{short}}}" in css


def test_all_scripts_together_are_light() -> None:
    assert Assets().packed_size(".js") < 40_000


def test_scripts_make_no_html_from_text() -> None:
    for path in STATIC.glob("*.js"):
        forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function"
        assert not re.search(forbidden, path.read_text()), path.name
