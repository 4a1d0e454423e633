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
    depends_on: list[str] = Field(description="slugs of the jobs of the build that it waits for")
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
    state: str = Field(
        description="offline, drained, draining, paused, no engine, working or idle: the first that is so"
    )
    says: str = Field(description="what that means, where the word does not say it all")
    running: int = Field(description="how many jobs it has now")
    jobs: list[str] = Field(description="those that you may see: owner/name/number/job")


class RunnerList(BaseModel):
    runners: list[RunnerFacts]


class LostJob(BaseModel):
    job: str = Field(description="owner/name/number/job")
    attempt: int
    at: float | None = Field(description=_TIME)
    reason: str


class WholeRunner(RunnerFacts):
    lost: list[LostJob] = Field(
        description="the newest that it had begun and did not end, those that you may see"
    )


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
    """Of a GitHub repo, path is the one that it has there; the rest comes from there."""

    path: str = Field(description="owner/name, or the name alone for one of your own")
    forge: str = Field(
        default="", description="builtin, github or git; left out: git with a clone_url, else builtin"
    )
    clone_url: str = Field(default="", description="of git: http or https")
    api_url: str = Field(default="", description="of github: where its API is, if it is not github.com")
    token: str = Field(default="", description="of github: one that may read the repo")
    kind: str = Field(default="", description="of git: token or password, if it is not public")
    user: str = Field(default="", description="of git: beside a password")
    value: str = Field(default="", description="of git: the token or the password")
    is_private: bool = Field(default=True, description="of builtin: who has no role does not see it")


class NewRepoAnswer(BaseModel):
    repo: str
    hook: str = Field(description="where its deliveries go; empty: the built-in git needs none")
    secret: str = Field(description="of the hook; not shown again")


class RepoSettings(BaseModel):
    is_private: bool
    is_enabled: bool = Field(description="false: deliveries are kept, and build nothing")
    is_superseding: bool = Field(description="a newer build of the same ref cancels the older")
    builds_merge: bool = Field(description="pull requests are built merged with their target branch")
    lends_files: bool = Field(description="private, and other repos of its owner may include its files")
    trusts_network: bool = Field(description="its files may ask for dns, extra_hosts, network_mode")
    trusts_volumes: bool = Field(description="... for folders and devices of the machine, tmpfs, memory")
    trusts_security: bool = Field(description="... for privileged containers")
    timeout_minutes: int = Field(description="how long a job may take")
    keep_builds_days: int = Field(description="older builds are removed; 0: never")
    keep_logs_days: int = Field(description="older logs are removed; 0: never")
    approval: str = Field(description="what waits for an approval: forks, pull_requests")
    config_path: str = Field(description="a file, or a folder with / at its end; empty: the usual lookup")


class RepoSettingsBody(BaseModel):
    is_private: bool | None = None
    is_enabled: bool | None = None
    is_superseding: bool | None = None
    builds_merge: bool | None = None
    lends_files: bool | None = None
    trusts_network: bool | None = Field(default=None, description="for a server admin, as the two below")
    trusts_volumes: bool | None = None
    trusts_security: bool | None = None
    timeout_minutes: int | None = None
    keep_builds_days: int | None = None
    keep_logs_days: int | None = None
    approval: str | None = None
    config_path: str | None = None


class CredentialBody(BaseModel):
    kind: str = Field(description="token or password; empty: none any more")
    user: str = Field(default="", description="beside a password")
    value: str = ""


class HookFacts(BaseModel):
    id: str
    hook: str = Field(description="where its deliveries go")
    forge: str
    old_secret_until: float | None = Field(
        description="until then the secret before the present one signs too"
    )
    last_refusal: str = Field(description="why the last delivery that was refused was")
    last_refused_at: float | None


class HookList(BaseModel):
    hooks: list[HookFacts]


class HookAnswer(BaseModel):
    hook: str
    secret: str = Field(description="not shown again")


class DeleteBody(BaseModel):
    path: str = Field(description="owner/name of the repo, once more")


class Delivery(BaseModel):
    id: int
    delivery: str = Field(description="the forge's id of it, or ours")
    by: str = Field(description="git push, schedule or hook")
    event: str = Field(description="the forge's word for what happened")
    what: str = Field(description="the same in our words")
    received_at: float
    size: int = Field(description="bytes of the body")
    state: str = Field(
        description="received, processed, failed; kept: it made builds that are removed by now"
    )
    verdict: str
    builds: list[int] = Field(description="numbers of the builds that it made")
    is_replayable: bool


class WholeDelivery(Delivery):
    body: str = Field(description="JSON, without what looks like a secret")


class DeliveryList(BaseModel):
    """The newest first."""

    deliveries: list[Delivery]


class RunBody(BaseModel):
    branch: str = Field(default="", description="left out: the default branch")
    variables: dict[str, str] = Field(default={}, description="or a list of NAME=value texts")


class ScheduleBody(BaseModel):
    name: str | None = None
    cron: str | None = Field(default=None, description="five fields, such as 30 2 * * *")
    time_zone: str | None = Field(default=None, description="such as Europe/Berlin; UTC where left out")
    branch: str | None = Field(default=None, description="empty: the default branch")
    is_enabled: bool | None = None


class ScheduleFacts(BaseModel):
    id: int
    name: str
    cron: str
    meaning: str = Field(description="the same in words")
    time_zone: str
    branch: str
    is_enabled: bool
    next_at: float | None
    last_at: float | None
    last_verdict: str = Field(description="built #12, or why nothing was built")
    created_by: str


class ScheduleList(BaseModel):
    schedules: list[ScheduleFacts]


class Registration(BaseModel):
    """What a new runner sends, once."""

    code: str
    name: str
    labels: dict[str, str]
    capacity: int
    credential: str = Field(
        default="", description="made by the runner, so that it may ask again; left out: the server makes it"
    )


class RegistrationAnswer(BaseModel):
    runner: int
    name: str
    server: str
    credential: str = Field(description="the runner's own; not shown again")
