"""The JSON API of what a repo is: adding one, its settings, credential and hooks, and its end."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from ci.errors import Conflict, Forbidden, Invalid, NotFound, Unavailable
from ci.server.models import Hook
from ci.server.repos import Added, Repos
from ci.server.store import deliveries, repo_settings, repos
from web import repo_pages
from web.guard import Call
from web.openapi import Operation, describe
from web.schemas import (
    CredentialBody,
    DeleteBody,
    HookAnswer,
    HookList,
    NewRepo,
    NewRepoAnswer,
    RepoSettings,
    RepoSettingsBody,
)


class RepoApi:
    def __init__(self, repos: Repos) -> None:
        self._repos = repos

    @describe(
        Operation(
            summary="Add a repo; answers with its hook and the hook's secret, once",
            answer=NewRepoAnswer,
            status=201,
            body=NewRepo,
            errors=(Conflict, Forbidden, Unavailable),
        )
    )
    async def add(self, call: Call) -> Response:
        usual = repos.PLAIN_GIT if call.field("clone_url") else repos.BUILTIN
        added = await repo_pages.add(self._repos, call, call.field("forge") or usual)
        return JSONResponse(_added(call, added), 201)

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
        return JSONResponse(repo_settings.of(await self._repos.change(call.repo, given, call.actor)))

    @describe(
        Operation(
            summary="Set what opens the repo at its forge, or take it away; it is never shown again",
            answer=None,
            status=204,
            body=CredentialBody,
            errors=(Invalid,),
        )
    )
    async def set_credential(self, call: Call) -> Response:
        await repo_pages.set_credential(call)
        return Response(status_code=204)

    @describe(Operation(summary="The hooks of the repo, without their secrets", answer=HookList))
    async def hooks(self, call: Call) -> Response:
        found = await call.parts.store.read(lambda c: deliveries.hooks(c, call.repo.id or 0))
        return JSONResponse({"hooks": [_hook(call, hook) for hook in found]})

    @describe(
        Operation(
            summary="A new secret for a hook, shown once; the one before it signs for 24 hours more",
            answer=HookAnswer,
            path={"hook": "its id, as the hook's address ends"},
            errors=(NotFound,),
        )
    )
    async def rotate(self, call: Call) -> Response:
        rotated = await self._repos.rotate(call.repo, call.path("hook"), call.actor)
        return JSONResponse({"hook": _address(call, rotated.hook_id), "secret": rotated.secret})

    @describe(
        Operation(
            summary="Delete the repo with all that is its; builds that run are cancelled first",
            answer=None,
            status=204,
            body=DeleteBody,
            errors=(Invalid, Conflict),
        )
    )
    async def delete(self, call: Call) -> Response:
        await self._repos.delete(call.repo, call.field("path"), call.actor)
        return Response(status_code=204)


def _added(call: Call, added: Added) -> dict[str, Any]:
    return {
        "repo": f"{added.repo.owner}/{added.repo.name}",
        "hook": _address(call, added.hook_id) if added.hook_id else "",
        "secret": added.secret,
    }


def _address(call: Call, hook_id: str) -> str:
    return f"{call.parts.url}/hooks/{hook_id}"


def _hook(call: Call, hook: Hook) -> dict[str, Any]:
    names = ("forge", "old_secret_until", "last_refusal", "last_refused_at")
    return {"id": hook.id, "hook": _address(call, hook.id), **{name: getattr(hook, name) for name in names}}
