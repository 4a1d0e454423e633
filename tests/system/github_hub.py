"""A whole Shipway and a GitHub beside it, for system tests: repos added as a person adds them, deliveries as
GitHub sends them, git behind a token."""

from __future__ import annotations

import contextlib
import functools
import html
import json
import re
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from bench.whole import PASSWORD, ROOT, Shipway, until
from tests import fake_github, npm
from tests.fake_github import TOKEN, Delivery, FakeGitHub, Pull, pull_request_json, push_json, signed

MAIN = "refs/heads/main"
EXAMPLES = "@octokit/webhooks-examples/api.github.com/index.json"
CROWD = 20
#: How far a status is: it never goes back.
_RANK = {"pending": 0, "success": 1, "failure": 1, "error": 1}


# --- bodies as GitHub sends them ------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def _examples() -> Mapping[tuple[str, str], Any]:
    """The first real body of each event and action."""
    found: dict[tuple[str, str], Any] = {}
    for kind in json.loads(npm.file(EXAMPLES).read_text()):
        for example in kind["examples"]:
            found.setdefault((kind["name"], example.get("action", "")), example)
    return found


def as_sent(word: str, ours: Mapping[str, Any], like: str = "") -> dict[str, Any]:
    """A real body with our repo, commits and people in it; `like`: the action whose body is taken."""
    return _over(_examples()[word, like or ours.get("action", "")], ours)


def _over(real: Any, ours: Any) -> Any:
    if not (isinstance(real, dict) and isinstance(ours, Mapping)):
        return ours
    return {**real, **{key: _over(real.get(key), value) for key, value in ours.items()}}


# --- a repo ---------------------------------------------------------------------------------------------


