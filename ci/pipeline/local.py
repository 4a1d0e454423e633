"""Local: the pipeline files of a working tree, as a server would find them at a commit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ci.errors import ConfigError, Invalid
from ci.pipeline import lookup, yaml
from ci.pipeline.dialects import DIALECTS, recognised
from ci.pipeline.problems import Problems


@dataclass(frozen=True, kw_only=True)
class PipelineFile:
    """`path` is where it lies, `name` what messages call it, `dialect` the name of what it is written in."""

    path: Path
    name: str
    source: bytes
    dialect: str


def check_dialect(name: str) -> None:
    """Raises Invalid for the name of no dialect; empty: by name and content of each file."""
    if name and name not in DIALECTS:
        raise Invalid(f"there is no dialect {name!r}; there are {', '.join(DIALECTS)}")


def find(path: Path) -> list[Path]:
    """The file itself, or the pipeline files of the folder; the folder where it has none."""
    if not path.is_dir():
        return [path]
    candidates = [path / name for name in lookup.SINGLE]
    for folder in lookup.FOLDERS:
        candidates += (path / folder).glob("*") if (path / folder).is_dir() else []
    names = [file.relative_to(path).as_posix() for file in candidates if file.is_file()]
    return [path / name for name in lookup.choose(names)] or [path]


def read(path: Path, dialect: str = "") -> PipelineFile:
    """Raises OSError."""
    with path.open("rb") as file:
        source = file.read(yaml.MAX_BYTES + 1)
    return PipelineFile(path=path, name=str(path), source=source, dialect=dialect or _dialect(path, source))


def read_all(paths: Sequence[Path], dialect: str = "") -> list[PipelineFile]:
    """The files of one build. Raises Invalid where there is none, or one cannot be read."""
    found = []
    for path in (file for each in paths or [Path()] for file in find(each)):
        if path.is_dir():
            raise Invalid(f"there is no pipeline file in {path.resolve()}; looked for: {lookup.PLACES}")
        try:
            found.append(read(path, dialect))
        except OSError as error:
            raise Invalid(f"{path} cannot be read: {error.strerror}") from error
    return found


def _dialect(path: Path, source: bytes) -> str:
    """By its name, from the root of the repository or of the file system; else by what it says."""
    by_name = [each.name for each in DIALECTS.values() if each.is_named(path.as_posix())]
    by_place = [each.name for each in DIALECTS.values() if each.is_named(path.absolute().as_posix())]
    if by_name or by_place:
        return (by_name or by_place)[0]
    try:
        return recognised(yaml.load_all(source, Problems(file=str(path)))).name
    except ConfigError:
        return next(iter(DIALECTS))
