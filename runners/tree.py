"""TreeWriter: a commit's tree objects as a tar stream that any user in a container may write to.

Folders are 0777, files 0666 or 0777, owned by root. Paths come from whoever pushed: what could leave the
workspace, or reach into `.git`, is refused. Nothing is held in memory but the paths of folders and links.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, BinaryIO

BLOCK_BYTES = 256 * 1024
MAX_LINK_BYTES = 4096
#: All of them fit into a pipe, so that asking never waits for the answers to be read.
QUESTIONS_AHEAD = 256
_FOLDER, _LINK, _SUBMODULE, _EXECUTABLE = "040000", "120000", "160000", "100755"


@dataclass(frozen=True)
class Entry:
    mode: str
    sha: str
    path: str

    @property
    def has_content(self) -> bool:
        return self.mode not in (_FOLDER, _SUBMODULE)


class TreeWriter:
    """Writes to `out`, which needs no seeking. Raises ValueError, as a sentence, for a hostile tree."""

    def __init__(self, out: BinaryIO) -> None:
        self._tar = tarfile.open(  # noqa: SIM115 - `close` ends it
            fileobj=out, mode="w|", format=tarfile.GNU_FORMAT, bufsize=BLOCK_BYTES
        )
        self._now = int(time.time())
        self._folders: set[str] = set()
        self._links: set[str] = set()
        self._add(".", tarfile.DIRTYPE, 0o777)

    def add_folder(self, folder: Path, name: str) -> None:
        """A folder of ours with plain files, from the disk."""
        self._add(name, tarfile.DIRTYPE, 0o777)
        for path in sorted(folder.rglob("*")):
            inside = f"{name}/{path.relative_to(folder).as_posix()}"
            if path.is_dir():
                self._add(inside, tarfile.DIRTYPE, 0o777)
                continue
            with path.open("rb") as file:
                self._add(inside, tarfile.REGTYPE, 0o666, path.stat().st_size, file)

    def add_tree(self, listing: subprocess.Popen[bytes], objects: subprocess.Popen[bytes]) -> None:
        """`listing` is `git ls-tree -r -t -z`, `objects` is `git cat-file --batch`, both just started."""
        assert listing.stdout and objects.stdin and objects.stdout
        entries = self._checked(_entries(listing.stdout))
        while batch := list(islice(entries, QUESTIONS_AHEAD)):
            questions = [entry.sha for entry in batch if entry.has_content]
            objects.stdin.write("".join(f"{sha}\n" for sha in questions).encode())
            objects.stdin.flush()
            for entry in batch:
                self._add_entry(entry, objects.stdout)
        if listing.wait() != 0:
            raise ValueError("git cannot list its files")

    def close(self) -> None:
        self._tar.close()

    def _checked(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        for entry in entries:
            for part in entry.path.split("/"):
                if part in ("", ".", "..") or part.lower() == ".git":
                    raise ValueError(f"it holds the forbidden path {entry.path!r}")
            parents = entry.path.split("/")[:-1]
            above = {"/".join(parents[: depth + 1]) for depth in range(len(parents))}
            known = self._links | self._folders if entry.mode == _LINK else self._links
            if entry.path in known or above & self._links:
                raise ValueError(f"it holds the path {entry.path!r} twice, once as a link")
            if entry.mode == _LINK:
                self._links.add(entry.path)
            elif not entry.has_content:
                self._folders.add(entry.path)
            yield entry

    def _add_entry(self, entry: Entry, objects: IO[bytes]) -> None:
        if not entry.has_content:
            return self._add(entry.path, tarfile.DIRTYPE, 0o777)
        size = _size(objects.readline(), entry)
        if entry.mode == _LINK:
            if size > MAX_LINK_BYTES:
                raise ValueError(f"the link {entry.path!r} is {size} bytes long")
            target = objects.read(size).decode("utf-8", "surrogateescape")
            self._add(entry.path, tarfile.SYMTYPE, 0o777, link=target)
        else:
            mode = 0o777 if entry.mode == _EXECUTABLE else 0o666
            self._add(entry.path, tarfile.REGTYPE, mode, size, objects)
        if objects.read(1) != b"\n":
            raise ValueError(f"git ended in the middle of {entry.path!r}")

    def _add(
        self,
        name: str,
        kind: bytes,
        mode: int,
        size: int = 0,
        content: IO[bytes] | None = None,
        *,
        link: str = "",
    ) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.size, info.mtime, info.linkname = kind, mode, size, self._now, link
        try:
            self._tar.addfile(info, content or io.BytesIO())
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            raise ValueError(f"git ended in the middle of {name!r}") from error


def _entries(listing: IO[bytes]) -> Iterator[Entry]:
    """Of `ls-tree -z`: `mode SP type SP sha TAB path NUL`."""
    rest = b""
    while block := listing.read(BLOCK_BYTES):
        *lines, rest = (rest + block).split(b"\0")
        for line in lines:
            facts, _, path = line.partition(b"\t")
            mode, _, sha = facts.decode("ascii").split(" ")
            yield Entry(mode, sha, path.decode("utf-8", "surrogateescape"))


def _size(header: bytes, entry: Entry) -> int:
    """Of `cat-file --batch`: `sha SP type SP size LF`."""
    fields = header.split()
    if len(fields) != 3 or fields[1] != b"blob":
        raise ValueError(f"git has no content for {entry.path!r}")
    return int(fields[2])
