"""The ways in: every push becomes its builds exactly once, or a sentence why not (law 2)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from ci.errors import Forbidden, Invalid, NotFound
from ci.server.auth import Actor
from ci.server.forges import git
from ci.server.forges.builtin import Builtin
from ci.server.forges.directory import Forges
from ci.server.forges.git import PlainGit
from ci.server.hooks import Hooks
from ci.server.inbox import MOVE_SECONDS, Inbox
from ci.server.models import Build, Repo
from ci.server.models import Inbox as Row
from ci.server.pushes import Pushes
from ci.server.store import inbox, repos
from ci.server.store.inbox import NewRow
from ci.server.store.tables import BUILD, HOOK, many
from ci.server.trigger import Result, Trigger
from ci.server.vault import Vault
from tests.unit.gitting import CONFIG, ZERO, Work, add_repo
from tests.unit.world import Core, core

URL = "http://ci.test"
BOB = Actor(user_id=2, name="bob")
MAIN = "refs/heads/main"


@dataclass
class Ways:
    """A server's inbox over a repo of the built-in git, and a working copy that pushes to it."""

    core: Core
    forges: Forges
    trigger: Trigger
    repo: Repo
    work: Work
    hooks: Hooks
    inbox: Inbox
    pushes: Pushes
    hook_id: str = ""
    secret: bytes = b""
    plain: Repo | None = None

    def restarted(self) -> Ways:
        """The same, after another start of the server."""
        return replace(self, **_parts(self.core, self.forges, self.trigger))

    async def push(self, *refspecs: str, options: tuple[str, ...] = (), sender: str = "ada") -> list[Result]:
        """What the HTTP layer does: the intent first, then git, then what became of it."""
        row = await self.announce(*refspecs, options=options, sender=sender)
        self.work.git("push", "-q", "-f", "origin", *refspecs, check=False)
        return await self.pushes.done(row)

    async def announce(self, *refspecs: str, options: tuple[str, ...] = (), sender: str = "ada") -> int:
        bare = self.forges.builtin.bare(self.repo.id or 0)
        updates, stands = [], await bare.refs()
        for refspec in refspecs:
            source, _, ref = refspec.partition(":")
            new = self.work.sha(source) if source else ZERO
            updates.append((ref, stands.get(ref, ZERO), new))
        push_id = f"push-{self.core.clock.seconds}-{len(await self.rows())}"
        return await self.pushes.received(self.repo.id or 0, push_id, updates, sender, options)

    async def hooked(self, body: bytes, signature: str | None = None) -> int:
        signed = git.signature(body, self.secret) if signature is None else signature
        headers = {git.SIGNATURE_HEADER: signed}
        return (await self.hooks.receive(self.hook_id, headers, body)).row_id

    async def builds(self) -> list[Build]:
        return await self.core.store.read(lambda c: many(c, Build, select(BUILD).order_by(BUILD.c.id)))

    async def rows(self) -> list[Row]:
        from ci.server.store.tables import INBOX

        return await self.core.store.read(lambda c: many(c, Row, select(INBOX).order_by(INBOX.c.id)))


def _parts(core: Core, forges: Forges, trigger: Trigger) -> dict[str, Any]:
    inbox = Inbox(core.store, core.bus, core.clock, trigger, forges)
    return {
        "hooks": Hooks(core.store, core.bus, core.clock, forges=forges, vault=Vault(bytes(32))),
        "inbox": inbox,
        "pushes": Pushes(core.store, core.clock, inbox, forges.builtin),
    }


@pytest.fixture
async def ways(tmp_path: Path) -> AsyncIterator[Ways]:
    async with core(tmp_path) as world:
        plain = PlainGit(tmp_path / "cache", protocols=("file",))
        forges = Forges(builtin=Builtin(tmp_path / "git", URL), plain=plain)
        trigger = Trigger(world.store, world.bus, world.clock, forges, world.secrets, url=URL)
        repo = await add_repo(world.store, forges.builtin, "ada", "site")
        work = Work(tmp_path / "work", await forges.builtin.create(repo.id or 0))
        work.commit_files({".ci.yml": CONFIG}, "first")
        yield Ways(world, forges, trigger, repo, work, **_parts(world, forges, trigger))


