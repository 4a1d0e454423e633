"""Clone: bring a commit into a bare cache, and write it, with a working `.git`, as one tar stream.

Theory of operation. One bare repository per repo is the cache; `git fetch` brings the commit into it and
a ref of ours keeps it. From there a small repository is fetched, with the wanted depth, an index and no
credential: it becomes the workspace's `.git`. The tar stream is made from the commit's tree objects, not
by `git archive` (which drops export-ignored files) and not by a checkout (no filter or hook runs here).
Every call of git has its configuration from here alone; the credentials go by environment, for the one
host, and stand in no URL, file or process title. Blocking: for a thread of its own.
"""

from __future__ import annotations

import asyncio
import base64
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO, Protocol
from urllib.parse import urlsplit

from ci.spec import CloneSpec
from runners.engines.base import Engine, EngineError, Exit
from runners.step_log import StepLog
from runners.tree import TreeWriter

_SAFE = (
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("credential.helper", ""),
    ("fetch.recurseSubmodules", "false"),
    ("fetch.unpackLimit", "1"),
    ("fetch.writeCommitGraph", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("http.followRedirects", "false"),
    ("http.lowSpeedLimit", "1"),
    ("http.lowSpeedTime", "300"),
    ("submodule.recurse", "false"),
    ("uploadpack.allowAnySHA1InWant", "true"),
)
_PASSED_ON = ("PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "no_proxy", "NO_PROXY")
_PASSED_ON_PROXIES = ("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
_GONE = ("not our ref", "unadvertised object", "couldn't find remote ref", "no such remote ref")
PROTOCOLS = ("http", "https")
#: What git says when a server is away, as in a restart.
_AWAY = (
    *("Failed to connect", "Couldn't connect", "Connection refused", "Connection reset", "timed out"),
    *("early EOF", "RPC failed", "unexpected disconnect", "Empty reply", "Recv failure", "hung up"),
    *("returned error: 502", "returned error: 503", "returned error: 504"),
)
#: ... and when one refuses the credential, or wants one.
_WANTS_LOGIN = ("could not read Username", "could not read Password", "Authentication failed", "error: 403")
PATIENCE_SECONDS = 120.0
_LONGEST_PAUSE_SECONDS = 10.0
_LOCK_LOOK_SECONDS = 0.05
_TAGS = "+refs/tags/*:refs/tags/*"
MAX_CACHED_COMMITS = 40


class CloneError(Exception):
    """The workspace cannot be filled; a sentence for who must act."""


class Source(Protocol):
    """What a workspace is filled with. Blocking, but for `abort`, which may be called from any thread."""

    @property
    def masks(self) -> tuple[str, ...]:
        """What of it must not be seen in a log."""

    def fetch(self, say: Callable[[str], None]) -> None:
        """Have it here. `say` gets lines for the step's log. Raises CloneError."""

    def write(self, out: BinaryIO) -> None:
        """Write it as a tar stream; `fetch` came before."""

    def abort(self) -> None:
        """End what runs."""


class Clone:
    """One commit on its way into one workspace. `abort` may be called from any thread."""

    def __init__(
        self,
        spec: CloneSpec,
        data: Path,
        credentials: tuple[str, str] | None = None,
    ) -> None:
        if not spec.repo_key.replace("-", "").replace("_", "").isalnum():
            raise CloneError(f"The repo's key {spec.repo_key!r} cannot name a cache folder.")
        self._spec = spec
        # A fetch with a depth cuts the history of the whole cache, so each depth has its own.
        suffix = "" if spec.depth == 1 else f".depth-{spec.depth}"
        self._cache = data / "cache" / "git" / f"{spec.repo_key}{suffix}.git"
        self._scratch = data / "cache" / "tmp"
        self._header = _header(credentials)
        self._password = credentials[1] if credentials else ""
        self._running: set[subprocess.Popen[bytes]] = set()
        self._aborted = threading.Event()

    @property
    def masks(self) -> tuple[str, ...]:
        """What of the credentials must not be seen in a log."""
        shown = (self._password, self._header.rsplit(" ", 1)[-1])
        return tuple(value for value in shown if value)

    def fetch(self, say: Callable[[str], None]) -> None:
        """Bring the commit into the cache. `say` gets lines for the step's log."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        with self._locked():
            if not (self._cache / "HEAD").exists():
                self._git(None, "init", "--quiet", "--bare", "--template=", str(self._cache))
            if self._has_commit():
                say(f"{self._spec.sha[:12]} is in the runner's cache")
            else:
                say(f"fetch {self._spec.sha[:12]} ({self._spec.ref}) from {self._spec.url}")
                self._fetch_commit(say)
            if self._spec.tags and (problem := self._fetch(_TAGS, "--prune", *self._depth_options)):
                raise CloneError(self._explained(problem))
            self._git(self._cache, "update-ref", self._keep_ref, self._spec.sha)
            self._forget_old_commits()
        say(f"commit {self._title()}")

    def write(self, out: BinaryIO) -> None:
        """Write the workspace as a tar stream. The cache must hold the commit (`fetch`)."""
        with tempfile.TemporaryDirectory(dir=self._scratch, prefix="ws-") as folder:
            git_folder = Path(folder) / ".git"
            self._make_git_folder(git_folder)
            tree = TreeWriter(out)
            tree.add_folder(git_folder, ".git")
            listing = self._start(git_folder, "ls-tree", "-r", "-t", "-z", "--full-tree", self._spec.sha)
            objects = self._start(git_folder, "cat-file", "--batch", stdin=subprocess.PIPE)
            try:
                tree.add_tree(listing, objects)
            except (ValueError, BrokenPipeError) as error:
                raise CloneError(f"{self._spec.sha[:12]} cannot be written out: {error}") from error
            finally:
                for process in (listing, objects):
                    _end(process)
                    self._running.discard(process)
            tree.close()
        self._raise_if_aborted()

    def abort(self) -> None:
        """End what runs; the method that runs it raises CloneError."""
        self._aborted.set()
        for process in tuple(self._running):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)

    # --- the cache -------------------------------------------------------------------------------

    @property
    def _keep_ref(self) -> str:
        return f"refs/shipway/commits/{self._spec.sha}"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time changes a cache."""
        self._cache.parent.mkdir(parents=True, exist_ok=True)
        with open(self._cache.with_suffix(".lock"), "ab") as lock:
            while not _is_locked(lock):
                self._wait(_LOCK_LOOK_SECONDS)
            yield

    def _has_commit(self) -> bool:
        """Whether it was fetched before, whole. A depth over 1 is exact only for the commit last fetched."""
        if self._spec.depth > 1:
            return False
        found = self._run(self._cache, "rev-parse", "--quiet", "--verify", f"{self._keep_ref}^{{commit}}")
        return found.returncode == 0

    def _fetch_commit(self, say: Callable[[str], None]) -> None:
        """By id; where the server serves no bare commits, by the ref, ever deeper."""
        depth = self._depth_options
        problem = self._fetch_patiently(say, *depth)
        if problem is None:
            return
        if not any(word in problem for word in _GONE) or not self._spec.ref:
            raise CloneError(self._explained(problem))
        for options in (depth, ("--unshallow",) if self._is_shallow() else ()):
            problem = self._fetch(f"+{self._spec.ref}:refs/shipway/fetched", *options)
            if problem is not None:
                raise CloneError(self._explained(problem))
            if self._run(self._cache, "cat-file", "-e", f"{self._spec.sha}^{{commit}}").returncode == 0:
                return
        raise CloneError(
            f"{self._spec.url} has no commit {self._spec.sha} any more: {self._spec.ref} has moved on."
        )

    def _fetch_patiently(self, say: Callable[[str], None], *options: str) -> str | None:
        """As `_fetch`; a server that is away for a while is waited for."""
        until, pause = time.monotonic() + PATIENCE_SECONDS, 1.0
        while (problem := self._fetch(self._spec.sha, *options)) is not None:
            if not any(word in problem for word in _AWAY) or time.monotonic() > until:
                return problem
            say(f"{self._explained(problem)}; trying again")
            self._wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        return None

    def _fetch(self, what: str, *options: str) -> str | None:
        """None, or what git said."""
        done = self._run(
            self._cache,
            *("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--force", *options),
            *("--", self._spec.url, what),
        )
        self._raise_if_aborted()
        return None if done.returncode == 0 else done.stderr.decode(errors="replace").strip()

    def _is_shallow(self) -> bool:
        return (self._cache / "shallow").exists()

    def _forget_old_commits(self) -> None:
        """Keep the cache from growing for ever: the newest commits stay, the rest is packed away."""
        refs = self._output(
            self._cache,
            "for-each-ref",
            "--sort=-committerdate",
            "--format=%(refname)",
            "refs/shipway/commits/",
        ).split()
        old = [ref for ref in refs[MAX_CACHED_COMMITS:] if ref != self._keep_ref]
        if len(old) < MAX_CACHED_COMMITS:
            return
        for ref in old:
            self._git(self._cache, "update-ref", "-d", ref)
        self._git(self._cache, "repack", "-q", "-a", "-d")
        self._git(self._cache, "prune", "--expire=now")

    def _explained(self, said: str) -> str:
        if any(words in said for words in _WANTS_LOGIN):
            how = (
                "takes no such credential" if self._header else "wants a credential: see the repo's settings"
            )
            return f"git may not read {self._spec.url}: its server {how}"
        lines = [line.removeprefix("fatal: ").removeprefix("error: ") for line in said.splitlines() if line]
        return f"git cannot fetch {self._spec.sha[:12]} from {self._spec.url}: {'; '.join(lines[-3:])}"

    # --- the workspace's .git ----------------------------------------------------------------------

    def _make_git_folder(self, folder: Path) -> None:
        self._git(None, "init", "--quiet", "--bare", "--template=", str(folder))
        self._git(folder, "config", "core.bare", "false")
        self._git(
            folder,
            *("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--update-shallow"),
            *(*self._depth_options, "--", f"file://{self._cache.resolve()}", self._spec.sha),
            *([_TAGS] if self._spec.tags else []),
            protocols=("file",),
        )
        self._set_refs(folder)
        self._git(folder, "config", "remote.origin.url", self._spec.url)
        self._git(folder, "config", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*")
        self._git(folder, "read-tree", self._spec.sha)
        for name in ("branches", "hooks", "description"):
            path = folder / name
            if path.is_dir():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)

    def _set_refs(self, folder: Path) -> None:
        """On the branch of the event, if it is one; else detached."""
        sha, ref = self._spec.sha, self._spec.ref
        branch = ref.removeprefix("refs/heads/")
        if ref.startswith("refs/heads/"):
            self._git(folder, "update-ref", ref, sha)
            self._git(folder, "update-ref", f"refs/remotes/origin/{branch}", sha)
            self._git(folder, "symbolic-ref", "HEAD", ref)
            return
        if ref.startswith("refs/tags/"):
            self._git(folder, "update-ref", ref, sha)
        self._git(folder, "update-ref", "--no-deref", "HEAD", sha)

    @property
    def _depth_options(self) -> tuple[str, ...]:
        if self._spec.depth:
            return (f"--depth={self._spec.depth}",)
        return ()

    def _title(self) -> str:
        return self._output(self._cache, "log", "-1", "--no-show-signature", "--format=%h %s", self._spec.sha)

    # --- git -----------------------------------------------------------------------------------------

    def _git(self, folder: Path | None, *arguments: str, protocols: tuple[str, ...] | None = None) -> None:
        done = self._run(folder, *arguments, protocols=protocols)
        self._raise_if_aborted()
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()
            raise CloneError(f"git {arguments[0]} failed with {done.returncode}: {said}")

    def _output(self, folder: Path, *arguments: str) -> str:
        return self._run(folder, *arguments).stdout.decode(errors="replace").strip()

    def _run(
        self, folder: Path | None, *arguments: str, protocols: tuple[str, ...] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        self._raise_if_aborted()
        with self._start(folder, *arguments, stderr=subprocess.PIPE, protocols=protocols) as process:
            stdout, stderr = process.communicate()
        self._running.discard(process)
        return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)

    def _start(
        self,
        folder: Path | None,
        *arguments: str,
        stdin: int = subprocess.DEVNULL,
        stderr: int = subprocess.DEVNULL,
        protocols: tuple[str, ...] | None = None,
    ) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            ["git", *arguments],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=self._environment(folder, protocols or PROTOCOLS),
            cwd=self._scratch,
            process_group=0,
        )
        self._running.add(process)
        if self._aborted.is_set():
            self.abort()
        return process

    def _environment(self, folder: Path | None, protocols: tuple[str, ...]) -> dict[str, str]:
        config = list(_SAFE)
        if self._header and "file" not in protocols:
            url = urlsplit(self._spec.url)
            host = url.netloc.rpartition("@")[2]
            config.append((f"http.{url.scheme}://{host}/.extraHeader", self._header))
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        if not _is_loopback(self._spec.url):
            environment |= {name: os.environ[name] for name in _PASSED_ON_PROXIES if name in os.environ}
        environment |= {
            "HOME": "/nonexistent",
            "LC_ALL": "C",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ALLOW_PROTOCOL": ":".join(protocols),
            "GIT_PROTOCOL_FROM_USER": "0",
            "GIT_CONFIG_COUNT": str(len(config)),
        }
        for number, (key, value) in enumerate(config):
            environment |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        if folder is not None:
            environment["GIT_DIR"] = str(folder)
        return environment

    def _wait(self, seconds: float) -> None:
        self._aborted.wait(seconds)
        self._raise_if_aborted()

    def _raise_if_aborted(self) -> None:
        if self._aborted.is_set():
            raise CloneError("the clone was stopped")


def _is_locked(lock: IO[bytes]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _header(credentials: tuple[str, str] | None) -> str:
    if credentials is None:
        return ""
    return "Authorization: Basic " + base64.b64encode(":".join(credentials).encode()).decode()


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    for pipe in (process.stdin, process.stdout):
        _close(pipe)
    process.wait()


def _close(pipe: IO[bytes] | None) -> None:
    if pipe is not None:
        with suppress(BrokenPipeError):
            pipe.close()


# --- into the workspace --------------------------------------------------------------------------


async def fill_workspace(clone: Source, engine: Engine, log: StepLog) -> Exit:
    """The step `clone`: fetch, then one tar stream through a pipe. Raises CloneError or EngineError."""

    def say(line: str) -> None:
        log.write(line.encode(errors="replace") + b"\n")

    try:
        await asyncio.to_thread(clone.fetch, say)
        await _pour(clone, engine)
    except (CloneError, EngineError) as error:
        say(str(error))
        raise
    return Exit(code=0)


async def _pour(clone: Source, engine: Engine) -> None:
    read_fd, write_fd = os.pipe()

    def write() -> None:
        with open(write_fd, "wb") as out:
            clone.write(out)

    async def fill() -> None:
        with open(read_fd, "rb") as tar:
            await engine.fill(tar)

    writing = asyncio.create_task(asyncio.to_thread(write))
    filling = asyncio.create_task(fill())
    results = await asyncio.gather(writing, filling, return_exceptions=True)
    # A writer that failed leaves half a stream, and an engine that failed a broken pipe: the cause first.
    causes = [error for error in results if isinstance(error, BaseException)]
    if causes:
        raise min(causes, key=lambda error: isinstance(error.__cause__ or error, BrokenPipeError))
