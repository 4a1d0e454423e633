"""Event: what a forge, the built-in git or a person tells us. Everything in it may be hostile text."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Kind(StrEnum):
    PUSH = "push"
    TAG = "tag"
    PULL_REQUEST = "pull_request"
    PULL_REQUEST_CLOSED = "pull_request_closed"
    RELEASE = "release"
    CRON = "cron"
    MANUAL = "manual"


class Event(BaseModel):
    """One thing that may become one build.

    `ref` is the full name (`refs/heads/main`, `refs/tags/v1`); `before` and `after` are commit ids,
    40 zeros for "none". `changed_files` is None where nobody knows (then every path filter matches).
    """

    model_config = ConfigDict(frozen=True)

    kind: Kind
    ref: str
    after: str
    before: str = "0" * 40
    branch: str = ""  #: short name of the branch, or the target branch of a pull request
    tag: str = ""
    title: str = ""  #: first line of the message
    message: str = ""
    author: str = ""
    author_email: str = ""
    sender: str = ""  #: who pushed or clicked
    link: str = ""
    timestamp_seconds: int = 0
    changed_files: tuple[str, ...] | None = None
    push_id: str = ""
    variables: Annotated[dict[str, str], Field(default_factory=dict)]

    @property
    def sha(self) -> str:
        return self.after
