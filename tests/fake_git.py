"""Git for the fake GitHub: bare repositories on disk, commits made in one go, and git by HTTP."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

_WHO = "Ada <ada@example.org> 1767323045 +0000"


def _environment(**more: str) -> dict[str, str]:
    config = {
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
    }
    return {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **config, **more}


def git(folder: Path, *arguments: str, stdin: bytes = b"") -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env=_environment(), input=stdin, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().strip()


def make(folder: Path) -> None:
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet", "--bare", "-b", "main")
    git(folder, "config", "uploadpack.allowAnySHA1InWant", "true")  # as GitHub has it


def commit(folder: Path, ref: str, files: Mapping[str, str], message: str, parent: str = "") -> str:
    """A commit with exactly these files, and the ref on it, wherever it was before."""
    parts = [f"commit {ref}", f"author {_WHO}", f"committer {_WHO}", *_data(message)]
    parts += [f"from {parent}"] if parent else []
    parts += ["deleteall"]
    for path, text in files.items():
        parts += [f"M 100644 inline {path}", *_data(text)]
    git(folder, "fast-import", "--quiet", "--force", stdin="\n".join([*parts, ""]).encode())
    return git(folder, "rev-parse", ref)


def _data(text: str) -> list[str]:
    return [f"data {len(text.encode())}", text]


def tag(folder: Path, name: str, commit_sha: str) -> str:
    """An annotated tag; returns the sha of its object."""
    text = f"object {commit_sha}\ntype commit\ntag {name}\ntagger {_WHO}\n\n{name}\n"
    sha = git(folder, "hash-object", "-t", "tag", "-w", "--stdin", stdin=text.encode())
    git(folder, "update-ref", f"refs/tags/{name}", sha)
    return sha


async def serve(request: Request, folder: Path, path: str) -> Response:
    """`git http-backend` for one repository; `path` is what stands behind it in the URL."""
    body = await request.body()
    environment = _environment(
        GIT_PROJECT_ROOT=str(folder),
        GIT_HTTP_EXPORT_ALL="1",
        PATH_INFO=f"/{path}",
        QUERY_STRING=request.url.query,
        REQUEST_METHOD=request.method,
        CONTENT_TYPE=request.headers.get("content-type", ""),
        HTTP_CONTENT_ENCODING=request.headers.get("content-encoding", ""),
        GIT_PROTOCOL=request.headers.get("git-protocol", ""),
    )

    def run() -> bytes:
        command = ["git", "http-backend"]
        return subprocess.run(command, env=environment, input=body, capture_output=True).stdout

    head, _, rest = (await asyncio.to_thread(run)).partition(b"\r\n\r\n")
    fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
    status = int(fields.pop("Status", "200").split()[0])
    return Response(rest, status, headers=fields)
