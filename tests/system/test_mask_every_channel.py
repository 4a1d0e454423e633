"""One secret, sent by a build into every channel there is; then it is looked for in all we keep and show."""

from __future__ import annotations

import base64
import html
import json
import shlex
import subprocess
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from bench.whole import Shipway, Work, pids_with, until

pytestmark = [pytest.mark.docker, pytest.mark.slow]

CANARY = 'c4nary\'4711/+val=ue&"more"'
KEY = "-----BEGIN A KEY-----\nMIIEcanary1line0001abcd\nMIIEcanary2line0002efgh\n-----END A KEY-----\n"

#: Every line sends the secret through a channel of its own.
FILE = """
services:
  db:
    image: busybox
    environment: { TOKEN: { from_secret: token } }
    commands:
      - echo "service out $TOKEN"
      - echo "service err $TOKEN" >&2
      - sleep 60
steps:
  say:
    image: busybox
    environment: { TOKEN: { from_secret: token }, KEY: { from_secret: key } }
    commands:
      - echo "out $TOKEN"
      - echo "err $TOKEN" >&2
      - printf "split %s" "$(printf %s "$TOKEN" | cut -c1-9)"; sleep 0.3; printf %s "$TOKEN" | cut -c10-
      - echo "base64 $(printf %s "$TOKEN" | base64)"
      - echo "base64 of more $(printf 'user:%s' "$TOKEN" | base64)"
      - echo "hex $(printf %s "$TOKEN" | od -An -v -tx1 | tr -d ' \\n')"
      - echo "$KEY"
      - echo "$KEY" | base64
      - printf %s "$KEY" | tail -n 2 | head -n 1
      - printf '\\033[31m%s\\033[0m\\n' "$TOKEN"
      - set -x; true "traced $TOKEN"; set +x
      - '"$TOKEN" || true'
      - ls "/$TOKEN" || true
      - echo "$TOKEN" > left
      - echo all is said; sleep 4
      - printf "at the end %s" "$TOKEN"
  plug:
    image: plugin:1
    deploy: false
    settings: { target: { from_secret: token } }
  fail:
    image: busybox
    environment: { TOKEN: { from_secret: token } }
    commands:
      - 'echo "Error: the server said $TOKEN"'
      - exit 3
"""
PULL = """
skip_clone: true
steps:
  pull:
    image: "127.0.0.1:%d/ada/image:1"
    environment: { TOKEN: { from_secret: token } }
    commands: [make]
"""


def forms(value: str) -> set[bytes]:
    raw = value.encode()
    alone = base64.b64encode(raw).rstrip(b"=")
    return {
        *(raw, raw.strip(), raw.hex().encode(), raw.hex().upper().encode()),
        *(alone[:-1], base64.urlsafe_b64encode(raw).rstrip(b"=")[:-1]),
        base64.b64encode(b"user:" + raw)[8:-4],
        urllib.parse.quote(value, safe="").encode(),
        json.dumps(value)[1:-1].encode(),
        json.dumps(json.dumps(value)[1:-1])[1:-1].encode(),
        shlex.quote(value)[1:-1].encode(),
        html.escape(value).encode(),
        value.replace("'", "'\\''").encode(),
    }


LOOKED_FOR = forms(CANARY) | forms(KEY) | {line.encode() for line in KEY.splitlines() if "canary" in line}


