"""All forges of this server, found by the name that a repo carries."""

from __future__ import annotations

from dataclasses import dataclass

from ci.server.forges.base import Forge
from ci.server.forges.builtin import Builtin
from ci.server.forges.git import PlainGit
from ci.server.models import Repo


@dataclass(frozen=True, kw_only=True)
class Forges:
    builtin: Builtin
    plain: PlainGit

    def of(self, repo: Repo) -> Forge:
        return self.builtin if repo.forge == self.builtin.name else self.plain