@pytest.fixture
async def elsewhere(ways: Ways, tmp_path: Path) -> Ways:
    """The same repository once more, as one elsewhere with a hook."""
    far = tmp_path / "far.git"
    ways.work.git("init", "-q", "--bare", str(far))
    ways.work.git("remote", "set-url", "origin", str(far))

    def add(connection):  # type: ignore[no-untyped-def]
        repo_id = repos.create(connection, owner="ada", name="far", clone_url=f"file://{far}", now=1.0)
        sealed = Vault(bytes(32)).seal(b"secret", repos.secret_purpose("hook"))
        repos.add_hook(connection, hook_id="hook", repo_id=repo_id, forge="git", sealed_secret=sealed)

    await ways.core.store.write(add)
    ways.hook_id, ways.secret = "hook", b"secret"
    return ways


def body(push_id: str, *refs: tuple[str, str, str]) -> bytes:
    moved = [{"ref": ref, "before": before, "after": after} for ref, before, after in refs]
    return json.dumps({"push_id": push_id, "pusher": "ada", "refs": moved}).encode()


# --- pushes to the built-in git -------------------------------------------------------------------------


async def test_a_push_becomes_a_build_with_its_link(ways: Ways) -> None:
    (result,) = await ways.push(f"main:{MAIN}")
    assert result.sentence == "built #1"
    assert (result.number, result.url) == (1, f"{URL}/r/ada/site/1")
    (build,) = await ways.builds()
    assert (build.status, build.config_file, build.config) == ("pending", ".ci.yml", CONFIG)
    assert (build.event["title"], build.event["sender"], build.event["branch"]) == ("first", "ada", "main")
    (row,) = await ways.rows()
    assert (row.state, row.verdict) == ("processed", f"{MAIN}: built #1")
    repo = await ways.core.store.read(lambda c: repos.find(c, "ada", "site"))
    assert repo is not None and repo.default_branch == "main"


async def test_three_branches_and_a_tag_are_four_builds_of_one_delivery(ways: Ways) -> None:
    refs = [MAIN, "refs/heads/a", "refs/heads/b", "refs/tags/v1"]
    results = await ways.push(*(f"main:{ref}" for ref in refs))
    assert [(result.ref, result.number) for result in results] == list(zip(refs, (1, 2, 3, 4), strict=True))
    assert [build.event_index for build in await ways.builds()] == [0, 1, 2, 3]
    assert len(await ways.rows()) == 1


async def test_a_deleted_branch_is_no_build_and_the_inbox_says_why(ways: Ways) -> None:
    await ways.push(f"main:{MAIN}", "main:refs/heads/old")
    (result,) = await ways.push(":refs/heads/old")
    assert (result.number, result.sentence) == (None, "branch old was deleted, so there is nothing to build")
    assert (await ways.rows())[-1].verdict.endswith("nothing to build")
    (again,) = await ways.push("main:refs/heads/old")
    assert again.number == 3


async def test_forwards_back_and_forwards_again_are_three_builds(ways: Ways) -> None:
    await ways.push(f"main:{MAIN}")
    first = ways.work.sha()
    second = ways.work.commit_files({"a": "1"})
    numbers = [(await ways.push(f"{sha}:{MAIN}"))[0].number for sha in (second, first, second)]
    assert numbers == [2, 3, 4]


async def test_what_git_refused_is_no_build(ways: Ways) -> None:
    row = await ways.announce(f"main:{MAIN}")
    (result,) = await ways.pushes.done(row)
    assert "did not move: git refused the push" in result.sentence
    assert await ways.builds() == []


async def test_a_push_whose_ref_moved_on_meanwhile_is_built_all_the_same(ways: Ways) -> None:
    first = await ways.announce(f"main:{MAIN}")
    ways.work.git("push", "-q", "origin", f"main:{MAIN}")
    ways.work.commit_files({"a": "1"})
    second = await ways.announce(f"main:{MAIN}")
    ways.work.git("push", "-q", "origin", f"main:{MAIN}")
    (later,) = await ways.pushes.done(second)
    (earlier,) = await ways.pushes.done(first)
    assert {later.number, earlier.number} == {1, 2}
    await ways.pushes.compare_refs(ways.repo)
    assert len(await ways.builds()) == 2


