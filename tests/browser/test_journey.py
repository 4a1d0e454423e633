"""From a server that nobody has to a stranger's pull request that is built: one person with a keyboard.

GitHub is a fake one that speaks HTTP; the server and its runner are the real commands. The same journey is
made with scripts and without.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, expect

from bench.whole import PASSWORD, Process, Shipway
from tests.browser.keyboard import Keyboard
from tests.fake_github import (
    TOKEN,
    FakeGitHub,
    Pull,
    Repo,
    pull_request_json,
    push_json,
    signed,
)

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]
SECRET = "never-to-be-seen-4711"
FAILS = """
skip_clone: true
steps:
  compile:
    image: busybox
    environment: {FAKE_OUTPUT: "compiled"}
    commands: [make]
  unit tests:
    image: busybox
    environment: {FAKE_OUTPUT: "FAIL: expected 3 rows, got 2", FAKE_EXIT: "1"}
    commands: [make test]
"""
PASSES = FAILS.replace('"1"', '"0"').replace("FAIL: expected 3 rows, got 2", "all rows are there")
DEPLOYS = """
skip_clone: true
steps:
  deploy:
    image: busybox
    environment:
      FAKE_OUTPUT: {from_secret: deploy_key}
    commands: [./deploy]
"""


@dataclass(kw_only=True)
class Journey:
    """A person at the keyboard, and the world around: a server, a forge, later a runner."""

    you: Keyboard
    shipway: Shipway
    github: FakeGitHub
    far: Repo
    address: str = ""  #: of the webhook, as the page shows it
    secret: str = ""
    runners: list[Process] = field(default_factory=list)

    async def deliver(self, event: str, body: dict[str, Any]) -> None:
        delivery = signed(event, body, self.secret)
        async with httpx.AsyncClient() as client:
            answer = await client.post(self.address, content=delivery.body, headers=delivery.headers)
        assert answer.status_code in (200, 202), answer.text

    async def push(self, pipeline: str, message: str) -> None:
        self.far.commit("refs/heads/main", {".ci.yml": pipeline}, message)
        await self.deliver("push", push_json(self.far, "refs/heads/main"))

    def start_runner(self, command: str) -> None:
        """As the page says, but for the engine."""
        found = re.search(r"echo (\S+) \| shipway runner --server (\S+)", command)
        assert found, command
        arguments = [
            "runner",
            "--server",
            found[2],
            "--data",
            str(self.shipway.folder / "r1"),
            "--name",
            "r1",
        ]
        log = self.shipway.folder / "r1.log"
        self.runners.append(
            Process([*arguments, "--engine", "fake"], self.shipway.folder, log, stdin=found[1] + "\n")
        )


@pytest.fixture
def shipway(tmp_path: Path) -> Iterator[Shipway]:
    """A server that nobody has used, without a runner."""
    shipway = Shipway(tmp_path, runner="off")
    try:
        shipway.start()
        yield shipway
    finally:
        shipway.end()


@pytest.fixture(params=[True, False], ids=["with scripts", "without scripts"])
async def journey(
    request: pytest.FixtureRequest, shipway: Shipway, browser: Browser
) -> AsyncIterator[Journey]:
    has_scripts = bool(request.param)
    context = await browser.new_context(
        java_script_enabled=has_scripts,
        viewport={"width": 1280, "height": 800},
        permissions=["clipboard-read", "clipboard-write"],
    )
    wrong: list[str] = []
    context.on("dialog", lambda dialog: asyncio.ensure_future(dialog.accept()))
    context.on("weberror", lambda error: wrong.append(str(error.error)))
    with FakeGitHub().running() as github:
        page = await context.new_page()
        you = await Keyboard.at(page, has_scripts=has_scripts)
        journey = Journey(you=you, shipway=shipway, github=github, far=github.repo(7, "ada", "app"))
        yield journey
        await context.close()
        for runner in journey.runners:
            runner.end()
    assert wrong == []


async def test_a_keyboard_leads_from_the_first_run_to_a_strangers_pull_request(journey: Journey) -> None:
    await _make_the_first_account(journey)
    await _add_a_repo(journey)
    await _see_the_first_delivery(journey)
    await _register_a_runner(journey)
    await _see_why_it_failed(journey)
    await _rerun_it(journey)
    await _approve_a_stranger(journey)
    await _set_a_secret(journey)
    assert SECRET not in journey.shipway.server.said()  # type: ignore[union-attr]


async def _make_the_first_account(journey: Journey) -> None:
    you, page = journey.you, journey.you.page
    await page.goto(journey.shipway.url)
    await expect(page.get_by_role("heading", name="Make the first account")).to_be_visible()
    code = re.search(r"setup code\s+(\S+)", journey.shipway.server.said())  # type: ignore[union-attr]
    assert code
    await you.type_into("Setup code", "not the code")
    await you.type_into("Name", "ada")
    await you.type_into("Password", PASSWORD)
    await you.enter()
    await expect(page.get_by_role("alert")).to_contain_text("code")
    await expect(page.get_by_role("textbox", name="Name")).to_have_value("ada")
    await you.type_into("Setup code", code[1])
    await you.type_into("Password", PASSWORD)
    await you.go("Make account", "button")
    await expect(page.get_by_role("heading", name="No build yet")).to_be_visible()


async def _add_a_repo(journey: Journey) -> None:
    you, page = journey.you, journey.you.page
    journey.far.commit("refs/heads/main", {".ci.yml": FAILS}, "Read three rows")
    await you.go("Repos", "link")
    await you.go("Add a repo", "link")
    await you.go("GitHub", "link")
    await you.type_into("Repo", "ada/app")
    await you.type_into("Token", "not-the-token")
    await you.type_into("API", journey.github.url)
    await you.enter()
    await expect(page.get_by_role("alert")).to_contain_text("token")
    await expect(page.get_by_role("textbox", name="Repo")).to_have_value("ada/app")
    await you.type_into("Token", TOKEN)
    await you.go("Add the repo", "button")
    await expect(page.get_by_role("heading", name="Connect ada/app")).to_be_visible()
    shown = page.locator(".copyable pre")
    journey.address, journey.secret = await you.copy(shown.nth(0)), await you.copy(shown.nth(1))


async def _see_the_first_delivery(journey: Journey) -> None:
    you, page = journey.you, journey.you.page
    await expect(page.locator("#came")).to_contain_text("waiting for the first delivery")
    await journey.deliver("ping", {"zen": "Design for failure.", "repository": journey.far.json()})
    await you.sees(page.locator("#came").get_by_text("delivery received"))
    await journey.deliver("push", push_json(journey.far, "refs/heads/main"))
    await you.sees(page.locator("#came").get_by_role("link", name="push"))
    await you.go("push", "link")
    await you.sees(page.locator("#verdict").get_by_role("link", name="built #1"))
    await you.go("built #1", "link")
    await expect(page.get_by_role("heading", name="Read three rows")).to_be_visible()
    await you.sees(page.locator("#answers").get_by_text("no runner"))


async def _register_a_runner(journey: Journey) -> None:
    you, page = journey.you, journey.you.page
    await you.go("Runners", "link")
    await expect(page.get_by_role("heading", name="No runner yet")).to_be_visible()
    await you.go("Add a runner", "button")
    command = page.locator(".copyable pre")
    await expect(command).to_contain_text("shipway runner")
    journey.start_runner(await you.copy(command))
    await you.sees(page.locator("#hello").get_by_text("connected"))
    await expect(page.locator("#hello")).to_contain_text("r1 has come")


async def _see_why_it_failed(journey: Journey) -> None:
    you, page = journey.you, journey.you.page
    await _to_the_builds(you)
    await you.sees(page.locator(".builds").get_by_text("exited with 1"))
    await _open_first_row(you, "Read three rows")
    answer = page.get_by_role("region", name="What failed")
    await expect(answer).to_contain_text("unit tests exited with 1")
    await expect(answer.locator(".hit")).to_contain_text("FAIL: expected 3 rows, got 2")
    await you.go("Go to line", "link")
    await expect(page.get_by_text("The lines are on their way")).to_be_hidden()
    line = page.locator(".log .line.hit, .log .line:target").filter(visible=True)
    await you.sees(line.get_by_text("FAIL: expected 3 rows, got 2"))


async def _rerun_it(journey: Journey) -> None:
    you, page = journey.you, journey.you.page
    if you.has_scripts:
        await you.press("r")
    else:
        await you.go("Rerun", "button")
    await page.wait_for_url("**/r/ada/app/2")
    await you.sees(page.locator("#head").get_by_text("rerun of #1"))
    await you.sees(page.locator("#head").get_by_text("failed", exact=True))


async def _approve_a_stranger(journey: Journey) -> None:
    you, page, far = journey.you, journey.you.page, journey.far
    head = far.commit("refs/pull/7/head", {".ci.yml": PASSES}, "Read the third row, too")
    far.pulls[7] = Pull(number=7, head=head, head_repo_key=99, files=[".ci.yml"])
    await _to_the_builds(you)
    await journey.deliver("pull_request", pull_request_json(far, far.pulls[7], "opened", sender="mallory"))
    await you.sees(page.locator("#running-now").get_by_text("Needs you"))
    await you.go("Look and answer", "link")
    question = page.get_by_role("region", name="An approval")
    await expect(question).to_contain_text("mallory")
    await expect(question.locator(".added").first).to_contain_text("all rows are there")
    if you.has_scripts:
        await you.press("a")
    else:
        await you.go("Approve", "button")
    await you.sees(page.locator("#head").get_by_text("approved by ada"))
    await you.sees(page.locator("#head").get_by_text("passed", exact=True))


async def _set_a_secret(journey: Journey) -> None:
    you, page = journey.you, journey.you.page
    await you.go("ada/app", "link")
    await you.go("Secrets", "link")
    await expect(page.get_by_role("heading", name="No secret yet")).to_be_visible()
    await you.type_into("Name", "deploy_key")
    await you.type_into("Value", SECRET)
    await you.tab_to("push", "checkbox")
    await you.press("Space")
    await you.go("Set the secret", "button")
    await expect(page.get_by_role("status")).to_contain_text("deploy_key is set")
    assert SECRET not in await page.content()
    await journey.push(DEPLOYS, "Deploy the rows")
    await _to_the_builds(you)
    await you.sees(page.locator(".builds").get_by_text("Deploy the rows"))
    await _open_first_row(you, "Deploy the rows")
    await you.sees(page.locator("#head").get_by_text("passed", exact=True))
    await you.sees(page.locator(".log .line").filter(has_text="***", visible=True))
    assert SECRET not in await page.content()


async def _to_the_builds(you: Keyboard) -> None:
    if you.has_scripts:
        await you.press("g")
        await you.press("h")
    else:
        await you.go("Builds", "link")
    await you.page.wait_for_url(re.compile(r"//[^/]+/$"))


async def _open_first_row(you: Keyboard, title: str) -> None:
    if you.has_scripts:
        await you.press("j")
        assert await you.focused() == ("link", title)
        await you.enter()
    else:
        await you.go(title, "link")
    await expect(you.page.get_by_role("heading", name=title, exact=True)).to_be_visible()
