"""The pages and the API of secrets: set, listed, removed, and never shown."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from ci.server.store import audit, repos, variables
from ci.server.store import secrets as rows
from tests.scene import Scene, send, sign_in

CANARY = "canary-4711-value"
JSON = {"content-type": "application/json"}


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    scene = Scene(tmp_path)
    await scene.open()
    yield scene
    await scene.close()


async def _put(client: httpx.AsyncClient, path: str, **body: object) -> httpx.Response:
    return await client.put(path, json=body)


async def test_a_secret_is_set_listed_and_removed_by_a_form_and_never_shown(scene: Scene) -> None:
    await scene.user()
    await scene.repo("ada", "app")
    async with scene.client() as client:
        await sign_in(client)
        assert "No secret yet" in (await client.get("/r/ada/app/secrets")).text
        answer = await send(
            client, "/r/ada/app/secrets", name="Deploy_Key", value=CANARY, images="example/ssh, x", steps=""
        )
        assert answer.status_code == 303
        page = (await client.get("/r/ada/app/secrets")).text
        assert "deploy_key" in page
        assert "plugins of docker.io/example/ssh, docker.io/library/x" in page
        assert CANARY not in page
        wrong = await send(client, "/r/ada/app/secrets", name="a b", value=CANARY)
        assert wrong.status_code == 400
        assert "cannot be the name of a secret" in wrong.text
        assert CANARY not in wrong.text
        assert (await send(client, "/r/ada/app/secrets/deploy_key/remove")).status_code == 303
        assert "No secret yet" in (await client.get("/r/ada/app/secrets")).text


async def test_programs_set_the_secrets_of_a_repo_an_owner_and_the_server(scene: Scene) -> None:
    token = await scene.user()
    await scene.repo("ada", "app")
    async with scene.client(token) as client:
        for base in ("/api/repos/ada/app/secrets", "/api/owners/ada/secrets", "/api/secrets"):
            answer = await _put(client, f"{base}/token", value="abc", events=["push"])
            assert answer.status_code == 200
            assert "not masked in logs" in answer.json()["warning"]
            (row,) = (await client.get(base)).json()["secrets"]
            assert (row["name"], row["events"], row["is_weak"]) == ("token", ["push"], True)
            assert "value" not in row
            assert (await client.delete(f"{base}/token")).status_code == 204
            assert (await client.delete(f"{base}/token")).status_code == 404
        page = (await client.get("/r/ada/app/secrets", headers={"accept": "text/html"})).text
        assert "No secret yet" in page


async def test_a_line_end_that_a_terminal_adds_is_no_part_of_the_value(scene: Scene) -> None:
    token = await scene.user()
    async with scene.client(token) as client:
        for value, kept in (("one-line-value\n", "one-line-value"), ("two\nlines\n", "two\nlines\n")):
            await _put(client, "/api/secrets/token", value=value)
            secrets = scene.parts().secrets
            row = await scene.store.read(lambda c: _row(c))
            assert secrets._open(row) == kept


def _row(connection):  # type: ignore[no-untyped-def]
    return rows.find(connection, rows.SERVER, "token")


async def test_others_cannot_even_see_the_names(scene: Scene) -> None:
    await scene.user()
    bob = await scene.user("bob", is_admin=False)
    await scene.repo("ada", "app")
    await scene.repo("ada", "open", is_private=False)
    async with scene.client(bob) as client:
        assert (await client.get("/api/repos/ada/app/secrets")).status_code == 404
        assert (await client.get("/api/repos/ada/open/secrets")).status_code == 403
        assert (await client.get("/api/owners/ada/secrets")).status_code in (403, 404)
        assert (await client.get("/api/secrets")).status_code == 403
        assert (await _put(client, "/api/owners/bob/secrets/a", value="x" * 20)).status_code == 200


async def test_who_may_read_a_secret_is_changed_without_its_value(scene: Scene) -> None:
    token = await scene.user()
    await scene.repo("ada", "app")
    base = "/api/repos/ada/app/secrets/key"
    async with scene.client(token) as client:
        missing = await _put(client, base, events=["push"])
        assert (missing.status_code, "give it a value" in missing.text) == (404, True)
        await _put(client, base, value=CANARY)
        answer = await _put(client, base, events=["push", "tag"], steps=["build, then test"], images=["x"])
        assert answer.status_code == 200
        assert (answer.json()["events"], answer.json()["is_weak"]) == (["push", "tag"], False)
        assert (await _put(client, base, value="")).status_code == 400
    row = await scene.store.read(lambda c: rows.find(c, "repo:1", "key"))
    assert row is not None and scene.parts().secrets._open(row) == CANARY
    async with scene.client() as client:
        await sign_in(client)
        page = (await client.get("/r/ada/app/secrets?edit=key")).text
        assert "Change key" in page
        assert 'value="push" checked' in page
        answer = await send(client, "/r/ada/app/secrets", name="KEY", value="", steps="build image, test")
        assert answer.headers["location"] == "/r/ada/app/secrets?set=key"
        page = (await client.get(answer.headers["location"])).text
        assert "key is set" in page
        assert "steps build image, test" in page
        assert CANARY not in page
    row = await scene.store.read(lambda c: rows.find(c, "repo:1", "key"))
    assert row is not None and row.steps == ["build image", "test"]
    deeds = await scene.store.read(lambda c: audit.latest(c))
    done = [deed.action for deed in deeds if deed.action != "session.open"]
    assert done == ["secret.filters", "secret.filters", "secret.set"]


async def test_a_weak_secret_is_set_and_the_page_says_what_that_means(scene: Scene) -> None:
    await scene.user()
    async with scene.client() as client:
        await sign_in(client)
        answer = await send(client, "/admin/secrets", name="branch", value="main")
        page = (await client.get(answer.headers["location"])).text
        assert "It may not be masked" in page
        assert "branch is set" not in (await client.get("/admin/secrets?set=other")).text


async def test_a_secret_of_64_kib_goes_through_a_form(scene: Scene) -> None:
    await scene.user()
    async with scene.client() as client:
        await sign_in(client)
        answer = await send(client, "/admin/secrets", name="big", value="%\n" * (32 << 10))
        assert answer.status_code == 303, answer.text
        answer = await send(client, "/admin/secrets", name="big", value="%\n" * (33 << 10))
        assert (answer.status_code, "at most 64 KiB" in answer.text) == (400, True)


async def test_variables_are_set_shown_inherited_and_removed(scene: Scene) -> None:
    token = await scene.user()
    await scene.repo("ada", "app")
    async with scene.client(token) as client:
        for base in ("/api", "/api/owners/ada", "/api/repos/ada/app"):
            answer = await _put(client, f"{base}/variables/REGION", value=base)
            assert (answer.json()["name"], answer.json()["value"]) == ("REGION", base)
            (row,) = (await client.get(f"{base}/variables")).json()["variables"]
            assert (row["name"], row["value"], row["changed_by"]) == ("REGION", base, "ada")
        assert (await _put(client, "/api/variables/CI_X", value="x")).status_code == 400
        assert (await _put(client, "/api/variables/X")).status_code == 400
        assert (await client.delete("/api/repos/ada/app/variables/region")).status_code == 404
    async with scene.client() as client:
        await sign_in(client)
        page = (await client.get("/r/ada/app/secrets?variable=REGION")).text
        assert "2 more from wider places" in page
        assert page.count("not used here: a narrower one has its name") == 2
        wrong = await send(client, "/r/ada/app/secrets/variables", variable="PATH", value="/typed")
        assert wrong.status_code == 400
        assert "which programs and libraries are found" in wrong.text
        assert "/typed" in wrong.text
        answer = await send(client, "/r/ada/app/secrets/variables", variable="LEVEL", value="info\r\n")
        assert answer.status_code == 303
        assert (await send(client, "/r/ada/app/secrets/variables/REGION/remove")).status_code == 303
        assert (await send(client, "/r/ada/app/secrets/variables/REGION/remove")).status_code == 404
    repo = await scene.store.read(lambda c: repos.by_id(c, 1))
    assert repo is not None
    found = await scene.store.read(lambda c: variables.of_repo(c, repo))
    assert found == {"REGION": "/api/owners/ada", "LEVEL": "info"}
    deeds = await scene.store.read(lambda c: audit.latest(c))
    done = [deed.action for deed in deeds if deed.action != "session.open"]
    assert done == ["variable.remove", *["variable.set"] * 4]


async def test_variables_of_a_place_have_room_together_and_no_more(scene: Scene) -> None:
    token = await scene.user()
    async with scene.client(token) as client:
        for name in ("A", "B"):
            assert (await _put(client, f"/api/variables/{name}", value="x" * 16_000)).status_code == 200
        answer = await _put(client, "/api/variables/C", value="x" * 16_000)
        assert (answer.status_code, "32 KiB together" in answer.text) == (409, True)
        assert len((await client.get("/api/variables")).json()["variables"]) == 2
