"""What an administrator does with accounts, and what one of a repo does with its members.

Each change and its audit row are one transaction; afterwards the bus rings "access", so that sockets of
those who lost a right close at once instead of within the next look.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ci.server.auth import Actor, Role
from ci.server.bus import Bus
from ci.server.clock import Clock
from ci.server.models import Repo, User
from ci.server.store import audit, codes, members, sessions, users
from ci.server.store.audit import Deed
from ci.server.store.database import Connection, Store


@dataclass(frozen=True, kw_only=True)
class NewPerson:
    name: str
    is_admin: bool = False
    takes_over: bool = False  #: may own what stands under its name already


@dataclass(frozen=True, kw_only=True)
class Invited:
    """An account whose person sets a password with this code, once, within a day."""

    user_id: int
    name: str
    code: str


class People:
    def __init__(self, store: Store, bus: Bus, clock: Clock) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock

    # --- accounts -----------------------------------------------------------------------------------

    async def create(self, new: NewPerson, by: Actor) -> Invited:
        """Raises Invalid for a bad name; Conflict for one that is taken, or whose namespace is in use."""
        now, name = self._clock.now(), new.name.strip()

        def make(c: Connection) -> Invited:
            if not new.takes_over:
                users.require_free_namespace(c, name)
            user_id = users.add_user(c, name=name, password_hash="", is_admin=new.is_admin, now=now)
            details = "as an admin" if new.is_admin else ""
            audit.note(c, by, Deed(action="person.create", object=name, details=details), now)
            return Invited(user_id=user_id, name=name, code=users.new_account_code(c, user_id, now))

        return await self._store.write(make)

    async def reset_password(self, user_id: int, by: Actor) -> Invited:
        """A code for a new password; the old one works until it is used."""
        now = self._clock.now()

        def make(c: Connection) -> Invited:
            user = users.by_id(c, user_id)
            deed = Deed(action="person.reset_password", object=user.name, details="made a code")
            audit.note(c, by, deed, now)
            code = users.new_account_code(c, user_id, now)
            return Invited(user_id=user_id, name=user.name, code=code)

        return await self._store.write(make)

    async def set_password(self, user_id: int, password_hash: str, by: Actor) -> User:
        """Set by somebody else, without a code; all sessions end."""

        def change(c: Connection) -> User:
            user = users.by_id(c, user_id)
            users.set_password(c, user_id, password_hash)
            sessions.close_all(c, user_id)
            codes.drop_codes(c, codes.account_kind(user_id))
            return user

        return await self._change("password.set", change, by)

    async def set_admin(self, user_id: int, is_admin: bool, by: Actor) -> User:
        action = "person.make_admin" if is_admin else "person.unmake_admin"
        return await self._change(action, lambda c: users.set_admin(c, user_id, is_admin), by)

    async def set_disabled(self, user_id: int, is_disabled: bool, by: Actor) -> User:
        action = "person.disable" if is_disabled else "person.enable"
        return await self._change(action, lambda c: users.set_disabled(c, user_id, is_disabled), by)

    async def remove(self, user_id: int, by: Actor) -> User:
        return await self._change("person.delete", lambda c: users.remove(c, user_id), by)

    async def _change(self, action: str, change: Callable[[Connection], User], by: Actor) -> User:
        now = self._clock.now()

        def write(c: Connection) -> User:
            user = change(c)
            audit.note(c, by, Deed(action=action, object=user.name), now)
            return user

        user = await self._store.write(write)
        self._bus.publish("access")
        return user

    # --- members of a repo --------------------------------------------------------------------------

    async def set_role(self, repo: Repo, name: str, role: Role, by: Actor) -> None:
        """Raises NotFound where there is no such account."""
        now, repo_id = self._clock.now(), repo.id or 0

        def write(c: Connection) -> None:
            before = members.set_role(c, repo_id, name.strip(), role, now)
            details = f"{role.value}, before: {before.value if before else 'none'}"
            deed = Deed(action="member.set", object=name.strip(), repo_id=repo_id, details=details)
            audit.note(c, by, deed, now)

        await self._store.write(write)
        self._bus.publish("access")

    async def remove_member(self, repo: Repo, name: str, by: Actor) -> None:
        """Raises NotFound where no role was given."""
        now, repo_id = self._clock.now(), repo.id or 0

        def write(c: Connection) -> None:
            members.remove(c, repo_id, name)
            audit.note(c, by, Deed(action="member.remove", object=name, repo_id=repo_id), now)

        await self._store.write(write)
        self._bus.publish("access")
