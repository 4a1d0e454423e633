"""Daemon: what we ask of a container daemon. Every call blocks and is safe in any thread.

All raise EngineError where the daemon does not answer or refuses for reasons of its own. Removing what is
gone already is no error.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ci.registries import Login

Config = Mapping[str, Any]
Labels = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Image:
    """`arguments` is what the image would run: its entrypoint and its command."""

    id: str
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]

    @property
    def arguments(self) -> tuple[str, ...]:
        return (*self.entrypoint, *self.command)


@dataclass(frozen=True, kw_only=True)
class State:
    is_running: bool
    code: int
    health: str = ""  #: "starting", "healthy" or "unhealthy"; empty: it is not looked at


@dataclass(frozen=True, kw_only=True)
class Event:
    """`code` is None for everything but the end of a container."""

    container: str
    action: str
    code: int | None = None


class StartRefused(Exception):
    """The container cannot be started as it is: the text is the daemon's."""


class NameTaken(Exception):
    """A network in this range, or a container of this name, is there already."""


class Events(Protocol):
    """Goes on for ever; ends, or raises EngineError, with the daemon or by `close` from another thread."""

    def __iter__(self) -> Iterator[Event]: ...

    def close(self) -> None: ...


class Daemon(Protocol):
    @property
    def is_here(self) -> bool:
        """Whether what we see of our machine (addresses, files) is what the daemon sees."""

    def close(self) -> None:
        """Let idle connections go; the next call opens new ones."""

    def version(self) -> str:
        """E.g. "docker 27.1"."""

    def memory_bytes(self) -> int:
        """All memory of the daemon's machine."""

    def create(self, name: str, config: Config) -> str:
        """The id of the new container. Raises ImageError if its image is gone, NameTaken."""

    def attach(self, container: str) -> socket.socket:
        """A blocking socket to the container's three streams, as raw frames."""

    def start(self, container: str) -> None:
        """Raises StartRefused."""

    def kill(self, container: str, signal: str) -> None:
        """To the container's process 1; no error where it does not run."""

    def run_in(
        self, container: str, command: Sequence[str], environment: Mapping[str, str], seconds: float
    ) -> int | None:
        """The exit code of one more program in a running container; None: it took longer, and goes on."""

    def state(self, container: str) -> State | None:
        """None: there is no such container."""

    def remove(self, container: str) -> None:
        """With all that runs in it, and its anonymous volumes."""

    def containers(self, labels: Labels) -> list[str]: ...

    def put(self, container: str, path: str, tar: Iterable[bytes]) -> None:
        """Unpack into the container's `path`."""

    def get(self, container: str, path: str, limit_bytes: int) -> bytes | None:
        """The beginning of a plain file of the container; None: there is none of that name."""

    def image(self, name: str) -> Image | None: ...

    def pull(self, name: str, login: Login | None = None) -> None:
        """With this login, or one of the runner's own. Raises ImageError with the registry's words."""

    def import_image(self, name: str, tar: bytes) -> None: ...

    def make_network(self, name: str, subnet: str, labels: Labels) -> None:
        """Raises NameTaken if the subnet or the name is in use."""

    def networks(self, labels: Labels) -> list[str]: ...

    def remove_network(self, network: str) -> None: ...

    def make_volume(self, name: str, labels: Labels, options: Mapping[str, str] | None = None) -> None:
        """`options` of the daemon's own driver, as for a volume in memory."""

    def volumes(self, labels: Labels) -> list[str]: ...

    def remove_volume(self, volume: str) -> None: ...

    def owners(self) -> Iterable[Labels]:
        """The labels of every container, network and volume that carries an owner of ours."""

    def events(self, labels: Labels, since_seconds: int) -> Events:
        """Ends and memory failures of containers from a moment on (Unix time)."""
