"""The commands that speak to a server: the real console script against a real server on a socket."""

from __future__ import annotations

import asyncio
import re
import signal
import stat
import subprocess
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from ci.client.http import PIECE_BYTES
from ci.client.servers import Account, Servers
from ci.event import Event, Kind
from ci.server.logs import LogKey
from ci.server.store import repos
from ci.server.store.tables import ATTEMPT, BUILD, JOB, SESSION, STEP
from ci.spec import JobSpec, StepKind, StepSpec
from tests.scene import PASSWORD, blocked
from tests.scene import Done as Step
from tests.unit.commanding import SHIPWAY, Person, Shown, showing


@pytest.fixture
async def shown(tmp_path: Path) -> AsyncIterator[Shown]:
    async with showing(tmp_path) as made:
        yield made


# --- lists and facts -----------------------------------------------------------------------------------


async def test_builds_are_a_table_whose_cells_are_whole_in_a_pipe(shown: Shown) -> None:
    done = await shown.ada.run("build", "ls", "ada/api", "-q", "status:failed")
    lines = done.text.splitlines()
    assert done.code == 0
    assert lines[0].split() == ["BUILD", "STATUS", "BRANCH", "AGE", "TOOK", "WHAT"]
    assert [line.split()[:3] for line in lines[1:]] == [
        ["ada/api/10", "failed", "main"],
        ["ada/api/8", "failed", "main"],
    ]
    assert lines[1].endswith("Test on three Pythons and two systems")
    assert "\x1b" not in done.text


async def test_on_a_terminal_no_line_is_longer_than_it_and_why_a_job_waits_is_whole(shown: Shown) -> None:
    builds = await shown.ada.on_terminal("build", "ls", columns=80)
    queue = await shown.ada.on_terminal("queue", columns=80)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", builds.text + queue.text)
    assert all(len(line) <= 80 for line in plain.splitlines())
    assert "…" in builds.text
    assert "or change `labels` in the pipeline" in " ".join(plain.split())


@pytest.mark.parametrize(
    ("command", "path"),
    [
        ("build ls --limit 3", "/api/builds?limit=3"),
        ("build ls ada/api --before 9", "/api/repos/ada/api/builds?before=9&limit=20"),
        ("build show ada/api/8", "/api/repos/ada/api/builds/8"),
        ("repo ls", "/api/repos"),
        ("repo show ada/worker", "/api/repos/ada/worker"),
        ("runners ls", "/api/runners"),
        ("queue", "/api/queue"),
    ],
)
async def test_json_is_exactly_what_the_api_answers(shown: Shown, command: str, path: str) -> None:
    done = await shown.ada.run(*command.split(), "--json")
    assert done.json == await shown.api(path)


async def test_a_build_is_shown_with_its_steps(shown: Shown) -> None:
    text = (await shown.ada.run("build", "show", "ada/api/8")).text
    assert "reason  exited with 1" in text
    assert ["ci", "test", "failed", "1m", "51s", "exited", "with", "1"] in [
        line.split() for line in text.splitlines()
    ]


async def test_why_says_what_failed_what_waits_and_what_to_do(shown: Shown) -> None:
    failed = (await shown.ada.run("why", "ada/api/8")).text
    assert failed.startswith("build 8 failed: exited with 1\n")
    assert failed.endswith("its log: shipway build logs ada/api/8 --failed\n")
    waits = (await shown.ada.run("why", "ada/api/9")).text
    assert "nightly waits: no runner matches: the job needs the label arch=s390x" in waits
    assert "start a runner with --label arch=s390x" in waits
    broken = (await shown.ada.run("why", f"{shown.ada.url}/r/ada/worker/1")).text
    assert '  .ci.yml:6:18: step "deploy" depends on unknown step "tset"' in broken
    assert "build resolve ada/worker/4" in (await shown.ada.run("why", "ada/worker/4")).text


async def test_inside_a_clone_its_remote_names_the_repo(shown: Shown, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "init", "-q", str(clone)], check=True)
    for name, url in (
        ("origin", "git@github.com:elsewhere/fork.git"),
        ("ci", f"{shown.ada.url}/git/ada/worker.git"),
    ):
        subprocess.run(["git", "-C", str(clone), "remote", "add", name, url], check=True)
    inside = Person(home=tmp_path, url=shown.ada.url, token=shown.ada.token, folder=clone)
    assert (await inside.run("build", "show", "2", "--json")).json["number"] == 2
    assert (await inside.run("build", "show", "--json")).json["number"] == 4, "the newest"
    assert (await inside.run("repo", "show", "--json")).json["repo"] == "ada/worker"


