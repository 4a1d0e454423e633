"""`shipway runner`."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from ci.errors import Invalid
from runners import credential as credentials
from runners.credential import Credential
from runners.engine_choice import check_name, open_janitor
from runners.settings import RunnerSettings, default_capacity, default_data, default_name, parse_labels
from runners.supervisor import Supervisor

#: A service that is not registered yet is started again and again, and has the folder for a moment each time.
_REGISTER_SECONDS = 15.0
_CONTAINER_MARKS = ("/.dockerenv", "/run/.containerenv")


def runner(  # noqa: PLR0913 - each is an option of the command line
    server: Annotated[str, typer.Option(help="Address of the Shipway server.")],
    name: Annotated[str, typer.Option(help="Name on the server's pages; left out: the host's.")] = "",
    label: Annotated[list[str] | None, typer.Option(help="key=value, may be repeated.")] = None,
    capacity: Annotated[int, typer.Option(help="Jobs at the same time; left out: one for each CPU.")] = 0,
    data: Annotated[Path | None, typer.Option(help="Folder for credential, spools and cache.")] = None,
    engine: Annotated[str, typer.Option(help="What starts containers: docker, or fake.")] = "docker",
    register: Annotated[bool, typer.Option("--register", help="Only register, and end.")] = False,
) -> None:
    """Take jobs from a Shipway server and run their steps in containers on this machine.

    The first time it registers: it reads the one-time code of the page Runners from standard input. SIGTERM
    or Ctrl-C lets running jobs finish and takes no new ones; a second one kills them.
    """
    settings = RunnerSettings(
        server=server.rstrip("/"),
        name=name or default_name(),
        data=data or default_data(),
        capacity=capacity or default_capacity(),
        engine=check_name(engine),
        labels=parse_labels(label or ()),
    )
    os.umask(0o077)  # also where the data folder was there before, and others may look into it
    settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = _lock(settings.data, seconds=_REGISTER_SECONDS if register else 0.0)
    if lock is None:
        print(f"a runner with this data folder runs already: {settings.data}")
        return
    if any(Path(mark).exists() for mark in _CONTAINER_MARKS):
        print("runner: this machine is a container; a restart of it ends the jobs", file=sys.stderr)
    credential = credentials.load(settings) or credentials.register(settings, _read_code(settings))
    if register:
        print(f"registered as {settings.name}")
        return
    asyncio.run(_supervise(settings, credential))
    os.close(lock)


async def _supervise(settings: RunnerSettings, credential: Credential) -> None:
    supervisor = Supervisor(settings, credential, open_janitor(settings.engine, settings.data))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.stop)
    await supervisor.run()


def _lock(data: Path, seconds: float) -> int | None:
    """Held until the process ends: two supervisors would fight over the spools. None if another has it still
    when the time is over."""
    fd = os.open(data / "runner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(fd)
                return None
        time.sleep(0.05)


def _read_code(settings: RunnerSettings) -> str:
    if sys.stdin.isatty():
        print(f"One-time code, from {settings.server}/runners: ", end="", flush=True)
    code = sys.stdin.readline().strip()
    if not code:
        raise Invalid(
            f"This runner is not registered yet. Make a code on {settings.server}/runners and give it on "
            f"standard input: echo CODE | shipway runner --server {settings.server}"
        )
    return code
