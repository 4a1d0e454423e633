"""Inputs of builds by hand: read, checked, and there for every step."""

from __future__ import annotations

from typing import Any

import pytest

from ci.errors import ConfigError
from ci.pipeline.compile import build_jobs
from ci.pipeline.plan import CONTEXT, event_of
from ci.spec import JobSpec

TEXT = """
inputs:
  VERSION: { required: true, description: What to publish }
  LEVEL: { type: choice, options: [low, high], default: low }
  DRY: { type: flag, default: yes }
  COUNT: { type: number, default: "3" }
  NAME: ada
  EMPTY:
steps:
  go:
    image: "x:${VERSION:-0}"
    commands: [echo $LEVEL]
    when: { evaluate: 'LEVEL == "low" and DRY == "true"' }
  told: { image: y, settings: { level: "${LEVEL}-${NAME}" } }
"""


def job(kind: str = "manual", **variables: str) -> JobSpec:
    event = event_of(kind, branch="main", variables=variables)
    return build_jobs({".ci.yml": TEXT}, event, CONTEXT).jobs[0]


def test_a_build_by_hand_has_what_was_given_and_defaults_for_the_rest() -> None:
    found = job(VERSION="2", DRY="yes")
    go, told = found.steps[1:]
    assert go.image == "x:2"
    assert {name: go.environment[name] for name in ("VERSION", "LEVEL", "DRY", "COUNT", "NAME")} == {
        "VERSION": "2",
        "LEVEL": "low",
        "DRY": "true",
        "COUNT": "3",
        "NAME": "ada",
    }
    assert go.skip_reason == "" and "EMPTY" not in go.environment
    assert told.settings == {"level": "low-ada"} and "LEVEL" not in told.environment
    assert job(VERSION="2", LEVEL="high").steps[1].skip_reason


def test_other_events_have_the_defaults_and_need_nothing() -> None:
    assert job("push").steps[2].settings == {"level": "low-ada"}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, ':3:3: the input "VERSION" must be given'),
        (
            {"VERSION": "1", "LEVEL": "middle"},
            ':4:3: the input "LEVEL" is one of low, high; this is "middle"',
        ),
        ({"VERSION": "1", "DRY": "perhaps"}, 'the input "DRY" is true or false, this is "perhaps"'),
        ({"VERSION": "1", "COUNT": "many"}, 'the input "COUNT" is a number, this is "many"'),
    ],
)
def test_a_value_that_an_input_does_not_take_is_refused_with_its_line(
    given: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError) as error:
        job(**given)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ("[a]", '"inputs" is a map'),
        ("{CI_X: a}", "cannot be an input"),
        ("{a-b: a}", "cannot be an input"),
        ("{A: {type: choice}}", 'of type "choice" has "options"'),
        ("{A: {options: [b]}}", "no other has them"),
        ("{A: {type: number, default: b}}", '"default": the input "A" is a number'),
        ("{A: {typ: text}}", 'did you mean "type"?'),
        ("{A: {type: integer}}", "is one of text, number, flag, choice"),
    ],
)
def test_what_is_wrong_with_an_input_is_said(inputs: str, says: str) -> None:
    text = f"inputs: {inputs}\nsteps: {{a: {{image: b, commands: c}}}}"
    with pytest.raises(ConfigError) as error:
        build_jobs({".ci.yml": text}, event_of("push", branch="main"), CONTEXT)
    assert says in str(error.value)
