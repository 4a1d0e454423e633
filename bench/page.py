"""The log page in a real Chromium: a log of 200,000 lines, opened, jumped through and scrolled.

Times are the browser's own, from the start of the navigation until the frame in which the text stands.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import tempfile
from pathlib import Path
from shutil import which
from typing import Any

from playwright.async_api import Browser, BrowserContext, Page, TimeoutError, async_playwright

from bench.report import Report
from tests.scene import PASSWORD, Done, Scene
from web.assets import Assets

LINES = 200_000
ROUNDS = 7
STEP = "/r/ada/app/1/ci/test?attempt=1"
#: Notes when the wanted line first stands on the page.
_WATCH = """
const wanted = location.hash || "#L1";
const look = () => {
  const line = document.querySelector(wanted + " .t");
  if (line && line.textContent.length > 1) window.textAt ??= performance.now();
  if (!window.textAt) requestAnimationFrame(look);
};
requestAnimationFrame(look);
"""
_SCROLL = """async () => {
  const box = document.querySelector("log-view .text"), frames = [];
  let before = await new Promise(requestAnimationFrame);
  for (let n = 0; n < 120; n++) {
    box.scrollTop += 3000;
    const now = await new Promise(requestAnimationFrame);
    frames.push(now - before);
    before = now;
  }
  return frames;
}"""
_TEXT_AT = """async () => {
  while (!window.textAt) await new Promise(requestAnimationFrame);
  return window.textAt;
}"""
_END = """async () => {
  const box = document.querySelector("log-view .text"), began = performance.now();
  box.scrollTop = box.scrollHeight;
  const line = () => document.querySelector("#L%d .t")?.textContent ?? "";
  while (line().length < 2) await new Promise(requestAnimationFrame);
  return performance.now() - began;
}"""


def _log() -> bytes:
    return b"".join(
        b"%06d \x1b[32mtests/test_orders.py\x1b[0m::test_case PASSED %s\n" % (n, b"." * (n % 60))
        for n in range(1, LINES + 1)
    )


async def _sign_in(context: BrowserContext, site: str) -> None:
    page = await context.new_page()
    await page.goto(f"{site}/sign-in")
    await page.fill("[name=name]", "ada")
    await page.fill("[name=password]", PASSWORD)
    await page.click("button.primary")
    await page.wait_for_url(f"{site}/")
    await page.close()


async def _open(browser: Browser, state: Any, url: str) -> tuple[Page, float]:
    """In a browser with an empty cache; the page, and milliseconds until its text stood."""
    context = await browser.new_context(viewport={"width": 1440, "height": 900}, storage_state=state)
    await context.add_init_script(_WATCH)
    page = await context.new_page()
    for _ in range(5):
        await page.goto(url)
        # Chromium ends all requests when some network interface comes or goes: then open it again.
        with contextlib.suppress(TimeoutError):
            await page.wait_for_selector("log-view[data-ready]", timeout=5000)
            return page, float(await page.evaluate(_TEXT_AT))
    raise SystemExit(f"{url} does not open")


async def _measure(report: Report, site: str, browser: Browser) -> None:
    first = await browser.new_context()
    await _sign_in(first, site)
    state = await first.storage_state()
    opened, linked, ended, frames, nodes = [], [], [], [], []
    for _ in range(ROUNDS):
        page, milliseconds = await _open(browser, state, site + STEP)
        opened.append(milliseconds)
        ended.append(float(await page.evaluate(_END % LINES)))
        await page.keyboard.press("g")
        frames += await page.evaluate(_SCROLL)
        nodes.append(int(await page.evaluate("document.querySelectorAll('log-view *').length")))
        await page.context.close()
        page, milliseconds = await _open(browser, state, f"{site}{STEP}#L150000")
        linked.append(milliseconds)
        await page.context.close()
    report.add("open 200,000 lines, until text stands", opened, "ms", "at most 1000")
    report.add("cold link to line 150,000", linked, "ms", "at most 300")
    report.add("from the first line to the last", ended, "ms", "at most 100")
    report.add("frame while scrolling", frames, "ms", "at most 17")
    slow = statistics.quantiles(frames, n=20)[18]
    report.add_value("frame while scrolling, p95", slow, frames, "ms", "at most 34")
    report.add("nodes in the log", nodes, "", "at most 1500")


async def main() -> None:
    report = Report(bench="page")
    report.add("JavaScript of all modules, gzip", [Assets().packed_size(".js") / 1000], "KB", "at most 40")
    report.add("CSS, gzip", [Assets().packed_size(".css") / 1000], "KB", "at most 15")
    with tempfile.TemporaryDirectory(prefix="shipway-bench-") as folder:
        scene = Scene(Path(folder))
        await scene.open()
        await scene.user()
        repo = await scene.repo("ada", "app")
        await scene.build(repo, [("ci", [Done(name="test", log=_log())])])
        async with scene.serving() as site, async_playwright() as playwright:
            browser = await playwright.chromium.launch(
                executable_path=which("chromium") or "/usr/bin/chromium", args=["--no-sandbox"]
            )
            await _measure(report, site, browser)
            await browser.close()
        await scene.close()


if __name__ == "__main__":
    asyncio.run(main())
