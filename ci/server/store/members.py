"""Who may what in one repo: the roles that were given, and who may without one."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, select, update

from ci.errors import Invalid, NotFound
from ci.server.auth import Role
from ci.server.models import Membership, Repo, User
from ci.server.store import users
from ci.server.store.tables import MEMBERSHIP, USER, add_if_new, changed, many


@dataclass(frozen=True, kw_only=True)
class Member:
    """A person in a repo. `source` says where the right comes from; only a given role can be taken away."""

    user: User
    role: Role
    source: str
    is_given: bool = False
    since: float | None = None


def parse_role(word: str) -> Role:
    try:
        return Role(word)
    except ValueError:
        raise Invalid(f"there is no role {word[:40]!r}; there are {', '.join(Role)}") from None


def of_repo(connection: Connection, repo: Repo) -> list[Member]:
    """Everybody who may do something here, by name; one person may be there for more than one reason."""
    given = {
        row.user_id: row
        for row in many(connection, Membership, select(MEMBERSHIP).where(MEMBERSHIP.c.repo_id == repo.id))
    }
    found: list[Member] = []
    for user in many(connection, User, select(USER).order_by(USER.c.name)):
        if user.name == repo.owner:
            found.append(Member(user=user, role=Role.ADMIN, source=f"owner of {repo.owner}/"))
        if user.is_admin:
            found.append(Member(user=user, role=Role.ADMIN, source="admin of this server"))
        row = given.get(user.id or 0)
        if row is not None:
            role = Role(row.role)
            found.append(
                Member(user=user, role=role, source="given here", is_given=True, since=row.created_at)
            )
    return found


def set_role(connection: Connection, repo_id: int, name: str, role: Role, now: float) -> Role | None:
    """Give a person this role; returns the one before, None for none. Raises NotFound for no account."""
    user = users.named(connection, name)
    before = role_of(connection, repo_id, user.id or 0)
    row = Membership(repo_id=repo_id, user_id=user.id or 0, role=role.value, created_at=now)
    if add_if_new(connection, row) is None:
        is_it = (MEMBERSHIP.c.repo_id == repo_id, MEMBERSHIP.c.user_id == user.id)
        connection.execute(update(MEMBERSHIP).where(*is_it).values(role=role.value))
    return before


def role_of(connection: Connection, repo_id: int, user_id: int) -> Role | None:
    is_it = (MEMBERSHIP.c.repo_id == repo_id, MEMBERSHIP.c.user_id == user_id)
    word = connection.execute(select(MEMBERSHIP.c.role).where(*is_it)).scalar_one_or_none()
    return None if word is None else Role(word)


def remove(connection: Connection, repo_id: int, name: str) -> None:
    """Raises NotFound where no role was given."""
    user = users.named(connection, name)
    is_it = (MEMBERSHIP.c.repo_id == repo_id, MEMBERSHIP.c.user_id == user.id)
    if not changed(connection, delete(MEMBERSHIP).where(*is_it)):
        raise NotFound(f"{name} was given no role in this repo")
