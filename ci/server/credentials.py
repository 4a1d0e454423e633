"""What opens a repo at its forge: a token, a user with a password, or a deploy key; sealed, one per repo."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from ci.errors import Invalid
from ci.server.auth import Actor
from ci.server.clock import Clock
from ci.server.models import Repo
from ci.server.store import audit, repos
from ci.server.store.database import Connection, Store
from ci.server.vault import Vault

MAX_BYTES = 16 * 1024
_MAX_USER = 200
#: What git calls itself with a token as its password; the forges look at the token alone.
TOKEN_USER = "x-access-token"


class Kind(StrEnum):
    TOKEN = "token"
    PASSWORD = "password"
    SSH_KEY = "ssh_key"


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
            sealed = self._sealed(repo_id, credential) if credential else None
            kind = credential.kind.value if credential else ""
            user = credential.user if credential else ""
            repos.set_credential(connection, repo_id, kind=kind, user=user, sealed=sealed)
            deed = audit.Deed(action="repo.credential", repo_id=repo_id, details=kind or "removed")
            audit.note(connection, actor, deed, now)

        await self._store.write(write)

    def of(self, repo: Repo) -> Credential | None:
        """Raises Unavailable where it was sealed with another key."""
        if repo.credential is None or not repo.credential_kind:
            return None
        value = self._vault.open(repo.credential, purpose(repo.id or 0)).decode()
        return Credential(kind=Kind(repo.credential_kind), user=repo.credential_user, value=value)

    def login(self, repo: Repo) -> tuple[str, str] | None:
        """User and password for git by http; None where there is none. Raises Unavailable as `of` does."""
        found = self.of(repo)
        if found is None or found.kind is Kind.SSH_KEY:
            return None
        return (found.user or TOKEN_USER, found.value)

    def _sealed(self, repo_id: int, credential: Credential) -> bytes:
        return self._vault.seal(credential.value.encode(), purpose(repo_id))


def purpose(repo_id: int) -> str:
    """What the vault binds a repo's credential to."""
    return f"repo credential {repo_id}"


def check(credential: Credential) -> None:
    value = credential.value
    if not value.strip():
        raise Invalid(f"the {credential.kind.value.replace('_', ' ')} is empty")
    if len(value.encode(errors="replace")) > MAX_BYTES or "\0" in value:
        raise Invalid(f"a credential has at most {MAX_BYTES >> 10} KiB, and no NUL in it")
    if len(credential.user) > _MAX_USER or not credential.user.isprintable() or ":" in credential.user:
        raise Invalid(f"a user has at most {_MAX_USER} printable characters, and no colon")
    if credential.kind is Kind.PASSWORD and not credential.user:
        raise Invalid("a password needs its user")
    if credential.kind is Kind.SSH_KEY:
        if "PRIVATE KEY-----" not in value:
            raise Invalid("this is no private key: it begins with -----BEGIN ... PRIVATE KEY-----")
    elif any(character.isspace() for character in value.strip()):
        raise Invalid(f"a {credential.kind.value} has no spaces and no line ends in it")
