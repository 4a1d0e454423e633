"""A push, by whichever door, makes exactly the builds it should; also when processes die (law 2)."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import random
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from bench.whole import Shipway, Work, until

HELLO = {".ci.yml": "skip_clone: true\nsteps:\n  hello:\n    image: busybox\n    commands: [echo hello]\n"}


def builds(shipway: Shipway, path: str = "ada/app") -> list[Any]:
    found: list[Any] = shipway.api("GET", f"/api/repos/{path}/builds?limit=100")["builds"]
    return found


def verdicts(shipway: Shipway, path: str = "ada/app") -> str:
    rows = shipway.api("GET", f"/api/repos/{path}/inbox")["deliveries"]
    return "\n".join(row["verdict"] for row in rows)


def test_the_first_push_makes_the_repo_and_prints_the_link_of_its_build(shipway: Shipway, work: Work) -> None:
    work.commit(HELLO)
    assert f"remote: shipway: built #1: {shipway.url}/r/ada/app/1" in work.push()
    assert shipway.wait("ada/app/1")["status"] == "success"


def test_three_branches_and_a_tag_in_one_push_are_four_builds(shipway: Shipway, work: Work) -> None:
    work.commit(HELLO)
    work.git("tag", "v1")
    work.push(work.remote, "HEAD:main", "HEAD:one", "HEAD:two", "v1")
    assert sorted(build["event"]["ref"] for build in builds(shipway)) == [
        "refs/heads/main",
        "refs/heads/one",
        "refs/heads/two",
        "refs/tags/v1",
    ]


def test_a_deleted_branch_makes_no_build_and_the_inbox_says_why(shipway: Shipway, work: Work) -> None:
    work.commit(HELLO)
    work.push(work.remote, "HEAD:main", "HEAD:old")
    work.push(work.remote, ":old")
    assert len(builds(shipway)) == 2
    assert "branch old was deleted" in verdicts(shipway)


def test_the_same_move_of_a_branch_is_built_each_time_it_really_happens(shipway: Shipway, work: Work) -> None:
    first = work.commit(HELLO)
    second = work.commit({"file": "2"})
    work.push(work.remote, f"{first}:refs/heads/main")
    work.push(work.remote, f"{second}:refs/heads/main")
    work.push("--force", work.remote, f"{first}:refs/heads/main")
    work.push(work.remote, f"{second}:refs/heads/main")
    shas = [build["event"]["after"] for build in sorted(builds(shipway), key=lambda build: build["number"])]
    assert shas == [first, second, first, second]


def test_ci_skip_as_an_option_or_in_the_message_makes_no_build(shipway: Shipway, work: Work) -> None:
    work.commit(HELLO)
    assert "-o ci.skip" in work.push("-o", "ci.skip", work.remote, "HEAD:main")
    for number, word in enumerate(("[ci skip]", "[skip ci]", "[no ci]")):
        work.commit({"file": str(number)}, f"a change {word}")
        assert "skipped" in work.push()
    assert builds(shipway) == []


def test_ci_wait_streams_the_log_and_ends_with_the_verdict(shipway: Shipway, work: Work) -> None:
    config = HELLO[".ci.yml"] + "    environment: {FAKE_EXIT: '3', FAKE_OUTPUT: \"\\x1b[31mred\\x1b[0m\"}\n"
    work.commit({".ci.yml": config})
    said = work.push("-o", "ci.wait", work.remote, "HEAD:main").strip().splitlines()
    assert said[-1].rstrip() == f"remote: shipway: build 1 failure {shipway.url}/r/ada/app/1"
    assert any(line.rstrip() == "remote: red" for line in said)
    assert "\x1b[31m" not in "".join(said)


def test_head_of_a_new_repository_follows_the_first_pushed_branch(shipway: Shipway, work: Work) -> None:
    work.commit(HELLO)
    work.push(work.remote, "HEAD:trunk")
    work.git("clone", "-q", work.remote, str(shipway.folder / "copy"))
    assert (shipway.folder / "copy/.ci.yml").exists()


def test_a_hostile_branch_message_and_author_are_only_text(shipway: Shipway, work: Work) -> None:
    work.git("config", "user.name", "Ada\" $(touch /tmp/owned) '; <script>alert(1)</script>")
    work.commit(HELLO, "${IFS}`touch /tmp/owned`\n\n: - { [ \x1b[31m \u202e <img src=x onerror=alert(1)>")
    work.push(work.remote, "HEAD:refs/heads/$(touch${IFS}owned)`x`<b>")
    build = shipway.wait("ada/app/1")
    assert build["status"] == "success"
    page = httpx.get(f"{shipway.url}/r/ada/app/1", headers={"Authorization": f"Bearer {shipway.token}"}).text
    assert "<script>alert" not in page and "<img src=x" not in page and "<b>" not in page
    assert not Path("/tmp/owned").exists()


def test_a_broken_pipeline_file_is_a_build_that_says_every_problem(shipway: Shipway, work: Work) -> None:
    work.commit({".ci.yml": "steps:\n  a:\n    image: busybox\n    comands: [x]\n    depends_on: [b]\n"})
    work.push()
    build = shipway.build("ada/app/1")
    assert (build["status"], build["outcome"]) == ("error", "config")
    assert 'did you mean "commands"' in str(build) and "b" in str(build)


# --- a repository elsewhere -----------------------------------------------------------------------


def signed(secret: str, body: bytes) -> dict[str, str]:
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {"X-Shipway-Signature": f"sha256={digest}"}


def add_plain(shipway: Shipway, clone_url: str) -> tuple[str, str]:
    """The hook's URL and its secret."""
    added = shipway.api("POST", "/api/repos", path="ada/elsewhere", clone_url=clone_url)
    return added["hook"], added["secret"]


