"""Runners and the queue for programs: what there is, what waits and why, and what an admin does about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.responses import JSONResponse, Response

from ci.errors import NotFound
from ci.server import auth, queue
from ci.server.auth import Action, Actor
from ci.server.runners import Runners
from ci.server.store import views
from ci.server.store.database import Connection
from ci.server.store.views import QueueRow, RunnerRow
from web.guard import Call
from web.openapi import Operation, Query, describe
from web.query import limit, number
from web.schemas import CodeAnswer, QueueAnswer, RemovedRunner, RunnerFacts, RunnerList

_ID = {"id": "the runner's id"}


class RunnersApi:
    def __init__(self, runners: Runners) -> None:
        self._runners = runners

    @describe(Operation(summary="The runners, and what they run now", answer=RunnerList))
    async def list(self, call: Call) -> Response:
        found = await call.parts.store.read(views.runners)
        return JSONResponse({"runners": [_runner(call, row) for row in found]})

    @describe(Operation(summary="Make a code for one new runner", answer=CodeAnswer, status=201))
    async def code(self, call: Call) -> Response:
        return JSONResponse({"code": await self._runners.new_code(call.actor)}, 201)

    @describe(
        Operation(
            summary="Pause: it takes no new job until it is resumed",
            answer=RunnerFacts,
            path=_ID,
        )
    )
    async def pause(self, call: Call) -> Response:
        return await self._change(call, self._runners.pause)

    @describe(
        Operation(
            summary="Drain: it finishes what it runs and takes no new job, for a machine that goes away",
            answer=RunnerFacts,
            path=_ID,
        )
    )
    async def drain(self, call: Call) -> Response:
        return await self._change(call, self._runners.drain)

    @describe(
        Operation(
            summary="Resume: it takes jobs again, whether it was paused or draining",
            answer=RunnerFacts,
            path=_ID,
        )
    )
    async def resume(self, call: Call) -> Response:
        return await self._change(call, self._runners.resume)

    async def _change(self, call: Call, change: Callable[[int, Actor], Awaitable[None]]) -> Response:
        runner_id = int(call.path("id"))
        await change(runner_id, call.actor)
        return JSONResponse(_runner(call, await _find(call, runner_id)))

    @describe(
        Operation(
            summary="Remove a runner: its credential is dead at once, its jobs run elsewhere",
            answer=RemovedRunner,
            path=_ID,
        )
    )
    async def remove(self, call: Call) -> Response:
        runner_id = int(call.path("id"))
        row = await _find(call, runner_id)
        await self._runners.remove(runner_id, call.actor)
        return JSONResponse({"removed": row.runner.name})

    @describe(
        Operation(
            summary="The jobs that wait, why, and what would help",
            answer=QueueAnswer,
            query=(
                Query(name="after", says="an id: only younger jobs", is_number=True),
                Query(name="limit", says="how many; 100 without it", most=500),
            ),
        )
    )
    async def queue(self, call: Call) -> Response:
        after, most = number(call, "after", 0) or None, limit(call, default=100, most=500)

        def look(c: Connection) -> tuple[list[dict[str, Any]], int]:
            rows = views.queue(c, call.actor, after_id=after, limit=most)
            hidden = views.queue_length(c) - views.queue_length(c, call.actor)
            return [_queued(call, row, queue.explain(c, row.job)) for row in rows], hidden

        found, hidden = await call.parts.store.read(look)
        following = found[-1]["id"] if len(found) == most else None
        return JSONResponse({"jobs": found, "hidden": hidden, "after": following})


async def _find(call: Call, runner_id: int) -> RunnerRow:
    rows = await call.parts.store.read(views.runners)
    found = next((row for row in rows if row.runner.id == runner_id), None)
    if found is None:
        raise NotFound("there is no such runner")
    return found


def _runner(call: Call, row: RunnerRow) -> dict[str, Any]:
    names = (
        "id",
        "name",
        "labels",
        "capacity",
        "engine",
        "software",
        "is_connected",
        "is_draining",
        "is_paused",
        "lost_leases",
        "registered_at",
        "seen_at",
    )
    facts = {name: getattr(row.runner, name) for name in names}
    return {**facts, "running": row.load, "jobs": _seen(call, row)}


def _seen(call: Call, row: RunnerRow) -> Sequence[str]:
    return [
        f"{repo.owner}/{repo.name}/{build.number}/{job.slug}"
        for job, build, repo in row.work
        if auth.can(call.actor, Action.READ, repo)
    ]


def _queued(call: Call, row: QueueRow, wait: queue.Wait) -> dict[str, Any]:
    path = f"{row.repo.owner}/{row.repo.name}"
    return {
        "id": row.job.id,
        "repo": path,
        "number": row.build.number,
        "job": row.job.slug,
        "name": row.job.name,
        "status": row.job.status,
        "since": row.job.created_at,
        "labels": row.job.spec.get("labels") or {},
        "why": wait.why,
        "help": wait.help,
        "url": f"{call.parts.url}/r/{path}/{row.build.number}",
    }
