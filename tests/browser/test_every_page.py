"""Every page of the route table in a browser: accessible, nowhere wider than the screen, printable."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Page, Request, Response, expect

from tests.browser.conftest import open_page, sign_in
from tests.browser.pages import DOORS, PAGES, furnish
from tests.scene import Scene
from tests.walk import entries

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

#: What a browser is given, and no page of it.
_NO_PAGES = re.compile(
    r"/api/|/static/|.*/(raw|index|marks|live)$|.*\.(svg|xml)$|/(find|healthz|metrics|live)$"
)
#: Is only there while there is no account.
_SETUP = "/setup"
MAX_SCRIPT_BYTES = 40 * 1024
#: Text that a box cuts off, on paper.
_CUT_OFF = """() => [...document.querySelectorAll("main *")].filter((each) => {
  const style = getComputedStyle(each);
  return each.checkVisibility() && style.overflowX !== "visible" && style.position !== "absolute"
    && each.scrollWidth > each.clientWidth + 1 && each.clientWidth > 1;
}).map((each) => each.outerHTML.slice(0, 160))"""


def _pattern(path: str) -> re.Pattern[str]:
    parts = re.split(r"{\w+(:int)?}", path)[::2]
    numbers = re.findall(r"{\w+(:int)?}", path)
    text = re.escape(parts[0])
    for part, is_number in zip(parts[1:], numbers, strict=True):
        text += (r"\d+" if is_number else r"[^/]+") + re.escape(part)
    return re.compile(text)


def test_no_page_of_the_route_table_is_forgotten() -> None:
    pages = [
        entry.path for entry in entries() if entry.methods == ("GET",) and not _NO_PAGES.match(entry.path)
    ]
    seen = [path.partition("?")[0] for path in (*DOORS.values(), *PAGES.values(), _SETUP)]
    missing = [path for path in pages if not any(_pattern(path).fullmatch(each) for each in seen)]
    assert missing == []
    assert len(pages) >= 25


async def _serious(page: Page, axe: str) -> list[str]:
    await page.evaluate(axe)
    found: list[dict[str, Any]] = await page.evaluate("axe.run().then((result) => result.violations)")
    return [
        f"{page.url} {each['id']} ({each['impact']}): {each['nodes'][0]['html'][:200]} "
        f"{each['nodes'][0]['failureSummary'][:300]}"
        for each in found
        if each["impact"] in ("serious", "critical")
    ]


async def _all_wrong(context: BrowserContext, site: str, axe: str) -> list[str]:
    """Of every page: what axe says, and what is wider than the screen."""
    wrong = []
    page = await context.new_page()

    async def look(path: str) -> None:
        await open_page(page, site + path)
        wrong.extend(await _serious(page, axe))
        over = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
        if over > 0:
            wrong.append(f"{page.url} is {over} px too wide")

    for path in DOORS.values():
        await look(path)
    await sign_in(context, site)
    for path in PAGES.values():
        await look(path)
    return wrong


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1440])
async def test_each_page_is_accessible_and_as_wide_as_the_screen(
    scene: Scene, site: str, browser: Browser, axe: str, theme: Any, width: int
) -> None:
    await furnish(scene)
    context = await browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
    wrong = await _all_wrong(context, site, axe)
    await context.close()
    assert wrong == [], "\n".join(wrong)


@pytest.mark.parametrize("width", [768, 1920])
async def test_no_page_is_wider_than_a_tablet_or_a_large_screen(
    scene: Scene, site: str, browser: Browser, width: int
) -> None:
    await furnish(scene)
    context = await browser.new_context(viewport={"width": width, "height": 800})
    wrong = await _all_wrong(context, site, "window.axe = {run: async () => ({violations: []})}")
    await context.close()
    assert wrong == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1440])
async def test_the_first_page_of_all_is_accessible(
    tmp_path: Any, browser: Browser, axe: str, theme: Any, width: int
) -> None:
    scene = Scene(tmp_path)
    await scene.open()
    context = await browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
    async with scene.serving() as site:
        page = await context.new_page()
        await open_page(page, site)
        assert page.url == f"{site}{_SETUP}"
        wrong = await _serious(page, axe)
        await context.close()
    await scene.close()
    assert wrong == []


@pytest.mark.parametrize("path", ["/", "/queue", "/r/ada/api/8", "/r/ada/api/8/ci/test?attempt=1"])
async def test_on_paper_stands_what_is_read_and_nothing_that_is_pressed(
    scene: Scene, site: str, page: Page, path: str
) -> None:
    await furnish(scene)
    await open_page(page, site + path)
    await page.emulate_media(media="print")
    await page.set_viewport_size({"width": 720, "height": 1000})
    await expect(page.locator("main")).to_be_visible()
    assert await page.locator(".bar, .foot, button, .button").filter(visible=True).all_inner_texts() == []
    assert await page.evaluate(_CUT_OFF) == []


async def test_the_page_of_a_log_comes_with_at_most_40_kb_of_javascript(
    scene: Scene, site: str, page: Page
) -> None:
    await furnish(scene)
    sizes: dict[str, int] = {}

    async def weigh(request: Request) -> None:
        answer = await request.response()
        if answer is not None and _is_script(answer):
            sizes[request.url] = (await request.sizes())["responseBodySize"]

    page.on("requestfinished", weigh)
    await page.goto(f"{site}/r/ada/api/8/ci/test?attempt=1")
    await page.wait_for_load_state("networkidle")
    await expect(page.locator("log-view")).to_have_attribute("data-ready", re.compile("."))
    assert len(sizes) >= 5
    assert sum(sizes.values()) <= MAX_SCRIPT_BYTES, sizes


def _is_script(answer: Response) -> bool:
    return "javascript" in answer.headers.get("content-type", "")
