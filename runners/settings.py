"""Settings of one runner, as the command line gave them."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from ci.errors import Invalid

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


@dataclass(frozen=True, kw_only=True)
class RunnerSettings:
    """`server` is the address of a Shipway server, without a slash at its end."""

    server: str
    name: str
    data: Path
    capacity: int = 1
    engine: str = "docker"
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        url = urlsplit(self.server)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise Invalid(f"--server {self.server!r} is no address like http://ci.example.org:8000")
        if url.username or url.password:
            raise Invalid("--server must hold no user and no password: the runner has its own credential")
        if self.capacity < 1:
            raise Invalid(f"--capacity {self.capacity}: a runner takes at least one job at a time")

    @property
    def spools(self) -> Path:
        return self.data / "spool"

    @property
    def is_server_on_loopback(self) -> bool:
        return is_loopback(self.server)

    def socket_url(self, path: str) -> str:
        return "ws" + self.server.removeprefix("http") + path

    @property
    def all_labels(self) -> dict[str, str]:
        """What the machine says of itself, under what the administrator says."""
        return {"platform": _platform(), "hostname": self.name, "engine": self.engine, **self.labels}


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def default_name() -> str:
    return socket.gethostname()


def default_capacity() -> int:
    return max(1, len(os.sched_getaffinity(0)))


def default_data() -> Path:
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "shipway-runner"


def parse_labels(texts: Iterable[str]) -> dict[str, str]:
    labels = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise Invalid(f"--label {text!r} is not of the form key=value")
        labels[key.strip()] = value.strip()
    return labels


def _platform() -> str:
    machine = platform.machine()
    return f"{platform.system().lower()}/{_MACHINES.get(machine, machine)}"
