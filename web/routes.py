"""The whole URL table, on one screen. Every route names its policy (web/guard.py); a test walks the table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from web import api, badge, find, log_page
from web.assets import Assets
from web.build_page import BuildPage
from web.guard import Call, Policy
from web.live import LiveLog, LiveTopics
from web.login import Login
from web.metrics import Metrics
from web.openapi import Description
from web.pages import Pages
from web.queue_page import QueuePage
from web.runners_api import RunnersApi
from web.secret_pages import SecretPages

Endpoint = Callable[[Call], Awaitable[Response]]
_REPO = "/r/{owner}/{name}"
_BUILD = _REPO + "/{number:int}"
_STEP = _BUILD + "/{job}/{step}"
_API_REPO = "/api/repos/{owner}/{name}"
_OWNER = "/o/{owner}"
_API_BUILD = _API_REPO + "/builds/{number:int}"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row. `kind`: "page" gets a Call once the guard has admitted it, "socket" asks the guard itself by
    the policy in its state, "machine" is a plain endpoint that checks a credential of its own, "mount" is
    an ASGI application that does."""

    path: str
    endpoint: Callable[..., Any]
    policy: Policy
    kind: str = "page"
    methods: tuple[str, ...] = ()


def get(path: str, endpoint: Endpoint, policy: Policy) -> Entry:
    return Entry(path=path, endpoint=endpoint, policy=policy, methods=("GET",))


def post(path: str, endpoint: Endpoint, policy: Policy) -> Entry:
    return Entry(path=path, endpoint=endpoint, policy=policy, methods=("POST",))


def socket(path: str, endpoint: Callable[[WebSocket], Awaitable[None]], policy: Policy) -> Entry:
    return Entry(path=path, endpoint=endpoint, policy=policy, kind="socket")


def machine(
    methods: Sequence[str],
    path: str,
    endpoint: Callable[[Request], Awaitable[Response]],
    policy: Policy,
) -> Entry:
    return Entry(path=path, endpoint=endpoint, policy=policy, kind="machine", methods=tuple(methods))


def mount(path: str, application: Callable[..., Any], policy: Policy) -> Entry:
    return Entry(path=path, endpoint=application, policy=policy, kind="mount")


@dataclass(frozen=True, kw_only=True)
class Doors:
    """What answers, made once in web/app.py."""

    pages: Pages
    build: BuildPage
    login: Login
    assets: Assets
    live_log: LiveLog
    live_topics: LiveTopics
    metrics: Metrics
    queue: QueuePage
    secrets: SecretPages
    runners: RunnersApi
    description: Description
    machines: tuple[Entry, ...] = ()


def _secret_entries(pages: SecretPages) -> Iterator[Entry]:
    """The same for a repo, an owner and the server."""
    for base, api_base, policy in (
        (_REPO + "/secrets", _API_REPO + "/secrets", Policy.ADMINISTER),
        (_OWNER + "/secrets", "/api/owners/{owner}/secrets", Policy.ADMINISTER_OWNER),
        ("/admin/secrets", "/api/secrets", Policy.MANAGE_SERVER),
    ):
        yield get(base, pages.page, policy)
        yield post(base, pages.put, policy)
        yield post(base + "/{secret}/remove", pages.remove, policy)
        yield get(api_base, pages.api_list, policy)
        yield Entry(path=api_base + "/{secret}", endpoint=pages.api_put, policy=policy, methods=("PUT",))
        yield Entry(
            path=api_base + "/{secret}", endpoint=pages.api_remove, policy=policy, methods=("DELETE",)
        )


def table(doors: Doors) -> tuple[Entry, ...]:
    pages, build, login, runners = doors.pages, doors.build, doors.login, doors.runners
    return (
        # pages
        get("/", pages.home, Policy.PUBLIC),
        get("/repos", pages.repos, Policy.SIGNED_IN),
        get(_REPO, pages.repo, Policy.READ),
        get(_REPO + "/inbox", pages.inbox, Policy.RUN),
        get(_BUILD, build.build, Policy.READ),
        get(_STEP, build.step, Policy.READ),
        get("/queue", doors.queue.queue, Policy.SEE_RUNNERS),
        get("/runners", pages.runners, Policy.SEE_RUNNERS),
        get(_REPO + "/badge.svg", badge.badge, Policy.READ),
        get("/cc.xml", badge.cctray, Policy.PUBLIC),
        get("/find", find.find, Policy.PUBLIC),
        # what a person does
        post(_BUILD + "/cancel", build.cancel, Policy.RUN),
        post(_BUILD + "/rerun", build.rerun, Policy.RUN),
        post(_BUILD + "/{job}/resolve", build.resolve, Policy.RUN),
        post("/runners/code", pages.new_runner_code, Policy.MANAGE_RUNNERS),
        post("/runners/{id:int}/drain", pages.drain, Policy.MANAGE_RUNNERS),
        *_secret_entries(doors.secrets),
        # who a person is
        get("/setup", login.setup_form, Policy.SETUP),
        post("/setup", login.setup, Policy.SETUP),
        get("/sign-in", login.sign_in_form, Policy.PUBLIC),
        post("/sign-in", login.sign_in, Policy.PUBLIC),
        post("/sign-out", login.sign_out, Policy.SIGNED_IN),
        get("/account", login.account, Policy.SIGNED_IN),
        post("/account/tokens", login.add_token, Policy.SIGNED_IN),
        post("/account/tokens/{id:int}/revoke", login.revoke_token, Policy.SIGNED_IN),
        post("/theme", login.theme, Policy.PUBLIC),
        # logs, and what is live
        get(_STEP + "/raw", log_page.raw, Policy.READ),
        get(_STEP + "/index", log_page.index, Policy.READ),
        get(_STEP + "/marks", log_page.marks, Policy.READ),
        socket(_STEP + "/live", doors.live_log.serve, Policy.READ),
        socket("/live", doors.live_topics.serve, Policy.PUBLIC),
        # programs
        post("/api/setup", login.setup_by_program, Policy.SETUP),
        get("/api/builds", api.builds, Policy.PUBLIC),
        get("/api/repos", api.repos, Policy.PUBLIC),
        get(_API_REPO, api.repo, Policy.READ),
        get(_API_REPO + "/builds", api.repo_builds, Policy.READ),
        get(_API_BUILD, api.build, Policy.READ),
        post(_API_BUILD + "/cancel", api.cancel, Policy.RUN),
        post(_API_BUILD + "/rerun", api.rerun, Policy.RUN),
        get("/api/runners", runners.list, Policy.SEE_RUNNERS),
        post("/api/runners/code", runners.code, Policy.MANAGE_RUNNERS),
        post("/api/runners/{id:int}/pause", runners.pause, Policy.MANAGE_RUNNERS),
        post("/api/runners/{id:int}/drain", runners.drain, Policy.MANAGE_RUNNERS),
        post("/api/runners/{id:int}/resume", runners.resume, Policy.MANAGE_RUNNERS),
        post("/api/runners/{id:int}/remove", runners.remove, Policy.MANAGE_RUNNERS),
        get("/api/queue", runners.queue, Policy.SEE_RUNNERS),
        get("/api/openapi.json", doors.description.serve, Policy.PUBLIC),
        # how the server is
        get("/healthz", doors.metrics.health, Policy.PUBLIC),
        get("/metrics", doors.metrics.scrape, Policy.SEE_RUNNERS),
        # machines, and files
        machine(("GET",), "/static/{version}/{name}", doors.assets.serve, Policy.PUBLIC),
        *doors.machines,
    )
