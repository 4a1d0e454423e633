"""Local: the pipeline files of a working tree, as a server would find them at a commit."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ci.errors import ConfigError, Invalid
from ci.pipeline import includes, lookup, yaml
from ci.pipeline.dialects import DIALECTS, recognised
from ci.pipeline.includes import Include, Library
from ci.pipeline.problems import Problems

#: Folders of clones by OWNER/NAME.
Lenders = Mapping[str, Path]
LENDER_HELP = "OWNER/NAME=FOLDER: a clone of a repo that files are included from; may come again."


@dataclass(frozen=True, kw_only=True)
class PipelineFile:
    """`path` is where it lies, `name` what messages call it, `dialect` the name of what it is written in;
    `library` holds what it includes."""

    path: Path
    name: str
    source: bytes
    dialect: str
    library: Library


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


def read(path: Path, dialect: str = "", lenders: Lenders | None = None) -> PipelineFile:
    """`lenders`: clones of the repos that are included from. Raises OSError."""
    source = _bytes(path)
    dialect = dialect or _dialect(path, source)
    library = Library()
    if dialect == next(iter(DIALECTS)):
        library = _library(path, includes.wanted(source, str(path)), lenders or {})
    return PipelineFile(path=path, name=str(path), source=source, dialect=dialect, library=library)


def read_all(paths: Sequence[Path], dialect: str = "", lenders: Lenders | None = None) -> list[PipelineFile]:
    """The files of one build. Raises Invalid where there is none, or one cannot be read."""
    found = []
    for path in (file for each in paths or [Path()] for file in find(each)):
        if path.is_dir():
            raise Invalid(f"there is no pipeline file in {path.resolve()}; looked for: {lookup.PLACES}")
        try:
            found.append(read(path, dialect, lenders))
        except OSError as error:
            raise Invalid(f"{path} cannot be read: {error.strerror}") from error
    return found


def lenders(given: Sequence[str]) -> dict[str, Path]:
    """Of texts OWNER/NAME=FOLDER. Raises Invalid."""
    found = {}
    for text in given:
        repo, equals, folder = text.partition("=")
        if not equals or not Path(folder).is_dir():
            raise Invalid(f"{text!r} is not OWNER/NAME=FOLDER with the folder of a clone of that repo")
        found[repo] = Path(folder)
    return found


def _bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(yaml.MAX_BYTES + 1)


def _library(path: Path, wanted: Sequence[Include], lenders: Lenders) -> Library:
    texts: dict[str, str] = {}
    missing: dict[str, str] = {}
    for each in wanted:
        try:
            raw = _lent(each, lenders) if each.repo else _bytes(_root(path) / each.file)
            texts[each.name] = raw.decode()
        except FileNotFoundError:
            missing[each.name] = "there is no such file"
        except UnicodeDecodeError:
            missing[each.name] = "it is not UTF-8 text"
        except (OSError, Invalid) as error:
            missing[each.name] = str(error)
    return Library(texts=texts, missing=missing)


def _root(path: Path) -> Path:
    """Of the repository that the file lies in."""
    folder = path.absolute().parent
    beside = folder.parent if folder.name == Path(lookup.FOLDERS[0]).name else folder
    return next((each for each in (folder, *folder.parents) if (each / ".git").exists()), beside)


def _lent(include: Include, lenders: Lenders) -> bytes:
    if include.repo not in lenders:
        raise Invalid(f"name a clone of it: --lender {include.repo}=FOLDER")
    place = f"{include.commit}:{include.file}"
    command = ("git", "-C", str(lenders[include.repo]), "cat-file", "blob", place)
    answer = subprocess.run(command, capture_output=True, check=False)
    if answer.returncode != 0:
        raise Invalid(f"{lenders[include.repo]} does not have it: fetch there first")
    return answer.stdout


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
