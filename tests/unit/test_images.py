from __future__ import annotations

from collections.abc import Callable

import pytest

from runners.engines import images
from runners.engines.daemon import Image
from runners.engines.image_store import ImageStore
from runners.engines.images import ImageError
from runners.engines.settings import DockerSettings


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1", "docker.io/library/busybox:1"),
        ("plugins/slack", "docker.io/plugins/slack:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("index.docker.io/a/b:c", "docker.io/a/b:c"),
        ("localhost/a", "localhost/a:latest"),
        ("r.example.org:5000/a", "r.example.org:5000/a:latest"),
        ("r.example.org/a/b@sha256:12", "r.example.org/a/b@sha256:12"),
    ],
)
def test_the_full_name_of_an_image(image: str, name: str) -> None:
    assert images.full_name(image) == name


def test_the_longest_prefix_says_which_mirror() -> None:
    mirrors = (("docker.io/library/", "local/"), ("docker.io/", "m.example.org/hub/"))
    assert images.mirrored("busybox", mirrors) == "local/busybox:latest"
    assert images.mirrored("a/b:1", mirrors) == "m.example.org/hub/a/b:1"
    assert images.mirrored("r.example.org/a", mirrors) == "r.example.org/a:latest"


@pytest.mark.parametrize(
    ("name", "parts"),
    [("a/b:1", ("a/b", "1")), ("h:5/a@sha256:0", ("h:5/a", "sha256:0")), ("h:5/a:1", ("h:5/a", "1"))],
)
def test_a_name_is_split_as_a_pull_wants_it(name: str, parts: tuple[str, str]) -> None:
    assert images.split_tag(name) == parts


class Registry:
    """A daemon that has nothing, and whose pulls fail or succeed as told."""

    def __init__(self, *pulls: str) -> None:
        self.pulls = list(pulls)
        self.pulled: list[str] = []

    def image(self, name: str) -> Image | None:
        return Image(id=name, entrypoint=(), command=()) if "" in self.pulled else None

    def pull(self, name: str, login: object = None) -> None:
        error = self.pulls.pop(0)
        self.pulled.append(error)
        if error:
            raise ImageError(error)


def store(registry: Registry, pause: Callable[[float], None]) -> ImageStore:
    return ImageStore(registry, DockerSettings(), pause)  # type: ignore[arg-type]


def test_a_pull_that_may_succeed_later_is_tried_three_times() -> None:
    registry, pauses = Registry("i/o timeout", "i/o timeout", ""), list[float]()
    assert store(registry, pauses.append).get("a").result(10).id == "docker.io/library/a:latest"
    assert (registry.pulled, pauses) == (["i/o timeout", "i/o timeout", ""], [1.0, 2.0])


def test_three_failed_pulls_are_the_steps_reason() -> None:
    registry, pauses = Registry(*["i/o timeout"] * 3), list[float]()
    with pytest.raises(ImageError, match=r"^image a cannot be pulled; .*: i/o timeout$"):
        store(registry, pauses.append).get("a").result(10)
    assert len(registry.pulled) == 3


@pytest.mark.parametrize("error", ["manifest unknown", "pull access denied", "lookup x: no such host"])
def test_what_would_fail_again_is_not_tried_again(error: str) -> None:
    registry = Registry(error)
    with pytest.raises(ImageError, match=error):
        store(registry, lambda seconds: None).get("a").result(10)


def test_a_failure_is_not_remembered() -> None:
    registry = Registry("manifest unknown", "")
    found = store(registry, lambda seconds: None)
    with pytest.raises(ImageError):
        found.get("a").result(10)
    assert found.get("a").result(10).id
