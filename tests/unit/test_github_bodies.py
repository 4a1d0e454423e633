"""Real bodies of GitHub, and mutilated ones: each is news, or a sentence; never an exception of ours."""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ci.errors import Invalid
from ci.server.clock import Clock
from ci.server.forges.github import GitHub
from ci.server.forges.github_api import RateLimits
from ci.server.forges.news import Nothing, PullRequestNews, Push, ReleaseNews, RepoNews
from tests import npm
from tests.fake_github import Pull, Repo, pull_request_json, push_json
from tests.unit.github_world import KEY, Town, town

VERSIONS = ["api.github.com", *(f"ghes-3{minor}" for minor in range(1, 6))]


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Town]:
    async with town(tmp_path) as found:
        yield found


@pytest.fixture
async def github() -> AsyncIterator[GitHub]:
    async with httpx.AsyncClient() as client:
        yield GitHub(client=client, limits=RateLimits(Clock()), token_of=lambda repo: "")


def examples(version: str) -> list[tuple[str, Any]]:
    text = npm.file(f"@octokit/webhooks-examples/{version}/index.json").read_text()
    return [(kind["name"], example) for kind in json.loads(text) for example in kind["examples"]]


@pytest.mark.browser
@pytest.mark.parametrize("version", VERSIONS)
def test_every_real_body_is_news_or_a_sentence(github: GitHub, version: str) -> None:
    found = examples(version)
    assert len(found) > 40
    for word, example in found:
        headers = {"x-github-event": word, "x-github-delivery": "d"}
        delivery = github.delivery(headers, json.dumps(example).encode())
        assert delivery.repo_key == str(example.get("repository", {}).get("id", ""))
        news = github.news(word, "d", delivery.body)
        assert not isinstance(news, Nothing) or news.sentence
        if word == "push":
            assert isinstance(news, Push) and news.refs[0].after == example["after"]
        if word == "pull_request":
            assert isinstance(news, PullRequestNews)
            assert (news.number, news.head_sha) == (example["number"], example["pull_request"]["head"]["sha"])
            assert news.is_open == (example["pull_request"]["state"] == "open")
            is_built = example["action"] in {
                "opened",
                "synchronize",
                "reopened",
                "ready_for_review",
                "closed",
            }
            assert is_built == (not news.refusal)
        if word == "release":
            assert isinstance(news, ReleaseNews) == (example["action"] == "published")
        if word == "repository":
            assert isinstance(news, RepoNews | Nothing)


@pytest.mark.browser
async def test_every_real_body_ends_with_a_verdict_a_person_can_read(here: Town) -> None:
    for number, (word, example) in enumerate(examples("api.github.com")):
        body = copy.deepcopy(example) | {"repository": here.far.json()}
        answer = await here.send(_signed(word, body, here.secret, number))
        assert answer.status_code == 202, answer.text
        await here.server.inbox.process(answer.json()["delivery"])
        row = await here.row(answer.json()["delivery"])
        assert row.verdict and "internal error" not in row.verdict, (word, row.verdict)
        assert (row.state == "received") == row.verdict.startswith("not yet")


def _signed(word: str, body: dict[str, Any], secret: str, number: int) -> Any:
    from tests.fake_github import signed

    return signed(word, body, secret, delivery=f"example-{number}")


# --- mutilated bodies -----------------------------------------------------------------------------------


def whole() -> dict[str, dict[str, Any]]:
    repo = Repo(key=KEY, owner="ada", name="app")
    head = repo.commit("refs/heads/main", {".ci.yml": "x"})
    pull = pull_request_json(repo, Pull(number=7, head=head, labels=["a"]), "opened")
    more = {"repository": repo.json(), "sender": {"login": "ada", "id": 1}}
    release = {"tag_name": "v1", "target_commitish": "main", "name": "One", "prerelease": False}
    return {
        "push": push_json(repo, "refs/heads/main"),
        "pull_request": pull,
        "release": {"action": "published", "release": release, **more},
        "repository": {"action": "renamed", **more},
        "ping": {"hook": {"events": ["push"]}, **more},
        "star": {"action": "created", **more},
    }


WHOLE = whole()
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=50)
    | st.sampled_from(["", "0" * 40, "refs/heads/x", "\ud800", "\0", "closed", 1 << 70, -1, "../.."]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [
            place for key, inner in value.items() for place in [(*path, key), *places(inner, (*path, key))]
        ]
    if isinstance(value, list):
        return [
            place for key, inner in enumerate(value) for place in [(*path, key), *places(inner, (*path, key))]
        ]
    return []


@st.composite
def mutilated(draw: st.DrawFn) -> tuple[str, bytes]:
    word = draw(st.sampled_from(sorted(WHOLE)))
    body = copy.deepcopy(WHOLE[word])
    for _ in range(draw(st.integers(1, 4))):
        found = places(body)
        if not found:
            break
        *path, last = draw(st.sampled_from(found))
        inner: Any = body
        for key in path:
            inner = inner[key]
        if draw(st.booleans()):
            inner[last] = draw(VALUES)
        else:
            del inner[last]
    raw = json.dumps(body).encode()
    if draw(st.integers(0, 4)) == 0:
        at = draw(st.integers(0, len(raw)))
        raw = raw[:at] + draw(st.binary(max_size=4)) + raw[at + draw(st.integers(0, 3)) :]
    return word, raw


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mutilated())
async def test_a_mutilated_body_is_news_or_a_sentence(github: GitHub, made: tuple[str, bytes]) -> None:
    word, raw = made
    try:
        delivery = github.delivery({"x-github-event": word, "x-github-delivery": "d"}, raw)
        news = github.news(word, "d", delivery.body)
    except Invalid as error:
        assert str(error)
        return
    texts = json.dumps(asdict(news) if is_dataclass(news) else news.model_dump(), ensure_ascii=False)
    texts.encode()  # all of it can be stored
    assert "\0" not in texts
    if isinstance(news, PullRequestNews):
        head, base = (json.loads(raw)["pull_request"][side] for side in ("head", "base"))
        if not news.is_from_fork:
            assert head["repo"]["id"] == base["repo"]["id"]
