"""The pages and the API of secrets: set, listed, removed, and never shown."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

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
        assert "images docker.io/example/ssh, docker.io/library/x" in page
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
    from ci.server.store import secrets

    return secrets.find(connection, secrets.SERVER, "token")


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
