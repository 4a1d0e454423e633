"""The log view: live, whole after every cut, and as quick with 200,000 lines as with ten."""

from __future__ import annotations

import asyncio
import re
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
from playwright.async_api import BrowserContext, Page, expect
from sqlalchemy import Connection, update

from ci.protocol import Stream
from ci.server.logs import LogKey
from ci.server.store import builds, tables
from ci.status import Status
from tests.browser.conftest import open_page
from tests.scene import Done, Scene
from web import ansi

pytestmark = pytest.mark.browser
STEP = "/r/ada/app/1/ci/test?attempt=1"
MAX_NODES = 1500


async def _step(scene: Scene, log: bytes = b"", status: str = "success", **values: object) -> LogKey:
    repo = await scene.repo("ada", "app")
    done = Done(name="test", status=status, log=log, is_open=status == "running", **values)  # type: ignore[arg-type]
    return await scene.key_of(await scene.build(repo, [("ci", [done])]))


async def _close(scene: Scene, key: LogKey) -> None:
    """The step's log is whole, as a runner says it at the end."""
    for stream in Stream:
        each = LogKey(key.job, key.attempt, key.step, stream)
        size = scene.logs.size(each)
        crc = zlib.crc32(scene.logs.read(each, 0, size))
        assert await scene.logs.close_stream(each, size, crc) is None


async def _collect(page: Page) -> list[str]:
    """Every line of the log, by scrolling through it as a person would."""
    return await page.evaluate(
        """async () => {
          const box = document.querySelector("log-view .text"), found = new Map();
          const frame = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
          box.scrollTop = 0;
          for (;;) {
            await frame();
            let missing = false;
            for (const line of box.querySelectorAll(".line")) {
              const text = line.querySelector(".t").textContent;
              if (text === "…") missing = true;
              else found.set(Number(line.id.slice(1)), text);
            }
            if (missing) continue;
            if (box.scrollTop + box.clientHeight >= box.scrollHeight - 1) break;
            box.scrollTop += box.clientHeight - 60;
          }
          const count = Math.max(...found.keys());
          return Array.from({ length: count }, (_, at) => found.get(at + 1) ?? null);
        }"""
    )


async def test_each_line_is_on_the_page_while_the_step_still_runs(
    scene: Scene, site: str, page: Page
) -> None:
    key = await _step(scene, b"before the page was opened\n", "running")
    await open_page(page, site + STEP)
    await expect(page.locator("#L1 .t")).to_have_text("before the page was opened")
    for number in range(2, 8):
        line = f"the step's own clock says {time.time():.3f}"
        await scene.logs.append(key, scene.logs.size(key), line.encode() + b"\n")
        await expect(page.locator(f"#L{number} .t")).to_have_text(line, timeout=2000)
    assert not scene.logs.is_closed(key)
    await expect(page.locator("log-view .tail")).to_contain_text("following")


async def test_a_line_without_its_end_is_shown_and_completed(scene: Scene, site: str, page: Page) -> None:
    key = await _step(scene, b"", "running")
    await open_page(page, site + STEP)
    await scene.logs.append(key, 0, b"half a l")
    await expect(page.locator("#L1 .t")).to_have_text("half a l")
    await scene.logs.append(key, 8, "ine ü".encode()[:-1])
    await scene.logs.append(key, 13, "ü\n".encode()[1:] + b"next\n")
    await expect(page.locator("#L1 .t")).to_have_text("half a line ü")
    await expect(page.locator("#L2 .t")).to_have_text("next")


async def test_scrolling_up_pauses_and_the_button_goes_on(scene: Scene, site: str, page: Page) -> None:
    key = await _step(scene, b"".join(b"line %d\n" % n for n in range(1, 501)), "running")
    await open_page(page, site + STEP)
    await expect(page.locator("#L500")).to_be_visible()
    await page.locator("log-view .text").hover()
    await page.mouse.wheel(0, -3000)
    await expect(page.locator("log-view .tail")).to_contain_text("paused")
    top = await page.evaluate("document.querySelector('log-view .text').scrollTop")
    await scene.logs.append(key, scene.logs.size(key), b"a\nb\nc\n")
    await expect(page.locator("log-view .more")).to_have_text("↓ 3 new lines")
    assert await page.evaluate("document.querySelector('log-view .text').scrollTop") == top
    await page.click("log-view .more")
    await expect(page.locator("#L503")).to_be_visible()


