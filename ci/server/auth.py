"""Who may do what, in one place; and how passwords, tokens and codes are made and stored. Pure.

A password is stored as scrypt with its salt. Tokens, cookies and runner credentials are 256 random bits,
so their plain SHA-256 is enough. A code is short enough to type, lives an hour and works once.
"""

from __future__ import annotations

import base64
import getpass
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from ci.errors import Forbidden, Invalid, NotFound, Unauthenticated

CODE_SECONDS = 3600.0
ACCOUNT_CODE_SECONDS = 24 * 3600.0  #: a person reads it later than an admin who stands before the machine
MIN_PASSWORD_LENGTH = 8
MAX_PASSWORD_LENGTH = 1024
_CODE_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford: no letter that looks like another
_SCRYPT = {"n": 1 << 14, "r": 8, "p": 1}


class Action(StrEnum):
    READ = "read"  #: a repo, its builds and logs; clone
    PUSH = "push"  #: move refs of a repo in the built-in git
    RUN = "run"  #: start, cancel, rerun, resolve
    APPROVE = "approve"  #: let a stranger's build run
    CREATE = "create"  #: make this repo
    ADMINISTER = "administer"  #: hooks, settings, secrets and members of a repo
    ADMINISTER_OWNER = "administer_owner"  #: secrets and variables of all repos of an owner
    SEE_RUNNERS = "see_runners"  #: and the queue
    MANAGE_RUNNERS = "manage_runners"
    MANAGE_ACCOUNT = "manage_account"  #: one's own password, sessions and tokens
    MANAGE_PEOPLE = "manage_people"  #: accounts; read the audit log
    MANAGE_SERVER = "manage_server"  #: secrets and variables of the whole server
    TRUST = "trust"  #: let a repo's files ask for more than the sandbox gives


class Role(StrEnum):
    """What a member may do in a repo; each may all that the one before it may."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


class Scope(StrEnum):
    """What a token may do at most, whoever's it is. None contains another."""

    READ = "read"
    WRITE = "write"  #: push, also what makes a repo; run, approve
    ADMIN = "admin"  #: one's own account; administer repos, runners, people, the server


_OF_ROLE: dict[Role, frozenset[Action]] = {
    Role.READ: frozenset({Action.READ}),
    Role.WRITE: frozenset({Action.READ, Action.PUSH, Action.RUN, Action.APPROVE}),
    Role.ADMIN: frozenset({Action.READ, Action.PUSH, Action.RUN, Action.APPROVE, Action.ADMINISTER}),
}
#: A repo of one's own is made by its first push.
_WRITES = frozenset({Action.PUSH, Action.CREATE, Action.RUN, Action.APPROVE})
_OF_SCOPE: dict[Scope, frozenset[Action]] = {
    Scope.READ: frozenset({Action.READ, Action.SEE_RUNNERS}),
    Scope.WRITE: _WRITES,
    Scope.ADMIN: frozenset(Action) - {Action.READ, Action.SEE_RUNNERS} - _WRITES,
}
#: What only an admin may, or, for CREATE and ADMINISTER_OWNER, the owner of the namespace.
_OF_OWNER = _OF_ROLE[Role.ADMIN] | {Action.CREATE, Action.ADMINISTER_OWNER}
_OF_ANYBODY_KNOWN = frozenset({Action.SEE_RUNNERS, Action.MANAGE_ACCOUNT})


class Place(Protocol):
    """What a rule looks at in a repo; one that does not exist yet counts as private, and has no id."""

    @property
    def id(self) -> int | None: ...

    @property
    def owner(self) -> str: ...

    @property
    def is_private(self) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who asks. Nobody: no user id. `roles` by the ids of repos; `scopes` is None but for a token."""

    user_id: int | None = None
    name: str = ""
    is_admin: bool = False
    roles: Mapping[int, Role] = field(default_factory=dict, hash=False)
    scopes: frozenset[Scope] | None = None
    address: str = field(default="", compare=False)  #: where the request came from, for the audit log

    @property
    def is_known(self) -> bool:
        return self.user_id is not None

    def is_in_scope(self, action: Action) -> bool:
        return self.scopes is None or any(action in _OF_SCOPE[scope] for scope in self.scopes)


ANONYMOUS = Actor()


def this_machine() -> Actor:
    """Who works in the data folder itself, and so may everything; the audit log says so."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name
        name = f"user {os.getuid()}"
    return Actor(name=f"{name} at the machine", is_admin=True, address="this machine")


