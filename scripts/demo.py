"""What scripts/demo runs once everything is set up."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx

ROOT = Path(__file__).parent.parent
BEGAN = float(os.environ.get("SHIPWAY_DEMO_BEGAN", time.time()))
PASSWORD = secrets.token_urlsafe(12)


class Phases:
    """Seconds per phase, said as each ends."""

    def __init__(self) -> None:
        self._last = BEGAN
        self.rows: list[tuple[str, float]] = []

    def end(self, name: str) -> None:
        now = time.time()
        self.rows.append((name, now - self._last))
        print(f"{now - BEGAN:5.1f}s  {name} ({now - self._last:.1f} s)", flush=True)
        self._last = now

    def summary(self) -> str:
        rows = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.rows)
        return f"{time.time() - BEGAN:.1f} s in all: {rows}"


def free_port(wanted: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def server(folder: Path, port: int) -> Iterator[str]:
    """A server with its runner on `port`; yields the setup code. Ends both, and waits for the runner."""
    environment = {
        **os.environ,
        "SHIPWAY_IMAGE_MIRRORS": "docker.io/library/=shipway-test/",
        "PYTHONUNBUFFERED": "1",
    }
    command = [str(ROOT / ".venv/bin/shipway"), "serve", "--data", str(folder), "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        code = ""
        for line in process.stdout:
            if match := re.search(r"setup code\s+(\S+)", line):
                code = match[1]
                break
        if not code:
            sys.exit("the server did not start")
        yield code
    finally:
        process.send_signal(signal.SIGINT)  # ends the runner too, once its jobs have ended
        process.wait(30)
        end_runner(folder / "runner")


def end_runner(data: Path) -> None:
    """A runner that still finishes a job is told again, which ends the job and removes its containers."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(data).encode() in (entry / "cmdline").read_bytes():
                os.kill(int(entry.name), signal.SIGTERM)
                for _ in range(300):
                    os.kill(int(entry.name), 0)
                    time.sleep(0.1)


def make_account(url: str, code: str) -> str:
    """The first account, and a token for git."""
    body = {"code": code, "name": "demo", "password": PASSWORD}
    answer = httpx.post(f"{url}/api/setup", json=body)
    answer.raise_for_status()
    return str(answer.json()["token"])


def git_environment(url: str, token: str) -> Mapping[str, str]:
    """Credentials in the environment: not in a URL, not in a process title."""
    basic = base64.b64encode(f"demo:{token}".encode()).decode()
    config = {
        f"http.{url}/.extraHeader": f"Authorization: Basic {basic}",
        "user.name": "Ada",
        "user.email": "ada@example.org",
        "init.defaultBranch": "main",
    }
    pairs = {}
    for number, (key, value) in enumerate(config.items()):
        pairs[f"GIT_CONFIG_KEY_{number}"] = key
        pairs[f"GIT_CONFIG_VALUE_{number}"] = value
    return {**os.environ, **pairs, "GIT_CONFIG_COUNT": str(len(config)), "GIT_TERMINAL_PROMPT": "0"}


def push(folder: Path, url: str, token: str, options: list[str]) -> str:
    """Push examples/hello; returns what the server said, and prints it as it comes."""
    shutil.copytree(ROOT / "examples/hello", folder)
    environment = git_environment(url, token)

    def git(*arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=folder, env=environment, check=True)

    git("init", "-q")
    git("add", "-A")
    git("commit", "-q", "-m", "Say hello from a fresh container")
    target = f"{url}/git/demo/hello.git"
    print(f"        $ git push {target} main", flush=True)
    command = ["git", "push", "-q", *options, target, "HEAD:main"]
    said = []
    with subprocess.Popen(
        command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            print("        " + line.rstrip(), flush=True)
    if process.returncode != 0:
        sys.exit("the push failed")
    return "".join(said)


def main() -> int:
    is_once = "--once" in sys.argv[1:]
    phases = Phases()
    phases.end("set-up")
    subprocess.run([str(ROOT / "scripts/images")], check=True)
    phases.end("images")
    folder = Path(tempfile.mkdtemp(prefix="shipway-demo-"))
    port = free_port(8000)
    url = f"http://127.0.0.1:{port}"
    try:
        with server(folder / "data", port) as code:
            token = make_account(url, code)
            phases.end("server and runner")
            said = push(folder / "hello", url, token, ["-o", "ci.wait"] if is_once else [])
            phases.end("push, build and log" if is_once else "push")
            link = re.search(r"http://\S+/r/\S+", said)
            print(f"\n  {link[0] if link else url}\n", flush=True)
            if is_once:
                return finish(said, phases)
            print(f"  sign in as demo with {PASSWORD}; Ctrl-C ends the demo and removes its data", flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()
            return 0
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def finish(said: str, phases: Phases) -> int:
    print(f"  {phases.summary()}", flush=True)
    verdict = re.search(r"shipway: build \d+ (\w+)", said)
    if verdict is None:
        print("  the build did not end", flush=True)
        return 3
    return 0 if verdict[1] == "success" else 1


if __name__ == "__main__":
    sys.exit(main())
