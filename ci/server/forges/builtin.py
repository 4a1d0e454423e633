"""The built-in git: bare repositories under `data_dir/git`, named by the repo's id: a rename is free."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from pathlib import Path

from ci.server.forges.bare import Bare
from ci.server.forges.base import Cloned
from ci.server.forges.news import Update
from ci.server.models import Repo

_CONFIG = (
    ("http.receivepack", "true"),
    ("receive.advertisePushOptions", "true"),
    # Where a ref has been: how a push that nobody could report is recognised later.
    ("core.logAllRefUpdates", "always"),
    # Our refs: not seen, fetched or pushed by anybody, while a runner may fetch any commit by its id.
    ("transfer.hideRefs", "refs/shipway"),
    ("uploadpack.allowAnySHA1InWant", "true"),
    ("gc.autoDetach", "false"),
    ("gc.pruneExpire", "never"),
)


class Builtin(Cloned):
    name = "builtin"

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self._url = url

    def path(self, repo_id: int) -> Path:
        return self._folder / f"{repo_id}.git"

    def bare(self, repo_id: int) -> Bare:
        return Bare(self.path(repo_id))

    def clone_url(self, repo: Repo) -> str:
        return f"{self._url}/git/{repo.owner}/{repo.name}.git"

    async def create(self, repo_id: int) -> Path:
        """Make the repository, whole or not at all; one that is there stays as it is."""
        path = self.path(repo_id)
        if path.exists():
            return path
        beside = self._folder / f".{repo_id}.{secrets.token_hex(4)}"
        await asyncio.to_thread(beside.mkdir, parents=True)
        new = Bare(beside)
        await new.git("init", "--quiet", "--bare", "--template=", ".")
        for key, value in _CONFIG:
            await new.git("config", key, value)
        try:
            os.rename(beside, path)
        except OSError:  # somebody made it meanwhile
            if not path.exists():
                raise
            await asyncio.to_thread(shutil.rmtree, beside)
        return path

    async def objects(self, repo: Repo, update: Update) -> Bare:
        return self.bare(repo.id or 0)

    async def tip(self, repo: Repo, ref: str) -> str | None:
        return await self.bare(repo.id or 0).ref(ref)

    async def keep(self, repo: Repo, number: int, sha: str) -> None:
        await self.bare(repo.id or 0).keep(number, sha)
