"""What is kept for how long: builds and logs by the settings of their repo, and no file without its row.

Runs at the start and once an hour. A build that has not ended, that a person must decide on, or that is the
newest of its branch is never removed. Rows go first, then files: what a kill leaves behind in between has no
row any more, and goes in the next round.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from ci.server.bus import Bus
from ci.server.clock import Clock
from ci.server.logs import Logs
from ci.server.models import Repo
from ci.server.store import removal
from ci.server.store.database import Store

ROUND_SECONDS = 3600.0
DAY_SECONDS = 86400.0
#: Rows that one transaction removes, or one query asks for: others write in between.
BATCH = 200
_GIT_FOLDER = re.compile(r"([0-9]{1,18})\.git\Z")


class Retention:
    def __init__(
        self, store: Store, bus: Bus, clock: Clock, logs: Logs, git_folders: Sequence[Path] = ()
    ) -> None:
        """`git_folders` hold repositories and caches named `{repo id}.git`."""
        self._store = store
        self._bus = bus
        self._clock = clock
        self._logs = logs
        self._git_folders = tuple(git_folders)

    async def round(self) -> None:
        for repo in await self._store.read(removal.with_a_limit):
            await self.remove_old_builds(repo)
        await self.remove_old_logs()
        await self.remove_orphans()

    async def remove_old_builds(self, repo: Repo) -> int:
        """Returns how many went."""
        repo_id, count = repo.id or 0, 0
        before = self._clock.now() - repo.keep_builds_days * DAY_SECONDS
        find = partial(removal.old_builds, repo_id=repo_id, before=before, limit=BATCH)
        while found := await self._store.read(find):
            job_ids = await self._store.write(partial(removal.remove_builds, build_ids=found))
            for job_id in job_ids:
                await self._logs.delete(job_id)
            count += len(found)
        if count:
            self._bus.publish("builds", f"repo:{repo_id}")
        return count

    async def remove_old_logs(self) -> int:
        """Of jobs that ended longer ago than their repo keeps logs, and of jobs that are no more."""
        now, count = self._clock.now(), 0
        # Listed first: a job is stored before it has a log, so that one without a row has lost it.
        for job_ids in _in_batches(await asyncio.to_thread(self._logs.jobs)):
            owners = await self._store.read(partial(removal.log_owners, job_ids=job_ids))
            for job_id in job_ids:
                ended_at, days = owners.get(job_id, (0.0, 1))
                if days and ended_at is not None and ended_at < now - days * DAY_SECONDS:
                    await self._logs.delete(job_id)
                    count += 1
        return count

    async def remove_orphans(self) -> None:
        """Repositories and caches of repos that are no more."""
        for folder in self._git_folders:
            found = await asyncio.to_thread(_git_folders, folder)
            for repo_ids in _in_batches(list(found)):
                present = await self._store.read(partial(removal.present_repos, repo_ids=repo_ids))
                for repo_id in set(repo_ids) - present:
                    await remove_folder(found[repo_id])


async def remove_folder(path: Path) -> None:
    """All of it; one that is not there is no error."""
    await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)


def _git_folders(folder: Path) -> dict[int, Path]:
    if not folder.is_dir():
        return {}
    matches = ((_GIT_FOLDER.match(path.name), path) for path in folder.iterdir())
    return {int(match[1]): path for match, path in matches if match}


def _in_batches(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(ids), BATCH):
        yield ids[start : start + BATCH]
