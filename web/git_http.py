"""Git over smart HTTP: a raw ASGI application around `git http-backend`.

Not a Starlette response: under uvicorn a StreamingResponse listens for the disconnect and swallows chunks
of the request body. Here one task owns `receive`: it feeds the body to git, then watches for the client
to leave. Memory stays flat however large the push is.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import signal
import stat
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.types import Receive, Scope, Send

from ci.errors import Forbidden, Invalid, NotFound, ShipwayError, Unauthenticated
from web import git_hook

CHUNK_BYTES = 64 * 1024
PATH = re.compile(
    r"/(?P<owner>[^/]+)/(?P<name>[^/]+?)(?:\.git)?/(?P<rest>info/refs|git-upload-pack|git-receive-pack)"
)

#: Git's settings for every request; in the environment, so that nothing stands in a repository's config.
_CONFIG = {
    "http.receivepack": "true",
    "receive.advertisePushOptions": "true",
    "receive.autogc": "false",  # no process outlives the request
    "receive.denyDeleteCurrent": "ignore",
    "transfer.hideRefs": "refs/shipway",
    "uploadpack.allowAnySHA1InWant": "true",  # a job fetches its commit, also after a force-push
    "safe.directory": "*",
}


@dataclass(frozen=True, kw_only=True)
class Access:
    """What a request may do, as decided by the one place that authorises."""

    folder: Path  #: the bare repository
    environment: Mapping[str, str]  #: for the hooks of a push
    done: Callable[[], None] = lambda: None  #: called when the request has ended


#: (user name, password or token, owner, name, whether it writes) -> Access, or a ShipwayError.
Authorise = Callable[[str, str, str, str, bool], Awaitable[Access]]


def install_hooks(folder: Path) -> Path:
    """Write the hooks that every repository uses into `folder`; safe to repeat. Returns it absolute."""
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    for phase in ("pre-receive", "post-receive"):
        hook = folder / phase
        hook.write_text(f"#!/bin/sh\nexec '{sys.executable}' -I -S '{git_hook.__file__}' {phase}\n")
        hook.chmod(hook.stat().st_mode | stat.S_IXUSR)
    return folder


class GitHTTP:
    """ASGI application for `/git/{owner}/{name}.git/...`; mount it there."""

    def __init__(self, authorise: Authorise, hooks: Path) -> None:
        self._authorise = authorise
        self._hooks = hooks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            access, path = await self._admit(scope)
        except ShipwayError as error:
            await _refuse(send, error)
            return
        try:
            await _serve(self._environment(scope, access, path), receive, send)
        finally:
            access.done()

    async def _admit(self, scope: Scope) -> tuple[Access, str]:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        match = PATH.fullmatch(path)
        if match is None or scope["method"] not in ("GET", "POST"):
            raise NotFound("there is no such repository")
        query = scope["query_string"].decode("latin-1")
        writes = "git-receive-pack" in (match["rest"] + query)
        user, password = _credentials(scope)
        access = await self._authorise(user, password, match["owner"], match["name"], writes)
        return access, match["rest"]

    def _environment(self, scope: Scope, access: Access, rest: str) -> dict[str, str]:
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        config = {**_CONFIG, "core.hooksPath": str(self._hooks)}
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "GIT_PROJECT_ROOT": str(access.folder.parent.absolute()),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_COUNT": str(len(config)),
            "PATH_INFO": f"/{access.folder.name}/{rest}",
            "REQUEST_METHOD": scope["method"],
            "QUERY_STRING": scope["query_string"].decode("latin-1"),
            "CONTENT_TYPE": headers.get("content-type", ""),
            "REMOTE_USER": "shipway",
            "REMOTE_ADDR": (scope.get("client") or ("", 0))[0],
            **access.environment,
        }
        for number, (key, value) in enumerate(config.items()):
            environment[f"GIT_CONFIG_KEY_{number}"] = key
            environment[f"GIT_CONFIG_VALUE_{number}"] = value
        for header, name in (
            ("content-encoding", "HTTP_CONTENT_ENCODING"),
            ("content-length", "CONTENT_LENGTH"),
            ("git-protocol", "GIT_PROTOCOL"),
        ):
            if header in headers:
                environment[name] = headers[header]
        return environment


def _credentials(scope: Scope) -> tuple[str, str]:
    for key, value in scope["headers"]:
        if key == b"authorization" and value[:6].lower() == b"basic ":
            with contextlib.suppress(ValueError):
                user, _, password = base64.b64decode(value[6:]).decode().partition(":")
                return user, password
    return "", ""


async def _refuse(send: Send, error: ShipwayError) -> None:
    """Git shows the body of a refusal only in part: the sentence is short."""
    status = {Unauthenticated: 401, Forbidden: 403, NotFound: 404, Invalid: 400}.get(type(error), 500)
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="Shipway: user name and token"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{error}\n".encode()})


async def _serve(environment: dict[str, str], receive: Receive, send: Send) -> None:
    backend = await asyncio.create_subprocess_exec(
        "git",
        "http-backend",
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
        limit=CHUNK_BYTES,
    )
    feeding = asyncio.create_task(_feed(backend, receive))
    try:
        await _answer(backend, send)
    finally:
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
        await _end(backend)


async def _feed(backend: asyncio.subprocess.Process, receive: Receive) -> None:
    """Give the request's body to git; when the client leaves, end git and its hooks.

    TERM, not KILL: git removes its lock files.
    """
    assert backend.stdin is not None
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            _signal(backend, signal.SIGTERM)
            return
        # A backend that has its answer early (a refusal) may close its end first.
        with contextlib.suppress(ConnectionError):
            backend.stdin.write(message.get("body", b""))
            await backend.stdin.drain()
        if not message.get("more_body", False):
            backend.stdin.close()


async def _answer(backend: asyncio.subprocess.Process, send: Send) -> None:
    assert backend.stdout is not None
    status, headers = 200, []
    while line := (await backend.stdout.readline()).strip():
        key, _, value = line.partition(b":")
        if key.lower() == b"status":
            status = int(value.split()[0])
        else:
            headers.append((key.lower(), value.strip()))
    if not headers and status == 200:
        status = 500
    await send({"type": "http.response.start", "status": status, "headers": headers})
    while chunk := await backend.stdout.read(CHUNK_BYTES):
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _end(backend: asyncio.subprocess.Process) -> None:
    """Nothing of a request outlives it."""
    if backend.returncode is None:
        _signal(backend, signal.SIGTERM)
        try:
            await asyncio.wait_for(backend.wait(), 10)
        except TimeoutError:
            _signal(backend, signal.SIGKILL)
            await backend.wait()


def _signal(backend: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(backend.pid, number)
