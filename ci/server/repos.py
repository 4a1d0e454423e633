"""Repos, as people add, change and delete them. Each deed and its audit row are one transaction."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ci.errors import Conflict, Forbidden, Invalid, NotFound, Unavailable
from ci.server import auth, credentials
from ci.server.auth import Action, Actor, NewPlace, can
from ci.server.bus import Bus, job_topics
from ci.server.clock import Clock
from ci.server.credentials import Credential, Kind
from ci.server.forges import git
from ci.server.forges.address import Addresses, Refused
from ci.server.forges.base import RepoFacts, new_repo
from ci.server.forges.builtin import Builtin
from ci.server.forges.github_api import API_URL, GitHubApi
from ci.server.logs import Logs
from ci.server.models import Build, Hook, Job, Repo
from ci.server.retention import remove_folder
from ci.server.store import attempts, audit, removal, repo_settings, repos
from ci.server.store.database import Connection, Store
from ci.server.store.repos import NewRepo
from ci.server.vault import Vault
from ci.status import Status

#: How long the secret before a new one still signs.
OLD_SECRET_SECONDS = 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class Added:
    """A repo that is new here. The hook's secret is to be shown once; the built-in git has no hook."""

    repo: Repo
    hook_id: str = ""
    secret: str = field(default="", repr=False)


@dataclass(frozen=True, kw_only=True)
class Rotated:
    hook_id: str
    secret: str = field(repr=False)


#: The client of a GitHub's API: by its address and a token.
AskGitHub = Callable[[str, str], GitHubApi]


