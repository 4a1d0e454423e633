"""A server with something on every page: for the tests of the pages, their screenshots and their benchmark.

Rows go through the store's own functions; logs through Logs. Nothing runs: what the pages show is made.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import re
import zlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from sqlalchemy import Connection, update

from ci.errors import Problem
from ci.event import Event, Kind
from ci.protocol import Stream
from ci.server import auth
from ci.server.approvals import Approvals, is_needed
from ci.server.auth import Actor
from ci.server.bus import Bus
from ci.server.clock import Clock
from ci.server.credentials import Credentials
from ci.server.forges.address import Addresses
from ci.server.forges.builtin import Builtin
from ci.server.forges.directory import Forges
from ci.server.forges.git import PlainGit
from ci.server.forges.github import GitHub
from ci.server.forges.github_api import GitHubApi, RateLimits
from ci.server.hooks import Hooks
from ci.server.inbox import Inbox as InboxService
from ci.server.lifecycle import Lifecycle
from ci.server.logs import LogKey, Logs
from ci.server.models import Attempt, Inbox, PullRequest, Repo, Runner
from ci.server.pushes import Pushes
from ci.server.repos import Places, Repos
from ci.server.schedules import Schedules
from ci.server.secrets import Filters, Secrets
from ci.server.starts import Starts
from ci.server.store import builds, repos, tokens, users
from ci.server.store import secrets as secret_rows
from ci.server.store.builds import NewBuild
from ci.server.store.database import Store
from ci.server.store.tables import ATTEMPT, BUILD, JOB, REPO, RUNNER, STEP, add
from ci.server.store.tokens import NewToken
from ci.server.trigger import Trigger
from ci.server.variables import Variables
from ci.server.vault import Vault
from ci.spec import JobSpec, StepKind, StepSpec
from ci.status import Outcome, Status
from web.app import build_app
from web.parts import Parts
from web.routes import Entry

PASSWORD = "correct horse"


@dataclass(frozen=True, kw_only=True)
class Done:
    """How one step stands, for `Scene.build`."""

    name: str
    status: str = "success"
    seconds: float = 2.0
    log: bytes = b""
    marks: Sequence[tuple[int, float, str, Any]] = ()
    reason: str = ""
    exit_code: int | None = None
    outcome: str | None = None
    kind: StepKind = StepKind.COMMANDS
    commands: tuple[str, ...] = ("make",)
    image: str = "busybox"
    deploy: bool = False
    is_open: bool = False  #: its log may still grow


async def send(client: httpx.AsyncClient, path: str, /, **fields: str) -> httpx.Response:
    """A form of ours, sent as a browser sends it: with its token and the Origin."""
    page = (
        await client.get("/sign-in")
        if not client.cookies.get("shipway_session")
        else await client.get("/account")
    )
    found = re.search(r'name="csrf" value="([0-9a-f]+)"', page.text)
    assert found is not None, page.text[:300]
    origin = str(client.base_url).rstrip("/")
    return await client.post(path, data={"csrf": found[1], **fields}, headers={"origin": origin})


async def sign_in(client: httpx.AsyncClient, name: str = "ada") -> None:
    answer = await send(client, "/sign-in", name=name, password=PASSWORD)
    assert answer.status_code == 303, answer.text


async def _nowhere(host: str, port: int) -> list[str]:
    raise OSError("no name is looked up in a test")


class Scene:
    def __init__(self, folder: Path, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.store = Store(folder / "shipway.db")
        self.bus = Bus()
        self.logs = Logs(folder / "logs", clock=self.clock)
        self.lifecycle = Lifecycle(self.store, self.bus, self.clock)
        plain = PlainGit(folder / "cache", protocols=("file",))
        vault = Vault(bytes(32))
        self.credentials = Credentials(self.store, vault, self.clock)
        self.client_of_forges = httpx.AsyncClient()
        limits, url = RateLimits(self.clock), "http://127.0.0.1:8000"
        github = GitHub(client=self.client_of_forges, limits=limits, token_of=lambda repo: "")
        self.forges = Forges(builtin=Builtin(folder / "git", url), plain=plain, others=(github,))
        self.trigger = Trigger(
            self.store, self.bus, self.clock, self.forges, Secrets(self.store, vault, self.clock), url=url
        )
        self.hooks = Hooks(self.store, self.bus, self.clock, forges=self.forges, vault=vault)
        self.inbox = InboxService(self.store, self.bus, self.clock, self.trigger, self.forges)
        self.pushes = Pushes(self.store, self.clock, self.inbox, self.forges.builtin)
        self.starts = Starts(self.store, self.trigger, self.forges)
        self.schedules = Schedules(self.store, self.bus, self.clock)
        places = Places(
            addresses=Addresses(resolve=_nowhere),
            builtin=self.forges.builtin,
            folders=(folder / "git", folder / "cache"),
            ask_github=lambda at, token: GitHubApi(
                api_url=at, token=token, client=self.client_of_forges, limits=limits
            ),
        )
        self.repos = Repos(self.store, self.bus, self.clock, vault, logs=self.logs, places=places)
        self.reruns: list[tuple[int, str]] = []
        self.runner_id = 0

    async def open(self) -> None:
        await self.store.open()
        await self.logs.start()

    async def close(self) -> None:
        await self.client_of_forges.aclose()
        await self.logs.close()
        await self.store.close()

    def parts(self, url: str = "http://127.0.0.1:8000") -> Parts:
        async def rerun(build_id: int, who: Actor, *, only_failed: bool = False) -> tuple[str, str, int]:
            self.reruns.append((build_id, who.name))
            repo = await self.store.read(lambda c: c.execute(REPO.select()).first())
            assert repo is not None
            return repo.owner, repo.name, 1

        return Parts(
            store=self.store,
            bus=self.bus,
            logs=self.logs,
            lifecycle=self.lifecycle,
            clock=self.clock,
            approvals=Approvals(self.store, self.bus, self.clock, self.forges),
            rerun=rerun,
            secrets=Secrets(self.store, Vault(bytes(32)), self.clock),
            credentials=self.credentials,
            forges=self.forges,
            inbox=self.inbox,
            repos=self.repos,
            starts=self.starts,
            schedules=self.schedules,
            variables=Variables(self.store, self.clock),
            url=url,
        )

    # --- rows -----------------------------------------------------------------------------------------

    async def user(self, name: str = "ada", *, is_admin: bool = True) -> str:
        """The account, and a token of it."""
        password_hash = _password_hash()
        now = self.clock.now()

        def make(c: Connection) -> str:
            user_id = users.add_user(c, name=name, password_hash=password_hash, is_admin=is_admin, now=now)
            return tokens.add_token(c, user_id, NewToken(name="test"), now)

        return await self.store.write(make)

    async def repo(self, owner: str, name: str, *, is_private: bool = True) -> int:
        now = self.clock.now()
        return await self.store.write(
            lambda c: repos.create(c, owner=owner, name=name, now=now, is_private=is_private)
        )

    async def runner(self, name: str, **values: Any) -> int:
        row = Runner(
            name=name,
            token_hash=auth.token_hash(name),
            labels=values.pop("labels", {"arch": "amd64"}),
            capacity=values.pop("capacity", 2),
            engine=values.pop("engine", "docker 20.10"),
            software="shipway 0.1.0",
            is_connected=values.pop("is_connected", True),
            registered_at=self.clock.now() - 9000,
            seen_at=self.clock.now() - values.pop("seen_ago", 2),
            **values,
        )
        return await self.store.write(lambda c: add(c, row))

    async def delivery(
        self, repo_id: int, verdict: str, *, state: str = "processed", ref: str = "main"
    ) -> int:
        push = {"push_id": "p" + verdict[:30], "refs": [{"ref": f"refs/heads/{ref}", "after": "a" * 40}]}
        body = json.dumps(push).encode()
        row = Inbox(
            repo_id=repo_id,
            delivery=auth.new_token("push"),
            body_hash=auth.token_hash(verdict),
            body=body,
            received_at=self.clock.now() - 100,
            state=state,
            verdict=verdict,
        )
        return await self.store.write(lambda c: add(c, row))

    async def build(
        self,
        repo_id: int,
        jobs: Sequence[tuple[str, Sequence[Done]]],
        *,
        status: str | None = None,
        title: str = "Say hello",
        ago_seconds: float = 300.0,
        **extra: Any,
    ) -> int:
        """A build with its jobs and steps as `jobs` says; returns its id."""
        event = Event(
            kind=extra.pop("kind", Kind.PUSH),
            ref=extra.pop("ref", "refs/heads/main"),
            branch=extra.pop("branch", "main"),
            after=extra.pop("sha", "3f2c1ab9" * 5),
            title=title,
            author=extra.pop("author", "Ada Lovelace"),
            sender=extra.pop("sender", "ada"),
        )
        job_values = extra.pop("job_values", {})
        labels, matrix = extra.pop("labels", {}), extra.pop("matrix", [{}] * len(jobs))
        begin = self.clock.now() - ago_seconds
        specs = tuple(
            JobSpec(
                name=name,
                slug=name,
                labels=labels,
                matrix=matrix[at],
                steps=tuple(_spec(number, done, steps) for number, done in enumerate(steps)),
            )
            for at, (name, steps) in enumerate(jobs)
        )

        def make(c: Connection) -> builds.Made:
            number = builds.next_number(c, repo_id)
            new = NewBuild(
                repo_id=repo_id, number=number, event=event, specs=specs, **extra.pop("new_build", {})
            )
            made = builds.create(c, new, begin - 0.4)
            for job_id, (name, steps) in zip(made.job_ids, jobs, strict=True):
                self._job(c, job_id, steps, begin, job_values.get(name, {}))
            if status is None:
                builds.fold(c, made.build_id, begin + _seconds(jobs))
            else:
                values = {"status": status, "finished_at": begin if Status(status).is_terminal else None}
                c.execute(update(BUILD).where(BUILD.c.id == made.build_id).values(**values, **extra))
            return made

        made = await self.store.write(make)
        for job_id, (_, steps) in zip(made.job_ids, jobs, strict=True):
            for number, done in enumerate(steps):
                await self.log(job_id, number, done)
        return made.build_id

    def _job(
        self, c: Connection, job_id: int, steps: Sequence[Done], begin: float, values: dict[str, Any]
    ) -> None:
        at = 0.4
        for number, done in enumerate(steps):
            has_run = done.status not in ("waiting", "pending", "skipped", "blocked")
            is_over = Status(done.status).is_terminal
            row: dict[str, Any] = {
                "status": done.status,
                "reason": done.reason,
                "exit_code": done.exit_code,
                "outcome": done.outcome,
                "began_after": at if has_run else None,
                "ended_after": at + done.seconds if has_run and is_over else None,
                "log_size": len(done.log) if is_over else None,
                "is_log_closed": is_over,
                "is_marks_closed": is_over,
            }
            at += done.seconds if has_run and done.kind is not StepKind.SERVICE else 0.0
            c.execute(update(STEP).where(STEP.c.job_id == job_id, STEP.c.number == number).values(**row))
        worst = next(
            (
                status
                for status in ("running", "unknown", "pending", "error", "failure", "cancelled", "waiting")
                if any(done.status == status for done in steps)
            ),
            "success",
        )
        has_begun = any(done.status not in ("waiting", "pending", "skipped") for done in steps)
        job: dict[str, Any] = {
            "status": worst,
            "started_at": begin if has_begun else None,
            "finished_at": begin + at if Status(worst).is_terminal else None,
            "reason": next((done.reason for done in steps if done.status == worst), ""),
        }
        if worst == "running":
            job |= {"runner_id": self.runner_id or None, "is_accepted": True, "epoch": 1}
        c.execute(update(JOB).where(JOB.c.id == job_id).values(**{**job, **values}))
        if has_begun:
            attempt = Attempt(
                job_id=job_id,
                attempt=1,
                runner_id=self.runner_id or None,
                runner_name="r1",
                started_at=begin,
                is_over=Status(worst).is_terminal,
            )
            add(c, attempt)

    async def log(self, job_id: int, number: int, done: Done, attempt: int = 1) -> None:
        for stream, data in ((Stream.BYTES, done.log), (Stream.MARKS, _marks(done.marks))):
            key = LogKey(job_id, attempt, number, stream)
            for offset in range(0, len(data), 1 << 20):
                await self.logs.append(key, offset, data[offset : offset + (1 << 20)])
            if not done.is_open and Status(done.status).is_terminal:
                await self.logs.close_stream(key, len(data), zlib.crc32(data))

    async def key_of(self, build_id: int, number: int = 0, job: int = 0) -> LogKey:
        """The log of a step of a build."""
        rows = await self.store.read(
            lambda c: c.execute(JOB.select().where(JOB.c.build_id == build_id).order_by(JOB.c.position)).all()
        )
        return LogKey(rows[job].id, rows[job].attempt, number)

    @contextlib.asynccontextmanager
    async def client(
        self, token: str = "", url: str = "http://127.0.0.1:8000"
    ) -> AsyncIterator[httpx.AsyncClient]:
        """HTTP without a socket; with a token as a program, else as a browser that keeps its cookies."""
        transport = httpx.ASGITransport(app=build_app(self.parts(url)), client=("127.0.0.1", 5000))
        headers = {"authorization": f"Bearer {token}"} if token else {"accept": "text/html"}
        async with httpx.AsyncClient(transport=transport, base_url=url, headers=headers) as client:
            yield client

    @contextlib.asynccontextmanager
    async def serving(self, machines: tuple[Entry, ...] = ()) -> AsyncIterator[str]:
        """The pages behind a real uvicorn on a free port; gives the address."""
        config = uvicorn.Config(
            build_app(self.parts(), machines),
            host="127.0.0.1",
            port=0,
            ws="websockets-sansio",
            ws_per_message_deflate=False,
            log_level="warning",
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        task = asyncio.create_task(server._serve())
        try:
            async with asyncio.timeout(10):
                while not server.started:
                    await asyncio.sleep(0.01)
            port = server.servers[0].sockets[0].getsockname()[1]
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            await task


@functools.cache
def _password_hash() -> str:
    return auth.hash_password(PASSWORD)


def _spec(number: int, done: Done, steps: Sequence[Done]) -> StepSpec:
    return StepSpec(
        number=number,
        name=done.name,
        slug=done.name,
        kind=done.kind,
        image="" if done.kind is StepKind.CLONE else done.image,
        commands=done.commands if done.kind is StepKind.COMMANDS else (),
        depends_on=(steps[number - 1].name,) if number and done.kind is not StepKind.SERVICE else (),
        deploy=done.deploy,
    )


def _seconds(jobs: Sequence[tuple[str, Sequence[Done]]]) -> float:
    times = (
        sum(d.seconds for d in steps if d.status in ("success", "failure", "error", "cancelled"))
        for _, steps in jobs
    )
    return 0.4 + max(times, default=0.0)


def _marks(marks: Sequence[tuple[int, float, str, Any]]) -> bytes:
    return b"".join(
        json.dumps({"o": offset, "t": at, "k": kind, "v": value}, separators=(",", ":")).encode() + b"\n"
        for offset, at, kind, value in marks
    )


# --- what the pages look like with something on them -------------------------------------------------


def pytest_log() -> tuple[bytes, list[tuple[int, float, str, Any]]]:
    """A failed test run of two commands, with colours."""
    first = b"Obtaining file:///workspace\n  Installing build dependencies: \x1b[32mdone\x1b[0m\n"
    first += b"".join(b"Collecting package-%d\n" % number for number in range(10))
    second = b"\x1b[32m" + b"." * 72 + b"\x1b[0m [ 61%]\n"
    second += b"".join(
        b"tests/test_parse.py::test_%04d \x1b[32mPASSED\x1b[0m [%3d%%]\n" % (number, number // 20)
        for number in range(1800)
    )
    second += (
        b"=================================== \x1b[31m\x1b[1mFAILURES\x1b[0m ===========================\n"
        b"\x1b[31m\x1b[1m__________________________________ test_empty ____________________________\x1b[0m\n"
        b"\n"
        b"    \x1b[94mdef\x1b[39;49;00m \x1b[92mtest_empty\x1b[39;49;00m():\n"
        b'        rows = parse(\x1b[33m""\x1b[39;49;00m)\n'
        b">       \x1b[94massert\x1b[39;49;00m \x1b[96mlen\x1b[39;49;00m(rows) == \x1b[94m3\x1b[39;49;00m\n"
        b"\x1b[1m\x1b[31mE       AssertionError: expected 3 rows, got 2\x1b[0m\n"
        b"\n"
        b"\x1b[1m\x1b[31mtests/test_parse.py\x1b[0m:41: AssertionError\n"
        b"\x1b[33m=========================== slowest 3 durations ============================\x1b[0m\n"
        b"31.20s call     tests/test_end_to_end.py::test_orders\n"
        b"\x1b[31m1 failed\x1b[0m, \x1b[32m1800 passed\x1b[0m in 102.88s\n"
    )
    marks = [
        (0, 0.2, "begin", 0),
        (len(first), 8.3, "end", [0, 0]),
        (len(first), 8.3, "begin", 1),
        (len(first) + len(second), 111.2, "end", [1, 1]),
    ]
    return first + second, marks


async def fill(scene: Scene) -> dict[str, int]:
    """Repos, runners and builds in every state; returns the ids of the builds by what they show."""
    made: dict[str, int] = {}
    scene.runner_id = await scene.runner(
        "r1", labels={"arch": "amd64", "disk": "fast"}, capacity=4, lost_leases=1
    )
    await scene.runner("r2", labels={"arch": "amd64", "gpu": "yes"})
    await scene.runner(
        "r3", labels={"arch": "arm64"}, is_connected=False, seen_ago=1860, engine="docker 24.0"
    )
    api = await scene.repo("ada", "api")
    worker = await scene.repo("ada", "worker", is_private=False)
    log, marks = pytest_log()
    clone = Done(name="clone", kind=StepKind.CLONE, seconds=0.4, log=b"main 3f2c1ab9\n42 files, 12 KB\n")
    test = Done(
        name="test",
        status="failure",
        seconds=111.0,
        log=log,
        marks=marks,
        exit_code=1,
        outcome=Outcome.EXIT.value,
        reason="exited with 1",
        image="python:3.12-slim",
        commands=("pip install -e .[test]", "pytest -q --durations=3"),
    )
    skipped = Done(name="publish", status="skipped", reason="needs test, which failed")
    postgres = Done(name="postgres", kind=StepKind.SERVICE, seconds=120.0, image="postgres:16")
    green = [clone, Done(name="lint", seconds=21.9, log=b"all fine\n"), Done(name="types", seconds=29.0)]
    for number in range(6):
        await scene.build(
            api, [("ci", green)], title=f"Price service: step {number}", ago_seconds=9000 - number * 900
        )
    made["passed"] = await scene.build(
        api, [("ci", green)], title="Cache exchange rates for an hour", ago_seconds=1500
    )
    made["failed"] = await scene.build(
        api,
        [("ci", [*green, test, skipped, postgres])],
        title="Fix parser for empty input",
        ago_seconds=400,
    )
    made["config"] = await scene.build(
        worker,
        [],
        title="Try the new deploy step",
        ago_seconds=800,
        new_build={
            "status": Status.ERROR,
            "outcome": Outcome.CONFIG,
            "reason": '.ci.yml:4:5: unknown key "comands"; did you mean "commands"?',
            "config_file": ".ci.yml",
            "config": "steps:\n  deploy:\n    image: busybox\n    comands:\n      - echo\n"
            "    depends_on: [tset]\n",
            "problems": (
                Problem(message='unknown key "comands"; did you mean "commands"?', line=4, column=5),
                Problem(message='step "deploy" depends on unknown step "tset"', line=6, column=18),
            ),
        },
        status="error",
    )
    made["lost"] = await _lost_and_retried(scene, worker, clone)
    made["cancelled"] = await scene.build(
        worker,
        [("ci", [clone, Done(name="build", status="cancelled", reason="cancelled by ada", seconds=9.0)])],
        title="WIP: try the new queue",
        branch="queue-v2",
        ago_seconds=2400,
    )
    made["unknown"] = await scene.build(
        worker,
        [
            (
                "release",
                [
                    clone,
                    Done(
                        name="deploy",
                        status="unknown",
                        deploy=True,
                        reason="runner r3 was not heard of for 60 s; a step with side effects had started: "
                        "look whether it did its work, then say so",
                    ),
                ],
            )
        ],
        title="Release 4.2.0",
        ago_seconds=600,
    )
    made["waiting"] = await scene.build(
        api,
        [("nightly", [Done(name="test", status="pending"), Done(name="report", status="waiting")])],
        title="Nightly: full matrix",
        labels={"arch": "s390x"},
        ago_seconds=70,
        sender="cron",
    )
    made["matrix"] = await _matrix(scene, api, clone)
    running = b"".join(b"tests/test_api.py::test_%03d \x1b[32mPASSED\x1b[0m\n" % n for n in range(822))
    at_work = Done(
        name="test",
        status="running",
        log=running,
        marks=[(0, 0.1, "begin", 0)],
        commands=("pytest -v",),
        image="python:3.12-slim",
        is_open=True,
    )
    at_hand = Done(
        name="postgres", kind=StepKind.SERVICE, status="running", image="postgres:16", is_open=True
    )
    made["running"] = await scene.build(
        api,
        [("ci", [*green, at_work, Done(name="publish", status="waiting"), at_hand])],
        title="Reject empty order lines before the price service sees them",
        branch="orders-empty-lines",
        ref="refs/heads/orders-empty-lines",
        ago_seconds=74,
        sender="grace",
        author="Grace Hopper",
    )
    await scene.delivery(api, "built #7")
    await scene.delivery(api, "skipped, because the commit message says [ci skip]", ref="docs")
    await scene.delivery(api, "", state="received", ref="feature/x")
    return made


async def blocked(scene: Scene, repo_id: int) -> int:
    """A build of a fork's pull request that waits for an approval, after a push to main."""
    before = "steps:\n  test:\n    image: busybox\n    commands: [make test]\n"
    after = before.replace("make test", "make test && ./upload")
    await scene.build(
        repo_id,
        [("ci", [Done(name="test", log=b"ok\n")])],
        new_build={"config_file": ".ci.yml", "config": before},
    )
    event = Event(
        kind=Kind.PULL_REQUEST,
        ref="refs/pull/7/head",
        branch="main",
        after="b" * 40,
        pull_request=7,
        source_repo="mallory/worker",
        is_from_fork=True,
        title="Fix a typo in the README",
        author="Ada Lovelace",
        sender="mallory",
        sender_key="4711",
        link="https://github.example/ada/worker/pull/7",
        changed_files=("README.md", ".ci.yml"),
        variables={},
    )
    repo = Repo(id=repo_id, forge="builtin", forge_key="", owner="", name="", clone_url="", created_at=0.0)
    spec = JobSpec(name="ci", slug="ci", is_trusted=False, steps=(_spec(0, Done(name="test"), ()),))

    def make(c: Connection) -> int:
        new = NewBuild(
            repo_id=repo_id,
            number=builds.next_number(c, repo_id),
            event=event,
            specs=(spec,),
            config_file=".ci.yml",
            config=after,
            held=is_needed(repo, event),
            status=Status.BLOCKED,
            outcome=Outcome.BLOCKED,
            reason=is_needed(repo, event),
        )
        seen = PullRequest(
            repo_id=repo_id, number=7, head_sha=event.after, target_branch="main", updated_at=0.0
        )
        add(c, seen)
        return builds.create(c, new, scene.clock.now()).build_id

    return await scene.store.write(make)


