"""Secrets: sealed, found by the narrowest place, given to whoever may read them, and to nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import select

from ci.environ import Context
from ci.errors import ConfigError, Invalid, NotFound
from ci.event import Event, Kind
from ci.images import repository
from ci.pipeline.compile import Compiled, build_jobs
from ci.server import secrets
from ci.server.auth import Actor
from ci.server.models import Repo
from ci.server.secrets import Filters, weakness
from ci.server.store import audit, repos
from ci.server.store import secrets as rows
from ci.server.store.tables import SECRET
from ci.shell import is_exportable, unfit
from ci.status import Status
from tests.unit.world import SHA, Core, core

ADA = Actor(user_id=1, name="ada")
CANARY = "canary-4711-value"
FILE = """
skip_clone: true
steps:
  push:
    image: example/push:1.2
    settings:
      user: ada
      password: { from_secret: Registry }
  show:
    image: busybox
    environment:
      TOKEN: { from_secret: token }
    commands: [make]
"""


def event(kind: Kind = Kind.PUSH, *, fork: bool = False) -> Event:
    return Event(kind=kind, ref="refs/heads/main", branch="main", after=SHA, is_from_fork=fork, variables={})


def compiled(text: str = FILE, of: Event | None = None) -> Compiled:
    context = Context(owner="ada", name="app", repo_key="1", clone_url="http://x/y.git", number=1)
    return build_jobs({".ci.yml": text}, of or event(), context)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Core]:
    async with core(tmp_path) as server:
        yield server


async def _repo(server: Core) -> Repo:
    repo = await server.store.read(lambda c: repos.by_id(c, server.repo_id))
    assert repo is not None
    return repo


async def _set(
    server: Core, name: str, value: str = CANARY, place: str = "", **filters: Sequence[str]
) -> str:
    given = Filters(**{key: tuple(words) for key, words in filters.items()})
    return await server.secrets.put(place or rows.place_of_repo(server.repo_id), name, value, given, ADA)


async def _problems(server: Core, of: Event | None = None) -> list[str]:
    uses, repo = compiled(of=of).secrets, await _repo(server)
    found = await server.store.read(lambda c: server.secrets.problems(c, uses, of or event(), repo))
    return [str(problem) for problem in found]


async def test_a_secret_is_sealed_and_bound_to_its_place_and_name(server: Core) -> None:
    await _set(server, "TOKEN")
    row = await server.store.read(lambda c: c.execute(select(SECRET)).one())
    assert row.name == "token"
    assert CANARY.encode() not in row.sealed
    deeds = await server.store.read(lambda c: audit.latest(c))
    assert [(deed.action, deed.object) for deed in deeds] == [("secret.set", "token")]
    await _set(server, "token", "another-value")
    deeds = await server.store.read(lambda c: audit.latest(c))
    assert deeds[0].action == "secret.change"


async def test_the_narrowest_place_wins(server: Core) -> None:
    await _set(server, "token", "of-the-server", rows.SERVER)
    await _set(server, "registry", "of-the-owner", rows.place_of_owner("Ada"))
    await _set(server, "token", "of-the-repo")
    runner = await server.runner()
    await server.build(*compiled().jobs)
    (assign,) = await server.queue.take(runner, 1)
    assert assign.secrets == {"token": "of-the-repo", "registry": "of-the-owner"}
    assert set(assign.secrets.values()) <= set(assign.masks)
    found = await server.store.read(lambda c: rows.find(c, rows.place_of_repo(server.repo_id), "token"))
    assert found is not None
    assert (found.used_in, found.used_at) == ("ada/app/1", server.clock.now())
    unused = await server.store.read(lambda c: rows.find(c, rows.SERVER, "token"))
    assert unused is not None
    assert unused.used_at is None


async def test_a_job_gets_only_what_its_steps_name(server: Core) -> None:
    for name in ("token", "registry", "other"):
        await _set(server, name, f"value-of-{name}")
    runner = await server.runner()
    await server.build(*compiled("steps: {a: {image: busybox, commands: [make]}}").jobs)
    (assign,) = await server.queue.take(runner, 1)
    assert assign.secrets == {}


async def test_what_is_missing_or_not_for_this_step_is_said_with_its_line(server: Core) -> None:
    await _set(server, "registry", images=["example/other"], steps=[])
    assert await _problems(server) == [
        ".ci.yml:8:17: step 'push' cannot read the secret 'registry': it is for the images "
        "docker.io/example/other, this is docker.io/example/push",
        ".ci.yml:12:14: step 'show' cannot read the secret 'token': there is none of this name; "
        "`shipway secret set token --repo ada/app` sets it",
    ]
    await _set(server, "registry", images=["example/push"])
    await _set(server, "token", events=["tag"], steps=["show"])
    assert [line.partition(": ")[2] for line in await _problems(server)] == [
        "step 'show' cannot read the secret 'token': it is for tag, this is push"
    ]
    assert await _problems(server, event(Kind.TAG)) == []


async def test_a_secret_taken_away_meanwhile_ends_its_job_before_it_starts(server: Core) -> None:
    await _set(server, "token")
    await _set(server, "registry")
    build_id = await server.build(*compiled().jobs)
    await server.secrets.remove(rows.place_of_repo(server.repo_id), "TOKEN", ADA)
    assert await server.queue.take(await server.runner(), 1) == []
    (job,) = await server.jobs_of(build_id)
    assert (job.status, job.outcome, job.runner_id) == (Status.ERROR.value, "secret", None)
    assert "'token': it is gone" in job.reason
    assert (await server.build_row(build_id)).status == Status.ERROR.value


async def test_a_strangers_code_gets_no_secret_and_is_told_so(server: Core) -> None:
    await _set(server, "token")
    await _set(server, "registry")
    stranger = event(Kind.PULL_REQUEST, fork=True)
    found = await _problems(server, stranger)
    assert len(found) == 2
    assert all("withheld from a stranger's pull request" in line for line in found)
    (job,) = compiled(of=stranger).jobs
    assert not job.is_trusted
    await server.build(job, of=stranger)
    (assign,) = await server.queue.take(await server.runner(), 1)
    assert assign.secrets == {}
    assert CANARY not in assign.model_dump_json()


async def test_who_says_that_a_spec_is_trusted_does_not_change_the_event(server: Core) -> None:
    await _set(server, "token")
    await _set(server, "registry")
    (job,) = compiled().jobs
    await server.build(job, of=event(Kind.PULL_REQUEST, fork=True))
    (assign,) = await server.queue.take(await server.runner(), 1)
    assert assign.secrets == {}


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("a b", "x", "cannot be the name of a secret"),
        ("", "x", "cannot be the name of a secret"),
        ("a", "", "the value is empty"),
        ("a", "a\0b", "no NUL"),
        ("a", "x" * 70_000, "at most 64 KiB"),
    ],
)
async def test_what_cannot_be_a_secret_is_refused(server: Core, name: str, value: str, sentence: str) -> None:
    with pytest.raises(Invalid, match=sentence):
        await _set(server, name, value)


async def test_a_filter_that_matches_nothing_is_refused_and_so_is_removing_nothing(server: Core) -> None:
    with pytest.raises(Invalid, match="there is no event 'pushes'"):
        await _set(server, "a", events=["pushes"])
    with pytest.raises(NotFound):
        await server.secrets.remove(rows.SERVER, "a", ADA)


@pytest.mark.parametrize("value", ["abc", "true", "1234", "hunter2"])
async def test_short_secret_warns_not_silent(server: Core, value: str) -> None:
    assert await _set(server, "weak", value) == weakness(value) != ""
    row = await server.store.read(lambda c: rows.find(c, rows.place_of_repo(server.repo_id), "weak"))
    assert row is not None and row.is_weak
    assert weakness("correct-horse-battery") == ""


@pytest.mark.parametrize(
    ("image", "wanted"),
    [
        ("busybox", "docker.io/library/busybox"),
        ("busybox:1@sha256:" + "a" * 64, "docker.io/library/busybox"),
        ("plugins/docker:20", "docker.io/plugins/docker"),
        ("ghcr.io/a/b/c:1", "ghcr.io/a/b/c"),
        ("localhost:5000/x:1", "localhost:5000/x"),
        ("docker.io/library/busybox", "docker.io/library/busybox"),
    ],
)
def test_an_image_is_known_by_its_repository(image: str, wanted: str) -> None:
    assert repository(image) == wanted


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a.b", "no shell can export it"),
        ("UID", "a shell keeps this name for itself"),
        ("BASH_ENV", "a shell keeps this name for itself"),
        ("ENV", "a shell keeps this name for itself"),
        ("IFS", "a shell keeps this name for itself"),
        ("PATH", "which programs and libraries are found"),
        ("LD_PRELOAD", "which programs and libraries are found"),
    ],
)
def test_a_secret_under_a_name_that_cannot_hold_one_is_an_error(name: str, why: str) -> None:
    text = f"steps: {{a: {{image: x, environment: {{{name}: {{from_secret: t}}}}, commands: [make]}}}}"
    with pytest.raises(ConfigError, match=why):
        compiled(text)


def test_no_variable_that_may_hold_a_secret_is_shown_by_docker_inspect() -> None:
    for name in ("TOKEN", "UID", "ENV", "PATH", "LD_X", "a.b", "_", "a_1", "PS1", "shipway_x"):
        assert is_exportable(name) or unfit(name)


def test_names_of_secrets_are_found_at_any_depth_of_settings() -> None:
    text = (
        "steps: {a: {image: x, settings: {deep: [{k: {from_secret: one}}], plain: [{from_secret: two}, b]}}}"
    )
    result = compiled(text)
    assert [use.name for use in result.secrets] == ["one", "two"]
    step = result.jobs[0].step("a")
    assert secrets.names_of(step) == {"one", "two"}
    assert step.deploy, "a plugin has side effects unless it says otherwise"


async def test_a_secret_for_images_is_only_for_plugins_that_nothing_else_steers(server: Core) -> None:
    await _set(server, "t", images=["Example.org/push:1", "busybox"])
    repo = await _repo(server)

    async def why(step: str) -> str:
        uses = compiled(f"skip_clone: true\nsteps: {{a: {{{step}}}}}").secrets
        found = await server.store.read(lambda c: server.secrets.problems(c, uses, event(), repo))
        return "; ".join(problem.message for problem in found)

    secret = "{from_secret: t}"
    assert await why(f"image: busybox, settings: {{k: {secret}}}") == ""
    assert await why(f"image: 'docker.io/library/busybox:2', settings: {{k: {secret}}}") == ""
    for step in (
        f"image: busybox, environment: {{K: {secret}}}, commands: [make]",
        f"image: busybox, environment: {{FOR_ALL: to-see}}, settings: {{k: {secret}}}",
    ):
        assert "this step must be a plugin, without commands and environment" in await why(step)
    assert "this is docker.io/library/alpine" in await why(f"image: alpine, settings: {{k: {secret}}}")


async def test_a_digest_in_a_filter_wants_exactly_that_image(server: Core) -> None:
    good, bad = "sha256:" + "a" * 64, "sha256:" + "b" * 64
    await _set(server, "t", images=[f"example/push:1@{good}"])
    row = await server.store.read(lambda c: rows.find(c, rows.place_of_repo(server.repo_id), "t"))
    assert row is not None and row.images == [f"docker.io/example/push@{good}"]
    repo = await _repo(server)
    for image, is_right in (
        (f"example/push:2@{good}", True),
        (f"example/push@{bad}", False),
        ("example/push", False),
    ):
        uses = compiled(f"steps: {{a: {{image: '{image}', settings: {{k: {{from_secret: t}}}}}}}}").secrets
        found = await server.store.read(lambda c, uses=uses: server.secrets.problems(c, uses, event(), repo))
        assert (found == []) is is_right


async def test_a_job_is_refused_a_secret_that_was_narrowed_meanwhile(server: Core) -> None:
    await _set(server, "token")
    await _set(server, "registry")
    build_id = await server.build(*compiled().jobs)
    await _set(server, "token", events=["tag"])
    assert await server.queue.take(await server.runner(), 1) == []
    (job,) = await server.jobs_of(build_id)
    assert (job.status, job.outcome) == (Status.ERROR.value, "secret")
    assert job.reason == "step 'show' cannot read the secret 'token': it is for tag, this is push"
    build_id = await server.build(*compiled().jobs)
    await _set(server, "token", images=["busybox"])
    assert await server.queue.take(await server.runner("b"), 1) == []
    (job,) = await server.jobs_of(build_id)
    assert "it is for what the images docker.io/library/busybox do by themselves" in job.reason


async def test_what_the_matrix_or_a_person_gives_reaches_commands_and_no_plugin() -> None:
    text = """
matrix: { AXIS: [one] }
steps:
  plug: { image: x, settings: { a: b }, environment: { OWN: yes } }
  make: { image: x, commands: [make] }
"""
    given = event().model_copy(update={"variables": {"GIVEN": "1", "LD_PRELOAD": "/workspace/x.so"}})
    (job,) = compiled(text, given).jobs
    plugin = job.step("plug").environment
    assert {name for name in plugin if not name.startswith("CI")} == {"OWN"}
    assert {"AXIS", "GIVEN"} <= set(job.step("make").environment)


def test_plain_variables_are_below_everything_that_a_file_says() -> None:
    context = Context(
        owner="ada",
        name="app",
        repo_key="1",
        clone_url="http://x/y.git",
        number=1,
        variables={"A": "1", "CI": "no"},
    )
    text = "steps: {a: {image: x, environment: {A: file}, commands: [make]}}"
    (job,) = build_jobs({".ci.yml": text}, event(), context).jobs
    assert job.environment["A"] == "1"
    assert job.step("a").environment["A"] == "file"
    assert job.environment["CI"] == "shipway"
