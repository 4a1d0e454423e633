"""Docker: the door to the daemon, and its engine and janitor. The only file that imports docker."""

from __future__ import annotations

import os
import socket
import sys
import tarfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from threading import Lock
from typing import IO, Any, cast

import docker
import docker.errors
import docker.types
import docker.utils
import requests
import urllib3

from ci.registries import Login
from runners.engines import images
from runners.engines.base import EngineError
from runners.engines.containers import ContainerEngine, ContainerJanitor
from runners.engines.daemon import Config, Event, Image, Labels, NameTaken, StartRefused, State
from runners.engines.images import ImageError
from runners.engines.settings import DockerSettings

__all__ = ["DockerEngine", "DockerJanitor", "DockerSettings"]

_SOCKET = "unix:///var/run/docker.sock"
_TIMEOUT_SECONDS = 120
_CONNECTIONS = 64
_LOOK_SECONDS = 0.05
_BROKEN = (OSError, urllib3.exceptions.HTTPError)
HOW_TO_FIX = (
    "is it installed and running? On Debian: `apt-get install docker.io`, then `systemctl start docker`; the "
    "runner's user must be in the group `docker`, or DOCKER_HOST must say where the engine is"
)


class DockerEngine(ContainerEngine):
    def __init__(self, settings: DockerSettings) -> None:
        super().__init__(Client(), settings)


class DockerJanitor(ContainerJanitor):
    def __init__(self, settings: DockerSettings) -> None:
        super().__init__(Client())


class Client:
    """See engines.daemon.Daemon. Connects at the first call."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._connected: docker.APIClient | None = None

    @property
    def is_here(self) -> bool:
        scheme, _, path = os.environ.get("DOCKER_HOST", _SOCKET).partition("://")
        return scheme == "unix" and _shares_network(path)

    def close(self) -> None:
        with self._lock:
            connected, self._connected = self._connected, None
        if connected is not None:
            connected.close()

    def version(self) -> str:
        with _told():
            return f"docker {self._api.version()['Version']}"

    def memory_bytes(self) -> int:
        with _told():
            return int(self._api.info()["MemTotal"])

    # --- containers ------------------------------------------------------------------------------

    def create(self, name: str, config: Config) -> str:
        with _told():
            try:
                answer = self._untyped.create_container_from_config(config, name)
            except docker.errors.NotFound as error:
                raise ImageError(f"the image is gone: {_words(error)}") from None
            except docker.errors.APIError as error:
                if error.status_code == 409:
                    raise NameTaken(_words(error)) from None
                raise
        return str(answer["Id"])

    def attach(self, container: str) -> socket.socket:
        params = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
        with _told():
            hijacked = self._api.attach_socket(container, params)
            # A descriptor of our own: the SDK closes its one when the response is collected.
            connection = socket.socket(fileno=os.dup(hijacked.fileno()))
            inner = getattr(hijacked, "_sock", hijacked)
            hijacked.close()
            inner.close()
        connection.settimeout(None)
        return connection

    def start(self, container: str) -> None:
        with _told():
            try:
                self._api.start(container)
            except docker.errors.APIError as error:
                raise StartRefused(_words(error)) from None

    def kill(self, container: str, signal: str) -> None:
        with _told(), _gone_is_fine(404, 409):
            self._api.kill(container, signal)

    def run_in(
        self, container: str, command: Sequence[str], environment: Mapping[str, str], seconds: float
    ) -> int | None:
        until = time.monotonic() + seconds
        with _told():
            made = self._api.exec_create(container, list(command), environment=dict(environment))["Id"]
            self._api.exec_start(made, detach=True)
            while time.monotonic() < until:
                found = self._api.exec_inspect(made)
                if not found["Running"]:
                    return int(found["ExitCode"])
                time.sleep(_LOOK_SECONDS)
        return None

    def state(self, container: str) -> State | None:
        with _told():
            try:
                found = self._api.inspect_container(container)["State"]
            except docker.errors.NotFound:
                return None
        return State(
            is_running=bool(found["Running"]),
            code=int(found["ExitCode"]),
            health=str((found.get("Health") or {}).get("Status", "")),
        )

    def remove(self, container: str) -> None:
        with _told(), _gone_is_fine(404, 409):
            self._api.remove_container(container, v=True, force=True)

    def containers(self, labels: Labels) -> list[str]:
        with _told():
            found = self._api.containers(all=True, filters=_filters(labels))
        return [str(one["Id"]) for one in found]

    def put(self, container: str, path: str, tar: Iterable[bytes]) -> None:
        with _told():
            self._api.put_archive(container, path, tar)

    # --- images ----------------------------------------------------------------------------------

    def get(self, container: str, path: str, limit_bytes: int) -> bytes | None:
        with _told():
            try:
                pieces, _ = self._api.get_archive(container, path)
            except docker.errors.NotFound:
                return None
            with closing(pieces), tarfile.open(fileobj=cast(IO[bytes], _Reading(pieces)), mode="r|") as tar:
                entry = tar.next()
                file = tar.extractfile(entry) if entry is not None and entry.isfile() else None
                return file.read(limit_bytes) if file else None

    def image(self, name: str) -> Image | None:
        with _told():
            try:
                found = self._untyped.inspect_image(name)
            except docker.errors.NotFound:
                return None
            except docker.errors.APIError as error:
                if error.status_code == 400:
                    raise ImageError(f"image {name}: {_words(error)}") from None
                raise
        config = found["Config"] or {}
        return Image(
            id=str(found["Id"]),
            entrypoint=tuple(config.get("Entrypoint") or ()),
            command=tuple(config.get("Cmd") or ()),
        )

    def pull(self, name: str, login: Login | None = None) -> None:
        repository, tag = images.split_tag(name)
        auth = {"username": login.user, "password": login.password} if login else None
        with _told():
            try:
                for line in self._api.pull(repository, tag=tag, stream=True, decode=True, auth_config=auth):
                    if "error" in line:
                        raise ImageError(str(line["error"]))
            except docker.errors.APIError as error:
                raise ImageError(_words(error)) from None

    def import_image(self, name: str, tar: bytes) -> None:
        repository, tag = images.split_tag(name)
        with _told():
            self._api.import_image_from_data(tar, repository=repository, tag=tag)

    # --- networks and volumes --------------------------------------------------------------------

    def make_network(self, name: str, subnet: str, labels: Labels) -> None:
        pools = docker.types.IPAMConfig(pool_configs=[docker.types.IPAMPool(subnet=subnet)])
        with _told():
            try:
                self._api.create_network(
                    name, "bridge", ipam=pools, labels=dict(labels), check_duplicate=True
                )
            except docker.errors.APIError as error:
                if error.status_code == 409 or "overlap" in _words(error):
                    raise NameTaken(_words(error)) from None
                raise

    def networks(self, labels: Labels) -> list[str]:
        with _told():
            return [str(one["Id"]) for one in self._api.networks(filters=_filters(labels))]

    def remove_network(self, network: str) -> None:
        with _told(), _gone_is_fine(404):
            self._api.remove_network(network)

    def make_volume(self, name: str, labels: Labels, options: Mapping[str, str] | None = None) -> None:
        with _told():
            self._api.create_volume(name, labels=dict(labels), driver_opts=dict(options or {}))

    def volumes(self, labels: Labels) -> list[str]:
        with _told():
            return [str(one["Name"]) for one in self._api.volumes(_filters(labels))["Volumes"] or ()]

    def remove_volume(self, volume: str) -> None:
        with _told(), _gone_is_fine(404):
            self._api.remove_volume(volume)

    def owners(self) -> Iterable[Labels]:
        ours = {"label": ["shipway.server"]}
        with _told():
            found: list[Mapping[str, Any]] = [
                *self._api.containers(all=True, filters=ours),
                *self._api.networks(filters=ours),
                *(self._api.volumes(ours)["Volumes"] or ()),
            ]
        return [one["Labels"] or {} for one in found]

    def events(self, labels: Labels, since_seconds: int) -> _Events:
        filters = {**_filters(labels), "type": ["container"], "event": ["die", "oom"]}
        with _told():
            return _Events(self._api.events(since=since_seconds, filters=filters, decode=True))

    @property
    def _untyped(self) -> Any:
        """For the calls that the SDK's stubs leave out."""
        return self._api

    @property
    def _api(self) -> docker.APIClient:
        with self._lock:
            if self._connected is None:
                self._connected = docker.APIClient(
                    **docker.utils.kwargs_from_env(),
                    version="auto",
                    timeout=_TIMEOUT_SECONDS,
                    max_pool_size=_CONNECTIONS,
                )
            return self._connected


