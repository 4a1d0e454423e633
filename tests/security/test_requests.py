"""Requests that should do nothing: GETs, forms of other sites, tricks with paths, hosts, ranges and fields.

The names are those of docs/security-tests.md.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from pathlib import Path

import pytest
from starlette.routing import Mount, Route, WebSocketRoute

from ci.server.auth import Actor
from ci.server.forges.bare import Bare
from ci.server.store import audit, codes, runners, users
from tests.scene import PASSWORD, Done, Scene
from tests.unit.gitting import Work
from tests.walk import ORIGIN, VISITORS, Town, path_of, raw_get, socket_opens
from web import ansi, answer
from web.guard import Policy
from web.log_text import Window
from web.login import local_path

CANARY = "canary-7f3a"


def rows(here: Town) -> list[str]:
    """Every row of every table."""
    with sqlite3.connect(here.scene.store.path) as connection:
        return list(connection.iterdump())


# --- T26 --------------------------------------------------------------------------------------------


async def test_get_never_writes(here: Town) -> None:
    before = rows(here)
    application = here.real()
    for visitor in ("anonymous", "stranger", "root"):
        async with here.visit(application, visitor) as client:
            for entry in here.table:
                if "GET" in entry.methods:
                    for name in ("app", "site"):
                        await client.get(path_of(entry, name=name))
                        await client.head(path_of(entry, name=name))
    assert rows(here) == before


async def test_registration_single_use(here: Town) -> None:
    code = await here.scene.store.write(lambda c: codes.new_code(c, codes.RUNNER, here.scene.clock.now()))
    assert code not in "".join(rows(here)), "a code is stored as its hash"
    async with here.visit(here.real(), "anonymous") as client:
        body = {"code": code, "name": "r1", "labels": {}, "capacity": 1}
        answers = await asyncio.gather(
            *(client.post("/api/runners/register", json={**body, "name": f"r{n}"}) for n in range(5))
        )
    assert sorted(one.status_code for one in answers) == [201, 403, 403, 403, 403]
    assert len(await here.scene.store.read(runners.all_runners)) == 1


# --- T27 --------------------------------------------------------------------------------------------

FOREIGN = {"origin": "https://evil.example"}


@pytest.mark.parametrize(
    ("headers", "has_token", "kind"),
    [
        (FOREIGN, True, "form"),
        ({"origin": "null"}, True, "form"),
        ({}, True, "form"),
        (ORIGIN, False, "form"),
        ({"origin": "http://127.0.0.1:8000.evil.example"}, True, "form"),
        (FOREIGN, True, "json"),
        (FOREIGN, False, "text"),
    ],
)
async def test_csrf_every_route(here: Town, headers: dict[str, str], has_token: bool, kind: str) -> None:
    """What another site can make a signed-in admin's browser send reaches no endpoint."""
    reached = []
    async with here.visit(here.admitting(), "root") as client:
        for entry in here.table:
            if entry.kind != "page" or entry.methods == ("GET",):
                continue
            fields = {"csrf": here.csrf("root")} if has_token else {"csrf": "0" * 80}
            body: dict[str, object] = {"data": fields}
            if kind == "json":
                body = {"json": fields}
            elif kind == "text":
                body = {"content": json.dumps(fields), "headers": {**headers, "content-type": "text/plain"}}
            got = await client.request(entry.methods[0], path_of(entry), **{"headers": headers, **body})  # type: ignore[arg-type]
            if got.status_code != 403:
                reached.append(f"{entry.methods[0]} {entry.path}: {got.status_code}")
    assert reached == []


async def test_csrf_token_of_another_visitor_is_worth_nothing(here: Town) -> None:
    async with here.visit(here.admitting(), "root") as client:
        got = await client.post("/runners/code", data={"csrf": here.csrf("stranger")}, headers=ORIGIN)
        assert got.status_code == 403
        got = await client.post("/runners/code", data={"csrf": here.csrf("root")}, headers=ORIGIN)
        assert got.text == "reached"


# --- T29 --------------------------------------------------------------------------------------------

