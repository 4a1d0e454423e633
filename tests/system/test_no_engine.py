"""A server on a machine without a container engine: it starts, and says what is missing and how to fix it."""

from __future__ import annotations

from html import unescape
from pathlib import Path

import httpx
import pytest

from bench.whole import Shipway, Work

HELLO = {".ci.yml": "skip_clone: true\nsteps:\n  hello:\n    image: busybox\n    commands: [echo hello]\n"}


@pytest.mark.parametrize("mode", ["on", "auto"])
def test_a_server_without_an_engine_starts_and_says_what_is_missing(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    shipway = Shipway(tmp_path, runner=mode)
    try:
        shipway.start()
        shipway.set_up()
        work = Work(shipway, "ada/app")
        work.commit(HELLO)
        assert "built #1" in work.push()
        shipway.wait_for_runner()
        text = page(shipway, "/runners")
        assert f"{tmp_path}/no.sock" in text
        assert "start" in text
        build = shipway.build("ada/app/1")
        assert build["status"] == "pending"
        assert "engine" in build["jobs"][0]["reason"], build["jobs"][0]["reason"]
        assert build["jobs"][0]["reason"] in page(shipway, "/r/ada/app/1")
    finally:
        shipway.end()


def page(shipway: Shipway, address: str) -> str:
    headers = {"Authorization": f"Bearer {shipway.token}"}
    answer = httpx.get(shipway.url + address, headers=headers)
    assert answer.status_code == 200, answer.text
    return " ".join(unescape(answer.text).split())
