"""Who may what; passwords, tokens, codes, sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ci.errors import Conflict, Forbidden, Invalid, NotFound, Unauthenticated
from ci.server import auth
from ci.server.account import Account
from ci.server.auth import ANONYMOUS, Action, Actor, NewPlace, Role, Scope, can, require
from ci.server.bus import Bus
from ci.server.clock import Clock
from ci.server.store import codes, sessions, tokens, users
from ci.server.store.database import Store
from ci.server.store.tokens import NewToken

ADMIN = Actor(user_id=1, name="root", is_admin=True)
OWNER = Actor(user_id=2, name="ada")
OTHER = Actor(user_id=3, name="bob")
READER, WRITER, KEEPER = (
    Actor(user_id=4, name="eve", roles={7: role}) for role in (Role.READ, Role.WRITE, Role.ADMIN)
)
PRIVATE = NewPlace(owner="ada", id=7)
ELSEWHERE = NewPlace(owner="ada", id=8)
PUBLIC = NewPlace(owner="ada", is_private=False)

MAY = {
    (OWNER, PRIVATE): {
        Action.READ,
        Action.PUSH,
        Action.RUN,
        Action.APPROVE,
        Action.CREATE,
        Action.ADMINISTER,
        Action.ADMINISTER_OWNER,
        Action.SEE_RUNNERS,
        Action.MANAGE_ACCOUNT,
    },
    (OWNER, PUBLIC): {
        Action.READ,
        Action.PUSH,
        Action.RUN,
        Action.APPROVE,
        Action.CREATE,
        Action.ADMINISTER,
        Action.ADMINISTER_OWNER,
        Action.SEE_RUNNERS,
        Action.MANAGE_ACCOUNT,
    },
    (OTHER, PRIVATE): {Action.SEE_RUNNERS, Action.MANAGE_ACCOUNT},
    (OTHER, PUBLIC): {Action.READ, Action.SEE_RUNNERS, Action.MANAGE_ACCOUNT},
    (ANONYMOUS, PRIVATE): set(),
    (ANONYMOUS, PUBLIC): {Action.READ},
    (ADMIN, PRIVATE): set(Action),
    (OTHER, None): {Action.SEE_RUNNERS, Action.MANAGE_ACCOUNT},
    (ANONYMOUS, None): set(),
    (ADMIN, None): set(Action),
    (READER, PRIVATE): {Action.READ, Action.SEE_RUNNERS, Action.MANAGE_ACCOUNT},
    (WRITER, PRIVATE): {
        Action.READ,
        Action.PUSH,
        Action.RUN,
        Action.APPROVE,
        Action.SEE_RUNNERS,
        Action.MANAGE_ACCOUNT,
    },
    (KEEPER, PRIVATE): {
        Action.READ,
        Action.PUSH,
        Action.RUN,
        Action.APPROVE,
        Action.ADMINISTER,
        Action.SEE_RUNNERS,
        Action.MANAGE_ACCOUNT,
    },
    (KEEPER, ELSEWHERE): {Action.SEE_RUNNERS, Action.MANAGE_ACCOUNT},
}


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize(("actor", "place"), MAY)
def test_the_rules_are_this_table(actor: Actor, place: NewPlace | None, action: Action) -> None:
    assert can(actor, action, place) == (action in MAY[actor, place])


def test_a_token_may_at_most_what_its_scopes_say() -> None:
    reading = Actor(user_id=1, name="root", is_admin=True, scopes=frozenset({Scope.READ}))
    assert {action for action in Action if can(reading, action, PRIVATE)} == {Action.READ, Action.SEE_RUNNERS}
    with pytest.raises(Forbidden, match="this token may not push: its scopes are read"):
        require(reading, Action.PUSH, PRIVATE)
    bare = Actor(user_id=2, name="ada", scopes=frozenset())
    assert [action for action in Action if can(bare, action, PUBLIC)] == [Action.READ]
    every = Actor(user_id=1, name="root", is_admin=True, scopes=frozenset(Scope))
    assert all(can(every, action) for action in Action)


def test_a_refusal_tells_no_more_than_one_may_know() -> None:
    with pytest.raises(Unauthenticated):
        require(ANONYMOUS, Action.READ, PRIVATE)
    with pytest.raises(NotFound):
        require(OTHER, Action.PUSH, PRIVATE)
    with pytest.raises(Forbidden, match="bob may not push here"):
        require(OTHER, Action.PUSH, PUBLIC)
    with pytest.raises(Forbidden):
        require(OTHER, Action.CREATE, PRIVATE)
    require(OWNER, Action.PUSH, PRIVATE)


def test_a_password_is_known_by_its_hash_alone() -> None:
    stored = auth.hash_password("correct horse")
    assert "horse" not in stored
    assert stored != auth.hash_password("correct horse")
    assert auth.is_password("correct horse", stored)
    assert not auth.is_password("correct horsE", stored)
    assert not auth.is_password("", "")


@pytest.mark.parametrize("password", ["", "short", "x" * 1025])
def test_a_password_of_a_bad_length_is_refused(password: str) -> None:
    with pytest.raises(Invalid, match="8 to 1024"):
        auth.hash_password(password)


def test_a_code_is_the_same_however_it_is_typed() -> None:
    code = auth.new_code()
    assert len(code) == 14 and code.count("-") == 2
    assert auth.code_hash(code.lower().replace("-", " ")) == auth.code_hash(code)
    assert auth.code_hash("OIL0-1111-0000") == auth.code_hash("0110-1111-0000")
    assert auth.code_hash(auth.new_code()) != auth.code_hash(code)


# --- stored -----------------------------------------------------------------------------------------


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(tmp_path / "shipway.db")
    await store.open()
    yield store
    await store.close()


async def first(store: Store, code: str, name: str = "ada", now: float = 10.0) -> int:
    hashed = auth.hash_password("correct horse")
    return await store.write(
        lambda c: users.make_first_account(c, code=code, name=name, password_hash=hashed, now=now)
    )


async def setup_code(store: Store, now: float = 10.0, kind: str = codes.SETUP) -> str:
    return await store.write(lambda c: codes.new_code(c, kind, now))


async def test_the_first_account_is_an_admin_and_there_is_one_first(store: Store) -> None:
    one, two = await setup_code(store), await setup_code(store)
    assert not await store.read(users.has_users)
    await first(store, one)
    actor = await Account(store, Bus(), Clock()).check("ada", "correct horse")
    assert (actor.name, actor.is_admin) == ("ada", True)
    with pytest.raises(Conflict, match="set up already"):
        await first(store, two, "eve")


async def test_a_code_of_another_kind_a_wrong_and_an_old_one_are_refused(store: Store) -> None:
    runner = await setup_code(store, kind=codes.RUNNER)
    old = await setup_code(store, now=10.0)
    for code, now in ((runner, 10.0), ("AAAA-AAAA-AAAA", 10.0), (old, 10.0 + 3600)):
        with pytest.raises(Forbidden):
            await first(store, code, now=now)
    await first(store, old, now=10.0 + 3599)


async def test_a_refused_setup_does_not_spend_its_code(store: Store) -> None:
    code = await setup_code(store)
    with pytest.raises(Invalid, match="cannot be a user name"):
        await first(store, code, "Ada Lovelace")
    await first(store, code)


async def test_a_wrong_password_and_a_wrong_name_sound_the_same(store: Store) -> None:
    await first(store, await setup_code(store))
    sounds = set()
    for name, password in (("ada", "wrong horse"), ("eve", "correct horse"), ("", "")):
        with pytest.raises(Unauthenticated) as refused:
            await Account(store, Bus(), Clock()).check(name, password)
        sounds.add(str(refused.value))
    assert len(sounds) == 1


async def test_a_session_lives_until_it_ends_or_is_closed(store: Store) -> None:
    user = await first(store, await setup_code(store))
    cookie = await store.write(lambda c: sessions.open_session(c, user, 10.0, 100.0))

    async def who(now: float) -> str | None:
        visit = await store.read(lambda c: sessions.visit(c, cookie, now))
        return visit.actor.name if visit else None

    assert (await who(11.0), await who(110.0)) == ("ada", None)
    await store.write(lambda c: sessions.close_session(c, cookie))
    assert await who(11.0) is None


async def test_a_token_is_shown_once_listed_by_name_and_revoked(store: Store) -> None:
    user = await first(store, await setup_code(store))
    token = await store.write(lambda c: tokens.add_token(c, user, NewToken(name=" laptop "), 10.0))
    (row,) = await store.read(lambda c: tokens.of_user(c, user))
    assert row.name == "laptop" and token not in row.hash
    visit = await store.read(lambda c: tokens.visit(c, token, 11.0))
    assert visit is not None and visit.actor.name == "ada"
    with pytest.raises(NotFound):
        await store.write(lambda c: tokens.revoke(c, user + 1, row.id or 0))
    await store.write(lambda c: tokens.revoke(c, user, row.id or 0))
    assert await store.read(lambda c: tokens.visit(c, token, 11.0)) is None
    with pytest.raises(Invalid):
        await store.write(lambda c: tokens.add_token(c, user, NewToken(name="  "), 10.0))


# --- documented -------------------------------------------------------------------------------------

PAGE = Path(__file__).parents[2] / "docs/reference/permissions.md"


def test_the_page_of_permissions_is_what_the_rules_say() -> None:
    place = NewPlace(owner="ada", id=7)
    stranger, root = Actor(user_id=9, name="x"), Actor(user_id=1, name="root", is_admin=True)
    people = [ANONYMOUS, stranger, READER, WRITER, KEEPER, OWNER, root]
    scoped = [Actor(scopes=frozenset({scope})) for scope in Scope]
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    words = {True: "yes", False: "–"}
    expected = [[words[can(actor, action, place)] for actor in people] for action in Action]
    expected += [[words[actor.is_in_scope(action)] for actor in scoped] for action in Action]
    assert [[cell.strip() for cell in row.strip("|").split("|")][1:] for row in rows] == expected
    assert [row.split("`")[1] for row in rows] == [action.value for action in Action] * 2