REDIRECTS = [
    "https://evil.example/",
    "//evil.example/",
    "///evil.example/",
    "/\\evil.example/",
    "\\\\evil.example/",
    "/\t/evil.example/",
    "\t//evil.example",
    "/\n/evil.example",
    "/a\r\nset-cookie: x=1",
    "/a\r\n\r\n<script>",
    "javascript:alert(1)",
    "data:text/html,x",
    "http:evil.example",
    "https:/evil.example",
    "evil.example",
    " //evil.example",
    "/ /evil.example",
    "/\x00/evil.example",
    "/\u2028/evil.example",
    "/a\\..\\..\\evil",
    "?next=//evil.example",
    "#//evil.example",
    "",
]


@pytest.mark.parametrize("target", REDIRECTS, ids=repr)
async def test_redirect_corpus(here: Town, target: str) -> None:
    assert local_path(target) == "/"
    async with here.visit(here.real(), "anonymous") as client:
        page = await client.get("/sign-in", params={"next": target})
        assert 'name="next" value="/"' in page.text
        fields = {"csrf": here.csrf("anonymous"), "name": "ada", "password": PASSWORD, "next": target}
        got = await client.post("/sign-in", data=fields, headers=ORIGIN)
        assert (got.status_code, got.headers["location"]) == (303, "/")


async def test_redirect_named_twice_leads_home(here: Town) -> None:
    async with here.visit(here.real(), "anonymous") as client:
        page = await client.get("/sign-in?next=/r/ada/app&next=//evil.example")
        assert 'name="next" value="/"' in page.text
        page = await client.get("/sign-in?next=/r/ada/app")
        assert 'name="next" value="/r/ada/app"' in page.text


async def test_rename_user_does_not_inherit(here: Town) -> None:
    """An account that is gone leaves repos; whoever gets its name next does not own them by that."""
    scene = here.scene
    async with here.visit(here.real(), "anonymous") as client:
        client.headers["authorization"] = f"Bearer {here.tokens['root']}"
        ada = await scene.store.read(lambda c: users.named(c, "ada"))
        assert (await client.post(f"/api/people/{ada.id}/delete")).status_code == 204
        got = await client.post("/api/people", json={"name": "ada"})
        assert got.status_code == 409 and "would own them" in got.text


# --- T30 --------------------------------------------------------------------------------------------


async def test_every_route_has_policy(here: Town) -> None:
    """The routes of the application itself, not of a list of them."""
    known = {(entry.path, entry.kind) for entry in here.table}
    assert all(isinstance(entry.policy, Policy) for entry in here.table)
    application = here.real()
    inner = application._application  # type: ignore[attr-defined]
    found = set()
    for route in inner.routes:
        assert isinstance(route, Route | WebSocketRoute | Mount)
        kinds = {Mount: ("mount",), WebSocketRoute: ("socket",)}.get(type(route), ("page", "machine"))
        found |= {(route.path, kind) for kind in kinds if (route.path, kind) in known} or {(route.path, "?")}
    assert found == known


MUTATIONS = [
    "//r/ada/app",
    "/r//ada/app",
    "/r/ada/app/",
    "/r/ada/app/.",
    "/r/ada/app/..;/app",
    "/./r/ada/app",
    "/x/../r/ada/app",
    "/sign-in/../r/ada/app",
    "/sign-in/..;/r/ada/app",
    "/static/../r/ada/app",
    "/%2e%2e/r/ada/app",
    "/r/ada/app;.jsp",
    "/r/ada/app%00",
    "/r/ada/app%2f1",
    "/r/ada%2fapp",
    "/%72/ada/app",
    "/R/ada/app",
    "/r/ADA/APP",
    "/r/ada/site/../app",
    "/r/ada/app/1?public=1",
    "/r/ada/app.json",
    "/api/../r/ada/app/1",
    "/api//repos/ada/app",
    "/api/repos/ada/app/builds/1/",
    "/api/repos/ada/app/builds/01",
    "/api/repos/ada/app/builds/1;x=1",
    "/git/ada/app.git/HEAD",
    "/git/ada/site.git/../app.git/HEAD",
    "/git/ada/site.git/..%2fapp.git/HEAD",
    "/hooks/../r/ada/app",
]


