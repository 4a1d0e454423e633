"""What the pages say: the answer first, in words, whatever hostile text is in it."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from ci.server.store import builds, jobs
from tests.scene import Done, Scene, fill, send, sign_in
from web.pages import parse_filter
from web.render import LIVE_HEADER

Made = tuple[Scene, httpx.AsyncClient, dict[str, int]]


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Made]:
    scene = Scene(tmp_path)
    await scene.open()
    await scene.user()
    ids = await fill(scene)
    async with scene.client() as client:
        await sign_in(client)
        yield scene, client, ids
    await scene.close()


async def _page(made: Made, name: str, query: str = "") -> str:
    scene, client, ids = made
    build = await scene.store.read(lambda c: builds.by_id(c, ids[name]))
    assert build is not None
    repo = "api" if build.repo_id == 1 else "worker"
    answer = await client.get(f"/r/ada/{repo}/{build.number}{query}")
    assert answer.status_code == 200
    return answer.text


def _words(text: str) -> str:
    """The text of a page, without its tags."""
    text = re.sub(r"<(script|noscript).*?</\1>", " ", text, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


async def test_the_list_shows_what_runs_with_its_newest_line(made: Made) -> None:
    words = _words((await made[1].get("/")).text)
    assert "Running now running ada/api #11" in words
    assert "tests/test_api.py::test_821 PASSED" in words
    assert "Needs you unknown ada/worker #4" in words


async def test_a_row_says_why_a_build_failed_or_waits(made: Made) -> None:
    words = _words((await made[1].get("/")).text)
    assert "test exited with 1" in words
    assert "no runner matches: the job needs the label arch=s390x" in words


async def test_a_failed_build_opens_on_what_failed_and_the_lines_that_say_so(made: Made) -> None:
    words = _words(await _page(made, "failed"))
    assert "test exited with 1 AssertionError: expected 3 rows, got 2 Go to line 1 820" in words
    assert "1820 E AssertionError: expected 3 rows, got 2" in words
    assert "needs test, which failed" in words


async def test_problems_of_the_file_stand_under_their_lines(made: Made) -> None:
    text = await _page(made, "config")
    assert ".ci.yml:6:18: step" in text
    pre = re.findall(r"<pre[^>]*>(.*?)</pre>", text, re.DOTALL)[1]
    source, caret = re.findall(r"</i>(.*?)</span>", pre)
    assert source[len(caret) - 1 :] == "tset]"


async def test_unknown_is_a_question_and_the_answer_ends_it(made: Made) -> None:
    scene, client, ids = made
    text = await _page(made, "unknown")
    assert "Did release do its work?" in text
    answer = await send(client, "/r/ada/worker/4/release/resolve", verdict="success")
    assert answer.status_code == 303
    build = await scene.store.read(lambda c: builds.by_id(c, ids["unknown"]))
    assert build is not None and build.status == "success"


async def test_cancel_and_rerun_are_forms_that_work_without_scripts(made: Made) -> None:
    scene, client, ids = made
    text = await _page(made, "running")
    assert 'action="/r/ada/api/11/cancel" method="post"' in text
    assert (await send(client, "/r/ada/api/11/cancel")).status_code == 303
    assert "Cancelling" in await _page(made, "running")
    assert (await send(client, "/r/ada/api/8/rerun")).headers["location"] == "/r/ada/api/1"
    assert scene.reruns == [(ids["failed"], "ada")]


async def test_a_second_cancel_of_a_build_that_ended_is_a_conflict_in_words(made: Made) -> None:
    answer = await send(made[1], "/r/ada/api/7/cancel")
    assert answer.status_code == 409
    assert "build 7 has ended already: passed" in answer.text


async def test_each_attempt_keeps_its_page_and_its_log(made: Made) -> None:
    text = await _page(made, "lost", "/ci/build?attempt=1")
    assert "runner r3 was not heard of for 60 s" in text
    base = "/r/ada/worker/2/ci/build/raw"
    assert (await made[1].get(f"{base}?attempt=1")).text == "compiled\n"
    assert (await made[1].get(f"{base}?attempt=2")).text == "compiled again\n"
    assert (await made[1].get(f"{base}?attempt=3")).status_code == 404


async def test_without_scripts_the_last_lines_are_there_and_the_rest_by_pages(made: Made) -> None:
    scene, client, _ = made
    log = b"".join(b"line %d\n" % number for number in range(1, 5001))
    await scene.build(1, [("ci", [Done(name="long", log=log)])])
    page = (await client.get("/r/ada/api/12/ci/long?attempt=1")).text
    assert 'Lines <span class="num">3001</span> to <span class="num">5000</span>' in page
    assert "line 3001</span>" in page and "line 3000</span>" not in page
    first = (await client.get("/r/ada/api/12/ci/long?attempt=1&from=1")).text
    assert "line 1</span>" in first and "line 2000</span>" in first and "line 2001</span>" not in first


async def test_a_page_that_only_looks_again_leaves_the_log_out(made: Made) -> None:
    answer = await made[1].get("/r/ada/api/8", headers={LIVE_HEADER: "1"})
    assert "<noscript>" not in answer.text and "<log-view" not in answer.text
    assert 'id="steps"' in answer.text


async def test_hostile_text_does_nothing_but_appear(made: Made) -> None:
    scene, client, _ = made
    evil = '"><script>alert(1)</script>\u202e{{7*7}}<img src=x onerror=alert(1)>'
    log = f"\x1b]0;title\x07{evil}\x1b]8;;javascript:alert(1)\x07link\x1b]8;;\x07\n".encode()
    await scene.build(
        1,
        [("ci", [Done(name="x", status="failure", log=log, reason=evil)])],
        title=evil,
        branch=evil,
        author=evil,
        sender=evil,
    )
    for path in ("/", "/r/ada/api", "/r/ada/api/12", "/r/ada/api/12/ci/x?attempt=1"):
        text = (await client.get(path)).text
        assert "<script>alert" not in text and "<img" not in text and "javascript:" not in text, path
        assert "{{7*7}}" in text or "&lt;" in text


async def test_the_filter_finds_by_repo_status_branch_author_and_words(made: Made) -> None:
    async def found(query: str) -> list[str]:
        text = (await made[1].get("/", params={"q": query})).text
        return re.findall(r'<a href="(/r/[^"]+)" data-row>', text)

    assert await found("status:failed") == ["/r/ada/api/10", "/r/ada/api/8"]
    assert await found("repo:worker status:cancelled") == ["/r/ada/worker/3"]
    assert await found("branch:orders-empty-lines") == ["/r/ada/api/11"]
    assert await found("author:grace") == ["/r/ada/api/11"]
    assert await found("PARSER") == ["/r/ada/api/8"]
    assert await found("100%_") == []


def test_an_unknown_filter_is_looked_for_in_the_title() -> None:
    assert parse_filter("foo:bar status:nonsense").text == "foo:bar status:nonsense"
    assert parse_filter("status:failed").status == "failure"


async def test_the_theme_is_a_cookie_and_a_form(made: Made) -> None:
    answer = await send(made[1], "/theme", theme="dark", next="/runners")
    assert answer.headers["location"] == "/runners"
    assert '<html lang="en" data-theme="dark">' in (await made[1].get("/runners")).text


async def test_a_new_token_is_shown_once_and_works_until_it_is_revoked(made: Made) -> None:
    _, client, _ = made
    page = await send(client, "/account/tokens", name="laptop", scopes="read")
    token = re.search(r"shipway_[\w-]{40,}", page.text)
    assert token is not None
    assert token[0] not in (await client.get("/account")).text
    bearer = {"authorization": f"Bearer {token[0]}"}
    assert (await client.get("/api/runners", headers=bearer)).status_code == 200
    await send(client, "/account/tokens/2/revoke")
    assert (await client.get("/api/runners", headers=bearer)).status_code == 401


async def test_the_runners_page_makes_a_code_and_never_shows_it_again(made: Made) -> None:
    answer = await send(made[1], "/runners/code")
    address = answer.headers["location"]
    assert answer.status_code == 303 and address.startswith("/runners?")
    page = await made[1].get(address)
    assert re.search(r"echo [0-9A-Z-]{14} \| shipway runner --server", html.unescape(page.text))
    for again in ("/runners", address):
        assert "echo " not in (await made[1].get(again)).text


async def test_the_runners_page_says_when_the_expected_runner_has_come(made: Made) -> None:
    scene, client, _ = made
    address = (await send(client, "/runners/code")).headers["location"]
    assert "waiting for the runner" in (await client.get(address)).text
    await scene.runner("newcomer", engine="docker 24")
    words = _words((await client.get(address)).text)
    assert "newcomer has come with docker 24" in words and "waiting for the runner" not in words


async def test_the_inbox_says_what_came_of_each_push(made: Made) -> None:
    words = _words((await made[1].get("/r/ada/api/inbox")).text)
    assert "branch docs skipped, because the commit message says [ci skip]" in words
    assert "not looked at yet" in words


async def test_an_empty_server_says_the_next_step(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    await scene.open()
    await scene.user()
    async with scene.client() as client:
        await sign_in(client)
        words = _words((await client.get("/")).text)
        assert "git push http://127.0.0.1:8000/git/ada/hello.git HEAD:main" in words
        assert "No runner is connected yet" in words
        assert "No runner yet" in (await client.get("/runners")).text
    await scene.close()


async def test_a_range_of_the_raw_log_is_exact(made: Made) -> None:
    _, client, _ = made
    base = "/r/ada/api/8/ci/test/raw?attempt=1"
    whole = (await client.get(base)).content
    part = await client.get(base, headers={"range": "bytes=10-29"})
    assert (part.status_code, part.content) == (206, whole[10:30])
    assert part.headers["content-range"] == f"bytes 10-29/{len(whole)}"
    assert (await client.get(base, headers={"range": "bytes=-5"})).content == whole[-5:]
    assert (await client.get(base, headers={"range": f"bytes={len(whole)}-"})).status_code == 416
    assert (await client.get(base)).headers["content-type"] == "text/plain; charset=utf-8"


async def test_marks_know_the_lines_before_which_they_stand(made: Made) -> None:
    answer = (await made[1].get("/r/ada/api/8/ci/test/marks?attempt=1")).json()
    assert [(mark["k"], mark["l"]) for mark in answer["marks"]] == [
        ("begin", 1),
        ("end", 13),
        ("begin", 13),
        ("end", 1826),
    ]
    assert answer["next"] > 0


async def test_a_job_of_another_build_is_not_found_here(made: Made) -> None:
    scene, client, ids = made
    found = await scene.store.read(lambda c: jobs.of_build(c, ids["matrix"]))
    assert (await client.get(f"/r/ada/api/8/{found[0].slug}/test")).status_code == 404
