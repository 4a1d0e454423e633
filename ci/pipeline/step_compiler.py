"""Step compiler: the containers of one job, in the order of their numbers."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ci import environ, graph, rights
from ci.errors import ConfigError
from ci.pipeline import slug, substitute
from ci.pipeline.containers import IMAGE
from ci.pipeline.matrix import Cell
from ci.pipeline.model import Container, FromSecret, Pipeline, Service, Step
from ci.pipeline.problems import Mark, shown
from ci.pipeline.when import Verdict
from ci.settings import FROM_SECRET
from ci.spec import Limits, Mount, Rights, StepKind, StepSpec

CLONE = "clone"
_MAX_NAME = 200


@dataclass(frozen=True, kw_only=True)
class SecretUse:
    """A secret that a step names (none: to pull its job's images), and where its file does."""

    name: str
    step: str
    image: str
    is_told_by_settings_alone: bool
    file: str
    mark: Mark


class StepCompiler:
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
        #: What the steps that run read, noted by steps().
        self.secrets: list[SecretUse] = [self._pull_use(secret) for secret in pipeline.pull_secrets]

    def _taken_slugs(self) -> dict[int, str]:
        """Services first: their slug is a host name, and should be what the file says."""
        slugs = slug.Slugs()
        if not self._pipeline.clones:
            slugs.take(CLONE)
        pipeline = self._pipeline
        containers: tuple[Container, ...] = (*pipeline.clones, *pipeline.services, *pipeline.steps)
        return {id(item): slugs.take(self._name(item)) for item in containers}

    def _name(self, item: Container) -> str:
        name = " ".join(self._fill.text(item.name).split())[:_MAX_NAME]
        return "".join(char for char in name if char.isprintable()) or item.name

    def steps(self) -> tuple[StepSpec, ...]:
        found, first = self._first_steps()
        waits = self._dependencies(first)
        for step in self._pipeline.steps:
            found.append(self._step(step, len(found), waits[_node(step)]))
        for service in self._pipeline.services:
            found.append(self._service(service, len(found), waits[_node(service)]))
        return tuple(found)

    def _first_steps(self) -> tuple[list[StepSpec], tuple[str, ...]]:
        """What fills the workspace, and the slugs that everything else waits for."""
        if self._pipeline.clones:
            return self._clone_containers()
        if self._pipeline.skip_clone:
            return [], ()
        limits = self._facts.context.limits
        return [StepSpec(number=0, name=CLONE, slug=CLONE, kind=StepKind.CLONE, limits=limits)], (CLONE,)

    def _clone_containers(self) -> tuple[list[StepSpec], tuple[str, ...]]:
        found: list[StepSpec] = []
        before: tuple[str, ...] = ()
        for step in self._pipeline.clones:
            found.append(self._step(step, len(found), before))
            if self._verdicts[id(step)].matches:
                before = (self._slugs[id(step)],)
        return found, before

    # --- who waits for whom ---------------------------------------------------------------------------

    def _dependencies(self, first: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        """Node -> slugs that it waits for. Who is left out is waited for by nobody."""
        items: Sequence[Container] = (*self._pipeline.steps, *self._pipeline.services)
        nodes = {_node(item) for item in items}
        edges: dict[str, tuple[str, ...]] = {CLONE: ()} if first else {}
        before = (CLONE,) if first else ()
        for step in self._pipeline.steps:
            edges[_node(step)] = self._wanted(step, nodes, before, has_clone=bool(first))
            before = (_node(step),)
        for service in self._pipeline.services:
            edges[_node(service)] = self._named(service, nodes)
        left_out = {_node(item) for item in items if not self._verdicts[id(item)].matches}
        slugs = {_node(item): (self._slugs[id(item)],) for item in items} | {CLONE: first}
        kept = graph.without(edges, left_out)
        return {_node(item): () for item in items} | {
            node: tuple(dict.fromkeys(each for other in waits for each in slugs[other]))
            for node, waits in kept.items()
        }

    def _wanted(
        self, step: Step, nodes: set[str], before: tuple[str, ...], *, has_clone: bool
    ) -> tuple[str, ...]:
        if not self._pipeline.is_dag:
            return before
        return self._named(step, nodes) or ((CLONE,) if has_clone else ())

    def _named(self, item: Container, nodes: set[str]) -> tuple[str, ...]:
        """What `depends_on` names; of two of one name, a service means the service."""
        found = []
        for need in item.needs or ():
            service = f"service {need.name}"
            if isinstance(item, Service) and service in nodes:
                found.append(service)
            elif need.name in nodes:
                found.append(need.name)
        return tuple(dict.fromkeys(found))

    # --- containers -----------------------------------------------------------------------------------

    def _step(self, step: Step, number: int, depends_on: tuple[str, ...]) -> StepSpec:
        verdict = self._verdicts[id(step)]
        kind = StepKind.PLUGIN if step.is_plugin else StepKind.COMMANDS
        return self._container(step, number, kind).model_copy(
            update={
                "depends_on": depends_on,
                "run_on": verdict.statuses,
                "wanted_outputs": verdict.wanted,
                "ignore_failure": step.ignore_failure,
                "failure_stops": step.failure_stops,
                "detach": step.detach,
                "deploy": step.deploy,
                "timeout_seconds": step.timeout_seconds,
                "no_output_seconds": step.no_output_seconds,
                "retry": step.retry,
                "stop_on_exit": step.stop_on_exit,
            }
        )

    def _service(self, service: Service, number: int, depends_on: tuple[str, ...]) -> StepSpec:
        spec = self._container(service, number, StepKind.SERVICE)
        return spec.model_copy(update={"depends_on": depends_on, "ready": service.ready})

    def _container(self, item: Container, number: int, kind: StepKind) -> StepSpec:
        name, text = self._name(item), self._fill.text
        variables = self._own_variables(item, kind)
        computed: dict[str, str] = {}
        commands = tuple(self._fill.command(command, computed) for command in item.commands)
        spec = StepSpec(
            number=number,
            name=name,
            slug=self._slugs[id(item)],
            kind=kind,
            image=self._image(item),
            commands=commands,
            entrypoint=tuple(map(text, item.entrypoint)),
            arguments=tuple(map(text, item.arguments)),
            directory=self._directory(item),
            user=text(item.user),
            pull=item.pull,
            mounts=tuple(self._mounts(item)),
            rights=self._rights(item.rights),
            environment=self._environment(item, variables, name, number, kind) | computed,
            environment_files=tuple(map(self._absolute, map(text, item.environment_files))),
            secrets={
                key: self._secret(item, value)
                for key, value in variables.items()
                if isinstance(value, FromSecret)
            },
            settings={key: self._setting(item, value) for key, value in item.settings.items()},
            skip_reason=self._verdicts[id(item)].reason,
            limits=self._limits(item),
        )
        self._check_rights(item, spec)
        return spec

    def _check_rights(self, item: Container, spec: StepSpec) -> None:
        is_trusted, trust = not self._facts.event.is_untrusted, self._facts.context.trust
        refusal = rights.refusal(spec, self._pipeline.volumes, trust, is_trusted=is_trusted)
        if refusal and self._verdicts[id(item)].matches:
            self._refuse(item.mark, f"step {shown(spec.name)}: {refusal}")

    def _image(self, item: Container) -> str:
        image = self._fill.text(item.image)
        if self._verdicts[id(item)].matches and not IMAGE.match(image):
            self._refuse(item.mark, f"{shown(image)} is not the name of an image")
        return image

    def _directory(self, item: Container) -> str:
        """Absolute; empty where the file does not say."""
        text = self._fill.text(item.directory)
        return self._absolute(text) if text else ""

    def _absolute(self, path: str) -> str:
        return posixpath.normpath(posixpath.join(self._facts.workspace, path))

    def _mounts(self, item: Container) -> Sequence[Mount]:
        found = []
        for mount in item.mounts:
            volume, host, path = (self._fill.text(each) for each in (mount.volume, mount.host, mount.path))
            if not path.startswith("/") or (host and not host.startswith("/")):
                self._refuse(mount.mark, f"a mounted path is absolute, this is {shown(host or path)}")
            if volume and volume not in {each.name for each in self._pipeline.volumes}:
                self._refuse(mount.mark, f"the pipeline has no volume {shown(volume)}")
            found.append(Mount(path=path, volume=volume, host=host, is_read_only=mount.is_read_only))
        return found

    def _rights(self, asked: Rights) -> Rights:
        text = self._fill.text
        names = ("dns", "dns_search", "extra_hosts", "tmpfs")
        filled: dict[str, Any] = {name: tuple(map(text, getattr(asked, name))) for name in names}
        return asked.model_copy(update={**filled, "network_mode": text(asked.network_mode)})

    def _limits(self, item: Container) -> Limits:
        """What the file asks for, never more than the repo may."""
        most, asked = self._facts.context.limits, (item.memory_bytes, item.cpus)
        if asked == (None, None):
            return most
        memory = [size for size in (item.memory_bytes, most.memory_bytes) if size]
        cpus = [amount for amount in (item.cpus, most.cpus) if amount]
        return most.model_copy(
            update={"memory_bytes": min(memory, default=None), "cpus": min(cpus, default=None)}
        )

    # --- variables --------------------------------------------------------------------------------------

    def _own_variables(self, item: Container, kind: StepKind) -> dict[str, str | FromSecret]:
        """What the file says of it. A plugin is told by settings: no variable of the pipeline reaches it."""
        shared = () if kind is StepKind.PLUGIN else self._pipeline.environment
        return {**dict(shared), **dict(item.environment)}

    def _environment(
        self,
        item: Container,
        own: Mapping[str, str | FromSecret],
        name: str,
        number: int,
        kind: StepKind,
    ) -> dict[str, str]:
        """Later ones win: what the person who started the build gave, the matrix, ours, the file's own.

        A plugin does what its settings say: the first two, which are meant for commands, would change that
        unseen.
        """
        context = self._facts.context
        url = f"{context.build_url}/{self._job_slug}/{self._slugs[id(item)]}" if context.build_url else ""
        step = environ.StepFacts(name=name, number=number, kind=kind.value, url=url)
        given = {} if kind is StepKind.PLUGIN else {**environ.given(self._facts.event), **self._cell}
        plain = {
            key: environ.bounded(self._fill.text(value))
            for key, value in own.items()
            if isinstance(value, str)
        }
        return {**given, **environ.step_variables(self._facts, step), **plain}

    def _secret(self, item: Container, secret: FromSecret) -> str:
        """Its name, in the one spelling that is stored; and a note of who reads it, if it runs."""
        name = secret.name.lower()
        if self._verdicts[id(item)].matches:
            alone = isinstance(item, Step) and item.is_plugin and not item.environment
            use = SecretUse(
                name=name,
                step=self._name(item),
                image=self._fill.text(item.image),
                is_told_by_settings_alone=alone,
                file=self._pipeline.file,
                mark=secret.mark,
            )
            self.secrets.append(use)
        return name

    def _pull_use(self, secret: FromSecret) -> SecretUse:
        return SecretUse(
            name=secret.name.lower(),
            step="",
            image="",
            is_told_by_settings_alone=False,
            file=self._pipeline.file,
            mark=secret.mark,
        )

    def _setting(self, item: Container, value: Any) -> Any:
        if isinstance(value, FromSecret):
            return {FROM_SECRET: self._secret(item, value)}
        if isinstance(value, str):
            return self._fill.text(value)
        if isinstance(value, list):
            return [self._setting(item, each) for each in value]
        if isinstance(value, dict):
            return {key: self._setting(item, each) for key, each in value.items()}
        return value

    def _refuse(self, mark: Mark, message: str) -> None:
        raise ConfigError([mark.problem(self._pipeline.file, message)])


def _node(item: Container) -> str:
    """A step and a service may have the same name."""
    return f"service {item.name}" if isinstance(item, Service) else item.name