@pytest.mark.parametrize("visitor", ["anonymous", "stranger"])
@pytest.mark.parametrize("path", MUTATIONS)
async def test_path_mutation_opens_nothing(here: Town, visitor: str, path: str) -> None:
    status, location, body = await raw_get(here.real(), path, here.cookies_of(visitor))
    assert status in (303, 400, 401, 404), body
    assert "Title of app" not in body
    if status == 303:
        assert location.startswith("/sign-in?next=")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1:8000@evil.example", "a b", ""]
)
async def test_a_bad_host_changes_no_link(here: Town, host: str) -> None:
    async with here.visit(here.real(), "anonymous") as client:
        for path in ("/", "/r/ada/app", "/r/ada/site/1", "/sign-in", "/nothing"):
            got = await client.get(path, headers={"host": host})
            assert "evil.example" not in got.text
            assert "evil.example" not in str(got.headers)
        fields = {"csrf": here.csrf("anonymous"), "name": "ada", "password": PASSWORD}
        # An Origin that is neither the Host nor ours is refused, whatever the Host says.
        got = await client.post(
            "/sign-in", data=fields, headers={"host": host, "origin": "https://other.example"}
        )
        assert got.status_code == 403


# --- T36 --------------------------------------------------------------------------------------------


async def test_range_many_ignored(here: Town) -> None:
    path = "/r/ada/app/1/ci/test/raw"
    async with here.visit(here.real(), "ada") as client:
        many = "bytes=" + ",".join(f"{n}-{n}" for n in range(5000))
        for header in (many, "bytes=0-1,2-3", "bytes=0-1, -1", "items=0-1", "bytes=", "bytes=-"):
            got = await client.get(path, headers={"range": header})
            assert (got.status_code, got.content) == (200, b"one line\n"), header[:40]
        got = await client.get(path, headers={"range": "bytes=0-2"})
        assert (got.status_code, got.content) == (206, b"one")


HOSTILE = [
    "a" * 400,
    "%" * 400,
    "_%" * 200,
    "\\" * 400,
    "repo:" + "%a" * 190,
    "(a+)+$" * 60,
    "status:" * 50,
    "'; DROP TABLE build; --",
]


async def test_search_redos(here: Town) -> None:
    await here.scene.build(1, [("ci", [Done(name="test")])], title="a" * 5000)
    async with here.visit(here.real(), "ada") as client:
        for text in HOSTILE:
            begin = time.perf_counter()
            got = await client.get("/", params={"q": text})
            assert got.status_code == 200
            assert time.perf_counter() - begin < 2.0, text[:20]


@pytest.mark.parametrize(
    "piece",
    ["\x1b[", "\x1b]8;;", "\x1b]", "\x1b[1;", "error ", "0 errors ", "\r", "assertion ", "\x1b \x1b[ "],
)
def test_search_redos_in_log_lines(piece: str) -> None:
    """A line of a log that a step made to be slow to look at."""
    line = (piece * 20_000)[:50_000].encode()
    begin = time.perf_counter()
    ansi.runs(line)
    ansi.plain(line)
    answer.excerpt(Window(first=1, lines=(line,) * 20))
    assert time.perf_counter() - begin < 2.0


# --- T38 --------------------------------------------------------------------------------------------


async def test_actor_cannot_be_set(here: Town) -> None:
    """Who did it comes from the credential; fields and headers that claim another are nothing."""
    claims = {
        "user": "root",
        "user_id": "6",
        "actor": "root",
        "sender": "root",
        "by": "root",
        "who": "root",
        "is_admin": "true",
    }
    headers = {
        **ORIGIN,
        "x-user": "root",
        "x-forwarded-user": "root",
        "remote-user": "root",
        "x-shipway-user": "root",
    }
    async with here.visit(here.real(), "keeper") as client:
        fields = {"csrf": here.csrf("keeper"), "name": "eve", "role": "read", **claims}
        got = await client.post("/r/ada/app/members", data=fields, headers=headers)
        assert got.status_code == 303
        got = await client.post("/r/ada/app/1/rerun?who=root&actor=root", data=fields, headers=headers)
        assert got.status_code == 303
        got = await client.get("/admin/people", headers=headers)
        assert got.status_code == 403
    (row,) = await here.scene.store.read(lambda c: audit.latest(c, wanted=audit.Wanted(action="member.set")))
    assert (row.user_name, row.object) == ("keeper", "eve")
    ((_, who),) = here.scene.reruns
    assert who == "keeper"