@dataclass(frozen=True, kw_only=True)
class NewPlace:
    """A repo that does not exist (yet): for `Action.CREATE`, or an owner's namespace itself."""

    owner: str
    is_private: bool = True
    id: int | None = None


def can(actor: Actor, action: Action, repo: Place | None = None) -> bool:
    """The rules, all of them. An admin may everything; others what is theirs or their role in a repo allows,
    and read what is public. A token may at most what its scopes say."""
    if action is Action.READ and repo is not None and not repo.is_private:
        return True
    return actor.is_in_scope(action) and _may(actor, action, repo)


def _may(actor: Actor, action: Action, repo: Place | None) -> bool:
    if actor.is_admin:
        return True
    if not actor.is_known:
        return False
    if action in _OF_ANYBODY_KNOWN:
        return True
    if repo is None:
        return False
    if repo.owner == actor.name and action in _OF_OWNER:
        return True
    role = actor.roles.get(repo.id) if repo.id is not None else None
    return role is not None and action in _OF_ROLE[role]


def require(actor: Actor, action: Action, repo: Place | None = None) -> None:
    """Raises Unauthenticated, Forbidden, or NotFound where even the existence is private."""
    if can(actor, action, repo):
        return
    if not actor.is_known:
        raise Unauthenticated("please sign in first")
    if repo is not None and action is not Action.CREATE and not can(actor, Action.READ, repo):
        raise NotFound("there is no such repo, or you may not see it")
    words = "make a repo" if action is Action.CREATE else action.value.replace("_", " ")
    if not actor.is_in_scope(action):
        needed = next(scope for scope in Scope if action in _OF_SCOPE[scope])
        raise Forbidden(
            f"this token may not {words}: its scopes are {_words(actor.scopes)}; make one with the scope "
            f"{needed} on your account page, or by `shipway token add`"
        )
    raise Forbidden(f"{actor.name} may not {words} here")


def _words(scopes: frozenset[Scope] | None) -> str:
    return ", ".join(sorted(scopes or ())) or "none"


def hash_password(password: str) -> str:
    """Takes about 50 ms: call it in a thread. Raises Invalid for one that is too short."""
    if not MIN_PASSWORD_LENGTH <= len(password) <= MAX_PASSWORD_LENGTH:
        raise Invalid(f"a password has {MIN_PASSWORD_LENGTH} to {MAX_PASSWORD_LENGTH} characters")
    salt = secrets.token_bytes(16)
    return "$".join(
        ("scrypt", base64.b64encode(salt).decode(), base64.b64encode(_digest(password, salt)).decode())
    )


def is_password(password: str, stored: str) -> bool:
    """Takes about 50 ms, also where `stored` is empty (no such user), so that time tells nothing."""
    _, salt, digest = (stored or f"scrypt${'A' * 22}==${'A' * 86}==").split("$")
    same = hmac.compare_digest(
        _digest(password[:MAX_PASSWORD_LENGTH], base64.b64decode(salt)), base64.b64decode(digest)
    )
    return same and bool(stored)


def _digest(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, maxmem=64 << 20, **_SCRYPT)


def new_token(prefix: str = "shipway") -> str:
    """A credential to be shown once; only its `token_hash` is kept."""
    return f"{prefix}_{secrets.token_urlsafe(32)}"


def is_token(text: str, prefix: str) -> bool:
    """Whether it looks like one of `new_token`; for what a peer made for itself."""
    return re.fullmatch(rf"{re.escape(prefix)}_[A-Za-z0-9_-]{{43}}", text) is not None


def token_hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def new_code() -> str:
    letters = "".join(secrets.choice(_CODE_LETTERS) for _ in range(12))
    return "-".join((letters[:4], letters[4:8], letters[8:]))


def code_hash(code: str) -> str:
    """The same for a code however it was typed: small letters, without dashes, O for 0, I or L for 1."""
    plain = "".join(code.upper().split()).replace("-", "")
    return token_hash(plain.translate(str.maketrans("OIL", "011")))
