"""The pages around a repo as a browser asks for them: real forms, sentences, nothing secret."""

from __future__ import annotations

import html
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from ci.server.forges import git
from ci.server.models import Build, Inbox, Repo
from ci.server.store import repos, tokens
from ci.server.store.tables import BUILD, INBOX, add, many
from ci.server.store.tokens import NewToken
from tests.fake_github import TOKEN, FakeGitHub, signed
from tests.scene import Done, Scene, send, sign_in
from tests.unit.gitting import CONFIG, Work
from tests.unit.world import ADA
from web.render import LIVE_HEADER


@dataclass
class Desk:
    """Ada, signed in, and her repo ada/app in the built-in git with one pushed branch."""

    scene: Scene
    client: httpx.AsyncClient
    folder: Path

    async def words(self, path: str) -> str:
        answer = await self.client.get(path)
        assert answer.status_code == 200, answer.text
        return words(answer)

    async def repo(self, name: str = "app") -> Repo:
        found = await self.scene.store.read(lambda c: repos.find(c, "ada", name))
        assert found is not None
        return found

    async def elsewhere(self, name: str = "lib") -> tuple[str, str, httpx.Response]:
        """A plain repo: its hook's address and secret, and the page that shows them."""
        url = f"https://git.example.com/{name}.git"
        answer = await send(self.client, "/repos/add", forge="git", path=name, clone_url=url)
        assert answer.status_code == 303, answer.text
        page = await self.client.get(answer.headers["location"])
        address, secret = re.findall(r"<pre[^>]*>([^<\n]+)</pre>", page.text)[:2]
        return html.unescape(address), html.unescape(secret), page


