"""Badge, cctray, palette and queue: what each shows, and to whom."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ci.event import Kind
from tests.scene import Done, Scene
from web import badge

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    scene = Scene(tmp_path)
    await scene.open()
    await scene.user()
    yield scene
    await scene.close()


async def test_a_badge_says_how_the_branch_stands(scene: Scene) -> None:
    repo = await scene.repo("ada", "app", is_private=False)
    async with scene.client() as client:
        assert "no build" in (await client.get("/r/ada/app/badge.svg")).text
        await scene.build(repo, [("ci", [Done(name="test")])])
        await scene.build(repo, [("ci", [Done(name="test", status="failure", exit_code=1)])], branch="next")
        await scene.build(
            repo, [("ci", [Done(name="test", status="failure")])], kind=Kind.PULL_REQUEST, branch="main"
        )
        answer = await client.get("/r/ada/app/badge.svg?branch=main")
        assert answer.headers["content-type"] == "image/svg+xml"
        assert ElementTree.fromstring(answer.text).get("aria-label") == "build: passed"
        other = await client.get("/r/ada/app/badge.svg?branch=next&label=%3Cscript%3E")
        assert ElementTree.fromstring(other.text).findtext(f"{SVG}title") == "<script>: failed"
        assert "<script>" not in other.text


async def test_a_badge_that_is_known_is_not_sent_again(scene: Scene) -> None:
    await scene.repo("ada", "app", is_private=False)
    async with scene.client() as client:
        first = await client.get("/r/ada/app/badge.svg")
        again = await client.get("/r/ada/app/badge.svg", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_a_private_repo_has_no_badge_for_strangers(scene: Scene) -> None:
    await scene.repo("ada", "app")
    bob = await scene.user("bob", is_admin=False)
    async with scene.client(bob) as client:
        assert (await client.get("/r/ada/app/badge.svg")).status_code == 404


def test_any_text_makes_a_badge() -> None:
    for text in ("\x00\x1b[31m", "]]>&", "\ud800"[:0] + "\u202e", "a" * 60):
        ElementTree.fromstring(badge.svg(text, "passed", "#000"))


async def test_cctray_lists_what_one_may_read(scene: Scene) -> None:
    public = await scene.repo("ada", "open", is_private=False)
    private = await scene.repo("ada", "closed")
    for repo in (public, private):
        await scene.build(repo, [("ci", [Done(name="test")])])
    await scene.build(public, [("ci", [Done(name="test", status="running")])], status="running")
    async with scene.client() as client:
        root = ElementTree.fromstring((await client.get("/cc.xml")).content)
    (project,) = root
    assert project.attrib["name"] == "ada/open"
    assert project.attrib["activity"] == "Building"
    assert project.attrib["lastBuildStatus"] == "Success"
    assert project.attrib["lastBuildLabel"] == "1"
    assert project.attrib["webUrl"].endswith("/r/ada/open")


async def test_the_palette_offers_only_what_may_be_opened(scene: Scene) -> None:
    repo = await scene.repo("ada", "secretive")
    await scene.build(repo, [("ci", [Done(name="test")])], title="Secretive change")
    ada, bob = await scene.user("eve"), await scene.user("bob", is_admin=False)
    async with scene.client(ada) as client:
        found = (await client.get("/find?q=secretive")).json()["found"]
    assert [(each["kind"], each["url"]) for each in found] == [
        ("repo", "/r/ada/secretive"),
        ("build", "/r/ada/secretive/1"),
    ]
    async with scene.client(bob) as client:
        assert (await client.get("/find?q=secretive")).json() == {"found": []}
        assert [each["url"] for each in (await client.get("/find?q=que")).json()["found"]] == ["/queue"]


async def test_the_queue_says_why_each_job_waits_and_hides_whose_it_is(scene: Scene) -> None:
    repo = await scene.repo("ada", "app")
    await scene.build(
        repo, [("ci", [Done(name="test", status="pending")])], status="pending", labels={"gpu": "yes"}
    )
    ada, bob = await scene.user("eve"), await scene.user("bob", is_admin=False)
    async with scene.client(ada) as client:
        mine = (await client.get("/queue", headers={"accept": "text/html"})).text
    assert "/r/ada/app/1" in mine
    assert "no runner is registered yet" in mine
    await scene.runner("r1")
    async with scene.client(bob) as client:
        theirs = (await client.get("/queue", headers={"accept": "text/html"})).text
    assert "a job of another repo" in theirs
    assert "ada/app" not in theirs