@asynccontextmanager
async def _cutting_proxy(site: str, cuts: list[int]) -> AsyncIterator[tuple[str, list[int]]]:
    """Passes bytes on, but ends each of the first sockets after so many bytes of the log, in mid-frame."""
    target = urlsplit(site)
    done: list[int] = []

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int | None) -> None:
        passed = 0
        while data := await reader.read(1000):
            if limit is not None and passed + len(data) > limit:
                writer.write(data[: limit - passed])
                await writer.drain()
                done.append(limit)
                break
            passed += len(data)
            writer.write(data)
            await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        up_reader, up_writer = await asyncio.open_connection(target.hostname, target.port)
        # One request a connection, so that each head is seen.
        if b"Upgrade: websocket" not in head:
            head = head.replace(b"Connection: keep-alive", b"Connection: close")
        is_log = re.match(rb"GET \S+/live\?attempt=", head) is not None
        limit = cuts.pop(0) if is_log and cuts else None
        up_writer.write(head)
        tasks = [
            asyncio.create_task(pipe(reader, up_writer, None)),
            asyncio.create_task(pipe(up_reader, writer, limit)),
        ]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for each in (writer, up_writer):
            each.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}", done
    finally:
        server.close()


async def test_after_three_cuts_in_mid_frame_the_text_equals_the_raw_log(
    scene: Scene, site: str, context: BrowserContext
) -> None:
    key = await _step(scene, b"", "running")
    lines = [f"line {n} ümlaut € {'x' * (n % 90)}" for n in range(1, 6001)]
    data = "".join(line + "\n" for line in lines).encode()
    async with _cutting_proxy(site, [30_001, 90_003, 50_007]) as (proxy, cut):
        page = await context.new_page()
        await open_page(page, proxy + STEP)
        for offset in range(0, len(data), 7001):
            await scene.logs.append(key, offset, data[offset : offset + 7001])
            if offset // 7001 % 8 == 0:
                await expect(page.locator("log-view .tail .num")).not_to_be_empty()
        await _close(scene, key)
        await expect(page.locator("log-view .tail .num")).to_contain_text("6\u202f000 lines", timeout=15_000)
        await expect(page.locator("#L6000")).to_be_visible()
        assert cut == [30_001, 90_003, 50_007]
        assert await _collect(page) == lines
        await page.close()


def _long_log() -> bytes:
    return b"".join(
        b"%06d \x1b[32mtest_case\x1b[0m of the suite: %s\n" % (n, b"." * 40) for n in range(1, 200_001)
    )


async def _nodes(page: Page) -> int:
    return int(await page.evaluate("document.querySelectorAll('log-view *').length"))


async def test_two_hundred_thousand_lines_open_at_both_ends_and_by_a_cold_link(
    scene: Scene, site: str, context: BrowserContext
) -> None:
    await _step(scene, _long_log(), exit_code=0)
    page = await context.new_page()
    await open_page(page, site + STEP)
    await expect(page.locator("#L1 .t")).to_contain_text("000001 test_case")
    assert await _nodes(page) <= MAX_NODES
    await page.keyboard.press("G")
    await expect(page.locator("#L200000 .t")).to_contain_text("200000 test_case")
    assert await _nodes(page) <= MAX_NODES
    cold = await context.new_page()
    await open_page(cold, f"{site}{STEP}#L150000-L150002")
    await expect(cold.locator("#L150000 .t")).to_contain_text("150000 test_case")
    await expect(cold.locator(".line.hit")).to_have_count(3)
    assert await _nodes(cold) <= MAX_NODES


