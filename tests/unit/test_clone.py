from __future__ import annotations

import base64
import io
import os
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ci.spec import CloneSpec
from runners.clone import Clone, CloneError

USER = ("job", "t0ken")


def git(folder: Path, *arguments: str, stdin: bytes = b"") -> str:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
        "GIT_OPTIONAL_LOCKS": "0",
    }
    for who in ("AUTHOR", "COMMITTER"):
        environment |= {f"GIT_{who}_NAME": "Ada", f"GIT_{who}_EMAIL": "ada@example.org"}
    done = subprocess.run(["git", *arguments], cwd=folder, env=environment, input=stdin, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().strip()


class Backend(BaseHTTPRequestHandler):
    """`git http-backend` behind a password."""

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        forge: Forge = self.server.forge  # type: ignore[attr-defined]
        forge.headers.append(dict(self.headers))
        wanted = "Basic " + base64.b64encode(":".join(USER).encode()).decode()
        if forge.redirect:
            self.send_response(302)
            self.send_header("Location", forge.redirect + self.path)
            return self.end_headers()
        if forge.outages:
            forge.outages -= 1
            self.send_response(503)
            return self.end_headers()
        if self.headers.get("Authorization") != wanted:
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic")
            return self.end_headers()
        path, _, query = self.path.partition("?")
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(forge.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
        }
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        done = subprocess.run(["git", "http-backend"], env=environment, input=body, capture_output=True)
        head, _, rest = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(int(fields.pop("Status", "200").split()[0]))
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(rest)

    def log_message(self, *_: object) -> None:
        """Quiet."""


class Forge:
    """A bare repository served over HTTP, and a work tree that pushes to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.headers: list[dict[str, str]] = []
        self.redirect = ""
        self.outages = 0
        self.work = folder / "work"
        git(folder, "init", "--quiet", "--bare", "-b", "main", "repo.git")
        git(folder, "init", "--quiet", "-b", "main", "work")
        git(self.work, "remote", "add", "origin", str(folder / "repo.git"))
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
        self._http.forge = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/repo.git"

    def commit(self, message: str = "a commit") -> str:
        git(self.work, "add", "--all")
        git(self.work, "commit", "--quiet", "--allow-empty", "-m", message)
        git(self.work, "push", "--quiet", "--force", "origin", "HEAD:main")
        return git(self.work, "rev-parse", "HEAD")

    def commit_tree(self, *entries: tuple[str, str, str]) -> str:
        """A commit of a tree, of (mode, sha, path), that git itself might not make."""
        folder = self.folder / "repo.git"
        raw = b"".join(f"{mode} {path}\0".encode() + bytes.fromhex(sha) for mode, sha, path in entries)
        tree = git(folder, "hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=raw)
        commit = git(folder, "commit-tree", "-m", "hostile", tree)
        git(folder, "update-ref", "refs/heads/main", commit)
        return commit

    def blob(self, content: bytes) -> str:
        return git(self.folder / "repo.git", "hash-object", "-w", "--stdin", stdin=content)

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def forge(tmp_path: Path) -> Iterator[Forge]:
    folder = tmp_path / "forge"
    folder.mkdir()
    forge = Forge(folder)
    yield forge
    forge.close()


def clone_of(forge: Forge, sha: str, data: Path, **more: object) -> Clone:
    facts = {"url": forge.url, "sha": sha, "ref": "refs/heads/main", "repo_key": "repo-1", **more}
    return Clone(CloneSpec.model_validate(facts), data, USER)


def written(clone: Clone) -> tuple[list[str], bytes]:
    said: list[str] = []
    clone.fetch(said.append)
    out = io.BytesIO()
    clone.write(out)
    return said, out.getvalue()


def unpacked(tar: bytes, folder: Path) -> Path:
    """As an engine does: exactly what the stream says."""
    folder.mkdir()
    subprocess.run(["tar", "-x", "-p", "-f", "-", "-C", str(folder)], input=tar, check=True)
    return folder


def members(tar: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return {member.name: member for member in archive}


def test_the_workspace_is_the_commit_with_a_clean_working_git(forge: Forge, tmp_path: Path) -> None:
    (forge.work / "run.sh").write_text("#!/bin/sh\n")
    (forge.work / "run.sh").chmod(0o755)
    (forge.work / "dir").mkdir()
    (forge.work / "dir" / "naïve file").write_bytes(bytes(range(256)) * 4000)
    (forge.work / "link").symlink_to("dir/naïve file")
    (forge.work / ("long" * 30)).mkdir()
    (forge.work / ("long" * 30) / ("name" * 30)).write_text("x")
    forge.commit("first")
    sha = forge.commit("Say hello")
    said, tar = written(clone_of(forge, sha, tmp_path / "data"))
    ws = unpacked(tar, tmp_path / "ws")
    assert (ws / "dir" / "naïve file").read_bytes() == bytes(range(256)) * 4000
    assert os.readlink(ws / "link") == "dir/naïve file"
    assert (ws / ("long" * 30) / ("name" * 30)).read_text() == "x"
    assert git(ws, "status", "--porcelain") == ""
    assert git(ws, "log", "--format=%H %s") == f"{sha} Say hello"
    assert git(ws, "symbolic-ref", "HEAD") == "refs/heads/main"
    assert git(ws, "fsck") == ""
    assert said[-1].endswith("Say hello")


def test_everything_is_writable_for_any_user_and_only_programs_are_programs(
    forge: Forge, tmp_path: Path
) -> None:
    (forge.work / "dir").mkdir()
    (forge.work / "dir" / "data").write_text("x")
    (forge.work / "run.sh").write_text("x")
    (forge.work / "run.sh").chmod(0o755)
    _, tar = written(clone_of(forge, forge.commit(), tmp_path / "data"))
    found = members(tar)
    modes = {name: oct(found[name].mode) for name in (".", "dir", "dir/data", "run.sh", ".git", ".git/HEAD")}
    assert modes == {
        ".": "0o777",
        "dir": "0o777",
        "dir/data": "0o666",
        "run.sh": "0o777",
        ".git": "0o777",
        ".git/HEAD": "0o666",
    }
    assert {(each.uid, each.gid) for each in found.values()} == {(0, 0)}


def test_export_ignored_files_are_there_and_no_attribute_rewrites_one(forge: Forge, tmp_path: Path) -> None:
    attributes = "kept export-ignore\nsubst export-subst ident\n*.bat eol=crlf\n"
    (forge.work / ".gitattributes").write_text(attributes)
    (forge.work / "kept").write_text("kept")
    (forge.work / "subst").write_text("$Format:%H$ $Id$\n")
    (forge.work / "x.bat").write_text("echo\n")
    _, tar = written(clone_of(forge, forge.commit(), tmp_path / "data"))
    ws = unpacked(tar, tmp_path / "ws")
    assert (ws / "kept").read_text() == "kept"
    assert (ws / "subst").read_text() == "$Format:%H$ $Id$\n"
    assert git(ws, "status", "--porcelain") == ""


def test_the_depth_is_the_asked_one_also_where_the_cache_holds_more(forge: Forge, tmp_path: Path) -> None:
    for number in range(4):
        sha = forge.commit(f"c{number}")
        written(clone_of(forge, sha, tmp_path / "data"))
    for depth, count in ((1, "1"), (2, "2"), (0, "4")):
        _, tar = written(clone_of(forge, sha, tmp_path / "data", depth=depth))
        ws = unpacked(tar, tmp_path / f"ws{depth}")
        assert git(ws, "rev-list", "--count", "HEAD") == count
        assert git(ws, "status", "--porcelain") == ""


def test_a_commit_that_was_fetched_before_needs_no_server(forge: Forge, tmp_path: Path) -> None:
    sha = forge.commit()
    written(clone_of(forge, sha, tmp_path / "data"))
    forge.headers.clear()
    said, _ = written(clone_of(forge, sha, tmp_path / "data"))
    assert forge.headers == []
    assert "in the runner's cache" in said[0]


def test_a_commit_that_its_branch_has_left_behind_is_still_found(forge: Forge, tmp_path: Path) -> None:
    old = forge.commit("old")
    for number in range(3):
        forge.commit(f"newer {number}")
    _, tar = written(clone_of(forge, old, tmp_path / "data"))
    assert git(unpacked(tar, tmp_path / "ws"), "log", "-1", "--format=%s") == "old"


def test_a_commit_that_is_gone_is_named_with_its_ref(forge: Forge, tmp_path: Path) -> None:
    forge.commit()
    with pytest.raises(CloneError, match="refs/heads/main has moved on"):
        written(clone_of(forge, "1" * 40, tmp_path / "data"))


def test_a_server_that_is_away_for_a_moment_is_waited_for(forge: Forge, tmp_path: Path) -> None:
    sha = forge.commit()
    forge.outages = 1
    said, _ = written(clone_of(forge, sha, tmp_path / "data"))
    assert "returned error: 503; trying again" in said[1]
    assert said[-1].endswith("a commit")


def test_a_commit_that_its_user_may_not_read_is_not_tried_again(forge: Forge, tmp_path: Path) -> None:
    spec = clone_of(forge, forge.commit(), tmp_path / "data")._spec
    forge.headers.clear()
    for login, sentence in ((("job", "wrong"), "takes no such credential"), (None, "wants a credential")):
        with pytest.raises(CloneError, match=rf"git may not read {forge.url}: its server {sentence}"):
            Clone(spec, tmp_path / "data", login).fetch(lambda line: None)
    assert len(forge.headers) == 2


def test_a_tag_is_a_tag_in_the_workspace(forge: Forge, tmp_path: Path) -> None:
    sha = forge.commit()
    git(forge.work, "push", "--quiet", "origin", "HEAD:refs/tags/v1")
    _, tar = written(clone_of(forge, sha, tmp_path / "data", ref="refs/tags/v1"))
    assert git(unpacked(tar, tmp_path / "ws"), "describe", "--tags") == "v1"


def test_the_credential_stands_in_no_file_and_no_title(forge: Forge, tmp_path: Path) -> None:
    sha = forge.commit()
    clone = clone_of(forge, sha, tmp_path / "data")
    titles: list[bytes] = []
    start = clone._start

    def watched(*arguments, **more):
        process = start(*arguments, **more)
        titles.append(Path(f"/proc/{process.pid}/cmdline").read_bytes())
        return process

    clone._start = watched  # type: ignore[method-assign]
    _, tar = written(clone)
    secrets = [USER[1].encode(), base64.b64encode(":".join(USER).encode())]
    files = [path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert len(titles) > 5
    for secret in secrets:
        assert not any(secret in text for text in (tar, *files, *titles))
    assert set(clone.masks) == {secret.decode() for secret in secrets}


def test_the_credential_follows_no_redirect(forge: Forge, tmp_path: Path) -> None:
    sha = forge.commit()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    thief = Forge(elsewhere)
    try:
        forge.redirect = thief.url.removesuffix("/repo.git")
        with pytest.raises(CloneError, match="git cannot fetch"):
            written(clone_of(forge, sha, tmp_path / "data"))
        assert thief.headers == []
    finally:
        thief.close()


@pytest.mark.parametrize("url", ["file:///etc", "ext::sh -c id", "ssh://127.0.0.1/x", "--upload-pack=id"])
def test_only_http_is_spoken(url: str, forge: Forge, tmp_path: Path) -> None:
    sha = forge.commit()
    with pytest.raises(CloneError, match="git cannot fetch"):
        written(clone_of(forge, sha, tmp_path / "data", url=url))


def test_a_submodule_is_an_empty_folder(forge: Forge, tmp_path: Path) -> None:
    sha = forge.commit_tree(("100644", forge.blob(b"x"), "a"), ("160000", "2" * 40, "module"))
    _, tar = written(clone_of(forge, sha, tmp_path / "data"))
    assert members(tar)["module"].isdir()
    assert git(unpacked(tar, tmp_path / "ws"), "status", "--porcelain") == ""


@pytest.mark.parametrize("path", [".git", ".GIT", "..", "."])
def test_a_path_that_could_leave_the_workspace_is_refused(path: str, forge: Forge, tmp_path: Path) -> None:
    sha = forge.commit_tree(("100644", forge.blob(b"x"), path))
    with pytest.raises(CloneError):
        written(clone_of(forge, sha, tmp_path / "data"))


def test_a_link_that_stands_in_for_a_folder_is_refused(forge: Forge, tmp_path: Path) -> None:
    passwd = f"100644 blob {forge.blob(b'x')}\tpasswd\n".encode()
    inner = git(forge.folder / "repo.git", "mktree", stdin=passwd)
    sha = forge.commit_tree(("120000", forge.blob(b"/etc"), "a"), ("40000", inner, "a"))
    with pytest.raises(CloneError):
        written(clone_of(forge, sha, tmp_path / "data"))


def test_a_stopped_clone_says_so(forge: Forge, tmp_path: Path) -> None:
    clone = clone_of(forge, forge.commit(), tmp_path / "data")
    clone.abort()
    with pytest.raises(CloneError, match="stopped"):
        written(clone)


def test_the_cache_does_not_grow_for_ever(
    forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runners.clone.MAX_CACHED_COMMITS", 2)
    for number in range(5):
        (forge.work / "file").write_text(f"{number}")
        sha = forge.commit(f"c{number}")
        _, tar = written(clone_of(forge, sha, tmp_path / "data"))
    assert git(unpacked(tar, tmp_path / "ws"), "log", "-1", "--format=%s") == "c4"
    cache = tmp_path / "data" / "cache" / "git" / "repo-1.git"
    assert len(list((cache / "objects" / "pack").glob("*.pack"))) < 5


@pytest.mark.parametrize("depth", [0, 1])
def test_tags_are_in_the_workspace_where_they_are_asked_for_as_they_are_now(
    forge: Forge, tmp_path: Path, depth: int
) -> None:
    forge.commit("first")
    git(forge.work, "tag", "v1")
    git(forge.work, "tag", "-a", "-m", "gone", "v2")
    sha = forge.commit("second")
    git(forge.work, "push", "-q", "--tags", "origin")
    clone = clone_of(forge, sha, tmp_path / "data", depth=depth, tags=True)
    ws = unpacked(written(clone)[1], tmp_path / "ws")
    assert git(ws, "tag").split() == ["v1", "v2"]
    if depth == 0:
        assert git(ws, "describe", "--tags").startswith("v2-1-")
    git(forge.work, "push", "-q", "origin", ":refs/tags/v2")
    ws = unpacked(written(clone)[1], tmp_path / "ws2")
    assert git(ws, "tag").split() == ["v1"]
    plain = unpacked(written(clone_of(forge, sha, tmp_path / "data", depth=depth))[1], tmp_path / "ws3")
    assert git(plain, "tag") == ""
