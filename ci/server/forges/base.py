"""Forge: where a repo's commits live, and how it speaks to us.

A forge is one file beside this one. What differs between forges is here, in the order of the calls:

1. `is_signed` over the raw body, `delivery` (well-formed? whose? which?): web/hooks and the inbox, before a
   delivery is stored. Pure and quick.
2. `news`: what the stored delivery says, in our words (news.py). Pure.
3. `event_of`, `read_config`, `tip`, `ref_stands_at`, `facts`: what is asked of the forge while the delivery
   is processed. Each may be called again. Where it cannot answer now it raises Unavailable (RateLimited),
   Forbidden or NotFound, and the delivery is tried again.
4. `keep`, `clone_url`, `set_status`: what a build needs of it.

The built-in git and a plain repository elsewhere speak the same small payload:

    {"push_id": "random", "pusher": "ada",
     "refs": [{"ref": "refs/heads/main", "before": "40 hex digits", "after": "40 hex digits"}]}

or, for a single ref, "ref", "before" and "after" beside "push_id". 40 zeros stand for "none": a `before` of
zeros is a new ref, an `after` of zeros a deleted one. `push_id` is random, so that no two pushes look alike.
"options" may hold the push options of git (`ci.skip`).
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from ci.errors import Invalid, Unavailable
from ci.event import Event, Kind
from ci.server.forges.bare import Bare, is_ref_name, is_sha
from ci.server.forges.news import BRANCH, MAX_REFS, TAG, News, Push, Update
from ci.server.models import Repo
from ci.server.store.repos import NewRepo

__all__ = ["MAX_REFS", "Push", "Update", "parse_push"]


def parse_push(body: bytes) -> Push:
    """Raises Invalid, with what is wrong, for anything but a payload as above."""
    try:
        found: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"the body is no JSON: {error}") from error
    if isinstance(found, dict) and "refs" not in found and "ref" in found:
        found["refs"] = [{key: found[key] for key in ("ref", "before", "after") if key in found}]
    try:
        push = Push.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the body"
        raise Invalid(f"this is no push: {place}: {first['msg']}") from error
    for update in push.refs:
        if not is_ref_name(update.ref):
            raise Invalid(f"this is no push: {update.ref!r} is no full ref name such as refs/heads/main")
        for sha in (update.before, update.after):
            if not is_sha(sha):
                raise Invalid(f"this is no push: {sha[:80]!r} is no commit id of 40 hex digits")
    return push


class NotReady(Unavailable):
    """The forge answers, but has not made what this one delivery needs; soon it will."""


@dataclass(frozen=True, kw_only=True)
class StatusUpdate:
    """How a commit stands in one context; `state` is a value of ci.status.Status."""

    sha: str
    state: str
    context: str  #: shipway/{event}/{pipeline}
    description: str
    target_url: str


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A webhook that is verified and well-formed: what the inbox stores."""

    key: str  #: the forge's own id of the delivery; the same again is the same delivery
    word: str = ""  #: the forge's word for what happened; empty: our payload
    body: bytes  #: the JSON, also where it came in a form
    repo_key: str | None = None  #: the forge's id of the repo that it is about; None: the hook says it


@dataclass(frozen=True, kw_only=True)
class RepoFacts:
    """A repo as its forge has it now."""

    key: str  #: the forge's own id
    owner: str
    name: str
    default_branch: str
    is_private: bool
    clone_url: str
    html_url: str


def new_repo(forge: str, facts: RepoFacts, *, api_url: str = "") -> NewRepo:
    """The repo as it is to be here."""
    return NewRepo(
        forge=forge,
        key=facts.key,
        owner=facts.owner,
        name=facts.name,
        clone_url=facts.clone_url,
        default_branch=facts.default_branch,
        is_private=facts.is_private,
        api_url=api_url,
    )


@dataclass(frozen=True, kw_only=True)
class CommitFacts:
    message: str
    author: str
    author_email: str
    timestamp_seconds: int