@pytest.mark.parametrize("word", ["[ci skip]", "[SKIP CI]", "[no ci]"])
async def test_a_word_in_the_message_skips(ways: Ways, word: str) -> None:
    ways.work.commit_files({"a": "1"}, f"docs\n\nonly docs {word}")
    (result,) = await ways.push(f"main:{MAIN}")
    assert (result.number, result.sentence) == (None, f"skipped, because the commit message says {word}")
    await ways.pushes.compare_refs(ways.repo)
    assert await ways.builds() == []


async def test_a_push_option_skips_and_the_comparison_respects_it(ways: Ways) -> None:
    (result,) = await ways.push(f"main:{MAIN}", options=("ci.skip",))
    assert result.sentence == "skipped, because the push said -o ci.skip"
    await ways.pushes.compare_refs(ways.repo)
    assert await ways.builds() == []


async def test_no_pipeline_file_is_a_verdict_and_no_build(ways: Ways) -> None:
    ways.work.git("rm", "-q", ".ci.yml")
    ways.work.commit_files({})
    (result,) = await ways.push(f"main:{MAIN}")
    assert result.sentence.startswith("no build: the commit has no pipeline file")
    assert await ways.builds() == []


async def test_a_broken_pipeline_file_is_a_build_that_says_all_that_is_wrong(ways: Ways) -> None:
    ways.work.commit_files({".ci.yml": "steps:\n  - name: a\n    imagee: x\n  - nonsense: 1\n"})
    (result,) = await ways.push(f"main:{MAIN}")
    (build,) = await ways.builds()
    assert (result.number, build.status, build.outcome, build.finished_at is not None) == (
        1,
        "error",
        "config",
        True,
    )
    assert len(build.problems) > 1
    assert build.reason.startswith(".ci.yml:") and "more problem" in build.reason
    assert all({"message", "line", "column", "file"} <= set(problem) for problem in build.problems)


async def test_a_pipeline_file_that_is_no_text_is_a_build_that_says_so(ways: Ways) -> None:
    ways.work.commit_files({".ci.yml": b"\xff\xfe"})
    await ways.push(f"main:{MAIN}")
    (build,) = await ways.builds()
    assert (build.status, build.reason) == ("error", ".ci.yml is not UTF-8: byte 0 is 0xff")
    assert (await ways.trigger.rerun(build.id or 0, BOB))[2] == 2
    assert [each.status for each in await ways.builds()] == ["error", "error"]


async def test_conditions_that_leave_every_job_out_are_a_verdict(ways: Ways) -> None:
    ways.work.commit_files({".ci.yml": "when:\n  - event: tag\n" + CONFIG})
    (result,) = await ways.push(f"main:{MAIN}")
    assert result.sentence.startswith("no build: ")
    assert await ways.builds() == []


async def test_several_files_are_several_jobs_and_are_stored_together(ways: Ways) -> None:
    ways.work.git("rm", "-q", ".ci.yml")
    ways.work.commit_files({".ci/one.yml": CONFIG, ".ci/two.yaml": CONFIG})
    await ways.push(f"main:{MAIN}")
    (build,) = await ways.builds()
    assert build.config_file == ".ci/"
    assert json.loads(build.config) == {".ci/one.yml": CONFIG, ".ci/two.yaml": CONFIG}
    assert len(await ways.core.jobs_of(build.id or 0)) == 2
    await ways.trigger.rerun(build.id or 0, BOB)
    assert len(await ways.core.jobs_of(2)) == 2


async def test_a_mirror_of_a_thousand_refs_moves_and_builds_nothing(ways: Ways) -> None:
    refs = [f"refs/tags/v{number}" for number in range(1001)]
    (result,) = await ways.push(*(f"main:{ref}" for ref in refs))
    assert result.sentence == "this push moved 1,001 refs; of more than 1,000 none is built"
    await ways.pushes.compare_refs(ways.repo)
    assert await ways.builds() == []
    (pushed,) = await ways.push(f"main:{MAIN}")
    assert pushed.number == 1


