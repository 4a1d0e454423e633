"""A bare git repository on our disk, read by plumbing commands only: no hooks, no filters, no checkout.

Names and contents in it are written by strangers: ids and ref names are checked before git sees them,
and text is decoded with replacement.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ci.errors import Invalid
from ci.pipeline import lookup
from ci.server.forges.config_files import read_config, read_file

NO_SHA = "0" * 40
BUILD_REFS = "refs/shipway/builds"
MAX_CHANGED_FILES = 5000
MAX_MESSAGE_BYTES = 64 << 10
_SHA = re.compile(r"([0-9a-f]{40}|[0-9a-f]{64})\Z")
#: What git itself refuses in a ref name (git check-ref-format), so that no other syntax can hide in one.
_NO_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(/|\Z)|\.\Z|/\Z")

_DIFF = ("diff-tree", "-r", "-z", "--name-only", "--no-renames")
_SAFE = (
    *("-c", "safe.directory=*", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false"),
    *("-c", "gc.auto=0", "-c", "credential.helper="),
)


def is_sha(text: str) -> bool:
    return bool(_SHA.match(text))


def is_ref_name(text: str) -> bool:
    return text.startswith("refs/") and len(text) <= 1000 and not _NO_REF.search(text)


@dataclass(frozen=True, kw_only=True)
class Commit:
    sha: str
    message: str
    author: str
    author_email: str
    timestamp_seconds: int


class GitFailed(Exception):
    """git said no; the text is the last thing that it said."""


class Bare:
    def __init__(self, path: Path, *, protocols: Sequence[str] = ()) -> None:
        """`protocols`: what may be fetched from, e.g. ("http", "https"); empty for local work only."""
        self.path = path
        self._protocols = protocols

    async def git(
        self, *arguments: str, timeout_seconds: float = 60.0, config: Mapping[str, str] | None = None
    ) -> bytes:
        """Run git in the repository; returns what it wrote. Raises GitFailed.

        `config` goes by environment: what is secret in it stands in no command line.
        """
        process = await asyncio.create_subprocess_exec(
            *(
                "git",
                "-c",
                "safe.directory=*",
                "-c",
                "core.hooksPath=/dev/null",
                "-c",
                "core.fsmonitor=false",
            ),
            *("-c", "gc.auto=0", "-c", "credential.helper=", "-C", str(self.path), *arguments),
            env=self._environment(config or {}),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(timeout_seconds):
                written, said = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise GitFailed(f"git {arguments[0]} took longer than {timeout_seconds:.0f} s") from None
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        if process.returncode != 0:
            lines = said.decode(errors="replace").strip().splitlines()
            raise GitFailed(lines[-1] if lines else f"git {arguments[0]} exited with {process.returncode}")
        return written

    def _environment(self, config: Mapping[str, str]) -> dict[str, str]:
        """Nothing of the user who runs the server, or of the machine, takes part."""
        pairs = {"GIT_CONFIG_COUNT": str(len(config))}
        for number, (key, value) in enumerate(config.items()):
            pairs |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        return pairs | {
            "PATH": os.environ.get("PATH", os.defpath),
            "LC_ALL": "C",
            "HOME": "/nonexistent",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ALLOW_PROTOCOL": ":".join(self._protocols) or "none",
            "GIT_OPTIONAL_LOCKS": "0",
        }

    # --- refs -----------------------------------------------------------------------------------

    async def refs(self) -> dict[str, str]:
        """Branches and tags, full name to object id."""
        listing = await self.git(
            "for-each-ref", "--format=%(objectname) %(refname)", "refs/heads", "refs/tags"
        )
        lines = listing.decode(errors="surrogateescape").splitlines()
        return {ref: sha for sha, _, ref in (line.partition(" ") for line in lines)}

    async def ref(self, name: str) -> str | None:
        if not is_ref_name(name):
            return None
        try:
            found = await self.git("rev-parse", "--verify", "--quiet", "--end-of-options", name)
        except GitFailed:
            return None
        return found.decode().strip()

    async def has_moved(self, name: str, old: str, new: str) -> bool:
        """Whether the ref went from `old` to `new`, also if it has moved on since (by its reflog)."""
        now = await self.ref(name)
        if now == new or (now is None and new == NO_SHA):
            return True
        try:
            log = (self.path / "logs" / name).read_bytes()
        except OSError:
            return False
        return f"{old} {new} ".encode() in log

    async def keep(self, number: int, sha: str) -> None:
        """A ref of ours, hidden from everybody, so that the commit of a build never goes away."""
        await self.git("update-ref", f"{BUILD_REFS}/{number}", sha)

    async def follow_head(self, branches: Sequence[str]) -> str | None:
        """Point HEAD at the first of these full names that exists, if it points nowhere; returns it."""
        try:
            head = (await self.git("symbolic-ref", "HEAD")).decode().strip()
        except GitFailed:
            head = ""
        if head and await self.ref(head) is not None:
            return None
        for name in branches:
            if name.startswith("refs/heads/") and await self.ref(name) is not None:
                await self.git("symbolic-ref", "HEAD", name)
                return name
        return None

    # --- commits --------------------------------------------------------------------------------

    async def commit_of(self, sha: str) -> str | None:
        """The commit behind an object (a tag may point to a tag); None for a tree or a blob."""
        if not is_sha(sha):
            raise Invalid(f"{sha[:80]!r} is no object id")
        try:
            return (await self.git("rev-parse", "--verify", "--quiet", sha + "^{commit}")).decode().strip()
        except GitFailed:
            return None

    async def commit(self, sha: str) -> Commit:
        form = "--format=%an%x00%ae%x00%ct%x00%B"
        found = await self.git("log", "-1", "--no-show-signature", "--encoding=UTF-8", form, sha, "--")
        author, email, seconds, message = found.split(b"\0", 3)
        return Commit(
            sha=sha,
            message=_text(message[:MAX_MESSAGE_BYTES]).rstrip("\n"),
            author=_text(author[:1000]),
            author_email=_text(email[:1000]),
            timestamp_seconds=_seconds(seconds),
        )

    async def changed_files(self, before: str, after: str) -> tuple[str, ...] | None:
        """Paths that differ between two commits; None where nobody can say, or there are too many."""
        if before == NO_SHA or not is_sha(before) or await self.commit_of(before) is None:
            return None
        try:
            found = await self.git(
                "diff-tree", "-r", "-z", "--name-only", "--no-renames", before, after, "--"
            )
        except GitFailed:
            return None
        names = found.split(b"\0")[:-1]
        if len(names) > MAX_CHANGED_FILES:
            return None
        return tuple(_text(name) for name in names)

    async def config_files(self, sha: str, config_path: str = "") -> dict[str, str]:
        """The pipeline files of a commit; empty if there is none. Raises Invalid (config_files.py)."""
        return await read_config(_CommitTree(self, sha), config_path)

    async def file(self, sha: str, path: str) -> str | None:
        """One file of a commit; None where there is none. Raises Invalid (config_files.py)."""
        return await read_file(_CommitTree(self, sha), path)


class _CommitTree:
    """A commit's files by their names as text; read by their ids, for git may have other bytes."""

    def __init__(self, bare: Bare, sha: str) -> None:
        self._bare = bare
        self._sha = sha
        self._blobs: dict[str, str] = {}

    async def sizes(self, folder: str) -> dict[str, int]:
        path = (f"{folder}/",) if folder else ()
        try:
            listing = await self._bare.git("ls-tree", "-l", "-z", self._sha, "--", *path)
        except GitFailed:
            return {}
        found = {}
        for line in listing.split(b"\0")[:-1]:
            facts, _, raw = line.partition(b"\t")
            mode, _kind, blob, size = facts.split()
            name = _text(raw)
            if mode in (b"100644", b"100755"):
                found[name], self._blobs[name] = int(size), blob.decode()
            elif mode == b"120000" and name in lookup.SINGLE:
                raise Invalid(f"{name} is a link, which is not followed: put the file itself there")
        return found

    async def read(self, path: str) -> bytes:
        return await self._bare.git("cat-file", "blob", self._blobs[path])


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace").replace("\0", "\ufffd")


def _seconds(raw: bytes) -> int:
    try:
        return max(0, min(int(raw), 1 << 40))
    except ValueError:
        return 0
