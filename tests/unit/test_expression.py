"""Expressions of `evaluate`: one table of what they are worth, and one of what is wrong with them."""

from __future__ import annotations

import json
import math
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ci.pipeline.expression import BadExpression, parse
from ci.pipeline.expression.functions import FUNCTIONS, PREDICATES
from tests.corpus import CORPUS

PAGE = (Path(__file__).parents[2] / "docs/reference/expressions.md").read_text()
VARIABLES = {
    "CI_COMMIT_BRANCH": "main",
    "CI_COMMIT_TAG": "v1.2.3",
    "CI_PIPELINE_NUMBER": "12",
    "CI_PIPELINE_FILES": '["docs/a.md", "src/b.go"]',
    "not-a-name": "x",
}
USERS = '[{name: "eve", age: 3}, {name: "ada", age: 3}, {name: "bob", age: 1}]'

ROWS: list[tuple[str, Any]] = [
    # values
    ("true", True),
    ("false", False),
    ("nil", None),
    ("42", 42),
    ("1_000", 1000),
    ("0x2A", 42),
    ("0b101", 5),
    ("0o17", 15),
    ("0.5", 0.5),
    (".5", 0.5),
    ("1e3", 1000.0),
    ("1.5e-1", 0.15),
    ('"a"', "a"),
    ("'a'", "a"),
    ("`a\\n`", "a\\n"),
    (r'"a\n\t\\\""', 'a\n\t\\"'),
    (r"'it\'s'", "it's"),
    (r'"\x41\u00fc\U0001F600\101"', "Aü😀A"),
    (r'"\."', r"\."),
    ("[]", []),
    ("[1, 'a', [true],]", [1, "a", [True]]),
    ('{a: 1, "b": 2, ("c" + "d"): 3, 4: 5,}', {"a": 1, "b": 2, "cd": 3, "4": 5}),
    ("{}", {}),
    ("1 /* one */ + 1 // two", 2),
    # variables
    ("CI_COMMIT_BRANCH", "main"),
    ("NOT_SET", ""),
    ('NOT_SET == ""', True),
    ("NOT_SET ?? 'x'", ""),
    ('$env["CI_COMMIT_BRANCH"]', "main"),
    ("$env.CI_COMMIT_BRANCH", "main"),
    ('$env["not-a-name"]', "x"),
    ('$env["nobody"]', ""),
    ('"CI_COMMIT_TAG" in $env', True),
    ('"NOT_SET" in $env', False),
    ('not("NOT_SET" in $env)', True),
    ("let x = 2; x * x", 4),
    ("let x = 2; let y = x + 1; x * y", 6),
    ("let CI_COMMIT_BRANCH = 'mine'; CI_COMMIT_BRANCH", "mine"),
    ("1; 2", 2),
    ("(1; 2)", 2),
    # arithmetic
    ("1 + 2 * 3", 7),
    ("(1 + 2) * 3", 9),
    ("7 - 2 - 1", 4),
    ("7 / 2", 3.5),
    ("6 / 2", 3.0),
    ("7 % 3", 1),
    ("-7 % 3", -1),
    ("1 / 0", math.inf),
    ("2 ** 3 ** 2", 512.0),
    ("2 ^ 3", 8.0),
    ("-2 ** 2", -4.0),
    ("--1", 1),
    ("+1", 1),
    ("1 + 0.5", 1.5),
    ('"a" + "b"', "ab"),
    ("1..3", [1, 2, 3]),
    ("3..1", []),
    ("1 + 1..3", [2, 3]),
    # comparison
    ("1 == 1.0", True),
    ("1 != 2", True),
    ("1 < 2", True),
    ("2 <= 2", True),
    ("2 > 2", False),
    ("2 >= 2", True),
    ("1 < 2 < 3", True),
    ("1 < 3 < 2", False),
    ("3 > 2 == 2", True),
    ('"a" < "b"', True),
    ('"a" == "a"', True),
    ("[1, [2]] == [1, [2]]", True),
    ("[1] == [true]", False),
    ("{a: 1} == {a: 1.0}", True),
    ("nil == nil", True),
    ("nil == 1", False),
    ('"" != nil', True),
    ("true == true", True),
    # logic
    ("true and false", False),
    ("true && true", True),
    ("false or true", True),
    ("false || false", False),
    ("not true", False),
    ("!true", False),
    ("not false and true", True),
    ("true or false and false", True),
    ("false and 1", False),
    ("true or 1", True),
    ("true ? 1 : 2", 1),
    ("false ? 1 : 2", 2),
    ("false ? 1 : true ? 2 : 3", 2),
    ("true ?: false", True),
    ("1 > 2 ? 'a' : 'b'", "b"),
    ("if 1 < 2 { 'a' } else { 'b' }", "a"),
    ("if false { 1 } else if true { 2 } else { 3 }", 2),
    ("nil ?? 1", 1),
    ("2 ?? 1", 2),
    ("nil ?? nil ?? 3", 3),
    # membership and text
    ("1 in [1, 2]", True),
    ("3 not in [1, 2]", True),
    ("not (3 in [1, 2])", True),
    ('"a" in {a: 1}', True),
    ("1 in nil", False),
    ('"abc" contains "b"', True),
    ('"abc" not contains "x"', True),
    ('"abc" startsWith "a"', True),
    ('"abc" endsWith "c"', True),
    ('"abc" not endsWith "c"', False),
    ('"v1.2" matches "^v[0-9]+"', True),
    ('"v1.2" matches "2"', True),
    ('"v1.2" not matches "^x"', True),
    (r'"1.2.3" matches "^([0-9]+)\\.([0-9]+)\\.([0-9]+)(-beta\\.[0-9]+)?$"', True),
    (r'"1.2.3" matches "^([0-9]+)\.([0-9]+)\.([0-9]+)$"', True),
    ("CI_COMMIT_TAG matches `^v\\d+\\.\\d+\\.\\d+$`", True),
    # members
    ("[1, 2, 3][0]", 1),
    ("[1, 2, 3][-1]", 3),
    ("[1, 2, 3, 4, 5][1:4]", [2, 3, 4]),
    ("[1, 2, 3, 4, 5][1:-1]", [2, 3, 4]),
    ("[1, 2, 3][:2]", [1, 2]),
    ("[1, 2, 3][2:]", [3]),
    ("[1, 2, 3][:]", [1, 2, 3]),
    ('"abc"[1:]', "bc"),
    ("{a: {b: 1}}.a.b", 1),
    ('{a: 1}["a"]', 1),
    ("{a: 1}.b", None),
    ("{a: 1}.b?.c", None),
    ("{a: 1}.b?.c.d.e", None),
    ("{a: 1}.b?.[0]", None),
    ("{a: 1}.b?.c ?? 2", 2),
    ('{"matches": 1}.matches', 1),
    # functions of texts
    ('trim("  a ")', "a"),
    ('trim("__a__", "_")', "a"),
    ('trimPrefix("HelloWorld", "Hello")', "World"),
    ('trimSuffix("HelloWorld", "World")', "Hello"),
    ('upper("a")', "A"),
    ('lower("A")', "a"),
    ('split("a,b,c", ",")', ["a", "b", "c"]),
    ('split("a,b,c", ",", 2)', ["a", "b,c"]),
    ('split("abc", "")', ["a", "b", "c"]),
    ('splitAfter("a,b,c", ",")', ["a,", "b,", "c"]),
    ('splitAfter("a,b,c", ",", 2)', ["a,", "b,c"]),
    ('replace("a-b-c", "-", "+")', "a+b+c"),
    ('replace("a-b-c", "-", "+", 1)', "a+b-c"),
    ('repeat("ab", 3)', "ababab"),
    ('join(["a", "b"], ",")', "a,b"),
    ('join(["a", "b"])', "ab"),
    ('indexOf("apple pie", "pie")', 6),
    ('indexOf("apple", "x")', -1),
    ('lastIndexOf("a b a", "a")', 4),
    ('hasPrefix("ab", "a")', True),
    ('hasSuffix("ab", "a")', False),
    # functions of numbers
    ("max(5, 7)", 7),
    ("max([1, 9], 3)", 9),
    ("min(5, 7.5)", 5),
    ("abs(-5)", 5),
    ("ceil(1.5)", 2.0),
    ("floor(1.5)", 1.0),
    ("round(1.5)", 2.0),
    ("round(-1.5)", -2.0),
    ("mean([1, 2, 3])", 2.0),
    ("median([1, 2, 3, 4])", 2.5),
    ("median([3, 1, 2])", 2.0),
    ("bitand(6, 3)", 2),
    ("bitor(6, 3)", 7),
    ("bitxor(6, 3)", 5),
    ("bitnand(6, 3)", 4),
    ("bitnot(0)", -1),
    ("bitshl(1, 4)", 16),
    ("bitshr(-16, 2)", -4),
    ("bitushr(-1, 63)", 1),
    # functions of lists and maps
    ('len("abc")', 3),
    ("len([1, 2])", 2),
    ("len({a: 1})", 1),
    ("first([1, 2])", 1),
    ("first([])", None),
    ("last([1, 2])", 2),
    ("take([1, 2, 3], 2)", [1, 2]),
    ("take([1], 5)", [1]),
    ("reverse([1, 2])", [2, 1]),
    ("concat([1], [2], [3, 4])", [1, 2, 3, 4]),
    ("flatten([1, [2, [3]]])", [1, 2, 3]),
    ("uniq([1, 2, 1, '1'])", [1, 2, "1"]),
    ("sort([3, 1, 2])", [1, 2, 3]),
    ('sort(["b", "a"], "desc")', ["b", "a"]),
    ("keys({a: 1, b: 2})", ["a", "b"]),
    ("values({a: 1, b: 2})", [1, 2]),
    ("toPairs({a: 1})", [["a", 1]]),
    ('fromPairs([["a", 1]])', {"a": 1}),
    ("get([1, 2], 1)", 2),
    ("get([1, 2], 9)", None),
    ('get({a: 1}, "a")', 1),
    # with a predicate
    ("all([1, 2], # > 0)", True),
    ("all([], false)", True),
    ("any([1, 2], {# > 1})", True),
    ("any([], true)", False),
    ("one([1, 2, 3], # > 2)", True),
    ("none([1, 2], # > 2)", True),
    ("map([1, 2], # * 2)", [2, 4]),
    ("map(1..3, #index)", [0, 1, 2]),
    ("filter(0..9, # % 2 == 0)", [0, 2, 4, 6, 8]),
    ("filter(0..9, {let x = #; x > 7})", [8, 9]),
    ("find([1, 2, 3, 4], # > 2)", 3),
    ("find([1], # > 2)", None),
    ("findIndex([1, 2, 3, 4], # > 2)", 2),
    ("findLast([1, 2, 3, 4], # > 2)", 4),
    ("findLastIndex([1, 2, 3, 4], # > 2)", 3),
    (f"map({USERS}, .name)", ["eve", "ada", "bob"]),
    (f"filter({USERS}, .age == 1)[0].name", "bob"),
    (f"keys(groupBy({USERS}, .age))", ["3", "1"]),
    (f"map(sortBy({USERS}, .age), .name)", ["bob", "eve", "ada"]),
    (f'map(sortBy({USERS}, .name, "desc"), .name)', ["eve", "bob", "ada"]),
    ("count([1, 2, 3], # > 1)", 2),
    ("count([true, false])", 1),
    ("sum([1, 2, 3])", 6),
    ("sum([1, 2], # * 2)", 6),
    ("reduce(1..4, #acc + #)", 10),
    ("reduce(1..4, #acc + #, 10)", 20),
    ("reduce([], #acc, 7)", 7),
    ("map([[1, 2], [3]], sum(#))", [3, 3]),
    ("map(1..2, map(1..#, # * 10))", [[10], [10, 20]]),
    # kinds
    ('type(nil) + type(true) + type(1) + type(1.5) + type("")', "nilboolintfloatstring"),
    ("type([]) + type({})", "arraymap"),
    ('int("12")', 12),
    ("int(1.9)", 1),
    ("int(CI_PIPELINE_NUMBER) > 5", True),
    ('float("1.5")', 1.5),
    ("string(1)", "1"),
    ("string(1.5)", "1.5"),
    ("string(true)", "true"),
    ("toJSON({a: [1]})", json.dumps({"a": [1]}, indent=2)),
    ("fromJSON('{\"a\": [1, null]}')", {"a": [1.0, None]}),
    ('toBase64("a")', "YQ=="),
    ('fromBase64("YQ==")', "a"),
    # pipes
    ('"A,B" | lower() | split(",")', ["a", "b"]),
    ("1..3 | map(# * 2) | sum()", 12),
    ("CI_COMMIT_BRANCH | upper() == 'MAIN'", True),
    ("::len('ab')", 2),
    # as they are used
    ('CI_COMMIT_BRANCH == "main" && CI_COMMIT_TAG != "nightly"', True),
    ('any(fromJSON(CI_PIPELINE_FILES), { # startsWith "docs/" || # startsWith "x/" })', True),
    ("len(fromJSON(CI_PIPELINE_FILES)) == 0", False),
]


