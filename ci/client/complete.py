"""Values for completion that only a server knows, if it answers at once; else none, and no word about it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ci.client.http import Api
from ci.client.servers import Servers, choose, config_folder
from ci.errors import ShipwayError

TIMEOUT_SECONDS = 1.5
_REPOS = frozenset({"REPO", "BUILD", "OWNER/NAME", "WHAT"})


def values(metavar: str) -> Sequence[str]:
    """What can stand where the help says `metavar`."""
    name = metavar.strip("[]")
    try:
        if name in _REPOS:
            return [each["repo"] for each in _ask("/api/repos")["repos"]]
        if name == "RUNNER":
            return [each["name"] for each in _ask("/api/runners")["runners"]]
        if name == "URL":
            return Servers(config_folder(os.environ)).urls
    except (ShipwayError, KeyError, TypeError):
        return []
    return []


def _ask(path: str) -> dict[str, list[dict[str, str]]]:
    with Api(choose("", os.environ), timeout_seconds=TIMEOUT_SECONDS) as api:
        found: dict[str, list[dict[str, str]]] = api.get(path)
        return found
