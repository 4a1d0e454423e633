"""Accounts, members, tokens and sessions: what the services promise, on a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ci.errors import Conflict, Forbidden, Invalid, NotFound, Unauthenticated
from ci.server import auth
from ci.server.account import Account
from ci.server.auth import Actor, Role, Scope, can
from ci.server.bus import Bus
from ci.server.people import NewPerson, People
from ci.server.store import audit, members, repos, sessions, tokens, users, views
from ci.server.store.database import Store
from ci.server.store.sessions import Browser
from ci.server.store.tokens import NewToken
from tests.unit.world import HeldClock

PASSWORD = "correct horse"


@dataclass
class Here:
    store: Store
    clock: HeldClock
    people: People
    account: Account
    root: Actor

    async def actor(self, name: str) -> Actor:
        return await self.store.read(lambda c: users.actor_of(c, users.named(c, name)))

    async def person(self, name: str, *, is_admin: bool = False) -> int:
        """An account with a password."""
        invited = await self.people.create(NewPerson(name=name, is_admin=is_admin), self.root)
        await self.account.join(invited.code, PASSWORD, "")
        return invited.user_id

    async def deeds(self) -> list[str]:
        """Newest first."""
        rows = await self.store.read(lambda c: audit.latest(c))
        return [f"{row.user_name} {row.action} {row.object}".strip() for row in rows]


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Here]:
    store, bus, clock = Store(tmp_path / "shipway.db"), Bus(), HeldClock()
    await store.open()
    user_id = await store.write(
        lambda c: users.add_user(c, name="root", password_hash="", is_admin=True, now=clock.now())
    )
    root = Actor(user_id=user_id, name="root", is_admin=True, address="192.0.2.1")
    yield Here(store, clock, People(store, bus, clock), Account(store, bus, clock), root)
    await store.close()


# --- accounts ---------------------------------------------------------------------------------------


async def test_a_new_person_sets_a_password_with_a_code_that_works_once(here: Here) -> None:
    invited = await here.people.create(NewPerson(name="grace"), here.root)
    with pytest.raises(Unauthenticated):
        await here.account.check("grace", "")
    actor = await here.account.join(invited.code.lower(), PASSWORD, "")
    assert (actor.name, actor.is_admin) == ("grace", False)
    assert (await here.account.check("grace", PASSWORD)).user_id == invited.user_id
    with pytest.raises(Forbidden, match="was used already"):
        await here.account.join(invited.code, "another password", "")
    assert await here.deeds() == ["grace password.set grace", "root person.create grace"]


async def test_a_code_of_an_account_lives_a_day_and_a_newer_one_ends_it(here: Here) -> None:
    old = await here.people.create(NewPerson(name="grace"), here.root)
    new = await here.people.reset_password(old.user_id, here.root)
    with pytest.raises(Forbidden):
        await here.account.join(old.code, PASSWORD, "")
    here.clock.seconds += 86400 - 1
    await here.account.join(new.code, PASSWORD, "")
    late = await here.people.reset_password(old.user_id, here.root)
    here.clock.seconds += 86400
    with pytest.raises(Forbidden, match="older than a day"):
        await here.account.join(late.code, PASSWORD, "")


async def test_a_bad_password_does_not_spend_the_code(here: Here) -> None:
    invited = await here.people.create(NewPerson(name="grace"), here.root)
    with pytest.raises(Invalid):
        await here.account.join(invited.code, "short", "")
    await here.account.join(invited.code, PASSWORD, "")


async def test_the_last_admin_stays_one(here: Here) -> None:
    root = here.root.user_id or 0
    for change in (
        here.people.set_admin(root, False, here.root),
        here.people.set_disabled(root, True, here.root),
        here.people.remove(root, here.root),
    ):
        with pytest.raises(Conflict, match="last admin"):
            await change
    other = await here.person("grace", is_admin=True)
    await here.people.set_disabled(other, True, here.root)
    with pytest.raises(Conflict):  # a disabled admin is none that could act
        await here.people.set_admin(root, False, here.root)
    await here.people.set_disabled(other, False, here.root)
    await here.people.set_admin(root, False, here.root)


async def test_a_disabled_account_has_no_session_and_no_token_counts(here: Here) -> None:
    user_id = await here.person("grace")
    grace = await here.actor("grace")
    cookie = await here.account.open_session(grace, 1000.0, Browser(address="192.0.2.7"))
    token = await here.account.add_token(grace, NewToken(name="laptop"))
    await here.people.set_disabled(user_id, True, here.root)
    assert await here.store.read(lambda c: sessions.visit(c, cookie, here.clock.now())) is None
    with pytest.raises(Unauthenticated, match="disabled"):
        await here.store.read(lambda c: tokens.visit(c, token, here.clock.now()))
    with pytest.raises(Forbidden, match="disabled"):
        await here.account.check("grace", PASSWORD)
    with pytest.raises(Unauthenticated):  # who does not know the password learns nothing
        await here.account.check("grace", "wrong horse")
    await here.people.set_disabled(user_id, False, here.root)
    assert await here.store.read(lambda c: sessions.visit(c, cookie, here.clock.now())) is None
    assert await here.store.read(lambda c: tokens.visit(c, token, here.clock.now())) is not None


async def test_a_deleted_account_leaves_its_name_in_the_audit_log_and_nothing_else(here: Here) -> None:
    repo_id = await here.store.write(lambda c: repos.create(c, owner="ada", name="app", now=1.0))
    repo = await here.store.read(lambda c: repos.by_id(c, repo_id))
    assert repo is not None
    user_id = await here.person("grace")
    grace = await here.actor("grace")
    await here.account.open_session(grace, 1000.0, Browser())
    await here.account.add_token(grace, NewToken(name="laptop"))
    await here.people.set_role(repo, "grace", Role.READ, here.root)
    await here.people.remove(user_id, here.root)
    with pytest.raises(NotFound):
        await here.actor("grace")
    assert await here.store.read(lambda c: members.of_repo(c, repo)) != []
    assert "root person.delete grace" in await here.deeds()
    assert "grace token.create laptop" in await here.deeds()


async def test_an_account_does_not_inherit_a_namespace_by_chance(here: Here) -> None:
    """Whose account is deleted leaves repos; the next of that name must not own them unseen."""
    await here.store.write(lambda c: repos.create(c, owner="Acme", name="app", now=1.0))
    with pytest.raises(Conflict, match="takes_over"):
        await here.people.create(NewPerson(name="acme"), here.root)
    await here.people.create(NewPerson(name="acme", takes_over=True), here.root)


# --- password and sessions --------------------------------------------------------------------------


async def test_a_new_password_asks_for_the_old_one_and_ends_the_other_sessions(here: Here) -> None:
    await here.person("grace")
    grace = await here.actor("grace")
    this = await here.account.open_session(grace, 1000.0, Browser())
    other = await here.account.open_session(grace, 1000.0, Browser())
    with pytest.raises(Forbidden, match="present password is wrong"):
        await here.account.change_password(grace, "wrong horse", "another password", this)
    await here.account.change_password(grace, PASSWORD, "another password", this)
    now = here.clock.now()
    assert await here.store.read(lambda c: sessions.visit(c, this, now)) is not None
    assert await here.store.read(lambda c: sessions.visit(c, other, now)) is None
    await here.account.check("grace", "another password")


async def test_a_session_of_somebody_else_cannot_be_ended(here: Here) -> None:
    await here.person("grace")
    grace = await here.actor("grace")
    await here.account.open_session(grace, 1000.0, Browser(address="192.0.2.7", software="x"))
    (row,) = await here.store.read(lambda c: sessions.of_user(c, grace.user_id or 0, here.clock.now()))
    with pytest.raises(NotFound):
        await here.account.close_session(here.root, row.id or 0)
    await here.account.close_session(grace, row.id or 0)
    assert await here.store.read(lambda c: sessions.of_user(c, grace.user_id or 0, here.clock.now())) == []


async def test_that_a_session_was_seen_is_stored_at_most_once_a_minute(here: Here) -> None:
    await here.person("grace")
    cookie = await here.account.open_session(await here.actor("grace"), 1000.0, Browser())

    async def is_due() -> bool:
        visit = await here.store.read(lambda c: sessions.visit(c, cookie, here.clock.now()))
        assert visit is not None
        if visit.is_due:
            await here.store.write(lambda c: sessions.seen(c, visit.row_id, here.clock.now(), "192.0.2.7"))
        return visit.is_due

    assert not await is_due()
    here.clock.seconds += 60
    assert [await is_due(), await is_due()] == [True, False]


# --- tokens -----------------------------------------------------------------------------------------


async def test_a_token_expires_in_90_days_unless_it_says_otherwise(here: Here) -> None:
    usual = await here.account.add_token(here.root, NewToken(name="usual"))
    forever = await here.account.add_token(here.root, NewToken(name="forever", days=None))
    here.clock.seconds += 90 * 86400 - 1
    assert await here.store.read(lambda c: tokens.visit(c, usual, here.clock.now())) is not None
    here.clock.seconds += 1
    with pytest.raises(Unauthenticated, match=r"this token expired on \d{4}-\d\d-\d\d; make a new one"):
        await here.store.read(lambda c: tokens.visit(c, usual, here.clock.now()))
    assert await here.store.read(lambda c: tokens.visit(c, forever, here.clock.now())) is not None


async def test_a_token_makes_no_token_with_more_scopes_than_it_has(here: Here) -> None:
    narrow = Actor(
        user_id=here.root.user_id, name="root", is_admin=True, scopes=frozenset({Scope.ADMIN, Scope.READ})
    )
    with pytest.raises(Forbidden, match="more scopes than it has itself: not write"):
        await here.account.add_token(narrow, NewToken(name="wide"))
    await here.account.add_token(narrow, NewToken(name="same", scopes=frozenset({Scope.READ})))


@pytest.mark.parametrize(
    "new",
    [
        NewToken(name=" "),
        NewToken(name="x" * 101),
        NewToken(name="x", scopes=frozenset()),
        NewToken(name="x", days=0),
        NewToken(name="x", days=10_000),
    ],
)
async def test_a_token_that_cannot_be_is_refused(here: Here, new: NewToken) -> None:
    with pytest.raises(Invalid):
        await here.account.add_token(here.root, new)
    assert await here.deeds() == []


# --- members ----------------------------------------------------------------------------------------


async def test_members_are_named_with_why_they_may(here: Here) -> None:
    for name in ("ada", "grace"):
        await here.person(name)
    repo_id = await here.store.write(lambda c: repos.create(c, owner="ada", name="app", now=1.0))
    repo = await here.store.read(lambda c: repos.by_id(c, repo_id))
    assert repo is not None
    await here.people.set_role(repo, "grace", Role.READ, here.root)
    await here.people.set_role(repo, "grace", Role.WRITE, here.root)
    found = await here.store.read(lambda c: members.of_repo(c, repo))
    assert [(m.user.name, m.role, m.source) for m in found] == [
        ("ada", Role.ADMIN, "owner of ada/"),
        ("grace", Role.WRITE, "given here"),
        ("root", Role.ADMIN, "admin of this server"),
    ]
    (row,) = (r for r in await here.store.read(lambda c: audit.latest(c)) if r.details.startswith("write"))
    assert (row.details, row.repo_id, row.address) == ("write, before: read", repo_id, "192.0.2.1")
    await here.people.remove_member(repo, "grace", here.root)
    with pytest.raises(NotFound, match="no role"):
        await here.people.remove_member(repo, "grace", here.root)
    with pytest.raises(NotFound, match="no account 'nobody'"):
        await here.people.set_role(repo, "nobody", Role.READ, here.root)


async def test_lists_show_exactly_what_the_rules_allow(here: Here) -> None:
    """`views.seen_by` says for all repos what `auth.can` says for one."""
    for name in ("ada", "grace", "heinz"):
        await here.person(name)
    made = [("ada", "app", True), ("ada", "site", False), ("grace", "tool", True), ("acme", "x", True)]
    for owner, name, is_private in made:
        await here.store.write(
            lambda c, o=owner, n=name, p=is_private: repos.create(c, owner=o, name=n, now=1.0, is_private=p)
        )
    every = await here.store.read(lambda c: [repos.find(c, owner, name) for owner, name, _ in made])
    app = every[0]
    assert app is not None
    await here.people.set_role(app, "heinz", Role.READ, here.root)
    for name in ("ada", "grace", "heinz", "root", ""):
        for scopes in (None, frozenset[Scope](), frozenset({Scope.READ}), frozenset({Scope.WRITE})):
            known = await here.actor(name) if name else auth.ANONYMOUS
            actor = Actor(
                user_id=known.user_id,
                name=known.name,
                is_admin=known.is_admin,
                roles=known.roles,
                scopes=scopes,
            )
            shown = {row.repo.id for row in await here.store.read(lambda c, a=actor: views.repos(c, a))}
            assert shown == {repo.id for repo in every if repo and can(actor, auth.Action.READ, repo)}
