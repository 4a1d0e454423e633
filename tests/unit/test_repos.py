"""Repos added, changed and deleted, with the real git and a GitHub that is a real HTTP server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select, update

from ci.errors import Conflict, Forbidden, Invalid, NotFound, Unavailable
from ci.server.auth import Actor, Role, Scope
from ci.server.credentials import Credential, Credentials, Kind
from ci.server.forges import git
from ci.server.forges.address import Addresses
from ci.server.forges.github_api import GitHubApi, RateLimits
from ci.server.logs import LogKey, Logs
from ci.server.repos import Places, Repos
from ci.server.retention import Retention
from ci.server.store import repo_settings, repos
from ci.server.store.tables import BUILD, INBOX, JOB, SECRET
from ci.server.vault import Vault
from ci.spec import Trust
from tests.fake_github import TOKEN, FakeGitHub
from tests.unit.world import ADA
from tests.unit.yard import Yard, yard

ROOT = Actor(user_id=9, name="root", is_admin=True)
VAULT = Vault(bytes(32))


@dataclass
class Here:
    yard: Yard
    repos: Repos
    logs: Logs
    retention: Retention
    folder: Path

    @property
    def repo_id(self) -> int:
        return self.yard.repo.id or 0


async def nowhere(host: str, port: int) -> list[str]:
    raise OSError("nobody knows it")


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Here]:
    async with yard(tmp_path) as made, httpx.AsyncClient() as client:
        world = made.core
        logs = Logs(tmp_path / "logs", clock=world.clock)
        await logs.start()
        limits = RateLimits(world.clock)
        folders = (tmp_path / "git", tmp_path / "cache")
        places = Places(
            builtin=made.forges.builtin,
            folders=folders,
            ask_github=lambda url, token: GitHubApi(api_url=url, token=token, client=client, limits=limits),
            addresses=Addresses("127.0.0.1", resolve=nowhere),
        )
        service = Repos(world.store, world.bus, world.clock, VAULT, logs=logs, places=places)
        retention = Retention(world.store, world.bus, world.clock, logs, folders)
        yield Here(made, service, logs, retention, tmp_path)
        await logs.close()


@pytest.fixture
async def github() -> AsyncIterator[FakeGitHub]:
    async with FakeGitHub().serving() as fake:
        yield fake


# --- add ------------------------------------------------------------


async def test_a_repo_of_the_built_in_git_is_there_to_be_pushed_to(here: Here) -> None:
    added = await here.repos.add_builtin("ada", "new", ADA, is_private=False)
    assert (here.folder / "git" / f"{added.repo.id}.git" / "HEAD").exists()
    assert not added.repo.is_private and added.hook_id == ""
    assert ("ada", "repo.add", "ada/new") in await here.yard.deeds()
    with pytest.raises(Conflict, match="there is a repo ada/NEW already"):
        await here.repos.add_builtin("ada", "NEW", ADA)
    with pytest.raises(Invalid, match="cannot be part of a repo's path"):
        await here.repos.add_builtin("ada", "../x", ADA)


async def test_one_adds_in_ones_own_namespace_and_an_admin_anywhere(here: Here) -> None:
    with pytest.raises(Forbidden, match=r"ada adds repos as ada/\.\.\., and only an admin bob"):
        await here.repos.add_builtin("bob", "x", ADA)
    with pytest.raises(
        Forbidden, match="may not make a repo: its scopes are read; make one with the scope write"
    ):
        reader = Actor(user_id=1, name="ada", scopes=frozenset({Scope.READ}))
        await here.repos.add_builtin("ada", "x", reader)
    await here.repos.add_builtin("bob", "x", ROOT)


async def test_a_repository_elsewhere_gets_a_hook_and_a_sealed_credential(here: Here) -> None:
    credential = Credential(kind=Kind.PASSWORD, user="bot", value="s3cret-pass")
    added = await here.repos.add_plain(("ada", "lib"), "https://git.example.com/lib.git", credential, ADA)
    credentials = Credentials(here.yard.core.store, VAULT, here.yard.core.clock)
    assert credentials.of(added.repo) == credential
    assert b"s3cret-pass" not in (added.repo.credential or b"")
    hook = await here.yard.core.store.read(lambda c: repos.hook(c, added.hook_id))
    assert hook is not None and added.secret.encode() not in hook.secret
    assert here.repos.known_secrets(added.repo, [hook]) == [added.secret, "s3cret-pass"]


@pytest.mark.parametrize("url", ["ftp://x/y", "file:///etc", "https://u:p@git.example.com/x", "nonsense", ""])
async def test_an_address_that_is_none_is_refused_and_nothing_is_added(here: Here, url: str) -> None:
    with pytest.raises(Invalid):
        await here.repos.add_plain(("ada", "lib"), url, None, ADA)
    assert await here.yard.core.store.read(lambda c: repos.find(c, "ada", "lib")) is None


async def test_a_repo_of_github_is_added_as_it_is_there(here: Here, github: FakeGitHub) -> None:
    there = github.repo(77, "ada", "Web")
    there.commit("refs/heads/main", {".ci.yml": "x"})
    added = await here.repos.add_github(("ada", "web"), f" {TOKEN} ", ADA, api_url=github.url)
    repo = added.repo
    assert (repo.forge, repo.forge_key, repo.owner, repo.name) == ("github", "77", "ada", "Web")
    assert (repo.default_branch, repo.is_private, repo.api_url) == ("main", there.private, github.url)
    assert repo.credential_kind == "token" and added.secret
    with pytest.raises(Conflict, match="already"):
        await here.repos.add_github(("ada", "Web"), TOKEN, ADA, api_url=github.url)


async def test_a_token_that_does_not_read_the_repo_is_refused_in_words(
    here: Here, github: FakeGitHub
) -> None:
    github.repo(77, "ada", "app")
    with pytest.raises(Invalid, match=r"does not read ada/app.*revoked or has expired"):
        await here.repos.add_github(("ada", "app"), "ghp_wrong", ADA, api_url=github.url)
    with pytest.raises(Invalid, match="sees no repo ada/other"):
        await here.repos.add_github(("ada", "other"), TOKEN, ADA, api_url=github.url)
    github.repo(78, "acme", "x")
    with pytest.raises(Forbidden, match="only an admin acme/"):
        await here.repos.add_github(("acme", "x"), TOKEN, ADA, api_url=github.url)


@pytest.mark.parametrize(
    "url",
    ["http://github.example.com", "ftp://x", "https://a:b@x", "https://x?y", "https://", "javascript:1"],
)
async def test_a_token_goes_only_to_an_address_that_keeps_it(here: Here, url: str) -> None:
    with pytest.raises(Invalid, match="no address of an API"):
        await here.repos.add_github(("ada", "app"), TOKEN, ADA, api_url=url)


async def test_a_github_that_is_away_is_said(here: Here) -> None:
    with pytest.raises(Unavailable):
        await here.repos.add_github(("ada", "app"), TOKEN, ADA, api_url="http://127.0.0.1:9")


# --- change ------------------------------------------------------------


async def test_settings_that_change_are_written_down_and_the_others_stay(here: Here) -> None:
    found = await here.repos.change(here.yard.repo, {"timeout_minutes": "5", "is_private": "true"}, ADA)
    assert (found.timeout_minutes, found.approval) == (5, "forks")
    assert await here.yard.deeds() == [("ada", "repo.settings", "ada/site")]
    await here.repos.change(found, {"timeout_minutes": "5"}, ADA)
    assert len(await here.yard.deeds()) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("timeout_minutes", "0"),
        ("timeout_minutes", "1e3"),
        ("timeout_minutes", "99999"),
        ("keep_logs_days", "-1"),
        ("config_path", "/etc/passwd"),
        ("config_path", "../x.yml"),
        ("config_path", "ci//x.yml"),
        ("config_path", "Makefile"),
        ("config_path", "a\x00.yml"),
        ("approval", "nobody"),
        ("is_enabled", "perhaps"),
        ("next_number", "1"),
    ],
)
def test_a_setting_that_cannot_be_is_named(name: str, value: str) -> None:
    with pytest.raises(Invalid, match=name):
        repo_settings.parsed({name: value})


def test_a_path_of_the_config_is_a_file_or_a_folder() -> None:
    for path in ("", "ci/", "ci/build.yml", "a/b.yaml"):
        assert repo_settings.parsed({"config_path": path}) == {"config_path": path}


async def test_of_two_secrets_the_older_signs_for_a_day_more(here: Here) -> None:
    added = await here.repos.add_plain(("ada", "lib"), "https://git.example.com/lib.git", None, ADA)
    rotated = await here.repos.rotate(added.repo, added.hook_id, ADA)
    assert rotated.secret != added.secret
    ping = b'{"push_id": "1", "refs": [{"ref": "refs/heads/a", "after": "' + b"0" * 40 + b'"}]}'

    async def deliver(secret: str) -> None:
        headers = {git.SIGNATURE_HEADER: git.signature(ping, secret.encode())}
        await here.yard.hooks.receive(added.hook_id, headers, ping)

    await deliver(added.secret)
    await deliver(rotated.secret)
    here.yard.core.clock.seconds += 24 * 3600 + 1
    await deliver(rotated.secret)
    with pytest.raises(Forbidden):
        await deliver(added.secret)
    with pytest.raises(NotFound):
        await here.repos.rotate(here.yard.repo, added.hook_id, ADA)


# --- delete ------------------------------------------------------------


async def test_a_deleted_repo_leaves_nothing_but_its_audit_rows(here: Here) -> None:
    await here.yard.push()
    await here.yard.push("other")
    build = (await here.yard.builds())[0]
    await here.yard.core.lifecycle.cancel(build.id or 0, ADA)
    store = here.yard.core.store
    jobs = list(await store.read(lambda c: c.execute(select(JOB.c.id)).scalars().all()))
    await here.logs.append(LogKey(jobs[0], 1, 0), 0, b"hello\n")
    with pytest.raises(Invalid, match="type ada/site to delete it, not 'ada/sit'"):
        await here.repos.delete(here.yard.repo, "ada/sit", ADA)
    await here.repos.delete(here.yard.repo, "ada/site", ADA)
    assert await store.read(lambda c: repos.by_id(c, here.repo_id)) is None
    for table in (BUILD, JOB, INBOX, SECRET):
        rows = await store.read(lambda c, table=table: c.execute(select(table)).all())  # type: ignore[misc]
        assert rows == [], table.name
    assert not (here.folder / "git" / f"{here.repo_id}.git").exists()
    assert here.logs.jobs() == []
    assert ("ada", "repo.delete", "ada/site") in await here.yard.deeds()


async def test_an_id_of_a_deleted_repo_or_job_is_not_given_again(here: Here) -> None:
    await here.yard.push()
    store = here.yard.core.store
    last = await store.read(lambda c: c.execute(select(JOB.c.id)).scalar_one())
    await here.repos.delete(here.yard.repo, "ada/site", ADA)
    again = await here.repos.add_builtin("ada", "site", ADA)
    assert again.repo.id == here.repo_id + 1
    assert again.repo.next_number == 1
    here.yard.repo = again.repo
    here.yard.work.git("remote", "set-url", "origin", str(here.yard.forges.builtin.path(again.repo.id or 0)))
    await here.yard.push()
    assert await store.read(lambda c: c.execute(select(JOB.c.id)).scalar_one()) == last + 1


async def test_a_running_build_is_cancelled_first_and_the_repo_waits_for_its_end(here: Here) -> None:
    await here.yard.push()
    core = here.yard.core
    runner = await core.runner()
    await core.started(runner)
    with pytest.raises(Conflict, match="#1 is being cancelled"):
        await here.repos.delete(here.yard.repo, "ada/site", ADA)
    (build,) = await here.yard.builds()
    assert build.cancel_reason == "ada deletes the repo"


async def test_a_build_that_nobody_knows_the_end_of_is_resolved_first(here: Here) -> None:
    await here.yard.push()
    store = here.yard.core.store
    await store.write(lambda c: c.execute(update(JOB).values(status="unknown")))
    await store.write(lambda c: c.execute(update(BUILD).values(status="unknown")))
    with pytest.raises(Conflict, match="nobody knows how #1 ended"):
        await here.repos.delete(here.yard.repo, "ada/site", ADA)


async def test_what_a_kill_leaves_behind_goes_in_the_next_round(here: Here) -> None:
    await here.logs.append(LogKey(4711, 1, 0), 0, b"nobody's\n")
    orphan = here.folder / "git" / "99.git"
    orphan.mkdir(parents=True)
    beside = here.folder / "git" / "README"
    beside.write_text("not ours")
    await here.retention.round()
    assert here.logs.jobs() == []
    assert not orphan.exists() and beside.exists()
    assert here.yard.forges.builtin.path(here.repo_id).exists()


async def test_only_a_server_admin_lets_files_ask_for_rights(here: Here) -> None:
    administers = Actor(user_id=2, name="eve", roles={here.yard.repo.id or 0: Role.ADMIN})
    with pytest.raises(Forbidden, match="only a server admin"):
        await here.repos.change(here.yard.repo, {"trusts_volumes": "true"}, administers)
    await here.repos.change(here.yard.repo, {"trusts_volumes": "false", "timeout_minutes": "5"}, administers)
    scoped = Actor(user_id=1, name="ada", is_admin=True, scopes=frozenset({Scope.WRITE}))
    with pytest.raises(Forbidden):
        await here.repos.change(here.yard.repo, {"trusts_volumes": "true"}, scoped)
    admin = Actor(user_id=1, name="ada", is_admin=True)
    found = await here.repos.change(here.yard.repo, {"trusts_volumes": "true"}, admin)
    assert repo_settings.trust_of(found, ("a/b",)) == Trust(volumes=True, privileged_plugins=("a/b",))
