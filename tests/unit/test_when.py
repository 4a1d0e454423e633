"""`when` and its globs: what matches, and the reason why not."""

from __future__ import annotations

import fnmatch
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ci import glob
from ci.event import Event, Kind
from ci.pipeline.model import When
from ci.pipeline.parse import parse
from ci.pipeline.when import Scene, decide


def event(**fields: Any) -> Event:
    defaults: dict[str, Any] = {
        "kind": Kind.PUSH,
        "ref": "refs/heads/main",
        "after": "a" * 40,
        "branch": "main",
    }
    return Event(**{**defaults, **fields})


def when(text: str) -> When:
    return parse(f"when: {text}\nsteps: {{a: {{image: b, commands: c}}}}").when


PULL = {"kind": Kind.PULL_REQUEST, "ref": "refs/pull/7/head"}
TAG = {"kind": Kind.TAG, "ref": "refs/tags/v1.2", "branch": "", "tag": "v1.2"}


@pytest.mark.parametrize(
    ("condition", "fields", "is_met"),
    [
        ("[]", {}, True),
        ("{}", {}, True),
        ("{event: push}", {}, True),
        ("{event: tag}", {}, False),
        ("{event: [tag, push]}", {}, True),
        ("{branch: main}", {}, True),
        ("{branch: main}", {"branch": "maintenance"}, False),
        ("{branch: 'main*'}", {"branch": "maintenance"}, True),
        ("{branch: 'feature/*'}", {"branch": "feature/a"}, True),
        ("{branch: 'feature/*'}", {"branch": "feature/a/b"}, False),
        ("{branch: 'feature/**'}", {"branch": "feature/a/b"}, True),
        ("{branch: {exclude: main}}", {}, False),
        ("{branch: {exclude: main}}", {"branch": "x"}, True),
        ("{branch: {include: '*', exclude: x}}", {"branch": "x"}, False),
        ("{branch: main}", PULL, True),
        ("{branch: main}", TAG, True),
        ("{branch: main}", {"kind": Kind.RELEASE, "branch": ""}, True),
        ("{branch: {exclude: main}}", TAG, True),
        ("{ref: 'refs/tags/v*'}", TAG, True),
        ("{ref: 'refs/tags/v*'}", {}, False),
        ("{event: push, branch: x}", {}, False),
        ("[{event: tag}, {branch: main}]", {}, True),
        ("[{event: tag}, {branch: x}]", {}, False),
        ("{path: 'src/**'}", {"changed_files": ("src/a/b.py",)}, True),
        ("{path: 'src/**'}", {"changed_files": ("docs/a.md", "src/a.py")}, True),
        ("{path: 'src/**'}", {"changed_files": ("docs/a.md",)}, False),
        ("{path: 'src/**'}", {"changed_files": None}, True),
        ("{path: 'src/**'}", {"changed_files": ()}, True),
        ("{path: {include: 'src/**', on_empty: false}}", {"changed_files": ()}, False),
        ("{path: {exclude: ['*.md', 'docs/**']}}", {"changed_files": ("README.md", "docs/a")}, False),
        ("{path: {exclude: ['*.md', 'docs/**']}}", {"changed_files": ("README.md", "a.py")}, True),
        ("{path: {include: '*.py', exclude: x.py}}", {"changed_files": ("x.py",)}, False),
        (
            "{path: {include: a, ignore_message: '[ALL]'}}",
            {"changed_files": ("b",), "message": "x [all]"},
            True,
        ),
        ("{path: {include: a, ignore_message: '[ALL]'}}", {"changed_files": ("b",), "message": "x"}, False),
        ("{path: a}", {**PULL, "changed_files": ("b",)}, False),
        ("{path: a}", {**TAG, "changed_files": ("b",)}, True),
        ("{path: a}", {"kind": Kind.MANUAL, "changed_files": ("b",)}, True),
    ],
)
def test_conditions(condition: str, fields: dict[str, Any], is_met: bool) -> None:
    verdict = decide(when(condition), Scene(event=event(**fields)))
    assert verdict.matches is is_met, verdict


