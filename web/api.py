"""What the pages show, as JSON for programs. docs/reference/api.md describes every answer."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from ci.errors import Conflict, Invalid, NotFound
from ci.server import queue
from ci.server.models import Attempt, Build, Repo, Step
from ci.server.store import configs, views
from ci.server.store.database import Connection
from ci.server.store.views import BuildRow, BuildView, Filter, JobView
from web.build_page import is_only_failed, step_base
from web.guard import Call
from web.openapi import Operation, Query, describe
from web.pages import parse_filter, why
from web.query import limit, number
from web.schemas import BuildList, NewBuildAnswer, RepoList, RerunBody, WholeBuild, WholeRepo

_LIST = (
    Query(
        name="q",
        says="a filter, as on the page: `repo:api status:failed branch:main`, and words of the title",
    ),
    Query(name="before", says="an id: only older builds", is_number=True),
    Query(name="limit", says="how many; 30 without it", most=100),
)


@describe(Operation(summary="The newest builds of all repos that you may see", answer=BuildList, query=_LIST))
async def builds(call: Call) -> Response:
    wanted = parse_filter(call.connection.query_params.get("q", "")[:400])
    return await _list(call, wanted, None)


@describe(Operation(summary="The newest builds of a repo", answer=BuildList, query=_LIST))
async def repo_builds(call: Call) -> Response:
    wanted = parse_filter(call.connection.query_params.get("q", "")[:400])
    return await _list(call, wanted, call.repo.id)


async def _list(call: Call, wanted: Filter, repo_id: int | None) -> Response:
    before, most = number(call, "before", 0) or None, limit(call, default=30, most=100)

    def look(c: Connection) -> list[dict[str, Any]]:
        rows = views.builds(c, call.actor, wanted=wanted, repo_id=repo_id, before_id=before, limit=most)
        return [_build_row(c, call, row) for row in rows]

    found = await call.parts.store.read(look)
    before_next = found[-1]["id"] if len(found) == most else None
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


@describe(Operation(summary="A build with its jobs, their attempts and steps", answer=WholeBuild))
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
            "config_file": configs.name(view.build.config_file),
            "cancel_reason": view.build.cancel_reason,
            "needs_approval": view.build.needs_approval,
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
        "depends_on": row.spec.get("depends_on", []),
        "matrix": row.spec.get("matrix", {}),
        "attempt": row.attempt,
        "kept_from": job.kept_number,
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


@describe(
    Operation(
        summary="Ask for the end of a build; it is cancelled once its containers have ended",
        answer=WholeBuild,
        status=202,
    )
)
async def cancel(call: Call) -> Response:
    found = await _whole(call)
    await call.parts.lifecycle.cancel(found["id"], call.actor)
    return JSONResponse(await _whole(call), 202)


@describe(
    Operation(
        summary="A new build of the same event and files",
        answer=NewBuildAnswer,
        status=201,
        body=RerunBody,
        errors=(Conflict, Invalid),
    )
)
async def rerun(call: Call) -> Response:
    found = await _whole(call)
    only_failed = is_only_failed(call)
    owner, name, number = await call.parts.rerun(found["id"], call.actor, only_failed=only_failed)
    url = f"{call.parts.url}/r/{owner}/{name}/{number}"
    return JSONResponse({"repo": f"{owner}/{name}", "number": number, "url": url}, 201)


@describe(Operation(summary="The repos that you may see", answer=RepoList))
async def repos(call: Call) -> Response:
    found = await call.parts.store.read(lambda c: views.repos(c, call.actor))
    return JSONResponse({"repos": [_repo(call, row.repo, row.recent) for row in found]})


@describe(Operation(summary="A repo and its branches", answer=WholeRepo))
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
