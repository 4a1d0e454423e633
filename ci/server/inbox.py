"""The inbox: a delivery that is durable becomes builds, or a sentence why not (law 2).

Theory of operation. Each row holds one delivery: a push, which is one event a ref, or other news of the
forge, which is one event at most. `process` may run any number of times, after any crash: an event that has
its build keeps it (unique on row and index). Rows of a repo are processed one at a time, in the order in
which they came. A forge that cannot answer now leaves the row waiting, and the repo says what is wrong.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from functools import partial

from ci.errors import Conflict, Forbidden, NotFound, ShipwayError, Unavailable
from ci.server.auth import Actor
from ci.server.bus import Bus
from ci.server.clock import Clock
from ci.server.forges.base import Forge, NotReady, new_repo
from ci.server.forges.directory import Forges
from ci.server.forges.hosted import Hosted
from ci.server.forges.news import (
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
from ci.server.models import Inbox as Row
from ci.server.models import PullRequest, Repo
from ci.server.pauses import Pauses
from ci.server.starts import DISABLED, Starts
from ci.server.store import audit, builds, inbox, pull_requests, repos
from ci.server.store.database import Connection, Store
from ci.server.trigger import Origin, Result, Trigger

#: How long a push whose server died may still move its refs.
MOVE_SECONDS = 600.0
#: A push of more refs than this is a mirror or an import, not somebody's work.
MAX_EVENTS = 1000
#: Rows that one query asks for.
_BATCH = 100
_SKIP_OPTION = "ci.skip"
_log = logging.getLogger(__name__)


class _NotYet(Exception):
    """The row cannot be decided now; the text is the verdict meanwhile."""


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
    def __init__(self, store: Store, bus: Bus, clock: Clock, trigger: Trigger, forges: Forges) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._trigger = trigger
        self._starts = Starts(store, trigger, forges)
        self._forges = forges
        self._builtin = forges.builtin
        self._locks: dict[int, asyncio.Lock] = {}
        self._held: set[int] = set()  #: rows that somebody else processes when it is time
        self._replayed: set[int] = set()  #: rows that a person wants to be decided again, now
        self._pauses = Pauses(clock)
        self._busy: set[int] = set()  #: repos whose rows are being processed
        self._look_again: set[int] = set()  #: ... and that have got more meanwhile
        self._started_at = clock.now()

    def lock(self, repo_id: int) -> asyncio.Lock:
        """Held while rows of the repo are processed: one at a time."""
        return self._locks.setdefault(repo_id, asyncio.Lock())

    def hold(self, row_id: int) -> None:
        """`process_waiting` leaves the row alone until `release`: its push runs in this server now."""
        self._held.add(row_id)

    def release(self, row_id: int) -> None:
        self._held.discard(row_id)

    async def _repo(self, repo_id: int) -> Repo:
        repo = await self._store.read(lambda connection: repos.by_id(connection, repo_id))
        if repo is None:
            raise NotFound(f"there is no repo with the id {repo_id}")
        return repo

    # --- process ------------------------------------------------------------------------------------

    async def process_waiting(self) -> int:
        """Process every row that waits, but for pushes that run now; returns how many were.

        Repos do not wait for one another.
        """
        counts = await asyncio.gather(*map(self.process_repo, await self.waiting_repos()))
        return sum(counts)

    async def waiting_repos(self) -> list[int]:
        """Repos for `process_repo`. One whose rows are being processed now gets no second round, but the
        bus rings once more when it has ended."""
        found = await self._store.read(inbox.waiting_repos)
        self._look_again.update(self._busy.intersection(found))
        return [repo_id for repo_id in found if repo_id not in self._busy and not self._pauses.rests(repo_id)]

    async def process_repo(self, repo_id: int) -> int:
        """Process what waits in one repo, in order, until its forge cannot answer; returns how many were."""
        if repo_id in self._busy:
            self._look_again.add(repo_id)
            return 0
        self._busy.add(repo_id)
        count = 0
        try:
            async for row_id in self._waiting_rows(repo_id):
                await self.process(row_id)
                count += 1
        finally:
            self._busy.discard(repo_id)
            if repo_id in self._look_again:
                self._look_again.discard(repo_id)
                self._bus.publish("deliveries")
        return count

    async def _waiting_rows(self, repo_id: int) -> AsyncIterator[int]:
        last = 0
        find = partial(inbox.waiting_ids, repo_id=repo_id, limit=_BATCH)
        while found := await self._store.read(partial(find, after=last)):
            for last in found:
                if self._pauses.rests(repo_id):
                    return
                if last not in self._held and not self._pauses.row_rests(last):
                    yield last

    async def process(self, row_id: int, *, is_final: bool = False) -> list[Result]:
        """Turn a row into its builds and its verdict. `is_final`: refs that did not move never will."""
        row = await self._store.read(lambda connection: inbox.by_id(connection, row_id))
        if row is None or row.repo_id is None:
            raise NotFound(f"there is no delivery with the id {row_id}")
        async with self.lock(row.repo_id):
            row = await self._store.read(lambda connection: inbox.by_id(connection, row_id))
            assert row is not None
            if row.state != inbox.RECEIVED:
                return []
            return await self._decide(row, is_final=is_final)

    async def replay(self, row_id: int, repo: Repo, who: Actor) -> None:
        """A person wants a delivery that made no build to be looked at again (law 2).

        Raises NotFound, or Conflict for one that made builds or that nobody has decided yet.
        """
        async with self.lock(repo.id or 0):
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
            self._pauses.end_repo(run.repo_id)
        if state != inbox.RECEIVED:
            self._pauses.end_row(run.row_id)

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
            pause, key = (self._pauses.of_row, run.row_id) if is_own else (self._pauses.of_repo, run.repo_id)
            seconds = pause(key, trouble)
            asyncio.get_running_loop().call_later(seconds, self._bus.publish, "deliveries")
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

    def ask_anew(self, repo_id: int) -> None:
        """The repo has another credential: its forge is asked again at once, however often it refused."""
        self._pauses.end_repo(repo_id)
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
