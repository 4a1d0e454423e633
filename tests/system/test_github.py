"""GitHub from end to end: what it sends becomes one build each, on a real runner in real containers, cloned
from a git that wants the token; what is said back; and a stranger's pull request, which gets nothing."""

from __future__ import annotations

import asyncio
import base64
import html
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response

from bench.whole import until
from tests.fake_github import TOKEN, Delivery, Pull, signed
from tests.system.github_hub import CROWD, MAIN, EngineWatch, Far, Hub, containers, hub
from tests.system.test_mask_every_channel import forms

pytestmark = [pytest.mark.docker, pytest.mark.browser, pytest.mark.slow]

SAY = """
steps:
  say:
    image: busybox
    commands:
      - echo "$CI_PIPELINE_EVENT $CI_COMMIT_SHA $(cat greeting)"
"""


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with hub(tmp_path_factory.mktemp("town")) as found:
        yield found


# --- one build each -------------------------------------------------------------------------------------


def files(greeting: str) -> dict[str, str]:
    return {".ci.yml": SAY, "greeting": f"{greeting}\n"}


def a_push(far: Far) -> tuple[str, dict[str, Any], str]:
    body = far.push(files("hello from a push"))
    return "push", body, far.repo.refs[MAIN]


def a_pull_request(far: Far) -> tuple[str, dict[str, Any], str]:
    pull = far.pull(files("hello from a pull_request"))
    return "pull_request", far.opened(pull), pull.head


def a_fork(far: Far) -> tuple[str, dict[str, Any], str]:
    pull = far.fork(files("hello from a pull_request"))
    return "pull_request", far.opened(pull), pull.head


def a_tag(far: Far) -> tuple[str, dict[str, Any], str]:
    """An annotated one: an object of its own, which is not the commit."""
    sha = far.repo.commit(MAIN, files("hello from a tag"))
    return "push", far.pushed(far.repo.tag("v1.0", sha)), sha


@pytest.mark.parametrize("what", [a_push, a_pull_request, a_fork, a_tag], ids=lambda what: what.__name__)
def test_what_github_delivers_twice_and_by_20_connections_at_once_is_one_build_and_is_told_in_order(
    town: Hub, what: Callable[[Far], tuple[str, dict[str, Any], str]]
) -> None:
    far = town.add(what.__name__.replace("_", "-"), files("first"))
    word, body, sha = what(far)
    delivery = far.sign(word, body)
    answers = far.send_by_a_crowd([delivery] * CROWD)
    assert len({answer["delivery"] for answer in answers}) == 1
    assert sum(not answer["duplicate"] for answer in answers) == 1
    event = "tag" if what is a_tag else word
    context = f"shipway/{event}/ci"
    if what is a_fork:
        assert far.waits()["reason"].startswith("Pull request 7 comes from the fork mallory/")
        until(lambda: far.told(sha, context))
        assert far.repo.statuses[-1]["description"] == "waiting for a person"
        assert far.approve(1).status_code == 303
    build = far.ended()
    assert build["status"] == "success", build
    assert f"{event} {sha} hello from a {event}\n" in far.log(1, "say")
    # Again: as GitHub redelivers it, and by whoever has got hold of it, under other ids.
    assert far.send(delivery) == {**answers[0], "duplicate": True, "message": far.send(delivery)["message"]}
    again = far.send_by_a_crowd([far.sign(word, body) for _ in range(CROWD)])
    for number in {answer["delivery"] for answer in again}:
        assert "the same delivery as" in far.verdict(number)
    assert [each["number"] for each in far.builds()] == [1]
    states = far.until_told("success", sha, context)
    assert states[0] == "pending"
    last = far.repo.statuses[-1]
    assert last["target_url"] == f"{town.shipway.url}/r/{far.path}/1"
    assert {each["context"] for each in far.repo.statuses} == {context}
    # The clone was asked for the token first, and gave it.
    logins = [login for path, login in town.github.fetched if path.startswith(f"/{far.path}.git/")]
    assert logins and all(login.startswith("Basic ") for login in logins)


def test_a_build_that_fails_is_told_as_a_failure_and_why(town: Hub) -> None:
    far = town.add("red", files("first"))
    body = far.push({".ci.yml": SAY.replace("echo", "false #")})
    far.deliver("push", body)
    assert far.ended()["status"] == "failure"
    sha = far.repo.refs[MAIN]
    assert far.until_told("failure", sha, "shipway/push/ci")[0] == "pending"
    assert "say" in far.repo.statuses[-1]["description"]


