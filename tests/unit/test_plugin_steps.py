"""Plugins in the language: what may stand in such a step, what it counts as, and what it sees."""

from __future__ import annotations

from typing import Any

import pytest

from ci.environ import Context
from ci.errors import ConfigError
from ci.event import Event, Kind
from ci.pipeline.compile import Compiled, build_jobs
from ci.spec import StepKind, StepSpec


def compiled(text: str, **given: str) -> Compiled:
    event = Event(kind=Kind.MANUAL, ref="refs/heads/main", branch="main", after="a" * 40, variables=given)
    context = Context(owner="ada", name="app", repo_key="k1", clone_url="http://x/y.git", number=1)
    return build_jobs({".ci.yml": text}, event, context)


def plugin(rest: str, image: str = "example/publish", **given: str) -> StepSpec:
    return compiled(f"steps: {{x: {{image: {image}, {rest}}}}}", **given).jobs[0].step("x")


def problems_of(rest: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        plugin(rest)
    return [str(problem) for problem in caught.value.problems]


def warnings_of(rest: str) -> list[str]:
    found = compiled(f"steps: {{x: {{image: example/publish, {rest}}}}}").warnings
    return [problem.message for problem in found]


@pytest.mark.parametrize("rest", ["settings: {a: b}", "settings: {}", "failure: ignore"])
def test_a_step_without_commands_is_a_plugin(rest: str) -> None:
    step = plugin(rest)
    assert (step.kind, step.deploy, step.commands) == (StepKind.PLUGIN, True, ())


@pytest.mark.parametrize(
    ("rest", "image", "deploy"),
    [
        ("settings: {}", "example/publish:1", True),
        ("deploy: false", "example/publish:1", False),
        ("commands: ls", "example/publish:1", False),
        ("commands: ls, deploy: true", "example/publish:1", True),
        ("settings: {}", "plugins/git:1.2", False),
        ("settings: {}", "docker.io/plugins/s3-cache@sha256:" + "a" * 64, False),
        ("deploy: true", "plugins/git", True),
        ("settings: {}", "evil.example/plugins/git", True),
        ("settings: {}", "plugins/s3", True),
    ],
)
def test_a_plugin_changes_things_outside_unless_it_is_known_not_to(
    rest: str, image: str, deploy: bool
) -> None:
    assert plugin(rest, image).deploy is deploy


def test_scalars_keep_their_text_and_only_json_has_types() -> None:
    step = plugin(
        "settings: {a: 1.10, b: yes, c: true, d: null, e: 0o14, f: 1:30, g: 2026-01-02, h: [1.10, no, ~],"
        " i: {a: 1.10, b: yes, c: true, d: null, e: 7, f: -0, g: 1e3, h: [[1]]}}"
    )
    assert step.settings == {
        "a": "1.10",
        "b": "yes",
        "c": "true",
        "d": None,
        "e": "0o14",
        "f": "1:30",
        "g": "2026-01-02",
        "h": ["1.10", "no", None],
        "i": {"a": "1.10", "b": "yes", "c": True, "d": None, "e": 7, "f": 0, "g": "1e3", "h": [[1]]},
    }


def test_references_are_filled_in_and_cannot_change_the_shape() -> None:
    step = plugin("settings: {a: 'v${CI_COMMIT_BRANCH}', b: ['${CI_REPO}'], c: {d: '${CI_REPO_NAME}'}}")
    assert step.settings == {"a": "vmain", "b": ["ada/app"], "c": {"d": "app"}}


def test_neither_matrix_nor_the_variables_of_a_run_reach_a_plugin() -> None:
    text = (
        "matrix: {LD_PRELOAD: [/workspace/evil.so]}\n"
        "steps: {plugin: {image: a/b}, shell: {image: b, commands: ls}}\n"
        "services: {db: {image: postgres}}"
    )
    (job,) = compiled(text, PLUGIN_TARGET="prod").jobs
    injected = {"LD_PRELOAD", "PLUGIN_TARGET"}
    found = {step.slug: injected & set(step.environment) for step in job.steps}
    assert found == {"clone": set(), "plugin": set(), "shell": injected, "db": injected}


@pytest.mark.parametrize(
    ("rest", "sentence"),
    [
        ("settings: text", '"settings" is a map, this is "text"'),
        ("settings: {'a b': c}", '"a b" cannot be a setting: it has letters, digits, _, - and .'),
        ("settings: {a-b: 1, a.B: 2}", '"a.B" and "a-b" are the same setting: both are PLUGIN_A_B'),
        ("settings: {a: {from_secret: b, c: d}}", '"from_secret" stands alone in its map'),
        ("settings: {a: [{from_secret: [b]}]}", "the name of a secret has letters, digits"),
        ("settings: {a: '${NO_SUCH}'}", "there is no variable NO_SUCH to fill in"),
        ("environment: {PLUGIN_Target: b}", '"PLUGIN_Target" is a setting of the plugin: write "target"'),
        ("environment: [CI_REPO=evil/app]", '"CI_REPO" is a variable of ours'),
    ],
)
def test_what_cannot_be_in_a_plugin_step_is_an_error_with_its_place(rest: str, sentence: str) -> None:
    (problem,) = problems_of(rest)
    assert sentence in problem


def test_commands_beside_settings_are_taken_with_a_warning() -> None:
    made = compiled("steps: {x: {image: b, commands: ls, settings: {a: b}}}")
    assert made.jobs[0].steps[-1].settings == {"a": "b"}
    (warning,) = made.warnings
    assert 'step "x" has commands and settings: the commands see them as PLUGIN_* variables' in str(warning)


@pytest.mark.parametrize(
    "name",
    [
        *("LD_PRELOAD", "LD_LIBRARY_PATH", "PATH", "BASH_ENV", "ENV", "DOCKER_HOST", "GIT_SSH_COMMAND"),
        *("http_proxy", "HTTPS_PROXY", "ALL_PROXY", "NODE_OPTIONS", "PYTHONPATH", "HOME", "SSL_CERT_FILE"),
    ],
)
def test_a_variable_that_may_turn_a_plugin_into_another_is_warned_of_and_costs_it_its_secrets(
    name: str,
) -> None:
    said = "may change what its image does; no secret for certain images reaches it"
    assert any(said in warning for warning in warnings_of(f"environment: {{{name}: x}}"))
    assert not plugin(f"environment: {{{name}: x}}").is_told_by_settings_alone
    assert not any(said in warning for warning in warnings_of(f"environment: {{{name}: x}}, commands: ls"))


@pytest.mark.parametrize("name", ["SLACK_WEBHOOK", "AWS_REGION", "GITHUB_TOKEN", "TZ", "OLD_PATH", "ENVIRON"])
def test_other_variables_are_the_files_to_set(name: str) -> None:
    assert plugin(f"environment: {{{name}: x}}").environment[name] == "x"


def test_a_comma_in_a_list_is_warned_of_where_the_list_is_joined_by_them() -> None:
    assert warnings_of("settings: {tags: ['a,b', c]}") == [
        '"a,b" has a comma in it: plugins get a list joined by commas'
    ]
    assert warnings_of("settings: {tags: [['a,b']], deep: {a: ['a,b']}, text: 'a,b'}") == []


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ({"kind": "plugin"}, True),
        ({"kind": "plugin", "settings": {"a": "b"}, "environment": {"CI_STEP_NAME": "x"}}, True),
        ({"kind": "plugin", "environment": {"A": "x"}}, False),
        ({"kind": "plugin", "secrets": {"A": "token"}}, False),
        ({"kind": "commands", "commands": ["ls"]}, False),
        ({"kind": "service"}, False),
    ],
)
def test_only_a_step_that_adds_nothing_is_what_its_image_is(step: dict[str, Any], expected: bool) -> None:
    made = StepSpec.model_validate({"number": 1, "name": "x", "slug": "x", "image": "a", **step})
    assert made.is_told_by_settings_alone is expected
