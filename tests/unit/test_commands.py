"""Repos, people, schedules, variables and runners by commands, against a real server on a socket."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import update

from ci.server.store import audit, codes
from ci.server.store.database import Connection
from ci.server.store.tables import ATTEMPT
from tests.scene import PASSWORD, Scene, sign_in
from tests.test_docs import _leaves
from tests.unit.commanding import Done, Person, Shown, showing
from tests.unit.gitting import CONFIG, Work, add_repo

CODE = re.compile(r"[0-9A-Z]{4}-[0-9A-Z]{4}-[0-9A-Z]{4}")


@pytest.fixture
async def shown(tmp_path: Path) -> AsyncIterator[Shown]:
    async with showing(tmp_path) as made:
        yield made


async def told(person: Person, command: str, *, stdin: str = "") -> str:
    """What it prints, once it has worked."""
    done = await person.run(*command.split(), stdin=stdin.encode())
    assert (done.code, done.err) == (0, ""), done.err
    return done.text


async def refused(person: Person, command: str, *, stdin: str = "", code: int = 2) -> str:
    """The sentence, which is all that it prints."""
    done = await person.run(*command.split(), stdin=stdin.encode())
    assert (done.code, done.out) == (code, b"") and "Traceback" not in done.err, done.err
    return done.err


async def deeds(scene: Scene, word: str) -> list[tuple[str, str, str]]:
    """The newest first: who, what, to what."""
    rows = await scene.store.read(lambda c: audit.latest(c, wanted=audit.Wanted(action=word)))
    return [(row.user_name, row.action, row.object) for row in rows]


def cells(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


# --- builds by hand ------------------------------------------------------------------------------------


async def test_a_branch_is_run_by_hand_with_variables(shown: Shown, tmp_path: Path) -> None:
    builtin = shown.scene.forges.builtin
    repo = await add_repo(shown.scene.store, builtin, "ada", "site")
    work = Work(tmp_path / "work", builtin.bare(repo.id or 0).path)
    work.commit_files({".ci.yml": CONFIG})
    work.git("push", "-q", "origin", "HEAD:main")
    command = "build run ada/site --branch main --var TARGET=staging --var EMPTY="
    assert (await told(shown.ada, command)).startswith("ada/site/1  http://")
    build = await shown.api("/api/repos/ada/site/builds/1")
    assert (build["event"]["kind"], build["event"]["branch"]) == ("manual", "main")
    assert "there is no branch" in await refused(shown.ada, "build run ada/site --branch nope")
    assert "--var 'TARGET' is not NAME=VALUE" in await refused(shown.ada, "build run ada/site --var TARGET")


# --- repos ---------------------------------------------------------------------------------------------


async def test_repos_are_added_with_what_opens_them_and_deleted(shown: Shown) -> None:
    assert (await told(shown.ada, "repo add ada/new --public")).split() == ["repo", "ada/new"]
    assert (await shown.api("/api/repos/ada/new"))["is_private"] is False
    added = await told(
        shown.ada,
        "repo add ada/far --clone-url https://93.184.216.34/far.git --kind password --user bot",
        stdin="hunter2hunter2\n",
    )
    assert "hunter2" not in added and "/hooks/" in added and "secret" in added
    assert await told(shown.ada, "repo credential ada/far --kind token", stdin="another-token\n") == (
        "the token opens ada/far now\n"
    )
    assert await told(shown.ada, "repo credential ada/far --none") == "nothing opens ada/far any more\n"
    assert "--kind token, --kind password, or --none" in await refused(shown.ada, "repo credential ada/far")
    assert "not 'key'" in await refused(shown.ada, "repo credential ada/far --kind key")
    assert "nothing came on standard input where a token of GitHub" in await refused(
        shown.ada, "repo add ada/hub --forge github"
    )
    nowhere = "repo add ada/hub --forge github --api-url http://127.0.0.1:9"
    said = await refused(shown.ada, nowhere, stdin="ghp_value\n", code=3)
    assert "127.0.0.1 cannot be reached" in said and "ghp_value" not in said
    assert "give --yes if you are sure" in await refused(shown.ada, "repo rm ada/far")
    assert await told(shown.ada, "repo rm ada/far --yes") == "ada/far is deleted\n"
    assert "no such repo" in await refused(shown.ada, "repo show ada/far")


async def test_the_secret_of_a_hook_is_rotated_and_shown_once(shown: Shown) -> None:
    await told(shown.ada, "repo add ada/far --clone-url https://93.184.216.34/far.git")
    hook, secret = (
        line.split()[1] for line in (await told(shown.ada, "repo hook rotate ada/far")).splitlines()
    )
    listed = await told(shown.ada, "repo hook ls ada/far")
    assert hook in listed and secret not in listed and cells(listed)[1][2] == "in"
    assert ("ada", "repo.hook", "ada/far") in await deeds(shown.scene, "repo")
    assert "ada/api has 0 hooks" in await refused(shown.ada, "repo hook rotate ada/api")
    assert "needs none" in await told(shown.ada, "repo hook ls ada/api")


async def test_members_get_and_lose_their_roles(shown: Shown) -> None:
    await shown.scene.user("grace", is_admin=False)
    assert await told(shown.ada, "repo member set grace write --repo ada/api") == (
        "grace has the role write in ada/api\n"
    )
    assert ["grace", "write"] in [row[:2] for row in cells(await told(shown.ada, "repo member ls ada/api"))]
    assert "god" in await refused(shown.ada, "repo member set grace god --repo ada/api")
    assert await told(shown.ada, "repo member rm grace --repo ada/api") == (
        "grace has no role in ada/api any more\n"
    )
    assert [deed[1:] for deed in await deeds(shown.scene, "member")] == [
        ("member.remove", "grace"),
        ("member.set", "grace"),
    ]


async def test_the_inbox_is_listed_shown_and_replayed(shown: Shown) -> None:
    listed = await told(shown.ada, "inbox ls ada/api")
    assert "skipped, because the commit message says [ci skip]" in listed
    ids = [row[0] for row in cells(listed)[1:]]
    one = await told(shown.ada, f"inbox show {ids[0]} --repo ada/api")
    assert one.startswith("delivery  ") and '"refs"' in one
    known = (await shown.ada.run("inbox", "show", ids[0], "--repo", "ada/api", "--json")).json
    assert known == await shown.api(f"/api/repos/ada/api/inbox/{ids[0]}")
    assert "there is no delivery with the id 999" in await refused(shown.ada, "inbox show 999 --repo ada/api")
    came = (await shown.api("/api/repos/ada/api/inbox"))["deliveries"]
    target = next(str(each["id"]) for each in came if each["is_replayable"])
    await told(shown.ada, f"inbox replay {target} --repo ada/api")
    assert [deed[:2] for deed in await deeds(shown.scene, "delivery")] == [("ada", "delivery.replay")]


async def test_schedules_are_made_changed_run_and_removed_by_name(shown: Shown) -> None:
    async def ada(*words: str) -> Done:
        return await shown.ada.run("schedule", *words, "--repo", "ada/api")

    made = await ada("add", "nightly", "--cron", "30 2 * * *", "--zone", "Europe/Berlin")
    assert made.code == 0 and made.text.startswith("nightly: At 02:30 every day; next in ")
    wrong = await ada("add", "other", "--cron", "soon")
    assert wrong.code == 2 and "five fields" in wrong.err
    changed = await ada("set", "nightly", "--cron", "0 4 * * 1", "--name", "weekly", "--json")
    assert (changed.json["name"], changed.json["time_zone"]) == ("weekly", "Europe/Berlin")
    assert (await ada("disable", "weekly")).text == "weekly does not run any more\n"
    listed = (await ada("ls")).text
    assert cells(listed)[1][:8] == ["weekly", "0", "4", "*", "*", "1", "Europe/Berlin", "disabled"]
    assert "next in" in (await ada("enable", str(changed.json["id"]))).text, "by its id too"
    assert (await ada("run", "weekly")).text.startswith("weekly runs now")
    missing = await ada("rm", "nightly")
    assert (missing.code, missing.err) == (2, "shipway: there is no schedule 'nightly'; there are: weekly\n")
    assert (await ada("rm", "weekly")).text == "weekly is removed\n"
    assert "makes one" in (await ada("ls")).text


async def test_variables_are_set_listed_and_removed_in_each_place(shown: Shown) -> None:
    for place, words in (
        ("--repo ada/api", "ada/api"),
        ("--owner ada", "every repo of ada"),
        ("--server-wide", "every repo of the server"),
    ):
        assert await told(shown.ada, f"variable set REGION=eu=1 {place}") == f"REGION is set for {words}\n"
        assert cells(await told(shown.ada, f"variable ls {place}"))[1][-1] == "eu=1"
        assert await told(shown.ada, f"variable rm REGION {place}") == f"REGION is removed from {words}\n"
        assert f"no variable of {words}" in await told(shown.ada, f"variable ls {place}")
    assert "is not NAME=VALUE" in await refused(shown.ada, "variable set REGION --repo ada/api")
    assert "CI_X" in await refused(shown.ada, "variable set CI_X=1 --repo ada/api")


async def test_a_secret_keeps_its_value_where_only_its_readers_change(shown: Shown) -> None:
    await told(shown.ada, "secret set token --repo ada/api", stdin="a long enough value\n")
    await told(shown.ada, "secret set token --repo ada/api --keep-value --event tag")
    (found,) = (await shown.api("/api/repos/ada/api/secrets"))["secrets"]
    assert found["events"] == ["tag"]
    missing = await refused(shown.ada, "secret set other --repo ada/api --keep-value")
    assert "other" in missing


# --- people and what is one's own ----------------------------------------------------------------------


async def test_an_account_is_made_joined_changed_and_removed(shown: Shown, tmp_path: Path) -> None:
    made = await told(shown.ada, "people add grace --admin")
    code = CODE.search(made)
    assert code is not None and "/join" in made
    grace = Person(home=tmp_path / "grace")
    grace.home.mkdir()
    joined = await told(grace, f"join {shown.ada.url}", stdin=f"{code[0]}\nher own long password\n")
    assert f"shipway login {shown.ada.url} --name grace" in joined
    again = await refused(grace, f"join {shown.ada.url}", stdin=f"{code[0]}\nher own long password\n")
    assert "was used already" in again
    await told(grace, f"login {shown.ada.url} --name grace --scope admin", stdin="her own long password\n")
    table = cells(await told(grace, "people ls"))
    assert [row[:3] for row in table[1:]] == [["ada", "admin", "active"], ["grace", "admin", "active"]]
    assert await told(shown.ada, "people set grace --no-admin --disabled") == "grace is changed\n"
    assert "disabled" in await refused(grace, "whoami")
    assert "nothing to change" in await refused(shown.ada, "people set grace")
    await told(shown.ada, "people set grace --enabled")
    assert CODE.search(await told(shown.ada, "people reset grace")) is not None
    assert await told(shown.ada, "people rm grace --yes") == "grace is removed\n"
    assert "there is no account 'grace'; there are: ada" in await refused(shown.ada, "people reset grace")
    log = await told(shown.ada, "audit --who ada -q grace")
    did = [row[4] for row in cells(log)[1:]]
    assert (did[0], did[-1]) == ("person.delete", "person.create")


async def test_tokens_sessions_and_the_password_are_ones_own(shown: Shown, tmp_path: Path) -> None:
    made = (await told(shown.ada, "token add laptop --days never")).strip()
    assert made.startswith("shipway_")
    listed = cells(await told(shown.ada, "token ls"))
    assert ["laptop", "read", "never", "never"] in [row[1:] for row in listed]
    reader = Person(home=tmp_path, url=shown.ada.url, token=made)
    assert "may not" in await refused(reader, "token ls")
    assert await told(shown.ada, "token rm laptop") == "laptop is revoked\n"
    assert "not known" in await refused(reader, "whoami")
    async with shown.scene.client() as browser:
        await sign_in(browser)
        (session,) = (await shown.api("/api/account/sessions"))["sessions"]
        assert str(session["id"]) == cells(await told(shown.ada, "session ls"))[1][0]
        assert await told(shown.ada, f"session rm {session['id']}") == f"session {session['id']} has ended\n"
        browser.cookies.clear()
        await sign_in(browser)
        assert await told(shown.ada, "session rm --all") == "ended: 1\n"
    assert "give the ID of a session" in await refused(shown.ada, "session rm")
    changed = await told(shown.ada, "password", stdin=f"{PASSWORD}\na new long password\n")
    assert "the password is changed" in changed
    assert "password" in await refused(shown.ada, "password", stdin=f"{PASSWORD}\nanother one\n")


async def test_the_first_account_is_made_by_the_code_that_the_server_prints(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    await scene.open()
    code = await scene.store.write(lambda c: codes.new_code(c, codes.SETUP, scene.clock.now()))
    async with scene.serving() as url:
        root = Person(home=tmp_path)
        done = await told(root, f"setup {url} --name root", stdin=f"{code}\na long password\n")
        assert done == f"signed in to {url} as root\n"
        assert "root (administrator)" in await told(root, "whoami")
        late = await refused(root, f"setup {url} --name eve", stdin=f"{code}\na long password\n")
        assert "set up already" in late
    await scene.close()


async def test_the_audit_log_of_a_repo_names_who_did_what(shown: Shown) -> None:
    await told(shown.ada, "variable set REGION=eu --repo ada/api")
    rows = cells(await told(shown.ada, "audit ada/api --action variable"))
    assert ("ada", "variable.set", "REGION") in {tuple(row[at : at + 3]) for row in rows for at in range(5)}
    assert await told(shown.ada, "audit ada/api --who nobody") == "nothing was done\n"


# --- runners -------------------------------------------------------------------------------------------


async def test_a_runner_is_shown_with_what_it_lost(shown: Shown) -> None:
    def lose(c: Connection) -> None:
        one = c.execute(ATTEMPT.select().where(ATTEMPT.c.lost_reason != "")).one()
        c.execute(update(ATTEMPT).where(ATTEMPT.c.id == one.id).values(runner_id=3, finished_at=1.0))

    await shown.scene.store.write(lose)
    text = await told(shown.ada, "runners show r3")
    assert ["state", "offline"] in cells(text)
    assert "runner r3 was not heard of for 60 s" in text and "ada/worker/" in text
    drained = await told(shown.ada, "runners drain r2")
    assert drained == "r2 is drained: nothing is left on it and it takes no new job: it may be stopped now\n"


# --- all of them ---------------------------------------------------------------------------------------


def test_no_help_of_an_option_is_swallowed_as_markup() -> None:
    """`[like this]` is a style to what prints the help, and is not shown."""
    texts = [
        (words, param.help)
        for words, command in _leaves()
        for param in command.params
        if re.search(r"\[[a-z#/@]", getattr(param, "help", None) or "")
    ]
    assert texts == []
