"""Pushes to the built-in git: the row stands before the refs move (law 2).

A server killed in between finds the row again and waits for a while, because git's own receive-pack may have
outlived it; and since refs may move in ways that nobody reports, they are compared with their last events at
start and after each push.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence

from ci.errors import Invalid, NotFound
from ci.server.clock import Clock
from ci.server.forges.base import parse_push
from ci.server.forges.builtin import Builtin
from ci.server.forges.news import MAX_REFS, SCHEDULE, Push, Update
from ci.server.inbox import MAX_EVENTS, Inbox
from ci.server.models import Repo
from ci.server.store import inbox, repos
from ci.server.store.database import Connection, Store
from ci.server.trigger import Result

_log = logging.getLogger(__name__)


class Pushes:
    def __init__(self, store: Store, clock: Clock, inbox: Inbox, builtin: Builtin) -> None:
        self._store = store
        self._clock = clock
        self._inbox = inbox
        self._builtin = builtin

    async def received(
        self,
        repo_id: int,
        push_id: str,
        updates: Sequence[tuple[str, str, str]],
        sender: str,
        options: Sequence[str] = (),
    ) -> int:
        """Before git moves any ref of (ref, old, new): make the intent durable. Then `done`, always."""
        if not 1 <= len(updates) <= MAX_REFS:
            raise Invalid(f"a push moves 1 to {MAX_REFS:,} refs at once, not {len(updates):,}")
        refs = tuple(Update(ref=_utf8(ref), before=old, after=new) for ref, old, new in updates)
        push = Push(push_id=push_id, refs=refs, pusher=sender, options=tuple(_utf8(text) for text in options))
        row_id = await self._store_own(repo_id, push)
        self._inbox.hold(row_id)
        return row_id

    async def done(self, row_id: int) -> list[Result]:
        """git has ended, whatever it did: what moved becomes builds. One result a ref, in order."""
        try:
            row = await self._store.read(lambda connection: inbox.by_id(connection, row_id))
            assert row is not None and row.repo_id is not None
            repo = await self._repo(row.repo_id)
            await self._follow_head(repo, parse_push(row.body))
            results = await self._inbox.process(row_id, is_final=True)
        finally:
            self._inbox.release(row_id)
        await self.compare_refs(repo)
        return results

    async def _repo(self, repo_id: int) -> Repo:
        repo = await self._store.read(lambda connection: repos.by_id(connection, repo_id))
        if repo is None:
            raise NotFound(f"there is no repo with the id {repo_id}")
        return repo

    async def _follow_head(self, repo: Repo, push: Push) -> None:
        names = [update.ref for update in push.refs]
        bare = self._builtin.bare(repo.id or 0)
        head = await bare.follow_head([*names, *await bare.refs()])
        if head is not None:
            branch = head.removeprefix("refs/heads/")
            repo_id = repo.id or 0
            await self._store.write(lambda connection: repos.set_default_branch(connection, repo_id, branch))

    async def _store_own(self, repo_id: int, push: Push) -> int:
        now = self._clock.now()
        return await self._store.write(
            lambda connection: inbox.receive_own(
                connection, repo_id=repo_id, delivery=push.push_id, body=push.body(), now=now
            )
        )

    # --- refs that moved without a word ---------------------------------------------------------------

    async def compare_all(self) -> None:
        """At start: what moved while no server looked becomes events."""
        for repo in await self._store.read(lambda connection: repos.of_forge(connection, repos.BUILTIN)):
            try:
                await self.compare_refs(repo)
            except Exception:  # the edge: one broken repository stops no other
                _log.exception("repo=%s/%s: cannot compare its refs", repo.owner, repo.name)

    async def compare_refs(self, repo: Repo) -> None:
        """Make the missing events of one repo in the built-in git. Refs that a waiting row names are its."""
        repo_id = repo.id or 0
        await self._builtin.create(repo_id)
        async with self._inbox.lock(repo_id):
            rows = await self._store.read(lambda connection: inbox.waiting(connection, repo_id))
            pushes = [parse_push(row.body) for row in rows if row.forge_event != SCHEDULE]
            named = {update.ref for push in pushes for update in push.refs}
            states = await self._store.read(lambda connection: repos.ref_states(connection, repo_id))
            refs = await self._builtin.bare(repo_id).refs()
            found = tuple(
                Update(ref=ref, after=sha, **({"before": states[ref]} if ref in states else {}))
                for ref, sha in refs.items()
                if states.get(ref) != sha and ref not in named
            )
            gone = [ref for ref in states if ref not in refs and ref not in named]
            if gone:
                await self._store.write(lambda connection: _forget(connection, repo_id, gone))
        for start in range(0, len(found), MAX_EVENTS):
            part = found[start : start + MAX_EVENTS]
            push = Push(push_id=f"found-{secrets.token_hex(16)}", refs=part, is_found=True)
            await self._inbox.process(await self._store_own(repo_id, push), is_final=True)


def _forget(connection: Connection, repo_id: int, refs: Sequence[str]) -> None:
    for ref in refs:
        repos.set_ref_sha(connection, repo_id, ref, None)


def _utf8(text: str) -> str:
    """Bytes that were no UTF-8 become U+FFFD, which is then named as the reason."""
    return text.encode(errors="surrogateescape").decode(errors="replace")