def words(answer: httpx.Response) -> str:
    text = re.sub(r"<(script|noscript).*?</\1>", " ", answer.text, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    scene = Scene(tmp_path)
    await scene.open()
    await scene.user(is_admin=False)
    async with scene.client() as client:
        await sign_in(client)
        yield Desk(scene, client, tmp_path)
    await scene.close()


@pytest.fixture
async def pushed(desk: Desk) -> Desk:
    repo = (await desk.scene.repos.add_builtin("ada", "app", ADA)).repo
    work = Work(desk.folder / "work", await desk.scene.forges.builtin.create(repo.id or 0))
    work.commit_files({".ci.yml": CONFIG}, "first")
    work.git("push", "-q", "origin", "HEAD:refs/heads/main")
    await desk.scene.store.write(lambda c: repos.set_default_branch(c, repo.id or 0, "main"))
    await desk.scene.pushes.compare_refs(repo)
    return desk


# --- add ------------------------------------------------------------


async def test_a_name_is_enough_for_the_built_in_git_and_its_page_says_how_to_push(desk: Desk) -> None:
    answer = await send(desk.client, "/repos/add", forge="builtin", path="hello", is_private="false")
    assert (answer.status_code, answer.headers["location"]) == (303, "/r/ada/hello")
    assert "git push http://127.0.0.1:8000/git/ada/hello.git HEAD:main" in await desk.words("/r/ada/hello")
    assert not (await desk.repo("hello")).is_private


async def test_a_mistake_brings_the_form_back_with_what_was_typed(desk: Desk) -> None:
    answer = await send(desk.client, "/repos/add", forge="builtin", path="bob/x")
    assert answer.status_code == 403
    assert "ada adds repos as ada/..., and only an admin bob/..." in words(answer)
    assert 'value="bob/x"' in answer.text
    url = "ftp://x/y"
    answer = await send(
        desk.client, "/repos/add", forge="git", path="x", clone_url=url, kind="token", value="v4lue"
    )
    assert answer.status_code == 400 and url in answer.text and "v4lue" not in answer.text
    assert (await send(desk.client, "/repos/add", forge="cvs", path="x")).status_code == 400


async def test_the_hook_and_its_secret_are_shown_once_and_the_page_waits_live(desk: Desk) -> None:
    address, secret, page = await desk.elsewhere()
    assert "waiting for the first delivery" in words(page)
    assert "hooks/post-receive" in words(page) and address in page.text
    again = await desk.client.get(page.url.path + "?" + page.url.query.decode())
    assert secret not in again.text and "It was shown when it was made" in words(again)
    body = json.dumps({"push_id": "p1", "ref": "refs/heads/main", "before": "0" * 40, "after": "0" * 40})
    signature = git.signature(body.encode(), secret.encode())
    headers = {git.SIGNATURE_HEADER: signature}
    with desk.scene.bus.subscribe("inbox") as bell:
        await desk.scene.hooks.receive(address.rpartition("/")[2], headers, body.encode())
        assert await bell.wait(5) == {"inbox"}
    live = await desk.client.get(page.url.path, headers={LIVE_HEADER: "1"})
    assert "delivery received branch main" in words(live)
    assert 'id="came" data-live' in live.text and 'data-topics="inbox"' in live.text


async def test_the_key_in_the_address_gives_the_secret_to_nobody_else(desk: Desk) -> None:
    url = "https://git.example.com/lib.git"
    answer = await send(desk.client, "/repos/add", forge="git", path="lib", clone_url=url)
    await desk.scene.user("root")
    same_server = {"transport": desk.client._transport, "base_url": desk.client.base_url}
    async with httpx.AsyncClient(**same_server, headers={"accept": "text/html"}) as other:  # type: ignore[arg-type]
        await sign_in(other, "root")
        page = await other.get(answer.headers["location"])
        assert page.status_code == 200 and "It was shown when it was made" in words(page)
    assert "it is shown only now" in await desk.words(answer.headers["location"])


async def test_a_repo_of_github_shows_where_to_click_and_its_ping(desk: Desk) -> None:
    async with FakeGitHub().serving() as github:
        github.repo(7, "ada", "app")
        answer = await send(
            desk.client, "/repos/add", forge="github", path="ada/app", token="ghp_no", api_url=github.url
        )
        assert answer.status_code == 400 and "revoked or has expired" in words(answer)
        assert "ghp_no" not in answer.text
        answer = await send(
            desk.client, "/repos/add", forge="github", path="ada/app", token=TOKEN, api_url=github.url
        )
        page = await desk.client.get(answer.headers["location"])
    text = words(page)
    for said in ("Webhooks", "application/json", "Pull requests", "waiting for the first delivery"):
        assert said in text
    assert TOKEN not in page.text
    address, secret = re.findall(r"<pre[^>]*>([^<\n]+)</pre>", page.text)[:2]
    ping = {"zen": "Keep it simple.", "hook_id": 1, "repository": {"id": 7, "full_name": "ada/app"}}
    sent = signed("ping", ping, html.unescape(secret))
    await desk.scene.hooks.receive(html.unescape(address).rpartition("/")[2], sent.headers, sent.body)
    assert "delivery received ping" in await desk.words("/r/ada/app/hook")


# --- settings ------------------------------------------------------------


async def test_settings_are_saved_and_a_wrong_one_keeps_what_was_typed(pushed: Desk) -> None:
    good = {
        "approval": "pull_requests",
        "timeout_minutes": "5",
        "keep_builds_days": "0",
        "keep_logs_days": "7",
    }
    answer = await send(pushed.client, "/r/ada/app/settings", is_enabled="true", config_path="ci/", **good)
    assert answer.headers.get("location") == "/r/ada/app/settings?saved=1", words(answer)
    repo = await pushed.repo()
    assert (repo.timeout_minutes, repo.approval, repo.config_path) == (5, "pull_requests", "ci/")
    assert (repo.is_enabled, repo.is_private, repo.keep_logs_days) == (True, False, 7)
    assert "saved" in await pushed.words("/r/ada/app/settings?saved=1")
    bad = {**good, "timeout_minutes": "soon"}
    answer = await send(pushed.client, "/r/ada/app/settings", is_private="true", config_path="x/", **bad)
    assert answer.status_code == 400
    assert "timeout_minutes is 1 to 10,080, not 'soon'" in words(answer)
    assert 'value="soon"' in answer.text and 'value="x/"' in answer.text
    assert (await pushed.repo()).config_path == "ci/"


async def test_a_disabled_repo_says_so_and_what_came_is_replayed_once_it_is_enabled(pushed: Desk) -> None:
    await pushed.scene.repos.change(await pushed.repo(), {"is_enabled": "false"}, ADA)
    assert "What comes is kept in the inbox" in await pushed.words("/r/ada/app")
    assert "The repo is disabled" in await pushed.words("/r/ada/app/run")


async def test_a_credential_is_written_and_never_shown(desk: Desk) -> None:
    await desk.elsewhere()
    path = "/r/ada/lib/credential"
    answer = await send(desk.client, path, kind="password", user="bot", value="s3cret-pass")
    assert answer.status_code == 303
    page = await desk.client.get("/r/ada/lib/settings")
    assert "Set: password of bot" in words(page) and "s3cret-pass" not in page.text
    answer = await send(desk.client, path, kind="password", user="", value="s3cret-pass")
    assert answer.status_code == 400 and "a password needs its user" in words(answer)
    assert "s3cret-pass" not in answer.text
    await send(desk.client, path, kind="")
    assert "None is set" in await desk.words("/r/ada/lib/settings")


async def test_a_new_secret_is_shown_once(desk: Desk) -> None:
    address, secret, _ = await desk.elsewhere()
    hook_id = address.rpartition("/")[2]
    answer = await send(desk.client, f"/r/ada/lib/hooks/{hook_id}/rotate")
    page = await desk.client.get(answer.headers["location"])
    fresh = html.unescape(re.findall(r"<pre[^>]*>([^<\n]+)</pre>", page.text)[1])
    assert fresh != secret and "it is shown only now" in words(page)
    assert "the secret before the present one signs until" in await desk.words("/r/ada/lib/settings")


async def test_a_repo_is_deleted_by_who_types_its_name(pushed: Desk) -> None:
    answer = await send(pushed.client, "/r/ada/app/delete", path="app")
    assert answer.status_code == 400 and "type ada/app to delete it" in words(answer)
    answer = await send(pushed.client, "/r/ada/app/delete", path="ada/app")
    assert (answer.status_code, answer.headers["location"]) == (303, "/repos")
    assert (await pushed.client.get("/r/ada/app")).status_code == 404


async def test_what_is_wrong_with_its_forge_stands_on_repo_and_settings(desk: Desk) -> None:
    await desk.elsewhere()
    number = (await desk.repo("lib")).id or 0
    sentence = "git.example.com <refuses> the token"
    await desk.scene.store.write(
        lambda c: repos.set_forge_problem(c, number, sentence, desk.scene.clock.now())
    )
    for path in ("/r/ada/lib", "/r/ada/lib/settings"):
        assert sentence in await desk.words(path)


# --- inbox ------------------------------------------------------------


async def test_a_verdict_has_each_build_once_as_a_link(pushed: Desk) -> None:
    page = await pushed.client.get("/r/ada/app/inbox")
    assert page.text.count("built #1") == 1
    assert '<a class="link" href="/r/ada/app/1">built #1</a>' in page.text
    assert "see #1" not in page.text


async def test_a_delivery_shows_its_body_without_secrets_and_as_text(desk: Desk) -> None:
    address, secret, _ = await desk.elsewhere()
    body = {
        "push_id": "p1",
        "text": f"my {secret} here",
        "installation": {"access_token": "t0k3n", "Authorization": "Basic eDp5"},
        "nested": [{"client_secret": {"a": "b-hidden"}}],
        "html": "<script>alert(1)</script>",
        "empty_token": "",
    }
    row = Inbox(
        hook_id=address.rpartition("/")[2],
        repo_id=(await desk.repo("lib")).id,
        delivery="d1",
        body_hash="x",
        body=json.dumps(body).encode(),
        received_at=desk.scene.clock.now(),
        state="failed",
        verdict="refused because of <b>reasons</b>",
    )
    number = await desk.scene.store.write(lambda c: add(c, row))
    page = await desk.client.get(f"/r/ada/lib/inbox/{number}")
    for hidden in (secret, "t0k3n", "eDp5", "b-hidden", "<script>alert", "<b>reasons"):
        assert hidden not in page.text
    text = words(page)
    assert '"text": "my (removed) here"' in text and '"empty_token": ""' in text and "Replay" in text
    assert (await desk.client.get("/r/ada/lib/inbox/9999")).status_code == 404


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"x" * (2 << 20), "a body of 2,097,152 bytes is not shown here"),
        (b"\xff\xfe", "a body of 2 bytes that is no JSON"),
        (b"[" * 5000, "that is no JSON"),
        (json.dumps(["y" * 900_000]).encode(), "more characters"),
        (b'"\\ud800"', "?"),
    ],
)
async def test_a_body_of_any_shape_has_its_page(pushed: Desk, body: bytes, says: str) -> None:
    repo_id = (await pushed.repo()).id
    row = Inbox(repo_id=repo_id, delivery="d", body_hash="x", body=body, received_at=1.0, state="failed")
    number = await pushed.scene.store.write(lambda c: add(c, row))
    assert says in await pushed.words(f"/r/ada/app/inbox/{number}")
    assert "failed" in await pushed.words("/r/ada/app/inbox")


