"""The description of the API: complete, right, and held to what the server really answers."""

from __future__ import annotations

import copy
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from ci.server.config import Settings
from ci.server.wiring import Server
from tests.scene import Scene, fill
from web import api_reference, app, openapi
from web.main import application
from web.routes import Entry

#: A value for each part of a path, of what the scene holds.
VALUES = {
    "owner": "ada",
    "name": "api",
    "number": "8",
    "job": "ci",
    "step": "test",
    "id": "1",
    "secret": "token",
    "variable": "REGION",
}


@dataclass
class Whole:
    """The whole server as `shipway serve` wires it, filled, without a socket."""

    scene: Scene
    client: httpx.AsyncClient
    document: dict[str, Any]
    table: list[Entry] = field(default_factory=list)

    def schema_of(
        self, path: str, method: str, status: int, kind: str = "application/json"
    ) -> dict[str, Any]:
        """The schema of an answer, complete in itself, and refusing every field that it does not name."""
        answer = self.document["paths"][path][method]["responses"][str(status)]
        return {**answer["content"][kind]["schema"], "components": _closed(self.document["components"])}


def _closed(components: dict[str, Any]) -> dict[str, Any]:
    found = copy.deepcopy(components)
    for schema in found["schemas"].values():
        if schema.get("properties") and schema.get("title") != "OpenAPI":
            schema["additionalProperties"] = False
    return found


@pytest.fixture
async def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Whole]:
    tables: list[list[Entry]] = []
    tell = openapi.Description.tell

    def listen(description: openapi.Description, entries: Any) -> None:
        tables.append(list(entries))
        tell(description, entries)

    monkeypatch.setattr(app.Description, "tell", listen)
    server = Server(Settings.load({}, {"data_dir": tmp_path / "data"}))
    scene = Scene(tmp_path)
    scene.store, scene.bus, scene.logs = server.store, server.bus, server.logs
    scene.lifecycle, scene.clock = server.lifecycle, server.clock
    await scene.open()
    token = await scene.user()
    await fill(scene)
    transport = httpx.ASGITransport(app=application(server, "http://127.0.0.1:8000"))
    headers = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://ci", headers=headers) as client:
        document = (await client.get("/api/openapi.json")).json()
        yield Whole(scene, client, document, tables[0])
    await scene.close()


async def test_every_route_under_api_is_described(whole: Whole) -> None:
    missing = [
        f"{' '.join(entry.methods)} {entry.path}"
        for entry in whole.table
        if entry.path.startswith("/api/") and openapi.operation_of(entry.endpoint) is None
    ]
    assert missing == [], "say what they do, with @describe of web/openapi.py"


async def test_the_description_is_public_and_of_its_version(whole: Whole) -> None:
    answer = await whole.client.get("/api/openapi.json", headers={"authorization": ""})
    assert answer.status_code == 401, "an empty token is a wrong one"
    del whole.client.headers["authorization"]
    document = (await whole.client.get("/api/openapi.json")).json()
    assert document["openapi"] == "3.1.0"
    assert document == whole.document


async def test_every_schema_is_one_and_every_reference_leads_to_one(whole: Whole) -> None:
    schemas = whole.document["components"]["schemas"]
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    references = set(re.findall(r"#/components/schemas/(\w+)", str(whole.document)))
    assert references == set(schemas)
    names = [
        operation["operationId"]
        for methods in whole.document["paths"].values()
        for operation in methods.values()
    ]
    assert len(names) == len(set(names))


async def test_every_parameter_of_a_path_is_described(whole: Whole) -> None:
    for path, methods in whole.document["paths"].items():
        for operation in methods.values():
            described = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
            assert described == set(re.findall(r"{(\w+)}", path))


async def test_every_answer_to_a_get_is_what_its_schema_says_and_names_every_field(whole: Whole) -> None:
    # Nothing of the scene waits for an approval; tests/unit/test_approvals.py asks for one.
    asked = [
        path
        for path, methods in whole.document["paths"].items()
        if "get" in methods and not path.endswith("/approval")
    ]
    assert len(asked) >= 8
    for path in asked:
        address = re.sub(r"{(\w+)}", lambda match: VALUES[match[1]], path)
        answer = await whole.client.get(address)
        assert answer.status_code == 200, f"{address}: {answer.text}"
        jsonschema.validate(answer.json(), whole.schema_of(path, "get", 200))


BUILD = "/api/repos/{owner}/{name}/builds/{number}"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/runners/code", 201),
        ("/api/runners/{id}/pause", 200),
        ("/api/runners/{id}/drain", 200),
        ("/api/runners/{id}/resume", 200),
        ("/api/runners/{id}/remove", 200),
    ],
)
async def test_what_changes_something_answers_as_described(whole: Whole, path: str, status: int) -> None:
    answer = await whole.client.post(re.sub(r"{(\w+)}", lambda match: VALUES[match[1]], path))
    assert answer.status_code == status, answer.text
    jsonschema.validate(answer.json(), whole.schema_of(path, "post", status))


@pytest.mark.parametrize(
    ("method", "path", "described", "status"),
    [
        ("get", "/api/repos/ada/api/builds/999", BUILD, 404),
        ("post", "/api/repos/ada/api/builds/7/cancel", BUILD + "/cancel", 409),
        ("post", "/api/runners/99/pause", "/api/runners/{id}/pause", 404),
    ],
)
async def test_what_goes_wrong_is_described_too(
    whole: Whole, method: str, path: str, described: str, status: int
) -> None:
    answer = await whole.client.request(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    jsonschema.validate(answer.json(), whole.schema_of(described, method, status, "application/problem+json"))


async def test_the_reference_is_made_from_the_description(whole: Whole) -> None:
    page = (Path(__file__).parents[2] / "docs/reference/api.md").read_text()
    assert page == api_reference.replaced(page, whole.document), "run scripts/reference"
    assert "| `GET /api/repos/OWNER/NAME/builds/NUMBER` |" in page


async def test_who_has_an_answer_already_gets_304_until_it_changes(whole: Whole) -> None:
    first = await whole.client.get("/api/runners")
    again = await whole.client.get("/api/runners", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert "no-cache" in first.headers["cache-control"]
    await whole.client.post("/api/runners/1/pause")
    after = await whole.client.get("/api/runners", headers={"if-none-match": first.headers["etag"]})
    assert after.status_code == 200


async def test_the_queue_is_continued_and_says_why_and_what_would_help(whole: Whole) -> None:
    every = (await whole.client.get("/api/queue")).json()
    assert [(job["repo"], job["number"], job["job"]) for job in every["jobs"]] == [("ada/api", 9, "nightly")]
    assert every["jobs"][0]["why"] == "no runner matches: the job needs the label arch=s390x"
    assert "--label arch=s390x" in every["jobs"][0]["help"]
    page = (await whole.client.get("/api/queue?limit=1")).json()
    assert page["after"] == every["jobs"][0]["id"]
    assert (await whole.client.get(f"/api/queue?after={page['after']}")).json()["jobs"] == []


async def test_the_queue_names_nothing_of_a_repo_that_one_may_not_see(whole: Whole) -> None:
    whole.client.headers["authorization"] = f"Bearer {await whole.scene.user('eve', is_admin=False)}"
    answer = (await whole.client.get("/api/queue")).json()
    assert answer == {"jobs": [], "hidden": 1, "after": None}
    runners = (await whole.client.get("/api/runners")).json()["runners"]
    assert [(runner["running"], runner["jobs"]) for runner in runners] == [(1, []), (0, []), (0, [])]
