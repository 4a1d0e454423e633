"""JobSpec: the compiled job. Plain data: what a runner needs to run one job, and nothing of the YAML.

A spec names secrets and holds none. It is stored with the build and sent with the assignment.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

#: Exit codes at which a step of ours ended without its own code.
EXIT_GATE_BROKEN = 125


class StepKind(StrEnum):
    CLONE = "clone"  #: made by the runner itself, no container
    COMMANDS = "commands"
    PLUGIN = "plugin"  #: runs the image's own entrypoint
    SERVICE = "service"


class Pull(StrEnum):
    """When an engine asks the registry for an image."""

    ALWAYS = "always"
    MISSING = "missing"  #: only where the machine does not have it
    NEVER = "never"


class Stops(StrEnum):
    """What the failure of a step ends beside itself."""

    NOTHING = ""  #: the steps that wait for it are skipped, the others go on
    JOB = "job"  #: what still runs of the job is stopped; steps that run on failure still do
    BUILD = "build"  #: the same, and the other jobs of the build are cancelled


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Limits(_Data):
    """What one container may use. None: what the runner's machine can spare."""

    memory_bytes: int | None = None
    pids: int = 4096
    cpus: float | None = None
    log_bytes: int = 1 << 30


class Volume(_Data):
    """A folder that the steps of one job share beside the workspace; it ends with the job."""

    name: str
    is_memory: bool = False
    size_bytes: int | None = None


class Mount(_Data):
    """What a container sees at `path`: a volume of the job, or (law 8: only by a switch) a host's folder."""

    path: str
    volume: str = ""  #: the name of one of the job's volumes
    host: str = ""  #: or an absolute path of the runner's machine
    is_read_only: bool = False


class Device(_Data):
    path: str  #: in the container
    host: str


class Rights(_Data):
    """What a container has beyond the sandbox (law 8). Each needs a switch that a server admin set."""

    is_privileged: bool = False
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()  #: `name:address`
    network_mode: str = ""
    devices: tuple[Device, ...] = ()
    tmpfs: tuple[str, ...] = ()  #: paths, each with options after a colon
    shm_bytes: int | None = None


class Trust(_Data):
    """What a server admin allows a repo beyond the sandbox. Never anything in a build of a fork."""

    network: bool = False  #: dns, dns_search, extra_hosts, network_mode
    volumes: bool = False  #: folders and devices of the machine, tmpfs, volumes in memory, shm_size
    security: bool = False  #: privileged
    privileged_plugins: tuple[str, ...] = ()  #: image repositories; for a plugin told by settings alone


class Retry(_Data):
    """A step is run again, up to `attempts` runs in all, with a pause that doubles from `pause_seconds`."""

    attempts: int
    pause_seconds: float = 0
    on_any_failure: bool = True  #: False: only where the step ended in an error of ours


class Ready(_Data):
    """How to tell that a service is ready: one of `port` (TCP, by the service's own address) and `command`
    (exit 0, by the image's shell); neither: the image's own HEALTHCHECK."""

    port: int | None = None
    command: str = ""
    interval_seconds: float = 1
    timeout_seconds: float = 60

    @property
    def is_of_image(self) -> bool:
        return self.port is None and not self.command


class Wanted(_Data):
    """Values that earlier steps must have put out: each name has one of its patterns (globs)."""

    run_on: tuple[str, ...] = ("success",)
    outputs: dict[str, tuple[str, ...]] = Field(default_factory=dict)


class Concurrency(_Data):
    """At most `limit` jobs of the same `group` of a repo run at the same time; the others wait in the order
    of their builds. `cancels`: a newer job does not wait, the older ones of the group are cancelled."""

    group: str
    limit: int = 1
    cancels: bool = False


