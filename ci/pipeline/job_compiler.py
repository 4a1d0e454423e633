"""Job compiler: one pipeline of a build in, a JobSpec for each cell of its matrix out."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from ci import environ, glob
from ci.environ import Context
from ci.errors import ConfigError, Problem
from ci.event import Event
from ci.pipeline import inputs, slug, substitute, when
from ci.pipeline.expression import BadExpression
from ci.pipeline.matrix import Cell
from ci.pipeline.model import Container, Pipeline, When
from ci.pipeline.problems import Mark, shown
from ci.pipeline.step_compiler import SecretUse, StepCompiler
from ci.pipeline.when import Verdict
from ci.spec import CloneSpec, Concurrency, JobSpec, StepSpec, Trust

_MAX_NAME = 200
#: Of patterns with references, over all cells; each is compiled anew for each cell.
_MAX_PATTERN_CHARACTERS = 32_000
_NOT_OF_A_PATH = re.compile(r"[^A-Za-z0-9_./@+,=-]")


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A pipeline, a cell of it, or a step that the event leaves out, and why."""

    pipeline: str
    file: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """What an event starts. `skipped` says why there is no job at all; empty where there is one."""

    jobs: tuple[JobSpec, ...] = ()
    skipped: str = ""
    warnings: tuple[Problem, ...] = ()
    secrets: tuple[SecretUse, ...] = ()
    left_out: tuple[LeftOut, ...] = ()


@dataclass(kw_only=True)
class Build:
    """What the pipelines of one build share: names that are taken, and room that is left."""

    event: Event
    context: Context
    is_local: bool = False
    slugs: slug.Slugs = field(default_factory=slug.Slugs)
    room: list[int] = field(default_factory=lambda: [substitute.MAX_PASTED])
    pattern_characters: int = 0
    jobs: list[JobSpec] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    secrets: list[SecretUse] = field(default_factory=list)

    def warn(self, problems: Iterable[Problem]) -> None:
        self.warnings += [problem for problem in problems if problem not in self.warnings]

    def leave_out(self, pipeline: Pipeline, reason: str) -> None:
        """The same sentence of many cells is said once."""
        found = LeftOut(pipeline=pipeline.name, file=pipeline.file, reason=reason)
        if found not in self.left_out:
            self.left_out.append(found)

    def compiled(self) -> Compiled:
        sentences = dict.fromkeys(f"{each.file} has nothing to run: {each.reason}" for each in self.left_out)
        return Compiled(
            jobs=tuple(self.jobs),
            skipped="" if self.jobs else "; ".join(sentences),
            warnings=tuple(self.warnings),
            secrets=tuple(dict.fromkeys(self.secrets)),
            left_out=tuple(self.left_out),
        )


def wrong(pipeline: Pipeline, mark: Mark, message: str) -> ConfigError:
    return ConfigError([mark.problem(pipeline.file, message)])


@dataclass(frozen=True, kw_only=True)
class _Planned:
    """A cell that makes a job, and how its containers were decided."""

    cell: Cell
    verdict: Verdict
    verdicts: dict[int, Verdict]