class Repos:
    def __init__(
        self, store: Store, bus: Bus, clock: Clock, vault: Vault, *, logs: Logs, places: Places
    ) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._vault = vault
        self._logs = logs
        self._places = places

    # --- add ------------------------------------------------------------------------------------------

    async def add_builtin(self, owner: str, name: str, actor: Actor, *, is_private: bool = True) -> Added:
        """A repo in the built-in git. Raises Forbidden, Invalid, Conflict."""
        _require_namespace(actor, owner)
        new = NewRepo(
            forge=repos.BUILTIN,
            key=secrets.token_hex(8),
            owner=owner,
            name=name,
            clone_url="",
            is_private=is_private,
        )
        added = await self._add(new, None, actor)
        await self._places.builtin.create(added.repo.id or 0)
        return added

    async def add_plain(
        self, path: tuple[str, str], clone_url: str, credential: Credential | None, actor: Actor
    ) -> Added:
        """A repository elsewhere, at (owner, name) here."""
        _require_namespace(actor, path[0])
        git.check_clone_url(clone_url)
        with contextlib.suppress(Unavailable):  # a name that is not found now may be later
            await self._places.addresses.of_url(clone_url)
        new = NewRepo(forge=repos.PLAIN_GIT, key=clone_url, owner=path[0], name=path[1], clone_url=clone_url)
        return await self._add(new, credential, actor)

    async def add_github(
        self, path: tuple[str, str], token: str, actor: Actor, *, api_url: str = ""
    ) -> Added:
        """A repo of GitHub, under the path that it has there. Id, visibility and branch come from there.

        Raises Invalid for a token that does not read it, Unavailable where GitHub does not answer.
        """
        address = _api_url(api_url)
        credential = Credential(kind=Kind.TOKEN, value=token.strip())
        credentials.check(credential)
        facts = await _read_facts(self._places.ask_github(address, credential.value), path)
        _require_namespace(actor, facts.owner)
        new = new_repo(repos.GITHUB, facts, api_url="" if address == API_URL else address)
        return await self._add(new, credential, actor)

    async def _add(self, new: NewRepo, credential: Credential | None, actor: Actor) -> Added:
        if credential is not None:
            credentials.check_for(credential, new.clone_url)
        now = self._clock.now()
        has_hook = new.forge != repos.BUILTIN
        hook_id, secret = (repos.new_hook_id(), secrets.token_urlsafe(32)) if has_hook else ("", "")

        def add(connection: Connection) -> Repo:
            repo_id = repos.create_at(connection, new, now)
            if has_hook:
                sealed = self._vault.seal(secret.encode(), repos.secret_purpose(hook_id))
                repos.add_hook(
                    connection, hook_id=hook_id, repo_id=repo_id, forge=new.forge, sealed_secret=sealed
                )
            if credential is not None:
                repos.set_credential(
                    connection,
                    repo_id,
                    kind=credential.kind.value,
                    user=credential.user,
                    sealed=self._vault.seal(credential.value.encode(), repos.credential_purpose(repo_id)),
                )
            repo = repos.by_id(connection, repo_id)
            assert repo is not None
            audit.note(connection, actor, _deed(repo, "repo.add", _where(new)), now)
            return repo

        repo = await self._store.write(add)
        self._bus.publish("builds")
        return Added(repo=repo, hook_id=hook_id, secret=secret)

    # --- change -----------------------------------------------------------------------------------------

    async def change(self, repo: Repo, given: Mapping[str, str], actor: Actor) -> Repo:
        """Settings by their names (store/repo_settings.py); what is not given stays. Raises Invalid."""
        values, repo_id, now = repo_settings.parsed(given), repo.id or 0, self._clock.now()

        def write(connection: Connection) -> Repo:
            before = repos.by_id(connection, repo_id)
            if before is None:
                raise NotFound("the repo was deleted meanwhile")
            news = {name: value for name, value in values.items() if getattr(before, name) != value}
            if not news:
                return before
            if set(news) & set(repo_settings.TRUST) and not can(actor, Action.TRUST, before):
                raise Forbidden("only a server admin lets a repo's files ask for more than the sandbox gives")
            repo_settings.change(connection, repo_id, news)
            words = ", ".join(f"{name}={_shown(value)}" for name, value in news.items())
            audit.note(connection, actor, _deed(repo, "repo.settings", words), now)
            after = repos.by_id(connection, repo_id)
            assert after is not None
            return after

        found = await self._store.write(write)
        self._bus.publish("builds", f"repo:{repo_id}", "access")
        return found

    async def rotate(self, repo: Repo, hook_id: str, actor: Actor) -> Rotated:
        """A new secret of the hook, to be shown once; the one before it signs for a day more."""
        secret, now = secrets.token_urlsafe(32), self._clock.now()
        sealed = self._vault.seal(secret.encode(), repos.secret_purpose(hook_id))

        def write(connection: Connection) -> None:
            hook = repos.hook(connection, hook_id)
            if hook is None or hook.repo_id != repo.id:
                raise NotFound("the repo has no such hook")
            repos.rotate_hook(connection, hook_id, sealed, now + OLD_SECRET_SECONDS)
            audit.note(connection, actor, _deed(repo, "repo.hook", "made a new secret"), now)

        await self._store.write(write)
        return Rotated(hook_id=hook_id, secret=secret)

    def known_secrets(self, repo: Repo, hooks: list[Hook]) -> list[str]:
        """What must not be seen in a body: the secrets of hooks, and the repo's credential."""
        found = []
        for hook in hooks:
            for sealed in (hook.secret, hook.old_secret):
                if sealed is not None:
                    found.append(self._open(sealed, repos.secret_purpose(hook.id)))
        if repo.credential is not None:
            found.append(self._open(repo.credential, repos.credential_purpose(repo.id or 0)))
        return [secret for secret in found if secret]

    def _open(self, sealed: bytes, purpose: str) -> str:
        try:
            return self._vault.open(sealed, purpose).decode(errors="replace")
        except Unavailable:  # sealed with another key: nobody can know it
            return ""

    # --- delete -----------------------------------------------------------------------------------------

    async def delete(self, repo: Repo, typed: str, actor: Actor) -> None:
        """All of it: builds and logs, hooks, secrets, schedules, and a repository of the built-in git.

        Raises Invalid where `typed` is not its path; Conflict where builds have not ended: those are
        cancelled, and one that nobody knows the end of must be resolved first.
        """
        path = f"{repo.owner}/{repo.name}"
        if typed.strip() != path:
            raise Invalid(f"type {path} to delete it, not {typed.strip()[:200]!r}")
        repo_id, now = repo.id or 0, self._clock.now()
        await self._cancel_all(repo, actor)

        def write(connection: Connection) -> list[int]:
            rest = removal.unfinished(connection, repo_id)
            if rest:
                raise Conflict(_still(rest))
            job_ids = removal.remove_repo(connection, repo_id)
            audit.note(connection, actor, _deed(repo, "repo.delete", repo.clone_url), now)
            return job_ids

        for job_id in await self._store.write(write):
            await self._logs.delete(job_id)
        for folder in self._places.folders:
            await remove_folder(folder / f"{repo_id}.git")
        self._bus.publish("builds", "access", f"repo:{repo_id}")

    async def _cancel_all(self, repo: Repo, actor: Actor) -> None:
        now = self._clock.now()

        def cancel(connection: Connection) -> list[Job]:
            found = []
            for build in removal.unfinished(connection, repo.id or 0):
                reason = f"{actor.name} deletes the repo"
                found += attempts.cancel_build(connection, build.id or 0, reason, now)
            return found

        for job in await self._store.write(cancel):
            self._bus.publish(*job_topics(job.id, job.build_id), "queue", f"runner:{job.runner_id}")


