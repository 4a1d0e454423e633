"""One step as a container: created, attached, started, fed, read to its end. Blocks; one thread a step.

Theory of operation. The container is attached before it starts, so that no byte is lost, and ends when
the daemon says so (`deaths`), never when its stream does. A stop is a request that may come at any
moment from another thread: what has not been fed yet never runs; what has gets TERM, and KILL later.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from threading import Lock, Thread, Timer
from typing import Any

from ci.shell import is_exportable
from ci.spec import Ready, StepKind, StepSpec
from ci.status import Outcome
from runners.engines import gate, images, sandbox, stream
from runners.engines.attempt import Attempt
from runners.engines.base import EngineError, Exit, Launch
from runners.engines.daemon import Image, NameTaken, StartRefused
from runners.engines.deaths import EngineRestarted
from runners.engines.images import ImageError
from runners.engines.parking import Namespace
from runners.engines.reasons import never_started, own_exit
from runners.engines.sandbox import Door

_STARTS = 4
#: The end of a stream and the word of the daemon that its container died are milliseconds apart.
_DEATH_SECONDS = 10.0
_MEMORY_SECONDS = 0.5
_PROBE_SECONDS = 10.0
NOT_RUNNING = "it does not run yet"
_KILLED = 137
#: What the engine says where the image does not fit to what it is started with.
_FAULTS_OF_IMAGES = ("exec format error", "permission denied", "unable to find user", "unable to find group")
_RESTARTED = Exit(
    code=None,
    outcome=Outcome.INFRA,
    reason="engine restarted: the container engine went away while the step ran, and its output has a hole; "
    "run the job again",
)


@dataclass(frozen=True, kw_only=True)
class Created:
    """A container that is attached and not started. `visible` is the environment in its config."""

    container: str
    connection: socket.socket
    namespace: Namespace
    door: Door
    visible: Mapping[str, str]


class ContainerStep:
    """One run of a step. `number` counts its runs."""

    def __init__(self, attempt: Attempt, step: StepSpec, number: int = 1) -> None:
        self._attempt = attempt
        self._daemon = attempt.daemon
        self._step = step
        self._number = number
        self._lock = Lock()
        self._stopped: Future[None] = Future()  # done: a stop was asked for
        self._kill_at = float("inf")
        self._running: Created | None = None
        self._launch: Launch | None = None
        self._is_fed = False
        self._ahead: Future[Created | None] | None = None
        self._tries = 0
        self._refusal = sandbox.not_allowed(step, attempt.job, attempt.allowed)

    # --- from other threads ----------------------------------------------------------------------

    def ready(self) -> None:
        """Create the container ahead, if it is known how. In a thread; once."""
        image = self._attempt.images.known(self._step.image, self._step.pull)
        if image is None:
            if not self._refusal:
                self._attempt.images.get(self._step.image, self._step.pull)
            return
        with self._lock:
            if self._ahead is not None or self._stopped.done() or self._has_own_namespace:
                return
            namespace = self._attempt.parking.reserve()
            if namespace is None:
                return
            self._ahead = Future()
        Thread(target=self._create_ahead, args=(image, namespace), name="engine-ahead", daemon=True).start()

    def stop(self, grace_seconds: float) -> None:
        """Returns when TERM (without grace: KILL) is sent."""
        with self._lock:
            self._kill_at = min(self._kill_at, time.monotonic() + grace_seconds)
            if not self._stopped.done():
                self._stopped.set_result(None)
            running, is_fed = self._running, self._is_fed
        if running is None:
            return
        if is_fed and grace_seconds > 0:
            self._terminate(running)
        self._kill_later(running)

    def why_unready(self, ready: Ready) -> str:
        """See engines.base.Engine.probe."""
        with self._lock:
            running, launch = (self._running, self._launch) if self._is_fed else (None, None)
        if running is None or launch is None:
            return NOT_RUNNING
        if ready.port is not None:
            return running.namespace.why_closed(ready.port)
        if ready.command:
            command = (sandbox.shell_of(self._step), "-c", ready.command)
            code = self._daemon.run_in(running.container, command, launch.environment, _PROBE_SECONDS)
            did = f"exited with {code}" if code is not None else f"took longer than {_PROBE_SECONDS:g} s"
            return "" if code == 0 else f"its command {ready.command!r} {did}"
        state = self._daemon.state(running.container)
        if state is None or not state.health:
            return "its image has no HEALTHCHECK; say `ready` with a port or a command"
        return "" if state.health == "healthy" else f"its HEALTHCHECK says {state.health}"

    # --- the step's thread -----------------------------------------------------------------------

    def run(self, launch: Launch) -> Exit:
        if self._refusal:
            return Exit(code=None, outcome=Outcome.INFRA, reason=self._refusal)
        try:
            image = self._image()
            if image is None:
                return never_started()
            return self._start_and_read(launch, image)
        except ImageError as error:
            return Exit(code=None, outcome=Outcome.IMAGE, reason=str(error))
        except EngineRestarted:
            return _RESTARTED
        finally:
            self._drop_ahead()

    def _image(self) -> Image | None:
        """None: stopped while it was waited for."""
        future = self._attempt.images.get(self._step.image, self._step.pull)
        either: tuple[Future[Any], ...] = (future, self._stopped)
        wait(either, return_when=FIRST_COMPLETED)
        return None if self._stopped.done() else future.result()

    def _start_and_read(self, launch: Launch, image: Image) -> Exit:
        for _ in range(_STARTS):
            door = self._door(image)
            created = self._take_created(launch, image, door)
            death = self._attempt.deaths.expect(created.container)
            try:
                with self._lock:
                    is_stopped = self._stopped.done()
                    self._running = None if is_stopped else created
                if is_stopped:
                    self._discard(created)
                    return never_started()
                self._daemon.start(created.container)
            except StartRefused as error:
                self._refused(str(error), image, created)
                continue
            except EngineError:
                self._discard(created)
                raise
            return self._read_to_end(launch, image, created, death)
        raise EngineError(f"the container of step {self._step.name} could not be started in {_STARTS} tries")

    def _door(self, image: Image) -> Door:
        if self._step.commands:  # of a service too
            return Door.JOINED
        if not sandbox.program_of(self._step, image):
            raise ImageError(
                f"image {self._step.image} has neither entrypoint nor command, and the step has no commands"
            )
        return Door.APART if self._attempt.images.has_shell(image) else Door.BARE

    def _refused(self, error: str, image: Image, created: Created) -> None:
        """Make the next try another one, or raise what ends the step."""
        with self._lock:
            self._running = None
        self._attempt.deaths.forget(created.container)
        is_missing = "no such file" in error or "executable file not found" in error
        shell = sandbox.shell_of(self._step)
        if is_missing and created.door is not Door.BARE and shell in error:
            self._discard(created)
            if created.door is Door.JOINED:
                raise ImageError(images.no_shell(self._step.image, shell))
            self._attempt.images.note_no_shell(image)
        elif is_missing or any(text in error for text in _FAULTS_OF_IMAGES):
            self._discard(created)
            raise ImageError(f"image {self._step.image} cannot be started: {error}")
        elif "non running container" in error or "No such container" in error:
            self._remove(created)
            self._attempt.parking.throw_away(created.namespace)
        else:
            self._discard(created)
            raise EngineError(f"the container of step {self._step.name} cannot be started: {error}")

    def _read_to_end(self, launch: Launch, image: Image, created: Created, death: Future[int]) -> Exit:
        try:
            is_fed = self._feed(launch, image, created)
            stream.pump(created.connection, launch.output.write)
            code = self._await_death(created, death)
            return self._exit(created, code) if is_fed else never_started()
        finally:
            with self._lock:
                self._running = None
            created.connection.close()
            if death.done() and not death.exception():
                self._attempt.parking.give_back(created.namespace)
            else:
                self._attempt.parking.throw_away(created.namespace)
            self._attempt.remove_later(created.container)

    def _feed(self, launch: Launch, image: Image, created: Created) -> bool:
        """Give it what it runs. False: stopped before that, its gate ends without having run anything."""
        if created.door is not Door.BARE:
            if self._stopped.done():
                with contextlib.suppress(OSError):
                    created.connection.shutdown(socket.SHUT_WR)
                return False
            with contextlib.suppress(OSError):  # it died at once: its end tells more
                created.connection.sendall(self._payload(launch, image))
        launch.on_started()
        with self._lock:
            self._is_fed, self._launch = True, launch
            is_stopped = self._stopped.done()
        if is_stopped:
            self._terminate(created)
        return True

    def _payload(self, launch: Launch, image: Image) -> bytes:
        if not self._step.commands:
            return gate.exec_payload(
                launch.environment, sandbox.program_of(self._step, image), launch.mark_token
            )
        exported = {name: value for name, value in launch.environment.items() if is_exportable(name)}
        return gate.commands_payload(exported, self._step.commands, launch.mark_token)

    def _await_death(self, created: Created, death: Future[int]) -> int:
        try:
            return death.result(_DEATH_SECONDS)
        except FutureTimeout:
            pass
        state = self._daemon.state(created.container)
        if state is not None and state.is_running:
            self._daemon.kill(created.container, "KILL")
            raise EngineRestarted("the stream ended before its container did")
        if state is None:
            raise EngineRestarted("the container was removed by somebody else")
        return state.code

    def _exit(self, created: Created, code: int) -> Exit:
        patience = _MEMORY_SECONDS if code == _KILLED and not self._stopped.done() else 0
        if code != 0 and self._attempt.deaths.was_out_of_memory(created.container, patience):
            limit = sandbox.memory_bytes(self._step, self._attempt.place.machine_memory_bytes)
            reason = f"out of memory: it used more than its limit of {_size(limit)}"
            return Exit(code=code, outcome=Outcome.OOM, reason=reason)
        return own_exit(code)

    # --- containers ------------------------------------------------------------------------------

    @property
    def _has_own_namespace(self) -> bool:
        return self._step.kind is StepKind.SERVICE or self._step.detach

    def _take_created(self, launch: Launch, image: Image, door: Door) -> Created:
        visible = self._visible(launch.environment, door)
        ahead = self._ahead.result() if self._ahead else None
        self._ahead = None
        if ahead is None:
            aliases = tuple({self._step.slug, self._step.name}) if self._has_own_namespace else ()
            namespace = self._attempt.parking.take(aliases)
        else:
            namespace = self._attempt.parking.take(wanted=ahead.namespace)
            if namespace is ahead.namespace and ahead.door is door and ahead.visible == visible:
                return ahead
            self._remove(ahead)
        try:
            return self._create(image, namespace, door, visible)
        except (EngineError, ImageError):
            self._attempt.parking.give_back(namespace)
            raise

    def _visible(self, environment: Mapping[str, str], door: Door) -> dict[str, str]:
        return {
            name: value for name, value in environment.items() if door is Door.BARE or not is_exportable(name)
        }

    def _create(self, image: Image, namespace: Namespace, door: Door, visible: Mapping[str, str]) -> Created:
        self._tries += 1
        name = f"{self._attempt.place.network}-{self._step.number}"
        name += f"-r{self._number}" if self._number > 1 else ""
        name += f"-{self._tries}" if self._tries > 1 else ""
        config = sandbox.step_config(
            self._step,
            image,
            self._attempt.place,
            namespace=namespace.container,
            door=door,
            environment=visible,
        )
        try:
            container = self._attempt.create(name, config)
        except NameTaken as error:
            raise EngineError(f"the container of step {self._step.name} cannot be made: {error}") from None
        except ImageError:
            self._attempt.images.forget(self._step.image)
            raise
        connection = self._daemon.attach(container)
        return Created(
            container=container, connection=connection, namespace=namespace, door=door, visible=visible
        )

    def _create_ahead(self, image: Image, namespace: Namespace) -> None:
        created: Created | None = None
        try:
            door = self._door(image)
            if door is not Door.BARE:
                visible = self._visible({**self._attempt.job.environment, **self._step.environment}, door)
                created = self._create(image, namespace, door, visible)
        except (EngineError, ImageError):
            pass  # only a hint: the step itself meets the error again, and tells it
        if created is None:
            self._attempt.parking.release(namespace)
        assert self._ahead is not None
        self._ahead.set_result(created)

    def _drop_ahead(self) -> None:
        """What was created ahead and not used."""
        if self._ahead is not None and (created := self._ahead.result()) is not None:
            self._attempt.parking.release(created.namespace)
            self._remove(created)

    def _discard(self, created: Created) -> None:
        """It was not started: its namespace is as clean as before."""
        self._attempt.deaths.forget(created.container)
        self._attempt.parking.give_back(created.namespace)
        self._remove(created)

    def _remove(self, created: Created) -> None:
        created.connection.close()
        self._attempt.remove_later(created.container)

    # --- signals ---------------------------------------------------------------------------------

    def _terminate(self, running: Created) -> None:
        if running.door is Door.BARE:
            self._daemon.kill(running.container, "TERM")
            return
        with contextlib.suppress(OSError):  # it has just ended
            running.connection.sendall(gate.STOP)

    def _kill_later(self, running: Created) -> None:
        timer = Timer(max(0.0, self._kill_at - time.monotonic()), self._kill, (running,))
        timer.daemon = True
        timer.start()

    def _kill(self, running: Created) -> None:
        if self._running is running:
            with contextlib.suppress(EngineError):  # if the daemon is away, so is the container
                self._daemon.kill(running.container, "KILL")


def _size(size_bytes: int) -> str:
    mebibytes = size_bytes / (1 << 20)
    return f"{mebibytes / 1024:.1f} GiB" if mebibytes >= 4096 else f"{mebibytes:.0f} MiB"