class PipelineCompiler:
    """Decides first, so that pipelines which wait for this one know whether it runs; then makes the jobs."""

    def __init__(self, build: Build, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self._build = build
        try:
            event = inputs.with_inputs(build.event, pipeline.inputs)
        except inputs.WrongInput as error:
            raise wrong(pipeline, error.mark, str(error)) from error
        self._event = self._with_comparable_files(event)
        self._decided: dict[int, Verdict] = {}
        self._planned: list[_Planned] = []
        self.reasons: list[str] = []  #: why cells are left out, each once
        for cell in pipeline.cells:
            self._plan(cell)

    @property
    def runs(self) -> bool:
        return bool(self._planned)

    def compile(self) -> list[JobSpec]:
        return [self._job(planned) for planned in self._planned]

    # --- what runs ----------------------------------------------------------------------------------

    @property
    def _containers(self) -> tuple[Container, ...]:
        return (*self.pipeline.clones, *self.pipeline.steps, *self.pipeline.services)

    def _plan(self, cell: Cell) -> None:
        facts = self._facts(job_number=1)
        fill = substitute.for_cell(facts, cell, self._build.room)
        verdict = self._decide(self.pipeline.when, self.pipeline.mark, facts, fill, cell)
        if not verdict.matches:
            return self._leave_out(verdict.reason)
        verdicts = {
            id(item): self._decide(item.when, item.mark, facts, fill, cell) for item in self._containers
        }
        left_out = {step.name: verdicts[id(step)].reason for step in self.pipeline.steps}
        if all(left_out.values()):
            first = next(iter(left_out))
            return self._leave_out(f"none of its steps matches; step {shown(first)}: {left_out[first]}")
        self._planned.append(_Planned(cell=cell, verdict=verdict, verdicts=verdicts))
        return None

    def _leave_out(self, reason: str) -> None:
        if reason not in self.reasons:
            self.reasons.append(reason)

    def _decide(
        self, condition: When, mark: Mark, facts: environ.Facts, fill: substitute.Substitution, cell: Cell
    ) -> Verdict:
        """Once a pipeline, or once a cell where a cell can change it."""
        if not condition.conditions:
            return Verdict()
        if id(condition) in self._decided:
            return self._decided[id(condition)]
        is_same_in_all = not when.depends_on_cell(condition)
        if not is_same_in_all:
            condition = when.substituted(condition, lambda text: self._pattern(text, fill), fill.quoted)
        try:
            verdict = when.decide(condition, self._scene(facts, fill, cell))
        except BadExpression as error:
            raise wrong(self.pipeline, mark, f'"evaluate": {error}') from error
        if is_same_in_all:
            self._decided[id(condition)] = verdict
        return verdict

    def _scene(self, facts: environ.Facts, fill: substitute.Substitution, cell: Cell) -> when.Scene:
        context = self._build.context
        platform = dict(self.pipeline.labels).get("platform", "")
        return when.Scene(
            event=self._event,
            repo=f"{context.owner}/{context.name}",
            instance=urlsplit(context.system_url).hostname or "" if context.system_url else "",
            platform=fill.text(platform) or "linux/amd64",
            cell=cell,
            variables={name: value for name, value in {**fill.outside, **fill.values}.items() if value},
            is_local=self._build.is_local,
        )

    def _pattern(self, text: str, fill: substitute.Substitution) -> str:
        pattern = fill.pattern(text)
        self._build.pattern_characters += glob.weight(pattern)
        if self._build.pattern_characters > _MAX_PATTERN_CHARACTERS:
            raise glob.BadPattern(
                "the patterns with ${...} in them are too long, over all jobs of the matrix"
            )
        return pattern

    def _with_comparable_files(self, event: Event) -> Event:
        whens = (self.pipeline.when, *(item.when for item in self._containers))
        patterns = sum(when.path_characters(item) for item in whens)
        files = sum(len(file) for file in event.changed_files or ())
        if patterns * files <= when.MAX_COMPARED:
            return event
        message = "too many files changed to compare them with so many patterns: every path filter matches"
        self._build.warn([Problem(message=message, file=self.pipeline.file, is_warning=True)])
        return event.model_copy(update={"changed_files": None})

    # --- the jobs -------------------------------------------------------------------------------------

    def _facts(self, job_number: int) -> environ.Facts:
        return environ.Facts(
            event=self._event,
            context=self._build.context,
            pipeline=self.pipeline.name,
            job_number=job_number,
            workspace=self.pipeline.workspace,
        )

    def _job(self, planned: _Planned) -> JobSpec:
        build, pipeline, cell = self._build, self.pipeline, planned.cell
        name = _job_name(pipeline.name, cell)
        job_slug = build.slugs.take(name)
        facts = self._facts(len(build.jobs) + 1)
        directory = self._directory(substitute.for_cell(facts, cell, build.room))
        facts = replace(facts, workspace=directory)
        fill = substitute.for_cell(facts, cell, build.room)
        compiler = StepCompiler(pipeline, facts, fill, planned.verdicts, cell, job_slug)
        spec = self._spec(planned, name, job_slug, facts, fill, compiler.steps())
        build.secrets += compiler.secrets
        build.jobs.append(spec)
        return spec

    def _directory(self, fill: substitute.Substitution) -> str:
        """Where the clone lies: values may be pasted into it, and never lead out of the workspace."""
        path = _NOT_OF_A_PATH.sub("-", fill.text(self.pipeline.path))
        return posixpath.normpath(self.pipeline.workspace + posixpath.normpath("/" + path))

    def _spec(
        self,
        planned: _Planned,
        name: str,
        job_slug: str,
        facts: environ.Facts,
        fill: substitute.Substitution,
        steps: tuple[StepSpec, ...],
    ) -> JobSpec:
        context, pipeline = self._build.context, self.pipeline
        labels = {key: fill.text(value) for key, value in pipeline.labels}
        timeout = min(pipeline.timeout_seconds or context.timeout_seconds, context.timeout_seconds)
        trust = Trust() if self._event.is_untrusted else context.trust
        return JobSpec(
            name=name,
            slug=job_slug,
            labels={key: value for key, value in labels.items() if value},
            matrix=planned.cell,
            environment={**context.variables, **environ.made(facts, environ.Scope.JOB)},
            workspace=pipeline.workspace,
            directory=facts.workspace,
            volumes=pipeline.volumes,
            timeout_seconds=timeout,
            grace_seconds=context.grace_seconds,
            clone=self._clone() if self._has_own_clone else None,
            is_trusted=not self._event.is_untrusted,
            run_on=pipeline.run_on or planned.verdict.statuses,
            concurrency=self._concurrency(fill),
            trust=trust,
            pull_secrets=tuple(secret.name.lower() for secret in pipeline.pull_secrets),
            steps=steps,
        )

    @property
    def _has_own_clone(self) -> bool:
        return not self.pipeline.skip_clone and not self.pipeline.clones

    def _clone(self) -> CloneSpec:
        context, options = self._build.context, self.pipeline.clone
        return CloneSpec(
            url=context.clone_url,
            sha=self._event.sha,
            ref=self._event.ref,
            depth=context.clone_depth if options.depth is None else options.depth,
            tags=options.tags,
            repo_key=context.repo_key,
        )

    def _concurrency(self, fill: substitute.Substitution) -> Concurrency | None:
        group = self.pipeline.concurrency
        if group is None:
            return None
        name = " ".join(fill.text(group.name).split())[:_MAX_NAME] or self.pipeline.name
        if self._event.is_untrusted:  # it neither holds nor cancels what the repo's own builds do
            name = f"{name} (forks)"
        return Concurrency(group=name, limit=group.limit, cancels=group.cancels)


def _job_name(pipeline: str, cell: Cell) -> str:
    """`ci`, or `ci (1.20, pg)`."""
    values = ", ".join(value for value in cell.values() if value)
    return f"{pipeline} ({values})"[:_MAX_NAME] if values else pipeline
