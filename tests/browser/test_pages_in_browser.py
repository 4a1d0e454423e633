"""What pages do in a browser: live parts, keys, the palette, and what is left without scripts."""

from __future__ import annotations

import json

import pytest
from playwright.async_api import Browser, Page, expect

from ci.server.forges import git
from ci.server.store import builds
from tests.browser.conftest import open_page, sign_in
from tests.browser.pages import lib
from tests.scene import Scene, blocked, fill, with_secrets

pytestmark = pytest.mark.browser


async def test_the_newest_line_stands_once_where_the_log_is_live(
    scene: Scene, site: str, browser: Browser
) -> None:
    await fill(scene)
    await blocked(scene, await scene.repo("ada", "asked"))
    await with_secrets(scene, 1)
    for has_scripts in (False, True):
        context = await browser.new_context(java_script_enabled=has_scripts)
        await sign_in(context, site)
        page = await context.new_page()
        await page.goto(f"{site}/r/ada/api/11")
        await expect(page.locator(".newest")).to_be_visible(visible=not has_scripts)
        await context.close()


async def test_without_scripts_a_build_can_be_read_and_cancelled(
    scene: Scene, site: str, browser: Browser
) -> None:
    ids = await fill(scene)
    context = await browser.new_context(java_script_enabled=False)
    await sign_in(context, site)
    page = await context.new_page()
    await page.goto(f"{site}/r/ada/api/8")
    await expect(page.locator(".answer .hit").first).to_contain_text("expected 3 rows, got 2")
    await expect(page.locator("#L1825")).to_be_visible()
    await expect(page.locator("#L1825 .fg1")).to_have_text("1 failed")
    await page.goto(f"{site}/r/ada/api/11")
    await page.click("text=Cancel")
    build = await scene.store.read(lambda c: builds.by_id(c, ids["running"]))
    assert build is not None and build.cancel_reason == "cancelled by ada"
    await page.click("button[value=dark]")
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    await context.close()


async def test_keys_move_through_rows_and_say_what_they_are(scene: Scene, site: str, page: Page) -> None:
    await fill(scene)
    await blocked(scene, await scene.repo("ada", "asked"))
    await with_secrets(scene, 1)
    await open_page(page, site)
    await page.keyboard.press("j")
    await page.keyboard.press("j")
    first = await page.evaluate("document.activeElement.getAttribute('href')")
    rows = await page.evaluate(
        "[...document.querySelectorAll('[data-row]')].map((a) => a.getAttribute('href'))"
    )
    assert first == rows[1]
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    await page.keyboard.press("Escape")
    await page.keyboard.press("/")
    await page.keyboard.type("status:failed")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/?q=status*")
    await expect(page.locator(".builds > li")).to_have_count(2)


async def test_the_palette_goes_to_a_repo_by_a_few_letters(scene: Scene, site: str, page: Page) -> None:
    await fill(scene)
    await blocked(scene, await scene.repo("ada", "asked"))
    await with_secrets(scene, 1)
    await open_page(page, site)
    await page.keyboard.press("Control+k")
    box = page.get_by_role("combobox", name="A page, a repo or a build")
    await expect(box).to_be_focused()
    await page.keyboard.type("ada/a")
    await expect(page.get_by_role("option", selected=True)).to_contain_text("ada/a")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/r/ada/a*")
    await page.keyboard.press("g")
    await page.keyboard.press("q")
    await page.wait_for_url("**/queue")


async def test_a_new_build_appears_in_the_list_without_a_reload(scene: Scene, site: str, page: Page) -> None:
    await fill(scene)
    await blocked(scene, await scene.repo("ada", "asked"))
    await with_secrets(scene, 1)
    await open_page(page, site)
    await page.evaluate("window.marker = 1")
    before = await page.locator(".builds > li").count()
    await scene.build(1, [("ci", [])], title="Just pushed")
    scene.bus.publish("builds")
    await expect(page.locator(".builds > li")).to_have_count(before + 1)
    await expect(page.locator(".builds > li").first).to_contain_text("Just pushed")
    assert await page.evaluate("window.marker") == 1


async def test_a_lost_server_is_told_after_three_seconds_and_found_again(
    scene: Scene, browser: Browser
) -> None:
    context = await browser.new_context()
    async with scene.serving() as site:
        await sign_in(context, site)
        page = await context.new_page()
        await open_page(page, site)
        await expect(page.locator("#offline")).to_be_hidden()
        await context.set_offline(True)
    await expect(page.locator("#offline")).to_be_visible(timeout=8000)
    await context.close()


async def test_the_first_delivery_appears_by_itself_and_so_does_its_verdict(
    scene: Scene, site: str, page: Page
) -> None:
    hook_id, secret = await lib(scene)
    await open_page(page, f"{site}/r/ada/lib/hook")
    await expect(page.locator("#came")).to_contain_text("waiting for the first delivery")
    push = {"push_id": "p1", "ref": "refs/heads/main", "before": "a" * 40, "after": "0" * 40}
    body = json.dumps(push).encode()
    await scene.hooks.receive(hook_id, {git.SIGNATURE_HEADER: git.signature(body, secret.encode())}, body)
    await expect(page.locator("#came")).to_contain_text("delivery received")
    await page.click("#came a")
    await expect(page.locator("#verdict")).to_contain_text("not looked at yet")
    await scene.inbox.process_waiting()
    await expect(page.locator("#verdict")).to_contain_text("was deleted, so there is nothing to build")
    await expect(page.locator("#verdict button")).to_have_text("Replay")
