"""Working tree: what lies in a folder now, in place of a clone of a commit."""

from __future__ import annotations

import os
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

_GIT_SECONDS = 60


class WorkingTree:
    """See runners.clone.Source. Of a git repository what git would add, and `.git`; else everything."""

    masks: tuple[str, ...] = ()

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._paths: list[str] = []

    def fetch(self, say: Callable[[str], None]) -> None:
        self._paths = list(self._listed())
        say(f"{len(self._paths):,} files of {self._folder}, as they are now")

    def write(self, out: BinaryIO) -> None:
        folders: set[str] = set()
        with tarfile.open(fileobj=out, mode="w|", format=tarfile.GNU_FORMAT) as tar:
            for name in self._paths:
                self._add_folders(tar, name, folders)
                self._add(tar, name)

    def abort(self) -> None:
        """It is soon done."""

    def _listed(self) -> Iterator[str]:
        known = _git(self._folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        if known is None:
            yield from self._below("")
            return
        yield from sorted(
            {name for name in known.split("\0") if name and os.path.lexists(self._folder / name)}
        )
        if (self._folder / ".git").is_dir():
            yield from self._below(".git")

    def _below(self, name: str) -> Iterator[str]:
        for folder, _, files in os.walk(self._folder / name):
            for file in sorted(files):
                yield (Path(folder) / file).relative_to(self._folder).as_posix()

    def _add_folders(self, tar: tarfile.TarFile, name: str, known: set[str]) -> None:
        """Writable for every user that a step may run as."""
        for parent in reversed(Path(name).parents[:-1]):
            if (path := parent.as_posix()) not in known:
                known.add(path)
                entry = tarfile.TarInfo(path)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o777
                tar.addfile(entry)

    def _add(self, tar: tarfile.TarFile, name: str) -> None:
        path = self._folder / name
        found = path.lstat()
        entry = tarfile.TarInfo(name)
        entry.mtime = int(found.st_mtime)
        if stat.S_ISLNK(found.st_mode):
            entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(path)
            tar.addfile(entry)
        elif stat.S_ISREG(found.st_mode):
            entry.mode = 0o777 if found.st_mode & 0o100 else 0o666
            with path.open("rb") as file:
                entry.size = os.fstat(file.fileno()).st_size
                tar.addfile(entry, file)


def facts(folder: Path) -> dict[str, str]:
    """`branch`, `after`, `title` and `author` of what is checked out, as far as git knows them."""
    asked = {
        "branch": ("rev-parse", "--abbrev-ref", "HEAD"),
        "after": ("rev-parse", "HEAD"),
        "title": ("log", "-1", "--format=%s"),
        "author": ("log", "-1", "--format=%an"),
        "author_email": ("log", "-1", "--format=%ae"),
    }
    found = {name: _git(folder, *arguments) for name, arguments in asked.items()}
    return {name: text.strip() for name, text in found.items() if text and text.strip() != "HEAD"}


def _git(folder: Path, *arguments: str) -> str | None:
    """None: this is no repository, or there is no git."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="surrogateescape") if done.returncode == 0 else None