class StepSpec(_Data):
    """One container. `number` is its place in the job (clone is 0) and, with the attempt, names its log.

    `depends_on` holds slugs of steps of the same job, `clone` included where it is waited for; the
    step starts the moment all of them have ended. `run_on` is matched against the worst status of
    all its ancestors. A step with a `skip_reason` is in nobody's `depends_on`.
    """

    number: int
    name: str
    slug: str
    kind: StepKind
    image: str = ""
    commands: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()  #: in place of the image's own, or of the shell that runs `commands`
    arguments: tuple[str, ...] = ()  #: in place of the image's CMD; never beside `commands`
    directory: str = ""  #: where it starts: absolute; empty: the job's directory, or a plugin's own
    user: str = ""  #: name or id, or `user:group`; empty: the image's
    pull: Pull = Pull.MISSING
    mounts: tuple[Mount, ...] = ()
    rights: Rights = Rights()
    environment: dict[str, str] = Field(default_factory=dict)
    secrets: dict[str, str] = Field(default_factory=dict)  #: variable -> name of the secret it holds
    settings: dict[str, Any] = Field(default_factory=dict)  #: of a plugin; see ci.settings for its encoding
    depends_on: tuple[str, ...] = ()
    run_on: tuple[str, ...] = ("success",)  #: "success", "failure" or both
    wanted_outputs: tuple[Wanted, ...] = ()  #: one of them must hold; none at all: nothing is asked
    ignore_failure: bool = False
    failure_stops: Stops = Stops.NOTHING
    stop_on_exit: tuple[int, ...] = ()  #: exit codes that end the job here: the rest is skipped, all is well
    retry: Retry | None = None
    ready: Ready | None = None  #: of a service
    environment_files: tuple[str, ...] = ()  #: dotenv files of the workspace, read when the step starts
    detach: bool = False
    deploy: bool = False  #: has side effects outside: at most once, never retried by us
    timeout_seconds: int | None = None
    no_output_seconds: int | None = None  #: it is stopped when it prints nothing for so long
    skip_reason: str = ""  #: why it is left out of this build; it is shown and never run
    limits: Limits = Limits()

    @property
    def is_told_by_settings_alone(self) -> bool:
        """A plugin by its settings alone: nothing in the file can change what its image does."""
        own = [name for name in self.environment if not name.startswith("CI_")]
        has_more = self.commands or self.secrets or self.entrypoint or self.arguments or self.mounts
        return self.kind is StepKind.PLUGIN and not has_more and not own and not self.environment_files


class CloneSpec(_Data):
    """What the workspace is filled with. `ref` is fetched if the server does not serve bare commits."""

    url: str
    sha: str
    ref: str
    depth: int = 1  #: commits; 0 is all of them
    tags: bool = False  #: all tags too
    repo_key: str  #: names the bare cache on the runner; stable over renames


class JobSpec(_Data):
    """One pipeline x one matrix cell. `steps` holds clone (if any) first, then steps in file order,
    then services; slugs are unique within the job."""

    name: str
    slug: str
    labels: dict[str, str] = Field(default_factory=dict)
    matrix: dict[str, str] = Field(default_factory=dict)
    environment: dict[str, str] = Field(default_factory=dict)  #: plain variables, and CI_* of the whole job
    workspace: str = "/workspace"  #: where the volume is mounted
    directory: str = "/workspace"  #: where the clone lies and commands run: `workspace` or below it
    volumes: tuple[Volume, ...] = ()
    depends_on: tuple[str, ...] = ()  #: slugs of jobs of the same build
    run_on: tuple[str, ...] = ("success",)  #: matched against the worst end of those jobs
    concurrency: Concurrency | None = None
    trust: Trust = Trust()
    pull_secrets: tuple[str, ...] = ()  #: secrets that hold a Docker config.json with registry credentials
    timeout_seconds: int = 3600
    grace_seconds: int = 10
    clone: CloneSpec | None = None
    is_trusted: bool = True  #: False: a stranger's code (law 8)
    steps: tuple[StepSpec, ...]

    @property
    def services(self) -> tuple[StepSpec, ...]:
        return tuple(step for step in self.steps if step.kind is StepKind.SERVICE)

    @property
    def has_side_effects(self) -> bool:
        return any(step.deploy for step in self.steps)

    def step(self, slug: str) -> StepSpec:
        return next(step for step in self.steps if step.slug == slug)