class _Registry(BaseHTTPRequestHandler):
    """A registry that says the secret in its refusal."""

    def do_GET(self) -> None:
        body = json.dumps({"errors": [{"code": "DENIED", "message": f"no {CANARY} here"}]}).encode()
        self.send_response(403)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def registry() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Registry)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def files(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and "work" not in path.relative_to(folder).parts:
            try:
                found[f"file {path.relative_to(folder)}"] = path.read_bytes()
            except OSError:  # gone in this moment
                continue
    return found


def processes(folder: Path) -> dict[str, bytes]:
    """What our processes were started with."""
    found = {}
    for pid in pids_with(str(folder)):
        for name in ("cmdline", "environ"):
            try:
                found[f"process {pid} {name}"] = Path(f"/proc/{pid}/{name}").read_bytes()
            except OSError:
                continue
    return found


def inspected() -> bytes:
    ids = subprocess.run(
        ["docker", "ps", "-aq", "--filter", "label=shipway.server"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert ids
    # One of them may be gone by now.
    return subprocess.run(["docker", "inspect", *ids], capture_output=True).stdout


def frames(shipway: Shipway, path: str) -> bytes:
    """Everything that a socket says until it closes."""
    headers = {"Authorization": f"Bearer {shipway.token}"}
    url = f"ws://127.0.0.1:{shipway.port}{path}"
    said = b""
    with connect(url, additional_headers=headers, max_size=None) as socket_:
        for frame in socket_:
            said += frame.encode() if isinstance(frame, str) else frame
    return said


def found_in(seen: dict[str, bytes]) -> list[tuple[str, bytes]]:
    return [(name, form) for name, data in seen.items() for form in LOOKED_FOR if form in data]


def test_mask_every_channel(docker_shipway: Shipway, docker_work: Work) -> None:
    shipway, work = docker_shipway, docker_work
    shipway.api("PUT", "/api/secrets/token", value=CANARY)
    shipway.api("PUT", "/api/owners/ada/secrets/key", value=KEY)
    work.commit({".ci.yml": FILE})
    pushed: list[str] = []
    pusher = threading.Thread(
        target=lambda: pushed.append(work.push("-o", "ci.wait", work.remote, "HEAD:main"))
    )
    pusher.start()
    # While it runs: what is on the runner's disk, in its processes, in the engine, on the live sockets.
    until(lambda: b"all is said" in _raw(shipway, "ada/app/1/ci/say"), 90)
    seen = {f"running {name}": data for name, data in files(shipway.folder).items()}
    assert any("spool" in name for name in seen), "the spool was looked at while it was there"
    seen |= processes(shipway.folder)
    seen["docker inspect"] = inspected()
    for step in ("say", "db"):
        seen[f"live log {step}"] = frames(shipway, f"/r/ada/app/1/ci/{step}/live?attempt=1&offset=0&marks=0")
    build = shipway.wait("ada/app/1", seconds=90)
    assert build["status"] == "failure", build
    pusher.join(60)
    seen["push"] = pushed[0].encode()
    with registry() as port:
        work.commit({".ci.yml": PULL % port})
        work.push()
        pulled = shipway.wait("ada/app/2", seconds=90)
    assert pulled["outcome"] == "image", pulled
    assert "no *** here" in pulled["reason"], pulled
    for step in ("clone", "db", "say", "plug", "fail"):
        path = f"/r/ada/app/1/ci/{step}"
        seen |= {path + part: shipway.get(path + part) for part in ("", "/raw", "/index", "/marks")}
    for page in (
        *(
            "/",
            "/repos",
            "/queue",
            "/runners",
            "/r/ada/app",
            "/r/ada/app/1",
            "/r/ada/app/2",
            "/r/ada/app/2/ci/pull",
        ),
        *(
            "/r/ada/app/inbox",
            "/r/ada/app/secrets",
            "/o/ada/secrets",
            "/admin/secrets",
            "/admin/audit",
            "/metrics",
        ),
        *(
            "/r/ada/app/badge.svg",
            "/cc.xml",
            "/api/builds",
            "/api/repos",
            "/api/runners",
            "/api/repos/ada/app",
        ),
        *(
            "/api/repos/ada/app/builds/1",
            "/api/repos/ada/app/builds/2",
            "/api/secrets",
            "/api/owners/ada/secrets",
        ),
        *("/api/repos/ada/app/inbox", "/?q=c4nary"),
    ):
        seen[page] = shipway.get(page)
    seen |= {f"ended {name}": data for name, data in files(shipway.folder).items()}
    assert found_in(seen) == []
    # It really was sent, and each time something stands for it.
    said = seen["/r/ada/app/1/ci/say/raw"]
    for line in (
        *(
            b"out ***\n",
            b"err ***\n",
            b"split ***\n",
            b"hex ***\n",
            b"\x1b[31m***\x1b[0m\n",
            b"at the end ***",
        ),
        b"traced ***",
    ):
        assert line in said, (line, said)
    assert b"base64 ***" in said
    assert said.count(b"***") >= 14
    assert b"service out ***\nservice err ***\n" in seen["/r/ada/app/1/ci/db/raw"]
    assert b"to *** from" in seen["/r/ada/app/1/ci/plug/raw"]
    assert b"Error: the server said ***" in seen["/r/ada/app/1"]
    assert b"out ***" in seen["push"]
    assert b"service out ***" in seen["live log db"]


def _raw(shipway: Shipway, path: str) -> bytes:
    try:
        return shipway.raw(path)
    except AssertionError:
        return b""
