"""All forges of this server, found by the name that a repo or a hook carries."""

from __future__ import annotations

from dataclasses import dataclass, field

from ci.server.forges.base import Forge
from ci.server.forges.builtin import Builtin
from ci.server.forges.git import PlainGit
from ci.server.models import Repo


@dataclass(frozen=True, kw_only=True)
class Forges:
    builtin: Builtin
    plain: PlainGit
    others: tuple[Forge, ...] = field(default=())

    def of(self, repo: Repo) -> Forge:
        return self.named(repo.forge)

    def named(self, name: str) -> Forge:
        """Raises KeyError for a forge that this server does not know."""
        return {forge.name: forge for forge in (self.builtin, self.plain, *self.others)}[name]