@pytest.mark.parametrize(("source", "value"), ROWS)
def test_an_expression_is_worth(source: str, value: Any) -> None:
    found = parse(source).evaluate(VARIABLES)
    assert found == value
    assert type(found) is type(value)


WRONG: list[tuple[str, int, str]] = [
    ("", 0, "a value is expected here, not the end"),
    ("1 +", 3, "a value is expected here"),
    ("1 2", 2, "'2' is not expected here"),
    ("(1", 2, "')' is expected here, not the end"),
    ("[1, 2", 5, "',' is expected here"),
    ("{a 1}", 3, "':' is expected here"),
    ("{[1]: 1}", 1, "the key of a map is expected"),
    ("'abc", 0, "has no end"),
    ("1 /* x", 2, "has no end"),
    ("1 @ 2", 2, "means nothing here"),
    ("1a", 0, "'1a' is no number"),
    ("nobody(1)", 0, "there is no function 'nobody'"),
    ("len()", 0, "len takes 1 arguments, here are 0"),
    ("split('a')", 0, "split takes 2 to 3 arguments"),
    ("now()", 0, "a decision must be the same"),
    ("# > 1", 0, "is for predicates"),
    ("map([1], #nobody)", 9, "none of #, #index, #acc"),
    ("map([1], #acc)", 9, "#acc is for the predicate of reduce"),
    ("$nobody", 0, "$env is all variables"),
    ("let 1 = 2; 3", 4, "the name of a variable"),
    ("let len = 2; 3", 4, "is the name of a function"),
    ("if true { 1 }", 13, "'else' is expected"),
    ("'a'.Year()", 4, "values have no methods"),
    ("'a' matches '('", 12, "is no regular expression"),
    ("'a' matches '(?=b)'", 12, "is no regular expression"),
    ("1 + 'a'", 2, "+ takes two texts or two numbers"),
    ("CI_PIPELINE_NUMBER == 12", 19, "cannot be compared with"),
    ("CI_PIPELINE_NUMBER > 5", 19, "have no order"),
    ("1 and true", 2, "and takes true or false"),
    ("not 1", 0, "not takes true or false"),
    ("1 ? 2 : 3", 2, "a condition takes true or false"),
    ("-'a'", 0, "takes a number"),
    ("nil.a", 4, "nil has no members"),
    ("[1][5]", 3, "has 1 items, and none at 5"),
    ("[1]['a']", 3, "takes a whole number"),
    ("'a' in 'abc'", 4, "a text is asked with contains"),
    ("1 % 0", 2, "takes no 0"),
    ("int('x')", 0, "int takes a whole number"),
    ("fromJSON('{')", 0, "this text is none"),
    ("fromBase64('!')", 0, "this text is none"),
    ("all([1], #)", 0, "a predicate takes true or false"),
    ("reduce([], #acc)", 0, "a list that is not empty"),
    ("9223372036854775808", 0, "64 bits"),
    ("9223372036854775807 + 1", 20, "64 bits"),
    ("1..100000000", 1, "it makes more than 1,000,000"),
    ("repeat('ab', 10000000)", 0, "it makes more than"),
    ("len(map(1..400, map(1..400, #)))", 0, "steps"),
    ("(" * 70 + "1" + ")" * 70, 64, "nested deeper than 64"),
    ("1" * 10_001, 10_000, "longer than 10,000"),
]


