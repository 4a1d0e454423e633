"""An event becomes a build: its pipeline files are read at the commit, compiled once, and stored with it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from ci.environ import Context, Previous
from ci.errors import ConfigError, Conflict, Invalid, NotFound, Problem, Unavailable
from ci.event import Event, Kind
from ci.pipeline import lookup
from ci.pipeline.compile import SecretUse, build_jobs
from ci.pipeline.includes import is_included
from ci.server import approvals
from ci.server.auth import Actor
from ci.server.bus import Bus, job_topics
from ci.server.clock import Clock
from ci.server.forges.directory import Forges
from ci.server.includes import Includes
from ci.server.models import Build, Job, PullRequest, Repo
from ci.server.secrets import Secrets
from ci.server.store import (
    attempts,
    audit,
    builds,
    configs,
    jobs,
    pull_requests,
    repo_settings,
    repos,
    variables,
)
from ci.server.store.builds import Made, NewBuild
from ci.server.store.database import Connection, Store
from ci.spec import JobSpec
from ci.status import Outcome, Status

_SKIP = re.compile(r"\[(ci skip|skip ci|no ci)\]|\*\*\*no_ci\*\*\*", re.IGNORECASE)
#: What the commit's own words may skip; a tag, a release or a person's click is meant.
_SKIPPED_BY_WORDS = frozenset({Kind.PUSH, Kind.PULL_REQUEST})
_TRIES = 50
_NO_CONFIG = f"the commit has no pipeline file; looked for: {lookup.PLACES}"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Which part of which delivery an event is, and what is known with it: the last event of its ref, and
    how its pull request stands."""

    inbox_id: int
    index: int
    ref: str
    ref_sha: str | None
    pull_request: PullRequest | None = None


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of one event: a sentence for a person, and the build if there is one."""

    ref: str
    sentence: str
    build_id: int | None = None
    number: int | None = None
    url: str = ""


@dataclass(frozen=True, kw_only=True)
class _Again:
    """A rerun: of which build, by whom, and the jobs, by slug, that keep their results."""

    build: Build
    who: Actor
    kept: Mapping[str, Job]


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """All that a build is made of but its number."""

    event: Event
    files: Mapping[str, str]
    config_problem: str = ""
    missing: Mapping[str, str] = field(default_factory=dict)  #: files that cannot be included, and why
    inbox_id: int | None = None
    event_index: int = 0
    again: _Again | None = None
    by: Actor | None = None  #: who started it by hand

    @property
    def parent_number(self) -> int | None:
        return self.again.build.number if self.again else None


class Trigger:
    def __init__(
        self, store: Store, bus: Bus, clock: Clock, forges: Forges, secrets: Secrets, *, url: str
    ) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._forges = forges
        self._includes = Includes(store, forges)
        self._secrets = secrets
        self._url = url
        self.privileged_plugins: tuple[str, ...] = ()  #: images, as an administrator has set them
        self._locks: dict[int, asyncio.Lock] = {}

    async def start_build(self, event: Event, repo: Repo, origin: Origin) -> Result:
        """Make the event's one build, or say why there is none. Calling it again finds the same build.

        A broken pipeline file makes a build too, of status `error` with all its problems. Raises
        Unavailable where the forge cannot be asked now.
        """
        if event.kind in _SKIPPED_BY_WORDS and (word := _SKIP.search(event.message)):
            return await self.no_build(repo, origin, f"skipped, because the commit message says {word[0]}")
        plan = await self._plan(event, repo, origin)
        if not plan.files and not plan.config_problem:
            return await self.no_build(repo, origin, f"no build: {_no_config(repo)}")
        made = await self._made(plan, repo, origin)
        if isinstance(made, str):
            return await self.no_build(repo, origin, made)
        sentence = f"built #{made.number}{_left_words(made)}"
        url = self.build_url(repo, made.number)
        return Result(ref=origin.ref, sentence=sentence, build_id=made.build_id, number=made.number, url=url)

    async def no_build(self, repo: Repo, origin: Origin, sentence: str) -> Result:
        """The event ends here, deliberately; its ref has moved all the same."""
        await self._store.write(lambda connection: _note(connection, repo, origin))
        return Result(ref=origin.ref, sentence=sentence)

    async def rerun(self, build_id: int, who: Actor, *, only_failed: bool = False) -> tuple[str, str, int]:
        """A new build of the same event and the same files: (owner, name, number). It is `who`'s.

        `only_failed`: jobs that passed keep their results. Raises NotFound, or Conflict where nothing is to
        be run again.
        """

        def look(connection: Connection) -> tuple[Build, Repo, list[Job]]:
            build = builds.by_id(connection, build_id)
            repo = repos.by_id(connection, build.repo_id) if build else None
            if build is None or repo is None:
                raise NotFound(f"there is no build with the id {build_id}")
            return build, repo, jobs.of_build(connection, build_id)

        build, repo, found = await self._store.read(look)
        passed = _passed(build, found) if only_failed else {}
        # The forge's id is of who sent the event; who clicks has an account here.
        by_whom = {"sender": who.name, "sender_key": ""}
        plan = _Plan(
            event=Event.model_validate(build.event).model_copy(update=by_whom),
            files=configs.files(build),
            config_problem="" if build.config else build.reason,
            again=_Again(build=build, who=who, kept=passed),
        )
        made = await self._made(plan, repo, None)
        if isinstance(made, str):
            raise Conflict(f"build {build.number} cannot run again: {made}")
        return repo.owner, repo.name, made.number

    async def start_own(
        self, event: Event, repo: Repo, *, inbox_id: int | None = None, who: Actor | None = None
    ) -> Made | str:
        """The build of an event that no ref has moved for, or the sentence why there is none.

        With `inbox_id` it is made once; `who` started it, for the audit log. Raises Unavailable.
        """
        plan = replace(await self._read(event, repo), inbox_id=inbox_id, by=who)
        if not plan.files and not plan.config_problem:
            return f"no build: {_no_config(repo)}"
        return await self._made(plan, repo, None)

    def build_url(self, repo: Repo, number: int) -> str:
        return f"{self._url}/r/{repo.owner}/{repo.name}/{number}"

    async def _plan(self, event: Event, repo: Repo, origin: Origin) -> _Plan:
        return replace(await self._read(event, repo), inbox_id=origin.inbox_id, event_index=origin.index)

    async def _read(self, event: Event, repo: Repo) -> _Plan:
        """The plan of an event, with its pipeline files and what they include. Raises Unavailable."""
        files: Mapping[str, str] = {}
        problem = ""
        try:
            files = await self._forges.of(repo).read_config(repo, event)
        except Unavailable:
            raise
        except Invalid as error:
            problem = str(error)
        library = await self._includes.read(repo, event, files)
        return _Plan(
            event=event, files={**files, **library.texts}, config_problem=problem, missing=library.missing
        )

    async def _made(self, plan: _Plan, repo: Repo, origin: Origin | None) -> Made | str:
        """One at a time in a repo, so that the ref that keeps a build's commit is that build's."""
        async with self._locks.setdefault(repo.id or 0, asyncio.Lock()):
            return await self._make(plan, repo, origin)

    async def _make(self, plan: _Plan, repo: Repo, origin: Origin | None) -> Made | str:
        """Compile and store under the repo's next number; if somebody takes it meanwhile, once more.

        A sentence: every job is left out by its own conditions.
        """
        repo_id = repo.id or 0
        for _ in range(_TRIES):
            number = await self._store.read(lambda connection: builds.next_number(connection, repo_id))
            plain = await self._store.read(lambda connection: variables.of_repo(connection, repo))
            look = partial(builds.before, repo_id=repo_id, number=number, branch=plan.event.branch)
            previous = await self._store.read(look)
            context = replace(
                self._context(plan, repo, number), variables=plain, previous=self._previous(repo, previous)
            )
            compiled = await asyncio.to_thread(self._compile, plan, repo, context)
            if isinstance(compiled, str):
                return compiled
            new = await self._with_secrets(*compiled, repo)
            new = _held(_kept(new, plan), plan, repo)
            await self._forges.of(repo).keep(repo, number, plan.event.sha)
            try:
                store = partial(self._store_build, new=new, plan=plan, repo=repo, origin=origin)
                made = await self._store.write(store)
            except builds.NumberTaken:
                continue
            self._bus.publish("builds", "queue", f"build:{made.build_id}", f"repo:{repo_id}")
            for job in made.superseded:
                self._bus.publish(*job_topics(job.id, job.build_id), f"runner:{job.runner_id}")
            return made
        raise Unavailable(f"{repo.owner}/{repo.name} gets builds faster than they can be numbered")

    def _store_build(
        self, connection: Connection, new: NewBuild, plan: _Plan, repo: Repo, origin: Origin | None
    ) -> Made:
        now = self._clock.now()
        made = builds.create(connection, new, now)
        if origin is not None:
            _note(connection, repo, origin)
        if plan.by is not None:
            _note_run(connection, plan.by, made, now)
        if plan.again is not None:
            _note_rerun(connection, plan.again, made, now)
        elif repo.is_superseding and made.is_new:
            superseded, left = attempts.supersede(connection, made.build_id, now)
            made = replace(made, superseded=superseded, left=left)
        if made.is_new:
            others = attempts.supersede_groups(connection, made.build_id, now)
            made = replace(made, superseded=(*made.superseded, *others))
        return made

    async def _with_secrets(self, new: NewBuild, uses: tuple[SecretUse, ...], repo: Repo) -> NewBuild:
        """The build, or one that ends at once because a step names a secret that it cannot have."""
        if not uses:
            return new
        found = await self._store.read(lambda c: self._secrets.problems(c, uses, new.event, repo))
        problems = (*new.problems, *found)
        if all(problem.is_warning for problem in found):
            return replace(new, problems=problems)
        return replace(
            new,
            problems=problems,
            specs=(),
            status=Status.ERROR,
            outcome=Outcome.SECRET,
            reason=_summary(problems),
        )

    def _compile(
        self, plan: _Plan, repo: Repo, context: Context
    ) -> tuple[NewBuild, tuple[SecretUse, ...]] | str:
        """In a thread: takes as long as the files are hostile."""
        files = dict(plan.files)
        failed = plan.config_problem
        specs: tuple[JobSpec, ...] = ()
        uses: tuple[SecretUse, ...] = ()
        problems = [Problem(message=failed)] if failed else []
        if not failed:
            try:
                compiled = build_jobs(files, plan.event, context, missing=plan.missing)
            except ConfigError as error:
                problems, failed = list(error.problems), _summary(error.problems)
            else:
                if not compiled.jobs:
                    return f"no build: {compiled.skipped}"
                specs, problems, uses = compiled.jobs, list(compiled.warnings), compiled.secrets
        name, text = configs.stored(*_told_apart(files))
        new = NewBuild(
            repo_id=repo.id or 0,
            number=context.number,
            event=plan.event,
            inbox_id=plan.inbox_id,
            event_index=plan.event_index,
            rerun_of=plan.again.build.id if plan.again else None,
            config_file=name,
            config=text,
            problems=tuple(problems),
            specs=specs,
            status=Status.ERROR if failed else Status.PENDING,
            outcome=Outcome.CONFIG if failed else None,
            reason=failed,
        )
        return new, uses

    def _previous(self, repo: Repo, build: Build | None) -> Previous | None:
        if build is None:
            return None
        return Previous(
            number=build.number,
            status=build.status,
            event=Event.model_validate(build.event),
            url=self.build_url(repo, build.number),
            created_at_seconds=int(build.created_at),
            started_at_seconds=int(build.started_at or 0),
            finished_at_seconds=int(build.finished_at or 0),
        )

    def _context(self, plan: _Plan, repo: Repo, number: int) -> Context:
        forge = self._forges.of(repo)
        return Context(
            owner=repo.owner,
            name=repo.name,
            repo_key=f"{repo.forge}-{repo.id}",
            remote_id=forge.remote_id(repo),
            clone_url=forge.clone_url(repo),
            repo_url=f"{self._url}/r/{repo.owner}/{repo.name}",
            default_branch=repo.default_branch,
            is_private=repo.is_private,
            forge=repo.forge,
            forge_url=forge.web_url(repo),
            number=number,
            build_url=self.build_url(repo, number),
            system_url=self._url,
            parent_number=plan.parent_number,
            created_at_seconds=int(self._clock.now()),
            timeout_seconds=repo.timeout_minutes * 60,
            trust=repo_settings.trust_of(repo, self.privileged_plugins),
        )


def _note(connection: Connection, repo: Repo, origin: Origin) -> None:
    repos.set_ref_sha(connection, repo.id or 0, origin.ref, origin.ref_sha)
    if origin.pull_request is not None:
        pull_requests.note(connection, origin.pull_request)


def _no_config(repo: Repo) -> str:
    return f"the commit has no {repo.config_path}" if repo.config_path else _NO_CONFIG


def _told_apart(files: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Pipeline files, and those that they include."""
    found: tuple[dict[str, str], dict[str, str]] = ({}, {})
    for name, text in files.items():
        found[is_included(name)][name] = text
    return found