async def test_a_step_that_is_left_out_says_why_from_the_start(ways: Ways) -> None:
    tagged = (
        CONFIG
        + "  - name: release\n    image: busybox\n    commands: [true]\n    when:\n      - event: tag\n"
    )
    ways.work.commit_files({".ci.yml": tagged})
    await ways.push(f"main:{MAIN}")
    (job,) = await ways.core.jobs_of(1)
    step = (await ways.core.steps(job.id or 0))["release"]
    assert (step.status, step.outcome, bool(step.reason)) == ("skipped", "skipped", True)


async def test_names_that_are_no_text_do_no_harm(ways: Ways) -> None:
    row = await ways.pushes.received(
        ways.repo.id or 0, "p", [("refs/heads/\udcff", ZERO, ways.work.sha())], "ada", ("x\udcff",)
    )
    (result,) = await ways.pushes.done(row)
    assert result.number is None
    assert await ways.builds() == []


# --- crashes ------------------------------------------------------------------------------------------------


async def test_a_server_killed_after_the_refs_moved_makes_the_build_at_start(ways: Ways) -> None:
    await ways.announce(f"main:{MAIN}")
    ways.work.git("push", "-q", "origin", f"main:{MAIN}")
    again = ways.restarted()
    await again.inbox.process_waiting()
    await again.pushes.compare_all()
    assert [build.number for build in await ways.builds()] == [1]
    assert (await ways.rows())[0].verdict == f"{MAIN}: built #1"


async def test_a_git_that_outlived_the_server_is_waited_for(ways: Ways) -> None:
    row = await ways.announce(f"main:{MAIN}")
    again = ways.restarted()
    await again.inbox.process_waiting()
    assert (await ways.rows())[0].verdict.startswith("not yet")
    ways.work.git("push", "-q", "origin", f"main:{MAIN}")
    await again.pushes.compare_all()
    assert await ways.builds() == []  # the ref belongs to the row that waits
    await again.inbox.process_waiting()
    assert [build.inbox_id for build in await ways.builds()] == [row]


async def test_a_push_that_never_moved_its_ref_ends_with_a_verdict(ways: Ways) -> None:
    await ways.announce(f"main:{MAIN}")
    again = ways.restarted()
    ways.core.clock.seconds += MOVE_SECONDS + 1
    await again.inbox.process_waiting()
    (row,) = await ways.rows()
    assert (row.state, "broken off" in row.verdict) == ("processed", True)


async def test_a_running_push_is_left_alone_by_the_loop(ways: Ways) -> None:
    row = await ways.announce(f"main:{MAIN}")
    assert await ways.inbox.process_waiting() == 0
    ways.work.git("push", "-q", "origin", f"main:{MAIN}")
    await ways.pushes.compare_refs(ways.repo)
    assert await ways.builds() == []
    assert (await ways.pushes.done(row))[0].number == 1


async def test_a_ref_that_moved_without_a_word_is_found_once(ways: Ways) -> None:
    ways.work.git("push", "-q", "origin", f"main:{MAIN}", "main:refs/tags/v1")
    for _ in range(2):
        await ways.restarted().pushes.compare_all()
    assert sorted(build.event["ref"] for build in await ways.builds()) == [MAIN, "refs/tags/v1"]
    ways.work.commit_files({"a": "1"})
    ways.work.git("push", "-q", "origin", f"main:{MAIN}")
    await ways.pushes.compare_refs(ways.repo)
    last = (await ways.builds())[-1]
    assert (last.number, last.event["changed_files"]) == (3, ["a"])


async def test_processing_again_after_a_crash_finds_the_builds_that_were_made(ways: Ways) -> None:
    await ways.push(f"main:{MAIN}", "main:refs/heads/b")
    await ways.core.store.write(lambda c: inbox.settle(c, 1, inbox.RECEIVED, ""))
    again = await ways.restarted().inbox.process(1)
    assert [result.number for result in again] == [1, 2]
    assert len(await ways.builds()) == 2


# --- hooks --------------------------------------------------------------------------------------------------


async def test_a_signed_delivery_is_durable_and_becomes_a_build(elsewhere: Ways) -> None:
    elsewhere.work.git("push", "-q", "origin", "main")
    row = await elsewhere.hooked(body("p1", (MAIN, ZERO, elsewhere.work.sha())))
    assert (await elsewhere.rows())[0].state == "received"
    (result,) = await elsewhere.inbox.process(row)
    assert (result.number, result.url) == (1, f"{URL}/r/ada/far/1")


