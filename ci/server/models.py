"""The tables, all of them; columns and what they mean, no queries. Times are UTC seconds since 1970.

No `from __future__ import annotations` here: SQLModel reads the annotations at run time. Table models do
not validate; values are checked at the doors (parser, protocol, forms).
"""

from typing import Any

from sqlalchemy import JSON, CheckConstraint, Column, Index, LargeBinary, Text, UniqueConstraint
from sqlmodel import Field, SQLModel

from ci.status import Status

#: Ids that stand outside the database (folders of logs and repositories, leases, caches of runners) are never
#: given again, also after the newest row is gone.
_NEVER_AGAIN = {"sqlite_autoincrement": True}


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
    __table_args__ = _NEVER_AGAIN
    id: int | None = Field(primary_key=True, default=None)
    name: str = Field(unique=True)
    password_hash: str
    is_admin: bool = False
    is_disabled: bool = False  #: cannot sign in, and none of its sessions and tokens counts
    created_at: float


class Session(SQLModel, table=True):
    """A signed-in browser. The cookie's value is never stored, only its SHA-256."""

    id: int | None = Field(primary_key=True, default=None)
    user_id: int = Field(foreign_key="user.id", index=True)
    hash: str = Field(unique=True)
    created_at: float
    expires_at: float
    seen_at: float | None = None  #: stored at most once a minute
    address: str = ""
    software: str = ""  #: of the browser, as it says itself


class Token(SQLModel, table=True):
    """A credential for programs (git, API), shown once; stored as its SHA-256."""

    id: int | None = Field(primary_key=True, default=None)
    user_id: int = Field(foreign_key="user.id", index=True)
    name: str
    hash: str = Field(unique=True)
    scopes: list[str] = _json()  #: of auth.Scope
    created_at: float
    expires_at: float | None = None
    used_at: float | None = None  #: stored at most once a minute


class Membership(SQLModel, table=True):
    """What a person may do in a repo. The owner of its namespace and admins need none."""

    __table_args__ = (UniqueConstraint("repo_id", "user_id"),)
    id: int | None = Field(primary_key=True, default=None)
    repo_id: int = Field(foreign_key="repo.id")
    user_id: int = Field(foreign_key="user.id", index=True)
    role: str  #: of auth.Role
    created_at: float


class Audit(SQLModel, table=True):
    """Who did what, when; rows are only added. Names are kept beside ids: what they name may go."""

    id: int | None = Field(primary_key=True, default=None)
    at: float = Field(index=True)
    user_id: int | None = None
    user_name: str = ""
    action: str  #: a word such as `secret.set`
    object: str = ""  #: what it was done to, for a reader
    repo_id: int | None = Field(default=None, index=True)
    details: str = ""  #: a sentence; never a secret
    address: str = ""


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
        _NEVER_AGAIN,
    )
    id: int | None = Field(primary_key=True, default=None)
    forge: str  #: "builtin", "git" or "github"
    forge_key: str  #: the forge's own id; renames and transfers keep it
    owner: str
    name: str
    clone_url: str  #: for "builtin" empty: made from the server's URL
    default_branch: str = ""
    next_number: int = 1
    is_private: bool = True
    created_at: float
    # what an administrator of the repo sets
    is_enabled: bool = True  #: off: deliveries are kept, and build nothing
    config_path: str = ""  #: a file or a folder (with `/`); empty: the usual lookup
    timeout_minutes: int = 60  #: of a job that names none, and the most that one may name
    is_superseding: bool = False  #: a newer build of the same ref or pull request cancels the older
    builds_merge: bool = False  #: pull requests are built merged, not at their head
    lends_files: bool = False  #: private, and other repos of its owner may include its files
    approval: str = "forks"  #: what waits for an approval: "forks" or "pull_requests"
    keep_builds_days: int = 0  #: 0: for ever
    keep_logs_days: int = 0
    # what an administrator of the server sets: rights that its files may ask for (ci.spec.Trust)
    trusts_network: bool = False
    trusts_volumes: bool = False
    trusts_security: bool = False
    # how we speak to its forge
    api_url: str = ""
    credential_kind: str = ""  #: "", "token" or "password"
    credential_user: str = ""
    credential: bytes | None = Field(sa_column=Column(LargeBinary, nullable=True), default=None)  #: sealed
    forge_problem: str = ""  #: what is wrong with it now, as a sentence; empty: nothing
    forge_problem_at: float | None = None


class Scoped(SQLModel):
    """What belongs to one place: `server`, `org:{owner, in small letters}` or `repo:{id}`. Of the same name
    the narrowest wins."""

    place: str
    name: str


class Secret(Scoped, table=True):
    """Write-only: sealed, bound to its place and name. Empty lists forbid nothing."""

    __table_args__ = (UniqueConstraint("place", "name"),)
    id: int | None = Field(primary_key=True, default=None)
    sealed: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    events: list[str] = _json()  #: kinds of ci.event.Kind that may read it
    images: list[str] = _json()  #: image repositories whose steps may read it
    steps: list[str] = _json()  #: names of steps that may read it
    is_weak: bool = False  #: too short or too common to be masked safely
    created_at: float
    changed_at: float
    changed_by: str = ""
    used_at: float | None = None
    used_in: str = ""  #: path of the build that used it last: `owner/name/12`


class PlainVariable(Scoped, table=True):
    """A value for the environment of every step; no secret."""

    __tablename__ = "variable"
    __table_args__ = (UniqueConstraint("place", "name"),)
    id: int | None = Field(primary_key=True, default=None)
    value: str = Field(sa_column=Column(Text, nullable=False))
    changed_at: float
    changed_by: str = ""