@pytest.mark.parametrize(
    ("condition", "statuses"),
    [
        ("{}", ("success",)),
        ("{status: failure}", ("failure",)),
        ("{status: [failure, success]}", ("success", "failure")),
        ("[{event: tag, status: failure}, {event: push}]", ("success",)),
        ("[{event: push, status: failure}, {event: push}]", ("success", "failure")),
    ],
)
def test_statuses_come_from_the_conditions_that_match(condition: str, statuses: tuple[str, ...]) -> None:
    assert decide(when(condition), Scene(event=event())).statuses == statuses


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        ("{event: [tag, cron]}", 'it runs on "tag" or "cron", and this is a "push"'),
        (
            "{branch: {include: [a, b], exclude: c}}",
            'it runs on branch "a" or "b", not "c", and this is "main"',
        ),
        ("{ref: x}", 'it runs on ref "x", and this is "refs/heads/main"'),
        ("{path: src}", 'it runs when "src" changes, and no changed file matches'),
        ("{path: {exclude: '**'}}", 'every changed file is excluded by "**"'),
        ("[{event: tag}, {branch: x}]", 'it runs on "tag", and this is a "push"; and it runs on branch "x"'),
    ],
)
def test_a_mismatch_has_a_reason(condition: str, reason: str) -> None:
    assert reason in decide(when(condition), Scene(event=event(changed_files=("a",)))).reason


@pytest.mark.parametrize(
    ("pattern", "text", "is_match"),
    [
        ("*", "a", True),
        ("*", "a/b", False),
        ("**", "a/b/c", True),
        ("**", "", True),
        ("a/**", "a", True),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True),
        ("a/**/b/**/c", "a/b/x/b/c", True),
        ("**/*.py", "x.py", True),
        ("**/*.py", "a/b/x.py", True),
        ("a**b", "axxb", True),
        ("a**b", "a/b", False),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("[a-c]x", "bx", True),
        ("[!a-c]x", "bx", False),
        ("[^a-c]x", "dx", True),
        ("[]]", "]", True),
        ("[a-]", "-", True),
        ("[", "[", True),
        ("{a,b/c}/d", "b/c/d", True),
        ("{a,{b,c}}", "c", True),
        ("{a,}x", "x", True),
        (r"\*", "*", True),
        (r"\*", "a", False),
        (r"\{a,b\}", "{a,b}", True),
        (r"[\]]", "]", True),
        ("a.c", "abc", False),
        ("ä*", "äb", True),
        ("a*", "a\nb", True),
        ("", "", True),
        ("*a*b*c", "xaxbxc", True),
        ("*a*b*c", "xbxaxc", False),
        ("*.tar.*", "a.tar.tar.gz", True),
    ],
)
def test_globs(pattern: str, text: str, is_match: bool) -> None:
    assert glob.matches(pattern, text) is is_match


@given(st.text(alphabet="ab*?", max_size=8), st.text(alphabet="ab", max_size=10))
def test_a_glob_without_slash_is_what_fnmatch_says(pattern: str, text: str) -> None:
    if pattern != "**":
        assert glob.matches(pattern, text) is fnmatch.fnmatchcase(text, pattern)


def slow(pattern: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return slow(pattern[1:], parts) or (bool(parts) and slow(pattern, parts[1:]))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and slow(pattern[1:], parts[1:])


PARTS = st.sampled_from(["a", "b", "*", "?", "**", "a*"])


@given(
    st.lists(PARTS, min_size=1, max_size=6),
    st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=6),
)
def test_a_glob_over_parts_is_what_a_slow_matcher_says(pattern: list[str], parts: list[str]) -> None:
    assert glob.matches("/".join(pattern), "/".join(parts)) is slow(tuple(pattern), tuple(parts))


@settings(max_examples=300)
@given(st.text(max_size=30), st.text(max_size=30))
def test_any_pattern_matches_or_says_what_is_wrong(pattern: str, text: str) -> None:
    try:
        glob.matches(pattern, text)
    except glob.BadPattern as error:
        assert str(error)


