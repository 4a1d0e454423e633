"""`${NAME}`: filled in per scalar, and in commands never with what an outsider controls."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ci import glob
from ci.environ import TABLE, Context, Controller
from ci.errors import ConfigError
from ci.event import Event, Kind
from ci.pipeline import substitute
from ci.pipeline.compile import build_jobs
from ci.pipeline.substitute import Substitution, TooMuchText, references
from ci.spec import JobSpec

FILL = Substitution(
    values={"SAFE": "s", "EMPTY": "", "STAR": "*"}, outside={"EVIL": "$(reboot)", "TWO": "${SAFE}"}
)


@pytest.mark.parametrize(
    ("source", "text", "command"),
    [
        ("a", "a", "a"),
        ("a ${SAFE} b", "a s b", "a s b"),
        ("${SAFE}${SAFE}", "ss", "ss"),
        ("[${EMPTY}]", "[]", "[]"),
        ("${EVIL}", "$(reboot)", "${EVIL}"),
        ("'${EVIL}'", "'$(reboot)'", "'${EVIL}'"),
        ("${TWO}", "${SAFE}", "${TWO}"),
        ("${UNKNOWN}", "", "${UNKNOWN}"),
        ("$${SAFE}", "${SAFE}", "${SAFE}"),
        ("$$${SAFE}", "$s", "$s"),
        ("$$$${SAFE}", "$${SAFE}", "$${SAFE}"),
        ("$SAFE $(SAFE) $1", "$SAFE $(SAFE) $1", "$SAFE $(SAFE) $1"),
        ("kill $$$$", "kill $$", "kill $$"),
        ("$", "$", "$"),
    ],
)
def test_references(source: str, text: str, command: str) -> None:
    assert (FILL.text(source), FILL.command(source)) == (text, command)


def test_a_star_in_a_value_is_no_star_in_a_pattern() -> None:
    assert glob.matches(FILL.pattern("${STAR}/*"), "*/x")
    assert not glob.matches(FILL.pattern("${STAR}/*"), "y/x")


@pytest.mark.parametrize("text", ["${X[0]}", "${X@Q}", "${!X}", "${X", "${}", "${ X }", "${1}", "${X^^y}"])
def test_what_is_none_of_our_references_is_told_apart(text: str) -> None:
    assert [reference.name for reference in references(text)] == [""]


def test_what_references_bring_in_is_bounded() -> None:
    fill = Substitution(values={"A": "x" * 1000}, outside={}, room=[1500])
    assert len(fill.text("${A}")) == 1000
    with pytest.raises(TooMuchText):
        fill.text("${A}")


# --- whole files ----------------------------------------------------------------------------------

FILE = """
labels: {where: "${CI_COMMIT_BRANCH}"}
steps:
  one:
    image: busybox
    environment: {TEXT: "${CI_COMMIT_MESSAGE}", WHO: "${CI_COMMIT_AUTHOR}"}
    commands:
      - echo "${CI_COMMIT_MESSAGE}" '${CI_COMMIT_AUTHOR}' ${CI_COMMIT_BRANCH} ${CI_COMMIT_SHA}
    when:
      branch: ${CI_COMMIT_BRANCH}
  two: {image: busybox, commands: [x], depends_on: one}
"""
HOSTILE = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40),
    st.sampled_from(["$(reboot)", "`x`", "'; x #", '"\n- x: y', "${CI}", "*a", "a: b", "--- \n", "{a,b}*?["]),
)


def compiled(event: Event, text: str = FILE) -> JobSpec:
    context = Context(owner="o", name="n", repo_key="k", clone_url="http://x/o/n.git", number=1)
    return build_jobs({".ci.yml": text}, event, context).jobs[0]


def push(**fields: Any) -> Event:
    return Event(kind=Kind.PUSH, ref="refs/heads/main", after="a" * 40, **fields)


@settings(max_examples=150, deadline=None)
@given(HOSTILE, HOSTILE, HOSTILE)
def test_no_value_changes_the_structure_or_a_command(message: str, author: str, branch: str) -> None:
    spec = compiled(push(message=message, author=author, branch=branch))
    calm = compiled(push(message="m", author="a", branch="main"))
    assert [step.name for step in spec.steps] == ["clone", "one", "two"]
    assert [(step.commands, step.depends_on) for step in spec.steps] == [
        (step.commands, step.depends_on) for step in calm.steps
    ]
    script = "echo \"${CI_COMMIT_MESSAGE}\" '${CI_COMMIT_AUTHOR}' ${CI_COMMIT_BRANCH} "
    assert spec.steps[1].commands == (script + "a" * 40,)
    assert not any(step.skip_reason for step in spec.steps)
    assert spec.steps[1].environment["TEXT"] == message


@given(st.text(max_size=100))
def test_a_commit_id_that_is_none_is_pasted_nowhere(sha: str) -> None:
    event = Event(kind=Kind.PUSH, ref="refs/heads/main", after=sha, branch="main")
    command = compiled(event, "steps: {a: {image: b, commands: 'x ${CI_COMMIT_SHA}'}}").steps[1].commands[0]
    is_sha = len(sha) in (40, 64) and set(sha) <= set("0123456789abcdef") and sha != "0" * 40
    assert command == (f"x {sha}" if is_sha else "x ")


def test_only_what_we_control_is_pasted_into_commands() -> None:
    names = [name for name, variable in TABLE.items() if variable.is_ready and variable.scope == "job"]
    body = json.dumps([f"{name} ${{{name}}}" for name in names])
    event = push(message="m", author="a", branch="main", author_email="e", changed_files=("f",), sender="s")
    commands = compiled(event, f"steps: {{a: {{image: b, commands: {body}}}}}").steps[1].commands
    left = {name for name, command in zip(names, commands, strict=True) if command == f"{name} ${{{name}}}"}
    assert left == {name for name in names if TABLE[name].controller is not Controller.US}


def test_a_value_of_a_manual_build_is_filled_in_but_never_pasted_into_commands() -> None:
    event = push(branch="main", variables={"TARGET": "$(x)", "CI_COMMIT_SHA": "y", "bad name": "z"})
    text = "steps: {a: {image: b, environment: {T: 'to ${TARGET}'}, commands: 'go ${TARGET}'}}"
    step = compiled(event, text).steps[1]
    assert (step.environment["T"], step.commands) == ("to $(x)", ("go ${TARGET}",))
    assert step.environment["TARGET"] == "$(x)"
    assert not {"CI_COMMIT_SHA", "bad name"} & set(step.environment)


def test_too_much_text_is_a_config_error() -> None:
    body = "${CI_COMMIT_MESSAGE}" * 5000
    with pytest.raises(ConfigError, match="bring in more than"):
        compiled(
            push(message="m" * 30_000),
            f"steps: {{a: {{image: b, commands: x, environment: {{A: '{body}'}}}}}}",
        )


@pytest.mark.parametrize(
    ("text", "halved"),
    [
        (r"a\\b", r"a\b"),
        (r"a\/b", "a/b"),
        (r"\\\.", r"\\."),
        (r"\\\\", r"\\"),
        (r"a\nb \$x \"", r"a\nb \$x \""),
        (r"${A/\//x}\/", r"${A/\//x}/"),
        (r"$$\\$", "$$\\$"),
    ],
)
def test_backslashes_are_halved_outside_of_references(text: str, halved: str) -> None:
    assert substitute.halved(text) == halved
