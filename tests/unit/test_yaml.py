"""Reading YAML: literal text, places, and limits that end the reading at the first breach."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import yaml as pyyaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ci.errors import ConfigError
from ci.pipeline import yaml
from ci.pipeline.problems import Mark, Problems
from ci.pipeline.yaml import Kind, Mapping, Node, Scalar, Sequence
from tests.corpus import CORPUS

ROOT = Path(__file__).parent.parent.parent
K300 = 300 * 1024
K250 = 250 * 1024


def load(source: str | bytes) -> Node | None:
    return yaml.load(source, Problems(file="f.yml"))


def plain(node: Node | None) -> object:
    match node:
        case Mapping():
            return {key.text: plain(value) for key, value in node.entries}
        case Sequence():
            return [plain(item) for item in node.items]
        case Scalar():
            return node.value
    return None


def problems_of(source: str | bytes) -> list[str]:
    problems = Problems(file="f.yml")
    try:
        yaml.load(source, problems)
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return [str(problem) for problem in problems.in_order]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("yes", Kind.TEXT),
        ("on", Kind.TEXT),
        ("NO", Kind.TEXT),
        ("true", Kind.BOOL),
        ("FALSE", Kind.BOOL),
        ("tRue", Kind.TEXT),
        ("1.10", Kind.FLOAT),
        ("1e3", Kind.FLOAT),
        (".5", Kind.FLOAT),
        ("-.inf", Kind.FLOAT),
        ("0o17", Kind.INT),
        ("017", Kind.INT),
        ("0x1F", Kind.INT),
        ("1_000", Kind.TEXT),
        ("12:30:45", Kind.TEXT),
        ("2024-01-01", Kind.TEXT),
        ("~", Kind.NULL),
        ("", Kind.NULL),
        ("null", Kind.NULL),
        ("'1'", Kind.TEXT),
        ('"true"', Kind.TEXT),
        ("!!str 1", Kind.TEXT),
        ("! 12", Kind.TEXT),
        ("=", Kind.TEXT),
        ("9" * 5000, Kind.TEXT),
    ],
)
def test_a_scalar_is_what_the_core_schema_says(text: str, kind: Kind) -> None:
    node = load(f"a: {text}\n")
    assert isinstance(node, Mapping)
    value = node.by_name["a"]
    assert isinstance(value, Scalar)
    assert value.kind is kind


def test_literal_text_is_kept() -> None:
    assert plain(load("[1.10, 0x1F, NO, 'a', 007, ~]")) == ["1.10", "0x1F", "NO", "a", "007", ""]


def test_every_node_knows_its_place() -> None:
    node = load("a:\n  - x\n  -   {b: c}\n")
    assert isinstance(node, Mapping)
    items = node.by_name["a"]
    assert isinstance(items, Sequence)
    assert [items.mark, items.items[0].mark, items.items[1].mark] == [Mark(2, 3), Mark(2, 5), Mark(3, 7)]


def test_anchors_and_merge_keys_work_and_own_keys_win() -> None:
    source = """