async def test_replay_is_a_form_and_one_that_built_says_so(pushed: Desk) -> None:
    rows = await pushed.scene.store.read(lambda c: many(c, Inbox, INBOX.select()))
    answer = await send(pushed.client, f"/r/ada/app/inbox/{rows[0].id}/replay")
    assert answer.status_code == 409
    assert "this delivery made #1; run that again with Rerun" in words(answer)


# --- run ------------------------------------------------------------


async def test_a_branch_is_run_by_hand_from_its_form(pushed: Desk) -> None:
    page = await pushed.client.get("/r/ada/app/run")
    assert 'name="branch" required maxlength="250" value="main"' in page.text
    answer = await send(pushed.client, "/r/ada/app/run", branch="main", variables="TARGET=staging\r\nB=2\r\n")
    assert (answer.status_code, answer.headers["location"]) == (303, "/r/ada/app/2")
    answer = await send(pushed.client, "/r/ada/app/run", branch="nope", variables="CI_X=1")
    assert answer.status_code == 400 and "CI_X is a name of ours" in words(answer)
    assert "CI_X=1</textarea>" in answer.text and 'value="nope"' in answer.text
    answer = await send(pushed.client, "/r/ada/app/run", branch="nope")
    assert "there is no branch 'nope' in ada/app" in words(answer)


