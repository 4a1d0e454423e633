"""Accounts of a real server: from its machine, and what its log never says (T39)."""

from __future__ import annotations

import base64
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bench.whole import PASSWORD, SHIPWAY, Shipway

NEW_PASSWORD = "another long password"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Shipway]:
    """Without a runner."""
    shipway = Shipway(tmp_path, runner="off")
    try:
        shipway.start()
        shipway.set_up()
        yield shipway
    finally:
        shipway.end()


def user(server: Shipway, *arguments: str, stdin: str = "", code: int = 0) -> str:
    done = subprocess.run(
        [*SHIPWAY, "user", *arguments, "--data", str(server.data)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def signs_in(server: Shipway, name: str, password: str) -> int:
    with httpx.Client(base_url=server.url, headers={"accept": "text/html"}) as client:
        form = re.search(r'name="csrf" value="(\w+)"', client.get("/sign-in").text)
        assert form is not None
        fields = {"csrf": form[1], "name": name, "password": password}
        return client.post("/sign-in", data=fields, headers={"origin": server.url}).status_code


def test_a_lost_admin_gets_back_in_from_the_machine_while_the_server_runs(server: Shipway) -> None:
    said = user(server, "add", "grace")
    code = re.search(r"code +(\S+)", said)
    assert code is not None and f"{code[1]}" not in said.split("open")[1]
    body = {"code": code[1], "password": NEW_PASSWORD}
    assert httpx.post(f"{server.url}/api/join", json=body).json() == {"user": "grace"}
    user(server, "make-admin", "grace")
    user(server, "disable", "ada")
    listed = user(server, "list")
    assert re.search(r"ada +admin, disabled", listed) and re.search(r"grace +admin\n", listed)
    answer = httpx.get(f"{server.url}/api/runners", headers={"authorization": f"Bearer {server.token}"})
    assert answer.status_code == 401 and "disabled" in answer.text
    assert "last admin" in user(server, "disable", "grace", code=3)
    user(server, "enable", "ada")
    user(server, "reset-password", "ada", "--stdin", stdin=f"{NEW_PASSWORD}\n")
    assert signs_in(server, "ada", PASSWORD) == 401
    assert signs_in(server, "ada", NEW_PASSWORD) == 303
    assert "code " in user(server, "reset-password", "ada")
    assert "no account 'nobody'" in user(server, "make-admin", "nobody", code=3)
    rows = server.api("GET", "/api/audit?q=machine")["audit"]
    assert {row["action"] for row in rows} >= {"person.create", "person.make_admin", "password.set"}
    assert all(row["user_name"].endswith("at the machine") for row in rows)


def test_server_log_has_no_secret(server: Shipway) -> None:
    """Every kind of credential, right and wrong, by every door; then the whole log is searched."""
    said_at_start = server.server.said() if server.server else ""
    setup_code = re.search(r"setup code\s+(\S+)", said_at_start)
    assert setup_code is not None
    canaries = [PASSWORD, NEW_PASSWORD, server.token]
    bearer = {"authorization": f"Bearer {server.token}"}
    with httpx.Client(base_url=server.url) as client:
        invited = client.post("/api/people", json={"name": "grace"}, headers=bearer).json()
        canaries.append(invited["code"])
        client.post("/api/join", json={"code": "wrong-canary-1", "password": NEW_PASSWORD})
        client.post("/api/join", json={"code": invited["code"], "password": NEW_PASSWORD})
        client.post("/api/setup", json={"code": "wrong-canary-2", "name": "x", "password": "canary-3-long"})
        body = {"name": "t", "scopes": ["read"]}
        canaries.append(client.post("/api/account/tokens", json=body, headers=bearer).json()["token"])
        canaries.append(client.post("/api/runners/code", headers=bearer).json()["code"])
        added = {"path": "ada/else", "clone_url": "http://u:canary-4@127.0.0.1:9/x.git"}
        client.post("/api/repos", json=added, headers=bearer)
        added["clone_url"] = "http://127.0.0.1:9/x.git"
        made = client.post("/api/repos", json=added, headers=bearer).json()
        canaries.append(made["secret"])
        hook = made["hook"].removeprefix(server.url)
        client.post(hook, content=b"{canary-5", headers={"x-shipway-signature": "sha256=canary-6"})
        client.get("/api/runners", headers={"authorization": "Bearer canary-7"})
        client.get("/api/runners", headers={"authorization": "canary-8"})
        for password in ("canary-9", server.token):
            pair = base64.b64encode(f"x:{password}".encode()).decode()
            client.get(
                "/git/ada/app.git/info/refs?service=git-upload-pack",
                headers={"authorization": f"Basic {pair}"},
            )
        client.post("/api/runners/register", json={"code": "canary-10", "name": "r", "capacity": 1})
        client.post("/api/runners/register", content=b"{canary-11")
        client.get("/account", headers={"cookie": "shipway_session=canary-12"})
    for name, password in (("ada", "canary-13 wrong"), ("ada", PASSWORD), ("canary-14", PASSWORD)):
        signs_in(server, name, password)
    log = server.folder.joinpath("server.log").read_text()
    canaries += [f"canary-{number}" for number in range(1, 15)]
    assert [word for word in canaries if word in log] == []
    assert log.count(setup_code[1]) == 1, "said once, to whoever starts the server"
