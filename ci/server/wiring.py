"""The server without HTTP: everything with state, put together in one place, and its loops."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import httpx

from ci.errors import Unavailable
from ci.server.approvals import Approvals
from ci.server.bus import LOOK_AGAIN_SECONDS, Bus
from ci.server.clock import Clock
from ci.server.config import Settings
from ci.server.credentials import Credentials, Kind
from ci.server.forges.address import Addresses, CheckedTransport
from ci.server.forges.builtin import Builtin
from ci.server.forges.directory import Forges
from ci.server.forges.git import PlainGit
from ci.server.forges.github import GitHub
from ci.server.forges.github_api import GitHubApi, RateLimits
from ci.server.hooks import Hooks
from ci.server.inbox import Inbox
from ci.server.lifecycle import Lifecycle
from ci.server.logs import Logs
from ci.server.models import Repo
from ci.server.outbox import Outbox
from ci.server.pushes import Pushes
from ci.server.queue import TICK_SECONDS, Queue
from ci.server.repos import Places, Repos
from ci.server.retention import ROUND_SECONDS, Retention
from ci.server.schedules import TICK_SECONDS as SCHEDULE_SECONDS
from ci.server.schedules import Schedules
from ci.server.secrets import Secrets
from ci.server.starts import Starts
from ci.server.store import codes, meta, runners, users
from ci.server.store.database import Store
from ci.server.trigger import Trigger
from ci.server.variables import Variables
from ci.server.vault import Vault

_log = logging.getLogger(__name__)


class Server:
    """Attributes are the parts; `start` opens them and runs the loops, `stop` ends both."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        folder = settings.data_dir
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.settings = settings
        self.clock = clock or Clock()
        self.bus = Bus()
        self.vault = Vault.load(folder / "vault.key")
        self.store = Store(folder / "shipway.db")
        self.credentials = Credentials(self.store, self.vault, self.clock)
        self.logs = Logs(folder / "logs", clock=self.clock)
        addresses = Addresses(settings.allowed_private_hosts)
        self._client = httpx.AsyncClient(transport=CheckedTransport(addresses))
        limits = RateLimits(self.clock)
        github = GitHub(client=self._client, limits=limits, token_of=self._token_of)
        self.forges = Forges(
            builtin=Builtin(folder / "git", settings.url),
            plain=PlainGit(folder / "cache" / "git", addresses=addresses, login_of=self.credentials.login),
            others=(github,),
        )
        self.secrets = Secrets(self.store, self.vault, self.clock)
        self.variables = Variables(self.store, self.clock)
        self.queue = Queue(self.store, self.bus, self.clock, self.vault, self.secrets, self.credentials)
        limit = float(settings.disconnect_limit_seconds)
        self.lifecycle = Lifecycle(self.store, self.bus, self.clock, disconnect_limit_seconds=limit)
        self.trigger = Trigger(self.store, self.bus, self.clock, self.forges, self.secrets, url=settings.url)
        self.trigger.privileged_plugins = settings.images_of_privileged_plugins
        self.approvals = Approvals(self.store, self.bus, self.clock, self.forges)
        self.hooks = Hooks(self.store, self.bus, self.clock, forges=self.forges, vault=self.vault)
        self.inbox = Inbox(self.store, self.bus, self.clock, self.trigger, self.forges)
        self.pushes = Pushes(self.store, self.clock, self.inbox, self.forges.builtin)
        self.starts = Starts(self.store, self.trigger, self.forges)
        git_folders = (folder / "git", folder / "cache" / "git")
        self.repos = Repos(
            self.store,
            self.bus,
            self.clock,
            self.vault,
            logs=self.logs,
            places=Places(
                builtin=self.forges.builtin,
                folders=git_folders,
                addresses=addresses,
                ask_github=lambda url, token: GitHubApi(
                    api_url=url, token=token, client=self._client, limits=limits
                ),
            ),
        )
        self.retention = Retention(self.store, self.bus, self.clock, self.logs, git_folders)
        self.schedules = Schedules(self.store, self.bus, self.clock)
        self.outbox = Outbox(self.store, self.bus, self.clock, self.forges, settings.url)
        self.server_id = ""
        self._tasks: list[asyncio.Task[None]] = []
        self._lock: int | None = None

    async def start(self) -> None:
        """Raises Unavailable where another server runs on the data folder."""
        self._lock = _lock(self.settings.data_dir)
        await self.store.open()
        await self.logs.start()
        now = self.clock.now()
        self.server_id = await self.store.write(lambda connection: meta.server_id(connection, now))
        await self.store.write(runners.all_disconnected)
        self._tasks = [
            asyncio.create_task(self._every(TICK_SECONDS, self.queue.age_leases), name="lease ageing"),
            asyncio.create_task(self._inbox_loop(), name="inbox"),
            asyncio.create_task(self.outbox.run(), name="outbox"),
            asyncio.create_task(self._every(ROUND_SECONDS, self.retention.round), name="retention"),
            asyncio.create_task(self._every(SCHEDULE_SECONDS, self.schedules.tick), name="schedules"),
        ]

    async def stop(self) -> None:
        """Ends the loops and closes what `start` opened. Safe to call again."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()
        await self.logs.close()
        await self.store.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _token_of(self, repo: Repo) -> str:
        """What the API of the repo's forge is asked with; empty: as anybody."""
        found = self.credentials.of(repo)
        return found.value if found is not None and found.kind is Kind.TOKEN else ""

    async def setup_code(self) -> str | None:
        """A fresh code for the first account; None where there is one already."""
        if await self.store.read(users.has_users):
            return None
        return await self._new_code(codes.SETUP)

    async def runner_code(self) -> str:
        """A code with which one runner can register within an hour."""
        return await self._new_code(codes.RUNNER)

    async def _new_code(self, kind: str) -> str:
        now = self.clock.now()
        return await self.store.write(lambda connection: codes.new_code(connection, kind, now))

    # --- loops ------------------------------------------------------------------------------------

    async def _every(self, seconds: float, work: Callable[[], Awaitable[object]]) -> None:
        while True:
            await _survive(work)
            await asyncio.sleep(seconds)

    async def _inbox_loop(self) -> None:
        """What waits first, then what moved unreported; then again on every ring, and every 15 s."""
        with self.bus.subscribe("deliveries") as subscription:
            await _survive(self.inbox.process_waiting)
            await _survive(self.pushes.compare_all)
            async with asyncio.TaskGroup() as rounds:
                while True:
                    await subscription.wait(LOOK_AGAIN_SECONDS)
                    await _survive(partial(self._process_inbox, rounds))

    async def _process_inbox(self, rounds: asyncio.TaskGroup) -> None:
        """Not awaited: a forge that does not answer holds up nobody else's push."""
        for repo_id in await self.inbox.waiting_repos():
            rounds.create_task(_survive(partial(self.inbox.process_repo, repo_id)))


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """For work on the data folder that no server may do beside. Raises Unavailable where one runs."""
    lock = _lock(folder)
    try:
        yield
    finally:
        os.close(lock)


def _lock(folder: Path) -> int:
    """Held as long as the process lives: two servers would age the same leases and write the same logs."""
    lock = os.open(folder / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise Unavailable(
            f"another server runs on the data folder {folder.absolute()}; end it, or name another with --data"
        ) from error
    return lock


async def _survive(work: Callable[[], Awaitable[object]]) -> None:
    """The edge of a loop: what goes wrong once is logged, and tried again in the next round."""
    try:
        await work()
    except Exception:
        _log.exception("a loop of the server failed; it goes on")
