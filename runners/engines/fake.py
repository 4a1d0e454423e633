"""Fake engine: runs nothing, and does what the environment of a step says. For scenarios and tests.

    FAKE_OUTPUT       text to print                     FAKE_EXIT         exit codes, one a run
    FAKE_LINES        so many numbered lines            FAKE_HANG         set: runs until it is stopped
    FAKE_SLEEP        seconds; lines are spread over    FAKE_IGNORE_TERM  set: ends only by KILL
    FAKE_CAT          a file of the workspace to print  FAKE_LOST         set: the engine itself fails
    FAKE_PUT          lines to put out for other steps  FAKE_UNREADY      set: is never ready

Output comes from the first command, the exit code from the last one; each command prints its marks. An
image on a host that ends in `.invalid` does not exist. What a real engine would hold stands in a folder,
one folder an attempt: another process sees it there, and removing it ends what runs.
"""

from __future__ import annotations

import json
import shutil
import tarfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import BinaryIO
from urllib.parse import quote

from ci import marks
from ci.registries import Login
from ci.spec import JobSpec, Ready, StepSpec
from ci.status import Outcome
from runners.engines.base import NO_LOGINS, EngineError, Exit, Launch, Owner
from runners.engines.reasons import never_started, own_exit
from runners.engines.threads import in_thread

#: How soon a step sees that its attempt was removed by another process.
_LOOK_SECONDS = 0.02
_KILLED = 137
_TERMINATED = 143


