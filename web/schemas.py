"""The shapes of what programs get and send: builds, repos, runners, the queue. Described, not enforced: the
endpoints make plain dicts, and tests/unit/test_openapi.py holds them to these.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from web.openapi import Mistake

_TIME = "seconds since 1970 (UTC)"


class EventFacts(BaseModel):
    """What the forge, a schedule or a person told us."""

    kind: str
    ref: str
    branch: str
    tag: str
    after: str = Field(description="the commit that was built")
    before: str
    title: str
    author: str
    sender: str
    link: str


class BuildFacts(BaseModel):
    id: int
    repo: str = Field(description="owner/name")
    number: int
    status: str
    outcome: str | None
    reason: str = Field(description="why it ended as it did, or why it waits")
    event: EventFacts
    created_at: float = Field(description=_TIME)
    started_at: float | None
    finished_at: float | None
    url: str


class StepsDone(BaseModel):
    done: int
    total: int


class ListedBuild(BuildFacts):
    steps: StepsDone


class BuildList(BaseModel):
    """The newest first; `before` continues the list, null at its end."""

    builds: list[ListedBuild]
    before: int | None


class LogAddresses(BaseModel):
    raw: str
    index: str
    marks: str
    live: str


class StepFacts(BaseModel):
    number: int
    name: str
    slug: str
    kind: str
    image: str
    status: str
    outcome: str | None
    reason: str
    exit_code: int | None
    began_after: float | None = Field(description="seconds after the start of the attempt")
    ended_after: float | None
    log_size: int | None = Field(description="bytes, once the log is closed")
    url: str
    log: LogAddresses


class AttemptFacts(BaseModel):
    attempt: int
    runner: str
    started_at: float | None
    finished_at: float | None
    lost_reason: str
    is_over: bool
    steps: list[StepFacts]


class JobFacts(BaseModel):
    id: int
    name: str
    slug: str
    status: str
    outcome: str | None
    reason: str
    matrix: dict[str, Any]
    attempt: int = Field(description="the present one")
    kept_from: int | None = Field(description="number of the build whose result this job keeps")
    started_at: float | None
    finished_at: float | None
    attempts: list[AttemptFacts]


class WholeBuild(BuildFacts):
    """A build with its jobs, their attempts and steps."""

    problems: list[Mistake]
    config_file: str
    cancel_reason: str = Field(description="not empty once somebody asked for its end")
    needs_approval: bool = Field(description="a stranger's: no job of it starts without an approval")
    rerun_of: int | None = Field(description="the number of the build that it runs again")
    jobs: list[JobFacts]


class ConfigChange(BaseModel):
    file: str
    note: str
    diff: str


class ApprovalFacts(BaseModel):
    """What an approval would let run, and all that it is bound to."""

    reason: str
    binding: str = Field(description="SHA-256 of what is approved; another head, target or file has another")
    pull_request: int | None
    title: str
    link: str
    sender: str
    sender_key: str = Field(description="the forge's own id of the sender")
    source_repo: str
    is_from_fork: bool
    head: str
    target: str
    merge: str
    moved: str = Field(description="why an approval would not hold, or nothing")
    changed_files: list[str] | None
    compared_with: str
    changes_config: bool
    config: list[ConfigChange]


class VerdictBody(BaseModel):
    verdict: str = Field(description="success, failure, cancelled, or pending to run it again")


class RerunBody(BaseModel):
    only: str = Field(default="", description="`failed`: jobs that passed keep their result")


class NewBuildAnswer(BaseModel):
    repo: str
    number: int
    url: str


class RepoFacts(BaseModel):
    repo: str
    forge: str
    is_private: bool
    default_branch: str
    last_build: BuildFacts | None
    url: str


class RepoList(BaseModel):
    repos: list[RepoFacts]


class WholeRepo(RepoFacts):
    branches: list[str]


class RunnerFacts(BaseModel):
    id: int
    name: str
    labels: dict[str, str]
    capacity: int = Field(description="jobs at the same time; 0: its engine does not answer")
    engine: str
    software: str
    is_connected: bool
    is_draining: bool
    is_paused: bool
    lost_leases: int
    registered_at: float
    seen_at: float | None
    running: int = Field(description="how many jobs it has now")
    jobs: list[str] = Field(description="those that you may see: owner/name/number/job")


class RunnerList(BaseModel):
    runners: list[RunnerFacts]


class CodeAnswer(BaseModel):
    code: str = Field(description="registers one runner within an hour; not shown again")


class RemovedRunner(BaseModel):
    removed: str = Field(description="its name")


class QueuedJob(BaseModel):
    id: int
    repo: str
    number: int = Field(description="of the build")
    job: str = Field(description="the job's slug")
    name: str
    status: str
    since: float = Field(description=_TIME)
    labels: dict[str, str]
    why: str = Field(description="why it waits")
    help: str = Field(description="what would help")
    url: str


class QueueAnswer(BaseModel):
    """The oldest first; `after` continues the list, null at its end."""

    jobs: list[QueuedJob]
    hidden: int = Field(description="how many more wait in repos that you may not see")
    after: int | None


class FirstAccount(BaseModel):
    code: str = Field(description="printed by `shipway serve`")
    name: str
    password: str


class FirstAccountAnswer(BaseModel):
    user: str
    token: str


class NewRepo(BaseModel):
    """A repo that lives elsewhere."""

    path: str = Field(description="owner/name on this server")
    clone_url: str


class NewRepoAnswer(BaseModel):
    repo: str
    hook: str = Field(description="where its deliveries go")
    secret: str = Field(description="of the hook; not shown again")


class RepoSettings(BaseModel):
    is_private: bool
    is_enabled: bool = Field(description="false: deliveries are kept, and build nothing")
    is_superseding: bool = Field(description="a newer build of the same ref cancels the older")
    timeout_minutes: int = Field(description="how long a job may take")
    approval: str = Field(description="what waits for an approval: forks, pull_requests")


class RepoSettingsBody(BaseModel):
    is_private: bool | None = None
    is_enabled: bool | None = None
    is_superseding: bool | None = None
    timeout_minutes: int | None = None
    approval: str | None = None


class Delivery(BaseModel):
    id: int
    delivery: str
    received_at: float
    state: str
    verdict: str


class DeliveryList(BaseModel):
    deliveries: list[Delivery]


class Registration(BaseModel):
    """What a new runner sends, once."""

    code: str
    name: str
    labels: dict[str, str]
    capacity: int


class RegistrationAnswer(BaseModel):
    runner: int
    name: str
    server: str
    credential: str = Field(description="the runner's own; not shown again")