# --- logs ----------------------------------------------------------------------------------------------


async def test_logs_come_step_after_step_and_only_those_that_failed_where_asked(shown: Shown) -> None:
    every = (await shown.ada.run("build", "logs", "ada/api/8")).text
    titles = [line for line in every.splitlines() if line.startswith("--- ")]
    assert titles == ["--- ci / clone", "--- ci / lint", "--- ci / types", "--- ci / test"]
    failed = (await shown.ada.run("build", "logs", "ada/api/8", "--failed")).text
    assert failed.startswith("--- ci / test\n") and "AssertionError: expected 3 rows" in failed
    assert "\x1b" not in failed


async def test_cli_strips_dangerous_escapes(shown: Shown) -> None:
    """T15: unless --raw asks for the very bytes."""
    evil = b"\x1b]0;owned\x07\x1b]52;c;ZXZpbA==\x1b\\\x1b[2J\x1bP+q\x1b\\\x1b[31mred\x1b[0m\x9b6n\n"
    repo = await shown.scene.repo("ada", "evil")
    title = "\x1b]0;owned\x07title \x1b[2J\u009b6n"
    await shown.scene.build(repo, [("ci", [Step(name="test", log=evil)])], title=title)
    piped = await shown.ada.run("build", "logs", "ada/evil/1")
    assert piped.text == "--- ci / test\nred\ufffd6n\n"
    seen = (await shown.ada.on_terminal("build", "logs", "ada/evil/1")).text
    assert "\x1b[31mred\x1b[0m" in seen
    for sequence in ("\x1b]", "\x1bP", "\x1b[2J", "\x9b", "owned", "ZXZpbA"):
        assert sequence not in seen
    raw = await shown.ada.run("build", "logs", "ada/evil/1", "--raw")
    assert raw.out == evil
    for command in (("build", "ls", "ada/evil"), ("build", "show", "ada/evil/1"), ("repo", "ls")):
        table = (await shown.ada.on_terminal(*command, columns=120)).text
        assert "title 6n" not in table and "title" in table
        assert not any(each in table for each in ("\x1b]", "\x1b[2J", "\x9b", "owned"))
    listed = await shown.ada.run("build", "ls", "ada/evil", "--json")
    assert b"\x1b" not in listed.out and b"\xc2\x9b" not in listed.out
    assert listed.json["builds"][0]["event"]["title"] == title


async def test_a_log_longer_than_one_piece_comes_whole(shown: Shown) -> None:
    log = b"".join(b"line %07d of a long log\n" % number for number in range(170_000))
    assert len(log) > PIECE_BYTES
    repo = await shown.scene.repo("ada", "long")
    await shown.scene.build(repo, [("ci", [Step(name="test", log=log)])])
    assert (await shown.ada.run("build", "logs", "ada/long/1", "--raw")).out == log


Growing = tuple[Shown, LogKey, Callable[[str], Awaitable[None]]]


@pytest.fixture
async def growing(shown: Shown) -> Growing:
    """A build whose step runs; and what ends it with a status."""
    repo = await shown.scene.repo("ada", "live")
    step = Step(name="test", status="running", log=b"first\n", is_open=True)
    build = await shown.scene.build(repo, [("ci", [step])])
    key = await shown.scene.key_of(build)

    async def end(status: str) -> None:
        size = shown.scene.logs.size(key)
        log = shown.scene.logs.read(key, 0, size)
        await shown.scene.logs.close_stream(key, size, zlib.crc32(log))

        def change(c: Any) -> None:
            over = {"status": status, "reason": "exited with 1" if status == "failure" else ""}
            step_over = {"ended_after": 3.0, "log_size": size, "is_log_closed": True, "is_marks_closed": True}
            c.execute(update(STEP).where(STEP.c.job_id == key.job).values(**over, **step_over))
            c.execute(update(ATTEMPT).where(ATTEMPT.c.job_id == key.job).values(is_over=True))
            c.execute(update(JOB).where(JOB.c.id == key.job).values(**over, finished_at=1.0))
            c.execute(update(BUILD).where(BUILD.c.id == build).values(**over, finished_at=1.0))

        await shown.scene.store.write(change)

    return shown, key, end


