"""A real Chromium before a real server. What the pages show is made by tests/scene.py."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, BrowserContext, Page, TimeoutError, async_playwright

from tests import npm
from tests.scene import PASSWORD, Scene

#: Scripts run, and the log that the page may have is open. A function: a string would be eval.
_IS_READY = """() => [...document.querySelectorAll("log-view")].every((view) => view.dataset.ready)
  && document.cookie.includes("shipway_scripts")"""
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    scene = Scene(tmp_path)
    await scene.open()
    await scene.user()
    yield scene
    await scene.close()


@pytest.fixture
async def site(scene: Scene) -> AsyncIterator[str]:
    async with scene.serving() as url:
        yield url


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest.fixture
async def context(browser: Browser, site: str) -> AsyncIterator[BrowserContext]:
    """Signed in. Fails the test if a page breaks its own Content-Security-Policy or throws."""
    context = await browser.new_context(viewport={"width": 1440, "height": 900})
    wrong: list[str] = []
    context.on("weberror", lambda error: wrong.append(str(error.error)))
    context.on(
        "console",
        lambda message: wrong.append(message.text) if "Content Security Policy" in message.text else None,
    )
    await sign_in(context, site)
    yield context
    await context.close()
    assert wrong == []


@pytest.fixture
async def page(context: BrowserContext) -> Page:
    return await context.new_page()


async def open_page(page: Page, url: str) -> None:
    """With its log, if it has one. Chromium ends all requests when some network interface of the machine
    comes or goes, as containers' do: then the page is opened again."""
    for _ in range(5):
        await page.goto(url)
        with contextlib.suppress(TimeoutError):
            await page.wait_for_function(_IS_READY, timeout=5000)
            return
    pytest.fail(f"{url} does not open")


async def sign_in(context: BrowserContext, site: str) -> None:
    page = await context.new_page()
    await page.goto(f"{site}/sign-in")
    await page.fill("[name=name]", "ada")
    await page.fill("[name=password]", PASSWORD)
    await page.click("button.primary")
    await page.wait_for_url(f"{site}/")
    await page.close()


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core, as the lock file pins it."""
    return npm.file("axe-core/axe.min.js").read_text()