async def test_find_goes_through_the_whole_log(scene: Scene, site: str, page: Page) -> None:
    await _step(scene, _long_log())
    await open_page(page, site + STEP)
    await page.keyboard.press("/")
    await page.keyboard.type("CASE of the suite: ....")
    await page.fill(".find input", "123456 TEST_case")
    await page.keyboard.press("Enter")
    await expect(page.locator(".line.found.here .t")).to_contain_text("123456 test_case")
    await expect(page.locator(".find output")).to_have_text("1 of 1")


async def test_a_line_is_linked_with_its_attempt_and_a_range_by_shift(
    scene: Scene, site: str, page: Page
) -> None:
    await _step(scene, b"".join(b"line %d\n" % n for n in range(1, 30)))
    await open_page(page, f"{site}/r/ada/app/1")
    await page.click("#L5 > a")
    await page.click("#L9 > a", modifiers=["Shift"])
    await expect(page).to_have_url(f"{site}/r/ada/app/1/ci/test?attempt=1#L5-L9")
    await expect(page.locator(".line.hit")).to_have_count(5)


async def test_commands_are_folds_with_their_durations_and_exit_codes(
    scene: Scene, site: str, page: Page
) -> None:
    marks = [(0, 0.1, "begin", 0), (8, 2.3, "end", [0, 0]), (8, 2.3, "begin", 1), (14, 9.0, "end", [1, 3])]
    await _step(scene, b"one\ntwo\nthree\n", "failure", marks=marks, commands=("echo", "make\ntest"))
    await open_page(page, site + STEP)
    folds = page.locator(".fold")
    await expect(folds.nth(0)).to_contain_text("$ echo")
    await expect(folds.nth(0)).to_contain_text("2.2s")
    await expect(folds.nth(1)).to_contain_text("$ make …")
    await expect(folds.nth(1)).to_contain_text("6.7s · exit 3")
    await folds.nth(0).locator("button").click()
    await expect(page.locator("#L1")).to_have_count(0)
    await expect(page.locator("#L3")).to_be_visible()
    await page.evaluate("location.hash = '#L2'")
    await expect(page.locator("#L2")).to_be_visible()


async def test_what_was_left_out_is_said_in_words(scene: Scene, site: str, page: Page) -> None:
    marks = [(4, 1.0, "elided", [4, 3_000_004])]
    await _step(scene, b"one\nend\n", marks=marks)
    await open_page(page, site + STEP)
    await expect(page.locator(".fold.note")).to_contain_text("3.0 MB are left out here")


async def test_a_very_long_line_is_cut_and_shown_on_demand(scene: Scene, site: str, page: Page) -> None:
    log = b"before\n" + b"x" * 20_000 + b"\nafter\n" + b"y" * 2_000_000 + b"\nlast\n"
    await _step(scene, log)
    await open_page(page, site + STEP)
    assert len(await page.locator("#L2 .t").inner_text()) < 4200
    await page.click("#L2 button")
    await expect(page.locator("#L2 .t")).to_have_text("x" * 20_000)
    await expect(page.locator("#L4 .t")).to_contain_text("show more of 2.0 MB")
    await expect(page.locator("#L5 .t")).to_have_text("last")


async def test_the_giant_line_of_a_log_that_grows_costs_no_more_than_its_beginning(
    scene: Scene, site: str, page: Page
) -> None:
    key = await _step(scene, b"", "running")
    await open_page(page, site + STEP)
    for number in range(4):
        await scene.logs.append(key, number * 1_000_000, b"z" * 1_000_000)
    await scene.logs.append(key, 4_000_000, b"\nafter\n")
    await expect(page.locator("#L2 .t")).to_have_text("after", timeout=10_000)
    await expect(page.locator("#L1 .t")).to_contain_text("show more of 4.0 MB")


async def test_binary_output_appears_as_text_and_does_nothing(scene: Scene, site: str, page: Page) -> None:
    noise = bytes(range(256)).replace(b"\n", b"") * 40
    await _step(scene, noise + b"\n<img src=x onerror=alert(1)>\nend\n")
    await open_page(page, site + STEP)
    await expect(page.locator("#L2 .t")).to_have_text("<img src=x onerror=alert(1)>")
    assert await page.locator("log-view img").count() == 0


