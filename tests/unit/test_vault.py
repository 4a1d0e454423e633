"""The vault: a key file of our own, values bound to their purpose."""

from __future__ import annotations

from pathlib import Path

import pytest

from ci.errors import Unavailable
from ci.server.vault import Vault


def test_the_key_file_is_ours_alone_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "vault.key"
    sealed = Vault.load(path).seal(b"secret", "hook 1")
    assert path.stat().st_mode & 0o777 == 0o600
    assert Vault.load(path).open(sealed, "hook 1") == b"secret"
    assert [each.name for each in tmp_path.iterdir()] == ["vault.key"]


def test_what_is_sealed_shows_nothing_and_never_the_same(tmp_path: Path) -> None:
    vault = Vault.load(tmp_path / "vault.key")
    first, second = vault.seal(b"secret", "p"), vault.seal(b"secret", "p")
    assert b"secret" not in first and first != second


@pytest.mark.parametrize("change", ["key", "purpose", "bytes", "empty"])
def test_another_key_purpose_or_byte_opens_nothing(tmp_path: Path, change: str) -> None:
    vault = Vault.load(tmp_path / "vault.key")
    sealed = vault.seal(b"secret", "hook 1")
    other = Vault(bytes(32)) if change == "key" else vault
    sealed = {"bytes": sealed[:-1] + b"x", "empty": b""}.get(change, sealed)
    with pytest.raises(Unavailable, match="sealed with another key"):
        other.open(sealed, "hook 2" if change == "purpose" else "hook 1")


def test_a_file_that_is_no_key_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "vault.key"
    path.write_bytes(b"half")
    with pytest.raises(Unavailable, match="restore it"):
        Vault.load(path)
    assert path.read_bytes() == b"half"


def test_a_mac_is_stable_and_bound_to_its_purpose(tmp_path: Path) -> None:
    vault = Vault.load(tmp_path / "vault.key")
    assert vault.mac("clone", "1/2/3") == Vault.load(tmp_path / "vault.key").mac("clone", "1/2/3")
    assert len({vault.mac("clone", "1/2/3"), vault.mac("clone", "1/2/4"), vault.mac("other", "1/2/3")}) == 3