class Schedule(SQLModel, table=True):
    """A cron expression that makes events. `next_at` is stored, so that a missed run is known as one."""

    __table_args__ = (UniqueConstraint("repo_id", "name"),)
    id: int | None = Field(primary_key=True, default=None)
    repo_id: int = Field(foreign_key="repo.id")
    name: str
    cron: str  #: five fields
    time_zone: str = "UTC"
    branch: str = ""  #: empty: the default branch
    is_enabled: bool = True
    next_at: float | None = Field(default=None, index=True)
    last_at: float | None = None
    last_verdict: str = ""  #: built #12; missed 3 runs while the server was down; ...
    created_by: str = ""


class Hook(SQLModel, table=True):
    """A door for deliveries. Its id stands in the URL and names forge, secret and repo."""

    id: str = Field(primary_key=True)
    repo_id: int = Field(foreign_key="repo.id", index=True)
    forge: str
    secret: bytes = Field(sa_column=Column(LargeBinary, nullable=False))  #: sealed (vault)
    old_secret: bytes | None = Field(sa_column=Column(LargeBinary, nullable=True), default=None)
    old_secret_until: float | None = None  #: while rotating, both sign
    last_refusal: str = ""  #: overwritten each time, so that a flood costs one row
    last_refused_at: float | None = None


class Inbox(SQLModel, table=True):
    """A delivery, durable before it is acknowledged (law 2), and its verdict."""

    __table_args__ = (
        UniqueConstraint("hook_id", "delivery"),
        Index("ix_inbox_state_repo_id", "state", "repo_id"),
        _NEVER_AGAIN,
    )
    id: int | None = Field(primary_key=True, default=None)
    hook_id: str | None = Field(foreign_key="hook.id", default=None)  #: None: the built-in git
    repo_id: int | None = Field(foreign_key="repo.id", default=None, index=True)
    delivery: str  #: the forge's delivery id, or our push id
    forge_event: str = ""  #: the forge's own word for what happened; empty: our payload
    body_hash: str = Field(index=True)  #: SHA-256; kept for ever
    body: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    received_at: float
    state: str = "received"  #: received, processed, failed, kept
    verdict: str = ""  #: a sentence: built #12, skipped because ..., refused because ...


class RefState(SQLModel, table=True):
    """The last event of a ref that we turned into a build or deliberately skipped."""

    __table_args__ = (UniqueConstraint("repo_id", "ref"),)
    id: int | None = Field(primary_key=True, default=None)
    repo_id: int = Field(foreign_key="repo.id")
    ref: str
    sha: str


class PullRequest(SQLModel, table=True):
    """A pull request as its forge last told us: what an approval is held against (law 8)."""

    __table_args__ = (UniqueConstraint("repo_id", "number"),)
    id: int | None = Field(primary_key=True, default=None)
    repo_id: int = Field(foreign_key="repo.id")
    number: int
    head_sha: str
    target_branch: str
    merge_sha: str = ""
    is_open: bool = True
    title: str = ""
    updated_at: float


class Approval(SQLModel, table=True):
    """A person's word on one build of a stranger, bound to all that was looked at (law 8)."""

    id: int | None = Field(primary_key=True, default=None)
    build_id: int = Field(foreign_key="build.id", unique=True)
    binding: str  #: SHA-256 over repo, pull request, head, target, merge and config
    is_approved: bool
    user_id: int
    user_name: str
    decided_at: float


class Outbox(SQLModel, table=True):
    """A commit status that its forge has to hear of; written in the transition's transaction. Of one (repo,
    sha, context) the highest sequence is the state to be told; what it overtakes need not be sent."""

    __table_args__ = (UniqueConstraint("repo_id", "sha", "context", "sequence"),)
    id: int | None = Field(primary_key=True, default=None)
    repo_id: int = Field(foreign_key="repo.id")
    build_id: int = Field(foreign_key="build.id", index=True)
    sha: str
    context: str  #: shipway/{event}/{pipeline}
    sequence: int
    state: str  #: of ci.status, mapped by the forge when it is sent
    description: str
    target_url: str
    created_at: float
    next_try_at: float | None = Field(default=None, index=True)  #: None: delivered, overtaken or given up
    tries: int = 0
    delivered_at: float | None = None
    last_error: str = ""


class Build(SQLModel, table=True):
    __table_args__ = (
        UniqueConstraint("repo_id", "number"),
        UniqueConstraint("inbox_id", "event_index"),
        Index("build_by_status", "status"),
        _status_check("build_status"),
        _NEVER_AGAIN,
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
    needs_approval: bool = False  #: no job of it is leased without an Approval that still holds
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None


class Job(SQLModel, table=True):
    """A job and its one lease. `attempt` counts executions, `epoch` grants; `lease_ticks` ages it."""

    __table_args__ = (
        UniqueConstraint("build_id", "slug"),
        Index("job_by_status", "status", "id"),
        _status_check("job_status"),
        _NEVER_AGAIN,
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
    cancel_reason: str = ""  #: a cancel of this job alone was asked for
    kept_from: int | None = None  #: the job of an earlier build whose result and logs this one shows
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
    __table_args__ = _NEVER_AGAIN
    id: int | None = Field(primary_key=True, default=None)
    name: str = Field(unique=True)
    token_hash: str = Field(unique=True)
    labels: dict[str, str] = _json()
    capacity: int = 0
    engine: str = ""
    software: str = ""
    is_draining: bool = False  #: takes no more jobs, and its process ends when the last is over
    is_paused: bool = False  #: takes no more jobs until a person says so
    is_connected: bool = False
    lost_leases: int = 0
    registered_at: float
    seen_at: float | None = None
