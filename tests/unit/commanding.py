"""`shipway` as a person runs it: the real console script, with a folder of settings of its own."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import struct
import sys
import termios
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.scene import Scene, fill

SHIPWAY = str(Path(sys.executable).with_name("shipway"))


@dataclass(frozen=True, kw_only=True)
class Done:
    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody at a shell. `url` and `token` are given by the environment, where they are not empty."""

    home: Path
    url: str = ""
    token: str = ""
    folder: Path | None = None

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SHIPWAY_")}
        own = {"SHIPWAY_URL": self.url, "SHIPWAY_TOKEN": self.token, "XDG_CONFIG_HOME": str(self.home)}
        return {**kept, **{name: value for name, value in own.items() if value}, **(extra or {})}

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            SHIPWAY,
            *arguments,
            cwd=self.folder or self.home,
            env=self.environment(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *arguments: str, stdin: bytes = b"") -> Done:
        """To its end, its output going into pipes."""
        process = await self.start(*arguments)
        out, err = await asyncio.wait_for(process.communicate(stdin), 60)
        return Done(code=process.returncode or 0, out=out, err=err.decode())

    async def on_terminal(self, *arguments: str, columns: int = 80) -> Done:
        """To its end, on a terminal of so many columns."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        process = await asyncio.create_subprocess_exec(
            SHIPWAY,
            *arguments,
            cwd=self.folder or self.home,
            env=self.environment({"TERM": "xterm-256color"}),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        shown = await asyncio.to_thread(_read_all, ours)
        return Done(code=await process.wait(), out=shown.replace(b"\r\n", b"\n"), err="")


class Shown:
    """A filled server, and ada at a shell."""

    def __init__(self, scene: Scene, ada: Person, ids: dict[str, int]) -> None:
        self.scene = scene
        self.ada = ada
        self.ids = ids

    async def api(self, path: str) -> Any:
        async with httpx.AsyncClient(headers={"authorization": f"Bearer {self.ada.token}"}) as client:
            return (await client.get(self.ada.url + path)).json()


@contextlib.asynccontextmanager
async def showing(folder: Path) -> AsyncIterator[Shown]:
    scene = Scene(folder)
    await scene.open()
    token = await scene.user()
    ids = await fill(scene)
    async with scene.serving() as url:
        yield Shown(scene, Person(home=folder, url=url, token=token), ids)
    await scene.close()


def _read_all(fd: int) -> bytes:
    found = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while data := os.read(fd, 65536):
            found += data
    os.close(fd)
    return found
