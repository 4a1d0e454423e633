"""Repos: the list, one repo, adding one, its settings and its hook. JSON: web/repo_api.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import RedirectResponse, Response

from ci.errors import Conflict, Forbidden, Invalid, NotFound, ShipwayError, Unavailable
from ci.server import deliveries as words_of
from ci.server.credentials import Credential, Kind
from ci.server.forges.git import post_receive
from ci.server.models import Hook
from ci.server.repos import Added, Repos
from ci.server.store import deliveries, repo_settings, repos, views
from ci.server.store.database import Connection
from ci.server.store.views import Filter
from web.guard import Call
from web.once import Once
from web.pages import PAGE_SIZE, listed, number, paged
from web.problems import status
from web.render import Renderer

FORGES = (repos.BUILTIN, repos.GITHUB, repos.PLAIN_GIT)
#: What a person at a form can mend: the page comes again with the sentence.
_MISTAKES = (Conflict, Forbidden, Invalid, Unavailable)
_CREDENTIALS = (
    ("", "none: it is public"),
    (Kind.TOKEN.value, "a token"),
    (Kind.PASSWORD.value, "a user and a password"),
)
#: By the forge: what its repos can be opened with.
_KINDS = {
    repos.GITHUB: (Kind.TOKEN,),
    repos.PLAIN_GIT: (Kind.TOKEN, Kind.PASSWORD),
    repos.BUILTIN: (),
}
SETTINGS = tuple(name for name in repo_settings.NAMES)


class RepoPages:
    def __init__(self, renderer: Renderer, repos: Repos, once: Once) -> None:
        self._renderer = renderer
        self._repos = repos
        self._once = once

    async def repos(self, call: Call) -> Response:
        found = await call.parts.store.read(lambda c: views.repos(c, call.actor))
        return await self._renderer.page(call, "repos.html", repos=found)

    async def repo(self, call: Call) -> Response:
        before = number(call.request.query_params.get("before", ""))
        branch = call.request.query_params.get("branch", "")[:200]

        def look(c: Connection) -> dict[str, Any]:
            rows = views.builds(
                c,
                call.actor,
                wanted=Filter(branch=branch),
                repo_id=call.repo.id,
                before_id=before,
                limit=PAGE_SIZE + 1,
            )
            return {"repo": views.repo_row(c, call.repo), "builds": listed(c, rows)}

        found = await call.parts.store.read(look)
        return await self._renderer.page(call, "repo.html", branch=branch, **paged(found))

    # --- add ------------------------------------------------------------------------------------------

    async def add_form(self, call: Call) -> Response:
        forge = call.request.query_params.get("forge", "")
        return await self._add_page(call, forge if forge in FORGES else repos.BUILTIN)

    async def _add_page(self, call: Call, forge: str, error: ShipwayError | None = None) -> Response:
        return await self._renderer.page(
            call,
            "add_repo.html",
            status_code=status(error) if error else 200,
            forge=forge,
            forges=FORGES,
            credentials=_CREDENTIALS,
            error=error,
        )

    async def add(self, call: Call) -> Response:
        forge = call.field("forge")
        try:
            added = await add(self._repos, call, forge)
        except _MISTAKES as error:
            return await self._add_page(call, forge if forge in FORGES else repos.BUILTIN, error)
        path = f"/r/{added.repo.owner}/{added.repo.name}"
        if not added.hook_id:
            return RedirectResponse(path, 303)
        return self._show_once(path, added.hook_id, added.secret, call)

    def _show_once(self, path: str, hook_id: str, secret: str, call: Call) -> Response:
        return RedirectResponse(f"{path}/hook?once={self._once.keep(secret, hook_id, call.actor)}", 303)

    # --- the hook -------------------------------------------------------------------------------------

    async def hook(self, call: Call) -> Response:
        """How to connect the repo; with the secret right after it was made; live, until something came."""

        def look(c: Connection) -> tuple[list[Hook], list[deliveries.Delivery]]:
            repo_id = call.repo.id or 0
            return deliveries.hooks(c, repo_id), deliveries.listed(c, repo_id, limit=5, hooked=True)

        hooks, came = await call.parts.store.read(look)
        if not hooks:
            raise NotFound("this repo has no hook: a push to the built-in git needs none")
        hook, key = hooks[0], call.request.query_params.get("once", "")
        address = f"{call.parts.url}/hooks/{hook.id}"
        return await self._renderer.page(
            call,
            "hook.html",
            repo=call.repo,
            hook=hook,
            address=address,
            secret=self._once.take(key, hook.id, call.actor) if key else "",
            came=[(each, words_of.words(each, call.parts.forges)) for each in came],
            script=post_receive(address) if hook.forge == repos.PLAIN_GIT else "",
        )

    async def rotate(self, call: Call) -> Response:
        rotated = await self._repos.rotate(call.repo, call.path("hook"), call.actor)
        return self._show_once(_base(call), rotated.hook_id, rotated.secret, call)

    # --- settings ---------------------------------------------------------------------------------------

    async def settings(self, call: Call) -> Response:
        return await self._settings_page(call)

    async def _settings_page(self, call: Call, at: str = "", error: ShipwayError | None = None) -> Response:
        """`at` names the form that was wrong: it keeps what was typed."""
        hooks = await call.parts.store.read(lambda c: deliveries.hooks(c, call.repo.id or 0))
        values: Mapping[str, Any] = _given(call) if at == "settings" else _words(repo_settings.of(call.repo))
        return await self._renderer.page(
            call,
            "settings.html",
            status_code=status(error) if error else 200,
            repo=call.repo,
            values=values,
            hooks=hooks,
            kinds=[pair for pair in _CREDENTIALS if pair[0] in ("", *_KINDS[call.repo.forge])],
            at=at,
            error=error,
            saved=call.request.query_params.get("saved", "") == "1",
        )

    async def change(self, call: Call) -> Response:
        try:
            await self._repos.change(call.repo, _given(call), call.actor)
        except _MISTAKES as error:
            return await self._settings_page(call, "settings", error)
        return RedirectResponse(f"{_base(call)}/settings?saved=1", 303)

    async def set_credential(self, call: Call) -> Response:
        try:
            await set_credential(call)
        except _MISTAKES as error:
            return await self._settings_page(call, "credential", error)
        return RedirectResponse(f"{_base(call)}/settings?saved=1", 303)

    async def delete(self, call: Call) -> Response:
        try:
            await self._repos.delete(call.repo, call.field("path"), call.actor)
        except _MISTAKES as error:
            return await self._settings_page(call, "delete", error)
        return RedirectResponse("/repos", 303)


async def add(service: Repos, call: Call, forge: str) -> Added:
    """A repo by the fields of a form or of JSON. Raises Forbidden, Invalid, Conflict, Unavailable."""
    if forge == repos.GITHUB:
        token, api_url = call.field("token"), call.field("api_url")
        return await service.add_github(split_path(call), token, call.actor, api_url=api_url)
    owner, name = split_path(call)
    if forge == repos.PLAIN_GIT:
        return await service.add_plain(
            (owner, name), call.field("clone_url").strip(), credential(call), call.actor
        )
    if forge == repos.BUILTIN:
        is_private = call.field("is_private") not in ("false", "off")
        return await service.add_builtin(owner, name, call.actor, is_private=is_private)
    raise Invalid(f"a repo lives in one of {', '.join(FORGES)}, not in {forge[:80]!r}")


def split_path(call: Call) -> tuple[str, str]:
    """Of `path`: owner and name; a name alone is one's own. Raises Invalid."""
    path = call.field("path").strip()
    if not path:
        raise Invalid("path is missing: OWNER/NAME, or NAME for one of your own")
    owner, slash, name = path.rpartition("/")
    return (owner, name) if slash else (call.actor.name, name)