class Far:
    """A repo of GitHub that Shipway builds."""

    def __init__(self, hub: Hub, repo: fake_github.Repo, hook: str, secret: str) -> None:
        self.hub = hub
        self.repo = repo
        self.hook = hook
        self.secret = secret
        self._seconds = 0  #: of the clock at GitHub

    @property
    def path(self) -> str:
        return f"{self.repo.owner}/{self.repo.name}"

    def sign(self, word: str, body: dict[str, Any], delivery: str = "") -> Delivery:
        return signed(word, body, self.secret, delivery=delivery)

    def send(self, delivery: Delivery) -> dict[str, Any]:
        answer = httpx.post(self.hook, content=delivery.body, headers=delivery.headers, timeout=60)
        assert answer.status_code == 202, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def send_by_a_crowd(self, deliveries: list[Delivery]) -> list[dict[str, Any]]:
        """Each by a connection of its own, all at the same moment."""
        gate = threading.Barrier(len(deliveries))

        def send(delivery: Delivery) -> dict[str, Any]:
            gate.wait()
            return self.send(delivery)

        with ThreadPoolExecutor(len(deliveries)) as pool:
            return list(pool.map(send, deliveries))

    def deliver(self, word: str, body: dict[str, Any]) -> str:
        """Sent and decided: the verdict."""
        return self.verdict(self.send(self.sign(word, body))["delivery"])

    def verdict(self, number: int) -> str:
        """The last word on a delivery."""
        return until(lambda: self._word(number, is_last=True), 60)

    def first_word(self, number: int) -> str:
        """What is said of a delivery, also while it is tried again."""
        return until(lambda: self._word(number, is_last=False), 60)

    def _word(self, number: int, *, is_last: bool) -> str:
        rows = self.hub.shipway.api("GET", f"/api/repos/{self.path}/inbox")["deliveries"]
        row = next(row for row in rows if row["id"] == number)
        return "" if is_last and row["state"] == "received" else str(row["verdict"])

    # --- what happens at GitHub ---------------------------------------------------------------------

    def pushed(self, ref: str = MAIN) -> dict[str, Any]:
        return as_sent("push", push_json(self.repo, ref))

    def push(self, files: dict[str, str], ref: str = MAIN) -> dict[str, Any]:
        before = self.repo.refs.get(ref, fake_github.ZERO)
        self.repo.commit(ref, files)
        return as_sent("push", push_json(self.repo, ref, before=before))

    def pull(self, files: dict[str, str], number: int = 7, **values: Any) -> Pull:
        """A pull request with a commit of its own."""
        head = self.repo.commit(f"refs/pull/{number}/head", files, "Change it")
        pull = Pull(number=number, head=head, files=sorted(files), **values)
        self.repo.pulls[number] = pull
        return pull

    def fork(self, files: dict[str, str], number: int = 7, **values: Any) -> Pull:
        return self.pull(files, number, head_repo_key=self.repo.key + 1000, **values)

    def opened(self, pull: Pull) -> dict[str, Any]:
        return self._about(pull, "opened")

    def synchronized(self, pull: Pull, files: dict[str, str]) -> dict[str, Any]:
        """A push to the pull request."""
        before = pull.head
        pull.head = self.repo.commit(f"refs/pull/{pull.number}/head", files, "Change it more")
        return self._about(pull, "synchronize", before=before, after=pull.head)

    def retargeted(self, pull: Pull, base: str) -> dict[str, Any]:
        """What GitHub's documentation says of it; the examples hold none."""
        old, pull.base = pull.base, base
        sha = self.repo.refs[f"refs/heads/{old}"]
        changes = {"base": {"ref": {"from": old}, "sha": {"from": sha}}}
        return self._about(pull, "edited", like="synchronize", changes=changes)

    def _about(self, pull: Pull, action: str, like: str = "", **more: Any) -> dict[str, Any]:
        self._seconds += 1
        pull.updated_at = f"2026-01-02T03:{self._seconds // 60:02}:{self._seconds % 60:02}Z"
        sender = "mallory" if pull.head_repo_key else "ada"
        return as_sent(
            "pull_request", pull_request_json(self.repo, pull, action, sender=sender, **more), like
        )

    # --- what Shipway makes of it -------------------------------------------------------------------

    def builds(self) -> list[Any]:
        found: list[Any] = self.hub.shipway.api("GET", f"/api/repos/{self.path}/builds?limit=100")["builds"]
        return found

    def build(self, number: int) -> Any:
        return self.hub.shipway.build(f"{self.path}/{number}")

    def ended(self, number: int = 1) -> Any:
        return self.hub.shipway.wait(f"{self.path}/{number}", seconds=90)

    def waits(self, number: int = 1) -> Any:
        return self.hub.shipway.wait(f"{self.path}/{number}", "blocked", seconds=60)

    def log(self, number: int, step: str) -> str:
        return self.hub.shipway.raw(f"{self.path}/{number}/ci/{step}").decode(errors="replace")

    def page(self, number: int | str = "") -> str:
        """The text of the repo's page, or of a build's."""
        found = self.hub.browser.get(f"/r/{self.path}/{number}".rstrip("/"))
        assert found.status_code == 200, found.text
        return html.unescape(found.text)

    def approve(self, number: int) -> httpx.Response:
        """As a person does: by the form of the build's page."""
        address = f"/r/{self.path}/{number}"
        form = re.search(rf'<form action="{address}/approve".*?</form>', self.page(number), re.DOTALL)
        assert form is not None, "the page has no form to approve with"
        fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', form[0]))
        return self.hub.send(f"{address}/approve", **fields)

    # --- what GitHub was told -----------------------------------------------------------------------

    def told(self, sha: str = "", context: str = "") -> list[str]:
        """The states, in the order in which they came."""
        return [
            status["state"]
            for status in list(self.repo.statuses)
            if sha in ("", status["sha"]) and context in ("", status["context"])
        ]

    def until_told(self, state: str, sha: str, context: str, seconds: float = 30) -> list[str]:
        """Until this is the last word; then all of them, which must be in order."""
        until(lambda: self.told(sha, context)[-1:] == [state], seconds)
        states = self.told(sha, context)
        assert states == sorted(states, key=_RANK.__getitem__), states
        assert states.count(state) == 1, states
        return states


# --- the whole ------------------------------------------------------------------------------------------


