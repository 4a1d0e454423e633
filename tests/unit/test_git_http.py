from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from ci.errors import Forbidden, NotFound, Unauthenticated
from ci.server.forges.address import Addresses
from ci.server.forges.git import PlainGit
from ci.server.forges.news import Update
from ci.server.models import Repo
from tests.ready import Ready
from web.git_http import Access, GitHTTP, install_hooks


async def run(*command: str, cwd: Path, **environment: str) -> tuple[int, str]:
    clean = {
        "PATH": os.environ["PATH"],
        "HOME": str(cwd),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_AUTHOR_NAME": "Ada",
        "GIT_AUTHOR_EMAIL": "ada@example.org",
        "GIT_COMMITTER_NAME": "Ada",
        "GIT_COMMITTER_EMAIL": "ada@example.org",
    }
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env={**clean, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace")


async def git(cwd: Path, *arguments: str, code: int = 0, **environment: str) -> str:
    ended, output = await run("git", *arguments, cwd=cwd, **environment)
    assert ended == code, output
    return output


class Host:
    """A server of one bare repository, whose hooks are answered by `hook`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, Response] = {}
        self.ended = asyncio.Event()
        self.stream_left = asyncio.Event()

    async def authorise(self, user: str, password: str, owner: str, name: str, writes: bool) -> Access:
        if password != "right":
            raise Unauthenticated("sign in with your user name and a token")
        if (owner, name) != ("ada", "app"):
            raise NotFound(f"there is no repository {owner}/{name}")
        environment = {"SHIPWAY_PUSH_URL": f"{self.url}/internal/push", "SHIPWAY_PUSH_TOKEN": "t0ken"}
        return Access(folder=self.folder / "7.git", environment=environment, done=self.ended.set)

    async def hook(self, request: Request) -> Response:
        assert request.headers["authorization"] == "Bearer t0ken"
        phase = request.path_params["phase"]
        self.asked.append((phase, json.loads(await request.body())))
        return self.answers.get(phase, PlainTextResponse(""))


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    host = Host(tmp_path / "git")
    host.folder.mkdir()
    await git(tmp_path, "init", "-q", "--bare", str(host.folder / "7.git"))
    application = GitHTTP(host.authorise, install_hooks(tmp_path / "hooks"))
    routes = [
        Mount("/git", app=application),
        Route("/internal/push/{phase}", host.hook, methods=["POST"]),
    ]
    config = uvicorn.Config(Starlette(routes=routes), port=0, log_level="error", lifespan="off")
    server = Ready(config)
    serving = asyncio.create_task(server.serve())
    await asyncio.wait_for(server.is_ready.wait(), 20)
    host.url = f"http://127.0.0.1:{server.port}"
    yield host
    server.should_exit = True
    await serving


@pytest.fixture
async def work(tmp_path: Path) -> Path:
    work = tmp_path / "work"
    work.mkdir()
    await git(work, "init", "-q", "-b", "main")
    (work / "README").write_text("hello\n")
    await git(work, "add", "-A")
    await git(work, "commit", "-q", "-m", "first")
    return work


def remote(host: Host, password: str = "right", name: str = "app") -> str:
    return host.url.replace("http://", f"http://ada:{password}@") + f"/git/ada/{name}.git"


async def test_a_push_and_a_clone_carry_the_same_commit(host: Host, work: Path, tmp_path: Path) -> None:
    await git(work, "push", "-q", remote(host), "main")
    await git(tmp_path, "clone", "-q", "-b", "main", remote(host), "copy")
    assert (tmp_path / "copy/README").read_text() == "hello\n"
    assert [phase for phase, _ in host.asked] == ["pre-receive", "post-receive"]
    (old, new, ref) = host.asked[0][1]["updates"][0]
    assert (old, ref) == ("0" * 40, "refs/heads/main")
    assert new == (await git(work, "rev-parse", "HEAD")).strip()


async def test_a_push_over_a_mebibyte_arrives_whole(host: Host, work: Path) -> None:
    (work / "big").write_bytes(random.Random(1).randbytes(3 << 20))
    await git(work, "add", "-A")
    await git(work, "commit", "-q", "-m", "big")
    await git(work, "-c", "http.postBuffer=65536", "push", "-q", remote(host), "main")
    tip = (await git(host.folder / "7.git", "rev-parse", "main")).strip()
    assert tip == (await git(work, "rev-parse", "HEAD")).strip()
    await git(host.folder / "7.git", "fsck", "--strict")


async def test_a_wrong_token_is_refused_and_an_unknown_repository_is_not_found(
    host: Host, work: Path
) -> None:
    assert "Authentication failed" in await git(work, "push", remote(host, "wrong"), "main", code=128)
    assert "not found" in await git(work, "push", remote(host, name="other"), "main", code=128)
    assert host.asked == []


async def test_a_refused_push_moves_no_ref_and_shows_the_sentence(host: Host, work: Path) -> None:
    host.answers["pre-receive"] = PlainTextResponse("shipway: the disk is full, nothing was moved\n", 503)
    output = await git(work, "push", remote(host), "main", code=1)
    assert "remote: shipway: the disk is full, nothing was moved" in output
    assert await git(host.folder / "7.git", "for-each-ref") == ""


async def test_push_options_reach_the_hook_and_its_answer_streams_to_the_pusher(
    host: Host, work: Path
) -> None:
    may_end = asyncio.Event()

    async def lines() -> AsyncIterator[bytes]:
        yield b"shipway: first line\n"
        await may_end.wait()
        yield b"shipway: last line\n"

    host.answers["post-receive"] = StreamingResponse(lines())
    process = await asyncio.create_subprocess_exec(
        "git", "push", "-o", "ci.wait", remote(host), "main", cwd=work, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    first = await asyncio.wait_for(process.stderr.readuntil(b"first line"), 10)
    assert b"last line" not in first  # it was shown before the hook had ended
    may_end.set()
    assert b"remote: shipway: last line" in await process.stderr.read()
    assert await process.wait() == 0
    assert host.asked[0][1]["options"] == ["ci.wait"]


async def test_when_the_pusher_leaves_nothing_of_the_push_stays(host: Host, work: Path) -> None:
    left = asyncio.Event()

    async def lines() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"shipway: a line\n"
                await asyncio.sleep(0.01)
        finally:
            left.set()

    host.answers["post-receive"] = StreamingResponse(lines())
    process = await asyncio.create_subprocess_exec(
        "git",
        "push",
        remote(host),
        "main",
        cwd=work,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stderr is not None
    await asyncio.wait_for(process.stderr.readuntil(b"a line"), 10)
    host.ended.clear()
    os.killpg(process.pid, signal.SIGINT)  # Ctrl-C reaches every process of the push
    await process.wait()
    await asyncio.wait_for(left.wait(), 10)
    await asyncio.wait_for(host.ended.wait(), 15)


async def test_a_hook_without_its_server_refuses_the_push(host: Host, work: Path, tmp_path: Path) -> None:
    hooks = install_hooks(tmp_path / "hooks")
    await git(host.folder / "7.git", "config", "core.hooksPath", str(hooks))
    gone = {"SHIPWAY_PUSH_URL": "http://127.0.0.1:9/internal/push", "SHIPWAY_PUSH_TOKEN": "x"}
    output = await git(work, "push", str(host.folder / "7.git"), "main", code=1, **gone)
    assert "the server does not answer" in output
    assert await git(host.folder / "7.git", "for-each-ref") == ""


async def test_a_private_repository_elsewhere_is_read_with_its_credential_alone(
    host: Host, work: Path, tmp_path: Path
) -> None:
    """The same server, as one that is somewhere else."""
    await git(work, "push", "-q", remote(host), "main")
    sha = (await git(work, "rev-parse", "HEAD")).strip()
    url = f"{host.url}/git/ada/app.git"
    repo = Repo(id=3, forge="git", forge_key=url, owner="a", name="b", clone_url=url, created_at=1.0)
    update = Update(ref="refs/heads/main", after=sha)
    right = PlainGit(
        tmp_path / "cache", addresses=Addresses("127.0.0.1"), login_of=lambda repo: ("ada", "right")
    )
    assert await right.tip(repo, "refs/heads/main") == sha
    assert await (await right.objects(repo, update)).commit_of(sha) == sha
    for login in (None, ("ada", "wr0ng-word")):
        wrong = PlainGit(
            tmp_path / f"other-{login}",
            addresses=Addresses("127.0.0.1"),
            login_of=lambda repo, login=login: login,
        )
        with pytest.raises(Forbidden) as refused:
            await wrong.tip(repo, "refs/heads/main")
        assert "wr0ng-word" not in str(refused.value)
    kept = b"".join(path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file())
    assert b"right" not in kept
