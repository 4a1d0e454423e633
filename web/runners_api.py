"""Runners and the queue for programs: what there is, what waits and why, and what an admin does about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.responses import JSONResponse, Response

from ci.errors import NotFound
from ci.server import auth, queue
from ci.server.auth import Action, Actor
from ci.server.runners import Runners, standing
from ci.server.store import views
from ci.server.store.database import Connection
from ci.server.store.views import Loss, QueueRow, RunnerRow
from web.guard import Call
from web.openapi import Operation, Query, describe
from web.query import limit, number
from web.schemas import CodeAnswer, QueueAnswer, RemovedRunner, RunnerFacts, RunnerList, WholeRunner

_ID = {"id": "the runner's id"}


class RunnersApi:
    def __init__(self, runners: Runners) -> None:
        self._runners = runners

    @describe(Operation(summary="The runners, and what they run now", answer=RunnerList))
    async def list(self, call: Call) -> Response:
        found = await call.parts.store.read(views.runners)
        return JSONResponse({"runners": [_runner(call, row) for row in found]})

    @describe(Operation(summary="One runner, and the jobs that it lost", answer=WholeRunner, path=_ID))
    async def one(self, call: Call) -> Response:
        row, lost = await look_at(call)
        return JSONResponse({**_runner(call, row), "lost": [_lost(loss) for loss in lost]})

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
        return JSONResponse(_runner(call, (await look_at(call))[0]))

    @describe(
        Operation(
            summary="Remove a runner: its credential is dead at once, its jobs run elsewhere",
            answer=RemovedRunner,
            path=_ID,
        )
    )
    async def remove(self, call: Call) -> Response:
        row, _ = await look_at(call)
        await self._runners.remove(row.runner.id or 0, call.actor)
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


async def look_at(call: Call) -> tuple[RunnerRow, list[Loss]]:
    """The runner of the path, and what it lost of the repos that the actor may read. Raises NotFound."""
    runner_id = int(call.path("id")[:18])

    def look(c: Connection) -> tuple[RunnerRow | None, list[Loss]]:
        row = next((each for each in views.runners(c) if each.runner.id == runner_id), None)
        return row, views.losses(c, runner_id)

    row, lost = await call.parts.store.read(look)
    if row is None:
        raise NotFound("there is no such runner")
    return row, [loss for loss in lost if auth.can(call.actor, Action.READ, loss.repo)]


def _lost(loss: Loss) -> dict[str, Any]:
    return {
        "job": f"{loss.repo.owner}/{loss.repo.name}/{loss.build.number}/{loss.job.slug}",
        "attempt": loss.attempt.attempt,
        "at": loss.attempt.finished_at,
        "reason": loss.attempt.lost_reason,
    }


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
    stands = standing(row)
    return {
        **facts,
        "state": stands.word,
        "says": stands.says,
        "running": row.load,
        "jobs": _seen(call, row),
    }


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
