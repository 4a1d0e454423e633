"""What opens a repo at its forge: sealed, checked, never shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select, update

from ci.errors import Forbidden, Invalid, Unavailable
from ci.event import Event
from ci.server.auth import Actor
from ci.server.credentials import Credential, Credentials, Kind, check
from ci.server.forges.address import Addresses
from ci.server.forges.git import PlainGit
from ci.server.models import Repo
from ci.server.store import audit, repos
from ci.server.store.tables import REPO
from ci.server.vault import Vault
from ci.status import Status
from tests.unit.test_clone import USER, Forge
from tests.unit.world import CLONE, Core, core, event, spec

ADA = Actor(user_id=1, name="ada")


GIT_URL = "https://git.example/ada/app.git"


async def _is(server: Core, **values: object) -> Repo:
    """The repo of the server, with these columns; read again."""
    if values:
        await server.store.write(lambda c: c.execute(update(REPO).values(**values)) and None)
    found = await server.store.read(lambda c: repos.by_id(c, server.repo_id))
    assert found is not None
    return found


async def test_a_credential_is_sealed_bound_to_its_repo_and_audited_without_its_value(tmp_path: Path) -> None:
    async with core(tmp_path) as server:
        vault = Vault(bytes(32))
        credentials = Credentials(server.store, vault, server.clock)
        await _is(server, forge="github", clone_url=GIT_URL)
        given = Credential(kind=Kind.TOKEN, user="x-access-token", value="ghp_canary")
        await credentials.set(server.repo_id, given, ADA)
        repo = await server.store.read(lambda c: repos.by_id(c, server.repo_id))
        assert repo is not None
        assert credentials.of(repo) == given
        assert "canary" not in repr(given)
        sealed = await server.store.read(lambda c: c.execute(select(REPO.c.credential)).scalar_one())
        assert b"canary" not in sealed
        with pytest.raises(Unavailable):
            Credentials(server.store, vault, server.clock).of(repo.model_copy(update={"id": 99}))
        (deed,) = await server.store.read(lambda c: audit.latest(c))
        assert (deed.action, deed.details, deed.user_name) == ("repo.credential", "token", "ada")
        await credentials.set(server.repo_id, None, ADA)
        repo = await server.store.read(lambda c: repos.by_id(c, server.repo_id))
        assert repo is not None
        assert credentials.of(repo) is None


@pytest.mark.parametrize(
    ("credential", "sentence"),
    [
        (Credential(kind=Kind.TOKEN, value=" "), "is empty"),
        (Credential(kind=Kind.TOKEN, value="a b"), "no spaces"),
        (Credential(kind=Kind.PASSWORD, user="ci", value="a\nb"), "no line ends"),
        (Credential(kind=Kind.PASSWORD, value="x"), "needs its user"),
        (Credential(kind=Kind.PASSWORD, user="a:b", value="x"), "no colon"),
        (Credential(kind=Kind.TOKEN, value="x" * 20_000), "at most 16 KiB"),
    ],
)
def test_what_cannot_be_a_credential_is_refused_with_a_reason(credential: Credential, sentence: str) -> None:
    with pytest.raises(Invalid, match=sentence):
        check(credential)
    check(Credential(kind=Kind.PASSWORD, user="ci", value="correct horse, battery"))


# --- git by HTTP ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "is_safe"),
    [
        (GIT_URL, True),
        ("http://127.0.0.1:3000/x.git", True),
        ("http://git.example/x.git", False),
        ("http://127.0.0.1.evil.example/x.git", False),
    ],
)
async def test_a_credential_never_goes_over_the_network_in_clear(
    tmp_path: Path, url: str, is_safe: bool
) -> None:
    given = Credential(kind=Kind.PASSWORD, user="ci", value="hush")
    async with core(tmp_path) as server:
        await _is(server, forge="git", clone_url=url)
        if is_safe:
            await server.credentials.set(server.repo_id, given, ADA)
            assert server.credentials.login(await _is(server)) == ("ci", "hush")
            return
        with pytest.raises(Invalid, match="by https alone"):
            await server.credentials.set(server.repo_id, given, ADA)
        await _is(server, clone_url=GIT_URL)
        await server.credentials.set(server.repo_id, given, ADA)
        assert server.credentials.login(await _is(server, clone_url=url)) is None


async def test_the_built_in_git_takes_no_credential(tmp_path: Path) -> None:
    async with core(tmp_path) as server:
        with pytest.raises(Invalid, match="needs no credential"):
            await server.credentials.set(server.repo_id, Credential(kind=Kind.TOKEN, value="x"), ADA)


def _fork() -> Event:
    return event().model_copy(update={"is_from_fork": True})


@pytest.mark.parametrize(
    ("is_private", "of", "login"),
    [
        (True, event(), ("x-access-token", "ghp_canary")),
        (False, event(), ("x-access-token", "ghp_canary")),
        (True, _fork(), ("x-access-token", "ghp_canary")),
        (False, _fork(), None),
    ],
)
async def test_a_job_clones_with_the_repos_token_and_a_stranger_of_a_public_repo_with_none(
    tmp_path: Path, is_private: bool, of: Event, login: tuple[str, str] | None
) -> None:
    async with core(tmp_path) as server:
        await _is(server, forge="github", clone_url=GIT_URL, is_private=is_private)
        await server.credentials.set(server.repo_id, Credential(kind=Kind.TOKEN, value="ghp_canary"), ADA)
        await server.build(spec(clone=CLONE), spec("plain"), of=of)
        first, second = await server.queue.take(await server.runner(), 2)
        assert first.credentials == login
        assert first.masks == (("ghp_canary",) if login else ())
        assert (second.credentials, second.masks) == (None, ())


async def test_a_job_whose_credential_cannot_be_opened_ends_with_the_reason(tmp_path: Path) -> None:
    async with core(tmp_path) as server:
        sealed = Vault(bytes([1]) * 32).seal(b"x", repos.credential_purpose(server.repo_id))
        await _is(server, forge="git", clone_url=GIT_URL, credential=sealed, credential_kind="token")
        build_id = await server.build(spec(clone=CLONE))
        assert await server.queue.take(await server.runner(), 1) == []
        (job,) = await server.jobs_of(build_id)
        assert job.status == Status.ERROR.value
        assert job.reason.startswith("the repo's credential cannot be opened, set it again in its settings: ")


@pytest.fixture
def forge(tmp_path: Path) -> Iterator[Forge]:
    (tmp_path / "forge").mkdir()
    forge = Forge(tmp_path / "forge")
    yield forge
    forge.close()


async def test_the_server_fetches_from_a_repository_that_wants_a_password(
    forge: Forge, tmp_path: Path
) -> None:
    (forge.work / ".ci.yml").write_text("steps: {}\n")
    sha = forge.commit()
    url = forge.url
    repo = Repo(id=3, forge="git", forge_key=url, owner="a", name="b", clone_url=url, created_at=1.0)
    logins: list[tuple[str, str] | None] = [None, ("ci", "wrong"), USER]
    plain = PlainGit(tmp_path / "cache", addresses=Addresses("127.0.0.1"), login_of=lambda repo: logins[0])
    with pytest.raises(Forbidden, match="asks for a user and a password"):
        await plain.tip(repo, "refs/heads/main")
    logins.pop(0)
    repo.credential_kind = "password"
    with pytest.raises(Forbidden, match="does not take the repo's credential") as refusal:
        await plain.tip(repo, "refs/heads/main")
    assert "wrong" not in str(refusal.value)
    logins.pop(0)
    assert await plain.tip(repo, "refs/heads/main") == sha
    assert await plain.read_config(repo, event(after=sha)) == {".ci.yml": "steps: {}\n"}
    kept = [path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert kept and not any(USER[1].encode() in data for data in kept)
