"""Who asks, and may they: every route passes here, before its endpoint sees anything.

Theory of operation. A route names one policy. For people and programs (`SIGNED_IN`, `READ` and so on) the
guard finds the actor, by the session's cookie or by `Authorization: Bearer`, finds the repo that the path
names, and asks ci.server.auth. What writes must come from our own pages: the Origin must be ours and the form
must carry a token that is made from the cookie; a Bearer token needs neither, as no browser adds one by
itself. The policies of machines (`RUNNER`, `HOOK`, ...) say who checks the credential instead.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass, field, replace
from enum import StrEnum
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import FormData, UploadFile
from starlette.requests import HTTPConnection, Request
from starlette.websockets import WebSocket

from ci.errors import Forbidden, Invalid, NotFound, TooLarge, Unauthenticated
from ci.server import auth
from ci.server.auth import Action, Actor
from ci.server.models import Repo
from ci.server.store import repos, users
from web.identity import Identity
from web.parts import Parts

SESSION_COOKIE = "shipway_session"
#: For those who are not signed in: what the tokens of their forms are made from.
FORM_COOKIE = "shipway_form"
THEME_COOKIE = "shipway_theme"
#: A secret of 64 KiB is up to three times as long in a form.
MAX_FORM_BYTES = 256 * 1024
_FOR_MONITORS = frozenset({"/healthz", "/metrics"})
#: Fields that may be an object in JSON: a list of NAME=value then.
_MAPS = frozenset({"variables"})
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Policy(StrEnum):
    PUBLIC = "public"  #: anybody; what is shown depends on who looks
    SETUP = "setup"  #: anybody, while there is no account
    SIGNED_IN = "signed-in"
    MANAGE_ACCOUNT = "account:manage"  #: one's own
    READ = "repo:read"
    RUN = "repo:run"  #: start, cancel, rerun, resolve
    APPROVE = "repo:approve"
    ADMINISTER = "repo:administer"
    ADMINISTER_OWNER = "owner:administer"  #: the namespace that the path names as {owner}
    SEE_RUNNERS = "runners:see"
    MANAGE_RUNNERS = "runners:manage"
    MANAGE_PEOPLE = "people:manage"
    MANAGE_SERVER = "server:manage"
    # Machines: the endpoint checks a credential of its own, no session counts.
    GIT = "git"  #: user name and token, per repository
    HOOK = "hook"  #: signature of the raw body
    PUSH = "push"  #: token of one push under way
    RUNNER = "runner"  #: credential of a runner, or its code

    @property
    def is_for_machines(self) -> bool:
        return self in (Policy.GIT, Policy.HOOK, Policy.PUSH, Policy.RUNNER)


_ACTIONS = {
    Policy.READ: Action.READ,
    Policy.RUN: Action.RUN,
    Policy.APPROVE: Action.APPROVE,
    Policy.ADMINISTER: Action.ADMINISTER,
    Policy.ADMINISTER_OWNER: Action.ADMINISTER_OWNER,
    Policy.MANAGE_ACCOUNT: Action.MANAGE_ACCOUNT,
    Policy.SEE_RUNNERS: Action.SEE_RUNNERS,
    Policy.MANAGE_RUNNERS: Action.MANAGE_RUNNERS,
    Policy.MANAGE_PEOPLE: Action.MANAGE_PEOPLE,
    Policy.MANAGE_SERVER: Action.MANAGE_SERVER,
}
_OF_A_REPO = frozenset({Policy.READ, Policy.RUN, Policy.APPROVE, Policy.ADMINISTER})


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request that may be answered: who asks, about which repo."""

    connection: HTTPConnection
    parts: Parts
    actor: Actor
    found_repo: Repo | None = None
    form_secret: str = ""
    form: FormData = field(default_factory=FormData)

    @property
    def request(self) -> Request:
        assert isinstance(self.connection, Request)
        return self.connection

    @property
    def repo(self) -> Repo:
        assert self.found_repo is not None, "the route's policy is not one of a repo"
        return self.found_repo

    def may(self, action: Action) -> bool:
        return auth.can(self.actor, action, self.found_repo)

    def may_by_name(self, action: str) -> bool:
        """The same for templates, by the action's value."""
        return self.may(Action(action))

    def path(self, name: str) -> str:
        return str(self.connection.path_params[name])

    def field(self, name: str) -> str:
        value = self.form.get(name, "")
        return value if isinstance(value, str) else ""

    def fields(self, name: str) -> list[str]:
        """All values under one name: boxes that are ticked, or a list in JSON."""
        return [value for value in self.form.getlist(name) if isinstance(value, str)]

    def flag(self, name: str) -> bool:
        """A box that is ticked, or `true` in JSON."""
        return self.field(name) in ("true", "on", "1")

    @property
    def csrf(self) -> str:
        """A new token for a form, good as long as the cookie; masked, so that it differs each time."""
        salt = secrets.token_hex(8)
        return salt + _csrf_mac(self.form_secret, salt)


def _csrf_mac(secret: str, salt: str) -> str:
    return hmac.new(secret.encode(), f"form {salt}".encode(), hashlib.sha256).hexdigest()


def is_csrf(secret: str, token: str) -> bool:
    return bool(secret) and hmac.compare_digest(token[16:].encode(), _csrf_mac(secret, token[:16]).encode())