async def test_twenty_deliveries_of_the_same_push_at_once_are_one_build(elsewhere: Ways) -> None:
    elsewhere.work.git("push", "-q", "origin", "main")
    sent = body("p1", (MAIN, ZERO, elsewhere.work.sha()))
    ids = await asyncio.gather(*(elsewhere.hooked(sent) for _ in range(20)))
    assert len(set(ids)) == 1
    await asyncio.gather(*(elsewhere.inbox.process(row) for row in ids))
    await elsewhere.hooked(sent)
    await elsewhere.inbox.process_waiting()
    assert len(await elsewhere.builds()) == 1


async def test_a_replay_under_another_id_is_a_duplicate_unless_the_ref_came_back(elsewhere: Ways) -> None:
    work = elsewhere.work
    first = work.sha()
    second = work.commit_files({"a": "1"})

    async def deliver(delivery: str, sent: bytes) -> str:
        """A forge whose delivery id is not part of the body."""
        row = await elsewhere.core.store.write(
            lambda c: (
                inbox.receive(c, NewRow(hook_id="hook", repo_id=3, delivery=delivery, body=sent), 1.0).row_id
            )
        )
        await elsewhere.inbox.process(row)
        stored = await elsewhere.core.store.read(lambda c: inbox.by_id(c, row))
        assert stored is not None
        return stored.verdict.removeprefix(f"{MAIN}: ")

    there, back = body("x", (MAIN, first, second)), body("y", (MAIN, second, first))
    work.git("push", "-q", "origin", f"{second}:{MAIN}")
    assert await deliver("1", there) == "built #1"
    assert "the same delivery as 1" in await deliver("2", there)
    work.git("push", "-q", "-f", "origin", f"{first}:{MAIN}")
    assert await deliver("3", back) == "built #2"
    assert "is not at" in await deliver("4", there)
    work.git("push", "-q", "origin", f"{second}:{MAIN}")
    assert await deliver("5", there) == "built #3"


async def test_an_unreachable_forge_is_asked_again_and_given_up_with_a_reason(elsewhere: Ways) -> None:
    row = await elsewhere.hooked(body("p1", (MAIN, ZERO, elsewhere.work.sha())))  # not pushed yet
    assert await elsewhere.inbox.process(row) == []
    (stored,) = await elsewhere.rows()
    assert (stored.state, stored.verdict.startswith("not yet, it is tried again: cannot fetch")) == (
        "received",
        True,
    )
    elsewhere.core.clock.seconds += PlainGit.retry_seconds + 1
    await elsewhere.inbox.process_waiting()
    assert (await elsewhere.rows())[0].state == "failed"
    elsewhere.work.git("push", "-q", "origin", "main")
    await elsewhere.hooked(body("p1", (MAIN, ZERO, elsewhere.work.sha())))
    await elsewhere.inbox.process_waiting()
    assert len(await elsewhere.builds()) == 1


@pytest.mark.parametrize(
    ("sent", "signature", "error"),
    [
        (b"{}", "sha256=0", Forbidden),
        (b"{}", "", Forbidden),
        (b"{}", None, Invalid),
        (b"[" * 100_000, None, Invalid),
        (b'{"push_id": "p", "ref": "refs/heads/a"', None, Invalid),
    ],
)
async def test_a_refused_delivery_leaves_one_line_at_its_hook_and_no_row(
    elsewhere: Ways, sent: bytes, signature: str | None, error: type[Exception]
) -> None:
    for _ in range(2):
        with pytest.raises(error) as refused:
            await elsewhere.hooked(sent, signature)
    assert await elsewhere.rows() == []
    (hook,) = await elsewhere.core.store.read(lambda c: c.execute(select(HOOK)).all())
    assert hook.last_refusal == str(refused.value)[:1000]


async def test_an_unknown_hook_is_not_found(elsewhere: Ways) -> None:
    with pytest.raises(NotFound):
        await elsewhere.hooks.receive("nope", {}, b"{}")