# --- schedules ------------------------------------------------------------


async def test_a_schedule_is_made_changed_run_and_deleted_by_forms(pushed: Desk) -> None:
    assert "No schedule yet" in await pushed.words("/r/ada/app/schedules")
    form = {"name": "nightly", "cron": "30 2 * * *", "time_zone": "Europe/Berlin", "branch": ""}
    wrong = await send(pushed.client, "/r/ada/app/schedules", **{**form, "cron": "30 25 * * *"})
    assert wrong.status_code == 400 and "bad hour" in words(wrong) and 'value="30 25 * * *"' in wrong.text
    assert (await send(pushed.client, "/r/ada/app/schedules", is_enabled="true", **form)).status_code == 303
    text = await pushed.words("/r/ada/app/schedules")
    assert re.search(r"02:30 CES?T in \d+ (h|min|s)", text), text
    await send(pushed.client, "/r/ada/app/schedules/1/run")
    await pushed.scene.inbox.process_waiting()
    page = await pushed.client.get("/r/ada/app/schedules")
    assert '<a class="link" href="/r/ada/app/2">built #2</a>' in page.text
    await send(pushed.client, "/r/ada/app/schedules/1", **form)
    assert "off" in await pushed.words("/r/ada/app/schedules")
    wrong = await send(pushed.client, "/r/ada/app/schedules/1", **{**form, "time_zone": "Mars"})
    assert wrong.status_code == 400 and '<details class="card form" open>' in wrong.text
    await send(pushed.client, "/r/ada/app/schedules/1/remove")
    assert "No schedule yet" in await pushed.words("/r/ada/app/schedules")


# --- what is old ------------------------------------------------------------------------------------------


async def test_a_log_that_was_removed_says_so_on_its_page_and_for_programs(desk: Desk) -> None:
    repo_id = await desk.scene.repo("ada", "old")
    done = Done(name="test", log=b"hello world\n")
    build = await desk.scene.build(repo_id, [("ci", [done])])
    assert "hello world" in (await desk.client.get("/r/ada/old/1/ci/test")).text
    old = await desk.repo("old")
    await desk.scene.repos.change(old, {"keep_logs_days": "30"}, ADA)
    await desk.scene.logs.delete((await desk.scene.key_of(build)).job)
    page = await desk.client.get("/r/ada/old/1/ci/test")
    assert "This log was removed after 30 days, as the repo's settings say." in words(page)
    assert "<log-view" not in page.text
    for rest in ("raw", "index", "marks"):
        assert (await desk.client.get(f"/r/ada/old/1/ci/test/{rest}")).status_code == 404


# --- programs ---------------------------------------------------------------------------------------------


@pytest.fixture
async def program(pushed: Desk) -> AsyncIterator[httpx.AsyncClient]:
    token = await pushed.scene.store.write(
        lambda c: tokens.add_token(c, 1, NewToken(name="api"), pushed.scene.clock.now())
    )
    async with pushed.scene.client(token) as client:
        yield client


