"""The JSON API of what a repo is: adding one that lives elsewhere, its settings, its deliveries."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from ci.errors import Conflict, Invalid
from ci.server import auth, inbox
from ci.server.auth import Action, NewPlace
from ci.server.models import Inbox
from ci.server.store import audit, repo_settings, repos, views
from ci.server.store.database import Connection
from web.guard import Call, Policy
from web.openapi import Operation, describe
from web.routes import Entry, get, post
from web.schemas import DeliveryList, NewRepo, NewRepoAnswer, RepoSettings, RepoSettingsBody

MAX_DELIVERIES = 100


class RepoApi:
    def __init__(self, inbox: inbox.Inbox) -> None:
        self._inbox = inbox

    def entries(self) -> tuple[Entry, ...]:
        return (
            post("/api/repos", self.add, Policy.SIGNED_IN),
            get("/api/repos/{owner}/{name}/settings", self.settings, Policy.ADMINISTER),
            post("/api/repos/{owner}/{name}/settings", self.change_settings, Policy.ADMINISTER),
            post("/api/repos/{owner}/{name}/enable", self.enable, Policy.ADMINISTER),
            post("/api/repos/{owner}/{name}/disable", self.disable, Policy.ADMINISTER),
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

    @describe(Operation(summary="What an administrator has set for the repo", answer=RepoSettings))
    async def settings(self, call: Call) -> Response:
        return JSONResponse(repo_settings.of(call.repo))

    @describe(
        Operation(
            summary="Change settings of the repo; what is not named stays",
            answer=RepoSettings,
            body=RepoSettingsBody,
        )
    )
    async def change_settings(self, call: Call) -> Response:
        names = [name for name in call.form if name != "csrf"]
        return await self._change(call, {name: call.field(name) for name in names})

    @describe(Operation(summary="Let its events make builds again", answer=RepoSettings))
    async def enable(self, call: Call) -> Response:
        return await self._change(call, {"is_enabled": "true"})

    @describe(Operation(summary="Keep its deliveries, but build nothing", answer=RepoSettings))
    async def disable(self, call: Call) -> Response:
        return await self._change(call, {"is_enabled": "false"})

    async def _change(self, call: Call, given: dict[str, str]) -> Response:
        values, repo_id, now = repo_settings.parsed(given), call.repo.id or 0, call.parts.clock.now()
        words = ", ".join(f"{name}={value}" for name, value in given.items())

        def write(connection: Connection) -> dict[str, Any]:
            repo_settings.change(connection, repo_id, values)
            deed = audit.Deed(action="repo.settings", object=_path(call), repo_id=repo_id, details=words)
            audit.note(connection, call.actor, deed, now)
            repo = repos.by_id(connection, repo_id)
            assert repo is not None
            return repo_settings.of(repo)

        found = await call.parts.store.write(write)
        call.parts.bus.publish(f"repo:{repo_id}", "access")
        return JSONResponse(found)

    @describe(Operation(summary="The newest deliveries, and what became of each", answer=DeliveryList))
    async def deliveries(self, call: Call) -> Response:
        repo_id = call.repo.id or 0
        rows, _ = await call.parts.store.read(
            lambda connection: views.inbox(connection, repo_id, MAX_DELIVERIES)
        )
        return JSONResponse({"deliveries": [_delivery(row) for row in rows]})


def _path(call: Call) -> str:
    return f"{call.repo.owner}/{call.repo.name}"


def _delivery(row: Inbox) -> dict[str, Any]:
    names = ("id", "delivery", "received_at", "state", "verdict")
    return {name: getattr(row, name) for name in names}


def _field(call: Call, name: str) -> str:
    value = call.form.get(name)
    if not isinstance(value, str) or not value:
        raise Invalid(f"{name} is missing")
    return value
