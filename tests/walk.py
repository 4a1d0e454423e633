"""The route table for tests that visit all of it: examples for the parts of a path, and visitors.

A route that somebody adds is walked without a word here; a part of a path that has no example counts as `1`.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

import httpx
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from ci.errors import ShipwayError
from ci.server.auth import Role
from ci.server.clock import Clock
from ci.server.config import Settings
from ci.server.store import members, meta, sessions
from ci.server.store.database import Connection
from ci.server.wiring import Server
from tests.scene import Done, Scene
from web import guard
from web.app import Edge, build_app, serve_table
from web.assets import Assets
from web.guard import FORM_COOKIE, SESSION_COOKIE, Call, Policy, admit_socket
from web.machines import machines
from web.metrics import Metrics
from web.parts import Parts
from web.render import Renderer
from web.routes import Doors, Entry, table

URL = "http://127.0.0.1:8000"
ORIGIN = {"origin": URL}
#: What stands in place of the parts of a path; the rest is `1`.
EXAMPLES = {
    "owner": "ada",
    "name": "app",
    "job": "ci",
    "step": "test",
    "user": "eve",
    "hook": "none",
    "secret": "token",
    "variable": "REGION",
}
#: The private repo is ada/app, the public one ada/site; each visitor's role is the same in both.
REPOS = {"private": "app", "public": "site"}
ROLES = {"reader": Role.READ, "writer": Role.WRITE, "keeper": Role.ADMIN}
#: `root` is an admin of the server, `ada` the owner of both repos, `stranger` has an account and no role.
VISITORS = ("anonymous", "stranger", "reader", "writer", "keeper", "ada", "root")
REPO_POLICIES = frozenset({Policy.READ, Policy.RUN, Policy.APPROVE, Policy.ADMINISTER})


class _Anything:
    def __getattr__(self, name: str) -> Any:
        return _Anything()


def entries(more: tuple[Entry, ...] = ()) -> tuple[Entry, ...]:
    """The table, with endpoints that do nothing."""
    names = [field.name for field in fields(Doors) if field.name != "machines"]
    endpoints = {**dict.fromkeys(names, cast("Any", _Anything())), "assets": Assets()}
    return table(Doors(**endpoints, machines=more))


def path_of(entry: Entry, **values: str) -> str:
    chosen = {**EXAMPLES, **values}
    return re.sub(r"{(\w+)(?::\w+)?}", lambda match: chosen.get(match[1], "1"), entry.path)


def is_of_a_repo(entry: Entry) -> bool:
    return entry.policy in REPO_POLICIES


@dataclass(frozen=True, kw_only=True)
class Town:
    """Two repos with a build each, all the visitors, and the whole table of a server."""

    scene: Scene
    server: Server
    table: tuple[Entry, ...]
    cookies: dict[str, str]
    tokens: dict[str, str]

    def admitting(self) -> ASGIApp:
        """The table with endpoints that only say that they were reached; machines as they are."""
        parts = self.scene.parts()
        stubs = [_stub(entry, parts) for entry in self.table]
        return serve_table(stubs, Edge(parts, Renderer(parts, Assets()), Metrics()))

    def real(self) -> ASGIApp:
        """The whole server as it is."""
        return build_app(self.scene.parts(), machines(self.server, URL))

    @contextlib.asynccontextmanager
    async def visit(self, application: ASGIApp, visitor: str) -> AsyncIterator[httpx.AsyncClient]:
        transport = httpx.ASGITransport(app=application, client=("127.0.0.1", 5000))
        async with httpx.AsyncClient(
            transport=transport,
            base_url=URL,
            cookies=self.cookies_of(visitor),
            headers={"accept": "text/html"},
        ) as client:
            yield client

    def cookies_of(self, visitor: str) -> dict[str, str]:
        if visitor == "anonymous":
            return {FORM_COOKIE: "f" * 32}
        return {SESSION_COOKIE: self.cookies[visitor]}

    def csrf(self, visitor: str) -> str:
        """A token for a form of this visitor."""
        salt = secrets.token_hex(8)
        (secret,) = self.cookies_of(visitor).values()
        return salt + guard._csrf_mac(secret, salt)


def _stub(entry: Entry, parts: Parts) -> Entry:
    if entry.kind == "page":
        return replace(entry, endpoint=_reached)
    if entry.kind == "socket" and not entry.policy.is_for_machines:
        return replace(entry, endpoint=partial(_reached_socket, parts))
    return entry


async def _reached(call: Call) -> Response:
    return PlainTextResponse("reached")


async def _reached_socket(parts: Parts, websocket: WebSocket) -> None:
    try:
        await admit_socket(websocket, parts)
    except ShipwayError as error:
        await websocket.close(1008, str(error)[:100])
        return
    await websocket.accept()
    await websocket.close()


@contextlib.asynccontextmanager
async def town(folder: Path, clock: Clock | None = None) -> AsyncIterator[Town]:
    scene = Scene(folder, clock)
    await scene.open()
    server = Server(Settings.load({}, {"data_dir": str(folder), "url": URL}, folder), scene.clock)
    await server.store.open()
    try:
        yield await _settle(scene, server)
    finally:
        await server.store.close()
        await scene.close()


async def _settle(scene: Scene, server: Server) -> Town:
    tokens = {name: await scene.user(name, is_admin=name == "root") for name in VISITORS[1:]}
    await scene.user("eve", is_admin=False)
    for is_private, name in ((True, "app"), (False, "site")):
        repo = await scene.repo("ada", name, is_private=is_private)
        await scene.build(repo, [("ci", [Done(name="test", log=b"one line\n")])], title=f"Title of {name}")
    now = scene.clock.now()

    def settle(c: Connection) -> dict[str, str]:
        meta.server_id(c, now)
        for repo_id in (1, 2):
            for name, role in ROLES.items():
                members.set_role(c, repo_id, name, role, now)
        ids = {name: number for number, name in enumerate(VISITORS[1:], 1)}
        return {name: sessions.open_session(c, ids[name], now, 86400.0) for name in ids}

    cookies = await scene.store.write(settle)
    whole = entries(machines(server, URL))
    return Town(scene=scene, server=server, table=whole, cookies=cookies, tokens=tokens)


def _scope(kind: str, target: str, headers: dict[str, str]) -> dict[str, Any]:
    """What uvicorn makes of a request's first line and headers; nothing is tidied up."""
    path, _, query = target.partition("?")
    return {
        "type": kind,
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "scheme": "ws" if kind == "websocket" else "http",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 5000),
        "server": ("127.0.0.1", 8000),
        "subprotocols": [],
    }


