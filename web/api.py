"""What the pages show, as JSON for programs. docs/reference/api.md describes every answer."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from ci.errors import NotFound
from ci.server import queue
from ci.server.auth import Action
from ci.server.models import Attempt, Build, Repo, Runner, Step
from ci.server.store import views
from ci.server.store.database import Connection
from ci.server.store.views import BuildRow, BuildView, Filter, JobView
from web.build_page import step_base
from web.guard import Call
from web.pages import make_runner_code, parse_filter, why

MAX_LIMIT = 100


async def builds(call: Call) -> Response:
    """`?q=` filters as the page does, `?before=` continues, `?limit=` up to 100."""
    wanted = parse_filter(call.connection.query_params.get("q", "")[:400])
    return await _list(call, wanted, None)


async def repo_builds(call: Call) -> Response:
    wanted = parse_filter(call.connection.query_params.get("q", "")[:400])
    return await _list(call, wanted, call.repo.id)


async def _list(call: Call, wanted: Filter, repo_id: int | None) -> Response:
    before = _number(call, "before", 0) or None
    limit = min(_number(call, "limit", 30) or 1, MAX_LIMIT)

    def look(c: Connection) -> list[dict[str, Any]]:
        rows = views.builds(c, call.actor, wanted=wanted, repo_id=repo_id, before_id=before, limit=limit)
        return [_build_row(c, call, row) for row in rows]

    found = await call.parts.store.read(look)
    before_next = found[-1]["id"] if len(found) == limit else None
    return JSONResponse({"builds": found, "before": before_next})


def _build_row(c: Connection, call: Call, row: BuildRow) -> dict[str, Any]:
    return {
        **_build(call, row.repo, row.build),
        "reason": why(c, row.build),
        "steps": {"done": row.steps_done, "total": row.steps_total},
    }


def _build(call: Call, repo: Repo, build: Build) -> dict[str, Any]:
    event = build.event
    return {
        "id": build.id,
        "repo": f"{repo.owner}/{repo.name}",
        "number": build.number,
        "status": build.status,
        "outcome": build.outcome,
        "reason": build.reason,
        "event": {
            key: event.get(key, "")
            for key in (
                "kind",
                "ref",
                "branch",
                "tag",
                "after",
                "before",
                "title",
                "author",
                "sender",
                "link",
            )
        },
        "created_at": build.created_at,
        "started_at": build.started_at,
        "finished_at": build.finished_at,
        "url": f"{call.parts.url}/r/{repo.owner}/{repo.name}/{build.number}",
    }


async def build(call: Call) -> Response:
    return JSONResponse(await _whole(call))


async def _whole(call: Call) -> dict[str, Any]:
    def look(c: Connection) -> dict[str, Any] | None:
        view = views.build(c, call.repo, int(call.path("number")[:18]))
        if view is None:
            return None
        jobs = [{**_job(call, view, job), "reason": _why(c, job)} for job in view.jobs]
        return {
            **_build(call, view.repo, view.build),
            "problems": view.build.problems,
            "config_file": view.build.config_file,
            "cancel_reason": view.build.cancel_reason,
            "rerun_of": view.rerun_of.number if view.rerun_of else None,
            "jobs": jobs,
        }

    found = await call.parts.store.read(look)
    if found is None:
        raise NotFound(f"{call.repo.owner}/{call.repo.name} has no build {call.path('number')}")
    return found


def _why(c: Connection, view: JobView) -> str:
    return queue.why_waiting(c, view.job) or view.job.reason


def _job(call: Call, view: BuildView, job: JobView) -> dict[str, Any]:
    row = job.job
    return {
        "id": row.id,
        "name": row.name,
        "slug": row.slug,
        "status": row.status,
        "outcome": row.outcome,
        "matrix": row.spec.get("matrix", {}),
        "attempt": row.attempt,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
        "attempts": [
            {
                **_attempt(each.attempt),
                "steps": [_step(step, call.parts.url + step_base(view, row, step)) for step in each.steps],
            }
            for each in job.attempts
        ],
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "attempt": attempt.attempt,
        "runner": attempt.runner_name,
        "started_at": attempt.started_at,
        "finished_at": attempt.finished_at,
        "lost_reason": attempt.lost_reason,
        "is_over": attempt.is_over,
    }


def _step(step: Step, base: str) -> dict[str, Any]:
    query = f"?attempt={step.attempt}"
    return {
        "number": step.number,
        "name": step.name,
        "slug": step.slug,
        "kind": step.kind,
        "image": step.image,
        "status": step.status,
        "outcome": step.outcome,
        "reason": step.reason,
        "exit_code": step.exit_code,
        "began_after": step.began_after,
        "ended_after": step.ended_after,
        "log_size": step.log_size,
        "url": f"{base}{query}",
        "log": {name: f"{base}/{name}{query}" for name in ("raw", "index", "marks", "live")},
    }


async def cancel(call: Call) -> Response:
    found = await _whole(call)
    await call.parts.lifecycle.cancel(found["id"], call.actor.name)
    return JSONResponse(await _whole(call), 202)


async def rerun(call: Call) -> Response:
    found = await _whole(call)
    owner, name, number = await call.parts.rerun(found["id"], call.actor.name)
    url = f"{call.parts.url}/r/{owner}/{name}/{number}"
    return JSONResponse({"repo": f"{owner}/{name}", "number": number, "url": url}, 201)


async def repos(call: Call) -> Response:
    found = await call.parts.store.read(lambda c: views.repos(c, call.actor))
    return JSONResponse({"repos": [_repo(call, row.repo, row.recent) for row in found]})


async def repo(call: Call) -> Response:
    row = await call.parts.store.read(lambda c: views.repo_row(c, call.repo))
    return JSONResponse({**_repo(call, row.repo, row.recent), "branches": list(row.branches)})


def _repo(call: Call, repo: Repo, recent: tuple[Build, ...]) -> dict[str, Any]:
    path = f"{repo.owner}/{repo.name}"
    last = recent[-1] if recent else None
    return {
        "repo": path,
        "forge": repo.forge,
        "is_private": repo.is_private,
        "default_branch": repo.default_branch,
        "last_build": _build(call, repo, last) if last else None,
        "url": f"{call.parts.url}/r/{path}",
    }


async def runners(call: Call) -> Response:
    """The runners; what they run is named only to an admin."""
    found = await call.parts.store.read(views.runners)
    is_named = call.may(Action.MANAGE_RUNNERS)
    answer = [
        {
            **_runner(row.runner),
            "running": row.load,
            "jobs": [f"{repo.owner}/{repo.name}/{build.number}/{job.slug}" for job, build, repo in row.work]
            if is_named
            else [],
        }
        for row in found
    ]
    return JSONResponse({"runners": answer})


def _runner(runner: Runner) -> dict[str, Any]:
    return {
        "id": runner.id,
        "name": runner.name,
        "labels": runner.labels,
        "capacity": runner.capacity,
        "engine": runner.engine,
        "software": runner.software,
        "is_connected": runner.is_connected,
        "is_draining": runner.is_draining,
        "seen_at": runner.seen_at,
    }


async def runner_code(call: Call) -> Response:
    """A new code: one runner can register with it within an hour."""
    return JSONResponse({"code": await make_runner_code(call)}, 201)


def _number(call: Call, name: str, default: int) -> int:
    text = call.connection.query_params.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 18 else default
