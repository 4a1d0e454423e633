"""Real git for tests: a working copy that commits and pushes, untouched by the machine's own settings."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from ci.server.forges.builtin import Builtin
from ci.server.models import Repo
from ci.server.store import repos
from ci.server.store.database import Connection, Store

CONFIG = "steps:\n  - name: test\n    image: busybox\n    commands:\n      - true\n"
ZERO = "0" * 40


async def add_repo(store: Store, builtin: Builtin, owner: str, name: str) -> Repo:
    """A repo in the built-in git, with its bare repository."""

    def add(connection: Connection) -> Repo:
        repo = repos.by_id(connection, repos.create(connection, owner=owner, name=name, now=1.0))
        assert repo is not None
        return repo

    repo = await store.write(add)
    await builtin.create(repo.id or 0)
    return repo


class Work:
    """A working copy with its remote, a bare repository on disk."""

    def __init__(self, path: Path, remote: Path) -> None:
        self.path = path
        path.mkdir(parents=True)
        self.git("init", "-q", "-b", "main")
        self.git("remote", "add", "origin", str(remote))

    def git(self, *arguments: str, check: bool = True) -> str:
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("GIT_")},
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "Ada",
            "GIT_AUTHOR_EMAIL": "ada@example.com",
            "GIT_COMMITTER_NAME": "Ada",
            "GIT_COMMITTER_EMAIL": "ada@example.com",
        }
        done = subprocess.run(
            ("git", "-c", "safe.directory=*", *arguments),
            cwd=self.path,
            env=environment,
            capture_output=True,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(done.stderr.decode(errors="replace"))
        return done.stdout.decode(errors="replace").strip()

    def commit_files(self, files: dict[str, str | bytes], message: str | bytes = "change") -> str:
        """Write the files, commit everything under this message as it is, return the sha."""
        for name, text in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        self.git("add", "-A")
        note = self.path / ".git" / "note"
        note.write_bytes(message if isinstance(message, bytes) else message.encode())
        self.git("commit", "-q", "--allow-empty", "--cleanup=verbatim", "-F", str(note))
        return self.git("rev-parse", "HEAD")

    def sha(self, name: str = "HEAD") -> str:
        return self.git("rev-parse", name)
