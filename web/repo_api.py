"""The JSON API of what a repo is: adding one that lives elsewhere, its settings, its deliveries."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from ci.errors import Conflict, Invalid
from ci.server import auth, inbox
from ci.server.auth import Action, NewPlace
from ci.server.models import Inbox
from ci.server.store import repos, views
from web.guard import Call, Policy
from web.openapi import Operation, describe
from web.routes import Entry, get, post
from web.schemas import DeliveryList, NewRepo, NewRepoAnswer, RepoSettings

MAX_DELIVERIES = 100


class RepoApi:
    def __init__(self, inbox: inbox.Inbox) -> None:
        self._inbox = inbox

    def entries(self) -> tuple[Entry, ...]:
        return (
            post("/api/repos", self.add, Policy.SIGNED_IN),
            post("/api/repos/{owner}/{name}/settings", self.settings, Policy.ADMINISTER),
            get("/api/repos/{owner}/{name}/inbox", self.deliveries, Policy.RUN),
        )

    @describe(
        Operation(
            summary="Add a repo that lives elsewhere; answers with its hook and the hook's secret, once",
            answer=NewRepoAnswer,
            status=201,
            body=NewRepo,
            errors=(Conflict,),
        )
    )
    async def add(self, call: Call) -> Response:
        owner, _, name = _field(call, "path").partition("/")
        auth.require(call.actor, Action.CREATE, NewPlace(owner=owner))
        repo, hook_id, secret = await self._inbox.add_plain_repo(owner, name, _field(call, "clone_url"))
        hook = f"{call.parts.url}/hooks/{hook_id}"
        return JSONResponse({"repo": f"{repo.owner}/{repo.name}", "hook": hook, "secret": secret}, 201)

    @describe(Operation(summary="Change who may see a repo", answer=RepoSettings, body=RepoSettings))
    async def settings(self, call: Call) -> Response:
        repo_id, is_private = call.repo.id or 0, _field(call, "is_private").lower() != "false"
        await call.parts.store.write(lambda connection: repos.set_private(connection, repo_id, is_private))
        return JSONResponse({"is_private": is_private})

    @describe(Operation(summary="The newest deliveries, and what became of each", answer=DeliveryList))
    async def deliveries(self, call: Call) -> Response:
        repo_id = call.repo.id or 0
        rows, _ = await call.parts.store.read(
            lambda connection: views.inbox(connection, repo_id, MAX_DELIVERIES)
        )
        return JSONResponse({"deliveries": [_delivery(row) for row in rows]})


def _delivery(row: Inbox) -> dict[str, Any]:
    names = ("id", "delivery", "received_at", "state", "verdict")
    return {name: getattr(row, name) for name in names}


def _field(call: Call, name: str) -> str:
    value = call.form.get(name)
    if not isinstance(value, str) or not value:
        raise Invalid(f"{name} is missing")
    return value
