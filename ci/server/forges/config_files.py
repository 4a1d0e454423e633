"""The pipeline files of a commit, wherever it lies: found by `ci.pipeline.lookup`, bounded, and text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ci.errors import Invalid
from ci.pipeline import lookup

MAX_CONFIG_BYTES = 1 << 20
MAX_CONFIG_FILES = 100


class Tree(Protocol):
    """The files of one commit."""

    async def sizes(self, folder: str) -> Mapping[str, int]:
        """Path to bytes of the files directly in a folder (empty: the root); links are left out."""

    async def read(self, path: str) -> bytes: ...


async def read_config(tree: Tree, config_path: str = "") -> dict[str, str]:
    """Name to text; empty if the commit has none. Raises Invalid for what is no text or too big."""
    for form in lookup.forms(config_path):
        sizes = await tree.sizes(form.folder)
        names = form.choose(sizes)
        if names:
            _check(form.folder, {name: sizes[name] for name in names})
            return {name: _text(name, await tree.read(name)) for name in names}
    return {}


async def read_file(tree: Tree, path: str) -> str | None:
    """One file of the commit; None where it is none. Raises Invalid for what is no text or too big."""
    sizes = await tree.sizes(path.rpartition("/")[0])
    if path not in sizes:
        return None
    if sizes[path] > MAX_CONFIG_BYTES:
        raise Invalid(f"it has {sizes[path]:,} bytes; at most {MAX_CONFIG_BYTES:,}")
    return _text(path, await tree.read(path))


def _check(folder: str, sizes: Mapping[str, int]) -> None:
    if len(sizes) > MAX_CONFIG_FILES:
        raise Invalid(f"{folder}/ holds {len(sizes)} pipeline files; at most {MAX_CONFIG_FILES}")
    total = sum(sizes.values())
    if total > MAX_CONFIG_BYTES:
        names = ", ".join(list(sizes)[:3])
        raise Invalid(f"{names}: {total:,} bytes of pipeline files; at most {MAX_CONFIG_BYTES:,}")


def _text(name: str, raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise Invalid(f"{name} is not UTF-8: byte {error.start} is {raw[error.start]:#04x}") from error
