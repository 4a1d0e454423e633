"""Attempt: what one attempt of a job has on a container daemon, and the removal of all of it."""

from __future__ import annotations

import ipaddress
import itertools
import queue
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Condition, Thread

from ci import rights
from ci.spec import JobSpec, StepKind
from runners.engines import park, sandbox, stream
from runners.engines.base import EngineError, Owner
from runners.engines.daemon import Config, Daemon, Labels, NameTaken, StartRefused
from runners.engines.deaths import Deaths
from runners.engines.image_store import ImageStore
from runners.engines.parking import Namespace, Parking
from runners.engines.sandbox import Place
from runners.engines.settings import DockerSettings

#: 29 containers; a job that is wider gets a larger one.
_SUBNET_PREFIX = 27
_SUBNET_TRIES = 50
_REMOVERS = 4
_REMOVE_TRIES = 20
_WASTE_SECONDS = 5.0
#: For a daemon that does not answer; what it makes later is the janitor's.
_MAKING_SECONDS = 30.0
_REMOVE_PAUSE_SECONDS = 0.25


class Attempt:
    """`make` it in a thread; then safe in any thread."""

    def __init__(
        self, daemon: Daemon, settings: DockerSettings, job: JobSpec, owner: Owner, images: ImageStore
    ) -> None:
        self.daemon = daemon
        self.job = job
        self.owner = owner
        self.images = images
        self.labels = sandbox.attempt_labels(owner.server, owner.job, owner.attempt)
        self.deaths = Deaths(daemon, self.labels)
        self.parking = Parking(self._park, self.remove_later)
        self.is_destroyed = False
        self._changed = Condition()
        self._readers = itertools.count(1)
        self._being_made = 0
        self._settings = settings
        self.allowed = settings.allowed
        self._subnet = ""
        self._park_image = ""
        self._prohibited: list[str] = []
        self._parked = itertools.count(1)
        self._waste: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.place = Place(
            owner=owner,
            network=sandbox.name_of(owner),
            volume=sandbox.name_of(owner),
            workspace=job.workspace,
            directory=job.directory,
            volumes={each.name: f"{sandbox.name_of(owner)}-v{at}" for at, each in enumerate(job.volumes)},
            machine_memory_bytes=0,
            privileged=frozenset(step.slug for step in job.steps if rights.is_privileged(step, job)),
            ca_bundle=settings.ca_bundle,
            dns=settings.dns,
        )

    def make(self) -> None:
        """Network, volume, and the first parked container, which is waited for by whoever needs it."""
        if self._settings.ca_bundle and not self.daemon.is_here:
            raise EngineError("SHIPWAY_CA_BUNDLE needs an engine on this machine, and this one is elsewhere")
        self._park_image = self.images.park_image()
        memory = self.daemon.memory_bytes()
        self.place = replace(self.place, machine_memory_bytes=memory)
        with self._making():
            self._make_network()
            self.daemon.make_volume(self.place.volume, sandbox.labels_of(self.owner))
            for volume in self.job.volumes:
                name, labels = self.place.volumes[volume.name], sandbox.labels_of(self.owner)
                self.daemon.make_volume(name, labels, sandbox.volume_options(volume))
        self._prohibited = park.prohibited(self._subnet, self._settings.subnets, self._machine_addresses())
        Thread(target=self._remove_waste, name="engine-remove", daemon=True).start()
        self.parking.make_ahead()

    def fill(self, tar: Iterable[bytes]) -> None:
        self.daemon.put(self.parking.first().container, self.place.directory, tar)

    def read(self, path: str, limit_bytes: int) -> bytes | None:
        """By a container of its own that is never started: those that are parked come and go."""
        name = f"{self.place.network}-read{next(self._readers)}"
        container = self.create(name, sandbox.reader_config(self._park_image, self.place))
        try:
            return self.daemon.get(container, path, limit_bytes)
        finally:
            self.remove_later(container)

    def create(self, name: str, config: Config) -> str:
        """As the daemon's, but never after `destroy`: a late container would make the volume again."""
        with self._making():
            return self.daemon.create(name, config)

    def remove_later(self, container: str) -> None:
        """Off the critical path."""
        self._waste.put(container)

    def destroy(self) -> None:
        with self._changed:  # what is being made just now is removed too, and nothing is made after it
            self.is_destroyed = True
            self._changed.wait_for(lambda: not self._being_made, _MAKING_SECONDS)
        self._waste.put(None)
        self.parking.close()
        remove_all(self.daemon, self.labels)
        self.deaths.close()
        self.daemon.close()

    @contextmanager
    def _making(self) -> Iterator[None]:
        """Many at a time; `destroy` waits for them."""
        with self._changed:
            if self.is_destroyed:
                raise EngineError("the attempt was destroyed")
            self._being_made += 1
        try:
            yield
        finally:
            with self._changed:
                self._being_made -= 1
                self._changed.notify_all()

    def _make_network(self) -> None:
        width = sum(step.kind is not StepKind.CLONE for step in self.job.steps)
        labels = sandbox.labels_of(self.owner)
        taken = ""
        for subnet in _subnets(self._settings.subnets, width):
            try:
                self.daemon.make_network(self.place.network, subnet, labels)
            except NameTaken as error:
                taken = str(error)
                continue
            self._subnet = subnet
            return
        raise EngineError(
            f"no free subnet was found in {self._settings.subnets} ({taken}); remove unused networks "
            "(`docker network prune`) or set SHIPWAY_SUBNETS to another range"
        )

    def _machine_addresses(self) -> set[str]:
        if self.daemon.is_here:
            return park.local_addresses(Path("/proc/net/fib_trie").read_text())
        config = sandbox.probe_config(self._park_image, self.owner)
        container = self.create(f"{self.place.network}-probe", config)
        try:
            with self.daemon.attach(container) as connection:
                self.daemon.start(container)
                text = b"".join(stream.pieces(connection)).decode()
        finally:
            self.daemon.remove(container)
        return park.local_addresses(text)

    def _park(self, aliases: Sequence[str]) -> Namespace:
        """Make a parked container; returns once its namespace is closed off and clean."""
        number = next(self._parked)
        name = f"{self.place.network}-park{number}"
        config = sandbox.parked_config(
            self._park_image,
            self.place,
            prohibited=self._prohibited,
            aliases=aliases,
            holds_workspace=number == 1,
        )
        container = self.create(name, config)
        connection = self.daemon.attach(container)
        try:
            self.daemon.start(container)
            answers = stream.lines(connection)
            said = next(answers, b"")
            if said != park.READY:
                text = said.decode(errors="replace")
                raise EngineError(f"a network namespace could not be closed off from the machine: {text}")
        except (EngineError, StartRefused) as error:
            connection.close()
            self.remove_later(container)
            raise EngineError(str(error)) from error
        return Namespace(container, connection, lambda: next(answers, None))

    def _remove_waste(self) -> None:
        """Goes on after `destroy`, for what was being made just then; ends when nothing comes any more."""
        while True:
            try:
                container = self._waste.get(timeout=_WASTE_SECONDS if self.is_destroyed else None)
                if container is not None:
                    self.daemon.remove(container)
            except queue.Empty:
                return
            except EngineError:
                continue  # `destroy` and the janitor come again