@given(st.text(max_size=20), st.text(max_size=20))
def test_an_escaped_text_matches_only_itself(text: str, other: str) -> None:
    assert glob.matches(glob.escaped(text), text)
    assert glob.matches(glob.escaped(text), other) is (text == other)


@pytest.mark.parametrize("pattern", ["*a" * 400 + "b", "**/a/" * 150 + "b", "[ab]*" * 190 + "c"])
def test_no_pattern_goes_back_without_end(pattern: str) -> None:
    # Backtracking of a high degree would not end within the timeout of a test.
    assert not glob.matches(pattern, "a" * 4000)
    assert not glob.matches(pattern, "/".join(["a"] * 2000))


#: Beside the event: of the repo ada/shop, on ci.example, a cell with V=2.
PLACE = {
    "repo": "ada/shop",
    "instance": "ci.example",
    "platform": "linux/arm64",
    "cell": {"V": "2", "DB": "pg"},
    "variables": {"CI_COMMIT_BRANCH": "main"},
}
CRON = {"kind": Kind.CRON, "cron": "nightly"}
DEPLOYMENT = {"kind": Kind.DEPLOYMENT, "deploy_target": "production"}


@pytest.mark.parametrize(
    ("condition", "fields", "is_met"),
    [
        ("{event: {exclude: [push]}}", {}, False),
        ("{event: {include: [push, tag], exclude: [tag]}}", {}, True),
        ("{tag: 'v*'}", TAG, True),
        ("{tag: 'w*'}", TAG, False),
        ("{tag: {exclude: 'v1*'}}", TAG, False),
        ("{tag: 'v*'}", {}, False),
        ("{tag: 'v*'}", {"kind": Kind.RELEASE, "tag": "v2"}, True),
        ("{repo: ada/shop}", {}, True),
        ("{repo: 'ada/*'}", {}, True),
        ("{repo: '*'}", {}, False),
        ("{repo: {exclude: ada/*}}", {}, False),
        ("{instance: ci.example}", {}, True),
        ("{instance: '*.example'}", {}, True),
        ("{instance: other}", {}, False),
        ("{platform: linux/arm64}", {}, True),
        ("{platform: linux/*}", {}, True),
        ("{platform: linux/amd64}", {}, False),
        ("{cron: nightly}", CRON, True),
        ("{cron: 'night*'}", CRON, True),
        ("{cron: hourly}", CRON, False),
        ("{cron: nightly}", {}, True),
        ("{target: production}", DEPLOYMENT, True),
        ("{target: staging}", DEPLOYMENT, False),
        ("{target: production}", {}, False),
        ("{action: opened}", {**PULL, "action": "opened"}, True),
        ("{action: [opened, closed]}", {**PULL, "action": "labeled"}, False),
        ("{action: opened}", {}, False),
        ("{matrix: {V: 2}}", {}, True),
        ("{matrix: {V: [1, 2], DB: 'p*'}}", {}, True),
        ("{matrix: {V: 2, DB: my}}", {}, False),
        ("{matrix: {OTHER: 2}}", {}, False),
        ("{evaluate: 'CI_COMMIT_BRANCH == \"main\"'}", {}, True),
        ("{evaluate: 'CI_COMMIT_BRANCH != \"main\"'}", {}, False),
        ("{local: false}", {}, True),
        ("{local: true}", {}, False),
    ],
)
def test_conditions_on_what_is_around(condition: str, fields: dict[str, Any], is_met: bool) -> None:
    found = parse(
        "matrix: {V: [1, 2], DB: [pg]}\n"
        f"steps: {{a: {{image: b, commands: c, when: {condition}}}, z: {{image: b, commands: c}}}}"
    )
    verdict = decide(found.steps[0].when, Scene(event=event(**fields), **PLACE))
    assert verdict.matches is is_met, verdict


def test_what_is_local_is_for_exec_alone() -> None:
    for condition, is_met in (("{local: true}", True), ("{local: false}", False)):
        assert decide(when(condition), Scene(event=event(), is_local=True)).matches is is_met
