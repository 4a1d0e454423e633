"""The ASGI application: the table of web/routes.py as Starlette routes, each behind the guard."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from urllib.parse import urlencode

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from ci.errors import NotFound, ShipwayError, Unauthenticated
from ci.server.account import Account
from ci.server.auth import ANONYMOUS
from ci.server.people import People
from ci.server.runners import Runners
from ci.server.store import users
from web import etag, guard, problems
from web.account_pages import AccountPages
from web.assets import Assets
from web.attempts import Attempts
from web.audit_pages import AuditPages
from web.build_page import BuildPage
from web.guard import Call
from web.inbox_pages import InboxPages
from web.live import LiveLog, LiveTopics
from web.log_page import Sockets
from web.login import Login
from web.member_pages import MemberPages
from web.metrics import Metrics
from web.once import Once
from web.openapi import Description
from web.pages import Pages
from web.parts import Parts
from web.people_pages import PeoplePages
from web.queue_page import QueuePage
from web.render import Renderer
from web.repo_api import RepoApi
from web.repo_pages import RepoPages
from web.routes import Doors, Entry, table
from web.run_pages import RunPages
from web.runner_pages import RunnerPages
from web.runners_api import RunnersApi
from web.schedule_pages import SchedulePages
from web.secret_pages import SecretPages

_SECURITY = (
    (
        b"content-security-policy",
        b"default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
        b"object-src 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=()"),
)


def build_app(parts: Parts, machines: tuple[Entry, ...] = ()) -> ASGIApp:
    """The pages on their parts, and beside them what machines speak to."""
    assets = Assets()
    renderer = Renderer(parts, assets)
    sockets = Sockets(parts)
    metrics = Metrics()
    runners = Runners(parts.store, parts.bus, parts.clock)
    description = Description()
    attempts = Attempts(parts.clock)
    account = Account(parts.store, parts.bus, parts.clock)
    people = People(parts.store, parts.bus, parts.clock)
    once = Once(parts.clock)
    doors = Doors(
        pages=Pages(renderer, runners, once),
        repos=RepoPages(renderer, parts.repos, once),
        repo_api=RepoApi(parts.repos),
        inbox=InboxPages(renderer, parts.inbox, parts.repos),
        run=RunPages(renderer, parts.starts),
        schedules=SchedulePages(renderer, parts.schedules),
        build=BuildPage(renderer),
        login=Login(renderer, account, attempts),
        account=AccountPages(renderer, account, attempts),
        people=PeoplePages(renderer, people),
        members=MemberPages(renderer, people),
        audit=AuditPages(renderer),
        assets=assets,
        live_log=LiveLog(parts.logs, sockets.find, parts.bus),
        live_topics=LiveTopics(parts.bus, sockets.check),
        metrics=metrics,
        queue=QueuePage(renderer),
        secrets=SecretPages(renderer),
        runner=RunnerPages(renderer, runners),
        runners=RunnersApi(runners),
        description=description,
        machines=machines,
    )
    entries = table(doors)
    description.tell(entries)
    return serve_table(entries, Edge(parts, renderer, metrics))


def serve_table(entries: Sequence[Entry], edge: Edge) -> ASGIApp:
    """The application of some rows."""
    routes = [_route(entry, edge) for entry in entries]
    application = Starlette(routes=routes, exception_handlers={HTTPException: edge.unrouted})
    application.router.redirect_slashes = False
    return _Secured(application)


def _route(entry: Entry, edge: Edge) -> BaseRoute:
    if entry.kind == "mount":
        return Mount(entry.path, entry.endpoint)
    if entry.kind == "socket":
        return WebSocketRoute(entry.path, partial(_serve_socket, entry))
    answer = edge.machine if entry.kind == "machine" else edge.page
    return Route(entry.path, partial(edge.counted, entry, answer), methods=list(entry.methods))


async def _serve_socket(entry: Entry, websocket: WebSocket) -> None:
    websocket.state.policy = entry.policy
    await entry.endpoint(websocket)


class Edge:
    """Where errors become answers."""

    def __init__(self, parts: Parts, renderer: Renderer, metrics: Metrics) -> None:
        self._parts = parts
        self._renderer = renderer
        self._metrics = metrics

    async def counted(
        self, entry: Entry, answer: Callable[[Entry, Request], Awaitable[Response]], request: Request
    ) -> Response:
        start = self._parts.clock.monotonic()
        response = await answer(entry, request)
        seconds = self._parts.clock.monotonic() - start
        self._metrics.answered(entry.path, request.method, response.status_code, seconds)
        return response

    async def page(self, entry: Entry, request: Request) -> Response:
        call = self._nobody(request)
        try:
            call = await guard.identify(request, self._parts)
            answer: Response = await entry.endpoint(await guard.admit(call, entry.policy))
            return etag.answer(request, answer) if entry.path.startswith("/api/") else answer
        except ShipwayError as error:
            return await self._problem(call, error)
        except Exception as error:  # the edge of a request
            return await self._problem(call, problems.internal(error))

    async def machine(self, entry: Entry, request: Request) -> Response:
        try:
            answer: Response = await entry.endpoint(request)
            return answer
        except ShipwayError as error:
            return _json(error)
        except Exception as error:  # the edge of a request
            return _json(problems.internal(error))

    async def unrouted(self, request: Request, error: Exception) -> Response:
        """No route, or none for this method."""
        assert isinstance(error, HTTPException)
        ours: ShipwayError = NotFound("there is nothing at this address")
        if error.status_code == 405:
            ours = problems.MethodNotAllowed(f"nothing here answers to {request.method}")
        call = self._nobody(request)
        try:
            call = await guard.identify(request, self._parts)
        except ShipwayError as refusal:
            ours = refusal
        return await self._problem(call, ours)

    def _nobody(self, request: Request) -> Call:
        return Call(connection=request, parts=self._parts, actor=ANONYMOUS)

    async def _problem(self, call: Call, error: ShipwayError) -> Response:
        if guard.is_program(call.connection):
            return _json(error)
        if isinstance(error, Unauthenticated) and call.connection.scope["method"] == "GET":
            return await self._to_the_door(call)
        return await self._renderer.page(
            call, "problem.html", status_code=problems.status(error), error=error
        )

    async def _to_the_door(self, call: Call) -> Response:
        if not await self._parts.store.read(users.has_users):
            return RedirectResponse("/setup", 303)
        after = call.request.url.path
        if call.request.url.query:
            after += f"?{call.request.url.query}"
        return RedirectResponse(f"/sign-in?{urlencode({'next': after})}", 303)


def _json(error: ShipwayError) -> Response:
    return JSONResponse(
        problems.body(error), problems.status(error), problems.headers(error), problems.MEDIA_TYPE
    )


class _Secured:
    """Puts the security headers on every answer of ours, whoever made it."""

    def __init__(self, application: ASGIApp) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return

        async def send_secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                names = {name for name, _ in message["headers"]}
                added = [pair for pair in _SECURITY if pair[0] not in names]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        await self._application(scope, receive, send_secured)