@pytest.mark.parametrize(
    ("status", "code", "verdict"),
    [("success", 0, "build 1 passed"), ("failure", 1, "build 1 failed: exited with 1")],
)
async def test_a_followed_log_grows_on_the_screen_and_ends_with_the_build(
    growing: Growing, status: str, code: int, verdict: str
) -> None:
    shown, key, end = growing
    process = await shown.ada.start("build", "logs", "ada/live/1", "-f")
    assert process.stdout is not None and process.stderr is not None
    assert await process.stdout.readline() == b"--- ci / test\n"
    assert await process.stdout.readline() == b"first\n"
    await shown.scene.logs.append(key, 6, b"second\nthi")
    assert await process.stdout.readline() == b"second\n"
    await shown.scene.logs.append(key, 16, b"rd\n")
    await end(status)
    assert await process.stdout.read() == b"third\n"
    assert (await process.stderr.read()).decode().startswith(f"shipway: {verdict} http://")
    assert await process.wait() == code


async def test_watch_tells_each_change_and_ends_with_the_build(growing: Growing) -> None:
    shown, _, end = growing
    process = await shown.ada.start("build", "watch", "ada/live")
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ci / test running\n"
    await end("failure")
    assert await process.stdout.readline() == b"ci / test failed: exited with 1\n"
    assert await process.wait() == 1


async def test_an_interrupt_is_130(growing: Growing) -> None:
    process = await growing[0].ada.start("build", "logs", "ada/live/1", "-f")
    assert process.stdout is not None
    await process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), 20) == 130


# --- what a person does --------------------------------------------------------------------------------


async def test_a_build_is_cancelled_and_run_again(shown: Shown) -> None:
    cancelled = await shown.ada.run("build", "cancel", "ada/api/11")
    assert (cancelled.code, cancelled.text) == (0, "asked for the end of ada/api/11\n")
    assert (await shown.api("/api/repos/ada/api/builds/11"))["cancel_reason"] == "cancelled by ada"
    again = await shown.ada.run("build", "rerun", "ada/api/8")
    assert again.code == 0 and again.text.startswith("ada/api/")
    assert len(shown.scene.reruns) == 1
    late = await shown.ada.run("build", "cancel", "ada/api/7")
    assert (late.code, late.err) == (2, "shipway: build 7 has ended already: passed\n")


async def test_only_what_failed_is_run_again_where_asked(shown: Shown) -> None:
    done = await shown.ada.run("build", "rerun", "ada/api/8", "--failed", "--json")
    assert done.code == 0 and set(done.json) == {"repo", "number", "url"}
    wrong = await shown.ada.run("build", "rerun", "ada/api/8", "--fialed")
    assert wrong.code == 2 and "--failed" in wrong.err


async def test_a_strangers_build_is_looked_at_and_then_approved_or_rejected(shown: Shown) -> None:
    numbers = []
    for name in ("one", "two"):
        await blocked(shown.scene, await shown.scene.repo("ada", name))
        newest = await shown.api(f"/api/repos/ada/{name}/builds?limit=1")
        numbers.append(newest["builds"][0]["number"])
    one, two = f"ada/one/{numbers[0]}", f"ada/two/{numbers[1]}"
    assert f"look, then: shipway build approve {one}" in (await shown.ada.run("why", one)).text
    unseen = await shown.ada.run("build", "approve", one)
    assert unseen.code == 2 and "give --yes if you are sure" in unseen.err
    assert "pull request" in unseen.text and "pipeline" in unseen.text
    assert (await shown.ada.run("build", "approve", one, "--yes")).text == f"{one} is approved: pending\n"
    assert (await shown.ada.run("build", "reject", two)).text == f"{two} is rejected\n"
    again = await shown.ada.run("build", "approve", two, "--yes")
    assert again.code == 2 and "waits for no approval" in again.err


async def test_a_person_says_how_an_unknown_job_ended(shown: Shown) -> None:
    wrong = await shown.ada.run("build", "resolve", "ada/worker/4", "maybe")
    assert wrong.code == 2 and "'maybe' is no verdict; there are success, failure" in wrong.err
    done = await shown.ada.run("build", "resolve", "ada/worker/4", "success")
    assert (done.code, done.text) == (0, "ada/worker/4 passed\n")
    none = await shown.ada.run("build", "resolve", "ada/worker/4", "success")
    assert none.code == 2 and "nothing to resolve" in none.err


