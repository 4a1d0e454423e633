"""How people install it: the image of our Dockerfile, started by compose behind a proxy, builds a push."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bench.whole import PASSWORD, ROOT, free_port, until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(400)]

INSTALL = ROOT / "examples/install"
HOST = "ci.test"
PROXY = """FROM shipway-test/debian:12
RUN apt-get update -q && apt-get install -q -y --no-install-recommends caddy
CMD ["caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]
"""


class Compose:
    """Our compose file as a project of its own, on ports of its own."""

    def __init__(self, port: int, tls_port: int) -> None:
        self.url = f"http://{HOST}:{port}"
        self._command = ["docker", "compose"] if _has_plugin() else ["docker-compose"]
        self._environment = {
            **os.environ,
            "COMPOSE_PROJECT_NAME": f"shipwaytest{port}",
            "CADDY_IMAGE": "shipway-test/caddy:1",
            "SHIPWAY_BASE": "shipway-test/debian:12",
            "SHIPWAY_IMAGE": "shipway-test/shipway:1",
            "SHIPWAY_DOMAIN": HOST,
            "SHIPWAY_URL": self.url,
            "SHIPWAY_HTTP_PORT": str(port),
            "SHIPWAY_HTTPS_PORT": str(tls_port),
            "SHIPWAY_IMAGE_MIRRORS": "docker.io/library/=shipway-test/",
        }
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"host": f"{HOST}:{port}"}, timeout=30
        )

    def run(self, *arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            [*self._command, *arguments],
            cwd=INSTALL,
            env=self._environment,
            input=stdin,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    def is_healthy(self) -> bool:
        try:
            return self.client.get("/healthz").status_code == 200
        except httpx.HTTPError:
            return False

    def set_up(self) -> None:
        found = re.search(r"setup code\s+(\S+)", self.run("logs", "--no-color", "server"))
        assert found is not None
        body = {"code": found[1], "name": "ada", "password": PASSWORD}
        answer = self.client.post("/api/setup", json=body)
        assert answer.status_code == 201, answer.text
        self.client.headers["authorization"] = f"Bearer {answer.json()['token']}"

    def git(self, folder: Path, *arguments: str) -> str:
        port = self.url.rpartition(":")[2]
        bearer = self.client.headers["authorization"].removeprefix("Bearer ")
        config = {
            "http.curloptResolve": f"{HOST}:{port}:127.0.0.1",
            f"url.http://ada:{bearer}@{HOST}:{port}/.insteadOf": f"{self.url}/",
            "user.name": "Ada",
            "user.email": "ada@example.org",
        }
        pairs = {f"GIT_CONFIG_KEY_{at}": key for at, key in enumerate(config)}
        pairs |= {f"GIT_CONFIG_VALUE_{at}": value for at, value in enumerate(config.values())}
        environment = {**os.environ, **pairs, "GIT_CONFIG_COUNT": str(len(config))}
        done = subprocess.run(
            ["git", *arguments], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stderr


def _has_plugin() -> bool:
    return subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0


@pytest.fixture
def compose() -> Iterator[Compose]:
    subprocess.run([str(ROOT / "scripts/images"), "--debian"], check=True)
    build = ["docker", "build", "-q", "-t", "shipway-test/caddy:1", "-"]
    subprocess.run(build, input=PROXY, text=True, check=True, capture_output=True)
    compose = Compose(free_port(), free_port())
    try:
        yield compose
    finally:
        compose.run("down", "--volumes", "--timeout", "5")
        compose.client.close()


def test_the_image_started_by_compose_builds_a_push_behind_its_proxy(
    compose: Compose, tmp_path: Path
) -> None:
    compose.run("up", "--detach", "--build")
    until(compose.is_healthy, 60)
    compose.set_up()
    code = compose.client.post("/api/runners/code").json()["code"]
    said = compose.run(
        *("run", "--rm", "-T", "runner"),
        *("runner", "--server", "http://server:8000", "--name", "compose", "--data", "/data", "--register"),
        stdin=f"{code}\n",
    )
    assert "registered as compose" in said
    compose.run("restart", "runner")

    work = tmp_path / "hello"
    shutil.copytree(ROOT / "examples/hello", work)
    compose.git(work, "init", "-q", "-b", "main")
    compose.git(work, "add", "-A")
    compose.git(work, "commit", "-q", "-m", "Say hello")
    assert f"{compose.url}/r/ada/hello/1" in compose.git(
        work, "push", f"{compose.url}/git/ada/hello.git", "main"
    )
    build = "/api/repos/ada/hello/builds/1"
    until(lambda: compose.client.get(build).json()["status"] not in ("pending", "running", "waiting"), 60)
    log = compose.client.get("/r/ada/hello/1/ci/hello/raw").text
    assert compose.client.get(build).json()["status"] == "success", log
    assert "Hello from build 1 of ada/hello" in log