# --- T41 --------------------------------------------------------------------------------------------


async def test_first_user_without_token_is_not_admin(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    await scene.open()
    try:
        async with scene.client() as client:
            for code in ("", "0000-0000-0000", "' OR 1=1 --", "%"):
                body = {"code": code, "name": "eve", "password": PASSWORD}
                got = await client.post("/api/setup", json=body)
                assert got.status_code in (400, 403)
            for path in ("/sign-in", "/join"):
                got = await client.post(path, json={"name": "eve", "password": PASSWORD, "code": "x"})
                assert got.status_code in (401, 403)
            assert not await scene.store.read(users.has_users)
            assert (await client.get("/api/people")).status_code == 401
            assert (await client.get("/account")).headers["location"] == "/setup"
    finally:
        await scene.close()


# --- T37 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("visitor", VISITORS)
async def test_idor_matrix(here: Town, visitor: str) -> None:
    """Every GET as it is, on a private repo full of one word: those who may not read it never see the word,
    and cannot tell it from a repo that does not exist."""
    scene = here.scene
    await scene.build(
        1,
        [("ci", [Done(name="test", log=f"{CANARY}\n".encode(), reason=CANARY, status="failure")])],
        title=CANARY,
        author=CANARY,
        branch=CANARY,
        ref=f"refs/heads/{CANARY}",
    )
    await scene.delivery(1, f"built {CANARY}")
    now = scene.clock.now()
    by = Actor(user_id=1, name="ada")
    deed = audit.Deed(action="secret.set", object=CANARY, repo_id=1)
    await scene.store.write(lambda c: audit.note(c, by, deed, now))
    may_read = visitor not in ("anonymous", "stranger")
    seen = 0
    async with here.visit(here.real(), visitor) as client:
        for entry in here.table:
            if entry.kind != "page" or entry.methods != ("GET",):
                continue
            for number in ("1", "2"):
                got = await client.get(path_of(entry, number=number))
                if may_read:
                    seen += CANARY in got.text
                    continue
                assert CANARY not in got.text, entry.path
                if "{owner}/{name}" in entry.path:
                    assert got.status_code == (404 if visitor == "stranger" else got.status_code)
                    assert got.status_code in (303, 401, 404)
    assert (seen > 5) == may_read
    if not may_read:
        for topic in ("build:1", "build:3", "job:1"):
            target = f"/live?topics={topic}"
            assert not await socket_opens(here.real(), target, here.cookies_of(visitor))


# --- T31 --------------------------------------------------------------------------------------------


async def test_config_path_traversal(tmp_path: Path) -> None:
    """A pipeline file is a blob of the commit: a link or an odd name in the tree reads nothing else."""
    (tmp_path / "secret.yml").write_text(f"steps: {{}} # {CANARY}\n")
    work = Work(tmp_path / "work", tmp_path / "remote.git")
    (work.path / ".ci").mkdir()
    (work.path / ".ci/link.yml").symlink_to(tmp_path / "secret.yml")
    (work.path / ".ci/up.yml").symlink_to("../../secret.yml")
    (work.path / ".ci/own.yml").write_text("steps: {}\n")
    work.git("add", "-A")
    work.git("commit", "-q", "-m", "links")
    bare = Bare(work.path / ".git")
    assert await bare.config_files(work.git("rev-parse", "HEAD").strip()) == {".ci/own.yml": "steps: {}\n"}
    for name in ("--output=x", "../../etc/passwd", "HEAD:../secret.yml", "-p"):
        assert await bare.config_files(name) == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret.yml", "work"]
