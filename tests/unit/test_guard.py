"""Who asks, and may they: cookies, Origin, the forms' tokens, Bearer, the headers of every answer."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from ci.server.store import codes
from tests.scene import PASSWORD, Done, Scene, send, sign_in
from web.attempts import Attempts
from web.login import local_path


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    scene = Scene(tmp_path)
    await scene.open()
    yield scene
    await scene.close()


async def _csrf(client: httpx.AsyncClient, page: str = "/sign-in") -> str:
    found = re.search(r'name="csrf" value="([0-9a-f]+)"', (await client.get(page)).text)
    assert found is not None
    return found[1]


async def test_the_session_cookie_is_out_of_reach_of_scripts_and_other_sites(scene: Scene) -> None:
    await scene.user()
    async with scene.client(url="https://ci.example.org") as client:
        answer = await send(client, "/sign-in", name="ada", password=PASSWORD)
    cookie = next(c for c in answer.headers.get_list("set-cookie") if c.startswith("__Host-shipway_session="))
    assert {"HttpOnly", "Secure", "SameSite=lax"} <= {part.strip() for part in cookie.split(";")}


async def test_a_form_needs_our_origin_and_its_token(scene: Scene) -> None:
    await scene.user()
    async with scene.client() as client:
        token = await _csrf(client)
        fields = {"csrf": token, "name": "ada", "password": PASSWORD}
        own = {"origin": "http://127.0.0.1:8000"}
        assert (await client.post("/sign-in", data=fields)).status_code == 403
        foreign = {"origin": "https://evil.example"}
        assert (await client.post("/sign-in", data=fields, headers=foreign)).status_code == 403
        wrong = {**fields, "csrf": "0" * 80}
        assert (await client.post("/sign-in", data=wrong, headers=own)).status_code == 403
        assert (await client.post("/sign-in", data=fields, headers=own)).status_code == 303


async def test_a_token_of_one_visitor_is_worth_nothing_to_another(scene: Scene) -> None:
    await scene.user()
    async with scene.client() as one, scene.client() as other:
        token = await _csrf(one)
        await _csrf(other)
        fields = {"csrf": token, "name": "ada", "password": PASSWORD}
        own = {"origin": "http://127.0.0.1:8000"}
        assert (await other.post("/sign-in", data=fields, headers=own)).status_code == 403


async def test_a_bearer_token_needs_no_form_token_and_a_wrong_one_is_refused(scene: Scene) -> None:
    token = await scene.user()
    async with scene.client(token) as client:
        assert (await client.post("/api/runners/code")).status_code == 201
    async with scene.client("shipway_wrong") as client:
        answer = await client.get("/api/runners")
        assert answer.status_code == 401
        assert answer.json()["code"] == "unauthenticated"


async def test_json_of_another_site_is_refused_even_with_the_cookie(scene: Scene) -> None:
    await scene.user()
    async with scene.client() as client:
        await sign_in(client)
        foreign = {"origin": "https://evil.example"}
        assert (await client.post("/api/runners/code", json={}, headers=foreign)).status_code == 403
        # What a form of another site can send: text that looks like JSON.
        plain = {**foreign, "content-type": "text/plain"}
        assert (await client.post("/api/runners/code", content="{}", headers=plain)).status_code == 403


@pytest.mark.parametrize("body", [b"[" * 60_000, b'{"a":' * 10_000, b'{"name": "\\ud800"}', b"\xff", b"[]"])
async def test_hostile_json_is_refused_in_words(scene: Scene, body: bytes) -> None:
    await scene.user()
    async with scene.client() as client:
        answer = await client.post("/sign-in", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400


@pytest.mark.parametrize("path", ["/", "/sign-in", "/nothing", "/api/builds", "/r/ada/app"])
async def test_every_answer_carries_the_headers_that_keep_it_safe(scene: Scene, path: str) -> None:
    await scene.user()
    async with scene.client() as client:
        headers = (await client.get(path)).headers
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"


async def test_pages_hold_no_inline_script_or_style(scene: Scene) -> None:
    await scene.user()
    repo = await scene.repo("ada", "app")
    await scene.build(repo, [("ci", [Done(name="test", log=b"\x1b[31mred\x1b[0m\n")])])
    async with scene.client() as client:
        await sign_in(client)
        for path in ("/", "/r/ada/app", "/r/ada/app/1", "/runners", "/account"):
            text = (await client.get(path)).text
            assert not re.search(r"\sstyle=|<style|\son\w+=|javascript:", text), path
            assert re.findall(r"<script(?![^>]* src=)", text) == []


async def test_the_first_account_is_made_by_the_printed_code_once(scene: Scene) -> None:
    code = await scene.store.write(lambda c: codes.new_code(c, codes.SETUP, scene.clock.now()))
    async with scene.client() as client:
        assert (await client.get("/")).headers["location"] == "/setup"
        token = await _csrf(client, "/setup")
        own = {"origin": "http://127.0.0.1:8000"}
        fields = {"csrf": token, "code": "WRONG", "name": "ada", "password": PASSWORD}
        wrong = await client.post("/setup", data=fields, headers=own)
        assert wrong.status_code == 403 and "this code is wrong" in wrong.text
        made = await client.post("/setup", data={**fields, "code": code.lower()}, headers=own)
        assert made.status_code == 303
        assert (await client.get("/account")).status_code == 200
        assert (await client.get("/setup")).status_code == 404


async def test_a_program_sets_the_server_up_and_gets_a_token(scene: Scene) -> None:
    code = await scene.store.write(lambda c: codes.new_code(c, codes.SETUP, scene.clock.now()))
    async with scene.client() as client:
        body = {"code": code, "name": "ada", "password": PASSWORD}
        answer = await client.post("/api/setup", json=body)
        assert answer.status_code == 201
        bearer = {"authorization": f"Bearer {answer.json()['token']}"}
        assert (await client.get("/api/runners", headers=bearer)).status_code == 200
        assert (await client.post("/api/setup", json=body)).status_code == 404


async def test_after_many_wrong_passwords_even_the_right_one_waits(scene: Scene) -> None:
    await scene.user()
    async with scene.client() as client:
        for _ in range(Attempts.LIMIT):
            wrong = await send(client, "/sign-in", name="ada", password="wrong password")
            assert wrong.status_code == 401
        answer = await send(client, "/sign-in", name="ada", password=PASSWORD)
    assert answer.status_code == 429
    assert "too many wrong passwords or codes" in answer.text


async def test_signing_out_ends_the_session_on_the_server(scene: Scene) -> None:
    await scene.user()
    async with scene.client() as client:
        await sign_in(client)
        cookie = client.cookies["shipway_session"]
        await send(client, "/sign-out")
        client.cookies.set("shipway_session", cookie)
        assert (await client.get("/account")).status_code == 303


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("/r/ada/app/1?attempt=2", "/r/ada/app/1?attempt=2"),
        ("https://evil.example/", "/"),
        ("//evil.example/", "/"),
        ("/\\evil.example/", "/"),
        ("/\nx", "/"),
        ("", "/"),
    ],
)
def test_a_link_leads_back_to_this_server_only(given: str, used: str) -> None:
    assert local_path(given) == used


async def test_an_unexpected_error_shows_an_id_and_nothing_else(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    await scene.user()
    async with scene.client() as client:
        await sign_in(client)
        await scene.store.write(lambda c: c.exec_driver_sql("ALTER TABLE runner RENAME TO gone"))
        answer = await client.get("/api/runners")
        assert answer.status_code == 500
        message = answer.json()["detail"]
    incident = message.rsplit(" ", 1)[1]
    assert "no such table" not in message and f"incident={incident}" in caplog.text
    await scene.store.write(lambda c: c.exec_driver_sql("ALTER TABLE gone RENAME TO runner"))
