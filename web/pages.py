"""All builds, and the runners: the pages that are lists."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import RedirectResponse, Response

from ci.server import auth, queue
from ci.server.auth import Action
from ci.server.logs import LogKey
from ci.server.models import Build, Job, Repo, Step
from ci.server.runners import Runners, standing
from ci.server.store import jobs, views
from ci.server.store.database import Connection
from ci.server.store.views import BuildRow, Filter
from ci.status import Status
from web import ansi, answer
from web.guard import Call
from web.once import Once
from web.parts import Parts
from web.render import Renderer

PAGE_SIZE = 30
_WORDS = {status.word: status.value for status in Status} | {s.value: s.value for s in Status}
_NEWEST_BYTES = 4096
#: What a kept value is about: the code of a runner.
_CODE = "runner code"


def parse_filter(text: str) -> Filter:
    """`repo:api status:failed words of the title`. What is not known is looked for in the title."""
    found: dict[str, str] = {}
    words = []
    for part in text.split():
        name, colon, value = part.partition(":")
        if name == "status" and value in _WORDS:
            found["status"] = _WORDS[value]
        elif colon and value and name in ("repo", "branch", "author", "event"):
            found[name] = value
        else:
            words.append(part)
    return Filter(**found, text=" ".join(words))


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A row of a list, with the sentence that explains it."""

    row: BuildRow
    why: str = ""
    newest_line: str = ""


def why(connection: Connection, build: Build) -> str:
    """Why a build does not run yet, or ended as it did."""
    if build.status in (Status.PENDING.value, Status.WAITING.value):
        for job in jobs.of_build(connection, build.id or 0):
            if sentence := queue.why_waiting(connection, job):
                return sentence
    return build.reason


def listed(connection: Connection, rows: Sequence[BuildRow]) -> list[Listed]:
    explained = (Status.SUCCESS.value, Status.RUNNING.value)
    return [
        Listed(row=row, why="" if row.build.status in explained else _why_row(connection, row))
        for row in rows
    ]


def _why_row(connection: Connection, row: BuildRow) -> str:
    if row.build.status == Status.FAILURE.value and row.failed is not None:
        return f"{row.failed.name} {answer.ended(row.failed)}"
    return why(connection, row.build)


def newest_line(parts: Parts, job: Job, step: Step) -> str:
    """The last line that a running step has printed. Blocks."""
    key = LogKey(job.id or 0, step.attempt, step.number)
    end = parts.logs.size(key)
    data = parts.logs.read(key, max(0, end - _NEWEST_BYTES), _NEWEST_BYTES)
    lines = (ansi.plain(line).strip() for line in reversed(data.split(b"\n")))
    return next((line[:400] for line in lines if line), "")


def _with_lines(parts: Parts, rows: Sequence[BuildRow]) -> list[Listed]:
    return [
        Listed(row=row, newest_line=newest_line(parts, *row.newest) if row.newest else "") for row in rows
    ]


class Pages:
    def __init__(self, renderer: Renderer, runners: Runners, once: Once) -> None:
        self._renderer = renderer
        self._runners = runners
        self._once = once

    async def home(self, call: Call) -> Response:
        query = call.request.query_params.get("q", "").strip()[:400]
        wanted = parse_filter(query)
        before = number(call.request.query_params.get("before", ""))
        look_at_all = wanted.is_empty and before is None

        def look(c: Connection) -> dict[str, Any]:
            rows = views.builds(c, call.actor, wanted=wanted, before_id=before, limit=PAGE_SIZE + 1)
            return {
                "counts_now": views.counts(c),
                "running": views.running(c, call.actor) if look_at_all else [],
                "asking": listed(c, views.asking(c, call.actor)) if look_at_all else [],
                "builds": listed(c, rows),
                "repos": views.repos(c, call.actor, 12) if look_at_all else [],
            }

        found = await call.parts.store.read(look)
        counts = found.pop("counts_now")
        if not counts.has_users:
            return RedirectResponse("/setup", 303)
        if not call.actor.is_known and not found["repos"] and look_at_all:
            return RedirectResponse("/sign-in", 303)
        found["running"] = await asyncio.to_thread(_with_lines, call.parts, found["running"])
        return await self._renderer.page(call, "home.html", query=query, **paged(found))

    # --- runners ------------------------------------------------------------------------------------

    async def runners(self, call: Call) -> Response:
        """With the code right after it was made; a runner with an id above `after` is the one it was for."""
        asked = call.request.query_params
        key, after = asked.get("once", ""), number(asked.get("after", ""))

        def look(c: Connection) -> dict[str, Any]:
            waiting = views.waiting_jobs(c)
            return {
                "runners": views.runners(c),
                "waiting": _reasons(c, waiting),
                "waiting_count": len(waiting),
            }

        found = await call.parts.store.read(look)
        may_manage = call.may(Action.MANAGE_RUNNERS)
        return await self._renderer.page(
            call,
            "runners.html",
            code=self._once.take(key, _CODE, call.actor) if key and may_manage else "",
            may_manage=may_manage,
            expected=after is not None,
            came=[
                row.runner for row in found["runners"] if after is not None and (row.runner.id or 0) > after
            ],
            may_read=lambda repo: auth.can(call.actor, Action.READ, repo),
            standing=standing,
            **found,
        )

    async def new_runner_code(self, call: Call) -> Response:
        code = await self._runners.new_code(call.actor)
        rows = await call.parts.store.read(views.runners)
        newest = max((row.runner.id or 0 for row in rows), default=0)
        key = self._once.keep(code, _CODE, call.actor)
        return RedirectResponse(f"/runners?once={key}&after={newest}", 303)


def _reasons(c: Connection, waiting: Sequence[tuple[Job, Build, Repo]]) -> list[tuple[str, int]]:
    """The sentences of all jobs that wait, each with how many it holds for."""
    found: dict[str, int] = {}
    for job, _, _ in waiting:
        sentence = queue.why_waiting(c, job).partition(";")[0]
        found[sentence] = found.get(sentence, 0) + 1
    return sorted(found.items(), key=lambda pair: -pair[1])


def paged(found: dict[str, Any]) -> dict[str, Any]:
    """One more was asked for than is shown: it says that there are older ones."""
    rows: list[Listed] = found["builds"]
    has_more = len(rows) > PAGE_SIZE
    shown = rows[:PAGE_SIZE]
    return {**found, "builds": shown, "older": shown[-1].row.build.id if has_more else None}


def number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 18 else None
