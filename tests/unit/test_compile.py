"""Compile: golden files, and what they cannot say. Set SHIPWAY_UPDATE_GOLDEN=1 to write them anew."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci.environ import Context
from ci.errors import ConfigError
from ci.event import Event, Kind
from ci.pipeline.compile import Compiled, build_jobs, compile_pipeline
from ci.pipeline.parse import parse
from ci.pipeline.slug import Slugs
from ci.spec import JobSpec, Limits, Trust
from ci.status import Status
from runners.plan import Plan

GOLDEN = sorted((Path(__file__).parent.parent / "golden").glob("*.yml"))
CONTEXT = Context(
    owner="ada",
    name="shop",
    repo_key="builtin-1",
    clone_url="http://ci.example/git/ada/shop.git",
    repo_url="http://ci.example/r/ada/shop",
    default_branch="main",
    number=12,
    build_url="http://ci.example/r/ada/shop/12",
    system_url="http://ci.example",
)


def push(**fields: Any) -> Event:
    defaults: dict[str, Any] = {
        "kind": Kind.PUSH,
        "ref": "refs/heads/main",
        "after": "a" * 40,
        "branch": "main",
    }
    return Event(**{**defaults, **fields})


def compiled(text: str, **fields: Any) -> Compiled:
    return build_jobs({".ci.yml": text}, push(**fields), CONTEXT)


def job(text: str, **fields: Any) -> JobSpec:
    return compiled(text, **fields).jobs[0]


def needs(spec: JobSpec) -> dict[str, tuple[str, ...]]:
    return {step.slug: step.depends_on for step in spec.steps}


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden(path: Path) -> None:
    text = path.read_text()
    event = re.match(r"# event: (.*)\n", text)
    found = compiled(text, **(json.loads(event[1]) if event else {}))
    for spec in found.jobs:
        del spec.environment["CI_SYSTEM_VERSION"]
    shown = {
        "skipped": found.skipped,
        "warnings": [str(problem) for problem in found.warnings],
        "jobs": [spec.model_dump(mode="json", exclude_defaults=True) for spec in found.jobs],
    }
    golden = path.with_suffix(".json")
    if os.environ.get("SHIPWAY_UPDATE_GOLDEN"):
        golden.write_text(json.dumps(shown, indent=2) + "\n")
    assert shown == json.loads(golden.read_text())


def test_there_are_golden_files() -> None:
    assert len(GOLDEN) >= 6


def test_without_depends_on_each_step_waits_for_the_one_before() -> None:
    spec = job("steps: [{name: a, image: b, commands: x}, {name: c, image: b, commands: x}]")
    assert needs(spec) == {"clone": (), "a": ("clone",), "c": ("a",)}


def test_with_depends_on_each_step_waits_only_for_its_own() -> None:
    spec = job(
        "steps: {a: {image: b, commands: x}, b: {image: b, commands: x, depends_on: [c, clone]},"
        " c: {image: b, commands: x}}"
    )
    assert needs(spec) == {"clone": (), "a": ("clone",), "b": ("c",), "c": ("clone",)}


def test_skip_clone_leaves_no_clone_and_numbers_are_places() -> None:
    spec = job("skip_clone: true\nsteps: {a: {image: b, commands: x}, b: {image: b, commands: x}}")
    assert spec.clone is None
    assert needs(spec) == {"a": (), "b": ("a",)}
    assert [step.number for step in spec.steps] == [0, 1]


def test_dependants_of_a_step_that_is_left_out_inherit_what_it_waited_for() -> None:
    spec = job(
        "steps: {a: {image: b, commands: x, depends_on: []},"
        " b: {image: b, commands: x, depends_on: a, when: {event: tag}},"
        " c: {image: b, commands: x, depends_on: b}}"
    )
    assert needs(spec) == {"clone": (), "a": ("clone",), "b": (), "c": ("a",)}
    assert spec.step("b").skip_reason == 'it runs on "tag", and this is a "push"'


def test_the_runner_never_starts_what_is_left_out_and_goes_on_with_the_rest() -> None:
    plan = Plan(
        job(
            "services: {db: {image: b, when: {event: tag}}}\n"
            "steps: {a: {image: b, commands: x, deploy: true, when: {event: tag}},"
            " c: {image: b, commands: x}}"
        )
    )
    assert {decision.step.slug: decision.skip_reason for decision in plan.decide()} == {
        "clone": "",
        "a": 'it runs on "tag", and this is a "push"',
        "db": 'it runs on "tag", and this is a "push"',
    }
    plan.ended("clone", Status.SUCCESS)
    assert [decision.step.slug for decision in plan.decide()] == ["c"]


def test_an_image_that_only_a_left_out_step_has_may_be_incomplete() -> None:
    text = "steps: {a: {image: b, commands: x}, r: {image: 'b:${CI_COMMIT_TAG}', commands: x%s}}"
    assert job(text % ", when: {event: tag}").step("r").skip_reason
    with pytest.raises(ConfigError, match=r'\.ci\.yml:1:\d+: "b:" is not the name of an image'):
        job(text % "")


def test_a_build_in_which_nothing_matches_says_why() -> None:
    found = compiled("when: {branch: release/*}\nsteps: {a: {image: b, commands: x}}")
    assert not found.jobs
    assert found.skipped == '.ci.yml has nothing to run: it runs on branch "release/*", and this is "main"'


def test_a_pipeline_in_which_no_step_matches_makes_no_job() -> None:
    found = compiled("steps: {a: {image: b, commands: x, when: {event: tag}}}")
    assert found.skipped.startswith(
        '.ci.yml has nothing to run: none of its steps matches; step "a": it runs on "tag"'
    )


def test_several_files_are_several_pipelines_and_some_may_be_left_out() -> None:
    files = {
        ".ci/b.yml": "steps: {a: {image: b, commands: x}}",
        ".ci/a.yml": "matrix: {V: [1, 2]}\nsteps: {a: {image: b, commands: x}}",
        ".ci/c.yml": "when: {event: tag}\nsteps: {a: {image: b, commands: x}}",
    }
    found = build_jobs(files, push(), CONTEXT)
    assert [(spec.name, spec.slug) for spec in found.jobs] == [("a (1)", "a-1"), ("a (2)", "a-2"), ("b", "b")]
    assert [spec.environment["CI_WORKFLOW_NUMBER"] for spec in found.jobs] == ["1", "2", "3"]
    assert found.skipped == ""


def test_the_problems_of_all_files_come_together() -> None:
    with pytest.raises(ConfigError) as caught:
        build_jobs({".ci/b.yml": "steps: x", ".ci/a.yml": ""}, push(), CONTEXT)
    assert [problem.file for problem in caught.value.problems] == [".ci/a.yml", ".ci/b.yml"]


def test_no_file_is_a_config_error_that_says_what_to_add() -> None:
    with pytest.raises(ConfigError, match=r"there is no pipeline file at this commit; add \.ci\.yml"):
        build_jobs({}, push(), CONTEXT)


def test_too_many_jobs_over_all_files_are_refused() -> None:
    text = f"matrix: {{A: {list(range(200))}}}\nsteps: {{a: {{image: b, commands: x}}}}"
    with pytest.raises(ConfigError, match="the build has 400 jobs"):
        build_jobs({".ci/a.yml": text, ".ci/b.yml": text}, push(), CONTEXT)


def test_the_defaults_of_the_context_reach_job_and_step() -> None:
    context = Context(
        owner="o", name="n", repo_key="k", clone_url="u", number=1, timeout_seconds=60, limits=Limits(pids=7)
    )
    spec = compile_pipeline(parse("steps: {a: {image: b, commands: x}}"), push(), context).jobs[0]
    assert (spec.timeout_seconds, spec.step("a").limits.pids, spec.step("clone").limits.pids) == (60, 7, 7)


def test_too_many_changed_files_match_every_path_and_are_told() -> None:
    files = tuple(f"src/{number:020}/file.py" for number in range(20_000))
    patterns = json.dumps([f"doc/{number:04}/*.md" for number in range(200)])
    text = f"when: [{', '.join([f'{{path: {patterns}}}'] * 4)}]\nsteps: {{a: {{image: b, commands: x}}}}"
    found = compiled(text, changed_files=files)
    assert found.jobs
    assert "too many files changed" in str(found.warnings[0])


def test_references_in_patterns_are_bounded_over_all_cells() -> None:
    patterns = json.dumps([f"${{V}}/{number}" for number in range(100)])
    step = f"{{image: b, commands: x, when: {{branch: {patterns}}}}}"
    text = f"matrix: {{V: {list(range(200))}}}\nsteps: {{a: {step}}}"
    with pytest.raises(ConfigError, match="are too long, over all jobs of the matrix"):
        compiled(text)


# --- slugs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("build", "build"),
        ("Build & Test (Go 1.20)", "build-test-go-1-20"),
        ("Größe", "groe"),
        ("日本", "x"),
        ("--", "x"),
        ("a" * 100, "a" * 40),
    ],
)
def test_slugs(name: str, slug: str) -> None:
    assert Slugs().take(name) == slug


def test_services_keep_their_name_where_a_step_has_the_same() -> None:
    spec = job(
        "services: {db: {image: b}}\nsteps: {db: {image: b, commands: x}, Clone: {image: b, commands: x}}"
    )
    assert [(step.name, step.slug) for step in spec.steps] == [
        ("clone", "clone"),
        ("db", "db-2"),
        ("Clone", "clone-2"),
        ("db", "db"),
    ]


@given(
    st.lists(st.one_of(st.text(max_size=5), st.sampled_from(["a", "a-2", "A", "a 2", "a-3"])), max_size=20)
)
def test_slugs_are_unique_and_the_same_each_time(names: list[str]) -> None:
    first, second = Slugs(), Slugs()
    found = [first.take(name) for name in names]
    assert len(set(found)) == len(found)
    assert found == [second.take(name) for name in names]
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug) for slug in found)


# --- rights: refused before anything runs ---------------------------------------------------------------

WANTS = [
    ("privileged: true", "security"),
    ("network_mode: host", "network"),
    ("dns: 192.0.2.1", "network"),
    ("dns_search: example.org", "network"),
    ("extra_hosts: ['db:192.0.2.7']", "network"),
    ("devices: ['/dev/kvm:/dev/kvm']", "volumes"),
    ("tmpfs: [/scratch]", "volumes"),
    ("shm_size: 64m", "volumes"),
    ("volumes: ['/srv/given:/given']", "volumes"),
    ("volumes: ['fast:/fast']", "volumes"),
]
OF_A_REPO = "volumes: {{ fast: {{ memory: true }} }}\nsteps:\n  a:\n    image: x\n    commands: [b]\n    {}\n"


@pytest.mark.parametrize(("key", "switch"), WANTS)
def test_a_right_that_the_repo_does_not_have_is_refused_where_the_file_asks(key: str, switch: str) -> None:
    text = OF_A_REPO.format(key)
    with pytest.raises(ConfigError, match=f"a server admin can allow `{switch}` in the settings") as error:
        compiled(text)
    assert error.value.problems[0].line == 4
    allowed = replace(CONTEXT, trust=Trust.model_validate({switch: True}))
    assert build_jobs({".ci.yml": text}, push(), allowed).jobs[0].trust == allowed.trust
    fork = push(pull_request=1, is_from_fork=True, kind=Kind.PULL_REQUEST)
    with pytest.raises(ConfigError, match="never allowed in a build of a fork"):
        build_jobs({".ci.yml": text}, fork, allowed)


def test_a_step_that_does_not_run_may_ask_for_anything() -> None:
    text = OF_A_REPO.format("privileged: true\n    when: { branch: other }") + "  b: {image: x, commands: y}"
    assert [step.skip_reason == "" for step in job(text).steps] == [True, False, True]


def test_files_with_variables_are_named_from_where_the_clone_lies() -> None:
    text = "workspace: { path: src }\nsteps: { a: { image: x, commands: y, environment_file: [a.env, /b] } }"
    assert job(text).steps[1].environment_files == ("/workspace/src/a.env", "/b")
