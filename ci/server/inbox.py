"""The ways in: a delivery is durable first, and then becomes builds or a sentence why not (law 2).

Theory of operation. Each row holds one delivery: a push, which is one event a ref, or other news of the
forge, which is one event at most. `process` may run any number of times, after any crash: an event that has
its build keeps it (unique on row and index). Rows of a repo are processed one at a time, in the order in
which they came. A forge that cannot answer now leaves the row waiting, and the repo says what is wrong.
The secrets of hooks are kept in memory, and compared with the stored ones in the transaction that stores
the delivery: a rotated secret is never accepted, and nothing needs to be told to forget it.
For the built-in git the row stands before the refs move. A server killed in between finds the row again and
waits for a while, because git's own receive-pack may have outlived it; and since refs may move in ways that
nobody reports, they are compared with their last events at start and after each push.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from ci.errors import Conflict, Forbidden, Invalid, NotFound, RateLimited, ShipwayError, Unavailable
from ci.server.auth import Actor
from ci.server.bus import Bus
from ci.server.clock import Clock
from ci.server.forges.base import Delivery, Forge, NotReady, new_repo, parse_push
from ci.server.forges.directory import Forges
from ci.server.forges.hosted import Hosted
from ci.server.forges.news import (
    MAX_REFS,
    SCHEDULE,
    TAG,
    News,
    Nothing,
    PullRequestNews,
    Push,
    ReleaseNews,
    RepoNews,
    ScheduleNews,
    Update,
    parse_schedule,
)
from ci.server.models import Hook, PullRequest, Repo
from ci.server.models import Inbox as Row
from ci.server.starts import DISABLED, Starts
from ci.server.store import audit, builds, inbox, pull_requests, repos
from ci.server.store.database import Connection, Store
from ci.server.store.inbox import NewRow, Receipt
from ci.server.trigger import Origin, Result, Trigger
from ci.server.vault import Vault

#: How long a push whose server died may still move its refs.
MOVE_SECONDS = 600.0
#: A forge with an API that could not answer is asked again after this, then ever more seldom.
FIRST_PAUSE_SECONDS = 15.0
MAX_PAUSE_SECONDS = 300.0
#: The same for what the forge is about to make.
NOT_READY_SECONDS = 2.0
#: A push of more refs than this is a mirror or an import, not somebody's work.
MAX_EVENTS = 1000
#: Bodies above this are checked and parsed in a thread.
_LARGE_BYTES = 256 << 10
_SKIP_OPTION = "ci.skip"
T = TypeVar("T")
_log = logging.getLogger(__name__)


class _NotYet(Exception):
    """The row cannot be decided now; the text is the verdict meanwhile."""


class _Stale(Exception):
    """The hook's secrets are not those that the delivery was checked with any more."""


@dataclass(frozen=True, kw_only=True)
class _Door:
    """A hook as it was read: its secrets opened, the older last."""

    hook: Hook
    secrets: tuple[bytes, ...] = field(repr=False)
    forge: Forge
    repo_key: str


@dataclass(frozen=True, kw_only=True)
class _Pause:
    """A repo or a row whose forge could not answer is left alone until then (monotonic seconds)."""

    until: float
    tries: int


@dataclass(kw_only=True)
class _Run:
    """One row being decided."""

    row: Row
    repo: Repo
    news: News
    is_final: bool = False
    has_answered: bool = False  #: the forge was asked, and could answer

    @property
    def row_id(self) -> int:
        return self.row.id or 0

    @property
    def repo_id(self) -> int:
        return self.repo.id or 0


@dataclass(frozen=True, kw_only=True)
class _Part:
    """One event of a delivery. `after` is empty where the forge alone knows it."""

    index: int = 0
    ref: str
    noun: str
    after: str
    update: Update | None = None
    is_deletion: bool = False
    pull_request: PullRequest | None = None


