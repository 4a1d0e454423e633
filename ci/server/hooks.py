"""The hooks: what a forge sends is verified over its raw bytes, then durable, then answered (law 2).

The secrets of hooks are kept in memory, and compared with the stored ones in the transaction that stores the
delivery: a rotated secret is never accepted, and nothing needs to be told to forget it. What becomes of a
delivery is for the inbox.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from ci.errors import Forbidden, NotFound, ShipwayError
from ci.server.bus import Bus
from ci.server.clock import Clock
from ci.server.forges.base import Delivery, Forge
from ci.server.forges.directory import Forges
from ci.server.models import Hook, Repo
from ci.server.store import inbox, repos
from ci.server.store.database import Connection, Store
from ci.server.store.inbox import NewRow, Receipt
from ci.server.vault import Vault

#: Bodies above this are checked and parsed in a thread.
_LARGE_BYTES = 256 << 10
T = TypeVar("T")


class _Stale(Exception):
    """The hook's secrets are not those that the delivery was checked with any more."""


@dataclass(frozen=True, kw_only=True)
class _Door:
    """A hook as it was read: its secrets opened, the older last."""

    hook: Hook
    secrets: tuple[bytes, ...] = field(repr=False)
    forge: Forge
    repo_key: str


class Hooks:
    def __init__(self, store: Store, bus: Bus, clock: Clock, *, forges: Forges, vault: Vault) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._forges = forges
        self._vault = vault
        self._doors: dict[str, _Door] = {}

    async def max_bytes(self, hook_id: str) -> int | None:
        """What a delivery to the hook may have; None: the setting decides. Raises NotFound."""
        door = self._doors.get(hook_id) or await self._read_door(hook_id)
        return door.forge.max_hook_bytes

    async def receive(self, hook_id: str, headers: Mapping[str, str], body: bytes) -> Receipt:
        """A webhook: verified over the raw bytes, then parsed, then stored. Header names in small letters.

        Only after this returns may the answer be 2xx. Raises NotFound, Forbidden, Invalid; what was
        refused is noted at the hook.
        """
        kept = self._doors.get(hook_id)
        door = kept or await self._read_door(hook_id)
        try:
            if not await self._is_signed(door, headers, body):
                # The secret may have been changed since it was read; who has none pays for the look.
                door = await self._read_door(hook_id)
                if not await self._is_signed(door, headers, body):
                    raise Forbidden(door.forge.unsigned(headers))
            delivery = await _off_loop(len(body), partial(door.forge.delivery, headers, body))
            _check_repo(door, delivery)
        except ShipwayError as error:
            await self.refuse(hook_id, str(error))
            raise
        try:
            receipt = await self._store.write(partial(self._receive, door=door, delivery=delivery))
        except _Stale:
            self._doors.pop(hook_id, None)
            return await self.receive(hook_id, headers, body)
        self._bus.publish("inbox", "deliveries")
        return receipt

    def _receive(self, connection: Connection, door: _Door, delivery: Delivery) -> Receipt:
        if not repos.is_hook(connection, door.hook):
            raise _Stale
        new = NewRow(
            hook_id=door.hook.id,
            repo_id=door.hook.repo_id,
            delivery=delivery.key,
            word=delivery.word,
            body=delivery.body,
        )
        return inbox.receive(connection, new, self._clock.now())

    async def _is_signed(self, door: _Door, headers: Mapping[str, str], body: bytes) -> bool:
        until = door.hook.old_secret_until
        has_old = until is not None and self._clock.now() < until
        valid = door.secrets if has_old else door.secrets[:1]
        return await _off_loop(len(body), partial(door.forge.is_signed, headers, body, valid))

    async def _read_door(self, hook_id: str) -> _Door:
        def look(connection: Connection) -> tuple[Hook, Repo | None] | None:
            hook = repos.hook(connection, hook_id)
            return (hook, repos.by_id(connection, hook.repo_id)) if hook else None

        found = await self._store.read(look)
        if found is None or found[1] is None:
            self._doors.pop(hook_id, None)
            raise NotFound("there is no such hook")
        hook, repo = found[0], found[1]
        sealed = (hook.secret, hook.old_secret) if hook.old_secret else (hook.secret,)
        opened = tuple(self._vault.open(each, repos.secret_purpose(hook_id)) for each in sealed)
        forge = self._forges.named(hook.forge)
        door = _Door(hook=hook, secrets=opened, forge=forge, repo_key=repo.forge_key)
        self._doors[hook_id] = door
        return door

    async def refuse(self, hook_id: str, sentence: str) -> None:
        """Note why a delivery was refused; also for what the web layer refuses by its size."""
        now = self._clock.now()
        await self._store.write(lambda connection: repos.refuse(connection, hook_id, sentence, now))


def _check_repo(door: _Door, delivery: Delivery) -> None:
    """A hook is one repo's. Raises Forbidden for a delivery about another, or about none."""
    if delivery.repo_key is None or delivery.repo_key == door.repo_key:
        return
    about = f"the repo with the id {delivery.repo_key}" if delivery.repo_key else "no repo"
    raise Forbidden(
        f"the delivery is about {about}, and this hook is for the repo with the id {door.repo_key}: add the "
        "webhook in that repo's own settings"
    )


async def _off_loop(size: int, work: Callable[[], T]) -> T:
    """In a thread if it would hold up everybody else."""
    return await asyncio.to_thread(work) if size > _LARGE_BYTES else work()
