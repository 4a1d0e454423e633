"""Who may do what, in one place; and how passwords, tokens and codes are made and stored. Pure.

A password is stored as scrypt with its salt. Tokens, cookies and runner credentials are 256 random bits,
so their plain SHA-256 is enough. A code is short enough to type, lives an hour and works once.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from ci.errors import Forbidden, Invalid, NotFound, Unauthenticated

CODE_SECONDS = 3600.0
MIN_PASSWORD_LENGTH = 8
MAX_PASSWORD_LENGTH = 1024
_CODE_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford: no letter that looks like another
_SCRYPT = {"n": 1 << 14, "r": 8, "p": 1}


class Action(StrEnum):
    READ = "read"  #: a repo, its builds and logs; clone
    PUSH = "push"  #: move refs of a repo in the built-in git
    RUN = "run"  #: cancel, rerun, resolve
    CREATE = "create"  #: make this repo
    ADMINISTER = "administer"  #: hooks and settings of a repo
    SEE_RUNNERS = "see_runners"
    MANAGE_RUNNERS = "manage_runners"


class Place(Protocol):
    """What a rule looks at in a repo; one that does not exist yet counts as private."""

    @property
    def owner(self) -> str: ...

    @property
    def is_private(self) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who asks. Nobody: no user id."""

    user_id: int | None = None
    name: str = ""
    is_admin: bool = False

    @property
    def is_known(self) -> bool:
        return self.user_id is not None


ANONYMOUS = Actor()


@dataclass(frozen=True, kw_only=True)
class NewPlace:
    """A repo that does not exist yet, for `Action.CREATE`."""

    owner: str
    is_private: bool = True


def can(actor: Actor, action: Action, repo: Place | None = None) -> bool:
    """The rules, all of them. An admin may everything; others what is theirs, and read what is public."""
    if actor.is_admin:
        return True
    if action is Action.READ and repo is not None and not repo.is_private:
        return True
    if not actor.is_known:
        return False
    if action is Action.SEE_RUNNERS:
        return True
    if action is Action.MANAGE_RUNNERS or repo is None:
        return False
    return repo.owner == actor.name


def require(actor: Actor, action: Action, repo: Place | None = None) -> None:
    """Raises Unauthenticated, Forbidden, or NotFound where even the existence is private."""
    if can(actor, action, repo):
        return
    if not actor.is_known:
        raise Unauthenticated("please sign in first")
    if repo is not None and action is not Action.CREATE and not can(actor, Action.READ, repo):
        raise NotFound("there is no such repo, or you may not see it")
    raise Forbidden(f"{actor.name} may not {action.value.replace('_', ' ')} here")


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


def token_hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def new_code() -> str:
    letters = "".join(secrets.choice(_CODE_LETTERS) for _ in range(12))
    return "-".join((letters[:4], letters[4:8], letters[8:]))


def code_hash(code: str) -> str:
    """The same for a code however it was typed: small letters, without dashes, O for 0, I or L for 1."""
    plain = "".join(code.upper().split()).replace("-", "")
    return token_hash(plain.translate(str.maketrans("OIL", "011")))