def test_what_github_did_not_sign_for_this_repo_makes_no_build_and_is_shown_at_the_hook(town: Hub) -> None:
    far, other = town.add("forged", files("first")), town.add("another", files("first"))
    body = far.pushed()
    good = far.sign("push", body)
    forged = {
        "another repo's secret": other.sign("push", body),
        "a flipped byte": Delivery(body=good.body[:-1] + b" }", headers=good.headers),
        "an empty secret": signed("push", body, ""),
        "no signature": Delivery(
            body=good.body, headers={name: text for name, text in good.headers.items() if "hub" not in name}
        ),
        "SHA-1 alone": Delivery(
            body=good.body,
            headers={name: text for name, text in good.headers.items() if name != "x-hub-signature-256"},
        ),
    }
    for how, delivery in forged.items():
        answer = httpx.post(far.hook, content=delivery.body, headers=delivery.headers)
        assert answer.status_code == 403, how
        assert answer.json()["detail"] in html.unescape(town.browser.get(f"/r/{far.path}/hook").text)
    assert httpx.post(other.hook, content=good.body, headers=good.headers).status_code == 403
    assert town.shipway.api("GET", f"/api/repos/{far.path}/inbox")["deliveries"] == []
    far.deliver("push", body)
    assert far.ended()["status"] == "success"
    assert [each["number"] for each in far.builds()] == [1] and other.builds() == []
    assert not any(secret in town.shipway.server.said() for secret in (far.secret, other.secret))


# --- a stranger gets nothing ----------------------------------------------------------------------------

CANARIES = {
    "of the repo": "c4nary/of+the=repo&4711",
    "of the organisation": "c4nary/of+the=org&4712",
    "of the server": "c4nary/of+the=server&4713",
}
NOSY = """
services:
  nosy:
    image: busybox
    environment: { TOKEN: { from_secret: of_repo } }
    commands: [env, sleep 60]
steps:
  look:
    image: busybox
    environment:
      TOKEN: { from_secret: of_repo }
      ORG: { from_secret: of_org }
      SERVER: { from_secret: of_server }
    commands:
      - echo "[$TOKEN] [$ORG] [$SERVER]"
      - env
      - cat /proc/*/environ | tr "\\0" "\\n"
      - cat /proc/mounts /proc/*/cmdline .git/config
      - env > found; cat /proc/*/environ >> found; cp -r .git git
      - grep -r -e . /workspace /run /tmp /dev/shm /etc || true
      - echo all is seen
      - while [ ! -e /tmp/go ]; do sleep 0.1; done
  plug:
    image: environment:1
    deploy: false
    depends_on: [look]
    settings: { target: { from_secret: of_org } }
"""


def looked_for() -> set[bytes]:
    found = {form for canary in CANARIES.values() for form in forms(canary)}
    return found | forms(TOKEN) | {base64.b64encode(f"x-access-token:{TOKEN}".encode()).rstrip(b"=")[:-1]}


def found_in(seen: dict[str, bytes]) -> list[str]:
    return [name for name, data in seen.items() if any(form in data for form in looked_for())]