async def test_runners_are_paused_drained_resumed_and_removed_by_name(shown: Shown) -> None:
    for word, state in (("pause", "paused"), ("resume", "idle"), ("drain", "drained")):
        assert (await shown.ada.run("runners", word, "r2")).code == 0
        table = (await shown.ada.run("runners", "ls")).text
        assert ["r2", state] in [line.split()[:2] for line in table.splitlines()]
    assert (await shown.ada.run("runners", "rm", "r2", "--yes")).text == "r2 is removed\n"
    gone = await shown.ada.run("runners", "pause", "r2")
    assert (gone.code, gone.err) == (2, "shipway: there is no runner 'r2'; there are: r1, r3\n")
    kept = await shown.ada.run("runners", "rm", "r3")
    assert kept.code == 2 and "give --yes if you are sure" in kept.err
    code = (await shown.ada.run("runners", "code")).text.strip()
    assert len(code.split("-")) == 3


#: Its last line end belongs to it: without it, no ssh reads the key.
KEY = b"-----BEGIN KEY-----\nMTIzNDU2Nzg5MA==\n-----END KEY-----\n"


async def test_a_secret_goes_in_by_standard_input_and_its_value_never_comes_out(shown: Shown) -> None:
    async def ada(*arguments: str, stdin: bytes = b"") -> Any:
        return await shown.ada.run("secret", *arguments, stdin=stdin)

    done = await ada(
        "set", "deploy_key", "--repo", "ada/api", "--event", "push", "--step", "deploy", stdin=KEY
    )
    assert (done.code, done.text) == (0, "deploy_key is set for ada/api\n")
    (found,) = (await ada("ls", "--repo", "ada/api", "--json")).json["secrets"]
    assert (found["events"], found["images"], found["steps"]) == (["push"], [], ["deploy"])
    assert (await ada("ls", "--repo", "ada/api")).text.splitlines()[1].split() == (
        ["deploy_key", "ada/api", "push", "deploy", "never"]
    )
    weak = await ada("set", "pin", "--owner", "ada", stdin=b"12\n")
    assert weak.code == 0 and weak.err.startswith("warning: ")
    wide = await ada("set", "shared", "--server-wide", stdin=b"a long enough value\n")
    assert wide.text == "shared is set for every repo of the server\n"
    assert (await ada("rm", "pin", "--owner", "ada")).text == "pin is removed from every repo of ada\n"
    gone = await ada("rm", "pin", "--owner", "ada")
    assert gone.code == 2 and "pin" in gone.err
    assert (await ada("set", "empty", "--repo", "ada/api")).code == 2
    assert (await ada("ls", "--owner", "ada", "--server-wide")).err == (
        "shipway: give one of --repo, --owner and --server-wide\n"
    )
    step = StepSpec(
        number=0, name="deploy", slug="deploy", kind=StepKind.COMMANDS, secrets={"KEY": "deploy_key"}
    )
    spec = JobSpec(name="ci", slug="ci", steps=(step,), is_trusted=True)
    push = Event(kind=Kind.PUSH, ref="refs/heads/main", after="a" * 40)

    def resolve(c: Any) -> dict[str, str]:
        repo = repos.find(c, "ada", "api")
        assert repo is not None
        return shown.scene.parts().secrets.for_job(c, spec, push, repo, "ada/api/1").values

    assert await shown.scene.store.write(resolve) == {"deploy_key": KEY.decode()}


async def test_settings_of_a_repo_are_shown_and_changed(shown: Shown, tmp_path: Path) -> None:
    async with shown.scene.serving() as url:
        ada = Person(home=tmp_path, url=url, token=shown.ada.token)
        assert "timeout_minutes   60" in (await ada.run("repo", "settings", "ada/api")).text
        changed = await ada.run("repo", "settings", "ada/api", "--set", "timeout-minutes=90", "--json")
        assert changed.json["timeout_minutes"] == 90
        assert (await ada.run("repo", "disable", "ada/api")).text == "ada/api is disabled\n"
        assert (await ada.run("repo", "settings", "ada/api", "--json")).json["is_enabled"] is False
        assert (await ada.run("repo", "enable", "ada/api")).text == "ada/api is enabled\n"
        events = (await ada.run("why", "ada/api")).text
        assert "skipped, because the commit message says [ci skip]" in events
        assert "is not decided yet" in events
        wrong = await ada.run("repo", "settings", "ada/api", "--set", "timeout_minutes=soon")
        assert wrong.code == 2 and "Traceback" not in wrong.err


