"""The queue: what waits and why, in the order in which it will be taken; and what runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from ci.server import auth, queue
from ci.server.auth import Action, Actor
from ci.server.models import Build, Job, Repo
from ci.server.store import views
from ci.server.store.database import Connection
from web.guard import Call
from web.render import Renderer

MAX_ROWS = 200
_RUNS = queue.Wait()


@dataclass(frozen=True, kw_only=True)
class QueuedJob:
    """A job as somebody may see it: of a repo that is not his, only that there is one."""

    job: Job
    build: Build | None
    repo: Repo | None
    why: str = ""
    help: str = ""  #: what would make it run
    runner: str = ""
    place: int = 0  #: in the queue, from 1


class QueuePage:
    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer

    async def queue(self, call: Call) -> Response:
        found = await call.parts.store.read(lambda c: _look(c, call.actor))
        return await self._renderer.page(call, "queue.html", **found)


def _look(c: Connection, actor: Actor) -> dict[str, Any]:
    waiting = views.waiting_jobs(c, MAX_ROWS)
    runners = views.runners(c)
    return {
        "waiting": [
            _shown(actor, row, wait=queue.explain(c, row[0]), place=place)
            for place, row in enumerate(waiting, start=1)
        ],
        "running": [_shown(actor, row, runner=each.runner.name) for each in runners for row in each.work],
        "blocked": [
            _shown(actor, row, wait=queue.explain(c, row[0])) for row in views.jobs_that_ask(c, MAX_ROWS)
        ],
        "places": sum(each.runner.capacity for each in runners if each.runner.is_connected),
    }


def _shown(
    actor: Actor,
    row: tuple[Job, Build, Repo],
    *,
    wait: queue.Wait = _RUNS,
    runner: str = "",
    place: int = 0,
) -> QueuedJob:
    job, build, repo = row
    is_seen = auth.can(actor, Action.READ, repo)
    return QueuedJob(
        job=job,
        build=build if is_seen else None,
        repo=repo if is_seen else None,
        why=wait.why,
        help=wait.help,
        runner=runner,
        place=place,
    )
