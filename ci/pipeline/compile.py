"""Compile: pipelines and an event in, JobSpecs out. The server compiles; no runner sees YAML (law 7)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ci import environ, graph
from ci.environ import Context
from ci.errors import ConfigError, Problem
from ci.event import Event
from ci.pipeline import glob, slug, substitute, when
from ci.pipeline.containers import IMAGE
from ci.pipeline.matrix import MAX_CELLS, Cell
from ci.pipeline.model import Container, FromSecret, Pipeline, Service, Step, When
from ci.pipeline.parse import MAX_STEPS, name_of, parse
from ci.pipeline.problems import Mark, shown
from ci.pipeline.when import Verdict
from ci.settings import FROM_SECRET
from ci.spec import CloneSpec, JobSpec, StepKind, StepSpec

WORKSPACE = "/workspace"
CLONE = "clone"
_MAX_NAME = 200
#: Of patterns with references, over all cells; each is compiled anew for each cell.
_MAX_PATTERN_CHARACTERS = 32_000


@dataclass(frozen=True, kw_only=True)
class SecretUse:
    """A secret that a step of a job names, and where its file does."""

    name: str
    step: str
    image: str
    is_told_by_settings_alone: bool
    file: str
    mark: Mark


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """What an event starts. `skipped` says why there is no job at all; empty where there is one."""

    jobs: tuple[JobSpec, ...] = ()
    skipped: str = ""
    warnings: tuple[Problem, ...] = ()
    secrets: tuple[SecretUse, ...] = ()


@dataclass(kw_only=True)
class _Build:
    """What the pipelines of one build share: names that are taken, and room that is left."""

    event: Event
    context: Context
    slugs: slug.Slugs = field(default_factory=slug.Slugs)
    room: list[int] = field(default_factory=lambda: [substitute.MAX_PASTED])
    pattern_characters: int = 0
    jobs: list[JobSpec] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    secrets: list[SecretUse] = field(default_factory=list)

    def compiled(self) -> Compiled:
        skipped = "" if self.jobs else "; ".join(self.left_out)
        return Compiled(
            jobs=tuple(self.jobs),
            skipped=skipped,
            warnings=tuple(self.warnings),
            secrets=tuple(dict.fromkeys(self.secrets)),
        )


def build_jobs(files: Mapping[str, str], event: Event, context: Context) -> Compiled:
    """The jobs of a build: one pipeline a file, one job a cell, in the order of the file names.

    Raises ConfigError with the problems of all files.
    """
    if not files:
        message = (
            "there is no pipeline file at this commit; add .ci.yml, or .ci/ with a file for each pipeline"
        )
        raise ConfigError([Problem(message=message)])
    pipelines, problems = _parsed(files, event)
    if problems:
        raise ConfigError(problems)
    return _compiled(pipelines, event, context)


def compile_pipeline(pipeline: Pipeline, event: Event, context: Context) -> Compiled:
    """The jobs of one pipeline. Raises ConfigError for what is wrong only once values are filled in."""
    return _compiled([pipeline], event, context)


def _parsed(files: Mapping[str, str], event: Event) -> tuple[list[Pipeline], list[Problem]]:
    pipelines: list[Pipeline] = []
    problems: list[Problem] = []
    for file, text in sorted(files.items(), key=lambda item: (name_of(item[0]), item[0])):
        try:
            pipelines.append(parse(text, file=file, variables=event.variables))
        except ConfigError as error:
            problems += error.problems
    return pipelines, problems


def _compiled(pipelines: Iterable[Pipeline], event: Event, context: Context) -> Compiled:
    build = _Build(event=event, context=context)
    for pipeline in pipelines:
        build.warnings += pipeline.warnings
        try:
            _PipelineCompiler(build, pipeline).compile()
        except (substitute.TooMuchText, glob.BadPattern) as error:
            raise _wrong(pipeline, Mark(), str(error)) from error
        steps = sum(len(job.steps) for job in build.jobs)
        if len(build.jobs) > MAX_CELLS or steps > MAX_STEPS + MAX_CELLS:
            message = (
                f"the build has {len(build.jobs)} jobs and {steps:,} steps; {MAX_CELLS} and {MAX_STEPS:,}"
            )
            raise _wrong(pipeline, Mark(), f"{message} are the most")
    return build.compiled()


def _wrong(pipeline: Pipeline, mark: Mark, message: str) -> ConfigError:
    problem = Problem(message=message, file=pipeline.file, line=mark.line, column=mark.column)
    return ConfigError([problem])


class _PipelineCompiler:
    """One pipeline: decides its `when`, then makes a job of each cell."""

    def __init__(self, build: _Build, pipeline: Pipeline) -> None:
        self._build = build
        self._pipeline = pipeline
        self._event = self._with_comparable_files(build.event)
        self._decided: dict[int, Verdict] = {}

    def compile(self) -> None:
        for cell in self._pipeline.cells:
            name = _job_name(self._pipeline.name, cell)
            reason = self._job(cell, name)
            if reason:
                # The same sentence of many cells is said once.
                sentence = f"{self._pipeline.file} has nothing to run: {reason}"
                if sentence not in self._build.left_out:
                    self._build.left_out.append(sentence)

    def _job(self, cell: Cell, name: str) -> str:
        """Adds the job of a cell, or says why there is none."""
        build = self._build
        facts = environ.Facts(
            event=self._event,
            context=build.context,
            pipeline=self._pipeline.name,
            job_number=len(build.jobs) + 1,
            workspace=WORKSPACE,
        )
        fill = substitute.for_cell(facts, cell, build.room)
        verdict = self._decide(self._pipeline.when, fill)
        if not verdict.matches:
            return verdict.reason
        verdicts = {id(item): self._decide(item.when, fill) for item in self._containers}
        left_out = {step.name: verdicts[id(step)].reason for step in self._pipeline.steps}
        if all(left_out.values()):
            first = next(iter(left_out))
            return f"none of its steps matches; step {shown(first)}: {left_out[first]}"
        job_slug = build.slugs.take(name)
        compiler = _JobCompiler(self._pipeline, facts, fill, verdicts, cell, job_slug)
        build.jobs.append(self._spec(name, job_slug, cell, facts, fill, compiler.steps()))
        build.secrets += compiler.secrets
        return ""

    @property
    def _containers(self) -> tuple[Container, ...]:
        return (*self._pipeline.steps, *self._pipeline.services)

    def _spec(
        self,
        name: str,
        job_slug: str,
        cell: Cell,
        facts: environ.Facts,
        fill: substitute.Substitution,
        steps: tuple[StepSpec, ...],
    ) -> JobSpec:
        context = self._build.context
        labels = {key: fill.text(value) for key, value in self._pipeline.labels}
        return JobSpec(
            name=name,
            slug=job_slug,
            labels={key: value for key, value in labels.items() if value},
            matrix=cell,
            environment={**context.variables, **environ.made(facts, environ.Scope.JOB)},
            workspace=WORKSPACE,
            timeout_seconds=context.timeout_seconds,
            grace_seconds=context.grace_seconds,
            clone=None if self._pipeline.skip_clone else _clone(self._event, context),
            is_trusted=not self._event.is_untrusted,
            steps=steps,
        )

    def _decide(self, condition: When, fill: substitute.Substitution) -> Verdict:
        """Once a pipeline, or once a cell where the patterns have references."""
        if id(condition) in self._decided:
            return self._decided[id(condition)]
        if not when.has_references(condition):
            verdict = self._decided[id(condition)] = when.decide(condition, self._event)
            return verdict
        return when.decide(when.substituted(condition, lambda text: self._pattern(text, fill)), self._event)

    def _pattern(self, text: str, fill: substitute.Substitution) -> str:
        pattern = fill.pattern(text)
        self._build.pattern_characters += glob.weight(pattern)
        if self._build.pattern_characters > _MAX_PATTERN_CHARACTERS:
            raise glob.BadPattern(
                "the patterns with ${...} in them are too long, over all jobs of the matrix"
            )
        return pattern

    def _with_comparable_files(self, event: Event) -> Event:
        whens = (self._pipeline.when, *(item.when for item in self._containers))
        patterns = sum(when.path_characters(item) for item in whens)
        files = sum(len(file) for file in event.changed_files or ())
        if patterns * files <= when.MAX_COMPARED:
            return event
        message = "too many files changed to compare them with so many patterns: every path filter matches"
        self._build.warnings.append(Problem(message=message, file=self._pipeline.file, is_warning=True))
        return event.model_copy(update={"changed_files": None})


def _job_name(pipeline: str, cell: Cell) -> str:
    """`ci`, or `ci (1.20, pg)`."""
    values = ", ".join(value for value in cell.values() if value)
    return f"{pipeline} ({values})"[:_MAX_NAME] if values else pipeline


def _clone(event: Event, context: Context) -> CloneSpec:
    return CloneSpec(
        url=context.clone_url,
        sha=event.sha,
        ref=event.ref,
        depth=context.clone_depth,
        repo_key=context.repo_key,
    )


class _JobCompiler:
    """The steps of one job."""

    def __init__(
        self,
        pipeline: Pipeline,
        facts: environ.Facts,
        fill: substitute.Substitution,
        verdicts: Mapping[int, Verdict],
        cell: Cell,
        job_slug: str,
    ) -> None:
        self._pipeline = pipeline
        self._facts = facts
        self._fill = fill
        self._verdicts = verdicts
        self._cell = cell
        self._job_slug = job_slug
        self._slugs = self._taken_slugs()
        self.secrets: list[SecretUse] = []  #: what the steps that run read, noted by steps()

    def _taken_slugs(self) -> dict[int, str]:
        """Services first: their slug is a host name, and should be what the file says."""
        slugs = slug.Slugs()
        slugs.take(CLONE)
        containers: tuple[Container, ...] = (*self._pipeline.services, *self._pipeline.steps)
        return {id(item): slugs.take(self._name(item)) for item in containers}

    def _name(self, item: Container) -> str:
        name = " ".join(self._fill.text(item.name).split())[:_MAX_NAME]
        return "".join(char for char in name if char.isprintable()) or item.name

    def steps(self) -> tuple[StepSpec, ...]:
        has_clone = not self._pipeline.skip_clone
        found = [self._clone()] if has_clone else []
        waits = self._dependencies(has_clone)
        for step in self._pipeline.steps:
            found.append(self._step(step, len(found), waits.get(step.name, ())))
        for service in self._pipeline.services:
            found.append(self._service(service, len(found)))
        return tuple(found)

    def _clone(self) -> StepSpec:
        return StepSpec(
            number=0, name=CLONE, slug=CLONE, kind=StepKind.CLONE, limits=self._facts.context.limits
        )

    def _dependencies(self, has_clone: bool) -> dict[str, tuple[str, ...]]:
        """Step name -> slugs that it waits for. Who is left out is waited for by nobody."""
        steps = self._pipeline.steps
        slugs = {CLONE: CLONE} | {step.name: self._slugs[id(step)] for step in steps}
        first = (CLONE,) if has_clone else ()
        edges: dict[str, tuple[str, ...]] = {CLONE: ()} if has_clone else {}
        before = first
        for step in steps:
            wanted = step.depends_on or () if self._pipeline.is_dag else before
            known = dict.fromkeys(name for name in wanted if name != CLONE)
            edges[step.name] = tuple(known) or first
            before = (step.name,)
        left_out = {step.name for step in steps if not self._verdicts[id(step)].matches}
        kept = graph.without(edges, left_out)
        return {name: tuple(slugs[other] for other in waits) for name, waits in kept.items()}

    def _step(self, step: Step, number: int, depends_on: tuple[str, ...]) -> StepSpec:
        verdict = self._verdicts[id(step)]
        kind = StepKind.PLUGIN if step.is_plugin else StepKind.COMMANDS
        return self._container(step, number, kind).model_copy(
            update={
                "depends_on": depends_on,
                "run_on": verdict.statuses,
                "ignore_failure": step.ignore_failure,
                "detach": step.detach,
                "deploy": step.deploy,
                "timeout_seconds": step.timeout_seconds,
                "settings": {name: self._setting(step, value) for name, value in step.settings.items()},
            }
        )

    def _service(self, service: Service, number: int) -> StepSpec:
        return self._container(service, number, StepKind.SERVICE)

    def _container(self, item: Container, number: int, kind: StepKind) -> StepSpec:
        name, item_slug = self._name(item), self._slugs[id(item)]
        return StepSpec(
            number=number,
            name=name,
            slug=item_slug,
            kind=kind,
            image=self._image(item),
            commands=tuple(self._fill.command(command) for command in item.commands),
            environment=self._environment(item, name, number, kind),
            secrets={
                key: self._secret(item, value)
                for key, value in item.environment
                if isinstance(value, FromSecret)
            },
            skip_reason=self._verdicts[id(item)].reason,
            limits=self._facts.context.limits,
        )

    def _image(self, item: Container) -> str:
        image = self._fill.text(item.image)
        is_run = self._verdicts[id(item)].matches
        if is_run and not IMAGE.match(image):
            raise _wrong(self._pipeline, item.mark, f"{shown(image)} is not the name of an image")
        return image

    def _environment(self, item: Container, name: str, number: int, kind: StepKind) -> dict[str, str]:
        """Later ones win: what the person who started the build gave, the matrix, ours, the file's own.

        A plugin does what its settings say: the first two, which are meant for commands, would change that
        unseen.
        """
        context = self._facts.context
        url = f"{context.build_url}/{self._job_slug}/{self._slugs[id(item)]}" if context.build_url else ""
        step = environ.StepFacts(name=name, number=number, kind=kind.value, url=url)
        given = {} if kind is StepKind.PLUGIN else {**environ.given(self._facts.event), **self._cell}
        ours = environ.step_variables(self._facts, step)
        own = {
            key: environ.bounded(self._fill.text(value))
            for key, value in item.environment
            if isinstance(value, str)
        }
        return {**given, **ours, **own}

    def _secret(self, item: Container, secret: FromSecret) -> str:
        """Its name, in the one spelling that is stored; and a note of who reads it, if it runs."""
        name = secret.name.lower()
        if self._verdicts[id(item)].matches:
            use = SecretUse(
                name=name,
                step=self._name(item),
                image=self._fill.text(item.image),
                is_told_by_settings_alone=isinstance(item, Step) and item.is_plugin and not item.environment,
                file=self._pipeline.file,
                mark=secret.mark,
            )
            self.secrets.append(use)
        return name

    def _setting(self, step: Step, value: Any) -> Any:
        if isinstance(value, FromSecret):
            return {FROM_SECRET: self._secret(step, value)}
        if isinstance(value, str):
            return self._fill.text(value)
        if isinstance(value, list):
            return [self._setting(step, each) for each in value]
        if isinstance(value, dict):
            return {key: self._setting(step, each) for key, each in value.items()}
        return value
