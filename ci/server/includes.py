"""Includes: fetches the files that pipeline files include, of the same commit or of another repo of ours.

What a repo may include of another: anything of one that is public; of a private one, if it lends its files
and has the same owner, in a private repo alone and never for a stranger's pull request. Else whoever may
change a pipeline file would read what he must not see. A repo that may not be included and one that is not
there get the same sentence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from ci.errors import Forbidden, Invalid, NotFound
from ci.event import Event
from ci.pipeline import includes
from ci.pipeline.includes import Include, Library
from ci.server.forges.directory import Forges
from ci.server.models import Repo
from ci.server.store import repos
from ci.server.store.database import Store

MAX_INCLUDES = 50


class Includes:
    def __init__(self, store: Store, forges: Forges) -> None:
        self._store = store
        self._forges = forges

    async def read(self, repo: Repo, event: Event, files: Mapping[str, str]) -> Library:
        """What the pipeline files of an event include. Raises Unavailable: try again later."""
        texts: dict[str, str] = {}
        missing: dict[str, str] = {}
        for number, include in enumerate(_wanted(files)):
            try:
                if number >= MAX_INCLUDES:
                    raise Invalid(f"the files of a build include at most {MAX_INCLUDES} others")
                texts[include.name] = await self._text(repo, event, include)
            except (Invalid, NotFound, Forbidden) as error:
                missing[include.name] = str(error)
        return Library(texts=texts, missing=missing)

    async def _text(self, repo: Repo, event: Event, include: Include) -> str:
        other = await self._lender(repo, event, include) if include.repo else repo
        found = await self._forges.of(other).read_file(other, include.commit or event.sha, include.file)
        if found is None:
            raise NotFound("the commit has no such file")
        return found

    async def _lender(self, repo: Repo, event: Event, include: Include) -> Repo:
        owner, _, name = include.repo.partition("/")
        found = await self._store.read(partial(repos.find, owner=owner, name=name))
        if found is None or not _may_include(repo, event, found):
            raise NotFound(
                f"there is no repo {include.repo} here that {repo.owner}/{repo.name} may include from; a "
                "private one must have the same owner and lend its files in its settings, and lends them to "
                "private repos alone, and to no pull request of a fork"
            )
        return found


def _may_include(repo: Repo, event: Event, other: Repo) -> bool:
    if not other.is_private or other.id == repo.id:
        return True
    is_of_same_owner = other.owner.lower() == repo.owner.lower()
    return other.lends_files and is_of_same_owner and repo.is_private and not event.is_untrusted


def _wanted(files: Mapping[str, str]) -> Iterator[Include]:
    found = (include for name, text in files.items() for include in includes.wanted(text, name))
    return iter(dict.fromkeys(found))
