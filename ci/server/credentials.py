"""What opens a repo at its forge: a token, or a user with a password; sealed, one per repo."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import urlsplit

from ci.errors import Invalid, NotFound
from ci.event import Event
from ci.server.auth import Actor
from ci.server.clock import Clock
from ci.server.models import Repo
from ci.server.store import audit, outbox, repos
from ci.server.store.database import Connection, Store
from ci.server.vault import Vault

MAX_BYTES = 16 * 1024
_MAX_USER = 200
#: The user beside a token, where nobody named one: GitHub asks for this, others take any.
TOKEN_USER = "x-access-token"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Kind(StrEnum):
    TOKEN = "token"
    PASSWORD = "password"


@dataclass(frozen=True, kw_only=True)
class Credential:
    kind: Kind
    user: str = ""
    value: str = field(repr=False)


class Credentials:
    def __init__(self, store: Store, vault: Vault, clock: Clock) -> None:
        self._store = store
        self._vault = vault
        self._clock = clock

    async def set(self, repo_id: int, credential: Credential | None, actor: Actor) -> None:
        """Replace the repo's credential; None takes it away. Raises Invalid for one that cannot be."""
        if credential is not None:
            check(credential)
        now = self._clock.now()

        def write(connection: Connection) -> None:
            repo = repos.by_id(connection, repo_id)
            if repo is None:
                raise NotFound("the repo was deleted meanwhile")
            if credential is not None:
                check_for(credential, repo.clone_url)
            sealed = self._sealed(repo_id, credential) if credential else None
            kind = credential.kind.value if credential else ""
            user = credential.user if credential else ""
            repos.set_credential(connection, repo_id, kind=kind, user=user, sealed=sealed)
            outbox.hurry(connection, repo_id, now)
            deed = audit.Deed(action="repo.credential", repo_id=repo_id, details=kind or "removed")
            audit.note(connection, actor, deed, now)

        await self._store.write(write)

    def of(self, repo: Repo) -> Credential | None:
        """Raises Unavailable where it was sealed with another key."""
        if repo.credential is None or not repo.credential_kind:
            return None
        value = self._vault.open(repo.credential, repos.credential_purpose(repo.id or 0)).decode()
        return Credential(kind=Kind(repo.credential_kind), user=repo.credential_user, value=value)

    def login(self, repo: Repo) -> tuple[str, str] | None:
        """User and password for git by HTTP; None: as anybody. Raises as `of`."""
        found = self.of(repo)
        if found is None or not is_safe_for(repo.clone_url):
            return None
        return found.user or TOKEN_USER, found.value

    def login_of_clone(self, repo: Repo, event: Event) -> tuple[str, str] | None:
        """What a runner clones with. A stranger's build of a public repo needs none, and gets none."""
        return self.login(repo) if repo.is_private or not event.is_untrusted else None

    def _sealed(self, repo_id: int, credential: Credential) -> bytes:
        return self._vault.seal(credential.value.encode(), repos.credential_purpose(repo_id))


def is_safe_for(url: str) -> bool:
    """Whether what is sent to this URL is read by nobody else: encrypted, or never leaving the machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)


def check_for(credential: Credential, clone_url: str) -> None:
    """Raises Invalid for one that cannot be, or that would go over the network in clear."""
    check(credential)
    if not clone_url:
        raise Invalid("a repo of the built-in git needs no credential: each job has its own")
    if not is_safe_for(clone_url):
        raise Invalid(f"a credential goes by https alone, and the repo's clone URL is {clone_url}")


def check(credential: Credential) -> None:
    value = credential.value
    if not value.strip():
        raise Invalid(f"the {credential.kind.value.replace('_', ' ')} is empty")
    if len(value.encode(errors="replace")) > MAX_BYTES:
        raise Invalid(f"a credential has at most {MAX_BYTES >> 10} KiB")
    if len(credential.user) > _MAX_USER or not credential.user.isprintable() or ":" in credential.user:
        raise Invalid(f"a user has at most {_MAX_USER} printable characters, and no colon")
    if credential.kind is Kind.PASSWORD and not credential.user:
        raise Invalid("a password needs its user")
    if credential.kind is Kind.TOKEN and any(character.isspace() for character in value):
        raise Invalid("a token has no spaces and no line ends in it")
    if not value.isprintable():
        raise Invalid("a password has no line ends and no control characters in it")