# --- what goes wrong -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("build show ada/api/999", 2, "ada/api has no build 999"),
        ("build show nonsense", 2, "'nonsense' is no build: give OWNER/NAME/NUMBER"),
        ("repo show ada/none", 2, "there is no such repo, or you may not see it"),
        ("build ls --limit 1000", 2, "`shipway build ls --help` explains"),
        ("build lss", 2, "No such command 'lss'"),
        ("build show", 2, "stand in a git clone"),
    ],
)
async def test_a_mistake_is_one_sentence_and_2(shown: Shown, command: str, code: int, said: str) -> None:
    done = await shown.ada.run(*command.split())
    assert (done.code, done.text) == (code, "")
    assert said in done.err and "Traceback" not in done.err


async def test_a_token_that_is_not_known_says_how_to_sign_in(shown: Shown, tmp_path: Path) -> None:
    wrong = await Person(home=tmp_path, url=shown.ada.url, token="shipway_wrong").run("repo", "ls")
    assert wrong.code == 2
    assert f"Sign in again: `shipway login {shown.ada.url}`" in wrong.err
    none = await Person(home=tmp_path, url=shown.ada.url).run("runners", "ls")
    assert (none.code, none.err) == (
        2,
        f"shipway: you are not signed in to {shown.ada.url}: `shipway login {shown.ada.url}`\n",
    )
    nowhere = await Person(home=tmp_path).run("repo", "ls")
    assert (nowhere.code, nowhere.err.partition("?")[0]) == (2, "shipway: which server")


async def test_a_server_that_does_not_answer_or_is_none_is_3(tmp_path: Path) -> None:
    nobody = await Person(home=tmp_path, url="http://127.0.0.1:9").run("repo", "ls")
    assert nobody.code == 3 and "http://127.0.0.1:9 cannot be reached" in nobody.err
    async with _answering(
        b"HTTP/1.1 302 Found\r\nlocation: http://elsewhere/\r\ncontent-length: 0\r\n\r\n"
    ) as (
        url,
        _,
    ):
        stranger = await Person(home=tmp_path, url=url, token="secret").run("repo", "ls")
    assert stranger.code == 3
    assert "does not speak Shipway's API: HTTP 302 and points to http://elsewhere/" in stranger.err


async def test_a_reader_who_has_seen_enough_ends_it_without_a_word(shown: Shown) -> None:
    line = f"{SHIPWAY} build logs ada/api/8 | head -1; echo ${{PIPESTATUS[0]}}"
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        line,
        env=shown.ada.environment(),
        cwd=shown.ada.home,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert out.decode().splitlines() == ["--- ci / clone", "0"]
    assert err == b""


