"""A new key for the vault, and everything sealed anew with it.

Three steps, each durable before the next: the file gets the new key beside the old; one transaction seals
every value anew; the file loses the old key. Cut off anywhere, every value can be opened with a key of the
file, and doing it again finishes. No server may run meanwhile: it would go on sealing with the key that goes.
"""

from __future__ import annotations

from pathlib import Path

from ci.server.store import sealed
from ci.server.store.database import Store
from ci.server.vault import Vault, load_keys, new_key, replace_keys


async def rotate(store: Store, path: Path) -> int:
    """Returns how many values were sealed anew. Raises Unavailable, and keeps every key, where one of them
    cannot be opened."""
    keys = (new_key(), *load_keys(path))
    replace_keys(path, keys)
    vault = Vault(*keys)

    def again(value: bytes, purpose: str) -> bytes:
        return vault.seal(vault.open(value, purpose), purpose)

    count = await store.write(lambda connection: sealed.seal_anew(connection, again))
    replace_keys(path, keys[:1])
    return count
