"""The URL table: every route has a policy, and nobody passes it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from tests.scene import Done, Scene, send, sign_in
from web.guard import Policy
from web.routes import Doors, Entry, table


class _Anything:
    def __getattr__(self, name: str) -> Any:
        return _Anything()


_NAMES = (
    "pages",
    "build",
    "login",
    "assets",
    "live_log",
    "live_topics",
    "metrics",
    "queue",
    "secrets",
    "runners",
    "description",
)
TABLE = table(Doors(**dict.fromkeys(_NAMES, cast("Any", _Anything()))))
PAGES = [entry for entry in TABLE if entry.kind == "page"]


def path_of(entry: Entry) -> str:
    """A path of the private repo ada/app with its build 1."""
    values = {"owner": "ada", "name": "app", "number": "1", "job": "ci", "step": "test", "id": "1"}
    values["secret"] = "token"
    return re.sub(r"{(\w+)(?::\w+)?}", lambda match: values[match[1]], entry.path)


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


def test_what_writes_is_never_a_get() -> None:
    readable = {Policy.PUBLIC, Policy.READ, Policy.SETUP, Policy.SIGNED_IN, Policy.SEE_RUNNERS}
    writers = [entry for entry in PAGES if entry.policy not in readable and "GET" in entry.methods]
    # Who may run a repo's builds may also read what came in.
    names_only = ("/r/{owner}/{name}/inbox", "/secrets")
    assert [entry.path for entry in writers if not entry.path.endswith(names_only)] == []


def test_each_thing_that_can_be_done_is_for_those_who_may() -> None:
    """Written down a second time on purpose: a policy is never changed by a slip."""
    assert {entry.path: entry.policy for entry in PAGES if entry.methods == ("POST",)} == {
        "/r/{owner}/{name}/{number:int}/cancel": Policy.RUN,
        "/r/{owner}/{name}/{number:int}/rerun": Policy.RUN,
        "/r/{owner}/{name}/{number:int}/{job}/resolve": Policy.RUN,
        "/runners/code": Policy.MANAGE_RUNNERS,
        "/runners/{id:int}/drain": Policy.MANAGE_RUNNERS,
        "/r/{owner}/{name}/secrets": Policy.ADMINISTER,
        "/r/{owner}/{name}/secrets/{secret}/remove": Policy.ADMINISTER,
        "/o/{owner}/secrets": Policy.ADMINISTER_OWNER,
        "/o/{owner}/secrets/{secret}/remove": Policy.ADMINISTER_OWNER,
        "/admin/secrets": Policy.MANAGE_SERVER,
        "/admin/secrets/{secret}/remove": Policy.MANAGE_SERVER,
        "/setup": Policy.SETUP,
        "/sign-in": Policy.PUBLIC,
        "/sign-out": Policy.SIGNED_IN,
        "/account/tokens": Policy.SIGNED_IN,
        "/account/tokens/{id:int}/revoke": Policy.SIGNED_IN,
        "/theme": Policy.PUBLIC,
        "/api/setup": Policy.SETUP,
        "/api/repos/{owner}/{name}/builds/{number:int}/cancel": Policy.RUN,
        "/api/repos/{owner}/{name}/builds/{number:int}/rerun": Policy.RUN,
        "/api/runners/code": Policy.MANAGE_RUNNERS,
        "/api/runners/{id:int}/pause": Policy.MANAGE_RUNNERS,
        "/api/runners/{id:int}/drain": Policy.MANAGE_RUNNERS,
        "/api/runners/{id:int}/resume": Policy.MANAGE_RUNNERS,
        "/api/runners/{id:int}/remove": Policy.MANAGE_RUNNERS,
    }


def test_what_is_of_a_repo_needs_that_repo() -> None:
    of_a_repo = {Policy.READ, Policy.RUN, Policy.APPROVE, Policy.ADMINISTER, Policy.ADMINISTER_OWNER}
    assert all((entry.policy in of_a_repo) == ("{owner}" in entry.path) for entry in TABLE)


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
        assert answer.status_code in (200, 303, 401, 404)
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
        if "{owner}" in entry.path:
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
