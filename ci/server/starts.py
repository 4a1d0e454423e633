"""Builds that nobody pushed: a person runs a branch by hand, or a schedule does.

Either asks the forge where the branch stands now, and makes the one build of that commit. A person waits for
the answer. A schedule's run is a row of the inbox before it is anything else (law 2), so that it makes one
build whoever is killed (schedules.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ci.errors import Conflict, Forbidden, Invalid, NotFound, ShipwayError, Unavailable
from ci.event import Event, Kind
from ci.server.auth import Actor
from ci.server.forges.bare import NO_SHA, is_ref_name
from ci.server.forges.directory import Forges
from ci.server.forges.news import BRANCH, Push, ScheduleNews, Update
from ci.server.models import Repo
from ci.server.store import builds, schedules
from ci.server.store.database import Store
from ci.server.trigger import Result, Trigger

DISABLED = "no build: the repo is disabled; enable it in its settings, then replay this delivery in the inbox"
MAX_VARIABLES = 100
MAX_VALUE_BYTES = 16 * 1024
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}\Z")
#: Names that we and our plugins give a meaning.
_OURS = ("CI_", "PLUGIN_", "SHIPWAY_")


@dataclass(frozen=True, kw_only=True)
class _Start:
    kind: Kind
    branch: str
    sender: str
    variables: Mapping[str, str] = field(default_factory=dict)


def parse_variables(lines: list[str]) -> dict[str, str]:
    """Of NAME=value texts; empty ones count for nothing. Raises Invalid with the line that is wrong."""
    found: dict[str, str] = {}
    for line in lines:
        if not line.strip():
            continue
        name, equals, value = line.partition("=")
        name = name.strip()
        if not equals:
            raise Invalid(f"{line[:80]!r} is not NAME=value")
        if not _NAME.match(name):
            raise Invalid(f"{name[:80]!r} is no name of a variable: letters, digits and `_`, no digit first")
        if name == "CI" or name.startswith(_OURS):
            raise Invalid(
                f"{name} is a name of ours: give your variable one without {_prefix(name)} before it"
            )
        if name in found:
            raise Invalid(f"{name} is given twice")
        if len(value.encode(errors="replace")) > MAX_VALUE_BYTES:
            raise Invalid(f"the value of {name} has more than {MAX_VALUE_BYTES >> 10} KiB")
        found[name] = value
    if len(found) > MAX_VARIABLES:
        raise Invalid(f"at most {MAX_VARIABLES} variables, not {len(found)}")
    return found


def _prefix(name: str) -> str:
    return next((prefix for prefix in _OURS if name.startswith(prefix)), "CI")


class Starts:
    def __init__(self, store: Store, trigger: Trigger, forges: Forges) -> None:
        self._store = store
        self._trigger = trigger
        self._forges = forges

    async def by_hand(
        self, repo: Repo, branch: str, variables: Mapping[str, str], actor: Actor
    ) -> tuple[str, str, int]:
        """The build, as (owner, name, number). `variables` come from `parse_variables`.

        Raises Invalid for a branch that is not there or files that have nothing for it, Conflict for a repo
        that is disabled, Unavailable where its forge does not answer.
        """
        if not repo.is_enabled:
            raise Conflict(f"{repo.owner}/{repo.name} is disabled; enable it in its settings first")
        start = _Start(kind=Kind.MANUAL, branch=branch, sender=actor.name, variables=variables)
        event = await self._event(repo, start)
        made = await self._trigger.start_own(event, repo, who=actor)
        if isinstance(made, str):
            raise Invalid(f"branch {event.branch}: {made}")
        return repo.owner, repo.name, made.number

    async def scheduled(self, row_id: int, repo: Repo, news: ScheduleNews) -> Result:
        """What becomes of a schedule's row; called again, the same. Raises Unavailable: try again later."""
        try:
            result = await self._scheduled(row_id, repo, news)
        except (Unavailable, Forbidden, NotFound) as error:
            await self._say(news, f"not yet, it is tried again: {error}")
            raise
        except ShipwayError as error:
            result = Result(ref="", sentence=f"no build: {error}")
        await self._say(news, result.sentence)
        return result

    async def _scheduled(self, row_id: int, repo: Repo, news: ScheduleNews) -> Result:
        present = await self._store.read(lambda connection: builds.of_event(connection, row_id, 0))
        if present is not None:
            return self._built(repo, present.id or 0, present.number)
        if not repo.is_enabled:
            return Result(ref="", sentence=DISABLED)
        sender = news.sender or f"schedule {news.schedule}"
        event = await self._event(repo, _Start(kind=Kind.CRON, branch=news.branch, sender=sender))
        made = await self._trigger.start_own(event, repo, inbox_id=row_id)
        if isinstance(made, str):
            return Result(ref=event.ref, sentence=made)
        return self._built(repo, made.build_id, made.number)

    def _built(self, repo: Repo, build_id: int, number: int) -> Result:
        url = self._trigger.build_url(repo, number)
        return Result(ref="", sentence=f"built #{number}", build_id=build_id, number=number, url=url)

    async def _say(self, news: ScheduleNews, sentence: str) -> None:
        text = f"{sentence}; {news.missed}" if news.missed else sentence
        await self._store.write(lambda c: schedules.say(c, news.schedule_id, news.due_at, text))

    async def _event(self, repo: Repo, start: _Start) -> Event:
        branch = start.branch.strip() or repo.default_branch
        if not branch:
            raise Invalid(f"{repo.owner}/{repo.name} has no branch yet: push one first")
        ref = BRANCH + branch
        forge = self._forges.of(repo)
        sha = await forge.tip(repo, ref) if ref.isprintable() and is_ref_name(ref) else None
        if sha is None:
            raise Invalid(f"there is no branch {branch[:200]!r} in {repo.owner}/{repo.name}")
        update = Update(ref=ref, before=NO_SHA, after=sha)
        push = Push(push_id=start.kind.value, refs=(update,), pusher=start.sender)
        found = await forge.event_of(repo, push, update)
        if isinstance(found, str):
            raise Invalid(found)
        # Which files changed is nobody's question here: every path filter matches.
        own = {"kind": start.kind, "changed_files": None, "push_id": "", "variables": dict(start.variables)}
        return found.model_copy(update=own)