def _summary(problems: tuple[Problem, ...]) -> str:
    errors = [problem for problem in problems if not problem.is_warning]
    first = str(errors[0]) if errors else "the pipeline file cannot be used"
    more = len(errors) - 1
    return f"{first} (and {more} more {'problem' if more == 1 else 'problems'})" if more > 0 else first


# --- reruns, approvals, builds that take the place of others ---------------------------------------------


def _passed(build: Build, found: Sequence[Job]) -> dict[str, Job]:
    """The jobs, by slug, that keep their results in a rerun of what failed. Raises Conflict."""
    if not Status(build.status).is_terminal:
        raise Conflict(f"build {build.number} has not ended: {Status(build.status).word}")
    passed = {job.slug: job for job in found if job.status == Status.SUCCESS.value}
    if found and len(passed) == len(found):
        raise Conflict(f"nothing of build {build.number} failed: run all of it again")
    return passed


def _kept(new: NewBuild, plan: _Plan) -> NewBuild:
    if plan.again is None or not plan.again.kept:
        return new
    slugs = {spec.slug for spec in new.specs}
    return replace(new, kept={slug: job for slug, job in plan.again.kept.items() if slug in slugs})


def _held(new: NewBuild, plan: _Plan, repo: Repo) -> NewBuild:
    """A build that needs an approval waits for it; a rerun of one that did needs its own."""
    why = approvals.is_needed(repo, plan.event)
    if not why and plan.again is not None and plan.again.build.needs_approval:
        why = f"build {plan.again.build.number} needed an approval, and so does this one, which runs it again"
    if not why:
        return new
    if new.status.is_terminal:  # it has no jobs: its file cannot be used
        return replace(new, held=why)
    return replace(new, held=why, status=Status.BLOCKED, outcome=Outcome.BLOCKED, reason=why)


def _note_rerun(connection: Connection, again: _Again, made: Made, now: float) -> None:
    what = "what failed" if again.kept else "all of it"
    details = f"ran {what} again as #{made.number}"
    audit.note(connection, again.who, builds.deed(connection, again.build, "build.rerun", details), now)


def _note_run(connection: Connection, who: Actor, made: Made, now: float) -> None:
    build = builds.by_id(connection, made.build_id)
    assert build is not None
    details = f"branch {build.event['branch']}"
    if names := ", ".join(build.event["variables"]):
        details += f", with {names}"
    audit.note(connection, who, builds.deed(connection, build, "build.run", details), now)


def _left_words(made: Made) -> str:
    if not made.left:
        return ""
    numbers = ", ".join(f"#{number}" for number in made.left)
    return f"; {numbers} goes on, because a step with side effects has started in it"
