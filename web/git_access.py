"""Who may fetch from and push to the built-in git: credentials in, the bare repository out."""

from __future__ import annotations

from functools import partial

from ci.errors import NotFound, Unauthenticated
from ci.server import auth
from ci.server.auth import ANONYMOUS, Action, Actor, NewPlace
from ci.server.models import Repo
from ci.server.queue import CLONE_USER
from ci.server.store import repos
from ci.server.wiring import Server
from web.git_http import Access
from web.identity import Identity
from web.push import OpenPushes, Push


class GitAccess:
    """The `Authorise` of web/git_http. A person comes with a token; a job comes with its lease's own, which
    reads one repo. A repo that does not exist yet is made by the first push of someone who may."""

    def __init__(self, server: Server, pushes: OpenPushes, identity: Identity) -> None:
        self._store = server.store
        self._builtin = server.forges.builtin
        self._repos = server.repos
        self._queue = server.queue
        self._identity = identity
        self._pushes = pushes

    async def __call__(self, user: str, password: str, owner: str, name: str, writes: bool) -> Access:
        repo = await self._store.read(lambda connection: repos.find(connection, owner, name))
        if user == CLONE_USER and not writes:
            return await self._job(repo, password)
        actor = await self._actor(password)
        if repo is None and writes and actor.is_known:
            repo = (await self._repos.add_builtin(owner, name, actor)).repo
        auth.require(actor, Action.PUSH if writes else Action.READ, repo or NewPlace(owner=owner))
        if repo is None:
            raise NotFound(f"there is no repo {owner}/{name}; the first push makes it")
        return await self._access(repo, actor, writes)

    async def _actor(self, password: str) -> Actor:
        return await self._identity.of_token(password, "") if password else ANONYMOUS

    async def _job(self, repo: Repo | None, token: str) -> Access:
        if repo is None or not await self._queue.check_clone_token(repo.id or 0, token):
            raise Unauthenticated("this job's credential has ended with its lease")
        return await self._access(repo, ANONYMOUS, writes=False)

    async def _access(self, repo: Repo, actor: Actor, writes: bool) -> Access:
        if repo.forge != repos.BUILTIN:
            raise NotFound(f"{repo.owner}/{repo.name} lives at {repo.clone_url}; please push there")
        folder = await self._builtin.create(repo.id or 0)
        if not writes:
            return Access(folder=folder, environment={})
        environment, token = self._pushes.begin(Push(repo_id=repo.id or 0, sender=actor.name))
        return Access(folder=folder, environment=environment, done=partial(self._pushes.end, token))
