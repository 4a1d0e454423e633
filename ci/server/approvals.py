"""Builds of strangers wait for a person (law 8): which do, what that person is shown, and the decision.

Whether the decision still holds is asked again in the claim (store/approvals.py), not here.
"""

from __future__ import annotations

import asyncio
import difflib
import functools
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

from ci.errors import Conflict, NotFound, ShipwayError
from ci.event import Event, Kind
from ci.server import auth
from ci.server.auth import Action, Actor
from ci.server.bus import Bus, job_topics
from ci.server.clock import Clock
from ci.server.forges.directory import Forges
from ci.server.includes import Includes
from ci.server.models import Approval, Build, Job, Repo
from ci.server.store import approvals, attempts, audit, builds, configs, jobs, repos
from ci.server.store.database import Connection, Store
from ci.status import Status

PULL_REQUESTS = "pull_requests"  #: of Repo.approval: every pull request waits, not only those from forks
#: A longer file is shown as it is, without a comparison: hostile text must not cost us seconds.
MAX_COMPARED_LINES = 1000
MAX_SHOWN_LINES = 2000
MAX_SHOWN_FILES = 20
MAX_SHOWN_CHARACTERS = 2000
FORGE_SECONDS = 5.0
#: Unicode categories of characters that show nothing, or move what stands beside them.
_UNSEEN = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})
_MAX_KEPT = 100


def is_needed(repo: Repo, event: Event) -> str:
    """Why a build of this event must not start before a person has approved it; empty: it may.

    Who wrote a commit never counts, for git lets anybody write any name there.
    """
    if event.pull_request is None and not event.is_untrusted:
        return ""
    if not event.is_untrusted and repo.approval != PULL_REQUESTS:
        return ""
    noun = f"Pull request {event.pull_request}" if event.pull_request is not None else "This"
    who = f" (sent by {event.sender})" if event.sender else ""
    if event.is_untrusted:
        fork = f" {event.source_repo}" if event.source_repo else ""
        return f"{noun} comes from the fork{fork}{who}: somebody who may write here must approve it first"
    return f"{noun}{who} must be approved first, as every pull request of this repo"


@dataclass(frozen=True, kw_only=True)
class FileChange:
    """A pipeline file against the same file of the target branch: lines of a unified diff."""

    name: str
    lines: tuple[str, ...]  #: each begins with `+`, `-`, ` ` or `@`
    note: str = ""

    @property
    def is_changed(self) -> bool:
        return bool(self.lines or self.note)


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a person is shown who decides about a build."""

    why: str  #: that it is asked, as a sentence
    stranger: str  #: who sent the event, as the forge names the account
    stranger_key: str
    source_repo: str
    is_from_fork: bool
    pull_request: int | None
    title: str
    link: str
    head: str
    target: str
    merge: str
    binding: str
    moved: str  #: why it cannot be approved any more, as a clause; empty: it can
    changed_files: tuple[str, ...] | None
    base: str = ""  #: what the pipeline files are compared with; empty: nothing is known
    files: tuple[FileChange, ...] = field(default=())

    @property
    def changes_config(self) -> bool:
        return any(file.is_changed for file in self.files)


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What the rows say about a build that waits."""

    why: str
    root: Build  #: the build that the event made, of which this one may be a rerun
    moved: str
    base: Build | None
    target_sha: str | None


class Approvals:
    def __init__(self, store: Store, bus: Bus, clock: Clock, forges: Forges) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._forges = forges
        self._includes = Includes(store, forges)
        self._read: dict[tuple[int, str], Mapping[str, str]] = {}  #: pipeline files by repo and commit

    # --- the decision -----------------------------------------------------------------------------

    async def decide(self, build_id: int, who: Actor, *, is_approved: bool, seen: str = "") -> None:
        """Let a build run, or end it. `seen`: the binding that was on the page; it must still be the build's.

        Raises NotFound or Forbidden for who may not, Conflict where there is nothing to decide or the
        pull request has moved on.
        """

        def write(connection: Connection) -> list[Job]:
            now = self._clock.now()
            build = builds.locked(connection, build_id)
            repo = repos.by_id(connection, build.repo_id) if build else None
            if build is None or repo is None:
                raise NotFound(f"there is no build with the id {build_id}")
            auth.require(who, Action.APPROVE, repo)
            _require_open(connection, build, seen)
            if is_approved and (moved := approvals.has_moved(connection, build)):
                raise Conflict(f"build {build.number} cannot be approved: {moved}")
            approvals.decide(connection, build, who, is_approved=is_approved, now=now)
            action = "build.approve" if is_approved else "build.reject"
            event = Event.model_validate(build.event)
            details = f"pull request {event.pull_request} at {event.after} into {event.branch}"
            audit.note(connection, who, builds.deed(connection, build, action, details), now)
            if is_approved:
                return attempts.release(connection, build_id, now)
            return attempts.cancel_build(connection, build_id, f"rejected by {who.name}", now)

        for job in await self._store.write(write):
            self._bus.publish(*job_topics(job.id, job.build_id), "queue", f"runner:{job.runner_id}")

    # --- what is shown ----------------------------------------------------------------------------

    async def question(self, repo: Repo, build: Build) -> Question | None:
        """What a person has to look at; None for a build that waits for no approval."""
        if not build.needs_approval or Status(build.status).is_terminal:
            return None
        found = await self._store.read(lambda connection: _look(connection, build))
        if found is None:
            return None
        event, first = Event.model_validate(build.event), Event.model_validate(found.root.event)
        base, old = await self._base(repo, event, found)
        files: tuple[FileChange, ...] = ()
        if base:
            files = await asyncio.to_thread(_changes, old, configs.files(build))
        return Question(
            why=found.why,
            stranger=first.sender,
            stranger_key=first.sender_key,
            source_repo=event.source_repo,
            is_from_fork=event.is_from_fork,
            pull_request=event.pull_request,
            title=event.title,
            link=event.link,
            head=event.after,
            target=event.branch,
            merge=event.merge_sha,
            binding=approvals.binding(build),
            moved=found.moved,
            changed_files=event.changed_files,
            base=base,
            files=files or _changes({}, configs.files(build)),
        )

    async def decision(self, build_id: int) -> Approval | None:
        return await self._store.read(lambda connection: approvals.find(connection, build_id))

    async def _base(self, repo: Repo, event: Event, found: _Found) -> tuple[str, Mapping[str, str]]:
        """(what it is, its pipeline files): of the newest build of the target branch, else of its head."""
        if found.base is not None:
            sha = str(found.base.event.get("after", ""))
            words = f"{event.branch} as of build {found.base.number} ({sha[:7]})"
            return words, configs.files(found.base)
        if found.target_sha is None:
            return "", {}
        key = (repo.id or 0, found.target_sha)
        if key not in self._read:
            head = Event(
                kind=Kind.PUSH, ref=f"refs/heads/{event.branch}", after=found.target_sha, variables={}
            )
            try:
                async with asyncio.timeout(FORGE_SECONDS):
                    own = await self._forges.of(repo).read_config(repo, head)
                    included = await self._includes.read(repo, head, own)
                    self._read[key] = {**own, **included.texts}
            except (ShipwayError, TimeoutError):
                return "", {}
            if len(self._read) > _MAX_KEPT:
                del self._read[next(iter(self._read))]
        return f"{event.branch} at {found.target_sha[:7]}", self._read[key]


