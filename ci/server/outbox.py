"""The sender of commit statuses. One per server; at least once, in order per (repo, sha, context).

Rows are written with the transitions (store/outbox.py), so that a server which dies between a transition and
its delivery sends after its start. Each repo has at most one round at a time, in which its rows go out one by
one; repos do not wait for one another, so a forge that does not answer holds up nobody else's statuses.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import Sequence
from functools import partial

from ci.errors import Forbidden, Invalid, NotFound, RateLimited, ShipwayError, Unavailable
from ci.server.bus import LOOK_AGAIN_SECONDS, Bus
from ci.server.clock import Clock
from ci.server.forges.base import StatusUpdate
from ci.server.forges.directory import Forges
from ci.server.models import Outbox as Row
from ci.server.models import Repo
from ci.server.store import outbox, repos
from ci.server.store.database import Connection, Store

FIRST_RETRY_SECONDS = 1.0
MAX_RETRY_SECONDS = 300.0
#: A token that is refused is asked for again this often: somebody has to give another.
REFUSED_RETRY_SECONDS = 900.0
GIVE_UP_SECONDS = 3 * 86400.0
#: So many in a row are no fault of a row: the rest of the repo waits as well.
MAX_FAILURES = 3
_log = logging.getLogger(__name__)


class Outbox:
    def __init__(self, store: Store, bus: Bus, clock: Clock, forges: Forges, url: str) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._forges = forges
        self._url = url
        self._busy: set[int] = set()  #: repos whose round has not ended

    async def run(self) -> None:
        """Until cancelled: send what is due, whenever builds moved or a retry's time has come."""
        with self._bus.subscribe("builds", "outbox") as subscription:
            async with asyncio.TaskGroup() as rounds:
                while True:
                    try:
                        for repo_id, rows in (await self._due()).items():
                            self._busy.add(repo_id)
                            rounds.create_task(self._round(repo_id, rows))
                        pause = await self._pause()
                    except Exception:  # the edge of the loop
                        _log.exception("statuses cannot be sent; it goes on")
                        pause = LOOK_AGAIN_SECONDS
                    await subscription.wait(pause)

    async def deliver_due(self) -> int:
        """One round of every repo that has something due; returns how many rows that were."""
        found = await self._due()
        await asyncio.gather(*(self._deliver_all(repo_id, rows) for repo_id, rows in found.items()))
        return sum(len(rows) for rows in found.values())

    async def _due(self) -> dict[int, list[Row]]:
        """By repo, without those whose round has not ended."""
        now, busy = self._clock.now(), tuple(self._busy)
        found: dict[int, list[Row]] = defaultdict(list)
        for row in await self._store.read(lambda connection: outbox.due(connection, now, busy)):
            found[row.repo_id].append(row)
        return found

    async def _pause(self) -> float:
        busy = tuple(self._busy)
        at = await self._store.read(lambda connection: outbox.next_due_at(connection, busy))
        if at is None:
            return LOOK_AGAIN_SECONDS
        return min(LOOK_AGAIN_SECONDS, max(0.0, at - self._clock.now()))

    async def _round(self, repo_id: int, rows: Sequence[Row]) -> None:
        try:
            await self._deliver_all(repo_id, rows)
        except Exception:  # the edge of a round
            _log.exception("statuses of a repo cannot be sent; it goes on")
            await asyncio.sleep(FIRST_RETRY_SECONDS)
        finally:
            self._busy.discard(repo_id)
            self._bus.publish("outbox")  # what came meanwhile

    async def _deliver_all(self, repo_id: int, rows: Sequence[Row]) -> None:
        repo = await self._store.read(lambda connection: repos.by_id(connection, repo_id))
        if repo is None:
            return
        failures = 0  #: in a row
        for row in rows:
            try:
                await self._deliver(repo, row)
                failures = 0
            except RateLimited as error:
                await self._put_off(repo_id, error.retry_seconds)
                await self._note_problem(repo_id, str(error))
                return
            except ShipwayError as error:
                await self._failed(repo, row, error)
                failures += not isinstance(error, Invalid)
                if failures == MAX_FAILURES:
                    await self._put_off(repo_id, self._retry_seconds(row, error))
                    return

    async def _put_off(self, repo_id: int, seconds: float) -> None:
        until = self._clock.now() + seconds
        await self._store.write(partial(outbox.put_off, repo_id=repo_id, until=until))

    async def _deliver(self, repo: Repo, row: Row) -> None:
        row_id = row.id or 0
        if not await self._store.read(lambda connection: outbox.is_current(connection, row_id)):
            return
        status = StatusUpdate(
            sha=row.sha,
            state=row.state,
            context=row.context,
            description=row.description,
            target_url=self._url + row.target_url,
        )
        await self._forges.of(repo).set_status(repo, status)
        now, repo_id = self._clock.now(), repo.id or 0

        def note(connection: Connection) -> bool:
            outbox.delivered(connection, row_id, now)
            return repos.clear_forge_problem(connection, repo_id)

        if await self._store.write(note):
            self._bus.publish("inbox", f"repo:{repo_id}")

    async def _failed(self, repo: Repo, row: Row, error: ShipwayError) -> None:
        now = self._clock.now()
        next_try_at: float | None = now + self._retry_seconds(row, error)
        if isinstance(error, Invalid) or now - row.created_at > GIVE_UP_SECONDS:
            next_try_at = None
            _log.warning("repo=%s/%s: a commit status is given up: %s", repo.owner, repo.name, error)
        row_id, sentence = row.id or 0, str(error)
        await self._store.write(lambda connection: outbox.failed(connection, row_id, sentence, next_try_at))
        if isinstance(error, Forbidden | NotFound | Unavailable):
            await self._note_problem(repo.id or 0, sentence)

    async def _note_problem(self, repo_id: int, sentence: str) -> None:
        """For the repo's page, until something is delivered again."""
        now = self._clock.now()
        await self._store.write(
            lambda connection: repos.set_forge_problem(connection, repo_id, sentence, now)
        )
        self._bus.publish("inbox", f"repo:{repo_id}")

    def _retry_seconds(self, row: Row, error: ShipwayError) -> float:
        if isinstance(error, Forbidden | NotFound):
            return REFUSED_RETRY_SECONDS
        seconds = min(MAX_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(row.tries, 20))
        return seconds * random.uniform(0.75, 1.0)