CASES = [
    "plain",
    "\x1b[31mred\x1b[0m rest",
    "\x1b[1;4;92mx\x1b[22;24m y\x1b[39m z",
    "\x1b[38;5;208mo\x1b[48;2;10;200;30mb\x1b[49m c",
    "\x1b[38:2:100:100:102mgrey",
    "\x1b[7mi\x1b[31mj\x1b[27mk\x1b[9ml",
    "10%\r\x1b[35m55%\r100%",
    "dos\r\r",
    "\x1b]8;;https://x.example/?a=1\x1b\\see\x1b]8;;\x1b\\.",
    "\x1b]8;;javascript:alert(1)\x07see",
    "\x1b]0;title\x07\x1b[2K\x1b[1Aa\x00b\x1b(Bc\x1b",
    "\x1bPdevice\x1b\\after \x1b_app\x07 end",
    "\x1b[38;5m\x1b[999999999999mx\x1b[;mz",
    "tab\tand \x9b31m c1",
]


async def test_javascript_and_python_show_the_same(scene: Scene, site: str, page: Page) -> None:
    await page.goto(site)
    found = await page.evaluate(
        """async (cases) => {
          const app = document.querySelector('script[type=module]').src;
          const { runs } = await import(app.replace('app.js', 'ansi.js'));
          return cases.map((line) => runs(line));
        }""",
        CASES,
    )
    expected = [[[run.text, run.classes, run.link] for run in ansi.runs(line)[0]] for line in CASES]
    assert found == expected


async def test_what_comes_twice_is_cut_and_a_gap_is_asked_for_again(
    scene: Scene, site: str, page: Page
) -> None:
    await open_page(page, site)
    found = await page.evaluate(
        """async () => {
          const app = document.querySelector('script[type=module]').src;
          const { Source } = await import(app.replace('app.js', 'log-source.js'));
          const source = new Source('/nowhere', '1');
          let closed = 0;
          source.socket = { close() { closed++; } };
          const frame = (offset, text) => {
            const bytes = new TextEncoder().encode(text), data = new ArrayBuffer(8 + bytes.length);
            new DataView(data).setBigUint64(0, BigInt(offset));
            new Uint8Array(data, 8).set(bytes);
            return data;
          };
          source.chunk(frame(0, 'ab\\ncd'));
          source.chunk(frame(3, 'cd\\nef'));
          source.chunk(frame(0, 'ab'));
          const before = closed;
          source.chunk(frame(100, 'far'));
          source.chunk(frame(8, '\\n'));
          return [source.have, source.tail.lines, source.lines, before, closed, await source.lineAt(6)];
        }"""
    )
    assert found == [9, ["ab", "cd", "ef"], 3, 0, 1, 2]


async def test_a_step_that_ends_while_it_is_watched_changes_the_page_in_place(
    scene: Scene, site: str, page: Page
) -> None:
    key = await _step(scene, b"one\n", "running")
    await open_page(page, site + STEP)
    await page.evaluate("document.querySelector('#steps a').focus(); window.marker = 1")
    assert (await page.title()).startswith("● #1 test running")
    await scene.logs.append(key, 4, b"two\n")
    await _close(scene, key)

    def end(connection: Connection) -> None:
        values = {"status": Status.SUCCESS.value, "ended_after": 3.0}
        connection.execute(update(tables.STEP).where(tables.STEP.c.job_id == key.job).values(**values))
        connection.execute(update(tables.JOB).where(tables.JOB.c.id == key.job).values(status="success"))
        builds.fold(connection, 1, scene.clock.now())

    await scene.store.write(end)
    scene.bus.publish("build:1")
    await expect(page).to_have_title(re.compile("^✓ #1 test passed"))
    assert await page.evaluate("window.marker === 1 && document.activeElement.closest('#steps') !== null")
    assert "favicon-success" in str(await page.get_attribute("#favicon", "href"))
    await expect(page.locator("#L2 .t")).to_have_text("two")
    await expect(page.locator(".tools button", has_text="Follow")).to_be_hidden()
