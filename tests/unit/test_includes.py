"""Files with parts of a pipeline: how they are merged, what is wrong with them, and who may include what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update

from ci.errors import ConfigError
from ci.event import Kind
from ci.pipeline import includes, yaml
from ci.pipeline.compile import build_jobs
from ci.pipeline.includes import Include, Library
from ci.pipeline.lint import lint
from ci.pipeline.model import Pipeline
from ci.pipeline.parse import parse_all
from ci.pipeline.plan import CONTEXT, event_of, plan
from ci.server.store import configs, repos
from ci.server.store.tables import REPO
from ci.status import Status
from runners.exec.command import execute
from tests.unit.github_world import Town, town
from tests.unit.gitting import Work, add_repo
from tests.unit.test_approvals import Door, door
from tests.unit.test_reruns import House, house, push
from tests.unit.world import ADA

__all__ = ["door", "house"]
COMMIT = "4f" * 20
SHARED = """\
environment: {GO: '1.22', CACHE: 'on'}
steps:
  vet: {image: golang, commands: [go vet]}
  test: {image: golang, commands: [go test], environment: {RACE: '1', SHORT: '1'}}
"""
OWN = """\
include: shared.yml
environment: {GO: '1.23'}
steps:
  - name: test
    environment: {SHORT: '0'}
  - {name: pack, image: busybox, commands: [tar]}
