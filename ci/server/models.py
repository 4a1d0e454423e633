"""The tables, all of them; columns and what they mean, no queries. Times are UTC seconds since 1970.

No `from __future__ import annotations` here: SQLModel reads the annotations at run time. Table models do
not validate; values are checked at the doors (parser, protocol, forms).
"""

from typing import Any

from sqlalchemy import JSON, CheckConstraint, Column, Index, LargeBinary, Text, UniqueConstraint
from sqlmodel import Field, SQLModel

from ci.status import Status


def _json(*, nullable: bool = False) -> Any:
    return Field(sa_column=Column(JSON, nullable=nullable), default=None if nullable else ...)


_STATUSES = ", ".join(f"'{status.value}'" for status in Status)


def _status_check(name: str) -> CheckConstraint:
    return CheckConstraint(f"status IN ({_STATUSES})", name=name)


class Meta(SQLModel, table=True):
    """One row: who this server is."""

    id: int = Field(primary_key=True, default=1)
    server_id: str  #: random, in every resource label; 16 hex digits
    created_at: float


class User(SQLModel, table=True):
    id: int | None = Field(primary_key=True, default=None)
    name: str = Field(unique=True)
    password_hash: str
    is_admin: bool = False
    created_at: float


class Session(SQLModel, table=True):
    """A signed-in browser. The cookie's value is never stored, only its SHA-256."""

    id: int | None = Field(primary_key=True, default=None)
    user_id: int = Field(foreign_key="user.id", index=True)
    hash: str = Field(unique=True)
    created_at: float
    expires_at: float


class Token(SQLModel, table=True):
    """A credential for programs (git, API), shown once; stored as its SHA-256."""

    id: int | None = Field(primary_key=True, default=None)
    user_id: int = Field(foreign_key="user.id", index=True)
    name: str
    hash: str = Field(unique=True)
    created_at: float


class Code(SQLModel, table=True):
    """A single-use code: `setup` makes the first account, `runner` registers a runner."""

    id: int | None = Field(primary_key=True, default=None)
    kind: str
    hash: str = Field(unique=True)
    expires_at: float
    used_at: float | None = None


class Repo(SQLModel, table=True):
    __table_args__ = (
        UniqueConstraint("forge", "forge_key"),
        UniqueConstraint("owner", "name"),
    )
    id: int | None = Field(primary_key=True, default=None)
    forge: str  #: "builtin" or "git"
    forge_key: str  #: the forge's own id; renames and transfers keep it
    owner: str
    name: str
    clone_url: str  #: for "builtin" empty: made from the server's URL
    default_branch: str = ""
    next_number: int = 1
    is_private: bool = True
    created_at: float


class Hook(SQLModel, table=True):
    """A door for deliveries. Its id stands in the URL and names forge, secret and repo."""

    id: str = Field(primary_key=True)
    repo_id: int = Field(foreign_key="repo.id", index=True)
    forge: str
    secret: bytes = Field(sa_column=Column(LargeBinary, nullable=False))  #: sealed (vault)
    last_refusal: str = ""  #: overwritten each time, so that a flood costs one row
    last_refused_at: float | None = None


class Inbox(SQLModel, table=True):
    """A delivery, durable before it is acknowledged (law 2), and its verdict."""

    __table_args__ = (UniqueConstraint("hook_id", "delivery"),)
    id: int | None = Field(primary_key=True, default=None)
    hook_id: str | None = Field(foreign_key="hook.id", default=None)  #: None: the built-in git
    repo_id: int | None = Field(foreign_key="repo.id", default=None, index=True)
    delivery: str  #: the forge's delivery id, or our push id
    body_hash: str = Field(index=True)  #: SHA-256; kept for ever
    body: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    received_at: float
    state: str = Field(default="received", index=True)  #: received, processed, failed
    verdict: str = ""  #: a sentence: built #12, skipped because ..., refused because ...


class RefState(SQLModel, table=True):
    """The last event of a ref that we turned into a build or deliberately skipped."""

    __table_args__ = (UniqueConstraint("repo_id", "ref"),)
    id: int | None = Field(primary_key=True, default=None)
    repo_id: int = Field(foreign_key="repo.id")
    ref: str
    sha: str


