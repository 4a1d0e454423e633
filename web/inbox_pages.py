"""The inbox of a repo: every delivery, its verdict, what it said, and Replay. As pages and as JSON."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse, RedirectResponse, Response

from ci.errors import Conflict, NotFound, ShipwayError
from ci.server import deliveries, redact
from ci.server.inbox import Inbox
from ci.server.models import Hook
from ci.server.repos import Repos
from ci.server.store import deliveries as rows
from ci.server.store import inbox
from ci.server.store.database import Connection
from ci.server.store.deliveries import Delivery
from ci.status import Status
from web.guard import Call
from web.openapi import Operation, Query, describe
from web.pages import number
from web.problems import status
from web.render import Renderer
from web.schemas import DeliveryList, WholeDelivery

PAGE_SIZE = 50
MAX_DELIVERIES = 100
_BUILT = re.compile(r"built #([0-9]{1,18})")


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A delivery for a reader. `verdict` in parts: a text, and of a build that is there its number."""

    delivery: Delivery
    words: str
    by: str
    verdict: tuple[tuple[str, int | None], ...]
    status: str  #: of ci.status, for its icon


class InboxPages:
    def __init__(self, renderer: Renderer, inbox: Inbox, repos: Repos) -> None:
        self._renderer = renderer
        self._inbox = inbox
        self._repos = repos

    async def list(self, call: Call) -> Response:
        before = number(call.request.query_params.get("before", ""))
        found, hooks = await _look(call, before, PAGE_SIZE + 1)
        older = found[PAGE_SIZE - 1].row.id if len(found) > PAGE_SIZE else None
        shown = [_shown(call, each) for each in found[:PAGE_SIZE]]
        return await self._renderer.page(
            call, "inbox.html", repo=call.repo, deliveries=shown, hooks=hooks, older=older
        )

    async def one(self, call: Call) -> Response:
        return await self._one(call)

    async def _one(self, call: Call, error: ShipwayError | None = None) -> Response:
        delivery, hooks = await _find(call)
        secrets = self._repos.known_secrets(call.repo, hooks)
        return await self._renderer.page(
            call,
            "delivery.html",
            status_code=status(error) if error else 200,
            repo=call.repo,
            shown=_shown(call, delivery),
            body=redact.shown(delivery.row.body, secrets),
            error=error,
        )

    async def replay(self, call: Call) -> Response:
        row_id = int(call.path("id"))
        try:
            await self._inbox.replay(row_id, call.repo, call.actor)
        except Conflict as error:
            return await self._one(call, error)
        return RedirectResponse(f"/r/{call.repo.owner}/{call.repo.name}/inbox/{row_id}", 303)

    # --- programs -------------------------------------------------------------------------------------

    @describe(
        Operation(
            summary="The newest deliveries, and what became of each",
            answer=DeliveryList,
            query=(Query(name="before", says="only older ones than this id", is_number=True),),
        )
    )
    async def api_list(self, call: Call) -> Response:
        before = number(call.request.query_params.get("before", ""))
        found, _ = await _look(call, before, MAX_DELIVERIES)
        return JSONResponse({"deliveries": [_json(call, each) for each in found]})

    @describe(
        Operation(
            summary="One delivery with its body, secrets removed",
            answer=WholeDelivery,
            path={"id": "of the delivery"},
        )
    )
    async def api_one(self, call: Call) -> Response:
        delivery, hooks = await _find(call)
        body = redact.shown(delivery.row.body, self._repos.known_secrets(call.repo, hooks))
        return JSONResponse({**_json(call, delivery), "body": body})

    @describe(
        Operation(
            summary="Look again at a delivery that made no build",
            answer=WholeDelivery,
            path={"id": "of the delivery"},
            errors=(Conflict,),
        )
    )
    async def api_replay(self, call: Call) -> Response:
        await self._inbox.replay(int(call.path("id")), call.repo, call.actor)
        return await self.api_one(call)


async def _look(call: Call, before: int | None, limit: int) -> tuple[list[Delivery], list[Hook]]:
    repo_id = call.repo.id or 0

    def look(c: Connection) -> tuple[list[Delivery], list[Hook]]:
        return rows.listed(c, repo_id, before_id=before, limit=limit), rows.hooks(c, repo_id)

    return await call.parts.store.read(look)


async def _find(call: Call) -> tuple[Delivery, list[Hook]]:
    repo_id, row_id = call.repo.id or 0, number(call.path("id")) or 0

    def look(c: Connection) -> tuple[Delivery | None, list[Hook]]:
        return rows.find(c, repo_id, row_id), rows.hooks(c, repo_id)

    delivery, hooks = await call.parts.store.read(look)
    if delivery is None:
        raise NotFound(f"there is no delivery with the id {row_id} in this repo")
    return delivery, hooks


def _shown(call: Call, delivery: Delivery) -> Shown:
    return Shown(
        delivery=delivery,
        words=deliveries.words(delivery, call.parts.forges),
        by=deliveries.by(delivery),
        verdict=verdict_parts(delivery),
        status=_status(delivery).value,
    )


def verdict_parts(delivery: Delivery) -> tuple[tuple[str, int | None], ...]:
    """Each `built #12` of a build that is there becomes the one link to it."""
    row, numbers = delivery.row, {build.number for build in delivery.builds}
    text = row.verdict or ("not looked at yet" if row.state == inbox.RECEIVED else row.state)
    found, at = [], 0
    for match in _BUILT.finditer(text):
        if int(match[1]) in numbers:
            numbers.discard(int(match[1]))
            found += [(text[at : match.start()], None), (match[0], int(match[1]))]
            at = match.end()
    found.append((text[at:], None))
    found += [(f" #{rest}", rest) for rest in sorted(numbers)]
    return tuple(part for part in found if part[0])


def _status(delivery: Delivery) -> Status:
    state = delivery.row.state
    if delivery.builds or state == inbox.KEPT:
        return Status.SUCCESS
    return {inbox.RECEIVED: Status.PENDING, inbox.FAILED: Status.ERROR}.get(state, Status.SKIPPED)


def _json(call: Call, delivery: Delivery) -> dict[str, Any]:
    row = delivery.row
    return {
        "id": row.id,
        "delivery": row.delivery,
        "by": deliveries.by(delivery),
        "event": row.forge_event,
        "what": deliveries.words(delivery, call.parts.forges),
        "received_at": row.received_at,
        "size": delivery.size,
        "state": row.state,
        "verdict": row.verdict,
        "builds": [build.number for build in delivery.builds],
        "is_replayable": delivery.is_replayable,
    }
