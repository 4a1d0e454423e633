"""Images: their full names, what a mirror makes of them, and what a failed pull means. Pure."""

from __future__ import annotations

from collections.abc import Sequence

_LASTING = (
    "not found",
    "manifest unknown",
    "does not exist",
    "denied",
    "unauthorized",
    "no such host",
    "invalid reference",
    "repository name must",
    "no matching manifest",
    "x509",
)


class ImageError(Exception):
    """The image cannot be used. The text is a sentence for the author of the pipeline."""


def full_name(image: str) -> str:
    """`busybox` -> `docker.io/library/busybox:latest`; a digest stays as it is."""
    host, slash, rest = image.partition("/")
    if not slash or not ("." in host or ":" in host or host == "localhost"):
        host, rest = "docker.io", image
    if host in ("docker.io", "index.docker.io") and "/" not in rest:
        rest = f"library/{rest}"
    host = "docker.io" if host == "index.docker.io" else host
    last = rest.rpartition("/")[2]
    return f"{host}/{rest}" if ":" in last or "@" in last else f"{host}/{rest}:latest"


def mirrored(image: str, mirrors: Sequence[tuple[str, str]]) -> str:
    """What to ask the engine for. `mirrors` holds the longest prefixes first."""
    name = full_name(image)
    for prefix, replacement in mirrors:
        if name.startswith(prefix):
            return replacement + name.removeprefix(prefix)
    return name


def split_tag(name: str) -> tuple[str, str]:
    """Repository, and tag or digest, as a pull takes them."""
    if "@" in name:
        repository, _, digest = name.partition("@")
        return repository, digest
    repository, _, tag = name.rpartition(":")
    return repository, tag


def is_lasting(error: str) -> bool:
    """Whether a pull that failed so would fail again."""
    return any(sign in error.lower() for sign in _LASTING)


def pull_failed(image: str, name: str, error: str) -> str:
    asked = image if name == full_name(image) else f"{image} (asked for as {name})"
    return (
        f"image {asked} cannot be pulled; check its name and tag, and "
        f"whether the machine reaches its registry: {error.strip()}"
    )


def never_pulled(image: str) -> str:
    return f"image {image} is not on this runner's engine, and the step says `pull: never`"


def no_shell(image: str, shell: str = "/bin/sh") -> str:
    return (
        f"image {image} has no {shell}, and commands need one; use an image with a shell, or run the image's "
        "own entrypoint by leaving `commands` out"
    )