class FakeEngine:
    """See engines.base.Engine. `state` is the folder that stands for the machine."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._folder: Path | None = None
        self._directory = ""
        self._steps: dict[str, _FakeStep] = {}

    async def prepare(self, job: JobSpec, owner: Owner, logins: Mapping[str, Login] = NO_LOGINS) -> None:
        folder = _folder(self._state, owner.server, owner.job, owner.attempt)
        folder.mkdir(parents=True, exist_ok=True)
        about = {
            "server": owner.server,
            "runner": owner.runner,
            "job": owner.job,
            "attempt": owner.attempt,
        }
        (folder / "owner.json").write_text(json.dumps(about))
        self._folder = folder
        self._directory = job.directory

    async def fill(self, tar: BinaryIO) -> None:
        workspace = self._attempt() / "workspace.tar"

        def copy() -> None:
            with workspace.open("wb") as file:
                shutil.copyfileobj(tar, file)

        await in_thread("fake-fill", copy)

    def ready(self, step: StepSpec) -> None:
        """A hint that this engine ignores."""

    async def run(self, launch: Launch) -> Exit:
        folder = self._attempt()
        if launch.number > 1:
            del self._steps[launch.step.slug]
        step = self._step(launch.step.slug)
        return await in_thread(f"fake-{launch.step.slug}", lambda: step.play(launch, folder))

    async def stop(self, slug: str, grace_seconds: float) -> None:
        self._step(slug).stop(grace_seconds)

    async def probe(self, slug: str, ready: Ready) -> str:
        return self._step(slug).why_unready

    async def read(self, path: str, limit_bytes: int) -> bytes | None:
        workspace = self._attempt() / "workspace.tar"
        name = path.removeprefix(f"{self._directory}/")
        return await in_thread("fake-read", lambda: _in_tar(workspace, name, limit_bytes))

    async def destroy(self) -> None:
        for step in self._steps.values():
            step.stop(0)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _attempt(self) -> Path:
        if self._folder is None or not self._folder.is_dir():
            raise EngineError("the attempt is not prepared, or already destroyed")
        return self._folder

    def _step(self, slug: str) -> _FakeStep:
        return self._steps.setdefault(slug, _FakeStep())


class _FakeStep:
    """One step. `play` blocks in a thread; `stop` comes from anywhere."""

    def __init__(self) -> None:
        self._asked = Event()
        self._kill_at = float("inf")
        self.why_unready = "it does not run yet"

    def stop(self, grace_seconds: float) -> None:
        self._kill_at = min(self._kill_at, time.monotonic() + grace_seconds)
        self._asked.set()

    def play(self, launch: Launch, folder: Path) -> Exit:
        wish = launch.environment
        if self._asked.is_set():
            return never_started()
        host = launch.step.image.partition("/")[0].partition(":")[0]
        if host.endswith(".invalid"):
            reason = f"image {launch.step.image} cannot be pulled: no such host {host}"
            return Exit(code=None, outcome=Outcome.IMAGE, reason=reason)
        if "FAKE_LOST" in wish:
            raise EngineError("the fake engine was told to fail (FAKE_LOST)")
        self.why_unready = "the fake engine was told so (FAKE_UNREADY)" if "FAKE_UNREADY" in wish else ""
        launch.on_started()
        with _standing_for_container(folder, launch.step.slug):
            return self._play_commands(launch, folder)

    def _play_commands(self, launch: Launch, folder: Path) -> Exit:
        codes = launch.environment.get("FAKE_EXIT", "0").split(",")
        code = int(codes[min(launch.number, len(codes)) - 1])
        last = len(launch.step.commands) - 1
        for number in range(max(1, last + 1)):
            self._mark(launch, "b", f"{number}")
            if number == 0:
                ended = self._print_all(launch, folder)
                if ended is not None:
                    return ended
            self._mark(launch, "e", f"{number},{code if number >= last else 0}")
        for line in launch.environment.get("FAKE_PUT", "").splitlines():
            self._mark(launch, "o", line)
        return own_exit(code)

    def _print_all(self, launch: Launch, folder: Path) -> Exit | None:
        """An exit only if the step was ended from outside."""
        wish = launch.environment
        lines = int(wish.get("FAKE_LINES", "0"))
        pause = float(wish.get("FAKE_SLEEP", "0")) / max(1, lines)
        for text in _texts(wish, folder):
            launch.output.write(text)
        for number in range(1, lines + 1):
            launch.output.write(f"line {number}\n".encode())
            if pause and (ended := self._pause(pause, wish, folder)):
                return ended
        if pause and not lines and (ended := self._pause(pause, wish, folder)):
            return ended
        return self._pause(float("inf"), wish, folder) if "FAKE_HANG" in wish else None

    def _pause(self, seconds: float, wish: Mapping[str, str], folder: Path) -> Exit | None:
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until:
            if not folder.is_dir() or now >= self._kill_at:
                return own_exit(_KILLED)
            if self._asked.is_set() and "FAKE_IGNORE_TERM" not in wish:
                return own_exit(_TERMINATED)
            wait = min(_LOOK_SECONDS, until - now)
            if self._asked.is_set():
                time.sleep(wait)
            else:
                self._asked.wait(wait)
        return None

    def _mark(self, launch: Launch, kind: str, value: str) -> None:
        if launch.step.commands:
            launch.output.write(marks.encode(launch.mark_token, kind, value))


class FakeJanitor:
    """See engines.base.Janitor."""

    def __init__(self, state: Path) -> None:
        self._state = state

    def describe(self) -> str:
        return "fake 1"

    def attempts(self, server: str) -> Iterable[tuple[str, int, int]]:
        found = []
        for file in self._state.glob("*/owner.json"):
            try:
                about = json.loads(file.read_text())
            except (FileNotFoundError, json.JSONDecodeError):
                continue  # just being made, or just removed
            if about["server"] == server:
                found.append((about["runner"], about["job"], about["attempt"]))
        return found

    def remove_attempt(self, server: str, job: int, attempt: int) -> None:
        shutil.rmtree(_folder(self._state, server, job, attempt), ignore_errors=True)


def _folder(state: Path, server: str, job: int, attempt: int) -> Path:
    return state / f"{job}-{attempt}-{quote(server, safe='')}"


def _texts(wish: Mapping[str, str], folder: Path) -> Iterator[bytes]:
    yield wish.get("FAKE_OUTPUT", "").encode()
    if "FAKE_CAT" in wish:
        yield _in_tar(folder / "workspace.tar", wish["FAKE_CAT"], -1) or b""


def _in_tar(workspace: Path, name: str, limit_bytes: int) -> bytes | None:
    if not workspace.exists():
        return None
    with tarfile.open(workspace) as tar, suppress(KeyError):
        file = tar.extractfile(name)
        return file.read(limit_bytes) if file else None
    return None


@contextmanager
def _standing_for_container(folder: Path, slug: str) -> Iterator[None]:
    container = folder / f"container-{slug}"
    with suppress(FileNotFoundError):  # removed by another process just now: the step will see it
        container.touch()
    try:
        yield
    finally:
        container.unlink(missing_ok=True)
