"""The parser: one file in, a pipeline or every problem out."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ci.errors import ConfigError
from ci.pipeline import schema
from ci.pipeline.lookup import choose
from ci.pipeline.model import Condition, Paths, Patterns, Pipeline, Step, Words
from ci.pipeline.parse import name_of, parse
from tests.corpus import CORPUS

ROOT = Path(__file__).parent.parent.parent
TWENTY = list(range(20))
VALID = [path.read_text() for path in [*sorted(ROOT.glob("examples/*/.ci.yml")), ROOT / ".ci.yml"]]


def problems_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return [str(problem) for problem in caught.value.problems]


def step_of(body: str) -> Step:
    return parse(f"steps:\n  - name: x\n    image: busybox\n    commands: 'true'\n{body}").steps[0]


def with_step(line: str) -> str:
    return f"steps:\n  - {{name: x, image: busybox, commands: ls, {line}}}\n"


def test_steps_in_list_and_in_map_form_are_the_same() -> None:
    as_list = parse(
        "steps:\n  - {name: a, image: busybox, commands: [x]}\n  - {image: busybox, commands: y}\n"
    )
    as_map = parse("steps:\n  a: {image: busybox, commands: [x]}\n  step-2: {image: busybox, commands: y}\n")
    assert [(step.name, step.image, step.commands) for step in as_list.steps] == [
        (step.name, step.image, step.commands) for step in as_map.steps
    ]
    assert [step.name for step in as_list.steps] == ["a", "step-2"]


def test_every_key_of_the_slice_is_read() -> None:
    pipeline = parse(
        """
labels: {arch: arm64, size: 1.10, none: }
skip_clone: true
variables: [&image busybox]
services:
  db: {image: *image, environment: [A=b=c, EMPTY=]}
steps:
  test:
    image: *image
    commands: [one, "two", 3.10]
    environment: {VERSION: 1.10, YES: yes, NOTHING: , CGO: 0}
    depends_on: []
    failure: ignore
    detach: true
    deploy: true
    timeout: 1h30m
