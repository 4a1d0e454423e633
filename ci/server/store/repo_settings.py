"""What an administrator sets for a repo: which fields there are, and what each may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, update

from ci.errors import Invalid
from ci.server.models import Repo
from ci.server.store.tables import REPO

_FLAGS = ("is_private", "is_enabled", "is_superseding")
_MAX_MINUTES = 7 * 24 * 60
APPROVALS = ("forks", "pull_requests")
NAMES = (*_FLAGS, "timeout_minutes", "approval")


def of(repo: Repo) -> dict[str, Any]:
    return {name: getattr(repo, name) for name in NAMES}


def parsed(given: Mapping[str, str]) -> dict[str, Any]:
    """The values of what was given as text. Raises Invalid with the name of what cannot be."""
    unknown = [name for name in given if name not in NAMES]
    if unknown:
        raise Invalid(f"there is no setting {unknown[0]!r}; there are {', '.join(NAMES)}")
    return {name: _value(name, text) for name, text in given.items()}


def _value(name: str, text: str) -> Any:
    if name in _FLAGS:
        if text not in ("true", "false"):
            raise Invalid(f"{name} is true or false, not {text!r}")
        return text == "true"
    if name == "timeout_minutes":
        if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= _MAX_MINUTES):
            raise Invalid(f"timeout_minutes is 1 to {_MAX_MINUTES:,}, not {text!r}")
        return int(text)
    if text not in APPROVALS:
        raise Invalid(f"approval is one of {', '.join(APPROVALS)}, not {text!r}")
    return text


def change(connection: Connection, repo_id: int, values: Mapping[str, Any]) -> None:
    """`values` come from `parsed`."""
    if values:
        connection.execute(update(REPO).where(REPO.c.id == repo_id).values(**values))