def push_body(after: str, push_id: str = "p1", before: str = "0" * 40) -> bytes:
    return json.dumps(
        {"push_id": push_id, "ref": "refs/heads/main", "before": before, "after": after, "pusher": "ada"}
    ).encode()


def test_a_delivery_by_twenty_connections_at_once_is_one_build(shipway: Shipway, work: Work) -> None:
    sha = work.commit(HELLO)
    work.push("-o", "ci.skip", work.remote, "HEAD:main")
    hook, secret = add_plain(shipway, f"{shipway.url}/git/ada/app.git")
    shipway.api("POST", "/api/repos/ada/app/settings", is_private="false")
    body = push_body(sha)
    gate = threading.Barrier(20)

    def send(_: int) -> int:
        gate.wait()
        return httpx.post(hook, content=body, headers=signed(secret, body)).status_code

    with ThreadPoolExecutor(20) as pool:
        assert set(pool.map(send, range(20))) == {202}
    assert shipway.wait("ada/elsewhere/1")["status"] == "success"
    assert len(builds(shipway, "ada/elsewhere")) == 1


def test_a_wrong_signature_an_oversize_body_and_broken_json_make_no_build(
    shipway: Shipway, work: Work
) -> None:
    hook, secret = add_plain(shipway, "http://127.0.0.1:9/none.git")
    body = push_body("1" * 40)
    assert httpx.post(hook, content=body, headers=signed("wrong", body)).status_code == 403
    assert httpx.post(hook, content=body).status_code == 403
    broken = b'{"push_id": '
    assert httpx.post(hook, content=broken, headers=signed(secret, broken)).status_code == 400
    large = b" " * (6 << 20)
    assert httpx.post(hook, content=large, headers=signed(secret, large)).status_code == 413
    assert httpx.post(hook + "x", content=body, headers=signed(secret, body)).status_code == 404
    assert builds(shipway, "ada/elsewhere") == []


def test_a_delivery_repeated_after_a_kill_between_commit_and_answer_is_one_build(
    shipway: Shipway, work: Work
) -> None:
    sha = work.commit(HELLO)
    work.push("-o", "ci.skip", work.remote, "HEAD:main")
    hook, secret = add_plain(shipway, f"{shipway.url}/git/ada/app.git")
    shipway.api("POST", "/api/repos/ada/app/settings", is_private="false")
    body = push_body(sha)

    def send() -> None:
        with contextlib.suppress(httpx.HTTPError):
            httpx.post(hook, content=body, headers=signed(secret, body), timeout=5)

    assert shipway.server is not None
    for _ in range(3):
        sender = threading.Thread(target=send)
        sender.start()
        shipway.server.kill()
        sender.join()
        shipway.start()
    answer = httpx.post(hook, content=body, headers=signed(secret, body))
    assert answer.status_code == 202
    assert shipway.wait("ada/elsewhere/1")["status"] == "success"
    assert len(builds(shipway, "ada/elsewhere")) == 1


