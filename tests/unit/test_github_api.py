"""The client of GitHub's API, against a GitHub that speaks it over HTTP and misbehaves when told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ci.errors import Forbidden, NotFound, RateLimited, Unavailable
from ci.server.clock import Clock
from ci.server.forges import github_api
from ci.server.forges.github_api import GitHubApi, RateLimits
from tests.fake_github import TOKEN, FakeGitHub, Pull, Repo, rate_limited


class StoppedClock(Clock):
    def __init__(self) -> None:
        self.time = 1_000_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


@pytest.fixture
async def github() -> AsyncIterator[FakeGitHub]:
    async with FakeGitHub().serving() as fake:
        yield fake


@pytest.fixture
def clock() -> StoppedClock:
    return StoppedClock()


@pytest.fixture
async def api(github: FakeGitHub, clock: StoppedClock) -> AsyncIterator[GitHubApi]:
    async with httpx.AsyncClient() as client:
        yield GitHubApi(api_url=github.url, token=TOKEN, client=client, limits=RateLimits(clock))


@pytest.fixture
def repo(github: FakeGitHub) -> Repo:
    repo = github.repo(7)
    repo.commit("refs/heads/main", {".ci.yml": "steps: {}\n", "src/a b.py": "1"}, "First\n\nMore.")
    return repo


def _answering(answer: Response) -> object:
    async def misbehave(_: Request) -> Response:
        return answer

    return misbehave


async def test_a_repo_is_found_by_its_name_also_by_an_old_one_and_by_its_id(
    api: GitHubApi, github: FakeGitHub, repo: Repo
) -> None:
    assert (await api.repo_named("Ada", "app")).key == "7"
    github.rename(repo, "ada", "application")
    for facts in (await api.repo_named("ada", "app"), await api.repo("7")):
        assert (facts.key, facts.owner, facts.name, facts.default_branch) == (
            "7",
            "ada",
            "application",
            "main",
        )
    with pytest.raises(NotFound):
        await api.repo("8")


async def test_refs_commits_and_what_changed_between_them(api: GitHubApi, repo: Repo) -> None:
    first = repo.refs["refs/heads/main"]
    second = repo.commit("refs/heads/main", {".ci.yml": "steps: {}\n", "src/a b.py": "2", "new": ""})
    assert await api.ref("7", "refs/heads/main") == second
    assert await api.ref("7", "refs/heads/none") is None
    found = await api.commit("7", first)
    assert (found.message, found.author, found.timestamp_seconds) == ("First\n\nMore.", "Ada", 1767323045)
    assert await api.changed_files("7", first, second) == ("new", "src/a b.py")
    assert await api.changed_files("7", "0" * 40, second) is None


async def test_files_and_folders_at_a_commit(api: GitHubApi, repo: Repo) -> None:
    sha = repo.commit(
        "refs/heads/x", {".ci/a.yml": "a", ".ci/b.yml": "bb", ".ci/deep/c.yml": "c", "z": "\x00"}
    )
    assert await api.folder("7", sha, ".ci/") == {".ci/a.yml": 1, ".ci/b.yml": 2}
    assert await api.folder("7", sha, "") == {"z": 1}
    assert await api.folder("7", sha, "nowhere") == await api.folder("7", sha, "z") == {}
    assert await api.file("7", sha, "z") == b"\x00"
    assert await api.file("7", sha, "none") is None


async def test_a_pull_request_with_its_files(api: GitHubApi, repo: Repo) -> None:
    repo.pulls[3] = Pull(number=3, head=repo.refs["refs/heads/main"], files=[f"f{n}" for n in range(250)])
    assert (await api.pull_request("7", 3))["head"]["sha"] == repo.refs["refs/heads/main"]
    assert len(await api.pull_request_files("7", 3) or ()) == 250
    repo.pulls[3].files += ["g"] * 100
    assert await api.pull_request_files("7", 3) is None


async def test_a_status_is_set(api: GitHubApi, repo: Repo) -> None:
    sha = repo.refs["refs/heads/main"]
    await api.set_status(
        "7", sha, state="success", context="shipway/push/ci", description="passed", target_url="http://x/1"
    )
    assert repo.statuses == [
        {
            "sha": sha,
            "state": "success",
            "context": "shipway/push/ci",
            "description": "passed",
            "target_url": "http://x/1",
        }
    ]


async def test_a_revoked_token_is_said_and_never_shown(
    api: GitHubApi, github: FakeGitHub, repo: Repo
) -> None:
    github.tokens.clear()
    with pytest.raises(Forbidden, match="revoked or has expired") as refusal:
        await api.repo("7")
    github.misbehave = _answering(Response(f'{{"message": "no {TOKEN}"}}', 403))  # type: ignore[assignment]
    with pytest.raises(Forbidden, match=r"no \*\*\*") as second:
        await api.repo("7")
    assert TOKEN not in f"{refusal.value}{second.value}"


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (rate_limited(seconds=30, status=429), 30),
        (rate_limited(reset_at=1_000_090.0), 90),
        (Response('{"message": "You have exceeded a secondary rate limit"}', 403), 60),
    ],
)
async def test_a_rate_limit_is_waited_for_without_asking_again(
    api: GitHubApi, github: FakeGitHub, clock: StoppedClock, repo: Repo, answer: Response, seconds: float
) -> None:
    github.misbehave = _answering(answer)  # type: ignore[assignment]
    with pytest.raises(RateLimited) as limit:
        await api.repo("7")
    assert limit.value.retry_seconds == seconds
    github.misbehave = None
    clock.time += seconds - 1
    with pytest.raises(RateLimited):
        await api.repo("7")
    assert len(github.seen) == 1
    clock.time += 1
    assert (await api.repo("7")).key == "7"


async def test_what_is_down_slow_or_nonsense_is_for_now(
    api: GitHubApi, github: FakeGitHub, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    github.misbehave = _answering(Response("oops", 502))  # type: ignore[assignment]
    with pytest.raises(Unavailable, match="answers with 502"):
        await api.repo("7")
    github.misbehave = _answering(Response("<html>", 200))  # type: ignore[assignment]
    with pytest.raises(Unavailable, match="no JSON"):
        await api.repo("7")
    never = asyncio.Event()

    async def hang(_: Request) -> Response:
        await never.wait()
        return Response()

    monkeypatch.setattr(github_api, "TIMEOUT_SECONDS", 0.1)
    github.misbehave = hang
    with pytest.raises(Unavailable, match="did not answer"):
        await api.repo("7")
    never.set()


async def test_a_token_follows_no_redirect_to_another_host(
    api: GitHubApi, github: FakeGitHub, repo: Repo
) -> None:
    async with FakeGitHub().serving() as other:
        github.misbehave = _answering(RedirectResponse(f"{other.url}/repositories/7", 307))  # type: ignore[assignment]
        with pytest.raises(Unavailable, match="another host"):
            await api.repo("7")
        assert other.seen == []


async def test_a_host_that_is_not_there_is_named(clock: StoppedClock, tmp_path: Path) -> None:
    async with httpx.AsyncClient() as client:
        api = GitHubApi(api_url="http://127.0.0.1:9", token=TOKEN, client=client, limits=RateLimits(clock))
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1 cannot be reached"):
            await api.repo("7")