def credential(call: Call) -> Credential | None:
    """Of the fields `kind`, `user` and `value`; None where no kind is given. Raises Invalid."""
    kind = call.field("kind")
    if not kind:
        return None
    if kind not in (Kind.TOKEN.value, Kind.PASSWORD.value):
        raise Invalid(f"kind is token or password, not {kind[:80]!r}: repos are fetched by http and https")
    user = call.field("user").strip() if kind == Kind.PASSWORD.value else ""
    return Credential(kind=Kind(kind), user=user, value=call.field("value").strip())


async def set_credential(call: Call) -> None:
    given, allowed = credential(call), _KINDS[call.repo.forge]
    if given is not None and given.kind not in allowed:
        words = ", ".join(allowed) or "nothing: it is here"
        raise Invalid(f"a repo of {call.repo.forge} is opened with {words}, not with {given.kind.value}")
    await call.parts.credentials.set(call.repo.id or 0, given, call.actor)
    call.parts.inbox.ask_anew(call.repo.id or 0)
    call.parts.bus.publish(f"repo:{call.repo.id}", "outbox")


def _given(call: Call) -> dict[str, str]:
    """A form sends no box that is not ticked."""
    shown = [name for name in repo_settings.FLAGS if name not in repo_settings.TRUST or call.actor.is_admin]
    flags = {name: "true" if call.flag(name) else "false" for name in shown}
    rest = [name for name in SETTINGS if name not in flags and name in call.form]
    return {**flags, **{name: call.field(name).strip() for name in rest}}


def _words(values: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in values.items()
    }


def _base(call: Call) -> str:
    return f"/r/{call.repo.owner}/{call.repo.name}"
