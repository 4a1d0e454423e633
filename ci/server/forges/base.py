"""Forge: where a repo's commits live, and the shape of what it tells us.

A delivery is a `Push`: one or more refs that moved. Both forges of today speak the same small payload:

    {"push_id": "random", "pusher": "ada",
     "refs": [{"ref": "refs/heads/main", "before": "40 hex digits", "after": "40 hex digits"}]}

or, for a single ref, "ref", "before" and "after" beside "push_id". 40 zeros stand for "none": a `before` of
zeros is a new ref, an `after` of zeros a deleted one. `push_id` is random, so that no two pushes look alike.
"options" may hold the push options of git (`ci.skip`).

Order of calls: `parse_push` (pure, nothing is verified by it) -> `event_of` -> `read_config`; each may be
called again. What cannot be reached now raises Unavailable, and is tried again.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ci.errors import Invalid
from ci.event import Event, Kind
from ci.server.forges.bare import NO_SHA, Bare, is_ref_name, is_sha
from ci.server.models import Repo

MAX_REFS = 100_000
_BRANCH = "refs/heads/"
_TAG = "refs/tags/"


class Update(BaseModel):
    """One ref that moved, or was about to."""

    model_config = ConfigDict(frozen=True)

    ref: Annotated[str, Field(max_length=1000)]
    before: str = NO_SHA
    after: str

    @property
    def is_deletion(self) -> bool:
        return self.after == NO_SHA

    @property
    def noun(self) -> str:
        """What a person calls the ref."""
        if self.ref.startswith(_BRANCH):
            return f"branch {self.ref.removeprefix(_BRANCH)}"
        if self.ref.startswith(_TAG):
            return f"tag {self.ref.removeprefix(_TAG)}"
        return self.ref


class Push(BaseModel):
    model_config = ConfigDict(frozen=True)

    push_id: Annotated[str, Field(min_length=1, max_length=200)]
    refs: Annotated[tuple[Update, ...], Field(min_length=1, max_length=MAX_REFS)]
    pusher: Annotated[str, Field(max_length=1000)] = ""
    options: tuple[str, ...] = ()
    is_found: bool = False  #: nobody told us: the refs stood there when we looked

    def body(self) -> bytes:
        return self.model_dump_json().encode()


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


@dataclass(frozen=True, kw_only=True)
class StatusUpdate:
    """How a commit stands in one context; `state` is a value of ci.status.Status."""

    sha: str
    state: str
    context: str  #: shipway/{event}/{pipeline}
    description: str
    target_url: str


class Forge(ABC):
    name: str

    async def set_status(self, repo: Repo, status: StatusUpdate) -> None:
        """Show a commit's status, where the forge does (store.repos.WITH_STATUSES); may be called again.

        Raises Unavailable, RateLimited, Forbidden, NotFound, and Invalid for what will never be taken.
        """
        raise Invalid(f"the forge {self.name!r} shows no commit statuses")

    @abstractmethod
    async def objects(self, repo: Repo, update: Update) -> Bare:
        """A local repository that holds `after`, and `before` if it can be had. Raises Unavailable."""

    @abstractmethod
    async def ref_stands_at(self, repo: Repo, ref: str, sha: str) -> bool:
        """Whether the ref is at `sha` now."""

    @abstractmethod
    def clone_url(self, repo: Repo) -> str:
        """What a runner fetches from."""

    @abstractmethod
    async def keep(self, repo: Repo, number: int, sha: str) -> None:
        """Hold the commit of a build for ever, where the forge lets us."""

    async def event_of(self, repo: Repo, update: Update, push: Push) -> Event | str:
        """The event that this update is, or the sentence why it is none."""
        if update.is_deletion:
            return f"{update.noun} was deleted, so there is nothing to build"
        if "\ufffd" in update.ref:
            return f"the name {update.ref} is not UTF-8, so it is not built"
        is_tag = update.ref.startswith(_TAG)
        if not is_tag and not update.ref.startswith(_BRANCH):
            return f"{update.ref} is neither a branch nor a tag"
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
            branch="" if is_tag else update.ref.removeprefix(_BRANCH),
            tag=update.ref.removeprefix(_TAG) if is_tag else "",
            title=commit.message.partition("\n")[0].strip()[:500],
            message=commit.message,
            author=commit.author,
            author_email=commit.author_email,
            sender=push.pusher,
            timestamp_seconds=commit.timestamp_seconds,
            changed_files=None if is_tag else await bare.changed_files(update.before, sha),
            push_id=push.push_id,
            variables={},
        )

    async def read_config(self, repo: Repo, event: Event) -> dict[str, str]:
        """Pipeline files by name, empty if the commit has none. Raises Invalid, Unavailable."""
        update = Update(ref=event.ref, before=event.before, after=event.after)
        return await (await self.objects(repo, update)).config_files(event.after)
