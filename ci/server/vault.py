"""Seal and open what must not stand in the database in clear. The key is a file outside of it.

A sealed value is bound to its `purpose`: what was sealed as one thing cannot be opened as another.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ci.errors import Unavailable

_KEY_BYTES = 32
_NONCE_BYTES = 12


class Vault:
    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._mac_key = hmac.digest(key, b"shipway mac", hashlib.sha256)

    @classmethod
    def load(cls, path: Path) -> Vault:
        """Read the key file, or make it (mode 0600) where there is none.

        Raises Unavailable for a file that is no key: a new one would make every secret unreadable.
        """
        try:
            key = path.read_bytes()
        except FileNotFoundError:
            key = _make_key(path)
        if len(key) != _KEY_BYTES:
            raise Unavailable(f"{path} is not a vault key ({_KEY_BYTES} bytes); restore it from your backup")
        return cls(key)

    def seal(self, plain: bytes, purpose: str) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, purpose.encode())

    def open(self, sealed: bytes, purpose: str) -> bytes:
        """Raises Unavailable for what was sealed with another key or for another purpose."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], purpose.encode())
        except (InvalidTag, ValueError) as error:
            raise Unavailable(
                f"cannot open the secret of {purpose}: it was sealed with another key"
            ) from error

    def mac(self, purpose: str, text: str) -> str:
        """A code that only this server can make, the same each time: 64 hex digits."""
        return hmac.new(self._mac_key, f"{purpose}\0{text}".encode(), hashlib.sha256).hexdigest()


def _make_key(path: Path) -> bytes:
    """Whole or not at all: written beside and linked, so that a crash leaves no half key."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secrets.token_bytes(_KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(beside, path)
    except FileExistsError:
        pass
    finally:
        beside.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return path.read_bytes()
