"""A repo of the built-in git with the inbox, schedules and starts over it, and a working copy that pushes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from ci.server.forges.builtin import Builtin
from ci.server.forges.directory import Forges
from ci.server.forges.git import PlainGit
from ci.server.hooks import Hooks
from ci.server.inbox import Inbox
from ci.server.models import Audit, Build, Repo
from ci.server.models import Inbox as Row
from ci.server.pushes import Pushes
from ci.server.schedules import Schedules
from ci.server.starts import Starts
from ci.server.store import repos
from ci.server.store.tables import AUDIT, BUILD, INBOX, many
from ci.server.trigger import Result, Trigger
from ci.server.vault import Vault
from tests.unit.gitting import CONFIG, ZERO, Work, add_repo
from tests.unit.world import Core, core

URL = "http://ci.test"


@dataclass
class Yard:
    core: Core
    forges: Forges
    hooks: Hooks
    inbox: Inbox
    pushes: Pushes
    starts: Starts
    schedules: Schedules
    repo: Repo
    work: Work

    async def push(self, branch: str = "main") -> list[Result]:
        """As the HTTP layer does: the intent first, then git, then what became of it."""
        ref = f"refs/heads/{branch}"
        bare = self.forges.builtin.bare(self.repo.id or 0)
        old = (await bare.refs()).get(ref, ZERO)
        update = (ref, old, self.work.sha())
        push_id = f"push-{self.core.clock.seconds}-{len(await self.rows())}"
        row = await self.pushes.received(self.repo.id or 0, push_id, [update], "ada")
        self.work.git("push", "-q", "-f", "origin", f"HEAD:{ref}")
        results = await self.pushes.done(row)
        await self.reload()
        return results

    async def reload(self) -> Repo:
        found = await self.core.store.read(lambda c: repos.by_id(c, self.repo.id or 0))
        assert found is not None
        self.repo = found
        return found

    async def rows(self) -> list[Row]:
        return await self.core.store.read(lambda c: many(c, Row, select(INBOX).order_by(INBOX.c.id)))

    async def builds(self) -> list[Build]:
        return await self.core.store.read(lambda c: many(c, Build, select(BUILD).order_by(BUILD.c.id)))

    async def deeds(self) -> list[tuple[str, str, str]]:
        rows = await self.core.store.read(lambda c: many(c, Audit, select(AUDIT).order_by(AUDIT.c.id)))
        return [(row.user_name, row.action, row.object) for row in rows]


@asynccontextmanager
async def yard(folder: Path) -> AsyncIterator[Yard]:
    async with core(folder) as world:
        plain = PlainGit(folder / "cache", protocols=("file",))
        forges = Forges(builtin=Builtin(folder / "git", URL), plain=plain)
        trigger = Trigger(world.store, world.bus, world.clock, forges, world.secrets, url=URL)
        hooks = Hooks(world.store, world.bus, world.clock, forges=forges, vault=Vault(bytes(32)))
        inbox = Inbox(world.store, world.bus, world.clock, trigger, forges)
        pushes = Pushes(world.store, world.clock, inbox, forges.builtin)
        starts = Starts(world.store, trigger, forges)
        schedules = Schedules(world.store, world.bus, world.clock)
        repo = await add_repo(world.store, forges.builtin, "ada", "site")
        work = Work(folder / "work", await forges.builtin.create(repo.id or 0))
        work.commit_files({".ci.yml": CONFIG}, "first")
        yield Yard(world, forges, hooks, inbox, pushes, starts, schedules, repo, work)
