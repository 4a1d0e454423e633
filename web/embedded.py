"""The runner that `shipway serve` starts beside itself: the same `shipway runner`, in a session of its own.

It survives the server: a server that is killed and started again finds it running (the runner holds a lock on
its data folder, so a second one ends at once) and the runner reconnects by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import sys

from ci.server.wiring import Server

log = logging.getLogger(__name__)
RESTART_SECONDS = 5.0


class EmbeddedRunner:
    """Keeps one runner going while the server runs."""

    def __init__(self, server: Server, url: str) -> None:
        self._server = server
        self._url = url
        self._folder = server.settings.data_dir.absolute() / "runner"
        self._process: asyncio.subprocess.Process | None = None

    async def keep(self) -> None:
        """Start the runner; start it again when it has ended. Runs until it is cancelled."""
        while True:
            if not self._is_there():
                await self._start()
                assert self._process is not None
                await self._process.wait()
            await asyncio.sleep(RESTART_SECONDS)

    def _is_there(self) -> bool:
        """Whether a runner that outlived an earlier server holds the folder: then none is started."""
        try:
            lock = os.open(self._folder / "runner.lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    async def _start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        code = ""
        if not (self._folder / "credential.json").exists():
            code = await self._server.runner_code()
        with (self._folder / "runner.log").open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # never a ci/ of the current folder
                "-m",
                "ci",
                "runner",
                "--server",
                self._url,
                "--data",
                str(self._folder),
                "--name",
                "local",
                cwd=self._folder,
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        # A runner that ends at once (another one holds its folder) closes its end early.
        with contextlib.suppress(ConnectionError):
            assert self._process.stdin is not None
            self._process.stdin.write(f"{code}\n".encode())
            await self._process.stdin.drain()
            self._process.stdin.close()

    async def leave(self, *, is_interrupted: bool) -> None:
        """The server ends. A person's Ctrl-C ends the runner too, once its jobs have ended; a TERM (a
        restart, an upgrade) leaves it running for the next server."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        if not is_interrupted:
            log.info("the runner goes on: pid %s", process.pid)
            return
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), 5)
