"""A forge that is asked by an API: what is alike in all of them. Each brings its payloads and its client."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Protocol
from urllib.parse import urlsplit

from ci.errors import Unavailable
from ci.event import Event, Kind
from ci.server.forges.bare import MAX_MESSAGE_BYTES
from ci.server.forges.base import CommitFacts, Forge, RepoFacts
from ci.server.forges.config_files import read_config, read_file
from ci.server.forges.news import BRANCH, TAG, News, PullRequestNews, Push, ReleaseNews, Update
from ci.server.forges.payload import clean
from ci.server.models import Repo

MAX_TITLE = 500


class Api(Protocol):
    """What is asked of every forge. Repos go by the forge's own id; errors are those of `Forge`."""

    async def repo(self, key: str) -> RepoFacts: ...
    async def ref(self, key: str, ref: str) -> str | None: ...
    async def commit_of(self, key: str, ref: str) -> str | None: ...
    async def commit(self, key: str, sha: str) -> CommitFacts: ...
    async def changed_files(self, key: str, base: str, head: str) -> tuple[str, ...] | None: ...
    async def pull_request_files(self, key: str, number: int) -> tuple[str, ...] | None: ...
    async def folder(self, key: str, sha: str, path: str) -> dict[str, int]: ...
    async def file(self, key: str, sha: str, path: str) -> bytes | None: ...


class _Tree:
    """The files of a commit by the API."""

    def __init__(self, api: Api, key: str, sha: str) -> None:
        self._api = api
        self._key = key
        self._sha = sha

    async def sizes(self, folder: str) -> Mapping[str, int]:
        return await self._api.folder(self._key, self._sha, folder)

    async def read(self, path: str) -> bytes:
        found = await self._api.file(self._key, self._sha, path)
        if found is None:
            raise Unavailable(f"the forge lists {path} at {self._sha[:10]}, and does not give it")
        return found


class Hosted(Forge):
    #: A forge may be down for long, and a token be replaced by a person only.
    retry_seconds = 3 * 86400.0

    @abstractmethod
    def api(self, repo: Repo) -> Api:
        """Its API with the repo's credential."""

    @abstractmethod
    async def merged(self, repo: Repo, news: PullRequestNews) -> tuple[str, str]:
        """(sha, "") of the pull request merged with its target, or ("", the sentence why there is none)."""

    # --- questions --------------------------------------------------------------------------------

    async def event_of(self, repo: Repo, news: News, update: Update | None = None) -> Event | str:
        if isinstance(news, Push) and update is not None:
            return await self._pushed(repo, news, update)
        if isinstance(news, PullRequestNews):
            return await self._pull_request(repo, news)
        if isinstance(news, ReleaseNews):
            return await self._release(repo, news)
        return "ignored, because it is nothing to build"

    async def _pushed(self, repo: Repo, push: Push, update: Update) -> Event | str:
        if update.refusal:
            return update.refusal
        is_tag = update.ref.startswith(TAG)
        api, sha = self.api(repo), update.commit or update.after
        files = None if is_tag else await self._changed(api, repo, update.before, sha)
        return _event(
            await api.commit(repo.forge_key, sha),
            kind=Kind.TAG if is_tag else Kind.PUSH,
            ref=update.ref,
            before=update.before,
            after=sha,
            branch="" if is_tag else update.ref.removeprefix(BRANCH),
            tag=update.ref.removeprefix(TAG) if is_tag else "",
            sender=push.pusher,
            sender_key=push.pusher_key,
            link=push.link,
            changed_files=files,
            push_id=push.push_id,
        )

    async def _changed(self, api: Api, repo: Repo, before: str, sha: str) -> tuple[str, ...] | None:
        if set(before) == {"0"}:
            return None
        return await api.changed_files(repo.forge_key, before, sha)

    async def _pull_request(self, repo: Repo, news: PullRequestNews) -> Event | str:
        if news.refusal:
            return news.refusal
        api, merge_sha, ref = self.api(repo), "", news.head_ref
        if repo.builds_merge and news.is_open:
            merge_sha, refusal = await self.merged(repo, news)
            if refusal:
                return refusal
            ref = news.merge_ref
        return _event(
            await api.commit(repo.forge_key, news.head_sha),
            kind=Kind.PULL_REQUEST if news.is_open else Kind.PULL_REQUEST_CLOSED,
            ref=ref,
            before=news.before,
            after=news.head_sha,
            merge_sha=merge_sha,
            branch=news.target_branch,
            action=news.action,
            pull_request=news.number,
            source_branch=news.source_branch,
            source_repo=news.source_repo,
            is_from_fork=news.is_from_fork,
            is_draft=news.is_draft,
            labels=news.labels,
            milestone=news.milestone,
            title=news.title,
            sender=news.sender.name,
            sender_key=news.sender.key,
            link=news.link,
            changed_files=await api.pull_request_files(repo.forge_key, news.number),
        )

    async def _release(self, repo: Repo, news: ReleaseNews) -> Event | str:
        api, ref = self.api(repo), TAG + news.tag
        sha = await api.commit_of(repo.forge_key, ref)
        if sha is None:
            return f"there is no tag {news.tag} (any more), so there is nothing to build"
        return _event(
            await api.commit(repo.forge_key, sha),
            kind=Kind.RELEASE,
            ref=ref,
            after=sha,
            branch=news.branch,
            tag=news.tag,
            action=news.action,
            is_prerelease=news.is_prerelease,
            title=news.title or news.tag,
            sender=news.sender.name,
            sender_key=news.sender.key,
            link=news.link,
        )

    async def read_config(self, repo: Repo, event: Event) -> dict[str, str]:
        """At the commit that is built: of a fork's pull request too, which waits for an approval anyway."""
        return await read_config(_Tree(self.api(repo), repo.forge_key, event.sha), repo.config_path)

    async def read_file(self, repo: Repo, sha: str, path: str) -> str | None:
        return await read_file(_Tree(self.api(repo), repo.forge_key, sha), path)

    async def tip(self, repo: Repo, ref: str) -> str | None:
        return await self.api(repo).ref(repo.forge_key, ref)

    async def facts(self, repo: Repo) -> RepoFacts | None:
        return await self.api(repo).repo(repo.forge_key)

    # --- builds -----------------------------------------------------------------------------------

    def clone_url(self, repo: Repo) -> str:
        return repo.clone_url

    def web_url(self, repo: Repo) -> str:
        parts = urlsplit(repo.clone_url)
        return f"{parts.scheme}://{parts.netloc}" if parts.scheme in ("http", "https") else ""

    def remote_id(self, repo: Repo) -> str:
        return repo.forge_key


def _event(commit: CommitFacts, *, title: str = "", **fields: object) -> Event:
    """The event with what its commit says; text is bounded, and text."""
    message = clean(commit.message[:MAX_MESSAGE_BYTES]).rstrip("\n")
    found = {
        "title": (title or message.partition("\n")[0].strip())[:MAX_TITLE],
        "message": message,
        "author": clean(commit.author[:1000]),
        "author_email": clean(commit.author_email[:1000]),
        "timestamp_seconds": commit.timestamp_seconds,
        "variables": {},
    }
    return Event.model_validate({**found, **fields})
