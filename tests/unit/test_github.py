"""What GitHub tells becomes builds, or a sentence why not; what it cannot tell now is asked again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ci.errors import Conflict, Invalid
from ci.event import Kind
from ci.server.forges.base import StatusUpdate
from ci.server.forges.github import state_of
from ci.server.models import Job
from ci.server.pauses import FIRST_SECONDS, NOT_READY_SECONDS
from ci.server.store import audit, jobs, pull_requests, repos
from ci.status import Status
from tests import fake_github
from tests.fake_github import ZERO, rate_limited, signed
from tests.unit.github_world import ADA, KEY, Town, town
from tests.unit.gitting import CONFIG

MAIN = "refs/heads/main"


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Town]:
    async with town(tmp_path) as found:
        yield found


async def job(here: Town) -> Job:
    build = (await here.builds())[-1]
    return (await here.server.store.read(lambda c: jobs.of_build(c, build.id or 0)))[0]


# --- pushes ---------------------------------------------------------------------------------------------


async def test_a_push_is_built_with_what_github_says_of_its_commit(here: Town) -> None:
    before = here.far.refs[MAIN]
    after = here.far.commit(MAIN, {".ci.yml": CONFIG, "b": "2"}, "Second\n\nmore")
    assert await here.deliver("push", here.push(before=before, sender="bob")) == f"{MAIN}: built #1"
    event = await here.event()
    assert (event.kind, event.branch, event.before, event.after) == (Kind.PUSH, "main", before, after)
    assert (event.title, event.author, event.sender) == ("Second", "Ada", "bob")
    assert (event.changed_files, event.is_untrusted) == (("b",), False)
    assert event.link.startswith("https://github.example/ada/app/compare/")
    spec = (await job(here)).spec
    assert spec["clone"]["url"] == "https://github.example/ada/app.git"
    found = spec["environment"]
    assert (found["CI_FORGE_TYPE"], found["CI_FORGE_URL"]) == ("github", "https://github.example")
    assert found["CI_REPO_REMOTE_ID"] == str(KEY)
    assert (await here.builds())[-1].config == CONFIG


async def test_a_tag_is_the_commit_behind_it(here: Town) -> None:
    commit = here.far.refs[MAIN]
    here.far.refs["refs/tags/v1"] = "d" * 40
    here.far.tags["d" * 40] = commit
    body = here.push("refs/tags/v1") | {"head_commit": {"id": commit}}
    assert await here.deliver("push", body) == "refs/tags/v1: built #1"
    event = await here.event()
    assert (event.kind, event.tag, event.after, event.branch) == (Kind.TAG, "v1", commit, "")


async def test_what_is_no_build_says_why(here: Town) -> None:
    body = here.push()
    gone = {**body, "after": ZERO, "before": body["after"], "deleted": True, "head_commit": None}
    assert "branch main was deleted" in await here.deliver("push", gone)
    here.far.commit(MAIN, {".ci.yml": CONFIG}, "docs [no ci]")
    assert "the commit message says [no ci]" in await here.deliver("push", here.push())
    assert "neither a branch nor a tag" in await here.deliver("push", {**body, "ref": "refs/notes/x"})
    assert "no full ref name" in await here.deliver("push", {**body, "ref": "../x"})
    ping = {"zen": "x", "hook": {"events": ["push", "pull_request"]}, "repository": here.far.json()}
    assert await here.deliver("ping", ping) == "the hook works: GitHub's ping has arrived"
    ping["hook"] = {"events": ["push"]}
    assert "not set to send `pull_request`" in await here.deliver("ping", ping)
    repository = {"repository": here.far.json()}
    assert "what is built" in await here.deliver("create", {"ref": "x", "ref_type": "branch", **repository})
    stars = await here.deliver("star", {"action": "created", **repository})
    assert stars == "ignored, because nothing is built on GitHub's event star (created)"
    assert await here.builds() == []


async def test_the_config_is_looked_for_in_its_order_and_where_the_repo_says(here: Town) -> None:
    here.far.commit(
        MAIN, {".ci/b.yaml": CONFIG, ".ci/a.yml": CONFIG, ".ci/x/c.yml": "no", "o/ci.yml": CONFIG}
    )
    await here.deliver("push", here.push())
    assert (await here.builds())[-1].config_file == ".ci/"
    for path, found in (("o/ci.yml", "o/ci.yml"), ("o/", "o/ci.yml"), ("nope.yml", "")):

        def set_path(connection, path=path):  # type: ignore[no-untyped-def]
            from sqlalchemy import update

            from ci.server.store.tables import REPO

            connection.execute(update(REPO).values(config_path=path))

        await here.server.store.write(set_path)
        here.far.commit(MAIN, here_files(here), f"for {path}")
        verdict = await here.deliver("push", here.push())
        if found:
            assert (await here.builds())[-1].config_file == found
        else:
            assert verdict == f"{MAIN}: no build: the commit has no nope.yml"


def here_files(here: Town) -> dict[str, str]:
    return {path: data.decode() for path, data in here.far.commits[here.far.refs[MAIN]].files.items()}


# --- pull requests --------------------------------------------------------------------------------------


async def test_a_pull_request_of_the_repo_itself_is_built_at_its_head_and_beside_the_push(here: Town) -> None:
    pull = here.pull(labels=["bug", "fast"], draft=True)
    here.far.refs["refs/heads/topic"] = pull.head
    assert "built #1" in await here.deliver("push", here.push("refs/heads/topic"))
    assert await here.deliver("pull_request", here.pull_body(pull)) == "refs/pull/7/head: built #2"
    event = await here.event()
    assert (event.kind, event.action, event.pull_request) == (Kind.PULL_REQUEST, "opened", 7)
    assert (event.after, event.sha, event.branch, event.source_branch) == (
        pull.head,
        pull.head,
        "main",
        "topic",
    )
    assert (event.is_from_fork, event.title, event.changed_files) == (False, "Change 7", ("a",))
    build, spec = (await here.builds())[-1], (await job(here)).spec
    assert (build.needs_approval, spec["clone"]["ref"]) == (False, "refs/pull/7/head")
    found = spec["environment"]
    assert {name: found.get(f"CI_COMMIT_{name}") for name in ("PULL_REQUEST", "SOURCE_BRANCH")} == {
        "PULL_REQUEST": "7",
        "SOURCE_BRANCH": "topic",
    }
    assert found["CI_COMMIT_PULL_REQUEST_LABELS"] == "bug,fast"
    assert found["CI_COMMIT_PULL_REQUEST_DRAFT"] == "true"
    assert (found["CI_PIPELINE_EVENT_REASON"], found["CI_COMMIT_REFSPEC"]) == ("opened", "topic:main")


@pytest.mark.parametrize("how", ["another repo", "no repo", "a repo without an id"])
async def test_a_fork_is_a_stranger_by_the_forges_own_ids(here: Town, how: str) -> None:
    pull = here.pull(head_repo_key=5)
    body = here.pull_body(pull, sender="mallory")
    if how == "no repo":
        body["pull_request"]["head"]["repo"] = None
    if how == "a repo without an id":
        body["pull_request"]["head"]["repo"].pop("id")
    await here.deliver("pull_request", body)
    event, build = await here.event(), (await here.builds())[-1]
    assert (event.is_from_fork, event.is_untrusted, event.sender, event.sender_key) == (
        True,
        True,
        "mallory",
        "2",
    )
    assert (build.needs_approval, build.status) == (True, "blocked")
    assert (await job(here)).spec["is_trusted"] is False


async def test_the_author_of_a_commit_makes_nobody_a_friend(here: Town) -> None:
    pull = here.pull(head_repo_key=5)
    here.far.commits[pull.head].author = "ada"
    await here.deliver("pull_request", here.pull_body(pull, sender="mallory"))
    event = await here.event()
    assert (event.author, event.sender, event.sender_key, event.is_untrusted) == ("ada", "mallory", "2", True)


async def test_every_new_head_and_every_new_target_is_built_and_a_new_title_is_not(here: Town) -> None:
    pull = here.pull()
    await here.deliver("pull_request", here.pull_body(pull))
    old = pull.head
    pull.head = here.far.commit("refs/pull/7/head", {".ci.yml": CONFIG, "a": "new"}, "More")
    body = here.pull_body(pull, "synchronize", before=old, after=pull.head)
    assert "built #2" in await here.deliver("pull_request", body)
    assert (await here.event()).before == old
    title = here.pull_body(pull, "edited", changes={"title": {"from": "x"}})
    assert "only the text" in await here.deliver("pull_request", title)
    pull.base = "release"
    here.far.refs["refs/heads/release"] = here.far.refs[MAIN]
    target = here.pull_body(pull, "edited", changes={"base": {"ref": {"from": "main"}}})
    assert "built #3" in await here.deliver("pull_request", target)
    assert (await here.event()).branch == "release"
    for action in ("reopened", "ready_for_review"):
        assert "built #" in await here.deliver("pull_request", here.pull_body(pull, action))
    assert "'labeled' changes no code" in await here.deliver("pull_request", here.pull_body(pull, "labeled"))
    assert len(await here.builds()) == 5


async def test_a_closed_pull_request_is_an_event_of_its_own(here: Town) -> None:
    pull = here.pull()
    body = here.pull_body(pull, "closed")
    body["pull_request"]["state"] = "closed"
    await here.deliver("pull_request", body)
    assert (await here.event()).kind is Kind.PULL_REQUEST_CLOSED
    seen = await here.server.store.read(lambda c: pull_requests.find(c, here.repo_id, 7))
    assert seen is not None and not seen.is_open


async def test_a_repo_that_builds_merges_builds_the_merge(here: Town) -> None:
    await set_repo(here, builds_merge=True)
    pull = here.pull()
    merge = fake_github.sha_of(f"merge 7 {pull.head}")
    here.far.commits[merge] = here.far.commits[pull.head]
    pull.mergeable = None
    assert "has not merged pull request 7 with main yet" in await here.deliver(
        "pull_request", here.pull_body(pull), delivery="d"
    )
    assert (await here.repo()).forge_problem == ""
    pull.mergeable = True
    here.clock.seconds += NOT_READY_SECONDS
    await here.server.inbox.process_waiting()
    event = await here.event()
    assert (event.after, event.merge_sha, event.sha, event.ref) == (
        pull.head,
        merge,
        merge,
        "refs/pull/7/merge",
    )
    spec = (await job(here)).spec
    assert (spec["clone"]["sha"], spec["clone"]["ref"]) == (merge, "refs/pull/7/merge")
    assert spec["environment"]["CI_COMMIT_SHA"] == merge
    seen = await here.server.store.read(lambda c: pull_requests.find(c, here.repo_id, 7))
    assert seen is not None and (seen.head_sha, seen.merge_sha) == (pull.head, merge)


async def test_a_merge_with_conflicts_or_of_an_older_head_is_no_build(here: Town) -> None:
    await set_repo(here, builds_merge=True)
    pull = here.pull(mergeable=False)
    assert "it has conflicts" in await here.deliver("pull_request", here.pull_body(pull))
    body = here.pull_body(pull)
    pull.head = "c" * 40
    assert "has moved on to cccccccccc" in await here.deliver("pull_request", body)
    assert await here.builds() == []


async def test_a_delivery_that_comes_late_does_not_set_a_pull_request_back(here: Town) -> None:
    pull = here.pull()
    late = here.pull_body(pull)
    pull.head = here.far.commit("refs/pull/7/head", {".ci.yml": CONFIG}, "More")
    pull.updated_at = "2026-01-02T04:00:00Z"
    await here.deliver("pull_request", here.pull_body(pull, "synchronize"))
    await here.deliver("pull_request", late)
    seen = await here.server.store.read(lambda c: pull_requests.find(c, here.repo_id, 7))
    assert seen is not None and (seen.head_sha, seen.target_branch) == (pull.head, "main")


async def test_a_pull_request_is_known_as_it_stands_also_while_github_is_down(here: Town) -> None:
    here.github.misbehave = down
    pull = here.pull()
    assert "not yet" in await here.deliver("pull_request", here.pull_body(pull))
    seen = await here.server.store.read(lambda c: pull_requests.find(c, here.repo_id, 7))
    assert seen is not None and seen.head_sha == pull.head


# --- releases, and the repo itself ----------------------------------------------------------------------


async def test_a_published_release_is_built_at_its_tag(here: Town) -> None:
    here.far.refs["refs/tags/v1"] = "d" * 40
    here.far.tags["d" * 40] = here.far.refs[MAIN]
    release = {
        "tag_name": "v1",
        "target_commitish": "main",
        "name": "One",
        "prerelease": True,
        "html_url": "https://github.example/ada/app/releases/v1",
    }
    body = {
        "action": "published",
        "release": release,
        "repository": here.far.json(),
        "sender": {"login": "ada", "id": 1},
    }
    assert await here.deliver("release", body) == "refs/tags/v1: built #1"
    assert "the same delivery as" in await here.deliver("release", body)
    event = await here.event()
    assert (event.kind, event.tag, event.after, event.action) == (
        Kind.RELEASE,
        "v1",
        here.far.refs[MAIN],
        "published",
    )
    found = (await job(here)).spec["environment"]
    assert (found["CI_PIPELINE_RELEASE_TITLE"], found["CI_PIPELINE_RELEASE_PRE"]) == ("One", "true")
    assert found["CI_COMMIT_PRERELEASE"] == "true"
    assert "this one was edited" in await here.deliver("release", {**body, "action": "edited"})
    gone = {**body, "release": {**release, "tag_name": "v2"}}
    assert "there is no tag v2" in await here.deliver("release", gone)


async def test_a_repo_that_was_renamed_moved_and_published_is_followed(here: Town) -> None:
    await here.deliver("push", here.push())
    here.github.rename(here.far, "team", "shop")
    here.far.default_branch, here.far.private = "trunk", False
    verdict = await here.deliver("repository", {"action": "renamed", "repository": here.far.json()})
    assert "it is team/shop now, and was ada/app" in verdict
    repo = await here.repo()
    assert (repo.owner, repo.name, repo.default_branch, repo.is_private) == ("team", "shop", "trunk", False)
    assert repo.clone_url == "https://github.example/team/shop.git"
    here.far.commit(MAIN, {".ci.yml": CONFIG}, "after")
    assert "built #2" in await here.deliver("push", here.push())
    again = await here.deliver("repository", {"action": "edited", "repository": here.far.json()})
    assert again == "nothing new: the repo is here as it is at its forge"


async def test_what_an_old_delivery_says_of_the_repo_is_not_believed(here: Town) -> None:
    old = {"action": "publicized", "repository": {**here.far.json(), "private": False, "name": "old"}}
    await here.deliver("repository", old)
    repo = await here.repo()
    assert (repo.name, repo.is_private) == ("app", True)


async def test_a_new_path_that_is_taken_or_cannot_be_here_is_a_sentence(here: Town) -> None:
    await here.server.repos.add_builtin("ada", "taken", ADA)
    here.github.rename(here.far, "ada", "taken")
    body = {"action": "renamed", "repository": here.far.json()}
    assert "another repo has that path" in await here.deliver("repository", body)
    here.github.rename(here.far, "ada", ".github")
    assert "cannot be part of a repo's path" in await here.deliver("repository", {**body, "x": 1})
    repo = await here.repo()
    assert (repo.owner, repo.name) == ("ada", "app")
    gone = await here.deliver("repository", {"action": "deleted", "repository": here.far.json()})
    assert "nothing more will come from it" in gone


async def test_a_repo_is_added_once_and_the_audit_log_says_who_did(here: Town) -> None:
    repo = await here.repo()
    assert (repo.forge, repo.forge_key, repo.default_branch) == ("github", str(KEY), "main")
    here.far.name = "other"
    with pytest.raises(Conflict, match="here already, as ada/app"):
        await here.add(here.far)
    with pytest.raises(Conflict, match="there is a repo ada/app"):
        await here.add(here.github.repo(5, "ada", "app"))
    with pytest.raises(Invalid, match="cannot be part of a repo's path"):
        await here.add(here.github.repo(6, "ada", ".github"))
    entries = await here.server.store.read(lambda c: audit.latest(c, repo_id=here.repo_id))
    assert "repo.add" in [entry.action for entry in entries]


async def test_a_disabled_repo_keeps_what_comes_and_builds_nothing(here: Town) -> None:
    await set_repo(here, is_enabled=False)
    assert "disabled" in await here.deliver("push", here.push())
    assert await here.builds() == []


async def set_repo(here: Town, **values: object) -> None:
    from sqlalchemy import update

    from ci.server.store.tables import REPO

    await here.server.store.write(
        lambda c: c.execute(update(REPO).where(REPO.c.id == here.repo_id).values(**values))
    )


# --- troubles -------------------------------------------------------------------------------------------


async def down(request: Request) -> Response | None:
    return Response("<html>", 502)


async def narrow(request: Request) -> Response | None:
    return JSONResponse({"message": "Resource not accessible by personal access token"}, 403)


async def limited(request: Request) -> Response | None:
    return rate_limited(seconds=100)


async def hidden(request: Request) -> Response | None:
    return JSONResponse({"message": "Not Found"}, 404)


@pytest.mark.parametrize(
    ("misbehave", "says", "seconds"),
    [
        (down, "answers with 502", FIRST_SECONDS),
        (narrow, "refuses the token", FIRST_SECONDS),
        (limited, "rate limit is used up", 100),
        (hidden, "does not show it to this token", FIRST_SECONDS),
    ],
)
async def test_what_github_cannot_answer_waits_and_is_built_once_it_can(
    here: Town, misbehave, says: str, seconds: float
) -> None:  # type: ignore[no-untyped-def]
    here.github.misbehave = misbehave
    verdict = await here.deliver("push", here.push())
    assert verdict.startswith("not yet, it is tried again: ") and says in verdict
    (row,), repo = await here.rows(), await here.repo()
    assert (row.state, says in repo.forge_problem, repo.forge_problem_at) == (
        "received",
        True,
        here.clock.now(),
    )
    asked = len(here.github.seen)
    for _ in range(3):
        assert await here.server.inbox.process_waiting() == 0
    assert len(here.github.seen) == asked  # it is left alone meanwhile
    here.github.misbehave = None
    here.clock.seconds += seconds + 1
    assert await here.server.inbox.process_waiting() == 1
    assert (await here.row(row.id or 0)).verdict == f"{MAIN}: built #1"
    repo = await here.repo()
    assert (repo.forge_problem, repo.forge_problem_at) == ("", None)


async def test_a_github_that_is_down_is_asked_once_a_round_however_much_waits(here: Town) -> None:
    here.github.misbehave = down
    for name in ("a", "b", "c"):
        here.far.commit(f"refs/heads/{name}", {".ci.yml": CONFIG}, name)
        await here.send(signed("push", here.push(f"refs/heads/{name}"), here.secret))
    assert await here.server.inbox.process_waiting() == 1
    assert [row.verdict[:7] for row in await here.rows()] == ["not yet", "", ""]
    here.github.misbehave = None
    here.clock.seconds += FIRST_SECONDS + 1
    assert await here.server.inbox.process_waiting() == 3
    assert [row.verdict for row in await here.rows()] == [
        f"refs/heads/{name}: built #{number}" for number, name in enumerate("abc", 1)
    ]


async def test_a_commit_that_is_gone_holds_up_no_other_delivery_and_is_given_up(here: Town) -> None:
    here.far.commit("refs/heads/old", {".ci.yml": CONFIG}, "gone soon")
    body = here.push("refs/heads/old")
    here.far.commits.pop(here.far.refs["refs/heads/old"])
    assert "has nothing there" in await here.deliver("push", body)
    assert (await here.repo()).forge_problem == ""
    await here.send(signed("push", here.push(), here.secret))
    assert await here.server.inbox.process_waiting() == 1  # the other one rests
    assert len(await here.builds()) == 1
    here.clock.seconds += 3601
    await here.server.inbox.process_waiting()
    assert [row.state for row in await here.rows()] == ["failed", "processed"]


async def test_a_revoked_token_is_said_and_another_one_mends_it(here: Town) -> None:
    here.github.tokens.clear()
    assert "revoked or has expired" in await here.deliver("push", here.push())
    assert fake_github.TOKEN not in (await here.repo()).forge_problem
    here.github.tokens.add(fake_github.TOKEN)
    await here.server.inbox.process(1)
    assert len(await here.builds()) == 1


async def test_another_token_is_tried_at_once(here: Town) -> None:
    here.github.tokens.clear()
    await here.deliver("push", here.push())
    here.github.tokens.add(fake_github.TOKEN)
    assert await here.server.inbox.process_waiting() == 0
    here.server.inbox.ask_anew(here.repo_id)
    assert await here.server.inbox.process_waiting() == 1
    assert len(await here.builds()) == 1


async def test_a_forge_that_stays_away_is_asked_ever_more_seldom_and_given_up_after_days(here: Town) -> None:
    here.github.misbehave = down
    await here.deliver("push", here.push())
    asked = 0
    for _ in range(1000):
        here.clock.seconds += 15
        asked += await here.server.inbox.process_waiting()
    assert 20 < asked < 80
    here.clock.seconds += 3 * 86400
    await here.server.inbox.process_waiting()
    (row,) = await here.rows()
    assert (row.state, "502" in row.verdict) == ("failed", True)
    here.github.misbehave = None
    await here.send(signed("push", here.push(), here.secret, delivery=row.delivery))
    here.clock.seconds += 301
    await here.server.inbox.process_waiting()
    assert len(await here.builds()) == 1


async def test_a_slow_github_holds_up_no_other_repo(here: Town) -> None:
    other = here.github.repo(99, "bob", "other")
    other.commit(MAIN, {".ci.yml": CONFIG}, "other")
    added = await here.add(other)
    go, hangs = asyncio.Event(), asyncio.Event()

    async def hang(request: Request) -> Response | None:
        if f"/{KEY}/" in request.url.path:
            hangs.set()
            await go.wait()
        return None

    here.github.misbehave = hang
    await here.send(signed("push", here.push(), here.secret))
    slow = asyncio.create_task(here.server.inbox.process_waiting())
    await asyncio.wait_for(hangs.wait(), 10)
    await here.send(signed("push", fake_github.push_json(other, MAIN), added.secret), added.hook_id)
    await here.server.inbox.process_waiting()
    assert [build.repo_id for build in await here.builds()] == [added.repo.id]
    go.set()
    await slow
    assert len(await here.builds()) == 2


async def test_text_of_any_shape_does_nothing_but_appear(here: Town) -> None:
    pull = here.pull(source="\u202e$(x)`'\"")
    body = here.pull_body(pull, sender="\ud800<script>")
    body["pull_request"]["title"] = "a\0b\ud800" + "x" * 10_000
    assert "built #1" in await here.deliver("pull_request", body)
    event = await here.event()
    assert event.title.startswith("a\ufffdb") and len(event.title) <= 500
    assert (await here.rows())[0].state == "processed"


# --- statuses -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", list(Status))
def test_every_status_is_one_of_githubs_four(status: Status) -> None:
    word = state_of(status.value)
    assert word in ("pending", "success", "failure", "error")
    assert (word == "pending") == (not status.is_terminal)


async def test_a_status_is_set_at_the_commit_and_its_text_fits(here: Town) -> None:
    sha = here.far.refs[MAIN]
    status = StatusUpdate(
        sha=sha,
        state="running",
        context="shipway/push/ci",
        description="waits\n" + "x" * 300,
        target_url="http://ci.test/r/ada/app/1",
    )
    await here.server.forges.named("github").set_status(await here.repo(), status)
    (found,) = here.far.statuses
    assert (found["sha"], found["state"], found["context"]) == (sha, "pending", "shipway/push/ci")
    assert found["description"].startswith("waits xxx") and len(found["description"]) == 140


async def test_every_forge_of_a_repo_is_found_by_its_name(here: Town) -> None:
    repo = await here.repo()
    assert here.server.forges.of(repo).name == repos.GITHUB
    with pytest.raises(KeyError):
        here.server.forges.named("nope")