def remove_all(daemon: Daemon, labels: Labels) -> None:
    """End and remove everything with these labels. Returns when it is gone.

    A removal that somebody else has begun, or a network whose endpoints go away only now, is waited for.
    """
    for again in range(_REMOVE_TRIES):
        try:
            if _remove_once(daemon, labels):
                return
        except EngineError:
            if again + 1 == _REMOVE_TRIES:
                raise
        time.sleep(_REMOVE_PAUSE_SECONDS)


def _remove_once(daemon: Daemon, labels: Labels) -> bool:
    """Whether nothing was left to remove but what this call has removed."""
    containers = daemon.containers(labels)
    if containers:
        with ThreadPoolExecutor(_REMOVERS, "engine-remove") as pool:
            list(pool.map(daemon.remove, containers))
        if daemon.containers(labels):
            return False
    for volume in daemon.volumes(labels):
        daemon.remove_volume(volume)
    for network in daemon.networks(labels):
        daemon.remove_network(network)
    return True


def _subnets(text: str, width: int) -> Iterable[str]:
    """Subnets to try, in random order, each wide enough for two containers a step."""
    whole = ipaddress.IPv4Network(text)
    prefix = min(_SUBNET_PREFIX, 32 - (2 * width + 4).bit_length())
    count = 1 << max(0, prefix - whole.prefixlen)
    for number in random.sample(range(count), min(count, _SUBNET_TRIES)):
        address = int(whole.network_address) + (number << (32 - prefix))
        yield f"{ipaddress.IPv4Address(address)}/{prefix}"