base: &base {image: a, x: 1}
more: &more {x: 2, y: 3}
one: {<<: *base, image: b}
two: {<<: [*base, *more]}
"""
    found = plain(load(source))
    assert isinstance(found, dict)
    assert found["one"] == {"image": "b", "x": "1"}
    assert found["two"] == {"image": "a", "x": "1", "y": "3"}


def test_a_quoted_merge_key_is_a_key() -> None:
    assert plain(load('"<<": {a: b}')) == {"<<": {"a": "b"}}


def test_a_byte_order_mark_is_no_text() -> None:
    assert plain(load(b"\xef\xbb\xbfa: b")) == {"a": "b"}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", '3:1: the key "a" stands twice, first in line 1'),
        ("a: b\n---\nc: d\n", "3:1: a second document begins here"),
        ("a: *b", '1:4: the alias "*b" has no anchor "&b" before it'),
        ("a: &a [*a]", '1:8: the alias "*a" stands inside of its own anchor'),
        ("a: !foo b", '1:4: the tag "!foo" means nothing here'),
        ("a: !!binary b", '1:4: the tag "!!binary" means nothing here'),
        ("<<: text", '1:5: "<<" merges a map or a list of maps, this is "text"'),
        ("[a]: b", "1:1: a key must be text, this is a list"),
        ("~: b", "1:1: a key must be text, this is nothing"),
        ("a:\n\tb: c", "use spaces"),
        ("a: %b", "put the text into quotes"),
        ("a: b: c", 'text with ": " in it needs quotes'),
        ("a: x\x00y", "1:5: the character U+0000 is not allowed in YAML"),
        ("a: b\n\x1b[0m", "2:1: the character U+001B is not allowed in YAML"),
        ("a: \ud800", "1:4: the character U+D800 is not allowed in YAML"),
        (b"a: b\nc: \xff\xfe", "2:4: the byte 0xff is not UTF-8 text"),
        ("ä: 'x", "this is not YAML"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(source: str | bytes, message: str) -> None:
    assert any(message in problem for problem in problems_of(source)), problems_of(source)


def test_several_problems_are_found_at_once() -> None:
    assert len(problems_of("a: 1\na: 2\nb: !x 1\nc: *d\n")) == 3


LAUGHS = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)
MERGES = "a0: &a0 {x: y}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}], k{n}: v}}\n" for n in range(1, 10)
)
#: name -> text. Each is refused after a bounded number of parser events, or is harmless.
HOSTILE = {
    "brackets": "[" * 60_000,
    "closed brackets": "[" * 60_000 + "]" * 60_000,
    "braces": "{a: " * 60_000,
    "dashes": "- " * 120_000,
    "questions": "? " * 120_000,
    "flow questions": "{?" * 100_000,
    "deep block": "\n".join(" " * n + "a:" for n in range(700)),
    "laughs": LAUGHS,
    "merges": MERGES,
    "wide merges": "a: &a {"
    + ", ".join(f"k{n}: v" for n in range(900))
    + "}\n"
    + "b: {<<: ["
    + "*a, " * 900
    + "]}\n",
    "aliases": "a: &a x\nb: [" + "*a, " * 50_000 + "]",
    "deep aliases": "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 900)),
    "directives": "".join(f"%TAG !a{n}! x\n" for n in range(16_000)),
    "documents": "---\n" * 60_000,
    "many values": "[" + "a," * 120_000 + "]",
    "many keys": "".join(f"k{n}: v\n" for n in range(25_000)),
    "same key": "a: b\n" * 50_000,
    "same tag": "[" + "!x a," * 15_000 + "]",
    "missing aliases": "[" + "*x," * 60_000 + "]",
    "anchors": "&a " * 80_000,
    "one long word": "a" * K250,
    "one long number": "9" * K250,
    "escapes": '"' + "\\x41" * 60_000 + '"',
    "open quote": '"' + "\\x41" * 60_000,
    "quotes": "'" + "''" * 120_000,
    "comment": "#" * K250,
    "empty lines": "a: [" + "\n" * K250,
    "long tag": "- !<" + "%41" * 80_000 + ">",
    "folded": ">\n" + "\n \n" * 80_000,
    "line separators": "\u2028" * 80_000,
    "too large": "a" * K300,
    "too large in bytes": "ä" * (200 * 1024),
    "zeros": "\0" * K300,
    "tabs": "\t" * K250,
    "random": random.Random(1).randbytes(K300).decode("latin-1"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_read_or_refused_within_few_parser_events(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = 0
    real = pyyaml.parse

    def counted(*args: object, **kwargs: object) -> object:
        nonlocal events
        for event in real(*args, **kwargs):  # type: ignore[arg-type]
            events += 1
            yield event

    monkeypatch.setattr("ci.pipeline.yaml.yaml.parse", counted)
    source = HOSTILE[name]
    for text in (source, source.encode(errors="surrogatepass")):
        events = 0
        try:
            node = load(text)
        except ConfigError as error:
            assert error.problems
        else:
            assert weight(node) <= yaml.MAX_NODES
        assert events <= 3 * yaml.MAX_NODES


def weight(node: Node | None) -> int:
    """Values with every alias written out; recursive, for the depth is bounded."""
    match node:
        case Mapping():
            return 1 + sum(1 + weight(value) for _, value in node.entries)
        case Sequence():
            return 1 + sum(weight(item) for item in node.items)
    return 1


@pytest.mark.parametrize(
    ("name", "most"), [("brackets", 5), ("closed brackets", 40), ("dashes", 70), ("deep aliases", 400)]
)
def test_nesting_ends_the_reading_at_the_first_breach(name: str, most: int) -> None:
    read = 0
    try:
        for _ in pyyaml.parse(HOSTILE[name], Loader=pyyaml.CLoader):
            read += 1
            if read > most:
                break
    except pyyaml.YAMLError:
        pass
    assert read <= most + 1
    assert any("nested" in problem for problem in problems_of(HOSTILE[name]))


YAMLISH = st.text(alphabet="ab:-[]{}#&*!|>'\"%@`,?<~ \n\t\\0.éx", max_size=200)


@settings(max_examples=400, deadline=None)
@given(st.one_of(YAMLISH, st.text(max_size=300), st.binary(max_size=300)))
@example("&a a: &a b")
@example("? a\n? b")
@example("- &a\n- *a")
@example("{a, b: }")
@example("%YAML 3.2\n---\na")
@example("...")
def test_only_config_errors_come_out(source: str | bytes) -> None:
    problems = Problems(file="f")
    try:
        yaml.load(source, problems)
    except ConfigError as error:
        assert error.problems


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus is not beside this checkout")
def test_real_files_are_read() -> None:
    for path in sorted(CORPUS.glob("woodpecker/*")):
        problems = problems_of(path.read_bytes())
        assert not problems or "a second document" in problems[0], problems