class Forge(ABC):
    name: str
    #: What a delivery may have; None: the setting `hook_max_bytes`.
    max_hook_bytes: int | None = None
    #: How long a delivery is tried again while the forge cannot answer.
    retry_seconds: float = 3600.0

    # --- deliveries -------------------------------------------------------------------------------

    def is_signed(self, headers: Mapping[str, str], body: bytes, secrets: Sequence[bytes]) -> bool:
        """Whether one of the secrets signed these bytes; the work does not depend on the answer."""
        return False

    def unsigned(self, headers: Mapping[str, str]) -> str:
        """The sentence for a delivery that is not signed."""
        return f"the forge {self.name!r} sends no deliveries"

    def delivery(self, headers: Mapping[str, str], body: bytes) -> Delivery:
        """Raises Invalid for what is not well-formed."""
        raise Invalid(self.unsigned(headers))

    def news(self, word: str, key: str, body: bytes) -> News:
        """What a stored delivery says. Raises Invalid for one that cannot be understood."""
        return parse_push(body)

    # --- questions --------------------------------------------------------------------------------

    @abstractmethod
    async def event_of(self, repo: Repo, news: News, update: Update | None = None) -> Event | str:
        """The event that this is (of a push: this update of it), or the sentence why it is none."""

    @abstractmethod
    async def read_config(self, repo: Repo, event: Event) -> dict[str, str]:
        """Pipeline files by name, empty if the commit has none. Raises Invalid for unusable ones."""

    @abstractmethod
    async def read_file(self, repo: Repo, sha: str, path: str) -> str | None:
        """A file of a commit; None where there is none. Raises Invalid for what is no text or too big."""

    @abstractmethod
    async def tip(self, repo: Repo, ref: str) -> str | None:
        """The id of what the full ref points at now (of a branch: a commit); None where there is none."""

    async def ref_stands_at(self, repo: Repo, ref: str, sha: str) -> bool:
        """Whether the ref is at `sha` now."""
        return await self.tip(repo, ref) == sha

    async def facts(self, repo: Repo) -> RepoFacts | None:
        """The repo as the forge has it; None where the forge does not know more than we do."""
        return None

    # --- builds -----------------------------------------------------------------------------------

    @abstractmethod
    def clone_url(self, repo: Repo) -> str:
        """What a runner fetches from."""

    def web_url(self, repo: Repo) -> str:
        """Where people find the forge; empty for one without pages."""
        return ""

    def remote_id(self, repo: Repo) -> str:
        """The forge's own id of the repo, for a step to read."""
        return f"{repo.forge}-{repo.id}"

    async def keep(self, repo: Repo, number: int, sha: str) -> None:
        """Hold the commit of a build for ever, where the forge lets us; elsewhere a rerun finds the commit
        as long as the repository has it."""
        return

    async def set_status(self, repo: Repo, status: StatusUpdate) -> None:
        """Show a commit's status, where the forge does (store.repos.WITH_STATUSES); may be called again.

        Raises Unavailable, RateLimited, Forbidden, NotFound, and Invalid for what will never be taken.
        """
        raise Invalid(f"the forge {self.name!r} shows no commit statuses")


class Cloned(Forge):
    """A forge that is nothing but git: its commits are fetched and read here."""

    @abstractmethod
    async def objects(self, repo: Repo, update: Update) -> Bare:
        """A local repository that holds `after`, and `before` if it can be had. Raises Unavailable."""

    async def event_of(self, repo: Repo, news: News, update: Update | None = None) -> Event | str:
        if not isinstance(news, Push) or update is None:
            return f"the forge {self.name!r} tells of pushes alone"
        if update.refusal:
            return update.refusal
        is_tag = update.ref.startswith(TAG)
        bare = await self.objects(repo, update)
        sha = await bare.commit_of(update.after)
        if sha is None:
            return f"{update.noun} does not point to a commit"
        commit = await bare.commit(sha)
        return Event(
            kind=Kind.TAG if is_tag else Kind.PUSH,
            ref=update.ref,
            before=update.before,
            after=sha,
            branch="" if is_tag else update.ref.removeprefix(BRANCH),
            tag=update.ref.removeprefix(TAG) if is_tag else "",
            title=commit.message.partition("\n")[0].strip()[:500],
            message=commit.message,
            author=commit.author,
            author_email=commit.author_email,
            sender=news.pusher,
            timestamp_seconds=commit.timestamp_seconds,
            changed_files=None if is_tag else await bare.changed_files(update.before, sha),
            push_id=news.push_id,
            variables={},
        )

    async def read_config(self, repo: Repo, event: Event) -> dict[str, str]:
        update = Update(ref=event.ref, before=event.before, after=event.after)
        return await (await self.objects(repo, update)).config_files(event.after, repo.config_path)

    async def read_file(self, repo: Repo, sha: str, path: str) -> str | None:
        bare = await self.objects(repo, Update(ref="", before="0" * len(sha), after=sha))
        return await bare.file(sha, path)
