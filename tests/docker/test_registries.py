"""Images of private registries, pulled with a secret of the job: against a registry that asks for a login."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from ci.registries import Login
from ci.spec import Pull
from ci.status import Outcome
from runners.engines.docker import DockerEngine, DockerJanitor
from tests.stage import IMAGE, SETTINGS, staged, step

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("_images")]
LOGIN = Login(user="ada", password="s3cr3t")
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@contextmanager
def registry() -> Iterator[str]:
    """A registry on loopback with one image, for who has LOGIN; its host and port."""
    served = _served()
    wanted = "Basic " + base64.b64encode(f"{LOGIN.user}:{LOGIN.password}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            kind, data = served.get(self.path, ("", b""))
            if self.headers.get("Authorization") != wanted:
                return self.answer(401, "application/json", b"{}", ("WWW-Authenticate", 'Basic realm="r"'))
            if self.path == "/v2/":
                return self.answer(200, "application/json", b"{}")
            return self.answer(200 if kind else 404, kind or "application/json", data or b"{}")

        do_HEAD = do_GET

        def answer(self, code: int, kind: str, data: bytes, *more: tuple[str, str]) -> None:
            self.send_response(code)
            digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
            for name, value in (
                ("Content-Type", kind),
                ("Content-Length", str(len(data))),
                ("Docker-Content-Digest", digest),
                *more,
            ):
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def _served() -> dict[str, tuple[str, bytes]]:
    """What a registry answers for `private:1`, by path: made of the image that the tests have."""
    saved = subprocess.run(["docker", "save", IMAGE], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(saved)) as tar:

        def read(name: str) -> bytes:
            file = tar.extractfile(name)
            assert file
            return file.read()

        (about,) = json.loads(read("manifest.json"))
        config, layers = read(about["Config"]), [gzip.compress(read(name), 1) for name in about["Layers"]]
    blobs = [
        (config, "application/vnd.docker.container.image.v1+json"),
        *((layer, "application/vnd.docker.image.rootfs.diff.tar.gzip") for layer in layers),
    ]
    told = [
        {"mediaType": kind, "size": len(data), "digest": f"sha256:{hashlib.sha256(data).hexdigest()}"}
        for data, kind in blobs
    ]
    manifest = json.dumps({"schemaVersion": 2, "mediaType": _MANIFEST, "config": told[0], "layers": told[1:]})
    named = hashlib.sha256(manifest.encode()).hexdigest()
    found = {
        f"/v2/private/manifests/{name}": (_MANIFEST, manifest.encode()) for name in ("1", f"sha256:{named}")
    }
    for entry, (data, _) in zip(told, blobs, strict=True):
        found[f"/v2/private/blobs/{entry['digest']}"] = ("application/octet-stream", data)
    return found


async def test_an_image_of_a_private_registry_is_pulled_with_the_login_of_the_job() -> None:
    with registry() as host:
        image = f"{host}/private:1"
        says = step("says", "echo hi", image=image, pull=Pull.ALWAYS)
        try:
            async with staged(
                DockerEngine(SETTINGS), DockerJanitor(SETTINGS), says, logins={host: LOGIN}
            ) as stage:
                exit_, printed = await stage.run("says")
            assert (exit_.code, printed.text) == (0, "hi\n"), exit_.reason
            async with staged(DockerEngine(SETTINGS), DockerJanitor(SETTINGS), says) as stage:
                exit_, _ = await stage.run("says")
            assert exit_.outcome is Outcome.IMAGE
            assert "s3cr3t" not in exit_.reason
        finally:
            subprocess.run(["docker", "rmi", image], capture_output=True, check=False)
