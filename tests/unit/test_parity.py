"""Whatever a page does, a program does by the JSON API and a person by a command, past the same guard."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import typer

from tests.walk import Town, entries, town
from web import problems
from web.guard import Policy
from web.routes import Entry

REPO, BUILD = "/r/{owner}/{name}", "/r/{owner}/{name}/{number:int}"
API, API_BUILD = "/api/repos/{owner}/{name}", "/api/repos/{owner}/{name}/builds/{number:int}"


@dataclass(frozen=True)
class Twin:
    """Of a page's POST: the row of the API that does the same, and the command that asks it."""

    method: str
    path: str
    command: str


def _put_and_delete(base: str, api: str) -> dict[str, Twin]:
    """Secrets and variables of a place."""
    return {
        f"{base}/secrets": Twin("PUT", f"{api}/secrets/{{secret}}", "secret set"),
        f"{base}/secrets/{{secret}}/remove": Twin("DELETE", f"{api}/secrets/{{secret}}", "secret rm"),
        f"{base}/secrets/variables": Twin("PUT", f"{api}/variables/{{variable}}", "variable set"),
        f"{base}/secrets/variables/{{variable}}/remove": Twin(
            "DELETE", f"{api}/variables/{{variable}}", "variable rm"
        ),
    }


TWINS = {
    f"{BUILD}/cancel": Twin("POST", f"{API_BUILD}/cancel", "build cancel"),
    f"{BUILD}/rerun": Twin("POST", f"{API_BUILD}/rerun", "build rerun"),
    f"{BUILD}/approve": Twin("POST", f"{API_BUILD}/approve", "build approve"),
    f"{BUILD}/reject": Twin("POST", f"{API_BUILD}/reject", "build reject"),
    f"{BUILD}/{{job}}/resolve": Twin("POST", f"{API_BUILD}/jobs/{{job}}/resolve", "build resolve"),
    f"{REPO}/run": Twin("POST", f"{API}/builds", "build run"),
    "/repos/add": Twin("POST", "/api/repos", "repo add"),
    f"{REPO}/settings": Twin("POST", f"{API}/settings", "repo settings"),
    f"{REPO}/credential": Twin("POST", f"{API}/credential", "repo credential"),
    f"{REPO}/delete": Twin("POST", f"{API}/delete", "repo rm"),
    f"{REPO}/hooks/{{hook}}/rotate": Twin("POST", f"{API}/hooks/{{hook}}/rotate", "repo hook rotate"),
    f"{REPO}/inbox/{{id:int}}/replay": Twin("POST", f"{API}/inbox/{{id:int}}/replay", "inbox replay"),
    f"{REPO}/schedules": Twin("POST", f"{API}/schedules", "schedule add"),
    f"{REPO}/schedules/{{id:int}}": Twin("POST", f"{API}/schedules/{{id:int}}", "schedule set"),
    f"{REPO}/schedules/{{id:int}}/remove": Twin("POST", f"{API}/schedules/{{id:int}}/remove", "schedule rm"),
    f"{REPO}/schedules/{{id:int}}/run": Twin("POST", f"{API}/schedules/{{id:int}}/run", "schedule run"),
    f"{REPO}/members": Twin("POST", f"{API}/members", "repo member set"),
    f"{REPO}/members/{{user}}/remove": Twin("POST", f"{API}/members/{{user}}/remove", "repo member rm"),
    **_put_and_delete(REPO, API),
    **_put_and_delete("/o/{owner}", "/api/owners/{owner}"),
    **_put_and_delete("/admin", "/api"),
    "/runners/code": Twin("POST", "/api/runners/code", "runners code"),
    **{
        f"/runners/{{id:int}}/{word}": Twin("POST", f"/api/runners/{{id:int}}/{word}", f"runners {command}")
        for word, command in (("pause", "pause"), ("drain", "drain"), ("resume", "resume"), ("remove", "rm"))
    },
    "/setup": Twin("POST", "/api/setup", "setup"),
    "/join": Twin("POST", "/api/join", "join"),
    "/account/password": Twin("POST", "/api/account/password", "password"),
    "/account/tokens": Twin("POST", "/api/account/tokens", "token add"),
    "/account/tokens/{id:int}/revoke": Twin("POST", "/api/account/tokens/{id:int}/revoke", "token rm"),
    "/account/sessions/{id:int}/revoke": Twin("POST", "/api/account/sessions/{id:int}/revoke", "session rm"),
    "/account/sessions/revoke-others": Twin("POST", "/api/account/sessions/revoke-others", "session rm"),
    "/admin/people": Twin("POST", "/api/people", "people add"),
    "/admin/people/{id:int}/admin": Twin("POST", "/api/people/{id:int}/admin", "people set"),
    "/admin/people/{id:int}/disabled": Twin("POST", "/api/people/{id:int}/disabled", "people set"),
    "/admin/people/{id:int}/reset": Twin("POST", "/api/people/{id:int}/reset", "people reset"),
    "/admin/people/{id:int}/delete": Twin("POST", "/api/people/{id:int}/delete", "people rm"),
}
#: What is about one browser: a program has a token, which needs no signing in, and no colours.
OF_A_BROWSER = {"/sign-in", "/sign-out", "/theme"}
#: What a page shows -> what the API answers with, and the command that shows it.
SHOWN = {
    "/": Twin("GET", "/api/builds", "build ls"),
    "/repos": Twin("GET", "/api/repos", "repo ls"),
    REPO: Twin("GET", f"{API}/builds", "build ls"),
    BUILD: Twin("GET", API_BUILD, "build show"),
    f"{BUILD}/{{job}}/{{step}}": Twin("GET", API_BUILD, "build logs"),
    "/queue": Twin("GET", "/api/queue", "queue"),
    "/runners": Twin("GET", "/api/runners", "runners ls"),
    "/runners/{id:int}": Twin("GET", "/api/runners/{id:int}", "runners show"),
    f"{REPO}/settings": Twin("GET", f"{API}/settings", "repo settings"),
    f"{REPO}/hook": Twin("GET", f"{API}/hooks", "repo hook ls"),
    f"{REPO}/inbox": Twin("GET", f"{API}/inbox", "inbox ls"),
    f"{REPO}/inbox/{{id:int}}": Twin("GET", f"{API}/inbox/{{id:int}}", "inbox show"),
    f"{REPO}/schedules": Twin("GET", f"{API}/schedules", "schedule ls"),
    f"{REPO}/members": Twin("GET", f"{API}/members", "repo member ls"),
    f"{REPO}/audit": Twin("GET", f"{API}/audit", "audit"),
    f"{REPO}/secrets": Twin("GET", f"{API}/secrets", "secret ls"),
    "/o/{owner}/secrets": Twin("GET", "/api/owners/{owner}/variables", "variable ls"),
    "/admin/secrets": Twin("GET", "/api/secrets", "secret ls"),
    "/admin/people": Twin("GET", "/api/people", "people ls"),
    "/admin/audit": Twin("GET", "/api/audit", "audit"),
    "/account": Twin("GET", "/api/account/tokens", "token ls"),
}
#: Forms that show nothing of their own, what is for programs already, and Ctrl-K.
SHOWS_NOTHING = {
    f"{REPO}/run",
    "/repos/add",
    "/setup",
    "/sign-in",
    "/join",
    "/find",
    f"{REPO}/badge.svg",
    "/cc.xml",
    "/healthz",
    "/metrics",
    *(f"{BUILD}/{{job}}/{{step}}/{part}" for part in ("raw", "index", "marks")),
}

