"""The table of variables, and its page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ci import aliases
from ci.environ import MAX_VALUE_BYTES, TABLE, Context, Facts, Scope, bounded, made, run_variables
from ci.event import Event, Kind

PAGE = Path(__file__).parent.parent.parent / "docs/reference/variables.md"


def facts(**fields: Any) -> Facts:
    defaults: dict[str, Any] = {
        "kind": Kind.PUSH,
        "ref": "refs/heads/main",
        "after": "a" * 40,
        "branch": "main",
    }
    context = Context(
        owner="ada",
        name="shop",
        repo_key="builtin-1",
        clone_url="http://ci.example/git/ada/shop.git",
        number=12,
        build_url="http://ci.example/r/ada/shop/12",
        system_url="http://ci.example:8000",
    )
    event = Event(**{**defaults, **fields})
    return Facts(event=event, context=context, pipeline="ci", job_number=1, workspace="/workspace")


def test_a_push_has_what_is_known_of_it_and_nothing_empty() -> None:
    found = made(facts(message="Fix\n\nmore", author="Ada", before="b" * 40), Scope.JOB)
    assert found["CI"] == "shipway"
    assert found["CI_REPO"] == "ada/shop"
    assert found["CI_SYSTEM_HOST"] == "ci.example"
    assert found["CI_COMMIT_MESSAGE"] == "Fix\n\nmore"
    assert found["CI_PREV_COMMIT_SHA"] == "b" * 40
    assert found["CI_PIPELINE_EVENT"] == "push"
    assert all(found.values())
    assert not {"CI_COMMIT_TAG", "CI_COMMIT_PULL_REQUEST", "CI_COMMIT_TARGET_BRANCH"} & set(found)


def test_a_pull_request_has_its_number_and_target() -> None:
    found = made(facts(kind=Kind.PULL_REQUEST, ref="refs/pull/7/head"), Scope.JOB)
    assert (found["CI_COMMIT_PULL_REQUEST"], found["CI_COMMIT_TARGET_BRANCH"]) == ("7", "main")


def test_changed_files_are_a_json_list_and_not_set_above_the_limit() -> None:
    assert made(facts(changed_files=("a b", 'c"')), Scope.JOB)["CI_PIPELINE_FILES"] == '["a b", "c\\""]'
    for files in ((), tuple(map(str, range(501))), ("x" * MAX_VALUE_BYTES,)):
        assert "CI_PIPELINE_FILES" not in made(facts(changed_files=files), Scope.JOB)


def test_the_runner_sets_exactly_what_is_known_only_there() -> None:
    found = run_variables(
        has_failed=True, job_started_at=1.9, step_started_at=2.9, machine="box", architecture="x86_64"
    )
    assert found["CI_PIPELINE_STATUS"] == "failure"
    assert found["CI_SYSTEM_PLATFORM"] == "linux/amd64"
    assert set(found) == {name for name, variable in TABLE.items() if variable.scope is Scope.RUN}


@pytest.mark.parametrize("value", ["x" * 100_000, "ä" * 100_000, "a\0b", "\ud800"])
def test_no_value_is_more_than_a_program_can_be_started_with(value: str) -> None:
    found = bounded(value).encode()
    assert len(found) <= MAX_VALUE_BYTES
    assert b"\0" not in found


def test_the_page_lists_every_variable_with_who_controls_it() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|$", PAGE.read_text(), re.MULTILINE)
    wanted = [
        (name, variable.controller.value, variable.meaning)
        for name, variable in TABLE.items()
        if variable.is_ready
    ]
    assert rows == wanted


def test_the_page_names_every_variable_that_is_not_there_yet() -> None:
    text = PAGE.read_text().split("## Not yet")[1]
    assert set(re.findall(r"`(\w+)`", text)) == {
        name for name, variable in TABLE.items() if not variable.is_ready
    }


def test_the_page_lists_every_alias() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (made of )?`(\w+)` \|$", PAGE.read_text(), re.MULTILINE)
    assert [(name, own) for name, made, own in rows if not made] == list(aliases.SAME.items())
    assert [(name, own) for name, made, own in rows if made] == [
        (name, own) for name, (own, _) in aliases.MADE.items()
    ]


@pytest.mark.parametrize("name", aliases.NAMES)
def test_an_alias_names_a_variable_of_ours(name: str) -> None:
    assert aliases.variable_of(name) is not None


def test_aliases_have_the_values_of_what_they_name() -> None:
    ours = {
        "CI_COMMIT_TAG": "v1.2.3-rc.1",
        "CI_PIPELINE_EVENT": "deployment",
        "CI_REPO_PRIVATE": "false",
        "CI": "x",
    }
    found = aliases.made(ours)
    assert found["DRONE_TAG"] == "v1.2.3-rc.1"
    assert found["DRONE_SEMVER_SHORT"] == "1.2.3" and found["DRONE_SEMVER_PRERELEASE"] == "rc.1"
    assert found["DRONE_BUILD_EVENT"] == "promote"
    assert found["DRONE_REPO_VISIBILITY"] == "public"
    assert found["DRONE"] == "true"
    assert "DRONE_SEMVER_ERROR" not in found and "DRONE_BRANCH" not in found