class Hub:
    def __init__(self, shipway: Shipway, github: FakeGitHub) -> None:
        self.shipway = shipway
        self.github = github
        self.browser = httpx.Client(base_url=shipway.url, headers={"accept": "text/html"}, timeout=60)
        self._keys = iter(range(4711, 5711))

    def send(self, path: str, /, **fields: str) -> httpx.Response:
        """A form, as a browser sends it."""
        if "csrf" not in fields:
            is_in = "shipway_session" in self.browser.cookies
            page = self.browser.get("/account" if is_in else "/sign-in").text
            found = re.search(r'name="csrf" value="([0-9a-f]+)"', page)
            assert found is not None, page
            fields["csrf"] = found[1]
        return self.browser.post(path, data=fields, headers={"origin": self.shipway.url})

    def sign_in(self) -> None:
        assert self.send("/sign-in", name="ada", password=PASSWORD).status_code == 303

    def add(self, name: str, files: dict[str, str], *, token: str = TOKEN, **values: Any) -> Far:
        """A repo with a first commit, added by the form; its hook as the page shows it, once."""
        repo = self.github.repo(next(self._keys), "ada", name, **values)
        repo.commit(MAIN, files)
        fields = {"forge": "github", "path": f"ada/{name}", "token": token, "api_url": self.github.url}
        answer = self.send("/repos/add", **fields)
        assert answer.status_code == 303, answer.text
        page = self.browser.get(answer.headers["location"]).text
        hook, secret = re.findall(r'<div class="copyable"><pre tabindex="0">([^<]*)</pre>', page)
        assert hook.startswith(f"{self.shipway.url}/hooks/")
        return Far(self, repo, hook, secret)

    def one(self, query: str, *values: object) -> Any:
        """A value of the database."""
        with contextlib.closing(sqlite3.connect(self.shipway.data / "shipway.db")) as database:
            found = database.execute(query, values).fetchone()
        return found[0] if found else None

    def job_ids(self, far: Far, number: int) -> list[int]:
        wanted = """
            SELECT job.id FROM job JOIN build ON build.id = job.build_id JOIN repo ON repo.id = build.repo_id
            WHERE repo.owner = ? AND repo.name = ? AND build.number = ?"""
        with contextlib.closing(sqlite3.connect(self.shipway.data / "shipway.db")) as database:
            return [row[0] for row in database.execute(wanted, (far.repo.owner, far.repo.name, number))]

    @contextlib.contextmanager
    def runner_paused(self) -> Iterator[None]:
        """What is approved inside stays where it is; at the end the runner takes jobs again."""
        (runner,) = self.shipway.api("GET", "/api/runners")["runners"]
        self.shipway.api("POST", f"/api/runners/{runner['id']}/pause")
        try:
            yield
        finally:
            self.shipway.api("POST", f"/api/runners/{runner['id']}/resume")


@contextlib.contextmanager
def hub(folder: Path, *, engine: str = "docker", clock: Path | None = None) -> Iterator[Hub]:
    """`clock`: a file with the seconds that the server's clock is ahead."""
    if engine == "docker":
        subprocess.run([str(ROOT / "scripts/images")], check=True)
    shipway = Shipway(folder, runner="on" if engine == "docker" else "off")
    if clock is not None:
        shipway.program = [sys.executable, "-P", str(ROOT / "tests/system/ahead.py"), str(clock)]
    with FakeGitHub(folder / "github").running() as github:
        try:
            shipway.start()
            shipway.set_up()
            if engine != "docker":
                shipway.runner = shipway.start_runner(engine=engine)
            shipway.wait_for_runner()
            found = Hub(shipway, github)
            found.sign_in()
            yield found
            found.browser.close()
        finally:
            shipway.end()


# --- the engine -----------------------------------------------------------------------------------------


class EngineWatch:
    """Every container that the engine makes for jobs, from now on: its labels, as they were made."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._output = file.open("wb")
        wanted = ["--since", f"{time.time():.6f}", "--filter", "type=container", "--filter", "event=create"]
        shape = ["--filter", "label=shipway.server", "--format", "{{json .Actor.Attributes}}"]
        self._process = subprocess.Popen(["docker", "events", *wanted, *shape], stdout=self._output)

    def jobs(self, server: str) -> set[int]:
        """The ids of the jobs that had one."""
        lines = [json.loads(line) for line in self._file.read_text().splitlines() if line.endswith("}")]
        return {int(line["shipway.job"]) for line in lines if line["shipway.server"] == server}

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._output.close()


def containers(job: int, server: str, *more: str) -> list[str]:
    labels = [f"label=shipway.job={job}", f"label=shipway.server={server}", *more]
    filters = [part for label in labels for part in ("--filter", label)]
    listed = subprocess.run(["docker", "ps", "-aq", *filters], capture_output=True, text=True, check=True)
    return listed.stdout.split()
