from __future__ import annotations

import fcntl
import json
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from ci.errors import Forbidden, Invalid, Unauthenticated
from runners import credential
from runners.credential import Credential
from runners.settings import RunnerSettings, parse_labels


class Registrar:
    """The server's side of a registration."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.answer: tuple[int, dict[str, Any]] = (
            201,
            {"runner": 7, "name": "r", "server": "aa", "credential": "the-credential"},
        )
        self.lost_answers = 0
        registrar = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/api/runners/register"
                registrar.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                if len(registrar.bodies) <= registrar.lost_answers:
                    return  # the connection ends without a word
                code, body = registrar.answer
                self.send_response(code)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self._http = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def registrar() -> Iterator[Registrar]:
    registrar = Registrar()
    yield registrar
    registrar.close()


def settings(url: str, data: Path) -> RunnerSettings:
    return RunnerSettings(server=url, name="r", data=data, capacity=3, labels={"gpu": "yes"})


def test_a_code_is_traded_once_for_a_credential_that_only_its_owner_reads(
    registrar: Registrar, tmp_path: Path
) -> None:
    got = credential.register(settings(registrar.url, tmp_path), "one-time")
    assert credential.load(settings(registrar.url, tmp_path)) == got
    assert stat.S_IMODE((tmp_path / "credential.json").stat().st_mode) == 0o600
    body = registrar.bodies[0]
    assert (body["code"], body["name"], body["capacity"], body["labels"]["gpu"]) == (
        "one-time",
        "r",
        3,
        "yes",
    )
    assert "the-credential" not in repr(got)


def test_a_registration_is_repeated_with_the_same_credential_when_its_answer_is_lost(
    registrar: Registrar, tmp_path: Path
) -> None:
    registrar.lost_answers = 2
    credential.register(settings(registrar.url, tmp_path), "one-time")
    first, *others = registrar.bodies
    assert first["credential"].startswith("runner_")
    assert others == [first, first]


def test_a_refused_code_keeps_nothing_and_says_the_servers_words(
    registrar: Registrar, tmp_path: Path
) -> None:
    registrar.answer = (401, {"code": "forbidden", "detail": "this code was used already"})
    with pytest.raises(Unauthenticated, match="this code was used already"):
        credential.register(settings(registrar.url, tmp_path), "old")
    assert list(tmp_path.iterdir()) == []


def test_a_credential_is_shown_to_no_other_server(tmp_path: Path) -> None:
    Credential(url="https://ci.example.org", server="aa", runner=7, name="r", credential="c").save(tmp_path)
    with pytest.raises(Forbidden, match=r"runner of https://ci.example.org, not of https://evil.example"):
        credential.load(settings("https://evil.example", tmp_path))


def test_a_server_on_loopback_may_move_to_another_port(tmp_path: Path) -> None:
    Credential(url="http://127.0.0.1:8000", server="aa", runner=7, name="r", credential="c").save(tmp_path)
    assert credential.load(settings("http://localhost:9000", tmp_path)) is not None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--server", "ci.example.org"], "is no address like"),
        (["--server", "http://user:secret@ci.example.org"], "its own credential"),
        (["--server", "http://127.0.0.1:1", "--capacity", "-1"], "at least one job"),
        (["--server", "http://127.0.0.1:1", "--label", "gpu"], "not of the form key=value"),
        (["--server", "http://127.0.0.1:1", "--engine", "podman"], "there is no engine 'podman'"),
        (["--server", "http://127.0.0.1:1"], "not registered yet. Make a code on http://127.0.0.1:1/runners"),
    ],
)
def test_wrong_use_is_answered_with_a_sentence(arguments: list[str], words: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "shipway"), "runner", "--data", str(tmp_path / "d"), *arguments],
        input="",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_labels_are_pairs() -> None:
    assert parse_labels(["a=b", "c = d=e"]) == {"a": "b", "c": "d=e"}
    with pytest.raises(Invalid):
        parse_labels(["=b"])


def test_registering_waits_while_a_service_that_is_started_again_and_again_has_the_folder(
    registrar: Registrar, tmp_path: Path
) -> None:
    with (tmp_path / "runner.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        command = [sys.executable, "-P", "-m", "ci", "runner", "--server", registrar.url]
        with subprocess.Popen(
            [*command, "--data", str(tmp_path), "--name", "r", "--engine", "fake", "--register"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdin is not None
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1.5)
            fcntl.flock(held, fcntl.LOCK_UN)
            said, _ = process.communicate("CODE\n", timeout=60)
    assert (process.returncode, said.splitlines()[-1]) == (0, "registered as r")