class Inbox:
    def __init__(
        self, store: Store, bus: Bus, clock: Clock, trigger: Trigger, *, forges: Forges, vault: Vault
    ) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._trigger = trigger
        self._starts = Starts(store, trigger, forges)
        self._forges = forges
        self._builtin = forges.builtin
        self._vault = vault
        self._locks: dict[int, asyncio.Lock] = {}
        self._open_pushes: set[int] = set()  #: rows whose push runs in this server now
        self._replayed: set[int] = set()  #: rows that a person wants to be decided again, now
        self._doors: dict[str, _Door] = {}
        self._pauses: dict[int, _Pause] = {}  #: of repos whose forge could not answer
        self._row_pauses: dict[int, _Pause] = {}  #: of rows that wait for something of their own
        self._busy: set[int] = set()  #: repos whose rows are being processed
        self._look_again: set[int] = set()  #: ... and that have got more meanwhile
        self._started_at = clock.now()

    # --- repos ------------------------------------------------------------------------------------

    async def git_folder(self, repo: Repo) -> Path:
        """The bare repository of a repo in the built-in git; made if a crash left it out."""
        return await self._builtin.create(repo.id or 0)

    async def _repo(self, repo_id: int) -> Repo:
        repo = await self._store.read(lambda connection: repos.by_id(connection, repo_id))
        if repo is None:
            raise NotFound(f"there is no repo with the id {repo_id}")
        return repo

    # --- receive ------------------------------------------------------------------------------------

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
        now = self._clock.monotonic()
        for row_id, repo_id in await self._store.read(inbox.waiting_ids):
            pauses = (self._pauses.get(repo_id), self._row_pauses.get(row_id))
            rests = any(pause is not None and pause.until > now for pause in pauses)
            if row_id not in self._open_pushes and not rests:
                found.setdefault(repo_id, []).append(row_id)
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

    async def replay(self, row_id: int, repo: Repo, who: Actor) -> None:
        """A person wants a delivery that made no build to be looked at again (law 2).

        Raises NotFound, or Conflict for one that made builds or that nobody has decided yet.
        """
        async with self._lock(repo.id or 0):
            row = await self._store.write(lambda c: self._wait_again(c, row_id, repo, who))
            self._replayed.add(row_id)
            try:
                await self._decide(row, is_final=True)
            finally:
                self._replayed.discard(row_id)

    def _wait_again(self, connection: Connection, row_id: int, repo: Repo, who: Actor) -> Row:
        row = inbox.by_id(connection, row_id)
        if row is None or row.repo_id != repo.id:
            raise NotFound(f"there is no delivery with the id {row_id} in this repo")
        if not inbox.wait_again(connection, row_id):
            raise Conflict(_no_replay(connection, row))
        deed = audit.Deed(action="delivery.replay", object=row.delivery, repo_id=repo.id)
        audit.note(connection, who, deed, self._clock.now())
        return row

    async def _decide(self, row: Row, *, is_final: bool) -> list[Result]:
        """The edge of a delivery: whatever goes wrong with it is its verdict, and stops no other."""
        results: list[Result] = []
        state, verdict, problem = inbox.PROCESSED, "", ""
        repo = await self._repo(row.repo_id or 0)
        run = _Run(row=row, repo=repo, news=Nothing(""), is_final=is_final)
        try:
            run.news = self._news(run)
            results = await self._results(run)
            verdict = "\n".join(_sentence(result) for result in results)
        except (_NotYet, Unavailable, Forbidden, NotFound) as error:
            state, verdict, problem = await self._put_off(run, error)
        except ShipwayError as error:
            state, verdict = inbox.FAILED, str(error)
        except Exception:
            _log.exception("inbox=%s: cannot process", row.id)
            state, verdict = inbox.FAILED, "an internal error; the server's log says more"
        await self._settle(run, state, verdict, problem)
        return results

    def _news(self, run: _Run) -> News:
        row = run.row
        if row.hook_id is None and row.forge_event == SCHEDULE:
            return parse_schedule(row.body)
        return self._forges.of(run.repo).news(row.forge_event, row.delivery, row.body)

    async def _settle(self, run: _Run, state: str, verdict: str, problem: str) -> None:
        """The verdict, and how it stands with the repo's forge: a problem goes with the next answer."""
        is_cured = run.has_answered and not problem
        if is_cured:
            self._pauses.pop(run.repo_id, None)
        if state != inbox.RECEIVED:
            self._row_pauses.pop(run.row_id, None)

        def write(connection: Connection) -> None:
            inbox.settle(connection, run.row_id, state, verdict)
            if run.repo.forge != repos.BUILTIN and (problem or (is_cured and run.repo.forge_problem)):
                repos.set_forge_problem(connection, run.repo_id, problem, self._clock.now())

        await self._store.write(write)
        self._bus.publish("inbox", f"repo:{run.repo_id}")

    async def _put_off(self, run: _Run, error: Exception) -> tuple[str, str, str]:
        """It cannot be decided now: (state, verdict, what is wrong with the forge)."""
        forge = self._forges.of(run.repo)
        if isinstance(error, NotFound):
            trouble = await self._trouble_of(run)
        else:
            trouble = None if isinstance(error, _NotYet) else error
        is_own = trouble is None or isinstance(trouble, NotReady)
        limit = Forge.retry_seconds if is_own else forge.retry_seconds
        if self._tried_for(run.row) > limit:
            return inbox.FAILED, str(error), "" if is_own else str(trouble)
        if isinstance(forge, Hosted):
            self._rest(run, trouble, is_own=is_own)
        return inbox.RECEIVED, f"not yet, it is tried again: {error}", "" if is_own else str(trouble)

    async def _trouble_of(self, run: _Run) -> Exception | None:
        """Something is not there: is it the repo itself, for the token? None: it is that thing alone, such as
        a commit that a forced push has just taken away."""
        try:
            await self._forges.of(run.repo).facts(run.repo)
        except (Unavailable, Forbidden, NotFound) as error:
            return error
        run.has_answered = True
        return None

    def _rest(self, run: _Run, trouble: Exception | None, *, is_own: bool) -> None:
        """Who could not answer is asked again ever more seldom, and not before it says so: about this row
        if that is its own trouble, else about the whole repo."""
        pauses, key = (self._row_pauses, run.row_id) if is_own else (self._pauses, run.repo_id)
        tries = pauses[key].tries + 1 if key in pauses else 0
        first = NOT_READY_SECONDS if isinstance(trouble, NotReady) else FIRST_PAUSE_SECONDS
        seconds = min(MAX_PAUSE_SECONDS, first * 2.0 ** min(tries, 20))
        if isinstance(trouble, RateLimited):
            seconds = max(seconds, trouble.retry_seconds)
        pauses[key] = _Pause(until=self._clock.monotonic() + seconds, tries=tries)
        asyncio.get_running_loop().call_later(seconds, self._bus.publish, "deliveries")

    def ask_anew(self, repo_id: int) -> None:
        """The repo has another credential: its forge is asked again at once, however often it refused."""
        self._pauses.pop(repo_id, None)
        self._bus.publish("deliveries")

    async def _results(self, run: _Run) -> list[Result]:
        news = run.news
        if isinstance(news, Nothing):
            return [Result(ref="", sentence=news.sentence)]
        if isinstance(news, ScheduleNews):
            return [await self._starts.scheduled(run.row_id, run.repo, news)]
        if isinstance(news, RepoNews):
            return [await self._follow(run)]
        if isinstance(news, Push) and len(news.refs) > MAX_EVENTS:
            return [await self._too_many(run.repo, news)]
        return [await self._event(run, part) for part in _parts(run.repo_id, news)]

    async def _follow(self, run: _Run) -> Result:
        """The repo itself has changed: the forge says how it is now, whatever the delivery said, which may
        be late or come again."""
        facts = await self._forges.of(run.repo).facts(run.repo)
        run.has_answered = True
        if facts is None:
            return Result(ref="", sentence="ignored, because its forge does not say how the repo is now")
        new = new_repo(run.repo.forge, facts)
        said = await self._store.write(lambda connection: repos.follow(connection, run.repo_id, new))
        self._bus.publish("builds", f"repo:{run.repo_id}")
        sentence = f"followed: {said}" if said else "nothing new: the repo is here as it is at its forge"
        return Result(ref="", sentence=sentence)

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

    async def _event(self, run: _Run, part: _Part) -> Result:
        repo, forge = run.repo, self._forges.of(run.repo)
        made = await self._store.read(lambda connection: builds.of_event(connection, run.row_id, part.index))
        if made is not None:
            url = self._trigger.build_url(repo, made.number)
            sentence = f"built #{made.number}"
            return Result(ref=part.ref, sentence=sentence, build_id=made.id, number=made.number, url=url)
        if (seen := part.pull_request) is not None:  # also where the forge cannot answer: approvals need it
            await self._store.write(lambda connection: pull_requests.note(connection, seen))
        last = await self._store.read(lambda connection: repos.ref_sha(connection, run.repo_id, part.ref))
        refusal = await self._refusal(run, part, last)
        if refusal:
            return Result(ref=part.ref, sentence=refusal)
        origin = await self._origin(run, part, last)
        if not repo.is_enabled:
            return await self._trigger.no_build(repo, origin, DISABLED)
        if isinstance(run.news, Push) and _SKIP_OPTION in run.news.options:
            return await self._trigger.no_build(repo, origin, "skipped, because the push said -o ci.skip")
        event = await forge.event_of(repo, run.news, part.update)
        if isinstance(event, str):
            return await self._trigger.no_build(repo, origin, event)
        if origin.pull_request is not None and event.merge_sha:
            origin = replace(origin, pull_request=_merged(origin.pull_request, event.merge_sha))
        result = await self._trigger.start_build(event, repo, origin)
        run.has_answered = True
        return result

    async def _refusal(self, run: _Run, part: _Part, last: str | None) -> str:
        """Why the event is none: it did not happen, or has been here before. Empty: it is one."""
        if run.repo.forge != repos.BUILTIN:
            return await self._duplicate(run, part, last)
        assert isinstance(run.news, Push) and part.update is not None
        refusal = await self._unmoved(run, run.news, part.update)
        if run.row_id in self._replayed:
            return refusal
        return refusal or _known_already(last, part.update)

    async def _origin(self, run: _Run, part: _Part, last: str | None) -> Origin:
        """The ref's last event is then this one, unless a later one was processed first."""
        ref_sha = None if part.is_deletion else part.after or last
        if run.repo.forge == repos.BUILTIN and last is not None:
            stands = await self._forges.of(run.repo).ref_stands_at(run.repo, part.ref, last)
            ref_sha = last if stands else ref_sha
        return Origin(
            inbox_id=run.row_id,
            index=part.index,
            ref=part.ref,
            ref_sha=ref_sha,
            pull_request=part.pull_request,
        )

    async def _unmoved(self, run: _Run, push: Push, update: Update) -> str:
        """Empty if the ref moved as announced. Raises _NotYet while it may still move."""
        bare = self._builtin.bare(run.repo_id)
        if push.is_found or await bare.has_moved(update.ref, update.before, update.after):
            return ""
        if run.is_final or self._tried_for(run.row) > MOVE_SECONDS:
            return f"{update.noun} did not move: git refused the push, or it was broken off"
        raise _NotYet(f"{update.noun} has not moved; git may still be at work")

    def _tried_for(self, row: Row) -> float:
        """Seconds that this server has had the row: how long it was down is not the row's fault."""
        return self._clock.now() - max(row.received_at, self._started_at)

    async def _duplicate(self, run: _Run, part: _Part, last: str | None) -> str:
        """Empty unless this very body was built before and tells nothing new (law 2)."""
        twin = await self._store.read(lambda connection: inbox.earlier_twin(connection, run.row))
        if twin is None:
            return ""
        same = f"the same delivery as {twin.delivery}, which was processed already"
        if last == part.after or part.is_deletion or not part.after:
            return same
        stands = await self._forges.of(run.repo).ref_stands_at(run.repo, part.ref, part.after)
        return "" if stands else f"{same}, and {part.noun} is not at {part.after[:10]} any more"

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
            await self.process(await self._store_own(repo_id, push), is_final=True)

    def _lock(self, repo_id: int) -> asyncio.Lock:
        return self._locks.setdefault(repo_id, asyncio.Lock())


