"""A whole Shipway, for tests and benchmarks: the real commands as processes, real git, real sockets."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx

T = TypeVar("T")
ROOT = Path(__file__).parents[1]
PASSWORD = "a long enough password"
SHIPWAY = [sys.executable, "-P", "-m", "ci"]


def until(look: Callable[[], T], seconds: float = 30.0) -> T:
    """The first true answer of `look`, for what other processes do and announce to nobody."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)
    return found


class Process:
    """One of our commands, with its output in a file; ended by its own pid."""

    def __init__(
        self,
        arguments: list[str],
        folder: Path,
        log: Path,
        stdin: str = "",
        program: Sequence[str] = SHIPWAY,
    ) -> None:
        self.log = log
        environment = {
            **os.environ,
            "SHIPWAY_IMAGE_MIRRORS": "docker.io/library/=shipway-test/",
            "SHIPWAY_ALLOWED_PRIVATE_HOSTS": "127.0.0.1",
            "PYTHONUNBUFFERED": "1",
        }
        with log.open("ab") as output:
            self.popen = subprocess.Popen(
                [*program, *arguments],
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                text=True,
            )
        assert self.popen.stdin is not None
        self.popen.stdin.write(stdin)
        self.popen.stdin.close()

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()

    def end(self, number: int = signal.SIGTERM) -> int:
        """In order if that takes at most 5 s, then at once: a second signal says so."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self.popen.wait(5)
            self.popen.send_signal(number)
        try:
            return self.popen.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def said(self) -> str:
        return self.log.read_text(errors="replace")


class Shipway:
    """A server on a data folder and a port of its own; may be killed and started again."""

    def __init__(self, folder: Path, runner: str, public_url: str = "") -> None:
        self.folder = folder
        self.runner_mode = runner
        self.program = SHIPWAY  #: what runs as the server
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.public_url = public_url
        self.data = folder / "data"
        self.token = ""
        self.server: Process | None = None
        self.runner: Process | None = None

    def start(self) -> None:
        arguments = ["serve", "--data", str(self.data), "--port", str(self.port)]
        if self.public_url:
            arguments += ["--url", self.public_url]
        log = self.folder / "server.log"
        seen = len(log.read_text()) if log.exists() else 0
        self.server = Process(
            [*arguments, "--runner", self.runner_mode], self.folder, log, program=self.program
        )
        until(lambda: "open " in self.server.said()[seen:] or self.server.popen.poll() is not None)  # type: ignore[union-attr]
        assert self.server.popen.poll() is None, self.server.said()
        until(self._answers)

    def _answers(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/healthz").status_code == 200
        return False

    def set_up(self) -> None:
        """The first account, `ada`, and a token for git and the API."""
        assert self.server is not None
        found = re.search(r"setup code\s+(\S+)", self.server.said())
        assert found, self.server.said()
        body = {"code": found[1], "name": "ada", "password": PASSWORD}
        answer = httpx.post(f"{self.url}/api/setup", json=body)
        assert answer.status_code == 201, answer.text
        self.token = answer.json()["token"]

    def start_runner(self, *options: str, name: str = "r1", engine: str = "fake") -> Process:
        """A runner on its own; registers itself the first time."""
        data = self.folder / name
        code = ""
        if not (data / "credential.json").exists():
            code = self.api("POST", "/api/runners/code")["code"] + "\n"
        arguments = ["runner", "--server", self.url, "--data", str(data), "--name", name]
        log = self.folder / f"{name}.log"
        return Process([*arguments, "--engine", engine, *options], self.folder, log, stdin=code)

    def api(self, method: str, address: str, **body: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"}
        answer = httpx.request(method, self.url + address, headers=headers, json=body or None)
        assert answer.status_code < 300, f"{answer.status_code} {answer.text}"
        return answer.json()

    def wait_for_runner(self) -> None:
        """Until one runner is connected."""
        until(lambda: any(row["is_connected"] for row in self.api("GET", "/api/runners")["runners"]), 60)

    def get(self, address: str) -> bytes:
        """A page, as it comes."""
        headers = {"Authorization": f"Bearer {self.token}"}
        answer = httpx.get(self.url + address, headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.content

    def raw(self, path: str) -> bytes:
        """The raw log of a step: `ada/app/1/JOB/STEP`."""
        headers = {"Authorization": f"Bearer {self.token}"}
        answer = httpx.get(f"{self.url}/r/{path}/raw", headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.content

    def build(self, path: str) -> Any:
        """The build as JSON: `ada/app/1`."""
        repo, _, number = path.rpartition("/")
        return self.api("GET", f"/api/repos/{repo}/builds/{number}")

    def wait(self, path: str, *statuses: str, seconds: float = 60.0) -> Any:
        wanted = statuses or ("success", "failure", "error", "cancelled", "skipped", "unknown")

        repo, _, number = path.rpartition("/")

        def look() -> Any:
            headers = {"Authorization": f"Bearer {self.token}"}
            answer = httpx.get(f"{self.url}/api/repos/{repo}/builds/{number}", headers=headers)
            if answer.status_code == 404:  # not made yet
                return None
            build = answer.json()
            return build if build["status"] in wanted else None

        return until(look, seconds)

    def end(self) -> None:
        for process in (self.runner, self.server):
            if process is not None:
                process.end(signal.SIGINT)
        _end_embedded(self.data / "runner")


def _end_embedded(folder: Path) -> None:
    """The embedded runner, and job processes, may have outlived a killed server."""
    for pid in pids_with(str(folder)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def pids_with(text: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if text.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Work:
    """A working copy that pushes to a repo of the server."""

    def __init__(self, shipway: Shipway, path: str) -> None:
        self.shipway = shipway
        self.path = path
        self.folder = shipway.folder / "work" / path
        self.folder.mkdir(parents=True)
        self.remote = f"{shipway.url}/git/{path}.git"
        self.git("init", "-q", "-b", "main")

    def environment(self) -> Mapping[str, str]:
        basic = base64.b64encode(f"ada:{self.shipway.token}".encode()).decode()
        config = {
            f"http.{self.shipway.url}/.extraHeader": f"Authorization: Basic {basic}",
            "user.name": "Ada",
            "user.email": "ada@example.org",
        }
        pairs = {"GIT_CONFIG_COUNT": str(len(config)), "GIT_TERMINAL_PROMPT": "0"}
        for number, (key, value) in enumerate(config.items()):
            pairs |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        return {**os.environ, "GIT_CONFIG_NOSYSTEM": "1", "HOME": str(self.folder), **pairs}

    def git(self, *arguments: str) -> str:
        ended = subprocess.run(
            ["git", *arguments], cwd=self.folder, env=self.environment(), capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout + ended.stderr

    def commit(self, files: Mapping[str, str], message: str = "A change") -> str:
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD").strip()

    def push(self, *arguments: str) -> str:
        return self.git("push", "-q", *(arguments or (self.remote, "HEAD:main")))