""",
        file=".ci/unit.yml",
    )
    assert (pipeline.name, pipeline.file, pipeline.skip_clone) == ("unit", ".ci/unit.yml", True)
    assert pipeline.labels == (("arch", "arm64"), ("size", "1.10"))
    assert pipeline.services[0].environment == (("A", "b=c"), ("EMPTY", ""))
    step = pipeline.steps[0]
    assert step.commands == ("one", "two", "3.10")
    assert step.environment == (("VERSION", "1.10"), ("YES", "yes"), ("NOTHING", ""), ("CGO", "0"))
    assert (step.needs, step.ignore_failure, step.detach, step.deploy) == ((), True, True, True)
    assert step.timeout_seconds == 5400
    assert pipeline.is_dag


def test_when_is_a_list_or_one_map_and_patterns_have_three_forms() -> None:
    one = step_of("    when: {branch: main}\n").when
    many = step_of(
        """
    when:
      - event: [push, tag]
        branch: {include: [main, "release/*"], exclude: release/old}
        status: [success, failure]
      - path: {include: "src/**", ignore_message: "[all]", on_empty: false}
        ref: refs/tags/*
"""
    ).when
    assert one.conditions == (Condition(patterns={"branch": Patterns(include=("main",))}),)
    assert many.conditions == (
        Condition(
            events=Words(include=("push", "tag")),
            patterns={"branch": Patterns(include=("main", "release/*"), exclude=("release/old",))},
            statuses=("success", "failure"),
        ),
        Condition(
            patterns={"ref": Patterns(include=("refs/tags/*",))},
            path=Paths(include=("src/**",), ignore_message="[all]", on_empty=False),
        ),
    )


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("10m", 600), ("1h30m", 5400), ("45s", 45), ("2h", 7200), ("1m5", 65)]
)
def test_durations(text: str, seconds: int) -> None:
    assert step_of(f"    timeout: {text}\n").timeout_seconds == seconds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", '1:1: the file is empty; it needs "steps"'),
        ("# nothing", "the file is empty"),
        ("- a", '1:1: a pipeline is a map with "steps", this is a list'),
        ("steps:", 'a pipeline needs at least one step in "steps"'),
        ("labels: {a: b}", 'a pipeline needs "steps"'),
        ("steps: text", '"steps" is a list or a map, this is "text"'),
        ("steps: [text]", 'a step is a map, this is "text"'),
        ("stepps: []", 'unknown key "stepps" in a pipeline; did you mean "steps"?'),
        (with_step("comands: x"), 'unknown key "comands" in a step; did you mean "commands"?'),
        (with_step("zzz: x"), 'unknown key "zzz" in a step; a step has name, image, commands'),
        (with_step("settings: [a]"), '"settings" is a map, this is'),
        (with_step("cache: [x]"), '"cache" in a step is not yet supported'),
        (with_step("failure: ingore"), 'this is "ingore"; did you mean "ignore"?'),
        (with_step("failure: [ignore]"), '"failure" is one word, this is a list'),
        (with_step("detach: yes"), '"detach" is true or false, this is "yes"'),
        (with_step("timeout: 5 days"), '"timeout" is a duration such as 90, 10m or 1h30m'),
        (with_step("timeout: 0"), '"timeout" is a duration'),
        (with_step("timeout: 9999h"), "at most 7 days"),
        (with_step("when: {evnt: push}"), 'unknown key "evnt" in a condition; did you mean "event"?'),
        (with_step("when: {event: pusch}"), 'this is "pusch"; did you mean "push"?'),
        (with_step("when: {status: {include: x}}"), '"status" is one of success, failure; this is a map'),
        (with_step('when: {branch: "{a"}'), '"branch": the pattern has a "{" without its "}"'),
        (with_step('when: {branch: "[z-a]"}'), 'the range "z-a" in the pattern is upside down'),
        (with_step('when: {branch: [""]}'), '"branch" is a pattern'),
        (
            with_step("when: {branch: {inclde: a}}"),
            'unknown key "inclde" in patterns; did you mean "include"?',
        ),
        (with_step("when: text"), 'a condition is a map, this is "text"'),
        (with_step("depends_on: y"), 'step "x" depends on unknown step "y"'),
        (with_step("depends_on: x"), 'steps wait for each other in a circle: "x" -> "x"'),
        (with_step("environment: {A: {from_secret: [b]}}"), "the name of a secret has letters"),
        (with_step("environment: {A: {from_secret: b, c: d}}"), '"from_secret" stands alone in its map'),
        (with_step("environment: {A: [{from_secret: b}]}"), "a secret in a list or a map is for settings"),
        (with_step("environment: [A]"), 'a variable is "NAME=value", this is "A"'),
        (with_step("environment: text"), '"environment" is a map or a list of "NAME=value"'),
        (with_step('environment: {"A B": c}'), '"A B" is not the name of a variable'),
        (with_step("environment: {A: '${B[0]}'}"), '"${B[0]}" is no reference that can be filled in'),
        (with_step("environment: {A: '${NOPE,,}'}"), "there is no variable NOPE to fill in"),
        (with_step("environment: {A: '${NOPE}'}"), "there is no variable NOPE to fill in"),
        (with_step("environment: {A: '${CI_COMIT_SHA}'}"), 'did you mean "CI_COMMIT_SHA"?'),
        (
            with_step("environment: {A: '${CI_PIPELINE_STATUS}'}"),
            "is known only in the step: use it in its commands",
        ),
        (with_step("environment: {A: '${CI_PIPELINE_RERUNS}'}"), "is not yet supported"),
        (
            "steps: {a: {image: busybox, commands: [x: y]}}",
            "a command is text, this is a map: put the line into quotes",
        ),
        ("steps: {a: {image: busybox, commands: []}}", 'step "a" has no command in it'),
        ("steps: {a: {commands: x}}", 'step "a" needs "image"'),
        ("steps: {a: {image: 'no good', commands: x}}", '"no good" is not the name of an image'),
        ("steps: {a: {image: , commands: x}}", '"" is not the name of an image'),
        ("steps: {clone: {image: busybox, commands: x}}", 'the name "clone" belongs to the step that fills'),
        ("steps: [a: {image: busybox, commands: x}]", 'has its name as "name": write "- name: a"'),
        ('steps: [{name: "a\\nb", image: busybox, commands: x}]', "the name of a step is one line of text"),
        (
            "steps: [{name: a, image: b, commands: x}, {name: a, image: b, commands: x}]",
            'two steps are named "a"; the other one is in line 1',
        ),
        ("reports: {}\nsteps: {a: {image: b, commands: x}}", '"reports" in a pipeline is not yet'),
        ("labels: [a]\nsteps: {a: {image: b, commands: x}}", '"labels" is a map of text, this is a list'),
        (
            "services: {db: {image: b}}\nsteps: {a: {image: b, commands: x, depends_on: db}}",
            'step "a" depends on the service "db"; services start before all steps',
        ),
        ("matrix: [a]\nsteps: {a: {image: b, commands: x}}", "a matrix is a map of lists, this is a list"),
        ("matrix: {CI_X: [a]}\nsteps: {a: {image: b, commands: x}}", 'the variable "CI_X" is ours'),
        ("matrix: {a-b: [a]}\nsteps: {a: {image: b, commands: x}}", "an axis is named like a variable"),
        ("matrix: {A: []}\nsteps: {a: {image: b, commands: x}}", 'the axis "A" is empty'),
        (
            "matrix: {A: [b], exclude: [{B: c}]}\nsteps: {a: {image: b, commands: x}}",
            'the matrix has no axis "B"',
        ),
        ("matrix: {A: [b], exclude: [{A: b}]}\nsteps: {a: {image: b, commands: x}}", "the matrix is empty"),
        (
            f"matrix: {{A: {TWENTY}, B: {TWENTY}}}\nsteps: {{a: {{image: b, commands: x}}}}",
            "the matrix makes 400 jobs; 256 is the most",
        ),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str) -> None:
    found = problems_of(text)
    assert any(message in problem for problem in found), found


@pytest.mark.parametrize(
    "text",
    [
        "steps: {a: {image: busybox, comands: [x]}}",
        "steps: {a: {imgae: busybox, commands: [x]}}",
        "stepps: {a: {image: busybox, commands: [x]}}",
    ],
)
def test_a_misspelt_key_is_one_problem_and_not_missing_too(text: str) -> None:
    (problem,) = problems_of(text)
    assert "did you mean" in problem


def test_all_problems_come_at_once_in_file_order() -> None:
    found = problems_of(
        """
steps:
  - name: build
    image: busybox
    comands: [make]
  - name: deploy
    image: busybox
    commands: [x]
    depends_on: [biuld]
    timeout: never
"""
    )
    assert [problem.split(": ")[0] for problem in found] == [
        ".ci.yml:5:5",
        ".ci.yml:9:18",
        ".ci.yml:10:14",
    ]
    assert found[1] == '.ci.yml:9:18: step "deploy" depends on unknown step "biuld"; did you mean "build"?'


def test_a_circle_is_named_with_its_path() -> None:
    text = "steps:\n" + "".join(
        f"  {name}: {{image: b, commands: x, depends_on: {on}}}\n"
        for name, on in [("a", "c"), ("b", "a"), ("c", "b")]
    )
    assert '"a" -> "c" -> "b" -> "a"' in problems_of(text)[0]


def test_a_thousand_problems_are_cut_off() -> None:
    assert len(problems_of("steps:\n" + "  - {nme: x, comands: y}\n" * 3000)) <= 100


def test_warnings_alone_do_not_refuse() -> None:
    pipeline = parse(with_step("environment: {CI_X: a, a-b: c}") + "when: {status: failure}\n")
    assert [problem.is_warning for problem in pipeline.warnings] == [True] * 3
    quoted = parse("steps: {a: {image: b, commands: \"x '${CI_COMMIT_TAG}' '${CI_COMMIT_SHA}' ${CI_REPO}\"}}")
    assert [problem.message for problem in quoted.warnings] == [
        "the shell fills in ${CI_COMMIT_TAG}, and does not in single quotes; use double quotes"
    ]
    assert "process id" in parse("steps: {a: {image: b, commands: 'kill $$ '}}").warnings[0].message


def test_too_many_steps_over_all_cells_are_refused() -> None:
    steps = "".join(f"  s{n}: {{image: b, commands: x}}\n" for n in range(100))
    text = f"matrix: {{A: {list(range(50))}}}\nsteps:\n{steps}"
    assert "50 jobs of 100 steps are 5,000 steps; 4,096 is the most" in problems_of(text)[0]


def test_more_than_five_hundred_steps_are_refused() -> None:
    steps = "".join(f"  s{n}: {{image: b, commands: x}}\n" for n in range(501))
    assert "501 steps and services" in problems_of(f"steps:\n{steps}")[0]


@pytest.mark.parametrize(
    "pattern",
    ["/".join(f"[{chr(48 + n % 40)}a-z]?{n}" for n in range(100)), "{a,b}" * 6, "{" * 900, "{a,b}" * 190],
)
def test_costly_patterns_are_refused_or_counted(pattern: str) -> None:
    text = "steps: {a: {image: b, commands: x, when: {branch: ['" + "', '".join([pattern] * 150) + "']}}}"
    assert re.search(
        "have more than 16,000 characters|more than 64 alternatives|without its", problems_of(text)[0]
    )


@pytest.mark.parametrize(
    ("file", "name"), [(".ci.yml", "ci"), (".ci/test.yaml", "test"), (".ci/.x.yml", "x"), (".yml", "ci")]
)
def test_a_pipeline_is_named_by_its_file(file: str, name: str) -> None:
    assert name_of(file) == (name if file != ".yml" else "yml")


def test_lookup_takes_the_first_form_and_never_mixes() -> None:
    assert choose(["a", ".ci/b.yml", ".ci/a.yaml", ".ci/x/c.yml", ".ci/run"]) == (".ci/a.yaml", ".ci/b.yml")
    assert choose([".ci/b.yml", ".ci.yml", ".ci.yaml"]) == (".ci.yml",)
    assert choose([".ci/b.yml", ".ci.yaml"]) == (".ci.yaml",)
    assert choose(["ci.yml"]) == ()


# --- properties -----------------------------------------------------------------------------------

KEYS = [key for section in schema.SECTIONS for key in section.keys] + ["x", "A", "clone"]
LEAVES = st.one_of(
    st.sampled_from(
        ["", "a", "b", "busybox", "push", "failure", "**", "{a,b}", "${A}", "$$", "10m", "CI", "ä"]
    ),
    st.booleans(),
    st.integers(-5, 500),
    st.none(),
    st.text(max_size=8),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)
    ),
    max_leaves=25,
)


def parsed(source: str | bytes) -> Pipeline | None:
    try:
        return parse(source)
    except ConfigError as error:
        assert error.problems
        assert any(not problem.is_warning for problem in error.problems)
        assert all(problem.line >= 1 and problem.column >= 1 for problem in error.problems)
        return None


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from([*schema.PIPELINE.keys]), TREES, max_size=6))
def test_no_tree_raises_anything_but_config_error(tree: object) -> None:
    parsed(json.dumps(tree))


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(max_size=200), st.binary(max_size=200)))
def test_no_text_raises_anything_but_config_error(source: str | bytes) -> None:
    parsed(source)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_mutated_file_raises_anything_but_config_error(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(VALID))
    for _ in range(data.draw(st.integers(1, 4))):
        begin = data.draw(st.integers(0, len(text)))
        end = min(len(text), begin + data.draw(st.integers(0, 30)))
        text = (
            text[:begin]
            + data.draw(
                st.one_of(st.text(max_size=4), st.sampled_from(["\n", ": ", "- ", "  ", "*a", "&a "]))
            )
            + text[end:]
        )
    parsed(text)


@pytest.mark.parametrize("text", VALID, ids=range(len(VALID)))
def test_the_examples_and_our_own_pipeline_have_no_problem(text: str) -> None:
    assert parse(text).warnings == ()


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus is not beside this checkout")
def test_every_real_file_is_a_pipeline_or_a_config_error() -> None:
    found = [parsed(path.read_bytes()) for path in sorted(CORPUS.glob("*/*"))]
    assert any(found)
