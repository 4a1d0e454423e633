"""Seal and open what must not stand in the database in clear. The keys are in a file outside of it.

Theory of operation. A sealed value is bound to its `purpose`: what was sealed as one thing cannot be opened
as another. It begins with the id of its key, which is made from the key itself, so the file needs no names:
it is 32 bytes a key, the newest first. Only the newest seals; all of them open. While keys are changed
(ci/server/rotation.py) the file holds both, so that every value can be read whenever that is cut off. Values
from before there were ids have none, and are tried with every key.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ci.errors import Unavailable

KEY_BYTES = 32
_ID_BYTES = 8
_NONCE_BYTES = 12


class _Key:
    def __init__(self, key: bytes) -> None:
        self.id = hmac.digest(key, b"shipway key id", hashlib.sha256)[:_ID_BYTES]
        self.cipher = AESGCM(key)
        self.mac_key = hmac.digest(key, b"shipway mac", hashlib.sha256)


class Vault:
    def __init__(self, *keys: bytes) -> None:
        """The newest key first; it seals."""
        self._keys = [_Key(key) for key in keys]

    @classmethod
    def load(cls, path: Path) -> Vault:
        """Read the key file, or make it (mode 0600) where there is none.

        Raises Unavailable for a file that holds no keys: a new one would make every secret unreadable.
        """
        return cls(*load_keys(path))

    def seal(self, plain: bytes, purpose: str) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        newest = self._keys[0]
        return newest.id + nonce + newest.cipher.encrypt(nonce, plain, purpose.encode())

    def open(self, sealed: bytes, purpose: str) -> bytes:
        """Raises Unavailable for what was sealed with another key or for another purpose."""
        named = [(key, sealed[_ID_BYTES:]) for key in self._keys if sealed.startswith(key.id)]
        for key, body in (*named, *((key, sealed) for key in self._keys)):
            with contextlib.suppress(InvalidTag, ValueError):
                return key.cipher.decrypt(body[:_NONCE_BYTES], body[_NONCE_BYTES:], purpose.encode())
        raise Unavailable(
            f"cannot open the secret of {purpose}: it was sealed with another key; restore the vault.key "
            "that belongs to this database"
        )

    def mac(self, purpose: str, text: str) -> str:
        """A code that only this server can make, the same as long as its key: 64 hex digits."""
        return hmac.new(self._keys[0].mac_key, f"{purpose}\0{text}".encode(), hashlib.sha256).hexdigest()


def new_key() -> bytes:
    return secrets.token_bytes(KEY_BYTES)


def load_keys(path: Path) -> tuple[bytes, ...]:
    """The keys of the file, the newest first; makes the file where there is none. Raises Unavailable."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        data = _make(path)
    keys = tuple(data[at : at + KEY_BYTES] for at in range(0, len(data), KEY_BYTES))
    if not keys or len(keys[-1]) != KEY_BYTES:
        raise Unavailable(f"{path} is not a vault key ({KEY_BYTES} bytes a key); restore it from your backup")
    return keys


def replace_keys(path: Path, keys: tuple[bytes, ...]) -> None:
    """Durable when this returns. Whole or not at all: a crash leaves the old file or the new one."""
    beside = _write_beside(path, b"".join(keys))
    os.replace(beside, path)
    _sync_folder(path.parent)


def _make(path: Path) -> bytes:
    beside = _write_beside(path, new_key())
    try:
        os.link(beside, path)  # not over one that somebody else makes in this moment
    except FileExistsError:
        pass
    finally:
        beside.unlink()
    _sync_folder(path.parent)
    return path.read_bytes()


def _write_beside(path: Path, data: bytes) -> Path:
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return beside


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
