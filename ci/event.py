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
    PULL_REQUEST_METADATA = "pull_request_metadata"  #: labels, milestone, title, ... changed
    RELEASE = "release"
    DEPLOYMENT = "deployment"
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
    action: str = ""  #: of a pull request or release, the forge's word: opened, synchronize, published, ...
    pull_request: int | None = None
    source_branch: str = ""  #: of a pull request
    source_repo: str = ""  #: of a pull request: path of the repo that holds its head
    is_from_fork: bool = False  #: the head is in another repo: outsiders control all of it
    is_prerelease: bool = False
    merge_sha: str = ""  #: of a pull request that is built merged: then `after` is its head all the same
    labels: tuple[str, ...] = ()
    milestone: str = ""
    is_draft: bool = False
    tag: str = ""
    cron: str = ""  #: name of the schedule
    deploy_target: str = ""  #: of a deployment: the environment that is meant
    deploy_task: str = ""
    title: str = ""  #: first line of the message
    message: str = ""
    author: str = ""
    author_email: str = ""
    sender: str = ""  #: who pushed or clicked
    sender_key: str = ""  #: the forge's own id of the sender, which a rename keeps; never taken from git
    link: str = ""
    timestamp_seconds: int = 0
    changed_files: tuple[str, ...] | None = None
    push_id: str = ""
    variables: Annotated[dict[str, str], Field(default_factory=dict)]

    @property
    def sha(self) -> str:
        """The commit that is built."""
        return self.merge_sha or self.after

    @property
    def is_untrusted(self) -> bool:
        """A stranger's code: no secrets, no shared cache to write, no start without an approval (law 8)."""
        return self.is_from_fork
