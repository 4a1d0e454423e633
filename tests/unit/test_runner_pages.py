"""The page of one runner and the sentences of the queue, for who may manage runners and who may not."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select, update

from ci.server.store import audit, runners
from ci.server.store.database import Connection
from ci.server.store.tables import ATTEMPT, BUILD, JOB, REPO
from tests.scene import Scene, fill, send, sign_in

#: Of the scene: r1 works, r2 is idle, r3 is offline.
R1, R2, R3 = 1, 2, 3


@dataclass
class Made:
    scene: Scene
    client: httpx.AsyncClient

    async def words(self, path: str) -> str:
        return words((await self.client.get(path)).text)


def words(page: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Made]:
    scene = Scene(tmp_path)
    await scene.open()
    await scene.user()
    await scene.user("eve", is_admin=False)
    await fill(scene)
    async with scene.client() as client:
        await sign_in(client)
        yield Made(scene, client)
    await scene.close()


async def test_a_runner_that_is_drained_says_when_it_may_be_stopped(made: Made) -> None:
    for runner, says in (
        (R1, "it finishes 1 job and takes no new one; it may be stopped when that is done"),
        (R2, "nothing is left on it and it takes no new job: it may be stopped now"),
    ):
        answer = await send(made.client, f"/runners/{runner}/drain")
        assert (answer.status_code, answer.headers["location"]) == (303, f"/runners/{runner}")
        assert says in await made.words(f"/runners/{runner}")
        assert says in await made.words("/runners")
    await send(made.client, f"/runners/{R2}/resume")
    assert "may be stopped" not in await made.words(f"/runners/{R2}")


async def test_a_paused_runner_says_so_until_it_is_resumed(made: Made) -> None:
    await send(made.client, f"/runners/{R2}/pause")
    assert "it takes no new job until it is resumed" in await made.words(f"/runners/{R2}")
    assert "paused : it takes no new job until it is resumed" in await made.words("/runners")
    await send(made.client, f"/runners/{R2}/resume")
    assert "idle" in await made.words(f"/runners/{R2}")


async def test_a_runner_is_removed_where_its_name_is_typed_and_its_credential_is_dead(made: Made) -> None:
    wrong = await send(made.client, f"/runners/{R2}/remove", confirm="r3")
    assert wrong.status_code == 400
    assert "to remove r2, type that name" in words(wrong.text) and 'value="r3"' in wrong.text
    assert await made.scene.store.read(lambda c: runners.by_credential(c, "r2")) is not None
    done = await send(made.client, f"/runners/{R2}/remove", confirm=" r2 ")
    assert (done.status_code, done.headers["location"]) == (303, "/runners")
    assert await made.scene.store.read(lambda c: runners.by_credential(c, "r2")) is None
    gone = await made.client.get(f"/runners/{R2}")
    assert gone.status_code == 404 and "there is no such runner" in words(gone.text)
    (row,) = await made.scene.store.read(lambda c: audit.latest(c, wanted=audit.Wanted(action="runner")))
    assert (row.user_name, row.action, row.object) == ("ada", "runner.remove", "r2")


async def _lost_by(made: Made, runner: int) -> None:
    def lose(c: Connection) -> None:
        runners.count_lost(c, runner)
        lost = ATTEMPT.c.lost_reason != ""
        c.execute(update(ATTEMPT).where(lost).values(runner_id=runner, finished_at=1.0))

    await made.scene.store.write(lose)


async def test_what_a_runner_lost_is_named_with_its_builds_and_why(made: Made) -> None:
    assert "It has lost none." in await made.words(f"/runners/{R3}")
    await _lost_by(made, R3)
    page = (await made.client.get(f"/runners/{R3}")).text
    assert "It lost 1 in all." in words(page)
    assert "runner r3 was not heard of for 60 s" in words(page) and 'href="/r/ada/worker/2"' in page


async def test_somebody_sees_no_job_of_a_repo_that_is_not_his_and_no_button(made: Made) -> None:
    async with made.scene.client() as other:
        await sign_in(other, "eve")
        page = (await other.get(f"/runners/{R1}")).text
        assert "of another repo" in words(page) and "ada/api" not in page
        assert f"/runners/{R1}/" not in page, "there is nothing to press"
        assert (await send(other, f"/runners/{R1}/remove", confirm="r1")).status_code == 403


async def test_what_was_lost_of_a_private_repo_is_hidden_from_who_may_not_see_it(made: Made) -> None:
    def lose(c: Connection) -> None:
        private = select(JOB.c.id).where(
            JOB.c.build_id == BUILD.c.id, BUILD.c.repo_id == REPO.c.id, REPO.c.is_private
        )
        mine = (ATTEMPT.c.runner_id == R1, ATTEMPT.c.job_id.in_(private))
        c.execute(update(ATTEMPT).where(*mine).values(lost_reason="the secret cause", finished_at=1.0))

    await made.scene.store.write(lose)
    assert "the secret cause" in await made.words(f"/runners/{R1}")
    token = await made.scene.user("mallory", is_admin=False)
    async with made.scene.client() as other, made.scene.client(token) as program:
        await sign_in(other, "eve")
        assert "the secret cause" not in (await other.get(f"/runners/{R1}")).text
        answer = (await program.get(f"/api/runners/{R1}")).json()
        assert {each["job"] for each in answer["lost"]} == {"ada/worker/2/ci"}, "which is public"


async def test_the_queue_says_why_each_job_waits_and_what_would_help(made: Made) -> None:
    queue = await made.words("/queue")
    assert "no runner matches: the job needs the label arch=s390x" in queue
    assert "start a runner with --label arch=s390x, or change `labels` in the pipeline" in queue
    assert "a person must say how it ended: open the build" in queue