class _answering:
    """A server that gives one answer to everybody, and keeps what it was asked."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self.asked: list[bytes] = []

    async def __aenter__(self) -> tuple[str, list[bytes]]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self._answer)
            await writer.drain()
            writer.close()

        self._server = await asyncio.start_server(serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}", self.asked

    async def __aexit__(self, *_: object) -> None:
        self._server.close()


# --- who one is where ----------------------------------------------------------------------------------

_EMPTY = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 12\r\n\r\n{"repos":[]}'


async def test_a_token_is_shown_to_no_other_server(tmp_path: Path) -> None:
    stored = Servers(tmp_path / "shipway")
    async with _answering(_EMPTY) as (other, asked):
        stored.keep(Account(url="http://127.0.0.1:9", token="stored-token", user="ada"))
        one = await Person(home=tmp_path).run("repo", "ls", "--server", other)
        two = await Person(home=tmp_path, url="http://127.0.0.1:9", token="outside-token").run(
            "repo", "ls", "--server", other
        )
        stored.keep(Account(url=other, token="token-of-other", user="ada"))
        three = await Person(home=tmp_path, url="http://127.0.0.1:9", token="outside-token").run(
            "repo", "ls", "--server", other
        )
    assert (one.code, two.code, three.code) == (0, 0, 0)
    assert b"authorization" not in (asked[0] + asked[1]).lower()
    assert b"authorization: bearer token-of-other\r\n" in asked[2].lower()


def test_tokens_are_kept_for_the_owner_alone_and_several_servers_are_kept_apart(tmp_path: Path) -> None:
    folder = tmp_path / "shipway"
    servers = Servers(folder)
    servers.keep(Account(url="https://a.example", token="a", user="ada"))
    servers.path.chmod(0o644)
    servers.keep(Account(url="https://b.example:8443", token="b", user="ada"))
    assert stat.S_IMODE(servers.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    again = Servers(folder)
    assert (again.current, again.urls) == (
        "https://b.example:8443",
        ["https://a.example", "https://b.example:8443"],
    )
    assert again.named("b.example") == "https://b.example:8443"
    assert again.named("c.example") == "https://c.example"
    again.forget("https://b.example:8443")
    assert Servers(folder).current == "https://a.example"
    assert "token='a'" not in repr(again.account("https://a.example"))


async def test_a_spoiled_file_of_servers_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "shipway" / "servers.json"
    path.parent.mkdir()
    path.write_text("{not json")
    done = await Person(home=tmp_path).run("whoami")
    assert (done.code, done.err) == (2, f"shipway: {path} cannot be read; remove it and sign in again\n")


async def test_a_token_comes_by_standard_input_and_is_kept_until_one_signs_out(
    shown: Shown, tmp_path: Path
) -> None:
    somebody = Person(home=tmp_path)
    done = await somebody.run("login", shown.ada.url, stdin=f"{shown.ada.token}\n".encode())
    assert (done.code, done.text, done.err) == (0, f"signed in to {shown.ada.url} as ada\n", "")
    assert (await somebody.run("whoami", "--json")).json == await shown.api("/api/account")
    assert "user       ada (administrator)" in (await somebody.run("whoami")).text
    assert (await somebody.run("runners", "ls")).code == 0
    assert (await somebody.run("logout")).code == 0
    assert (await somebody.run("whoami")).code == 2
    assert shown.ada.token not in (tmp_path / "shipway/servers.json").read_text()


async def test_a_password_becomes_a_token_that_may_what_was_asked_for(shown: Shown, tmp_path: Path) -> None:
    somebody = Person(home=tmp_path)
    command = ("login", shown.ada.url, "--name", "ada", "--scope", "read")
    done = await somebody.run(*command, stdin=f"{PASSWORD}\n".encode())
    assert (done.code, done.text) == (0, f"signed in to {shown.ada.url} as ada\n")
    assert (await somebody.run("whoami", "--json")).json["scopes"] == ["read"]
    refused = await somebody.run("runners", "pause", "r1")
    assert refused.code == 2 and "this token may not manage runners" in refused.err
    wrong = await somebody.run("login", shown.ada.url, "--name", "ada", stdin=b"wrong\n")
    assert (wrong.code, wrong.err) == (2, "shipway: the name or the password is wrong\n")
    assert (await somebody.run("whoami")).code == 0, "what was kept before is kept"
    sessions = await shown.scene.store.read(lambda c: c.execute(SESSION.select()).all())
    assert sessions == [], "its session has ended again"


async def test_login_keeps_nothing_that_the_server_does_not_know(shown: Shown, tmp_path: Path) -> None:
    somebody = Person(home=tmp_path)
    done = await somebody.run("login", shown.ada.url, stdin=b"shipway_wrong\n")
    assert done.code == 2 and "this token is not known here" in done.err
    assert (await somebody.run("login", shown.ada.url)).code == 2, "nothing came"
    assert not (tmp_path / "shipway").exists()


# --- completion ----------------------------------------------------------------------------------------


async def test_commands_options_and_repos_are_completed(shown: Shown) -> None:
    async def complete(*words: str) -> list[str]:
        return (await shown.ada.run("complete", "--", *words)).text.split()

    assert await complete("run") == ["runner", "runners"]
    assert await complete("build", "re") == ["reject", "rerun", "resolve"]
    assert await complete("build", "logs", "--f") == ["--failed", "--follow"]
    assert await complete("build", "show", "ada/") == ["ada/api", "ada/worker"]
    assert await complete("runners", "drain", "") == ["r1", "r2", "r3"]
    assert await complete("no", "such", "") == []


async def test_bash_asks_shipway(shown: Shown) -> None:
    script = (await shown.ada.run("completion", "bash")).text
    words = "COMP_WORDS=(shipway build log); COMP_CWORD=2; _shipway; echo ${COMPREPLY[@]}"
    folder = Path(SHIPWAY).parent
    done = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        f"{script}\n{words}",
        env={**shown.ada.environment(), "PATH": f"{folder}:/usr/bin:/bin"},
        stdout=asyncio.subprocess.PIPE,
    )
    assert (await done.communicate())[0] == b"logs\n"
    assert (await shown.ada.run("completion", "tcsh")).code == 2
