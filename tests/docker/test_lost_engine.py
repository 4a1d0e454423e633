"""The daemon goes away while a step runs. Not the real one: a relay before it, which is cut."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ci.status import Outcome
from runners.engines.base import EngineError
from runners.engines.docker import DockerEngine, DockerJanitor
from runners.engines.settings import DockerSettings
from tests.stage import SETTINGS, WAIT_SECONDS, staged, step

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("_images")]
DAEMON = "/var/run/docker.sock"


class Relay:
    """Passes bytes both ways between a socket of its own and the daemon's, until it is cut."""

    def __init__(self, path: Path) -> None:
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen(64)
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self.is_up = True
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def cut(self) -> None:
        """Every connection ends, as when the daemon is killed; new ones are accepted while it is up."""
        with self._lock:
            ends, self._open = self._open, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.is_up = False
        self._server.shutdown(socket.SHUT_RDWR)
        self.cut()
        self._thread.join(10)
        self._server.close()

    def _accept(self) -> None:
        pumps = []
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                daemon = socket.socket(socket.AF_UNIX)
                daemon.connect(DAEMON)
                with self._lock:
                    self._open += [client, daemon]
                pumps.append(threading.Thread(target=self._pump_both, args=(client, daemon)))
                pumps[-1].start()
        self.cut()
        for pump in pumps:
            pump.join(10)

    def _pump_both(self, client: socket.socket, daemon: socket.socket) -> None:
        back = threading.Thread(target=_pump, args=(daemon, client))
        back.start()
        _pump(client, daemon)
        back.join()
        client.close()
        daemon.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def relay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    path = tmp_path / "docker.sock"
    made = Relay(path)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    yield made
    made.close()


async def test_a_hole_in_the_output_ends_the_step_as_ours(relay: Relay) -> None:
    hangs = step("hangs", "echo up; sleep 600")
    async with staged(DockerEngine(SETTINGS), DockerJanitor(SETTINGS), hangs, step("b", "echo b")) as stage:
        task, printed, _ = stage.start("hangs")
        await printed.saw(b"up")
        relay.cut()
        exit_ = await asyncio.wait_for(task, WAIT_SECONDS)
        assert (exit_.code, exit_.outcome) == (None, Outcome.INFRA)
        assert exit_.reason.startswith("engine restarted")
        await _until_nothing_runs(stage.owner.server, "shipway.step=hangs")
        assert (await stage.run("b"))[1].text == "b\n"  # the engine is back


# The SDK leaves the socket of a refused connection to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
async def test_an_engine_that_stays_away_is_an_engine_error_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(EngineError, match=r"does not answer at unix://.*apt-get install docker\.io"):
        DockerJanitor(DockerSettings()).describe()
    with pytest.raises(EngineError, match="does not answer"):
        async with staged(DockerEngine(SETTINGS), DockerJanitor(SETTINGS), step("a", "true")):
            pass


async def _until_nothing_runs(server: str, label: str) -> None:
    command = ("docker", "ps", "-q", f"--filter=label=shipway.server={server}", f"--filter=label={label}")
    async with asyncio.timeout(WAIT_SECONDS):
        while subprocess.run(command, check=True, capture_output=True, timeout=30).stdout:
            await asyncio.sleep(0.05)
