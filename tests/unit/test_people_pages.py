"""The pages of people: accounts, the account, members, audit; and their JSON twins."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from ci.server.store import audit, users
from tests.scene import PASSWORD, Scene, send, sign_in
from web.attempts import Attempts

CODE = re.compile(r"\b[0-9A-Z]{4}-[0-9A-Z]{4}-[0-9A-Z]{4}\b")


@dataclass
class Made:
    scene: Scene
    client: httpx.AsyncClient  #: a browser, signed in as the admin ada
    token: str  #: of ada


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Made]:
    scene = Scene(tmp_path)
    await scene.open()
    token = await scene.user("ada")
    await scene.repo("ada", "app")
    async with scene.client() as client:
        await sign_in(client)
        yield Made(scene, client, token)
    await scene.close()


def says(answer: httpx.Response) -> str:
    return html.unescape(re.sub(r"<[^>]+>", " ", answer.text))


async def test_an_admin_adds_a_person_who_sets_a_password_and_is_signed_in(made: Made) -> None:
    page = await send(made.client, "/admin/people", name="grace")
    (code,) = set(CODE.findall(page.text))
    assert f"/join#{code}" in page.text
    assert CODE.search((await made.client.get("/admin/people")).text) is None
    async with made.scene.client() as other:
        answer = await send(other, "/join", code="0000-0000-0000", password=PASSWORD)
        assert answer.status_code == 403 and "this code is wrong" in says(answer)
        answer = await send(other, "/join", code=code, password="short")
        assert answer.status_code == 400 and code in answer.text, "what was typed stands there again"
        answer = await send(other, "/join", code=code, password=PASSWORD)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        assert "grace" in says(await other.get("/account"))
        assert (await other.get("/admin/people")).status_code == 403


async def test_mistakes_on_the_page_of_people_are_said_on_it(made: Made) -> None:
    for name, sentence in (("Ada L", "cannot be a user name"), ("ada", "takes_over")):
        answer = await send(made.client, "/admin/people", name=name)
        assert answer.status_code in (400, 409) and sentence in says(answer)
        assert f'value="{name}"' in answer.text
    for path, fields in (("admin", {"is_admin": "false"}), ("disabled", {"is_disabled": "true"})):
        answer = await send(made.client, f"/admin/people/1/{path}", **fields)
        assert answer.status_code == 409 and "last admin" in says(answer)
    answer = await send(made.client, "/admin/people/1/delete", confirm="wrong")
    assert answer.status_code == 400 and "type that name" in says(answer)


async def test_programs_do_with_people_what_the_page_does(made: Made) -> None:
    async with made.scene.client(made.token) as client:
        invited = (await client.post("/api/people", json={"name": "grace", "is_admin": True})).json()
        assert invited["name"] == "grace" and CODE.fullmatch(invited["code"])
        assert invited["code"] not in invited["url"]
        person = f"/api/people/{invited['id']}"
        assert (await client.post(f"{person}/admin", json={"is_admin": False})).status_code == 204
        assert (await client.post(f"{person}/disabled", json={"is_disabled": True})).status_code == 204
        rows = (await client.get("/api/people")).json()["people"]
        row = next(row for row in rows if row["name"] == "grace")
        assert (row["is_admin"], row["is_disabled"], row["has_password"]) == (False, True, False)
        assert (await client.post(f"{person}/reset")).status_code == 201
        assert (await client.post(f"{person}/delete")).status_code == 204
        assert (await client.post(f"{person}/delete")).status_code == 404
        deeds = [row["action"] for row in (await client.get("/api/audit?action=person")).json()["audit"]]
    assert deeds == [
        "person.delete",
        "person.reset_password",
        "person.disable",
        "person.unmake_admin",
        "person.create",
    ]


async def test_a_code_sets_a_password_also_by_json(made: Made) -> None:
    async with made.scene.client(made.token) as client:
        code = (await client.post("/api/people", json={"name": "grace"})).json()["code"]
    async with made.scene.client() as client:
        body = {"code": code, "password": PASSWORD}
        assert (await client.post("/api/join", json=body)).json() == {"user": "grace"}
        assert (await client.post("/api/join", json=body)).status_code == 403
        await sign_in(client, "grace")


async def test_the_account_page_shows_sessions_and_ends_them(made: Made) -> None:
    async with made.scene.client() as other:
        other.headers["user-agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
        await sign_in(other)
        page = says(await made.client.get("/account"))
        assert "Firefox on Linux" in page and "this one" in page
        await send(made.client, "/account/sessions/2/revoke")
        assert (await other.get("/account")).status_code == 303
        assert (await made.client.get("/account")).status_code == 200


async def test_all_other_sessions_are_ended_at_once(made: Made) -> None:
    async with made.scene.client() as one, made.scene.client() as two:
        await sign_in(one)
        await sign_in(two)
        assert (await send(made.client, "/account/sessions/revoke-others")).status_code == 303
        assert [(await client.get("/account")).status_code for client in (one, two, made.client)] == [
            303,
            303,
            200,
        ]


async def test_a_password_is_changed_with_the_old_one(made: Made) -> None:
    wrong = await send(made.client, "/account/password", old="wrong horse", new="a new password")
    assert wrong.status_code == 403 and "present password is wrong" in says(wrong)
    short = await send(made.client, "/account/password", old=PASSWORD, new="short")
    assert short.status_code == 400
    done = await send(made.client, "/account/password", old=PASSWORD, new="a new password")
    assert done.status_code == 200 and "is changed" in says(done)
    for _ in range(Attempts.LIMIT):
        await send(made.client, "/account/password", old="wrong horse", new="a new password")
    answer = await send(made.client, "/account/password", old="a new password", new=PASSWORD)
    assert answer.status_code == 429


async def test_a_token_says_what_it_may_when_it_ends_and_when_it_was_used(made: Made) -> None:
    answer = await send(made.client, "/account/tokens", name="laptop")
    assert answer.status_code == 400 and "at least one scope" in says(answer)
    answer = await send(made.client, "/account/tokens", name="laptop", scopes="read", days="7")
    token = re.search(r"shipway_[\w-]{40,}", answer.text)
    assert token is not None
    async with made.scene.client(token[0]) as client:
        whoami = (await client.get("/api/account")).json()
        assert whoami == {"user": "ada", "is_admin": True, "scopes": ["read"]}
        assert (await client.get("/api/repos/ada/app")).status_code == 200
        refused = await client.post("/api/runners/code")
        assert refused.status_code == 403
        assert "this token may not manage runners: its scopes are read" in refused.text
        assert (await client.get("/api/account/tokens")).status_code == 403
    async with made.scene.client(made.token) as client:
        row = (await client.get("/api/account/tokens")).json()["tokens"][1]
        assert row["scopes"] == ["read"] and row["used_at"] is not None
        assert row["expires_at"] == pytest.approx(row["created_at"] + 7 * 86400)
        body = {"name": "more", "scopes": ["read", "write"], "days": "never"}
        assert (await client.post("/api/account/tokens", json=body)).status_code == 201
        for wrong in ({"scopes": ["root"]}, {"days": "soon"}):
            assert (await client.post("/api/account/tokens", json={**body, **wrong})).status_code == 400


async def test_members_are_added_changed_and_removed(made: Made) -> None:
    await made.scene.user("grace", is_admin=False)
    unknown = await send(made.client, "/r/ada/app/members", name="nobody", role="read")
    assert unknown.status_code == 404 and "no account 'nobody'" in says(unknown)
    await send(made.client, "/r/ada/app/members", name="grace", role="read")
    async with made.scene.client() as grace:
        await sign_in(grace, "grace")
        assert (await grace.get("/r/ada/app")).status_code == 200
        assert "ada/app" in (await grace.get("/repos")).text
        assert (await grace.get("/r/ada/app/members")).status_code == 403
        await send(made.client, "/r/ada/app/members", name="grace", role="admin")
        page = says(await grace.get("/r/ada/app/members"))
        assert "owner of ada/" in page and "admin of this server" in page and "given here" in page
        await send(made.client, "/r/ada/app/members/grace/remove")
        assert (await grace.get("/r/ada/app")).status_code == 404
        assert "ada/app" not in (await grace.get("/repos")).text


async def test_members_by_json(made: Made) -> None:
    await made.scene.user("grace", is_admin=False)
    async with made.scene.client(made.token) as client:
        address = "/api/repos/ada/app/members"
        assert (await client.post(address, json={"name": "grace", "role": "write"})).status_code == 204
        assert (await client.post(address, json={"name": "grace", "role": "king"})).status_code == 400
        found = {row["name"]: row for row in (await client.get(address)).json()["members"]}
        assert (found["grace"]["role"], found["grace"]["is_given"]) == ("write", True)
        assert (await client.post(f"{address}/grace/remove")).status_code == 204
        assert (await client.post(f"{address}/grace/remove")).status_code == 404
        rows = (await client.get("/api/repos/ada/app/audit")).json()["audit"]
        assert [row["action"] for row in rows] == ["member.remove", "member.set"]


async def test_the_audit_page_filters_and_goes_on(made: Made) -> None:
    def many(c) -> None:  # type: ignore[no-untyped-def]
        for number in range(120):
            deed = audit.Deed(action="secret.set", object=f"name {number}")
            audit.note(c, users.actor_of(c, users.named(c, "ada")), deed, 1.0)

    await made.scene.store.write(many)
    first = await made.client.get("/admin/audit?action=secret")
    assert "name 119" in first.text and "name 69" not in first.text
    older = re.search(r'rel="next" href="([^"]+)"', first.text)
    assert older is not None
    second = await made.client.get(html.unescape(older[1]))
    assert "name 69" in second.text and "name 70" not in second.text
    assert "Nothing matches" in says(await made.client.get("/admin/audit?who=nobody"))
    assert "session.open" in (await made.client.get("/admin/audit?action=session")).text


async def test_wrong_passwords_are_in_the_audit_log_once_and_never_what_was_typed(made: Made) -> None:
    async with made.scene.client() as other:
        for name in ("ada", "ada", "my secret password"):
            await send(other, "/sign-in", name=name, password="wrong horse")
    rows = await made.scene.store.read(lambda c: audit.latest(c))
    refused = [row for row in rows if row.action == "session.refuse"]
    assert [(row.object, row.user_name, row.address) for row in refused] == [("ada", "", "127.0.0.1")]
    async with made.scene.client() as other:
        await send(other, "/sign-in", name="hunter2", password="wrong horse")
    assert "hunter2" not in str([vars(row) for row in rows])


async def test_what_is_done_to_runners_is_in_the_audit_log(made: Made) -> None:
    await made.scene.runner("r1")
    await send(made.client, "/runners/code")
    await send(made.client, "/runners/1/drain")
    async with made.scene.client(made.token) as client:
        await client.post("/api/runners/code")
    rows = await made.scene.store.read(lambda c: audit.latest(c, wanted=audit.Wanted(action="runner")))
    assert [(row.action, row.object) for row in rows] == [
        ("runner.code", ""),
        ("runner.drain", "r1"),
        ("runner.code", ""),
    ]