TABLE = entries()
ROWS = {(method, entry.path): entry for entry in TABLE for method in entry.methods}


def _pages(method: str) -> dict[str, Entry]:
    return {
        entry.path: entry
        for entry in TABLE
        if entry.kind == "page" and entry.methods == (method,) and not entry.path.startswith("/api/")
    }


def test_whatever_a_page_does_a_program_does_too() -> None:
    new = set(_pages("POST")) - set(TWINS) - OF_A_BROWSER
    assert new == set(), "give each a row under /api/ and a command, and name both in TWINS"
    assert set(TWINS) | OF_A_BROWSER == set(_pages("POST")), "these are no routes any more"


def test_whatever_a_page_shows_a_program_sees_too() -> None:
    new = set(_pages("GET")) - set(SHOWN) - SHOWS_NOTHING
    assert new == set(), "give each a row under /api/ and a command, and name both in SHOWN"
    assert set(SHOWN) | SHOWS_NOTHING == set(_pages("GET")), "these are no routes any more"


def test_both_pass_the_guard_by_the_same_policy() -> None:
    for pages, method in ((TWINS, "POST"), (SHOWN, "GET")):
        for path, twin in pages.items():
            row = ROWS.get((twin.method, twin.path))
            assert row is not None, f"{twin.method} {twin.path} is no route"
            if path not in ("/repos", "/account"):  # the API lists public repos to anybody
                assert row.policy is ROWS[method, path].policy, path