def is_program(connection: HTTPConnection) -> bool:
    """Whether JSON is the right language for an answer."""
    accepts = connection.headers.get("accept", "")
    return (
        connection.url.path.startswith("/api/")
        or connection.url.path in _FOR_MONITORS
        or "authorization" in connection.headers
        or ("application/json" in accepts and "text/html" not in accepts)
    )


async def identify(connection: HTTPConnection, parts: Parts) -> Call:
    """Who asks. Raises Unauthenticated for a token that is not known; a dead session is nobody."""
    actor = await _actor(connection, parts)
    name = SESSION_COOKIE if actor.is_known else FORM_COOKIE
    secret = connection.cookies.get(parts.cookie(name), "")
    return Call(
        connection=connection, parts=parts, actor=actor, form_secret=secret or secrets.token_urlsafe(24)
    )


async def admit(call: Call, policy: Policy) -> Call:
    """The call with its repo and its form, if it may be answered; else the ShipwayError that says why not."""
    assert not policy.is_for_machines, "these check for themselves"
    connection = call.connection
    if connection.scope["type"] == "websocket":
        # A browser adds cookies to what other sites open, but cannot add a token: that one is a program's.
        if "authorization" not in connection.headers:
            _require_own_origin(call)
    elif connection.scope["method"] not in _SAFE:
        call = replace(call, form=await _form(call))
    return replace(call, found_repo=await _authorise(call, policy))


async def admit_socket(websocket: WebSocket, parts: Parts) -> Call:
    """The same for a socket, by the policy that its route has put into its state."""
    return await admit(await identify(websocket, parts), websocket.state.policy)


async def _authorise(call: Call, policy: Policy) -> Repo | None:
    store, actor = call.parts.store, call.actor
    if policy is Policy.SETUP and await store.read(users.has_users):
        raise NotFound("this server is set up already; please sign in")
    if policy in _OF_A_REPO:
        owner, name = call.path("owner"), call.path("name")
        repo = await store.read(lambda c: repos.find(c, owner, name))
        # A repo that does not exist is refused just as one that may not be seen.
        auth.require(actor, _ACTIONS[policy], repo or auth.NewPlace(owner=owner))
        if repo is None:
            raise NotFound("there is no such repo, or you may not see it")
        return repo
    if policy is Policy.ADMINISTER_OWNER:
        auth.require(actor, _ACTIONS[policy], auth.NewPlace(owner=call.path("owner")))
    elif policy in _ACTIONS:
        auth.require(actor, _ACTIONS[policy])
    elif policy is Policy.SIGNED_IN and not actor.is_known:
        raise Unauthenticated("please sign in first")
    return None


async def _actor(connection: HTTPConnection, parts: Parts) -> Actor:
    identity, address = Identity(parts.store, parts.clock), address_of(connection)
    header = connection.headers.get("authorization")
    if header is None:
        return await identity.of_session(connection.cookies.get(parts.cookie(SESSION_COOKIE), ""), address)
    scheme, _, token = header.partition(" ")
    return await identity.of_token(token.strip() if scheme.lower() == "bearer" else "", address)


def address_of(connection: HTTPConnection) -> str:
    """Where a request came from; what a trusted proxy says counts (trusted_proxies)."""
    return connection.client.host if connection.client else ""


def _require_own_origin(call: Call) -> None:
    """The Origin names the host that was asked, or the server's public address."""
    headers = call.connection.headers
    own = {headers.get("host", "").lower(), urlsplit(call.parts.url).netloc.lower()}
    if urlsplit(headers.get("origin", "")).netloc.lower() not in own - {""}:
        raise Forbidden("this request did not come from a page of this server")


async def _form(call: Call) -> FormData:
    """The fields of what was sent: of a form of ours with its token, or of JSON.

    A browser adds cookies to what other sites send, but no Authorization, and JSON only after it has asked
    us (which we never allow): so a form needs its token, and JSON an Origin that is ours, or none.
    """
    request = call.request
    body = await _body(request)
    has_bearer = "authorization" in request.headers
    if request.headers.get("content-type", "").startswith("application/json"):
        if "origin" in request.headers:
            _require_own_origin(call)
        return FormData(_json_fields(body))
    fields = FormData([*parse_qsl(body.decode(errors="replace"), keep_blank_values=True)])
    if not has_bearer:
        _require_own_origin(call)
        if not is_csrf(call.form_secret, str(fields.get("csrf", ""))):
            raise Forbidden("this form is too old, or not ours: open the page again and send it again")
    return fields


async def _body(request: Request) -> bytes:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_FORM_BYTES:
            raise TooLarge(f"a form has at most {MAX_FORM_BYTES >> 10} KiB")
    return bytes(data)


def _json_fields(body: bytes) -> list[tuple[str, str | UploadFile]]:
    """The fields of one JSON object, as a form would send them: a list is a name that comes again."""
    try:
        found = json.loads(body or b"{}")
        json.dumps(found, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise Invalid(f"the body is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise Invalid("the body must be one JSON object")
    pairs = [(key, each) for key, value in found.items() for each in _each(key, value)]
    return [(key, _json_text(key, value)) for key, value in pairs]


def _each(key: str, value: object) -> list[object]:
    if key in _MAPS and isinstance(value, dict):
        return [f"{name}={_json_text(name, each)}" for name, each in value.items()]
    return value if isinstance(value, list) else [value]


def _json_text(key: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or isinstance(value, str | int | float):
        return "" if value is None else str(value)
    raise Invalid(f"{key!r} must be a text, a number, a flag or a list of them")