class _Reading:
    """Pieces as a file: so much as tarfile asks of one that cannot be sought in."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._held = b""

    def read(self, size: int) -> bytes:
        while len(self._held) < size and (piece := next(self._pieces, b"")):
            self._held += piece
        found, self._held = self._held[:size], self._held[size:]
        return found


class _Events:
    """See engines.daemon.Events."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._response = stream._response
        # A descriptor of our own, so that `close` may end a read of another thread.
        self._connection = socket.socket(fileno=os.dup(self._response.raw._fp.fp.raw.fileno()))

    def __iter__(self) -> Iterator[Event]:
        try:
            with _told():
                for line in self._stream:
                    yield _event(line)
        finally:
            self._response.close()
            self._connection.close()

    def close(self) -> None:
        with suppress(OSError):  # it has ended already
            self._connection.shutdown(socket.SHUT_RDWR)


def _event(line: Mapping[str, Any]) -> Event:
    actor = line["Actor"]
    code = actor["Attributes"].get("exitCode")
    return Event(
        container=str(actor["ID"]), action=str(line["Action"]), code=None if code is None else int(code)
    )


def _shares_network(path: str) -> bool:
    """Whether who listens on a Unix socket is in our network namespace; not so if we are a container."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    except OSError:
        return False
    process = int.from_bytes(peer[:4], sys.byteorder)
    try:
        return process != 0 and os.readlink(f"/proc/{process}/ns/net") == os.readlink("/proc/self/ns/net")
    except PermissionError:  # not root; that we see the process at all says that we are outside
        return True
    except OSError:
        return False


def _filters(labels: Labels) -> dict[str, Sequence[str]]:
    return {"label": [f"{name}={value}" for name, value in labels.items()]}


def _words(error: docker.errors.APIError) -> str:
    return str(error.explanation or error).strip()


@contextmanager
def _gone_is_fine(*codes: int) -> Iterator[None]:
    """404: there is no such thing. 409: it does not run, or somebody else is removing it."""
    try:
        yield
    except docker.errors.APIError as error:
        if error.status_code not in codes:
            raise


@contextmanager
def _told() -> Iterator[None]:
    """What goes wrong between us and the daemon is an EngineError, in words."""
    try:
        yield
    except docker.errors.APIError as error:
        raise EngineError(f"Docker refused: {_words(error)}") from error
    except (docker.errors.DockerException, requests.RequestException, *_BROKEN) as error:
        where = os.environ.get("DOCKER_HOST", "its default socket")
        raise EngineError(f"Docker does not answer at {where} ({error}); {HOW_TO_FIX}") from error
