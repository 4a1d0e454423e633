"""Deliveries of GitHub over HTTP: what is accepted, what is refused, and each of them once (T9, T10, T11)."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest
from sqlalchemy import update
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ci.errors import ShipwayError
from ci.server.forges.payload import MAX_DEPTH
from ci.server.store import repos
from ci.server.store.tables import HOOK
from tests.fake_github import Delivery, signed
from tests.unit.github_world import ADA, Town, serving, town
from web import problems
from web.hooks import HookDoor


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Town]:
    async with town(tmp_path) as found:
        yield found


def raw(body: bytes, secret: str, *, word: str = "push", kind: str = "application/json") -> Delivery:
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {
        "content-type": kind,
        "x-github-event": word,
        "x-github-delivery": "d-1",
        "x-hub-signature-256": f"sha256={digest}",
    }
    return Delivery(body=body, headers=headers)


async def refused(here: Town, delivery: Delivery, status: int, says: str) -> None:
    answer = await here.send(delivery)
    assert (answer.status_code, says in answer.text) == (status, True), answer.text
    assert await here.rows() == []
    hook = await here.server.store.read(lambda c: repos.hook(c, here.hook_id))
    assert hook is not None and says in hook.last_refusal
    assert here.secret not in answer.text + hook.last_refusal


# --- T9: forgery ----------------------------------------------------------------------------------------


async def test_webhook_signature_is_of_these_bytes_under_this_hooks_secret(here: Town) -> None:
    good = signed("push", here.push(), here.secret)
    flipped = Delivery(body=good.body[:-2] + b" }", headers=good.headers)
    await refused(here, flipped, 403, "does not fit")
    await refused(here, signed("push", here.push(), "other"), 403, "does not fit")
    without = {name: text for name, text in good.headers.items() if name != "x-hub-signature-256"}
    await refused(here, Delivery(body=good.body, headers=without), 403, "SHA-1 alone")
    without.pop("x-hub-signature")
    await refused(here, Delivery(body=good.body, headers=without), 403, "not signed")
    for header in ("", "sha256=", "x", "sha1=" + "0" * 40):
        bad = Delivery(body=good.body, headers={**good.headers, "x-hub-signature-256": header})
        await refused(here, bad, 403, "signature" if header else "SHA-1 alone")
    assert (await here.send(good)).status_code == 202


async def test_an_empty_secret_signs_nothing(here: Town) -> None:
    vault, purpose = here.server.vault, repos.secret_purpose(here.hook_id)
    empty = vault.seal(b"", purpose)
    await here.server.store.write(lambda c: c.execute(update(HOOK).values(secret=empty)))
    await refused(here, signed("push", here.push(), ""), 403, "does not fit")


async def test_nothing_is_parsed_before_it_is_verified(here: Town) -> None:
    answer = await here.send(raw(b"{broken", "wrong"))
    assert (answer.status_code, "JSON" in answer.text) == (403, False)


async def test_every_secret_is_tried_whatever_was_sent(here: Town) -> None:
    """Which of them it was, the time does not tell."""
    forge = here.server.forges.named("github")
    good = signed("push", here.push(), "one")
    for headers in (good.headers, {}, {"x-hub-signature-256": "x"}):
        for secrets in ([b"one", b"two"], [b"two", b"one"]):
            assert forge.is_signed(headers, good.body, secrets) is (headers is good.headers)


async def test_two_secrets_are_valid_while_one_is_rotated_and_then_the_new_one_alone(here: Town) -> None:
    await here.deliver("ping", {"repository": here.far.json()})  # the old secret is in memory
    vault, purpose = here.server.vault, repos.secret_purpose(here.hook_id)
    old, new = vault.seal(here.secret.encode(), purpose), vault.seal(b"new", purpose)
    until = here.clock.now() + 60

    def rotate(connection):  # type: ignore[no-untyped-def]
        connection.execute(update(HOOK).values(secret=new, old_secret=old, old_secret_until=until))

    await here.server.store.write(rotate)
    for secret in ("new", here.secret):
        assert (await here.send(signed("push", here.push(), secret))).status_code == 202
    here.clock.seconds += 61
    assert (await here.send(signed("push", here.push(), here.secret))).status_code == 403
    assert (await here.send(signed("push", here.push(), "new"))).status_code == 202


async def test_a_secret_that_was_taken_away_elsewhere_is_not_accepted_from_memory(here: Town) -> None:
    await here.deliver("ping", {"repository": here.far.json()})
    new = here.server.vault.seal(b"new", repos.secret_purpose(here.hook_id))
    await here.server.store.write(lambda c: c.execute(update(HOOK).values(secret=new)))
    assert (await here.send(signed("push", here.push(), here.secret))).status_code == 403
    assert (await here.send(signed("push", here.push(), "new"))).status_code == 202


async def test_a_delivery_about_another_repo_is_refused_and_said(here: Town) -> None:
    other = here.github.repo(99, "bob", "other")
    body = {**here.push(), "repository": other.json()}
    await refused(here, signed("push", body, here.secret), 403, "the repo with the id 99")
    del body["repository"]
    await refused(here, signed("push", body, here.secret), 403, "about no repo")


async def test_the_secret_of_another_hook_opens_nothing(here: Town) -> None:
    plain = await here.server.repos.add_plain(("ada", "lib"), "https://git.example.com/l.git", None, ADA)
    await refused(here, signed("push", here.push(), plain.secret), 403, "does not fit")
    answer = await here.send(signed("push", here.push(), here.secret), plain.hook_id)
    assert answer.status_code == 403
    assert (await here.send(signed("push", here.push(), here.secret), "nope")).status_code == 404


# --- T10: replay ----------------------------------------------------------------------------------------


async def test_a_delivery_replayed_1000_times_is_one_build(here: Town) -> None:
    body = here.push()
    assert await here.deliver("push", body, delivery="first") == "refs/heads/main: built #1"
    same = signed("push", body, here.secret, delivery="first")
    answers = await asyncio.gather(*(here.send(same) for _ in range(500)))
    assert {answer.status_code for answer in answers} == {202}
    assert {answer.json()["delivery"] for answer in answers} == {1}
    assert all(answer.json()["duplicate"] for answer in answers)
    others = [signed("push", body, here.secret) for _ in range(499)]
    await asyncio.gather(*(here.send(other) for other in others))
    await here.server.inbox.process_waiting()
    assert len(await here.builds()) == 1
    rows = await here.rows()
    assert len(rows) == 500
    assert {row.verdict for row in rows[1:]} == {
        "refs/heads/main: the same delivery as first, which was processed already"
    }


async def test_a_push_a_pull_request_and_a_tag_delivered_twice_and_by_20_at_once_are_one_build_each(
    here: Town,
) -> None:
    here.far.refs["refs/tags/v1"] = here.far.refs["refs/heads/main"]
    bodies = [
        ("push", here.push()),
        ("push", here.push("refs/tags/v1")),
        ("pull_request", here.pull_body(here.pull(7))),
        ("pull_request", here.pull_body(here.pull(8, head_repo_key=5), sender="mallory")),
    ]
    for number, (word, body) in enumerate(bodies, 1):
        for delivery in (signed(word, body, here.secret), signed(word, body, here.secret)):
            answers = await asyncio.gather(*(here.send(delivery) for _ in range(20)))
            assert len({answer.json()["delivery"] for answer in answers}) == 1
            assert sum(not answer.json()["duplicate"] for answer in answers) == 1
            await asyncio.gather(*(here.server.inbox.process_waiting() for _ in range(3)))
            await here.server.inbox.process_waiting()
        assert len(await here.builds()) == number
    kinds = [build.event["kind"] for build in await here.builds()]
    assert kinds == ["push", "tag", "pull_request", "pull_request"]


async def test_the_same_body_is_built_again_once_the_ref_has_been_elsewhere_and_came_back(here: Town) -> None:
    first = here.far.refs["refs/heads/main"]
    there = here.push()
    await here.deliver("push", there)
    here.far.commit("refs/heads/main", {"x": "1"}, "second [ci skip]")
    assert "skipped" in await here.deliver("push", here.push(before=first))
    assert "is not at" in await here.deliver("push", there)
    here.far.refs["refs/heads/main"] = first
    assert await here.deliver("push", there) == "refs/heads/main: built #2"
    assert "the same delivery as" in await here.deliver("push", there)


async def test_a_repeat_of_a_delivery_that_made_no_build_is_processed_again(here: Town) -> None:
    files = here.far.commits[here.far.refs["refs/heads/main"]].files
    config = files.pop(".ci.yml")
    files["README"] = b""
    assert "no build: the commit has no pipeline file" in await here.deliver(
        "push", here.push(), delivery="d"
    )
    files[".ci.yml"] = config
    answer = await here.send(signed("push", here.push(), here.secret, delivery="d"))
    assert answer.json() == {"delivery": 1, "duplicate": True, "message": answer.json()["message"]}
    await here.server.inbox.process_waiting()
    assert (await here.row(1)).verdict == "refs/heads/main: built #1"


# --- T11: bodies ----------------------------------------------------------------------------------------


async def test_hook_oversize_is_refused_by_its_stream(here: Town) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b" " * (1 << 20)

    with contextlib.suppress(httpx.WriteError):  # it may have answered and closed while we were sending
        answer = await here.client.post(f"/hooks/{here.hook_id}", content=endless())
        assert answer.status_code == 413
    hook = await here.server.store.read(lambda c: repos.hook(c, here.hook_id))
    assert hook is not None and "at most 26214400 bytes" in hook.last_refusal
    assert await here.rows() == []


async def test_hook_of_20_mib_is_accepted_from_github_and_not_from_a_plain_repository(here: Town) -> None:
    body = {**here.push(), "padding": "x" * (20 << 20)}
    answer = await here.send(signed("push", body, here.secret))
    assert answer.status_code == 202
    plain = await here.server.repos.add_plain(("ada", "lib"), "https://git.example.com/l.git", None, ADA)
    assert (await here.send(signed("push", body, plain.secret), plain.hook_id)).status_code == 413


async def test_hook_nested_too_deep_is_refused(here: Town) -> None:
    for depth in (MAX_DEPTH + 1, 100_000):
        body = b'{"a":' * depth + b"1" + b"}" * depth
        await refused(here, raw(body, here.secret), 400, "the body is n")
    deep = b'{"repository":{"id":4711},"a":' + b"[" * 60 + b"]" * 60 + b"}"
    assert (await here.send(raw(deep, here.secret, word="ping"))).status_code == 202


@pytest.mark.parametrize(
    ("body", "kind", "says"),
    [
        (b"", "application/json", "no JSON"),
        (b"\xff", "application/json", "no JSON"),
        (b"[1]", "application/json", "no JSON object"),
        (b'{"repository": {"id": NaN}}', "application/json", "NaN is no number"),
        (b'{"id": 1' + b"0" * 5000 + b"}", "application/json", "no JSON"),
        (b"pay=1", "application/x-www-form-urlencoded", "no field `payload`"),
        (b"payload=1&payload=2", "application/x-www-form-urlencoded", "no field `payload`"),
        (b"a&" * 50, "application/x-www-form-urlencoded", "no form"),
        (b"payload=%7Bbroken", "application/x-www-form-urlencoded; charset=utf-8", "no JSON"),
    ],
)
async def test_a_body_that_is_not_well_formed_is_refused_with_the_reason(
    here: Town, body: bytes, kind: str, says: str
) -> None:
    await refused(here, raw(body, here.secret, kind=kind), 400, says)


async def test_a_delivery_without_id_or_event_is_refused(here: Town) -> None:
    good = signed("push", here.push(), here.secret)
    for name, bad in (("x-github-delivery", ""), ("x-github-delivery", "a b"), ("x-github-event", "../x")):
        await refused(here, Delivery(body=good.body, headers={**good.headers, name: bad}), 400, "the header")


async def test_a_form_is_the_same_as_json_and_signed_as_it_is(here: Town) -> None:
    body = here.push()
    assert await here.deliver("push", body, as_form=True) == "refs/heads/main: built #1"
    assert json.loads((await here.rows())[0].body) == body
    json_again = signed("push", body, here.secret)
    form = urlencode({"payload": json_again.body.decode()}).encode()
    wrong = Delivery(
        body=form,
        headers={**json_again.headers, "content-type": "application/x-www-form-urlencoded"},
    )
    assert (await here.send(wrong)).status_code == 403


async def test_a_slow_sender_is_not_waited_for(here: Town) -> None:
    hooks = HookDoor(here.server.hooks, 1 << 20, body_seconds=0.2)

    async def endpoint(request: Request) -> Response:
        try:
            return await hooks.receive(request)
        except ShipwayError as error:
            return Response(str(error), problems.status(error))

    async with serving(Starlette(routes=[Route("/hooks/{hook}", endpoint, methods=["POST"])])) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        head = f"POST /hooks/{here.hook_id} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{{"
        writer.write(head.encode())
        async with asyncio.timeout(10):
            answer = await reader.read(1000)
        writer.close()
    assert b" 408 " in answer.splitlines()[0]
    hook = await here.server.store.read(lambda c: repos.hook(c, here.hook_id))
    assert hook is not None and hook.last_refusal == "the body did not come within 0.2 s"


async def test_a_sender_that_leaves_in_the_middle_makes_no_row(here: Town) -> None:
    port = here.client.base_url.port
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"POST /hooks/{here.hook_id} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{{".encode())
    await writer.drain()
    writer.close()
    async with asyncio.timeout(10):
        while not (hook := await here.server.store.read(lambda c: repos.hook(c, here.hook_id))).last_refusal:  # type: ignore[union-attr]
            await asyncio.sleep(0.01)
    assert hook is not None and "ended in the middle" in hook.last_refusal
    assert await here.rows() == []
