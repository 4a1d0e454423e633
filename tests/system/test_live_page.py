"""The log page while the step prints, in a real browser, through a proxy that cuts its socket."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from bench.cutting import CuttingProxy
from bench.whole import PASSWORD, ROOT, Shipway, Work

pytestmark = [pytest.mark.docker, pytest.mark.browser, pytest.mark.timeout(180)]

CLOCK = """
skip_clone: true
steps:
  clock:
    image: busybox
    commands:
      - for i in $(seq 12); do echo "tick $i at $(date +%s)"; sleep 1; done
"""
LONG = """
skip_clone: true
steps:
  long:
    image: busybox
    commands:
      - for i in $(seq 30); do for j in $(seq 100); do echo "line $j of burst $i."; done; usleep 200000; done
"""


@pytest.fixture
def proxy() -> Iterator[CuttingProxy]:
    proxy = CuttingProxy(b"/live?attempt", cuts=[700, 20_000, 35_001])
    yield proxy
    proxy.close()


@pytest.fixture
def shipway(tmp_path: Path, proxy: CuttingProxy) -> Iterator[Shipway]:
    subprocess.run([str(ROOT / "scripts/images")], check=True)
    shipway = Shipway(tmp_path, runner="on", public_url=proxy.url)
    try:
        shipway.start()
        shipway.set_up()
        proxy.start(shipway.port)
        shipway.wait_for_runner()
        yield shipway
    finally:
        shipway.end()


@pytest.fixture
def page(shipway: Shipway, proxy: CuttingProxy) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(f"{proxy.url}/sign-in")
        page.fill("input[name=name]", "ada")
        page.fill("input[name=password]", PASSWORD)
        page.click("main button")
        page.wait_for_url(f"{proxy.url}/")
        yield page
        browser.close()


def push(shipway: Shipway, config: str) -> str:
    """The path of the build's one job."""
    work = Work(shipway, "ada/app")
    work.commit({".ci.yml": config})
    work.push()
    build = shipway.wait("ada/app/1", "running")
    return f"/r/ada/app/1/{build['jobs'][0]['slug']}"


def test_each_line_is_on_the_page_while_the_step_still_runs(
    shipway: Shipway, page: Page, proxy: CuttingProxy
) -> None:
    job = push(shipway, CLOCK)
    page.goto(f"{proxy.url}{job}/clock?attempt=1")
    for number in range(1, 12):
        line = page.get_by_text(f"tick {number} at", exact=False)
        line.wait_for(timeout=20_000)
        stamp = int(line.inner_text().rsplit(" ", 1)[1])
        assert time.time() - stamp < 3
    assert shipway.build("ada/app/1")["status"] == "running"
    shipway.wait("ada/app/1", "success")


def test_a_page_opened_midway_shows_the_earlier_lines(
    shipway: Shipway, page: Page, proxy: CuttingProxy
) -> None:
    job = push(shipway, CLOCK)
    page.goto(f"{proxy.url}{job}/clock?attempt=1")
    page.get_by_text("tick 6 at").wait_for(timeout=30_000)
    page.reload()
    page.get_by_text("tick 1 at").wait_for(timeout=10_000)
    assert shipway.build("ada/app/1")["status"] == "running"


def test_a_socket_cut_three_times_in_mid_frame_leaves_the_page_equal_to_the_raw_log(
    shipway: Shipway, page: Page, proxy: CuttingProxy
) -> None:
    job = push(shipway, LONG)
    page.goto(f"{proxy.url}{job}/long?attempt=1")
    shipway.wait("ada/app/1", "success")
    page.get_by_text("line 100 of burst 30.").wait_for(timeout=20_000)
    raw = shipway.raw(f"{job.removeprefix('/r/')}/long").decode()
    assert proxy.cut == 3
    assert raw.count("\n") == 3000
    assert scrolled_text(page) == raw


def scrolled_text(page: Page) -> str:
    """The whole text, collected by scrolling through the log from its first line to its last."""
    lines: dict[int, str] = {}
    page.evaluate("document.querySelector('log-view [role=log]').scrollTop = 0")
    for _ in range(2000):
        page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        found = page.evaluate(
            """() => [...document.querySelectorAll('log-view .line[id]')].map(
                 line => [Number(line.id.slice(1)), line.lastElementChild.textContent])"""
        )
        lines |= {number: text for number, text in found}
        is_at_end = page.evaluate(
            """() => { const box = document.querySelector('log-view [role=log]');
                 const before = box.scrollTop; box.scrollTop += box.clientHeight / 2;
                 return box.scrollTop === before; }"""
        )
        if is_at_end:
            break
    return "".join(lines[number] + "\n" for number in sorted(lines))
