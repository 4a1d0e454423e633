"""Plain variables: what an administrator gives to every step of a repo, an owner's repos or all of them."""

from __future__ import annotations

import re

from ci import shell
from ci.errors import Conflict, Invalid, NotFound
from ci.server.auth import Actor
from ci.server.clock import Clock
from ci.server.models import PlainVariable
from ci.server.store import audit, secrets, variables
from ci.server.store.database import Connection, Store

#: Of one place together: they stand in every job of every build.
MAX_CHARACTERS = 32 * 1024
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}\Z")
#: The variables that mean something to us or to plugins.
_OURS = re.compile(r"CI\Z|CI_|PLUGIN_|SHIPWAY_")


class Variables:
    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def put(self, place: str, name: str, value: str, actor: Actor) -> PlainVariable:
        """Set it, or set it anew. Raises Invalid for what cannot be one, Conflict where there is no room."""
        name = name.strip()
        check(name, value)
        now = self._clock.now()
        row = PlainVariable(place=place, name=name, value=value, changed_at=now, changed_by=actor.name)

        def write(connection: Connection) -> None:
            is_new = variables.put(connection, row)
            if variables.characters(connection, place) > MAX_CHARACTERS:
                raise Conflict(
                    f"the variables of {secrets.words(place)} would be longer than "
                    f"{MAX_CHARACTERS >> 10} KiB together; remove some, or make them shorter"
                )
            self._note(connection, actor, place, "variable.set" if is_new else "variable.change", name)

        await self._store.write(write)
        return row

    async def remove(self, place: str, name: str, actor: Actor) -> None:
        """Raises NotFound."""

        def write(connection: Connection) -> None:
            if not variables.remove(connection, place, name):
                raise NotFound(f"there is no variable {name[:100]!r} of {secrets.words(place)}")
            self._note(connection, actor, place, "variable.remove", name)

        await self._store.write(write)

    def _note(self, connection: Connection, actor: Actor, place: str, action: str, name: str) -> None:
        deed = audit.Deed(
            action=action,
            object=name,
            repo_id=secrets.repo_id_of(place),
            details=f"of {secrets.words(place)}",
        )
        audit.note(connection, actor, deed, self._clock.now())


def check(name: str, value: str) -> None:
    if not _NAME.match(name):
        raise Invalid(
            f"{name[:100]!r} cannot be the name of a variable: letters, digits and `_`, at most 100"
        )
    if _OURS.match(name):
        raise Invalid(f"{name} cannot be set for every step: names with CI_, PLUGIN_ and SHIPWAY_ are taken")
    if why := shell.unfit(name):
        raise Invalid(f"{name} cannot be set for every step: {why}")
    if "\0" in value or len(value) > MAX_CHARACTERS:
        raise Invalid(f"a variable has at most {MAX_CHARACTERS >> 10} KiB, and no NUL in it")
