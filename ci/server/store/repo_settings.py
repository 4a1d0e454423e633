"""What an administrator sets for a repo: which fields there are, and what each may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, update

from ci.errors import Invalid
from ci.rights import SWITCHES
from ci.server.models import Repo
from ci.server.store.tables import REPO
from ci.spec import Trust

#: Only a server admin changes these.
TRUST = tuple(f"trusts_{right}" for right in SWITCHES)
FLAGS = ("is_private", "is_enabled", "is_superseding", "builds_merge", "lends_files", *TRUST)
#: The least and the most of each number.
_NUMBERS = {
    "timeout_minutes": (1, 7 * 24 * 60),
    "keep_builds_days": (0, 3650),
    "keep_logs_days": (0, 3650),
}
_MAX_PATH = 200
APPROVALS = ("forks", "pull_requests")
NAMES = (*FLAGS, *_NUMBERS, "approval", "config_path")


def of(repo: Repo) -> dict[str, Any]:
    return {name: getattr(repo, name) for name in NAMES}


def trust_of(repo: Repo, privileged_plugins: tuple[str, ...]) -> Trust:
    """What the repo's files may ask for; the images that are privileged plugins are the server's setting."""
    switches = {right: getattr(repo, f"trusts_{right}") for right in SWITCHES}
    return Trust(**switches, privileged_plugins=privileged_plugins)


def parsed(given: Mapping[str, str]) -> dict[str, Any]:
    """The values of what was given as text. Raises Invalid with the name of what cannot be."""
    unknown = [name for name in given if name not in NAMES]
    if unknown:
        raise Invalid(f"there is no setting {unknown[0]!r}; there are {', '.join(NAMES)}")
    return {name: _value(name, text) for name, text in given.items()}


def _value(name: str, text: str) -> Any:
    if name in FLAGS:
        if text not in ("true", "false"):
            raise Invalid(f"{name} is true or false, not {text!r}")
        return text == "true"
    if name in _NUMBERS:
        least, most = _NUMBERS[name]
        if not (text.isascii() and text.isdigit() and least <= int(text[:9]) <= most):
            raise Invalid(f"{name} is {least} to {most:,}, not {text[:80]!r}")
        return int(text)
    if name == "config_path":
        return _config_path(text.strip())
    if text not in APPROVALS:
        raise Invalid(f"approval is one of {', '.join(APPROVALS)}, not {text!r}")
    return text


def _config_path(path: str) -> str:
    """A file, or with `/` at its end a folder, from the root of the repository; empty: the usual lookup."""
    if not path:
        return ""
    parts = path.removesuffix("/").split("/")
    if len(path) > _MAX_PATH or not path.isprintable() or any(part in ("", ".", "..") for part in parts):
        raise Invalid(
            f"config_path is a file such as ci/pipeline.yml, or a folder such as ci/, from the root of the "
            f"repository, not {path[:80]!r}"
        )
    if not path.endswith(("/", ".yml", ".yaml")):
        raise Invalid(f"config_path ends in .yml, in .yaml, or, for a folder, in /, not like {path[:80]!r}")
    return path


def change(connection: Connection, repo_id: int, values: Mapping[str, Any]) -> None:
    """`values` come from `parsed`."""
    if values:
        connection.execute(update(REPO).where(REPO.c.id == repo_id).values(**values))