async def with_secrets(scene: Scene, repo_id: int) -> None:
    """Secrets and variables of the repo, its owner and the server: weak, narrowed, long, used."""
    parts, ada = scene.parts(), Actor(user_id=1, name="ada")
    narrow = Filters(
        events=("push", "tag", "release"),
        images=("ghcr.io/example/a-very-long-name-of-an-image/for-deployment",),
        steps=("deploy to production",),
    )
    mine, owner, server = secret_rows.place_of_repo(repo_id), secret_rows.place_of_owner("ada"), "server"
    for place, name, value, filters in (
        (mine, "deploy_key", "a-long-random-value", narrow),
        (mine, "branch", "main", Filters()),
        (mine, "n" * 100, "another-random-value", Filters()),
        (owner, "deploy_key", "a-long-random-value", Filters()),
        (server, "registry_password", "a-long-random-value", Filters(events=("push",))),
    ):
        await parts.secrets.put(place, name, value, filters, ada)
    for place, name, value in (
        (mine, "REGION", "north"),
        (mine, "LONG", "https://mirror.example.org/" + "path/" * 60),
        (owner, "REGION", "south"),
        (server, "MIRROR", "https://mirror.example.org"),
    ):
        await parts.variables.put(place, name, value, ada)

    def use(c: Connection) -> None:
        (key,) = [row for row in secret_rows.at(c, mine) if row.name == "deploy_key"]
        secret_rows.used(c, [key.id or 0], "ada/api/8", scene.clock.now() - 300)

    await scene.store.write(use)