@pytest.mark.parametrize(("source", "offset", "says"), WRONG)
def test_what_is_wrong_is_said_with_its_place(source: str, offset: int, says: str) -> None:
    with pytest.raises(BadExpression, match=re.escape(says)) as error:
        parse(source).evaluate(VARIABLES)
    if "steps" not in says:
        assert error.value.offset == offset


def test_a_decision_is_true_or_false_and_nothing_else() -> None:
    assert parse("1 < 2").decide({}) is True
    with pytest.raises(BadExpression, match="it must be true or false, and is string"):
        parse("CI_COMMIT_TAG").decide({})


def test_the_variables_that_are_read_are_known_without_values() -> None:
    found = parse('let x = A; x == B or $env["C"] == "" or any([D], # == $env.E)').names
    assert found == {"A", "B", "C", "D", "E"}


@given(st.text(alphabet="ab01 .,?:|#(){}[]\"'`+-*/%<>=!&$_\\\n", max_size=60) | st.text(max_size=40))
@settings(max_examples=400)
def test_no_source_raises_anything_else(source: str) -> None:
    try:
        parse(source).evaluate(VARIABLES)
    except BadExpression as error:
        assert 0 <= error.offset <= len(source)


PIECES = st.recursive(
    st.sampled_from(["1", "'a'", "true", "nil", "[1, 2]", "{a: 1}", "CI_COMMIT_TAG", "1..3", "#", "#index"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "*", "==", "in", "and", "??", "matches", "|"]), inner).map(
            " ".join
        ),
        st.tuples(st.sampled_from(sorted([*FUNCTIONS, *PREDICATES])), inner, inner).map(
            lambda each: f"{each[0]}({each[1]}, {each[2]})"
        ),
        inner.map("({})".format),
        inner.map("not {}".format),
        inner.map("{}[0]".format),
    ),
    max_leaves=12,
)