def titles() -> dict[str, bytes]:
    """What every process of this machine was started with, but for the tests' own."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found[f"process {entry.name}"] = (entry / "cmdline").read_bytes()
            except OSError:
                continue
    return found


def tables(database: Path) -> dict[str, bytes]:
    """Every value of every table, as it is and as text."""
    found: dict[str, bytes] = {}
    with closing(sqlite3.connect(database)) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in names:
            for row in connection.execute(f'SELECT * FROM "{name}"'):
                values = (value if isinstance(value, bytes) else str(value).encode() for value in row)
                found[f"table {name}"] = found.get(f"table {name}", b"") + b"\0".join(values) + b"\n"
    assert {"table build", "table secret", "table repo", "table outbox", "table inbox"} <= set(found)
    return found


def on_disk(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in folder.rglob("*"):
        try:
            if path.is_file():
                found[f"file {path.relative_to(folder)}"] = path.read_bytes()
        except OSError:  # gone in this moment
            continue
    return found


def volumes(job: int) -> dict[str, bytes]:
    """The whole of each volume of the job, as a tar stream made by a container of ours."""
    listed = ["docker", "volume", "ls", "-q", "--filter", f"label=shipway.job={job}"]
    names = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()
    found = {}
    for name in names:
        look = ["docker", "run", "--rm", "--network=none", "-v", f"{name}:/look:ro", "shipway-test/busybox:1"]
        made = subprocess.run([*look, "tar", "-c", "-C", "/look", "."], capture_output=True, check=True)
        found[f"volume {name}"] = made.stdout
    return found


class HeldGit:
    """The clone stands in its first request, so that it can be looked at."""

    def __init__(self) -> None:
        self.came = threading.Event()
        self.go = threading.Event()

    async def __call__(self, request: Request) -> Response | None:
        if "authorization" in request.headers:
            self.came.set()
            await asyncio.to_thread(self.go.wait, 60)
        return None


@pytest.fixture
def held_git(town: Hub) -> Iterator[HeldGit]:
    town.github.on_git = held = HeldGit()
    try:
        yield held
    finally:
        town.github.on_git = None
        held.go.set()


def with_canaries(town: Hub, name: str) -> Far:
    far = town.add(name, {**files("first"), ".ci.yml": NOSY.replace("while", "true || while")})
    town.shipway.api("PUT", f"/api/repos/{far.path}/secrets/of_repo", value=CANARIES["of the repo"])
    town.shipway.api("PUT", "/api/owners/ada/secrets/of_org", value=CANARIES["of the organisation"])
    town.shipway.api("PUT", "/api/secrets/of_server", value=CANARIES["of the server"])
    return far


def test_a_fork_waits_is_approved_and_runs_and_finds_no_secret_anywhere(town: Hub, held_git: HeldGit) -> None:
    far, shipway = with_canaries(town, "nosy"), town.shipway
    held_git.go.set()
    far.deliver("push", far.pushed())  # trusted: the canaries do reach who may have them
    assert far.ended()["status"] == "success", far.build(1)
    assert "[***] [***] [***]\n" in far.log(1, "look")
    held_git.came.clear()
    held_git.go.clear()

    pull = far.fork({**files("mallory was here"), ".ci.yml": NOSY})
    far.deliver("pull_request", far.opened(pull))
    build = far.waits(2)
    page = far.page(2)
    assert f"Pull request 7 comes from the fork mallory/{far.repo.name} (sent by mallory)" in page
    for canary_name in ("of_repo", "of_org", "of_server"):
        assert f"the secret '{canary_name}' is withheld from a stranger's pull request" in page
    (job,) = town.job_ids(far, 2)
    server = town.one("SELECT server_id FROM meta")
    assert containers(job, server) == []
    assert far.approve(2).status_code == 303

    seen: dict[str, bytes] = {}
    assert held_git.came.wait(60)  # the clone runs now, with the token for this one host
    seen |= {f"{name} in the clone": data for name, data in titles().items()}
    assert any(b"git\0fetch" in title for title in seen.values())
    held_git.go.set()

    until(lambda: b"all is seen" in raw(far, 2, "look"), 60)
    seen |= {f"{name} in the step": data for name, data in titles().items()}
    found = volumes(job)
    assert any(b'[remote "origin"]' in data and b"mallory was here" in data for data in found.values())
    seen |= found
    ids = containers(job, server)
    assert ids
    seen["docker inspect"] = subprocess.run(["docker", "inspect", *ids], capture_output=True).stdout
    seen |= {f"{name} while it runs": data for name, data in on_disk(shipway.folder).items()}
    (step,) = containers(job, server, "label=shipway.step=look")
    subprocess.run(["docker", "exec", step, "touch", "/tmp/go"], check=True)
    build = far.ended(2)
    assert build["status"] == "success", build

    log = far.log(2, "look")
    assert "[] [] []\n" in log
    assert f"url = {town.github.url}/{far.path}.git\n" in log
    assert "***" not in log, "there was nothing to mask"
    assert "PLUGIN_TARGET=\n" in far.log(2, "plug")
    for slug in ("clone", "nosy", "look", "plug"):
        seen[f"log {slug}"] = raw(far, 2, slug)
    for address in (f"/r/{far.path}", f"/r/{far.path}/2", f"/r/{far.path}/2/ci/look", "/admin/audit"):
        seen[address] = shipway.get(address)
    for address in (f"/api/repos/{far.path}/builds/2", f"/api/repos/{far.path}/inbox"):
        seen[address] = shipway.get(address)
    seen |= tables(shipway.data / "shipway.db") | on_disk(shipway.folder)
    assert "file server.log" in seen and any("spool" in name for name in seen)
    assert any(name.startswith("file data/logs/") for name in seen)
    seen["statuses"] = str(far.repo.statuses).encode()
    assert found_in(seen) == []


def raw(far: Far, number: int, step: str) -> bytes:
    try:
        return far.hub.shipway.raw(f"{far.path}/{number}/ci/{step}")
    except AssertionError:
        return b""


def test_a_stranger_of_a_public_repo_clones_with_no_credential_at_all(town: Hub) -> None:
    far = town.add("public", files("first"), private=False)
    far.deliver("push", far.pushed())
    assert far.ended()["status"] == "success"
    before = len(town.github.fetched)
    assert any(login for path, login in town.github.fetched if path.startswith(f"/{far.path}.git/"))
    far.deliver("pull_request", far.opened(far.fork(files("hello"))))
    far.waits(2)
    far.approve(2)
    assert far.ended(2)["status"] == "success"
    logins = [login for path, login in town.github.fetched[before:] if path.startswith(f"/{far.path}.git/")]
    assert logins and not any(logins)


# --- an approval that does not hold ---------------------------------------------------------------------

EVIL = SAY.replace("echo", "echo evil; echo")


def retargeted(far: Far, pull: Pull) -> str:
    far.repo.commit("refs/heads/production", files("live"))
    far.deliver("pull_request", far.retargeted(pull, "production"))
    return "pull request 7 now targets production, not main"


def changed(far: Far, pull: Pull) -> str:
    far.deliver("pull_request", far.synchronized(pull, {**files("harmless"), ".ci.yml": EVIL}))
    return f"the head of pull request 7 is now {pull.head[:12]}"


def cancelled_and_rerun(far: Far, pull: Pull) -> str:
    shipway = far.hub.shipway
    shipway.api("POST", f"/api/repos/{far.path}/builds/1/cancel")
    assert far.ended(1)["status"] == "cancelled"
    assert shipway.api("POST", f"/api/repos/{far.path}/builds/1/rerun")["number"] == 2
    return ""


@pytest.mark.parametrize(
    "change", [retargeted, changed, cancelled_and_rerun], ids=lambda change: change.__name__
)
def test_an_approval_does_not_hold_for_what_was_changed_after_it_and_no_job_starts(
    town: Hub, tmp_path: Path, change: Callable[[Far, Pull], str]
) -> None:
    far = town.add(f"later-{change.__name__.replace('_', '-')}", files("first"))
    pull = far.fork(files("harmless"))
    far.deliver("pull_request", far.opened(pull))
    far.waits(1)
    server = town.one("SELECT server_id FROM meta")
    watch = EngineWatch(tmp_path / "events")
    try:
        with town.runner_paused():
            assert far.approve(1).status_code == 303
            assert far.build(1)["status"] == "pending"
            why = change(far, pull)
            far.waits(2)
        if why:  # the runner asked for the job, and did not get it
            reason = far.waits(1)["reason"]
            assert reason.startswith(f"the approval by ada does not hold any more: {why}"), reason
            assert why in far.page(1)
            assert "/1/approve" not in far.page(1)
        # The runner does take what it may: this one comes after both.
        far.deliver("push", far.push(files("mine")))
        assert far.ended(3)["status"] == "success"
        (allowed,) = town.job_ids(far, 3)
        until(lambda: allowed in watch.jobs(server))
        held = [job for number in (1, 2) for job in town.job_ids(far, number)]
        assert len(held) == 2 and not watch.jobs(server) & set(held)
    finally:
        watch.close()
    assert far.build(2)["status"] == "blocked"
    for job in held:
        leases = "SELECT epoch FROM job WHERE id = ? AND runner_id IS NULL"
        assert town.one(leases, job) == 0, "no lease was ever granted"
        assert not list((town.shipway.data / "runner").rglob(f"{job}-*")), "nothing of it on the runner"
    assert raw(far, 1, "say") == raw(far, 2, "say") == b""
    assert "success" not in far.told(pull.head)
