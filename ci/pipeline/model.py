"""The pipeline as the file says it: what parse makes and compile takes. References are not yet filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ci.errors import Problem
from ci.pipeline.problems import Mark

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
class Condition:
    """All of its fields must match; one that is None or empty always does."""

    events: tuple[str, ...] = ()
    branch: Patterns | None = None
    ref: Patterns | None = None
    path: Paths | None = None
    statuses: tuple[str, ...] = SUCCESS


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
class Container:
    """What a step and a service have in common. `environment` is in file order."""

    name: str
    image: str
    mark: Mark
    commands: tuple[str, ...] = ()
    environment: tuple[tuple[str, str | FromSecret], ...] = ()
    when: When = When()


@dataclass(frozen=True, kw_only=True)
class Step(Container):
    """`depends_on` None: the file does not say."""

    depends_on: tuple[str, ...] | None = None
    depends_on_mark: Mark | None = None
    ignore_failure: bool = False
    detach: bool = False
    deploy: bool = False
    timeout_seconds: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)  #: with FromSecret nodes, at any depth

    @property
    def is_plugin(self) -> bool:
        """The image runs what it is made to run."""
        return not self.commands


@dataclass(frozen=True, kw_only=True)
class Service(Container):
    pass


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """One file. `cells` are the rows of its matrix, `({},)` without one; all in file order."""

    file: str
    name: str
    steps: tuple[Step, ...]
    services: tuple[Service, ...] = ()
    when: When = When()
    cells: tuple[dict[str, str], ...] = ({},)
    labels: tuple[tuple[str, str], ...] = ()
    skip_clone: bool = False
    warnings: tuple[Problem, ...] = ()

    @property
    def is_dag(self) -> bool:
        return any(step.depends_on is not None for step in self.steps)