def test_everything_that_changes_something_by_the_api_is_named_here() -> None:
    named = {(twin.method, twin.path) for twin in TWINS.values()}
    others = {("POST", f"{API}/enable"), ("POST", f"{API}/disable")}
    found = {key for key, row in ROWS.items() if key[1].startswith("/api/") and key[0] != "GET"}
    assert {key for key in found if not ROWS[key].policy.is_for_machines} == named | others


def test_every_command_that_is_named_is_there_and_speaks_json() -> None:
    commands = {" ".join(words): params for words, params in _commands()}
    for twin in (*TWINS.values(), *SHOWN.values()):
        assert twin.command in commands, twin.command
        assert "--json" in commands[twin.command] or twin.command == "build logs"


def _commands() -> list[tuple[tuple[str, ...], set[str]]]:
    def below(words: tuple[str, ...], command: Any) -> list[tuple[tuple[str, ...], set[str]]]:
        inner = getattr(command, "commands", None)
        if inner is None:
            return [(words, {opt for param in command.params for opt in param.opts})]
        return [found for name, each in inner.items() for found in below((*words, name), each)]

    found = []
    for point in entry_points(group="shipway.commands"):
        loaded = point.load()
        app = loaded if isinstance(loaded, typer.Typer) else typer.Typer(add_completion=False)
        if app is not loaded:
            app.command(point.name)(loaded)
        found += below((point.name,), typer.main.get_command(app))
    return found


# --- what the API says of it, and what goes wrong -------------------------------------------------------


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Town]:
    async with town(tmp_path) as made:
        yield made


async def test_each_is_described_with_its_errors(here: Town) -> None:
    async with here.visit(here.real(), "anonymous") as client:
        document = (await client.get("/api/openapi.json")).json()
    for twin in (*TWINS.values(), *SHOWN.values()):
        operation = document["paths"][re.sub(r":int}", "}", twin.path)][twin.method.lower()]
        assert operation["summary"]
        for status, answer in operation["responses"].items():
            if int(status) >= 400:
                assert list(answer["content"]) == [problems.MEDIA_TYPE], (twin, status)


async def test_each_refuses_and_misses_in_problem_json(here: Town) -> None:
    """Nobody; somebody without a role; an admin who says nothing, about what is there and what is not."""
    visits = [("", "app"), (here.tokens["stranger"], "app"), (here.tokens["root"], "app")]
    refused = 0
    async with here.visit(here.real(), "anonymous") as client:
        client.cookies.clear()
        components = (await client.get("/api/openapi.json")).json()["components"]
        schema = {**components["schemas"]["Problem"], "components": components}
        for twin in sorted({*TWINS.values(), *SHOWN.values()}, key=str):
            for token, name in (*visits, (here.tokens["root"], "none")):
                answer = await _ask(client, twin, token, name)
                is_open = bool(token) or ROWS[twin.method, twin.path].policy is Policy.PUBLIC
                assert answer.status_code < 500 and (is_open or answer.status_code >= 400), (twin, token)
                if answer.status_code < 400:
                    continue
                refused += 1
                assert answer.headers["content-type"] == problems.MEDIA_TYPE, (twin, token)
                jsonschema.validate(answer.json(), schema)
    assert refused > 100


async def _ask(client: httpx.AsyncClient, twin: Twin, token: str, name: str) -> httpx.Response:
    chosen = {"owner": "ada", "name": name, "number": "999", "id": "999"}
    path = re.sub(r"{(\w+)(?::\w+)?}", lambda match: chosen.get(match[1], "none"), twin.path)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    content = None if twin.method in ("GET", "DELETE") else b"{}"
    return await client.request(
        twin.method, path, headers={**headers, "content-type": "application/json"}, content=content
    )