def _cookie(cookies: dict[str, str]) -> str:
    return "; ".join(f"{name}={value}" for name, value in cookies.items())


async def raw_get(application: ASGIApp, target: str, cookies: dict[str, str]) -> tuple[int, str, str]:
    """(status, location, body) of a GET whose target goes as it is, which clients would tidy up."""
    headers = {"host": "127.0.0.1:8000", "accept": "text/html", "cookie": _cookie(cookies)}
    said: list[Any] = []
    to_come = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        return to_come.pop(0) if to_come else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        said.append(message)

    await application(_scope("http", target, headers), receive, send)
    location = dict(said[0]["headers"]).get(b"location", b"").decode()
    body = b"".join(message.get("body", b"") for message in said[1:])
    return said[0]["status"], location, body.decode(errors="replace")


async def socket_opens(application: ASGIApp, target: str, cookies: dict[str, str], origin: str = URL) -> bool:
    """Whether a browser's socket is accepted; spoken in ASGI, without a network. No origin: none is sent."""
    headers = {"host": "127.0.0.1:8000", "cookie": _cookie(cookies)}
    if origin:
        headers["origin"] = origin
    to_come = [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1005}]
    said: list[str] = []

    async def receive() -> Any:
        return to_come.pop(0) if to_come else {"type": "websocket.disconnect", "code": 1005}

    async def send(message: Any) -> None:
        said.append(message["type"])

    await application(_scope("websocket", target, headers), receive, send)
    return said[:1] == ["websocket.accept"]