# --- a server that dies in a push -------------------------------------------------------------------


def rss_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    return 0


def test_memory_stays_flat_in_a_push_of_100_megabytes(shipway: Shipway, work: Work) -> None:
    work.commit(HELLO)
    work.push()
    (work.folder / "big").write_bytes(random.Random(5).randbytes(100 << 20))
    work.commit({})
    assert shipway.server is not None
    pid, peak, is_over = shipway.server.popen.pid, 0, threading.Event()
    before = rss_bytes(pid)

    def watch() -> None:
        nonlocal peak
        while not is_over.wait(0.05):
            peak = max(peak, rss_bytes(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    work.push()
    is_over.set()
    watcher.join()
    assert peak - before < 32 << 20
    assert len(builds(shipway)) == 2


def test_after_a_kill_in_the_middle_of_a_push_the_build_is_there_exactly_if_the_ref_moved(
    shipway: Shipway, work: Work
) -> None:
    work.commit(HELLO)
    work.push()
    (work.folder / "big").write_bytes(random.Random(6).randbytes(100 << 20))
    sha = work.commit({})
    has_moved = False
    for part in (0.2, 0.6, 0.95):
        if has_moved:
            break
        has_moved = kill_in_push(shipway, work, int(part * (100 << 20)), sha)
        shipway.start()
        assert until(lambda: not waiting_deliveries(shipway))
        assert (sha in [build["event"]["after"] for build in builds(shipway)]) == has_moved
    if not has_moved:
        work.push()
    assert [build["event"]["after"] for build in builds(shipway)].count(sha) == 1


def kill_in_push(shipway: Shipway, work: Work, after_bytes: int, sha: str) -> bool:
    """Kill the server once so much of the push has arrived; whether the ref moved all the same."""
    assert shipway.server is not None
    push = subprocess.Popen(
        ["git", "push", "-q", work.remote, "HEAD:main"],
        cwd=work.folder,
        env=work.environment(),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    until(lambda: incoming_bytes(shipway) > after_bytes or push.poll() is not None)
    shipway.server.kill()
    push.wait(30)
    until(lambda: not git_processes(shipway))
    return work.git("--git-dir", str(bare(shipway)), "rev-parse", "refs/heads/main").strip() == sha


def waiting_deliveries(shipway: Shipway) -> list[Any]:
    rows = shipway.api("GET", "/api/repos/ada/app/inbox")["deliveries"]
    return [row for row in rows if row["state"] == "received"]


def bare(shipway: Shipway) -> Path:
    return next((shipway.data / "git").glob("*.git"))


def incoming_bytes(shipway: Shipway) -> int:
    total = 0
    for path in bare(shipway).rglob("*"):
        try:
            total += path.stat().st_size if "incoming" in str(path) or "tmp_" in path.name else 0
        except OSError:
            continue
    return total


def git_processes(shipway: Shipway) -> list[int]:
    own = str(shipway.data).encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if own in (entry / "environ").read_bytes() and b"git" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


def test_a_pusher_who_leaves_a_waiting_push_leaves_nothing_behind(shipway: Shipway, work: Work) -> None:
    work.commit({".ci.yml": HELLO[".ci.yml"] + "    environment: {FAKE_HANG: '1'}\n"})
    push = subprocess.Popen(
        ["git", "push", "-q", "-o", "ci.wait", work.remote, "HEAD:main"],
        cwd=work.folder,
        env=work.environment(),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    shipway.wait("ada/app/1", "running")
    assert git_processes(shipway)
    os.killpg(push.pid, signal.SIGINT)
    push.wait(30)
    until(lambda: not git_processes(shipway))
