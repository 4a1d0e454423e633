"""Tokens by every door: scopes, their end, and accounts that are disabled."""

from __future__ import annotations

import base64

import pytest

from ci.server.auth import Scope
from ci.server.store import tokens, users
from ci.server.store.tokens import NewToken
from tests.unit.world import HeldClock
from tests.walk import Town


async def token_of(here: Town, name: str, *scopes: Scope, days: int | None = 90) -> str:
    now = here.scene.clock.now()
    new = NewToken(name="t", scopes=frozenset(scopes), days=days)
    return await here.scene.store.write(lambda c: tokens.add_token(c, users.named(c, name).id or 0, new, now))


async def git(here: Town, token: str, service: str, repo: str = "app") -> tuple[int, str]:
    pair = base64.b64encode(f"x:{token}".encode()).decode()
    async with here.visit(here.real(), "anonymous") as client:
        path = f"/git/ada/{repo}.git/info/refs?service=git-{service}"
        answer = await client.get(path, headers={"authorization": f"Basic {pair}"})
    return answer.status_code, answer.text


async def api(here: Town, token: str, method: str, path: str) -> tuple[int, str]:
    async with here.visit(here.real(), "anonymous") as client:
        answer = await client.request(method, path, headers={"authorization": f"Bearer {token}"})
    return answer.status_code, answer.text


async def test_git_honours_the_scopes_of_a_token(here: Town) -> None:
    reading, writing = await token_of(here, "ada", Scope.READ), await token_of(here, "ada", Scope.WRITE)
    assert (await git(here, reading, "upload-pack"))[0] == 200
    status, words = await git(here, reading, "receive-pack")
    assert status == 403 and "this token may not push: its scopes are read" in words
    assert (await git(here, reading, "receive-pack", "new"))[0] == 403, "nor make a repo"
    assert (await git(here, writing, "receive-pack"))[0] == 200
    assert (await git(here, writing, "receive-pack", "new"))[0] == 200, "the first push makes it"


@pytest.mark.parametrize(
    ("scope", "method", "path", "status"),
    [
        (Scope.READ, "GET", "/api/repos/ada/app", 200),
        (Scope.READ, "POST", "/api/repos/ada/app/builds/1/rerun", 403),
        (Scope.READ, "GET", "/api/repos/ada/app/members", 403),
        (Scope.READ, "POST", "/api/account/tokens", 403),
        (Scope.READ, "GET", "/api/people", 403),
        (Scope.WRITE, "GET", "/api/repos/ada/app", 404),
        (Scope.WRITE, "GET", "/api/repos/ada/site", 200),
        (Scope.WRITE, "GET", "/api/runners", 403),
        (Scope.WRITE, "GET", "/api/people", 403),
        (Scope.ADMIN, "GET", "/api/people", 200),
        (Scope.ADMIN, "GET", "/api/repos/ada/app/members", 200),
        (Scope.ADMIN, "GET", "/api/repos/ada/app", 404),
    ],
)
async def test_scopes_bound_what_even_an_admin_may(
    here: Town, scope: Scope, method: str, path: str, status: int
) -> None:
    token = await token_of(here, "root", scope)
    assert (await api(here, token, method, path))[0] == status


async def test_a_token_without_read_lists_only_what_is_public(here: Town) -> None:
    token = await token_of(here, "root", Scope.ADMIN)
    _, text = await api(here, token, "GET", "/api/builds")
    assert "ada/site" in text and "ada/app" not in text


async def test_a_token_that_expired_gets_401_and_a_sentence(here: Town) -> None:
    token = await token_of(here, "ada", Scope.READ, days=1)
    clock = here.scene.clock
    assert isinstance(clock, HeldClock)
    clock.seconds += 86400
    for status, text in (
        await api(here, token, "GET", "/api/repos/ada/app"),
        await api(here, token, "GET", "/api/repos/ada/site"),
        await git(here, token, "upload-pack"),
    ):
        assert status == 401 and "this token expired on" in text


async def test_a_token_of_a_disabled_account_is_dead_at_once(here: Town) -> None:
    token = await token_of(here, "writer", Scope.READ, Scope.WRITE)
    assert (await git(here, token, "receive-pack"))[0] == 200
    await here.scene.store.write(lambda c: users.set_disabled(c, users.named(c, "writer").id or 0, True))
    for status, text in (
        await api(here, token, "GET", "/api/repos/ada/app"),
        await git(here, token, "upload-pack"),
        await git(here, token, "receive-pack"),
    ):
        assert status == 401 and "disabled" in text


async def test_a_cookie_cannot_be_used_as_a_token_nor_a_token_as_a_cookie(here: Town) -> None:
    assert (await api(here, here.cookies["ada"], "GET", "/api/repos/ada/app"))[0] == 401
    async with here.visit(here.real(), "anonymous") as client:
        client.cookies.set("shipway_session", here.tokens["ada"])
        assert (await client.get("/account")).status_code == 303
