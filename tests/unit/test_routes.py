"""The URL table: every route has a policy, and nobody passes it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.scene import Done, Scene, send, sign_in
from tests.walk import entries, is_of_a_repo, path_of
from web.guard import Policy
from web.routes import Entry

TABLE = entries()
PAGES = [entry for entry in TABLE if entry.kind == "page"]


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    scene = Scene(tmp_path)
    await scene.open()
    await scene.user()
    await scene.user("eve", is_admin=False)
    repo = await scene.repo("ada", "app")
    await scene.build(repo, [("ci", [Done(name="test", log=b"one\n")])])
    yield scene
    await scene.close()


def test_every_route_names_its_policy_and_no_path_is_there_twice() -> None:
    assert all(isinstance(entry.policy, Policy) for entry in TABLE)
    keys = [(entry.path, method) for entry in TABLE for method in entry.methods or ("-",)]
    assert len(keys) == len(set(keys))


def test_what_is_of_a_repo_needs_that_repo() -> None:
    assert all(is_of_a_repo(entry) == ("{owner}/{name}" in entry.path) for entry in TABLE)


async def _ask(client: httpx.AsyncClient, entry: Entry) -> httpx.Response:
    path = path_of(entry)
    if entry.methods == ("GET",):
        return await client.get(path)
    if entry.methods != ("POST",):
        return await client.request(entry.methods[0], path, json={"value": "a long enough value"})
    return await send(client, path)


@pytest.mark.parametrize("entry", PAGES, ids=lambda entry: f"{entry.methods[0]} {entry.path}")
async def test_nobody_gets_what_the_policy_says(scene: Scene, entry: Entry) -> None:
    async with scene.client() as client:
        answer = await _ask(client, entry)
    is_open = entry.policy is Policy.PUBLIC
    if entry.policy is Policy.SETUP:
        assert answer.status_code == 404, "the server is set up"
    elif is_open:
        assert answer.status_code in (200, 303, 400, 401, 404)
        assert "ada/app" not in answer.text
    elif entry.path.startswith(("/api/", "/metrics")) or entry.methods == ("POST",):
        assert answer.status_code == 401
    else:
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/sign-in?next=")


@pytest.mark.parametrize("entry", PAGES, ids=lambda entry: f"{entry.methods[0]} {entry.path}")
async def test_somebody_else_cannot_tell_a_private_repo_from_none(scene: Scene, entry: Entry) -> None:
    async with scene.client() as client:
        await sign_in(client, "eve")
        answer = await _ask(client, entry)
        if is_of_a_repo(entry):
            assert answer.status_code == 404
            there_is_none = answer.text.replace("ada/app", "ada/none").replace("ada%2Fapp", "ada%2Fnone")
            other = Entry(
                path=entry.path.replace("{name}", "none"),
                endpoint=entry.endpoint,
                policy=entry.policy,
                methods=entry.methods,
            )
            missing = await _ask(client, other)
            assert missing.status_code == 404
            assert _without_tokens(missing.text) == _without_tokens(there_is_none)
        elif entry.policy is Policy.MANAGE_RUNNERS:
            assert answer.status_code == 403


def _without_tokens(text: str) -> str:
    return re.sub(r'value="[0-9a-f]{80}"|content="[0-9.]+"', "", text)


async def test_an_address_that_is_none_is_404_and_a_wrong_method_405(scene: Scene) -> None:
    async with scene.client() as client:
        assert (await client.get("/nothing/here")).status_code == 404
        assert (await client.get("/api/nothing")).json()["code"] == "not_found"
        assert (await client.delete("/api/builds")).status_code == 405
