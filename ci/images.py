"""The names of images. Pure."""

from __future__ import annotations


def repository(image: str) -> str:
    """The repository of an image, without tag and digest, with the names that Docker leaves out."""
    bare = image.partition("@")[0]
    head, slash, last = bare.rpartition("/")
    bare = f"{head}{slash}{last.partition(':')[0]}"
    host = bare.partition("/")[0]
    has_host = "/" in bare and ("." in host or ":" in host or host == "localhost")
    full = bare if has_host else f"docker.io/{bare}"
    return full.replace("docker.io/", "docker.io/library/", 1) if full.count("/") == 1 else full
