"""What a person sees and does where a stranger's build waits, or where nobody knows how one ended."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from sqlalchemy import update

from ci.server.auth import Role
from ci.server.models import Build, Membership
from ci.server.store import audit, builds, users
from ci.server.store.tables import APPROVAL, JOB, PULL_REQUEST, add
from ci.status import Status
from tests.scene import Done, Scene, blocked, send, sign_in
from tests.unit.test_pages import _words


@dataclass
class Made:
    scene: Scene
    client: httpx.AsyncClient
    repo_id: int
    build_id: int
    token: str  #: of grace, who may write

    async def build(self) -> Build:
        found = await self.scene.store.read(lambda c: builds.by_id(c, self.build_id))
        assert found is not None
        return found

    async def page(self) -> str:
        return (await self.client.get("/r/ada/app/2")).text

    async def deeds(self) -> list[tuple[str, str, str]]:
        rows = await self.scene.store.read(audit.latest)
        return [(row.action, row.object, row.user_name) for row in rows if row.action.startswith("build.")]


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Made]:
    scene = Scene(tmp_path)
    await scene.open()
    await scene.user()
    repo_id = await scene.repo("ada", "app")
    tokens: dict[str, str] = {}
    for name, role in (("grace", Role.WRITE), ("eve", Role.READ)):
        tokens[name] = await scene.user(name, is_admin=False)
        await scene.store.write(lambda c, name=name, role=role: _join(c, repo_id, name, role))
    build_id = await blocked(scene, repo_id)
    async with scene.client() as client:
        await sign_in(client, "grace")
        yield Made(scene, client, repo_id, build_id, tokens["grace"])
    await scene.close()


def _join(connection, repo_id: int, name: str, role: Role) -> None:  # type: ignore[no-untyped-def]
    found = connection.execute(users.USER.select().where(users.USER.c.name == name)).one()
    add(connection, Membership(repo_id=repo_id, user_id=found.id, role=role.value, created_at=1.0))


async def test_the_page_says_who_what_changed_and_asks(made: Made) -> None:
    text = await made.page()
    words = _words(text)
    assert "May this run here? Pull request 7 comes from the fork mallory/worker (sent by mallory)" in words
    assert "Who mallory (account 4711 at the forge)" in words
    assert f"Commit {'b' * 40}" in words and "Into main" in words
    assert "The pull request changes what runs. Its pipeline files against main as of build 1" in words
    assert '<span class="added">+    commands: [make test &amp;&amp; ./upload]</span>' in text
    assert '<span class="removed">-    commands: [make test]</span>' in text
    assert "2 files" in words and "It gets no secrets, approved or not." in words
    assert words.count("waits for a person") == 1  # the step


async def test_the_form_approves_exactly_what_it_showed(made: Made) -> None:
    binding = re.search(r'name="binding" value="([0-9a-f]{64})"', await made.page())
    assert binding is not None
    wrong = await send(made.client, "/r/ada/app/2/approve", binding="0" * 64)
    assert wrong.status_code == 409 and "is not what the page showed" in wrong.text
    answer = await send(made.client, "/r/ada/app/2/approve", binding=binding[1])
    assert (answer.status_code, answer.headers["location"]) == (303, "/r/ada/app/2")
    assert (await made.build()).status == "pending"
    words = _words(await made.page())
    assert "approved by grace" in words and "May this run here?" not in words
    assert await made.deeds() == [("build.approve", "ada/app/2", "grace")]


async def test_a_rejected_build_says_by_whom(made: Made) -> None:
    assert (await send(made.client, "/r/ada/app/2/reject")).status_code == 303
    assert "rejected by grace" in _words(await made.page())
    assert (await made.build()).status == "cancelled"
    assert await made.deeds() == [("build.reject", "ada/app/2", "grace")]


async def test_a_reader_sees_it_and_a_forged_form_of_one_does_nothing(made: Made) -> None:
    async with made.scene.client() as client:
        await sign_in(client, "eve")
        page = (await client.get("/r/ada/app/2")).text
        assert "May this run here?" in page and "/approve" not in page and "/reject" not in page
        for name in ("approve", "reject"):
            answer = await send(client, f"/r/ada/app/2/{name}")
            assert answer.status_code == 403 and "eve may not approve here" in answer.text
    no_token = await made.client.post("/r/ada/app/2/approve", headers={"origin": "http://127.0.0.1:8000"})
    assert no_token.status_code == 403
    other_site = await made.client.post("/r/ada/app/2/approve", headers={"origin": "http://evil.example"})
    assert other_site.status_code == 403
    assert (await made.build()).status == "blocked"
    assert await made.scene.store.read(lambda c: c.execute(APPROVAL.select()).all()) == []


async def test_a_pull_request_that_moved_on_cannot_be_approved_any_more(made: Made) -> None:
    await made.scene.store.write(lambda c: c.execute(update(PULL_REQUEST).values(target_branch="production")))
    text = await made.page()
    assert "It cannot be approved any more: pull request 7 now targets production, not main." in _words(text)
    assert 'action="/r/ada/app/2/approve"' not in text and 'action="/r/ada/app/2/reject"' in text
    answer = await send(made.client, "/r/ada/app/2/approve")
    assert answer.status_code == 409
    assert (await made.build()).status == "blocked"


async def test_the_api_shows_the_same_and_decides_the_same(made: Made) -> None:
    base = "/api/repos/ada/app/builds/2"
    async with made.scene.client(made.token) as api:
        asked = (await api.get(f"{base}/approval")).json()
        assert (asked["sender"], asked["head"], asked["target"]) == ("mallory", "b" * 40, "main")
        assert asked["changes_config"] is True and "./upload" in asked["config"][0]["diff"]
        assert (await api.get(base)).json()["needs_approval"] is True
        refused = await api.post(f"{base}/approve", json={"binding": "0" * 64})
        assert refused.status_code == 409
        approved = await api.post(f"{base}/approve", json={"binding": asked["binding"]})
        assert (approved.status_code, approved.json()["status"]) == (200, "pending")
        assert (await api.get(f"{base}/approval")).status_code == 404
        assert (await api.post(f"{base}/reject")).status_code == 409


async def test_hostile_text_of_a_stranger_does_nothing_but_appear(made: Made) -> None:
    evil = '"><script>alert(1)</script><img src=x>'
    event = {
        **(await made.build()).event,
        "title": evil,
        "sender": evil,
        "source_repo": evil,
        "link": "javascript:alert(1)",
    }
    event["changed_files"] = [evil]
    values = {"event": event, "config": f"steps: {evil}\n", "reason": evil}
    await made.scene.store.write(
        lambda c: c.execute(update(JOB).where(JOB.c.build_id == made.build_id).values(reason=evil))
    )
    await made.scene.store.write(
        lambda c: c.execute(update(builds.BUILD).where(builds.BUILD.c.id == made.build_id).values(**values))
    )
    text = await made.page()
    assert "<script>alert" not in text and "<img" not in text and "javascript:" not in text
    assert "alert(1)" in text


# --- kept jobs --------------------------------------------------------------------------------


async def test_a_kept_job_shows_its_steps_and_logs_under_the_new_build(made: Made) -> None:
    scene = made.scene
    old = await scene.build(
        made.repo_id,
        [("lint", [Done(name="check", log=b"all fine\n")]), ("ci", [Done(name="test", status="failure")])],
    )
    new = await scene.build(
        made.repo_id, [("lint", [Done(name="check", log=b"no")]), ("ci", [Done(name="test", log=b"ok\n")])]
    )

    def keep(c) -> None:  # type: ignore[no-untyped-def]
        rows = c.execute(JOB.select().where(JOB.c.build_id == old).order_by(JOB.c.position)).all()
        mine = (JOB.c.build_id == new, JOB.c.name == "lint")
        c.execute(update(JOB).where(*mine).values(kept_from=rows[0].id))

    await scene.store.write(keep)
    page = (await made.client.get("/r/ada/app/4")).text
    assert "kept from #3" in _words(page) and "passed in build #3 , and was not run again" in _words(page)
    assert 'href="/r/ada/app/4/lint/check?attempt=1"' in page
    base = "/r/ada/app/4/lint/check"
    assert (await made.client.get(f"{base}/raw?attempt=1")).text == "all fine\n"
    assert "all fine" in (await made.client.get(f"{base}?attempt=1")).text
    assert (await made.client.get("/r/ada/app/4/ci/test/raw?attempt=1")).text == "ok\n"
    async with scene.client(made.token) as api:
        (lint, ci) = (await api.get("/api/repos/ada/app/builds/4")).json()["jobs"]
        assert (lint["kept_from"], ci["kept_from"]) == (3, None)
        log = lint["attempts"][0]["steps"][0]["log"]["raw"]
        assert (await api.get(log)).text == "all fine\n"


async def test_rerun_failed_is_offered_only_where_something_passed_and_something_did_not(made: Made) -> None:
    scene = made.scene
    fine, broken = Done(name="test", log=b"ok\n"), Done(name="test", status="failure")
    for jobs_of, is_offered in (
        ([("a", [fine]), ("b", [broken])], True),
        ([("a", [fine]), ("b", [fine])], False),
        ([("a", [broken]), ("b", [broken])], False),
    ):
        build = await scene.build(made.repo_id, jobs_of)
        row = await scene.store.read(lambda c, build=build: builds.by_id(c, build))
        assert row is not None
        text = (await made.client.get(f"/r/ada/app/{row.number}")).text
        assert ("Rerun failed" in text) is is_offered
    answer = await send(made.client, "/r/ada/app/3/rerun", only="failed")
    assert answer.status_code == 303
    wrong = await send(made.client, "/r/ada/app/3/rerun", only="tests")
    assert wrong.status_code == 400


# --- unknown ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "status", "said"),
    [
        ("success", "success", "grace says that it passed"),
        ("failure", "failure", "grace says that it failed"),
        ("pending", "pending", "grace asked for another attempt"),
    ],
)
async def test_a_person_says_how_an_unknown_job_ended(
    made: Made, verdict: str, status: str, said: str
) -> None:
    scene = made.scene
    build = await scene.build(
        made.repo_id, [("ship", [Done(name="deploy", status="unknown", deploy=True, reason="lost")])]
    )
    words = _words((await made.client.get("/r/ada/app/3")).text)
    assert "Did ship do its work?" in words and "its commit status stays pending" in words
    async with scene.client(made.token) as api:
        address = "/api/repos/ada/app/builds/3/jobs/ship/resolve"
        wrong = await api.post(address, json={"verdict": "fine"})
        assert wrong.status_code == 400
        assert "one of success, failure, cancelled, pending" in wrong.text
        answer = await api.post(address, json={"verdict": verdict})
        assert (answer.status_code, answer.json()["status"]) == (200, status)
        assert (await api.post(address, json={"verdict": verdict})).status_code == 409
    row = await scene.store.read(lambda c: builds.by_id(c, build))
    assert row is not None and Status(row.status) is Status(status)
    (deed, *_) = await scene.store.read(audit.latest)
    assert (deed.action, deed.object) == ("build.resolve", "ada/app/3")
    assert deed.details == f"job ship: {said}"


async def test_cancel_leaves_a_row_in_the_audit_log(made: Made) -> None:
    assert (await send(made.client, "/r/ada/app/2/cancel")).status_code == 303
    assert await made.deeds() == [("build.cancel", "ada/app/2", "grace")]
