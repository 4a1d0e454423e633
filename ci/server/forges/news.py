"""What a delivery says, in our words and whoever sent it. Everything in it may be hostile text.

A forge reads its own payloads into one of these: `Push` (refs that moved), `PullRequestNews`, `ReleaseNews`,
`RepoNews` (the repo itself has changed) or `Nothing`, with the sentence why it makes no build. `ScheduleNews`
is what our own clock says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ci.errors import Invalid
from ci.server.forges.bare import NO_SHA

MAX_REFS = 100_000
SCHEDULE = "schedule"  #: the word of a row that is a ScheduleNews
BRANCH = "refs/heads/"
TAG = "refs/tags/"


class Update(BaseModel):
    """One ref that moved, or was about to."""

    model_config = ConfigDict(frozen=True)

    ref: Annotated[str, Field(max_length=1000)]
    before: str = NO_SHA
    after: str
    commit: str = ""  #: behind an annotated tag, where the forge says so

    @property
    def is_deletion(self) -> bool:
        return self.after == NO_SHA

    @property
    def noun(self) -> str:
        """What a person calls the ref."""
        if self.ref.startswith(BRANCH):
            return f"branch {self.ref.removeprefix(BRANCH)}"
        if self.ref.startswith(TAG):
            return f"tag {self.ref.removeprefix(TAG)}"
        return self.ref

    @property
    def refusal(self) -> str:
        """Why it is never built; empty: it may be."""
        if self.is_deletion:
            return f"{self.noun} was deleted, so there is nothing to build"
        if "\ufffd" in self.ref:
            return f"the name {self.ref} is not UTF-8, so it is not built"
        if not self.ref.startswith((TAG, BRANCH)):
            return f"{self.ref} is neither a branch nor a tag"
        return ""


class Push(BaseModel):
    model_config = ConfigDict(frozen=True)

    push_id: Annotated[str, Field(min_length=1, max_length=200)]
    refs: Annotated[tuple[Update, ...], Field(min_length=1, max_length=MAX_REFS)]
    pusher: Annotated[str, Field(max_length=1000)] = ""
    pusher_key: Annotated[str, Field(max_length=200)] = ""  #: the forge's own id of the pusher
    link: Annotated[str, Field(max_length=2000)] = ""  #: page of the change on the forge
    options: tuple[str, ...] = ()
    is_found: bool = False  #: nobody told us: the refs stood there when we looked

    def body(self) -> bytes:
        return self.model_dump_json().encode()


@dataclass(frozen=True, kw_only=True)
class Sender:
    """Who clicked or pushed, as the forge says; never taken from git. `key` is the forge's own id."""

    name: str = ""
    key: str = ""


@dataclass(frozen=True, kw_only=True)
class PullRequestNews:
    number: int
    action: str  #: the forge's word
    refusal: str = ""  #: why this action builds nothing; empty: it does
    is_open: bool
    head_sha: str
    before: str = NO_SHA  #: what the head was, where a push moved it
    head_ref: str  #: on the forge, such as `refs/pull/7/head`
    merge_ref: str  #: of the merge with the target branch
    source_branch: str
    source_repo: str  #: path; empty where it is gone
    is_from_fork: bool
    target_branch: str
    title: str
    labels: tuple[str, ...] = ()
    milestone: str = ""
    is_draft: bool = False
    sender: Sender
    link: str = ""
    updated_at: float  #: by the forge's clock; a delivery that comes late overwrites nothing newer


@dataclass(frozen=True, kw_only=True)
class ReleaseNews:
    action: str
    tag: str
    branch: str = ""  #: where the tag was made from, if it is a branch
    title: str
    is_prerelease: bool
    sender: Sender
    link: str = ""


@dataclass(frozen=True, kw_only=True)
class RepoNews:
    """The repo itself has changed: what is true now, the forge is asked."""

    action: str
    refusal: str = ""  #: why there is nothing to follow


class ScheduleNews(BaseModel):
    """A run of a schedule: ours, and no forge's."""

    model_config = ConfigDict(frozen=True)

    schedule_id: int
    schedule: str
    branch: str  #: empty: the default branch
    due_at: float
    sender: str = ""  #: who asked for it now; empty: nobody but the clock
    missed: str = ""  #: a sentence about runs before it


@dataclass(frozen=True)
class Nothing:
    sentence: str


def parse_schedule(body: bytes) -> ScheduleNews:
    try:
        return ScheduleNews.model_validate_json(body)
    except ValidationError as error:
        raise Invalid(f"this is no run of a schedule: {error.errors()[0]['msg']}") from error


News = Push | PullRequestNews | ReleaseNews | RepoNews | ScheduleNews | Nothing