@given(PIECES)
@settings(max_examples=400)
def test_expressions_that_are_nearly_right_raise_nothing_else(source: str) -> None:
    with suppress(BadExpression):
        parse(source).evaluate(VARIABLES)


def test_the_page_names_every_function() -> None:
    section = PAGE.partition("## Functions")[2].partition("## Limits")[0]
    named = set(re.findall(r"`([a-zA-Z0-9]+)`", section))
    assert set(FUNCTIONS) | set(PREDICATES) <= named


def _expressions(node: Any) -> list[str]:
    found: list[str] = []
    if isinstance(node, dict):
        for key, value in node.items():
            found += [value] if key == "evaluate" and isinstance(value, str) else _expressions(value)
    elif isinstance(node, list):
        for item in node:
            found += _expressions(item)
    return found


@pytest.mark.skipif(not CORPUS.exists(), reason="the corpus is not here")
def test_every_expression_of_real_files_is_decided() -> None:
    sources: list[str] = []
    for file in sorted((CORPUS / "woodpecker").glob("*")):
        text = file.read_text(errors="replace")
        if "evaluate:" in text:
            sources += _expressions(yaml.safe_load(text))
    assert len(sources) >= 10
    for source in sources:
        assert isinstance(parse(source).decide({**VARIABLES, "CI_PIPELINE_FILES": "[]"}), bool)
