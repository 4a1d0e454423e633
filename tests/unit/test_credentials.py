"""What opens a repo at its forge: sealed, checked, never shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select

from ci.errors import Invalid, Unavailable
from ci.server.auth import Actor
from ci.server.credentials import Credential, Credentials, Kind, check
from ci.server.store import audit, repos
from ci.server.store.tables import REPO
from ci.server.vault import Vault
from tests.unit.world import core

ADA = Actor(user_id=1, name="ada")
KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----\n"


async def test_a_credential_is_sealed_bound_to_its_repo_and_audited_without_its_value(tmp_path: Path) -> None:
    async with core(tmp_path) as server:
        vault = Vault(bytes(32))
        credentials = Credentials(server.store, vault, server.clock)
        given = Credential(kind=Kind.TOKEN, user="x-access-token", value="ghp_canary")
        await credentials.set(server.repo_id, given, ADA)
        repo = await server.store.read(lambda c: repos.by_id(c, server.repo_id))
        assert repo is not None
        assert credentials.of(repo) == given
        assert "canary" not in repr(given)
        sealed = await server.store.read(lambda c: c.execute(select(REPO.c.credential)).scalar_one())
        assert b"canary" not in sealed
        with pytest.raises(Unavailable):
            Credentials(server.store, vault, server.clock).of(repo.model_copy(update={"id": 99}))
        (deed,) = await server.store.read(lambda c: audit.latest(c))
        assert (deed.action, deed.details, deed.user_name) == ("repo.credential", "token", "ada")
        await credentials.set(server.repo_id, None, ADA)
        repo = await server.store.read(lambda c: repos.by_id(c, server.repo_id))
        assert repo is not None
        assert credentials.of(repo) is None


@pytest.mark.parametrize(
    ("credential", "sentence"),
    [
        (Credential(kind=Kind.TOKEN, value=" "), "is empty"),
        (Credential(kind=Kind.TOKEN, value="a b"), "no spaces"),
        (Credential(kind=Kind.PASSWORD, value="x"), "needs its user"),
        (Credential(kind=Kind.PASSWORD, user="a:b", value="x"), "no colon"),
        (Credential(kind=Kind.SSH_KEY, value="ssh-ed25519 AAAA"), "no private key"),
        (Credential(kind=Kind.TOKEN, value="x" * 20_000), "at most 16 KiB"),
    ],
)
def test_what_cannot_be_a_credential_is_refused_with_a_reason(credential: Credential, sentence: str) -> None:
    with pytest.raises(Invalid, match=sentence):
        check(credential)
    check(Credential(kind=Kind.SSH_KEY, value=KEY))