async def test_a_program_adds_each_kind_of_repo(program: httpx.AsyncClient) -> None:
    answer = await program.post("/api/repos", json={"path": "here"})
    assert (answer.status_code, answer.json()) == (201, {"repo": "ada/here", "hook": "", "secret": ""})
    there = {
        "path": "ada/lib",
        "clone_url": "https://git.example.com/lib.git",
        "kind": "token",
        "value": "t1",
    }
    answer = await program.post("/api/repos", json=there)
    assert answer.status_code == 201 and answer.json()["secret"]
    assert answer.json()["hook"].startswith("http://127.0.0.1:8000/hooks/")
    hooks = (await program.get("/api/repos/ada/lib/hooks")).json()["hooks"]
    assert [each["hook"] for each in hooks] == [answer.json()["hook"]]
    rotated = await program.post(f"/api/repos/ada/lib/hooks/{hooks[0]['id']}/rotate")
    assert rotated.json()["secret"] not in ("", answer.json()["secret"])
    async with FakeGitHub().serving() as github:
        github.repo(7, "ada", "web")
        wanted = {"forge": "github", "path": "ada/web", "token": TOKEN, "api_url": github.url}
        assert (await program.post("/api/repos", json=wanted)).json()["repo"] == "ada/web"
    for wrong, code in (({}, 400), ({"path": "x", "forge": "cvs"}, 400), ({"path": "bob/x"}, 403)):
        assert (await program.post("/api/repos", json=wrong)).status_code == code


async def test_a_program_runs_a_branch_with_variables_as_an_object_or_a_list(
    program: httpx.AsyncClient,
) -> None:
    path = "/api/repos/ada/app/builds"
    variables = {"TARGET": "staging", "TEXT": "two\nlines", "COUNT": 3, "ON": True}
    answer = await program.post(path, json={"branch": "main", "variables": variables})
    assert (answer.status_code, answer.json()["number"]) == (201, 2), answer.text
    answer = await program.post(path, json={"variables": ["A=1", "B=x=y"]})
    assert answer.json()["url"] == "http://127.0.0.1:8000/r/ada/app/3"
    for wrong, says in (
        ({"branch": "nope"}, "there is no branch 'nope'"),
        ({"variables": {"CI_X": "1"}}, "CI_X is a name of ours"),
        ({"variables": {"A": {"b": 1}}}, "'A' must be a text"),
        ({"branch": {"a": "b"}}, "'branch' must be a text"),
    ):
        answer = await program.post(path, json=wrong)
        assert answer.status_code == 400 and says in answer.json()["detail"]


async def test_what_a_program_gives_is_in_the_build(program: httpx.AsyncClient, pushed: Desk) -> None:
    await program.post("/api/repos/ada/app/builds", json={"variables": {"TEXT": "two\nlines", "ON": True}})
    found = await pushed.scene.store.read(lambda c: many(c, Build, BUILD.select()))
    assert found[-1].event["variables"] == {"TEXT": "two\nlines", "ON": "true"}


async def test_a_program_reads_the_inbox_and_replays(program: httpx.AsyncClient, pushed: Desk) -> None:
    (first,) = (await program.get("/api/repos/ada/app/inbox")).json()["deliveries"]
    assert (first["builds"], first["is_replayable"], first["what"]) == ([1], False, "branch main")
    whole = (await program.get(f"/api/repos/ada/app/inbox/{first['id']}")).json()
    assert "refs/heads/main" in whole["body"]
    answer = await program.post(f"/api/repos/ada/app/inbox/{first['id']}/replay")
    assert answer.status_code == 409 and "#1" in answer.json()["detail"]


async def test_a_program_keeps_schedules_settings_and_the_end(program: httpx.AsyncClient) -> None:
    base = "/api/repos/ada/app"
    made = await program.post(f"{base}/schedules", json={"name": "n", "cron": "0 0 * * *"})
    assert made.status_code == 201 and made.json()["time_zone"] == "UTC" and made.json()["is_enabled"]
    changed = await program.post(f"{base}/schedules/1", json={"cron": "0 5 * * *"})
    assert (changed.json()["cron"], changed.json()["name"]) == ("0 5 * * *", "n")
    off = await program.post(f"{base}/schedules/1", json={"is_enabled": False})
    assert off.json()["next_at"] is None
    assert (await program.post(f"{base}/schedules/1/run")).json()[
        "last_verdict"
    ] == "its event waits in the inbox"
    assert len((await program.get(f"{base}/schedules")).json()["schedules"]) == 1
    assert (await program.post(f"{base}/schedules/1/remove")).status_code == 204
    assert (await program.post(f"{base}/schedules/1/run")).status_code == 404
    answer = await program.post(f"{base}/settings", json={"keep_builds_days": 30, "is_private": True})
    assert answer.json()["keep_builds_days"] == 30
    assert (await program.post(f"{base}/credential", json={"kind": "token", "value": "x"})).status_code == 400
    assert (await program.post(f"{base}/delete", json={"path": "ada/other"})).status_code == 400
    assert (await program.post(f"{base}/delete", json={"path": "ada/app"})).status_code == 204
    assert (await program.get(base)).status_code == 404