async def test_an_error_of_ours_is_a_verdict_and_stops_no_other_delivery(
    elsewhere: Ways, caplog: pytest.LogCaptureFixture
) -> None:
    work = elsewhere.work
    work.git("push", "-q", "origin", "main")
    await elsewhere.core.store.write(
        lambda c: inbox.receive(c, NewRow(hook_id="hook", repo_id=3, delivery="bad", body=b"no push"), 1.0)
    )
    await elsewhere.hooked(body("p1", (MAIN, ZERO, work.sha())))
    await elsewhere.inbox.process_waiting()
    assert [row.state for row in await elsewhere.rows()] == ["failed", "processed"]
    assert "no JSON" in (await elsewhere.rows())[0].verdict


async def test_the_ready_hook_script_reports_a_push(elsewhere: Ways, tmp_path: Path) -> None:
    got: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length: ")[1].split("\r\n")[0])
        signature = head.split("x-shipway-signature: ")[1].split("\r\n")[0]
        await got.put((signature, await reader.readexactly(length)))
        writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    hooks = tmp_path / "far.git" / "hooks"
    hooks.mkdir(exist_ok=True)
    (hooks / "post-receive").write_text(git.post_receive(f"http://127.0.0.1:{port}/hooks/hook"))
    (hooks / "post-receive").chmod(0o755)
    (hooks / "shipway-secret").write_text("secret\n")
    async with server:
        await asyncio.to_thread(elsewhere.work.git, "push", "-q", "origin", "main", "main:refs/heads/b")
        signature, sent = await asyncio.wait_for(got.get(), 10)
    row = await elsewhere.hooked(sent, signature)
    assert [result.number for result in await elsewhere.inbox.process(row)] == [1, 2]


async def test_a_repo_that_hangs_holds_up_no_other_and_forgets_nothing(elsewhere: Ways) -> None:
    elsewhere.work.git("push", "-q", "origin", "main")
    lock = elsewhere.inbox.lock(2)
    async with lock:  # somebody is at work in the repo "site"
        own = await elsewhere.core.store.write(
            lambda c: inbox.receive_own(
                c, repo_id=2, delivery="own", body=body("own", (MAIN, ZERO, ZERO)), now=1.0
            )
        )
        hanging = asyncio.create_task(elsewhere.inbox.process_waiting())
        async with asyncio.timeout(10):
            while 2 not in elsewhere.inbox._busy:
                await asyncio.sleep(0)
        with elsewhere.core.bus.subscribe("inbox") as topics:
            await elsewhere.hooked(body("p1", (MAIN, ZERO, elsewhere.work.sha())))
            await elsewhere.inbox.process_waiting()
            await topics.wait(5)
        assert len(await elsewhere.builds()) == 1
        assert not hanging.done()
    with elsewhere.core.bus.subscribe("deliveries") as topics:
        await hanging
        assert "deliveries" in await topics.wait(5)
    assert [row.state for row in await elsewhere.rows() if row.id == own] == ["processed"]


# --- rerun --------------------------------------------------------------------------------------------------


async def test_a_rerun_is_a_new_build_of_the_same_commit_and_files(ways: Ways) -> None:
    await ways.push(f"main:{MAIN}")
    ways.work.commit_files({".ci.yml": "broken: ["})
    await ways.push(f"main:{MAIN}", options=("ci.skip",))
    assert await ways.trigger.rerun(1, BOB) == ("ada", "site", 2)
    first, second = await ways.builds()
    assert (second.rerun_of, second.config, second.inbox_id) == (first.id, first.config, None)
    assert second.event == {**first.event, "sender": "bob"}
    (job,) = await ways.core.jobs_of(second.id or 0)
    assert job.spec["environment"]["CI_PIPELINE_NUMBER"] == "2"
    bare = ways.forges.builtin.bare(ways.repo.id or 0)
    assert await bare.ref("refs/shipway/builds/2") == first.event["after"]
    with pytest.raises(NotFound):
        await ways.trigger.rerun(99, BOB)


async def test_pushes_and_reruns_at_once_are_numbered_without_holes(ways: Ways) -> None:
    await ways.push(f"main:{MAIN}")
    await asyncio.gather(
        *(ways.trigger.rerun(1, Actor(user_id=number, name=f"u{number}")) for number in range(8))
    )
    assert sorted(build.number for build in await ways.builds()) == list(range(1, 10))