"""


def parsed(text: str, **texts: str) -> Pipeline:
    found = {name.replace("__", "/").replace("_yml", ".yml"): each for name, each in texts.items()}
    library = Library(texts={f"./{name}": each for name, each in found.items()})
    return parse_all(text, library=library)[0]


def wrong(text: str, library: Library | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_all(text, library=library)
    return [str(problem) for problem in caught.value.problems]


# --- what comes out -----------------------------------------------------------------------------------


def test_included_steps_come_first_and_a_step_of_the_same_name_says_what_is_different() -> None:
    found = parsed(OWN, shared_yml=SHARED)
    assert [step.name for step in found.steps] == ["vet", "test", "pack"]
    test = found.steps[1]
    assert (test.image, test.commands) == ("golang", ("go test",))
    assert dict(test.environment) == {"RACE": "1", "SHORT": "0"}
    assert dict(found.environment) == {"GO": "1.23", "CACHE": "on"}


def test_of_two_files_the_later_wins_and_lists_are_replaced() -> None:
    one = "labels: {a: '1', b: '1'}\nsteps: {x: {image: one, commands: [a, b]}}\n"
    two = "labels: {b: '2', c: '2'}\nsteps: {x: {commands: [c]}}\n"
    found = parsed("include: [one.yml, two.yml]\nlabels: {c: '3'}\nsteps: []\n", one_yml=one, two_yml=two)
    assert dict(found.labels) == {"a": "1", "b": "2", "c": "3"}
    assert [(step.image, step.commands) for step in found.steps] == [("one", ("c",))]


def test_a_file_that_is_nothing_but_includes_is_a_pipeline() -> None:
    assert [step.name for step in parsed("include: shared.yml\n", shared_yml=SHARED).steps] == ["vet", "test"]


def test_what_is_named_twice_is_included_once() -> None:
    found = parsed("include: [shared.yml, {file: shared.yml}]\n", shared_yml=SHARED)
    assert len(found.steps) == 2


def test_names_of_included_files_are_told_from_those_of_pipelines() -> None:
    assert [each.name for each in includes.wanted("include: [a.yml, b/c.yml]", ".ci.yml")] == [
        "./a.yml",
        "./b/c.yml",
    ]
    text = f"include: {{repo: team/tools, file: go.yml, commit: {COMMIT}}}"
    (other,) = includes.wanted(text, ".ci.yml")
    assert other == Include(repo="team/tools", file="go.yml", commit=COMMIT)
    assert other.name == f"team/tools@{COMMIT}:go.yml"
    for name in ("./a.yml", other.name):
        assert includes.is_included(name)
    for name in (".ci.yml", ".ci/a.yml", "a/b@c:d.yml", ".woodpecker/x.yml"):
        assert not includes.is_included(name)


# --- what is wrong ------------------------------------------------------------------------------------

TAIL = "\nsteps: {a: {image: b, commands: [c]}}\n"


@pytest.mark.parametrize(
    ("include", "sentence"),
    [
        ("../x.yml", '.ci.yml:1:10: a file is included by its path from the root of its repo, this is "../x'),
        ("/etc/passwd", "a file is included by its path from the root of its repo"),
        ("a//b.yml", "a file is included by its path from the root of its repo"),
        ("./a.yml", "a file is included by its path from the root of its repo"),
        ("''", "a file is included by its path from the root of its repo"),
        ("[[a]]", ".ci.yml:1:11: an include is a map, this is a list"),
        ("{file: a.yml, ref: main}", 'unknown key "ref" in an include; an include has file, repo, commit'),
        ("{repo: a/b, commit: " + COMMIT + "}", "a file is included by its path from the root"),
        ("{file: a.yml, commit: " + COMMIT + "}", '"commit" needs "repo"'),
        ("{repo: a, file: b.yml, commit: " + COMMIT + "}", 'a repo is OWNER/NAME, this is "a"'),
        ("{repo: a/b, file: b.yml}", 'is pinned by "commit", the 40 digits of its full id; there is none'),
        ("{repo: a/b, file: b.yml, commit: main}", 'the 40 digits of its full id; this is "main"'),
        ("{repo: a/b, file: b.yml, commit: 4f4f4f4}", 'this is "4f4f4f4"'),
        ("[" + ", ".join(f"{n}.yml" for n in range(21)) + "]", "a pipeline includes at most 20 files"),
        ("gone.yml", '.ci.yml:1:10: "./gone.yml" cannot be included: it is not there'),
    ],
)
def test_an_include_that_cannot_be_has_a_sentence_with_its_place(include: str, sentence: str) -> None:
    found = wrong(f"include: {include}{TAIL}")
    assert any(sentence in each for each in found), found


def test_why_a_file_is_missing_is_said() -> None:
    library = Library(missing={"./a.yml": "the commit has no such file"})
    assert wrong("include: a.yml" + TAIL, library) == [
        '.ci.yml:1:10: "./a.yml" cannot be included: the commit has no such file'
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "./a.yml:1:1: an included file is a map with keys of a pipeline, this is nothing"),
        ("- x", "./a.yml:1:1: an included file is a map with keys of a pipeline, this is a list"),
        ("a: [", "./a.yml:2:1: this is not YAML"),
        ("x: 1\ninclude: b.yml", "./a.yml:2:10: a file that is included includes nothing itself"),
        ("\nstep: {}", './a.yml:2:1: unknown key "step" in a pipeline; did you mean "steps"?'),
        ("steps:\n  z: {image: x, comands: [y]}", './a.yml:2:17: unknown key "comands" in a step'),
        ("steps:\n  z: {image: '${NO}', commands: [y]}", "./a.yml:2:14: "),
    ],
)
def test_what_is_wrong_in_an_included_file_is_said_with_its_place_there(text: str, sentence: str) -> None:
    found = wrong("include: a.yml" + TAIL, Library(texts={"./a.yml": text}))
    assert any(each.startswith(sentence) for each in found), found


def test_what_is_wrong_only_when_values_are_there_has_its_place_too() -> None:
    part = "steps:\n  z:\n    image: x\n    commands: [y]\n    when: {evaluate: 'CI_NO ('}\n"
    files = {".ci.yml": "include: a.yml" + TAIL, "./a.yml": part}
    with pytest.raises(ConfigError) as caught:
        build_jobs(files, event_of("push", branch="main"), CONTEXT)
    assert {problem.file for problem in caught.value.problems} == {"./a.yml"}


def test_all_files_together_have_a_size() -> None:
    comment = "# " + "x" * (yaml.MAX_BYTES // 2) + "\n"
    library = Library(texts={f"./{name}.yml": comment + "labels: {}\n" for name in "ab"})
    (found,) = wrong("include: [a.yml, b.yml]" + TAIL, library)
    assert "the included files are larger than 256 KiB together" in found


@given(st.text(max_size=80), st.sampled_from(["steps: ", "services: ", "", "matrix: ", "environment: "]))
def test_nothing_but_a_config_error_comes_of_any_included_text(text: str, before: str) -> None:
    try:
        parse_all(OWN, library=Library(texts={"./shared.yml": before + text}))
    except ConfigError as error:
        assert error.problems


# --- on this machine ----------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    work = Work(tmp_path / "work", tmp_path / "nowhere")
    work.commit_files({".ci.yml": OWN, "shared.yml": SHARED})
    return work.path


def test_lint_plan_and_exec_read_what_the_working_tree_has(
    tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert lint([tree]) == 0
    assert plan([tree]) == 0
    assert "+ vet: golang" in capsys.readouterr().out
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert execute([tree], engine="fake") == 0
    (tree / "shared.yml").write_text(SHARED.replace("image: golang, commands: [go vet]", "imag: golang"))
    assert lint([tree]) == 2
    assert './shared.yml:3:9: unknown key "imag" in a step; did you mean "image"?' in capsys.readouterr().out


def test_what_is_of_another_repo_comes_from_a_clone_of_it(
    tree: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    other = Work(tmp_path / "tools", tmp_path / "nowhere")
    sha = other.commit_files({"go.yml": SHARED})
    other.commit_files({"go.yml": "steps: broken"})
    (tree / ".ci.yml").write_text(f"include: {{repo: team/tools, file: go.yml, commit: {sha}}}\n")
    assert lint([tree]) == 2
    assert "cannot be included: name a clone of it: --lender team/tools=FOLDER" in capsys.readouterr().out
    assert lint([tree], lender=[f"team/tools={other.path}"]) == 0
    assert plan([tree], lender=[f"team/tools={other.path}"]) == 0
    assert "+ vet: golang" in capsys.readouterr().out
    assert lint([tree], lender=[f"team/tools={tree}"]) == 2
    assert "does not have it: fetch there first" in capsys.readouterr().out


# --- on a server --------------------------------------------------------------------------------------


async def test_a_build_keeps_what_it_included_and_a_rerun_takes_that(house: House) -> None:
    first = await house.build(push(house, {".ci.yml": OWN, "shared.yml": SHARED}))
    assert [job.name for job in await house.core.jobs_of(first.id or 0)] == ["ci"]
    assert configs.files(first) == {".ci.yml": OWN, "./shared.yml": SHARED}
    assert (first.config_file, configs.name(first.config_file)) == (".ci.yml/", ".ci.yml")
    await house.end(await house.core.runner(), Status.FAILURE)
    push(house, {"shared.yml": "steps: broken"})
    _, _, number = await house.trigger.rerun(first.id or 0, ADA)
    assert configs.files(await house.numbered(number)) == configs.files(first)


async def test_a_file_that_is_not_there_is_an_error_of_the_build_with_its_place(house: House) -> None:
    build = await house.build(push(house, {".ci.yml": OWN}))
    assert build.status == "error"
    assert build.reason.startswith(
        '.ci.yml:1:10: "./shared.yml" cannot be included: the commit has no such file'
    )


async def lender(house: House, folder: Path, *, owner: str = "ada", **values: Any) -> str:
    """The commit of a repo `tools` with a shared file."""
    other = await add_repo(house.core.store, house.builtin, owner, "tools")
    work = Work(folder / "tools", house.builtin.path(other.id or 0))
    sha = work.commit_files({"go.yml": SHARED})
    work.git("push", "-q", "origin", "HEAD:main")
    if values:
        where = REPO.c.id == other.id
        await house.core.store.write(lambda c: c.execute(update(REPO).where(where).values(**values)))
    return sha


def including(sha: str, owner: str = "ada") -> dict[str, str]:
    return {".ci.yml": f"include: {{repo: {owner}/tools, file: go.yml, commit: {sha}}}\n"}


async def set_private(house: House, *, is_private: bool) -> None:
    mine = REPO.c.id == house.core.repo_id
    await house.core.store.write(lambda c: c.execute(update(REPO).where(mine).values(is_private=is_private)))


async def test_a_public_repo_is_included_by_all_at_the_commit_that_is_named(
    house: House, tmp_path: Path
) -> None:
    sha = await lender(house, tmp_path, owner="grace", is_private=False)
    build = await house.build(push(house, including(sha, "grace")))
    assert build.status == "pending"
    assert configs.files(build)[f"grace/tools@{sha}:go.yml"] == SHARED
    gone = await house.build(push(house, including("0" * 39 + "1", "grace")))
    assert gone.status == "error"
    assert "cannot be included: the commit has no such file" in gone.reason


@pytest.mark.parametrize(
    ("owner", "is_lent", "here", "may"),
    [
        ("ada", True, "private", True),
        ("ada", False, "private", False),
        ("ada", True, "public", False),
        ("ada", True, "fork", False),
        ("grace", True, "private", False),
    ],
)
async def test_a_private_repo_is_included_by_those_alone_that_it_lends_to(
    house: House, tmp_path: Path, owner: str, is_lent: bool, here: str, may: bool
) -> None:
    sha = await lender(house, tmp_path, owner=owner, lends_files=is_lent)
    await set_private(house, is_private=here != "public")
    files = including(sha, owner)
    extra = {"kind": Kind.PULL_REQUEST, "pull_request": 7, "is_from_fork": True} if here == "fork" else {}
    build = await house.build(push(house, files), **extra)
    assert (build.status != "error") is may
    assert (SHARED in configs.files(build).values()) is may
    if not may:
        nowhere = await house.build(push(house, including(sha, "nobody")), **extra)
        place = build.problems[0]["message"].replace(f"{owner}/tools", "nobody/tools")
        assert nowhere.problems[0]["message"] == place, "no difference tells that there is such a repo"


async def test_github_gives_the_file_at_the_commit_that_is_built(tmp_path: Path) -> None:
    async with town(tmp_path) as here:
        await _includes_of_github(here)


async def _includes_of_github(here: Town) -> None:
    here.far.commit("refs/heads/main", {".ci.yml": OWN, "shared.yml": SHARED})
    await here.deliver("push", here.push())
    build = (await here.builds())[-1]
    assert configs.files(build) == {".ci.yml": OWN, "./shared.yml": SHARED}


async def test_the_approval_page_shows_a_changed_include_and_an_approval_is_bound_to_it(door: Door) -> None:
    base = push_to(door, {".ci.yml": OWN, "shared.yml": SHARED}, "main")
    await door.core.store.write(lambda c: repos.set_ref_sha(c, door.repo.id or 0, "refs/heads/main", base))
    head = push_to(door, {"shared.yml": SHARED.replace("go vet", "curl evil.example")}, "fork")
    await door.seen(head)
    question = await door.question(await door.made(head))
    assert [file.name for file in question.files if file.is_changed] == ["./shared.yml"]
    assert question.changes_config
    before = question.binding
    head = push_to(door, {"shared.yml": SHARED.replace("go vet", "curl worse.example")}, "fork")
    await door.seen(head)
    assert (await door.question(await door.made(head))).binding != before


def push_to(door: Door, files: dict[str, str], branch: str) -> str:
    sha = door.work.commit_files(files)
    door.work.git("push", "-qf", "origin", f"HEAD:refs/heads/{branch}")
    return sha


async def test_a_plain_repository_without_the_commit_says_so_and_is_not_asked_for_an_hour(
    house: House, tmp_path: Path
) -> None:
    far = Work(tmp_path / "far", tmp_path / "nowhere")
    sha = far.commit_files({"go.yml": SHARED})

    def add(connection: Any) -> int:
        url = f"file://{far.path}/.git"
        return repos.create(connection, owner="eve", name="tools", now=1.0, clone_url=url, is_private=False)

    await house.core.store.write(add)
    assert (await house.build(push(house, including(sha, "eve")))).status == "pending"
    build = await house.build(push(house, including("1" * 40, "eve")))
    assert "cannot be included: it has no commit 1111111111" in build.reason
