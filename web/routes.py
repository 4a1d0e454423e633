"""The whole URL table, on one screen. Every route names its policy (web/guard.py); a test walks the table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from web import api, badge, build_api, find, log_page, secret_api
from web.account_pages import AccountPages
from web.assets import Assets
from web.audit_pages import AuditPages
from web.build_page import BuildPage
from web.guard import Call, Policy
from web.inbox_pages import InboxPages
from web.live import LiveLog, LiveTopics
from web.login import Login
from web.member_pages import MemberPages
from web.metrics import Metrics
from web.openapi import Description
from web.pages import Pages
from web.people_pages import PeoplePages
from web.queue_page import QueuePage
from web.repo_api import RepoApi
from web.repo_pages import RepoPages
from web.run_pages import RunPages
from web.runner_pages import RunnerPages
from web.runners_api import RunnersApi
from web.schedule_pages import SchedulePages
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


def put(path: str, endpoint: Endpoint, policy: Policy) -> Entry:
    return Entry(path=path, endpoint=endpoint, policy=policy, methods=("PUT",))


def delete(path: str, endpoint: Endpoint, policy: Policy) -> Entry:
    return Entry(path=path, endpoint=endpoint, policy=policy, methods=("DELETE",))


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
    repos: RepoPages
    repo_api: RepoApi
    inbox: InboxPages
    run: RunPages
    schedules: SchedulePages
    build: BuildPage
    login: Login
    account: AccountPages
    people: PeoplePages
    members: MemberPages
    audit: AuditPages
    assets: Assets
    live_log: LiveLog
    live_topics: LiveTopics
    metrics: Metrics
    queue: QueuePage
    secrets: SecretPages
    runner: RunnerPages
    runners: RunnersApi
    description: Description
    machines: tuple[Entry, ...] = ()


def _secret_entries(pages: SecretPages) -> Iterator[Entry]:
    """The same for a repo, an owner and the server."""
    for base, api_base, policy in (
        (_REPO, _API_REPO, Policy.ADMINISTER),
        (_OWNER, "/api/owners/{owner}", Policy.ADMINISTER_OWNER),
        ("/admin", "/api", Policy.MANAGE_SERVER),
    ):
        yield get(base + "/secrets", pages.page, policy)
        yield post(base + "/secrets", pages.put, policy)
        yield post(base + "/secrets/{secret}/remove", pages.remove, policy)
        yield post(base + "/secrets/variables", pages.put_variable, policy)
        yield post(base + "/secrets/variables/{variable}/remove", pages.remove_variable, policy)
        yield get(api_base + "/secrets", secret_api.secrets, policy)
        yield put(api_base + "/secrets/{secret}", secret_api.put_secret, policy)
        yield delete(api_base + "/secrets/{secret}", secret_api.remove_secret, policy)
        yield get(api_base + "/variables", secret_api.variables_of, policy)
        yield put(api_base + "/variables/{variable}", secret_api.put_variable, policy)
        yield delete(api_base + "/variables/{variable}", secret_api.remove_variable, policy)


def _repo_entries(doors: Doors) -> Iterator[Entry]:
    """A repo itself: added, run, scheduled, set, deleted; its hook and its inbox. For people and programs."""
    repos, api, inbox, run, schedules = doors.repos, doors.repo_api, doors.inbox, doors.run, doors.schedules
    yield get("/repos/add", repos.add_form, Policy.SIGNED_IN)
    yield post("/repos/add", repos.add, Policy.SIGNED_IN)
    yield post("/api/repos", api.add, Policy.SIGNED_IN)
    yield get(_REPO + "/settings", repos.settings, Policy.ADMINISTER)
    yield post(_REPO + "/settings", repos.change, Policy.ADMINISTER)
    yield post(_REPO + "/credential", repos.set_credential, Policy.ADMINISTER)
    yield post(_REPO + "/delete", repos.delete, Policy.ADMINISTER)
    yield get(_REPO + "/hook", repos.hook, Policy.ADMINISTER)
    yield post(_REPO + "/hooks/{hook}/rotate", repos.rotate, Policy.ADMINISTER)
    yield get(_API_REPO + "/settings", api.settings, Policy.ADMINISTER)
    yield post(_API_REPO + "/settings", api.change_settings, Policy.ADMINISTER)
    yield post(_API_REPO + "/enable", api.enable, Policy.ADMINISTER)
    yield post(_API_REPO + "/disable", api.disable, Policy.ADMINISTER)
    yield post(_API_REPO + "/credential", api.set_credential, Policy.ADMINISTER)
    yield post(_API_REPO + "/delete", api.delete, Policy.ADMINISTER)
    yield get(_API_REPO + "/hooks", api.hooks, Policy.ADMINISTER)
    yield post(_API_REPO + "/hooks/{hook}/rotate", api.rotate, Policy.ADMINISTER)
    yield get(_REPO + "/inbox", inbox.list, Policy.RUN)
    yield get(_REPO + "/inbox/{id:int}", inbox.one, Policy.RUN)
    yield post(_REPO + "/inbox/{id:int}/replay", inbox.replay, Policy.RUN)
    yield get(_API_REPO + "/inbox", inbox.api_list, Policy.RUN)
    yield get(_API_REPO + "/inbox/{id:int}", inbox.api_one, Policy.RUN)
    yield post(_API_REPO + "/inbox/{id:int}/replay", inbox.api_replay, Policy.RUN)
    yield get(_REPO + "/run", run.form, Policy.RUN)
    yield post(_REPO + "/run", run.run, Policy.RUN)
    yield post(_API_REPO + "/builds", run.api_run, Policy.RUN)
    yield get(_REPO + "/schedules", schedules.page, Policy.ADMINISTER)
    yield post(_REPO + "/schedules", schedules.add, Policy.ADMINISTER)
    yield post(_REPO + "/schedules/{id:int}", schedules.change, Policy.ADMINISTER)
    yield post(_REPO + "/schedules/{id:int}/remove", schedules.remove, Policy.ADMINISTER)
    yield post(_REPO + "/schedules/{id:int}/run", schedules.run, Policy.ADMINISTER)
    yield get(_API_REPO + "/schedules", schedules.api_list, Policy.ADMINISTER)
    yield post(_API_REPO + "/schedules", schedules.api_add, Policy.ADMINISTER)
    yield post(_API_REPO + "/schedules/{id:int}", schedules.api_change, Policy.ADMINISTER)
    yield post(_API_REPO + "/schedules/{id:int}/remove", schedules.api_remove, Policy.ADMINISTER)
    yield post(_API_REPO + "/schedules/{id:int}/run", schedules.api_run, Policy.ADMINISTER)


def _runner_entries(doors: Doors) -> Iterator[Entry]:
    pages, api = doors.runner, doors.runners
    one, api_one = "/runners/{id:int}", "/api/runners/{id:int}"
    yield get(one, pages.page, Policy.SEE_RUNNERS)
    yield post(one + "/pause", pages.pause, Policy.MANAGE_RUNNERS)
    yield post(one + "/drain", pages.drain, Policy.MANAGE_RUNNERS)
    yield post(one + "/resume", pages.resume, Policy.MANAGE_RUNNERS)
    yield post(one + "/remove", pages.remove, Policy.MANAGE_RUNNERS)
    yield get("/api/runners", api.list, Policy.SEE_RUNNERS)
    yield post("/api/runners/code", api.code, Policy.MANAGE_RUNNERS)
    yield get(api_one, api.one, Policy.SEE_RUNNERS)
    yield post(api_one + "/pause", api.pause, Policy.MANAGE_RUNNERS)
    yield post(api_one + "/drain", api.drain, Policy.MANAGE_RUNNERS)
    yield post(api_one + "/resume", api.resume, Policy.MANAGE_RUNNERS)
    yield post(api_one + "/remove", api.remove, Policy.MANAGE_RUNNERS)


def table(doors: Doors) -> tuple[Entry, ...]:
    pages, build, login, account = doors.pages, doors.build, doors.login, doors.account
    people, members, audit = doors.people, doors.members, doors.audit
    runners = doors.runners
    return (
        # pages
        get("/", pages.home, Policy.PUBLIC),
        get("/repos", doors.repos.repos, Policy.SIGNED_IN),
        get(_REPO, doors.repos.repo, Policy.READ),
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
        post(_BUILD + "/approve", build.approve, Policy.APPROVE),
        post(_BUILD + "/reject", build.reject, Policy.APPROVE),
        post(_BUILD + "/{job}/resolve", build.resolve, Policy.RUN),
        post("/runners/code", pages.new_runner_code, Policy.MANAGE_RUNNERS),
        *_runner_entries(doors),
        *_repo_entries(doors),
        *_secret_entries(doors.secrets),
        # who a person is
        get("/setup", login.setup_form, Policy.SETUP),
        post("/setup", login.setup, Policy.SETUP),
        get("/sign-in", login.sign_in_form, Policy.PUBLIC),
        post("/sign-in", login.sign_in, Policy.PUBLIC),
        post("/sign-out", login.sign_out, Policy.SIGNED_IN),
        get("/join", login.join_form, Policy.PUBLIC),
        post("/join", login.join, Policy.PUBLIC),
        get("/account", account.page, Policy.MANAGE_ACCOUNT),
        post("/account/password", account.change_password, Policy.MANAGE_ACCOUNT),
        post("/account/tokens", account.add_token, Policy.MANAGE_ACCOUNT),
        post("/account/tokens/{id:int}/revoke", account.revoke_token, Policy.MANAGE_ACCOUNT),
        post("/account/sessions/{id:int}/revoke", account.close_session, Policy.MANAGE_ACCOUNT),
        post("/account/sessions/revoke-others", account.close_others, Policy.MANAGE_ACCOUNT),
        post("/theme", login.theme, Policy.PUBLIC),
        # people, and who may what
        get("/admin/people", people.page, Policy.MANAGE_PEOPLE),
        post("/admin/people", people.create, Policy.MANAGE_PEOPLE),
        post("/admin/people/{id:int}/admin", people.set_admin, Policy.MANAGE_PEOPLE),
        post("/admin/people/{id:int}/disabled", people.set_disabled, Policy.MANAGE_PEOPLE),
        post("/admin/people/{id:int}/reset", people.reset, Policy.MANAGE_PEOPLE),
        post("/admin/people/{id:int}/delete", people.remove, Policy.MANAGE_PEOPLE),
        get("/admin/audit", audit.of_server, Policy.MANAGE_PEOPLE),
        get(_REPO + "/members", members.page, Policy.ADMINISTER),
        post(_REPO + "/members", members.set_role, Policy.ADMINISTER),
        post(_REPO + "/members/{user}/remove", members.remove, Policy.ADMINISTER),
        get(_REPO + "/audit", audit.of_repo, Policy.ADMINISTER),
        # logs, and what is live
        get(_STEP + "/raw", log_page.raw, Policy.READ),
        get(_STEP + "/index", log_page.index, Policy.READ),
        get(_STEP + "/marks", log_page.marks, Policy.READ),
        socket(_STEP + "/live", doors.live_log.serve, Policy.READ),
        socket("/live", doors.live_topics.serve, Policy.PUBLIC),
        # programs
        post("/api/setup", login.setup_by_program, Policy.SETUP),
        post("/api/join", login.join_by_program, Policy.PUBLIC),
        get("/api/account", account.whoami, Policy.SIGNED_IN),
        post("/api/account/password", account.change_password_by_program, Policy.MANAGE_ACCOUNT),
        get("/api/account/tokens", account.tokens, Policy.MANAGE_ACCOUNT),
        post("/api/account/tokens", account.add_token_by_program, Policy.MANAGE_ACCOUNT),
        post("/api/account/tokens/{id:int}/revoke", account.revoke_token_by_program, Policy.MANAGE_ACCOUNT),
        get("/api/account/sessions", account.sessions, Policy.MANAGE_ACCOUNT),
        post(
            "/api/account/sessions/{id:int}/revoke", account.close_session_by_program, Policy.MANAGE_ACCOUNT
        ),
        post("/api/account/sessions/revoke-others", account.close_others_by_program, Policy.MANAGE_ACCOUNT),
        get("/api/people", people.people, Policy.MANAGE_PEOPLE),
        post("/api/people", people.create_by_program, Policy.MANAGE_PEOPLE),
        post("/api/people/{id:int}/admin", people.set_admin_by_program, Policy.MANAGE_PEOPLE),
        post("/api/people/{id:int}/disabled", people.set_disabled_by_program, Policy.MANAGE_PEOPLE),
        post("/api/people/{id:int}/reset", people.reset_by_program, Policy.MANAGE_PEOPLE),
        post("/api/people/{id:int}/delete", people.remove_by_program, Policy.MANAGE_PEOPLE),
        get("/api/audit", audit.of_server_by_program, Policy.MANAGE_PEOPLE),
        get(_API_REPO + "/members", members.members, Policy.ADMINISTER),
        post(_API_REPO + "/members", members.set_role_by_program, Policy.ADMINISTER),
        post(_API_REPO + "/members/{user}/remove", members.remove_by_program, Policy.ADMINISTER),
        get(_API_REPO + "/audit", audit.of_repo_by_program, Policy.ADMINISTER),
        get("/api/builds", api.builds, Policy.PUBLIC),
        get("/api/repos", api.repos, Policy.PUBLIC),
        get(_API_REPO, api.repo, Policy.READ),
        get(_API_REPO + "/builds", api.repo_builds, Policy.READ),
        get(_API_BUILD, api.build, Policy.READ),
        post(_API_BUILD + "/cancel", api.cancel, Policy.RUN),
        post(_API_BUILD + "/rerun", api.rerun, Policy.RUN),
        get("/api/queue", runners.queue, Policy.SEE_RUNNERS),
        get("/api/openapi.json", doors.description.serve, Policy.PUBLIC),
        get(_API_BUILD + "/approval", build_api.approval, Policy.READ),
        post(_API_BUILD + "/approve", build_api.approve, Policy.APPROVE),
        post(_API_BUILD + "/reject", build_api.reject, Policy.APPROVE),
        post(_API_BUILD + "/jobs/{job}/resolve", build_api.resolve, Policy.RUN),
        # how the server is
        get("/healthz", doors.metrics.health, Policy.PUBLIC),
        get("/metrics", doors.metrics.scrape, Policy.SEE_RUNNERS),
        # machines, and files
        machine(("GET",), "/static/{version}/{name}", doors.assets.serve, Policy.PUBLIC),
        *doors.machines,
    )