class Build(SQLModel, table=True):
    __table_args__ = (
        UniqueConstraint("repo_id", "number"),
        UniqueConstraint("inbox_id", "event_index"),
        Index("build_by_status", "status"),
        _status_check("build_status"),
    )
    id: int | None = Field(primary_key=True, default=None)
    repo_id: int = Field(foreign_key="repo.id")
    number: int
    inbox_id: int | None = Field(foreign_key="inbox.id", default=None)
    event_index: int = 0
    rerun_of: int | None = Field(foreign_key="build.id", default=None)
    event: dict[str, Any] = _json()
    config_file: str = ""
    config: str = Field(default="", sa_column=Column(Text, nullable=False))
    problems: list[Any] = _json()  #: of the config, as dicts of ci.errors.Problem
    status: str
    outcome: str | None = None
    reason: str = ""
    cancel_reason: str = ""  #: a cancel was asked for
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None


class Job(SQLModel, table=True):
    """A job and its one lease. `attempt` counts executions, `epoch` grants; `lease_ticks` ages it."""

    __table_args__ = (
        UniqueConstraint("build_id", "slug"),
        Index("job_by_status", "status", "id"),
        _status_check("job_status"),
    )
    id: int | None = Field(primary_key=True, default=None)
    build_id: int = Field(foreign_key="build.id", index=True)
    position: int
    name: str
    slug: str
    spec: dict[str, Any] = _json()
    status: str
    outcome: str | None = None
    reason: str = ""
    attempt: int = 1
    epoch: int = 0
    runner_id: int | None = Field(foreign_key="runner.id", default=None, index=True)  #: holds the lease
    is_accepted: bool = False  #: the acknowledgement is durable: it may have started
    lease_ticks: int = 0
    lost_attempts: int = 0
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None


class Attempt(SQLModel, table=True):
    """One execution of a job: who ran it, and how it ended for us."""

    __table_args__ = (UniqueConstraint("job_id", "attempt"),)
    id: int | None = Field(primary_key=True, default=None)
    job_id: int = Field(foreign_key="job.id")
    attempt: int
    runner_id: int | None = Field(foreign_key="runner.id", default=None)
    runner_name: str = ""
    recorded_seq: int = -1  #: journal lines up to here are applied
    side_effects_at: float | None = None  #: a step with side effects was granted its start
    end: dict[str, Any] | None = _json(nullable=True)  #: JobEnded, held until its logs are closed
    lost_reason: str = ""
    is_over: bool = False  #: nothing of it may write any more
    started_at: float | None = None
    finished_at: float | None = None


class Step(SQLModel, table=True):
    """A step in one attempt, and its log's end."""

    __table_args__ = (
        UniqueConstraint("job_id", "attempt", "number"),
        _status_check("step_status"),
    )
    id: int | None = Field(primary_key=True, default=None)
    job_id: int = Field(foreign_key="job.id")
    attempt: int
    number: int
    name: str
    slug: str
    kind: str
    image: str = ""
    status: str
    outcome: str | None = None
    reason: str = ""
    exit_code: int | None = None
    began_after: float | None = None  #: seconds after the start of the attempt
    ended_after: float | None = None
    log_size: int | None = None  #: bytes, once the log is closed
    log_crc32: int | None = None
    is_log_closed: bool = False
    is_marks_closed: bool = False
    is_granted: bool = False


class Evidence(SQLModel, table=True):
    """What a runner said about an attempt that was over: changes nothing, and is kept."""

    id: int | None = Field(primary_key=True, default=None)
    job_id: int = Field(foreign_key="job.id", index=True)
    attempt: int
    epoch: int
    runner_id: int
    message: str = Field(sa_column=Column(Text, nullable=False))
    received_at: float


class Runner(SQLModel, table=True):
    id: int | None = Field(primary_key=True, default=None)
    name: str = Field(unique=True)
    token_hash: str = Field(unique=True)
    labels: dict[str, str] = _json()
    capacity: int = 0
    engine: str = ""
    software: str = ""
    is_draining: bool = False
    is_connected: bool = False
    registered_at: float
    seen_at: float | None = None
