"""The images that an attempt needs: found on the engine, or pulled once for all steps that wait for it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from threading import Lock, Thread

from ci.registries import Login, login_of
from ci.spec import Pull
from runners.engines import images, park
from runners.engines.base import EngineError
from runners.engines.daemon import Daemon, Image
from runners.engines.images import ImageError
from runners.engines.settings import DockerSettings

_TRIES = 3
_FIRST_PAUSE_SECONDS = 1.0


class ImageStore:
    """Safe in any thread. `pause` is how it waits between the tries of a pull."""

    def __init__(
        self, daemon: Daemon, settings: DockerSettings, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._daemon = daemon
        self._mirrors = settings.image_mirrors
        self._pause = pause
        self.logins: Mapping[str, Login] = {}  #: of registries, by their hosts
        self._lock = Lock()
        self._found: dict[tuple[str, Pull], Future[Image]] = {}
        self._without_shell: set[str] = set()

    def get(self, image: str, pull: Pull = Pull.MISSING) -> Future[Image]:
        """Fails with ImageError, or EngineError. A failure is not kept: the next one tries again. A registry
        that is always to be asked is asked once in a job."""
        name = images.mirrored(image, self._mirrors)
        with self._lock:
            known = self._found.get((name, pull))
            if known is not None and not (known.done() and known.exception()):
                return known
            future = self._found[name, pull] = Future()
        Thread(target=self._fetch, args=(image, name, pull, future), name="engine-image", daemon=True).start()
        return future

    def known(self, image: str, pull: Pull = Pull.MISSING) -> Image | None:
        """Without asking the engine."""
        future = self._found.get((images.mirrored(image, self._mirrors), pull))
        return future.result() if future and future.done() and not future.exception() else None

    def forget(self, image: str) -> None:
        """It is gone from the engine."""
        with self._lock:
            for pull in Pull:
                self._found.pop((images.mirrored(image, self._mirrors), pull), None)

    def has_shell(self, image: Image) -> bool:
        return image.id not in self._without_shell

    def note_no_shell(self, image: Image) -> None:
        self._without_shell.add(image.id)

    def park_image(self) -> str:
        """The image that holds namespaces: there, else made here, else pulled. Says so once."""
        found = self._daemon.image(park.IMAGE)
        if found is not None:
            return found.id
        tar = park.rootfs()
        if tar is None:
            try:
                return self.get(park.FALLBACK_IMAGE).result().id
            except ImageError as error:
                raise EngineError(
                    "the image that holds networks cannot be made, for this machine has no static busybox "
                    f"(Debian: `apt-get install busybox-static`), nor pulled: {error}"
                ) from None
        print(f"engine: made the image {park.IMAGE} from this machine's busybox", file=sys.stderr, flush=True)
        self._daemon.import_image(park.IMAGE, tar)
        made = self._daemon.image(park.IMAGE)
        if made is None:
            raise EngineError(f"the image {park.IMAGE} was made, but the engine does not have it")
        return made.id

    def _fetch(self, image: str, name: str, pull: Pull, future: Future[Image]) -> None:
        try:
            future.set_result(self._find(image, name, pull))
        except (ImageError, EngineError) as error:
            future.set_exception(error)

    def _find(self, image: str, name: str, pull: Pull) -> Image:
        found = None if pull is Pull.ALWAYS else self._daemon.image(name)
        if found is not None:
            return found
        if pull is Pull.NEVER:
            raise ImageError(images.never_pulled(image))
        self._pull(image, name)
        found = self._daemon.image(name)
        if found is None:
            raise ImageError(images.pull_failed(image, name, "the pull ended without it"))
        return found

    def _pull(self, image: str, name: str) -> None:
        for again in range(_TRIES):
            try:
                return self._daemon.pull(name, login_of(images.full_name(name), self.logins))
            except ImageError as error:
                if images.is_lasting(str(error)) or again + 1 == _TRIES:
                    raise ImageError(images.pull_failed(image, name, str(error))) from None
            self._pause(_FIRST_PAUSE_SECONDS * 2**again)