def _require_open(connection: Connection, build: Build, seen: str) -> None:
    """Raises Conflict unless there is something to decide, and it is what was looked at."""
    if not build.needs_approval:
        raise Conflict(f"build {build.number} needs no approval")
    if Status(build.status).is_terminal:
        raise Conflict(f"build {build.number} has ended already: {Status(build.status).word}")
    if not _blocked(connection, build) or build.cancel_reason:
        raise Conflict(f"build {build.number} does not wait for an approval: it is {build.status}")
    if seen and seen != approvals.binding(build):
        raise Conflict(f"build {build.number} is not what the page showed: open it again")


def _blocked(connection: Connection, build: Build) -> list[Job]:
    """Others may run: an approval may cease to hold between two of them."""
    found = jobs.of_build(connection, build.id or 0)
    return [job for job in found if job.status == Status.BLOCKED.value]


def _look(connection: Connection, build: Build) -> _Found | None:
    blocked = _blocked(connection, build)
    if not blocked:
        return None
    root = build
    while root.rerun_of is not None and (before := builds.by_id(connection, root.rerun_of)) is not None:
        root = before
    target = str(build.event.get("branch", ""))
    return _Found(
        why=blocked[0].reason,
        root=root,
        moved=approvals.has_moved(connection, build),
        base=builds.newest_of_branch(connection, build.repo_id, target),
        target_sha=repos.ref_sha(connection, build.repo_id, f"refs/heads/{target}"),
    )


# --- the comparison -----------------------------------------------------------------------------------


def _changes(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[FileChange, ...]:
    """One for each file of either side, in the order of their names. May take a second: not on the loop."""
    names = sorted({*old, *new})
    found = [_change(name, old.get(name), new.get(name)) for name in names[:MAX_SHOWN_FILES]]
    if len(names) > MAX_SHOWN_FILES:
        rest = len(names) - MAX_SHOWN_FILES
        found.append(FileChange(name=f"{rest} more files", lines=(), note="look at them at the forge"))
    return tuple(found)


@functools.lru_cache(maxsize=64)
def _change(name: str, old: str | None, new: str | None) -> FileChange:
    if old == new:
        return FileChange(name=name, lines=())
    before, after = (old or "").split("\n"), (new or "").split("\n")
    note = ""
    if old is None or new is None:
        note = "new" if old is None else "removed"
        lines = [f"+{line}" for line in after] if new is not None else [f"-{line}" for line in before]
    elif len(before) > MAX_COMPARED_LINES or len(after) > MAX_COMPARED_LINES:
        note = "changed, and too long to be compared here: this is the whole file"
        lines = [f"+{line}" for line in after]
    else:
        lines = list(difflib.unified_diff(before, after, n=3, lineterm=""))[2:]
    if len(lines) > MAX_SHOWN_LINES:
        note = f"{note}; " if note else ""
        note += f"only {MAX_SHOWN_LINES:,} of {len(lines):,} lines are shown: look at the rest at the forge"
    return FileChange(name=name, lines=tuple(_shown(line) for line in lines[:MAX_SHOWN_LINES]), note=note)


def _shown(line: str) -> str:
    """With what a reader cannot see written out: text that turns round what stands beside it lies."""
    text = "".join(
        f"\\u{ord(char):04x}" if unicodedata.category(char) in _UNSEEN and char != "\t" else char
        for char in line[:MAX_SHOWN_CHARACTERS]
    )
    rest = len(line) - MAX_SHOWN_CHARACTERS
    return f"{text} [and {rest:,} more characters]" if rest > 0 else text