async def _lost_and_retried(scene: Scene, repo_id: int, clone: Done) -> int:
    build_id = await scene.build(
        repo_id,
        [("ci", [clone, Done(name="build", log=b"compiled\n", seconds=41.0)])],
        title="Bump base image to bookworm",
        ago_seconds=1860,
    )
    key = await scene.key_of(build_id)

    def lose(c: Connection) -> None:
        mine = (ATTEMPT.c.job_id == key.job, ATTEMPT.c.attempt == 1)
        c.execute(
            update(ATTEMPT)
            .where(*mine)
            .values(lost_reason="runner r3 was not heard of for 60 s", is_over=True)
        )
        old = c.execute(STEP.select().where(STEP.c.job_id == key.job)).all()
        for row in old:
            values = {**row._mapping, "attempt": 2}
            values.pop("id")
            c.execute(STEP.insert().values(**values))
        begin = c.execute(ATTEMPT.select().where(*mine)).one().started_at
        c.execute(
            update(STEP)
            .where(STEP.c.job_id == key.job, STEP.c.attempt == 1, STEP.c.number == 1)
            .values(status="error", outcome="infra", reason="lost: runner r3 was not heard of for 60 s")
        )
        add(c, Attempt(job_id=key.job, attempt=2, runner_name="r1", started_at=begin + 70, is_over=True))
        c.execute(update(JOB).where(JOB.c.id == key.job).values(attempt=2, lost_attempts=1))

    await scene.store.write(lose)
    await scene.log(key.job, 1, Done(name="build", log=b"compiled again\n"), attempt=2)
    return build_id


async def _matrix(scene: Scene, repo_id: int, clone: Done) -> int:
    names = [f"py3{minor}-{system}" for minor in (11, 12, 13) for system in ("debian", "alpine")]
    broken = Done(
        name="test",
        status="failure",
        seconds=14.0,
        log=b"cc -o parse parse.c\nparse.c:14:3: error: 'rows' undeclared\nmake: *** [parse] Error 1\n",
        exit_code=2,
        outcome=Outcome.EXIT.value,
    )
    fine = Done(name="test", seconds=11.0, log=b"ok\n")
    jobs = [(name, [clone, broken if name == "py313-alpine" else fine]) for name in names]
    matrix = [{"python": name[2] + "." + name[3:5], "system": name.split("-")[1]} for name in names]
    return await scene.build(
        repo_id, jobs, title="Test on three Pythons and two systems", matrix=matrix, ago_seconds=200
    )


__all__ = [
    "PASSWORD",
    "RUNNER",
    "Done",
    "Scene",
    "blocked",
    "fill",
    "pytest_log",
    "send",
    "sign_in",
    "with_secrets",
]
