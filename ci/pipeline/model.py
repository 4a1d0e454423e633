"""The pipeline as the file says it: what parse makes and compile takes. References are not yet filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ci.errors import Problem
from ci.pipeline.problems import Mark
from ci.spec import Pull, Ready, Retry, Rights, Stops, Volume

SUCCESS = ("success",)


@dataclass(frozen=True, kw_only=True)
class Patterns:
    """Matches what one of `include` matches (all, without one) and none of `exclude` does."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Paths:
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    ignore_message: str = ""
    on_empty: bool = True


@dataclass(frozen=True, kw_only=True)
class Words:
    """Matches what is one of `include` (all, without one) and none of `exclude`."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


#: Name -> the patterns of which its value matches one.
Values = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, kw_only=True)
class Condition:
    """All of its fields must match; one that is None or empty always does."""

    events: Words | None = None
    patterns: Mapping[str, Patterns] = field(default_factory=dict)  #: of branch, ref, tag, repo, ...
    path: Paths | None = None
    matrix: Values = ()
    evaluate: str = ""  #: an expression; its references are filled in first
    local: bool | None = None
    statuses: tuple[str, ...] = SUCCESS
    outputs: Values = ()


@dataclass(frozen=True, kw_only=True)
class When:
    """One of the conditions must match; none at all matches always."""

    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FromSecret:
    """`{from_secret: NAME}`, and where it stands."""

    name: str
    mark: Mark


@dataclass(frozen=True, kw_only=True)
class Need:
    """What is waited for. `is_optional`: it need not exist, or may be left out of the build."""

    name: str
    mark: Mark
    is_optional: bool = False


@dataclass(frozen=True, kw_only=True)
class Mount:
    """One of `volume` (a name) and `host` (a path of the machine), at `path`."""

    path: str
    mark: Mark
    volume: str = ""
    host: str = ""
    is_read_only: bool = False


@dataclass(frozen=True, kw_only=True)
class Container:
    """What a step and a service have in common. `environment` is in file order."""

    name: str
    image: str
    mark: Mark
    commands: tuple[str, ...] = ()
    environment: tuple[tuple[str, str | FromSecret], ...] = ()
    environment_files: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)  #: with FromSecret nodes, at any depth
    when: When = When()
    needs: tuple[Need, ...] | None = None  #: None: the file does not say
    needs_mark: Mark | None = None
    entrypoint: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    directory: str = ""
    user: str = ""
    pull: Pull = Pull.MISSING
    mounts: tuple[Mount, ...] = ()
    rights: Rights = field(default_factory=Rights)
    memory_bytes: int | None = None
    cpus: float | None = None


@dataclass(frozen=True, kw_only=True)
class Step(Container):
    ignore_failure: bool = False
    failure_stops: Stops = Stops.NOTHING
    detach: bool = False
    deploy: bool = False
    is_clone: bool = False  #: of `clone`: fills the workspace before all others
    timeout_seconds: int | None = None
    no_output_seconds: int | None = None
    retry: Retry | None = None
    stop_on_exit: tuple[int, ...] = ()

    @property
    def is_plugin(self) -> bool:
        """The image runs what it is made to run."""
        return not self.commands


@dataclass(frozen=True, kw_only=True)
class Service(Container):
    ready: Ready | None = None


@dataclass(frozen=True, kw_only=True)
class CloneOptions:
    """None: as the repo's setting says."""

    depth: int | None = None
    tags: bool = False


@dataclass(frozen=True, kw_only=True)
class Group:
    """A concurrency group; its name is filled in, and without one the pipeline's is taken."""

    name: str = ""
    limit: int = 1
    cancels: bool = False


@dataclass(frozen=True, kw_only=True)
class Input:
    """A value that a person gives to a build by hand. `type` is text, number, flag or choice."""

    name: str
    mark: Mark
    type: str = "text"
    default: str | None = None
    options: tuple[str, ...] = ()
    is_required: bool = False
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """One file, or one document of a file. `cells` are the rows of its matrix, `({},)` without one; all in
    file order. `needs` are names of pipelines of the same build."""

    file: str
    name: str
    steps: tuple[Step, ...]
    mark: Mark = field(default_factory=Mark)
    clones: tuple[Step, ...] = ()  #: in place of our own clone, one after the other
    services: tuple[Service, ...] = ()
    when: When = When()
    needs: tuple[Need, ...] = ()
    run_on: tuple[str, ...] = ()  #: empty: as `when` says
    cells: tuple[dict[str, str], ...] = ({},)
    labels: tuple[tuple[str, str], ...] = ()
    environment: tuple[tuple[str, str | FromSecret], ...] = ()
    timeout_seconds: int | None = None
    skip_clone: bool = False
    clone: CloneOptions = field(default_factory=CloneOptions)
    workspace: str = "/workspace"
    path: str = ""  #: below `workspace`
    volumes: tuple[Volume, ...] = ()
    pull_secrets: tuple[FromSecret, ...] = ()
    concurrency: Group | None = None
    inputs: tuple[Input, ...] = ()
    is_lenient: bool = False  #: a need or a variable that nobody knows is no error
    warnings: tuple[Problem, ...] = ()

    @property
    def is_dag(self) -> bool:
        return any(step.needs is not None for step in self.steps)