@dataclass(frozen=True, kw_only=True)
class Places:
    """What repos are made of outside of the database."""

    builtin: Builtin
    folders: tuple[Path, ...]  #: where repositories and caches are, named by the repo's id
    ask_github: AskGitHub
    addresses: Addresses


def _require_namespace(actor: Actor, owner: str) -> None:
    """Raises Forbidden with the namespaces that would do."""
    place = NewPlace(owner=owner)
    is_elsewhere = actor.is_known and actor.is_in_scope(Action.CREATE)
    if is_elsewhere and not auth.can(actor, Action.CREATE, place):
        raise Forbidden(f"{actor.name} adds repos as {actor.name}/..., and only an admin {owner[:100]}/...")
    auth.require(actor, Action.CREATE, place)


async def _read_facts(api: GitHubApi, path: tuple[str, str]) -> RepoFacts:
    words = "/".join(path)
    try:
        facts = await api.repo_named(*path)
        if facts.default_branch:
            await _read_something(api, facts)
    except Refused:
        raise
    except Forbidden as error:
        raise Invalid(f"the token does not read {words}: {error}") from error
    except NotFound as error:
        raise Invalid(
            f"the token sees no repo {words}: is the name right, and may the token read it? ({error})"
        ) from error
    return facts


async def _read_something(api: GitHubApi, facts: RepoFacts) -> None:
    """A token may see that a repo is there, and read nothing in it."""
    try:
        await api.ref(facts.key, f"refs/heads/{facts.default_branch}")
    except Invalid:  # nothing was pushed to it yet
        return


def _api_url(text: str) -> str:
    """The address of a GitHub's API; the token goes there, so it goes by https, or stays on this machine."""
    url = text.strip().rstrip("/") or API_URL
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        is_plain = bool(host) and not (parts.username or parts.query or parts.fragment or parts.port == 0)
    except ValueError:
        is_plain, host = False, ""
    is_safe = is_plain and (parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK))
    if not is_safe or not url.isprintable() or len(url) > 500:
        raise Invalid(
            f"{url[:200]!r} is no address of an API; GitHub's own is {API_URL}, and it begins https://"
        )
    return url


_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def _still(rest: list[Build]) -> str:
    unknown = [f"#{build.number}" for build in rest if build.status == Status.UNKNOWN.value]
    if unknown:
        return f"nobody knows how {', '.join(unknown)} ended: say so on its page, and delete the repo then"
    numbers = ", ".join(f"#{build.number}" for build in rest[:10])
    return f"{numbers} is being cancelled; delete the repo again once its runner has confirmed that it ended"


def _deed(repo: Repo, action: str, details: str) -> audit.Deed:
    return audit.Deed(action=action, object=f"{repo.owner}/{repo.name}", repo_id=repo.id, details=details)


def _where(new: NewRepo) -> str:
    return f"{new.forge}: {new.clone_url}" if new.clone_url else "in the built-in git"


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
