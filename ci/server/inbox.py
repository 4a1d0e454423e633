"""The ways in: a delivery is durable first, and then becomes builds or a sentence why not (law 2).

Theory of operation. Each row holds one push, which is one event a ref. `process` may run any number of
times, after any crash: an event that has its build keeps it (unique on row and index). Rows of a repo are
processed one at a time, in the order in which they came.
For the built-in git the row stands before the refs move. A server killed in between finds the row again and
waits for a while, because git's own receive-pack may have outlived it; and since refs may move in ways that
nobody reports, they are compared with their last events at start and after each push.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Sequence
from pathlib import Path

from ci.errors import Forbidden, Invalid, NotFound, ShipwayError, Unavailable
from ci.server.bus import Bus
from ci.server.clock import Clock
from ci.server.forges import git
from ci.server.forges.base import MAX_REFS, Push, Update, parse_push
from ci.server.forges.directory import Forges
from ci.server.models import Hook, Repo
from ci.server.models import Inbox as Row
from ci.server.store import builds, inbox, repos
from ci.server.store.database import Connection, Store
from ci.server.trigger import Origin, Result, Trigger
from ci.server.vault import Vault

#: How long a push whose server died may still move its refs.
MOVE_SECONDS = 600.0
#: How long an unreachable forge is asked again before the delivery fails.
RETRY_SECONDS = 3600.0
#: A push of more refs than this is a mirror or an import, not somebody's work.
MAX_EVENTS = 1000
_SKIP_OPTION = "ci.skip"
_log = logging.getLogger(__name__)


class _NotYet(Exception):
    """The row cannot be decided now; the text is the verdict meanwhile."""


class Inbox:
    def __init__(
        self, store: Store, bus: Bus, clock: Clock, trigger: Trigger, *, forges: Forges, vault: Vault
    ) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._trigger = trigger
        self._forges = forges
        self._builtin = forges.builtin
        self._vault = vault
        self._locks: dict[int, asyncio.Lock] = {}
        self._open_pushes: set[int] = set()  #: rows whose push runs in this server now
        self._busy: set[int] = set()  #: repos whose rows are being processed
        self._look_again: set[int] = set()  #: ... and that have got more meanwhile
        self._started_at = clock.now()

    # --- repos ------------------------------------------------------------------------------------

    async def create_repo(self, owner: str, name: str, *, is_private: bool = True) -> Repo:
        """A repo in the built-in git, with its bare repository."""
        now = self._clock.now()
        repo_id = await self._store.write(
            lambda connection: repos.create(
                connection, owner=owner, name=name, is_private=is_private, now=now
            )
        )
        await self._builtin.create(repo_id)
        return await self._repo(repo_id)

    async def git_folder(self, repo: Repo) -> Path:
        """The bare repository of a repo in the built-in git; made if a crash left it out."""
        return await self._builtin.create(repo.id or 0)

    async def add_plain_repo(self, owner: str, name: str, clone_url: str) -> tuple[Repo, str, str]:
        """A repo elsewhere: (repo, hook id, the hook's secret, to be shown once)."""
        git.check_clone_url(clone_url)
        hook_id, secret, now = repos.new_hook_id(), secrets.token_urlsafe(32), self._clock.now()
        sealed = self._vault.seal(secret.encode(), repos.secret_purpose(hook_id))

        def add(connection: Connection) -> int:
            repo_id = repos.create(connection, owner=owner, name=name, clone_url=clone_url, now=now)
            repos.add_hook(
                connection, hook_id=hook_id, repo_id=repo_id, forge=repos.PLAIN_GIT, sealed_secret=sealed
            )
            return repo_id

        return await self._repo(await self._store.write(add)), hook_id, secret

    async def _repo(self, repo_id: int) -> Repo:
        repo = await self._store.read(lambda connection: repos.by_id(connection, repo_id))
        if repo is None:
            raise NotFound(f"there is no repo with the id {repo_id}")
        return repo

    # --- receive ------------------------------------------------------------------------------------

    async def receive(self, hook_id: str, signature: str, body: bytes) -> int:
        """A webhook: verified over the raw bytes, then parsed, then stored; returns its row's id.

        Only after this returns may the answer be 2xx. Raises NotFound, Forbidden, Invalid; what was
        refused is noted at the hook.
        """
        hook = await self._store.read(lambda connection: repos.hook(connection, hook_id))
        if hook is None:
            raise NotFound("there is no such hook")
        secret = self._vault.open(hook.secret, repos.secret_purpose(hook_id))
        try:
            if not git.is_signed(body, signature, secret):
                raise Forbidden(
                    f"the signature in {git.SIGNATURE_HEADER} does not fit the body and the hook's secret"
                )
            push = parse_push(body)
        except ShipwayError as error:
            await self.refuse(hook_id, str(error))
            raise
        row_id = await self._store.write(lambda connection: self._row(connection, hook, push, body))
        self._bus.publish("inbox", "deliveries")
        return row_id

    def _row(self, connection: Connection, hook: Hook, push: Push, body: bytes) -> int:
        return inbox.receive(
            connection,
            hook_id=hook.id,
            repo_id=hook.repo_id,
            delivery=push.push_id,
            body=body,
            now=self._clock.now(),
        )

    async def refuse(self, hook_id: str, sentence: str) -> None:
        """Note why a delivery was refused; also for what the web layer refuses by its size."""
        now = self._clock.now()
        await self._store.write(lambda connection: repos.refuse(connection, hook_id, sentence, now))

    async def push_received(
        self,
        repo_id: int,
        push_id: str,
        updates: Sequence[tuple[str, str, str]],
        sender: str,
        options: Sequence[str] = (),
    ) -> int:
        """Before git moves any ref of (ref, old, new): make the intent durable. Then `push_done`, always."""
        if not 1 <= len(updates) <= MAX_REFS:
            raise Invalid(f"a push moves 1 to {MAX_REFS:,} refs at once, not {len(updates):,}")
        refs = tuple(Update(ref=_utf8(ref), before=old, after=new) for ref, old, new in updates)
        push = Push(push_id=push_id, refs=refs, pusher=sender, options=tuple(_utf8(text) for text in options))
        row_id = await self._store_own(repo_id, push)
        self._open_pushes.add(row_id)
        return row_id

    async def push_done(self, row_id: int) -> list[Result]:
        """git has ended, whatever it did: what moved becomes builds. One result a ref, in order."""
        try:
            row = await self._store.read(lambda connection: inbox.by_id(connection, row_id))
            assert row is not None and row.repo_id is not None
            repo = await self._repo(row.repo_id)
            await self._follow_head(repo, parse_push(row.body))
            results = await self.process(row_id, is_final=True)
        finally:
            self._open_pushes.discard(row_id)
        await self.compare_refs(repo)
        return results

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

    # --- process ------------------------------------------------------------------------------------

    async def process_waiting(self) -> int:
        """Process every row that waits, but for pushes that run now; returns how many were looked at.

        Repos do not wait for one another. May be called again meanwhile: a repo that is busy is looked at
        once more when it is not.
        """
        found: dict[int, list[int]] = {}
        for row in await self._store.read(inbox.waiting):
            if row.id is not None and row.id not in self._open_pushes:
                found.setdefault(row.repo_id or 0, []).append(row.id)
        await asyncio.gather(*(self._process_rows(repo_id, rows) for repo_id, rows in found.items()))
        return sum(len(rows) for rows in found.values())

    async def _process_rows(self, repo_id: int, rows: Sequence[int]) -> None:
        if repo_id in self._busy:
            self._look_again.add(repo_id)
            return
        self._busy.add(repo_id)
        try:
            for row_id in rows:
                await self.process(row_id)
        finally:
            self._busy.discard(repo_id)
        if repo_id in self._look_again:
            self._look_again.discard(repo_id)
            self._bus.publish("deliveries")

    async def process(self, row_id: int, *, is_final: bool = False) -> list[Result]:
        """Turn a row into its builds and its verdict. `is_final`: refs that did not move never will."""
        row = await self._store.read(lambda connection: inbox.by_id(connection, row_id))
        if row is None or row.repo_id is None:
            raise NotFound(f"there is no delivery with the id {row_id}")
        async with self._lock(row.repo_id):
            row = await self._store.read(lambda connection: inbox.by_id(connection, row_id))
            assert row is not None
            if row.state != inbox.RECEIVED:
                return []
            return await self._decide(row, is_final=is_final)

    async def _decide(self, row: Row, *, is_final: bool) -> list[Result]:
        """The edge of a delivery: whatever goes wrong with it is its verdict, and stops no other."""
        results: list[Result] = []
        state, verdict = inbox.PROCESSED, ""
        try:
            repo = await self._repo(row.repo_id or 0)
            push = parse_push(row.body)
            if len(push.refs) > MAX_EVENTS:
                results = [await self._too_many(repo, push)]
            for index, update in enumerate(push.refs if not results else ()):
                results.append(await self._event(row, repo, push, index, update, is_final))
            verdict = "\n".join(_sentence(result) for result in results)
        except (_NotYet, Unavailable) as error:
            is_late = self._tried_for(row) > RETRY_SECONDS
            state = inbox.FAILED if is_late else inbox.RECEIVED
            verdict = str(error) if is_late else f"not yet, it is tried again: {error}"
        except ShipwayError as error:
            state, verdict = inbox.FAILED, str(error)
        except Exception:
            _log.exception("inbox=%s: cannot process", row.id)
            state, verdict = inbox.FAILED, "an internal error; the server's log says more"
        await self._store.write(lambda connection: inbox.settle(connection, row.id or 0, state, verdict))
        self._bus.publish("inbox")
        return results

    async def _too_many(self, repo: Repo, push: Push) -> Result:
        """A mirror or an import: where its refs stand is noted, and nothing is built."""
        stand = {update.ref: None if update.is_deletion else update.after for update in push.refs}
        if repo.forge == repos.BUILTIN:
            now = await self._builtin.bare(repo.id or 0).refs()
            stand = {ref: now.get(ref) for ref in stand}

        def note(connection: Connection) -> None:
            for ref, sha in stand.items():
                repos.set_ref_sha(connection, repo.id or 0, ref, sha)

        await self._store.write(note)
        sentence = f"this push moved {len(push.refs):,} refs; of more than {MAX_EVENTS:,} none is built"
        return Result(ref=f"{len(push.refs):,} refs", sentence=sentence)

    async def _event(
        self, row: Row, repo: Repo, push: Push, index: int, update: Update, is_final: bool
    ) -> Result:
        row_id = row.id or 0
        made = await self._store.read(lambda connection: builds.of_event(connection, row_id, index))
        if made is not None:
            url = self._trigger.build_url(repo, made.number)
            sentence = f"built #{made.number}"
            return Result(ref=update.ref, sentence=sentence, build_id=made.id, number=made.number, url=url)
        last = await self._store.read(lambda connection: repos.ref_sha(connection, repo.id or 0, update.ref))
        if repo.forge == repos.BUILTIN:
            refusal = await self._unmoved(row, repo, push, update, is_final)
            refusal = refusal or _known_already(last, update)
        else:
            refusal = await self._duplicate(row, repo, update, last)
        if refusal:
            return Result(ref=update.ref, sentence=refusal)
        origin = await self._origin(row_id, index, repo, update, last)
        if not repo.is_enabled:
            return await self._trigger.no_build(repo, origin, "no build: the repo is disabled")
        if _SKIP_OPTION in push.options:
            return await self._trigger.no_build(repo, origin, "skipped, because the push said -o ci.skip")
        event = await self._forges.of(repo).event_of(repo, update, push)
        if isinstance(event, str):
            return await self._trigger.no_build(repo, origin, event)
        return await self._trigger.start_build(event, repo, origin)

    async def _origin(self, row_id: int, index: int, repo: Repo, update: Update, last: str | None) -> Origin:
        """The ref's last event is then this one, unless a later one was processed first."""
        ref_sha = None if update.is_deletion else update.after
        if repo.forge == repos.BUILTIN and last is not None:
            stands = await self._forges.of(repo).ref_stands_at(repo, update.ref, last)
            ref_sha = last if stands else ref_sha
        return Origin(inbox_id=row_id, index=index, ref=update.ref, ref_sha=ref_sha)

    async def _unmoved(self, row: Row, repo: Repo, push: Push, update: Update, is_final: bool) -> str:
        """Empty if the ref moved as announced. Raises _NotYet while it may still move."""
        bare = self._builtin.bare(repo.id or 0)
        if push.is_found or await bare.has_moved(update.ref, update.before, update.after):
            return ""
        if is_final or self._tried_for(row) > MOVE_SECONDS:
            return f"{update.noun} did not move: git refused the push, or it was broken off"
        raise _NotYet(f"{update.noun} has not moved; git may still be at work")

    def _tried_for(self, row: Row) -> float:
        """Seconds that this server has had the row: how long it was down is not the row's fault."""
        return self._clock.now() - max(row.received_at, self._started_at)

    async def _duplicate(self, row: Row, repo: Repo, update: Update, last: str | None) -> str:
        """Empty unless this very body was built before and tells nothing new (law 2)."""
        twin = await self._store.read(lambda connection: inbox.earlier_twin(connection, row))
        if twin is None:
            return ""
        same = f"the same delivery as {twin.delivery}, which was processed already"
        if last == update.after or update.is_deletion:
            return same
        stands = await self._forges.of(repo).ref_stands_at(repo, update.ref, update.after)
        return "" if stands else f"{same}, and {update.noun} is not at {update.after[:10]} any more"

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
        await self.git_folder(repo)
        async with self._lock(repo_id):
            rows = await self._store.read(lambda connection: inbox.waiting(connection, repo_id))
            named = {update.ref for row in rows for update in parse_push(row.body).refs}
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
            await self.process(await self._store_own(repo_id, push), is_final=True)

    def _lock(self, repo_id: int) -> asyncio.Lock:
        return self._locks.setdefault(repo_id, asyncio.Lock())


def _known_already(last: str | None, update: Update) -> str:
    if last == update.after:
        return f"{update.noun} at {update.after[:10]} was processed already"
    return ""


def _forget(connection: Connection, repo_id: int, refs: Sequence[str]) -> None:
    for ref in refs:
        repos.set_ref_sha(connection, repo_id, ref, None)


def _sentence(result: Result) -> str:
    return f"{result.ref}: {result.sentence}"


def _utf8(text: str) -> str:
    """Bytes that were no UTF-8 become U+FFFD, which is then named as the reason."""
    return text.encode(errors="surrogateescape").decode(errors="replace")
