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


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Limits(_Data):
    """What one container may use. None: what the runner's machine can spare."""

    memory_bytes: int | None = None
    pids: int = 4096
    cpus: float | None = None
    log_bytes: int = 1 << 30


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
    environment: dict[str, str] = Field(default_factory=dict)
    secrets: dict[str, str] = Field(default_factory=dict)  #: variable -> name of the secret it holds
    settings: dict[str, Any] = Field(default_factory=dict)  #: of a plugin; see ci.settings for its encoding
    depends_on: tuple[str, ...] = ()
    run_on: tuple[str, ...] = ("success",)  #: "success", "failure" or both
    ignore_failure: bool = False
    detach: bool = False
    deploy: bool = False  #: has side effects outside: at most once, never retried by us
    timeout_seconds: int | None = None
    skip_reason: str = ""  #: why it is left out of this build; it is shown and never run
    limits: Limits = Limits()

    @property
    def is_told_by_settings_alone(self) -> bool:
        """A plugin by its settings alone: nothing in the file can change what its image does."""
        own = [name for name in self.environment if not name.startswith("CI_")]
        return self.kind is StepKind.PLUGIN and not self.commands and not self.secrets and not own


class CloneSpec(_Data):
    """What the workspace is filled with. `ref` is fetched if the server does not serve bare commits."""

    url: str
    sha: str
    ref: str
    depth: int = 1
    repo_key: str  #: names the bare cache on the runner; stable over renames


class JobSpec(_Data):
    """One pipeline x one matrix cell. `steps` holds clone (if any) first, then steps in file order,
    then services; slugs are unique within the job."""

    name: str
    slug: str
    labels: dict[str, str] = Field(default_factory=dict)
    matrix: dict[str, str] = Field(default_factory=dict)
    environment: dict[str, str] = Field(default_factory=dict)  #: plain variables, and CI_* of the whole job
    workspace: str = "/workspace"
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
