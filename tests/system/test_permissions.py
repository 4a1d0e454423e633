"""Nobody sees what is private: not over HTTP, sockets or git, nor on the disk of server and runner."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from bench.whole import Shipway, Work

HELLO = {".ci.yml": "skip_clone: true\nsteps:\n  hello:\n    image: busybox\n    commands: [echo hello]\n"}


def test_who_is_not_signed_in_gets_nothing_of_a_private_repo(shipway: Shipway, work: Work) -> None:
    work.commit(HELLO)
    work.push()
    build = shipway.wait("ada/app/1")
    step = f"/r/ada/app/1/{build['jobs'][0]['slug']}/hello"
    pages = ["/r/ada/app", "/r/ada/app/inbox", "/r/ada/app/1", step, "/runners", "/account"]
    logs = [f"{step}/{kind}" for kind in ("raw", "index", "marks")]
    data = ["", "/builds", "/inbox", "/builds/1"]
    for address in [*pages, *logs, *(f"/api/repos/ada/app{rest}" for rest in data), "/api/runners"]:
        assert httpx.get(shipway.url + address).status_code in (303, 401), address
    for address in ("/api/builds", "/api/repos"):
        assert "app" not in httpx.get(shipway.url + address).text
    for service in ("git-upload-pack", "git-receive-pack", "git%2Dreceive-pack"):
        address = f"/git/ada/app.git/info/refs?service={service}"
        assert httpx.get(shipway.url + address).status_code == 401
    # A repo that is not there is refused in the same words.
    there, nowhere = (httpx.get(f"{shipway.url}/api/repos/ada/{name}") for name in ("app", "none"))
    assert (there.status_code, there.text) == (nowhere.status_code, nowhere.text)
    for address in (f"{step}/live", f"/live?topics=build:{build['id']}", "/runner/control", "/runner/logs"):
        with pytest.raises(InvalidStatus), connect("ws" + shipway.url[4:] + address, origin=shipway.url):  # type: ignore[arg-type]
            pass


def test_what_changes_something_needs_a_person_and_our_own_page(shipway: Shipway, work: Work) -> None:
    work.commit(HELLO)
    work.push()
    shipway.wait("ada/app/1")
    for address in ("/r/ada/app/1/rerun", "/api/repos/ada/app/builds/1/rerun", "/api/runners/code"):
        assert httpx.post(shipway.url + address, json={}).status_code == 401
        answer = httpx.post(shipway.url + address, json={}, headers={"Origin": "http://evil.example"})
        assert answer.status_code in (401, 403)
    assert len(shipway.api("GET", "/api/repos/ada/app/builds")["builds"]) == 1


def test_others_of_the_machine_read_no_file_of_server_and_runner(tmp_path: Path) -> None:
    """Also where an administrator made the folders, for all to see."""
    shipway = Shipway(tmp_path, runner="off")
    for folder in (shipway.data, tmp_path / "r1"):
        folder.mkdir(mode=0o755)
    try:
        shipway.start()
        shipway.set_up()
        shipway.runner = shipway.start_runner()
        work = Work(shipway, "ada/app")
        work.commit(HELLO)
        work.push()
        shipway.wait("ada/app/1")
        files = [path for folder in (shipway.data, tmp_path / "r1") for path in folder.rglob("*")]
        assert len(files) > 20
        assert [path for path in files if path.lstat().st_mode & 0o077] == []
    finally:
        shipway.end()