def _no_replay(connection: Connection, row: Row) -> str:
    made = builds.of_delivery(connection, row.id or 0)
    if made:
        numbers = ", ".join(f"#{build.number}" for build in made)
        return (
            f"this delivery made {numbers}; run that again with Rerun on its page, for no event builds twice"
        )
    if row.state == inbox.KEPT:
        return "this delivery made a build, which was removed when it was old; no event builds twice"
    return "this delivery is still waiting to be looked at"


def _known_already(last: str | None, update: Update) -> str:
    if last == update.after:
        return f"{update.noun} at {update.after[:10]} was processed already"
    return ""


def _forget(connection: Connection, repo_id: int, refs: Sequence[str]) -> None:
    for ref in refs:
        repos.set_ref_sha(connection, repo_id, ref, None)


def _sentence(result: Result) -> str:
    return f"{result.ref}: {result.sentence}" if result.ref else result.sentence


def _parts(repo_id: int, news: Push | PullRequestNews | ReleaseNews) -> list[_Part]:
    """The events of a delivery, in order."""
    if isinstance(news, Push):
        return [
            _Part(
                index=index,
                ref=update.ref,
                noun=update.noun,
                after=update.after,
                update=update,
                is_deletion=update.is_deletion,
            )
            for index, update in enumerate(news.refs)
        ]
    if isinstance(news, ReleaseNews):
        return [_Part(ref=TAG + news.tag, noun=f"release {news.tag}", after="")]
    seen = PullRequest(
        repo_id=repo_id,
        number=news.number,
        head_sha=news.head_sha,
        target_branch=news.target_branch,
        is_open=news.is_open,
        title=news.title,
        updated_at=news.updated_at,
    )
    noun = f"pull request {news.number}"
    return [_Part(ref=news.head_ref, noun=noun, after=news.head_sha, pull_request=seen)]


def _merged(seen: PullRequest, merge_sha: str) -> PullRequest:
    return PullRequest(**{**seen.model_dump(), "merge_sha": merge_sha})


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


def _utf8(text: str) -> str:
    """Bytes that were no UTF-8 become U+FFFD, which is then named as the reason."""
    return text.encode(errors="surrogateescape").decode(errors="replace")
