"""What a person means by a repo or a build: a path, a number, a link, or the git clone that he stands in."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from urllib.parse import urlsplit

from ci.client.http import Api, segment
from ci.errors import Invalid, NotFound

_REPO = re.compile(r"([^/\s#]+)/([^/\s#]+)\Z")
_BUILD = re.compile(r"([^/\s#]+)/([^/\s#]+)(?:[/#](\d{1,18}))?\Z")
_SCP = re.compile(r"(?:[^@/\s]+@)?([^:/\s]+):(.+)\Z")
_GIT_SECONDS = 10


@dataclass(frozen=True, kw_only=True)
class RepoPath:
    owner: str
    name: str

    def __str__(self) -> str:
        return f"{self.owner}/{self.name}"

    @property
    def api(self) -> str:
        return f"/api/repos/{segment(self.owner)}/{segment(self.name)}"


@dataclass(frozen=True, kw_only=True)
class BuildPath:
    repo: RepoPath
    number: int

    def __str__(self) -> str:
        return f"{self.repo}/{self.number}"

    @property
    def api(self) -> str:
        return f"{self.repo.api}/builds/{self.number}"

    def log(self, job: str, step: str) -> str:
        owner, name = segment(self.repo.owner), segment(self.repo.name)
        return f"/r/{owner}/{name}/{self.number}/{segment(job)}/{segment(step)}/raw"


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Where secrets and variables are: of a repo, of an owner's repos, of all. `words` says it."""

    api: str
    words: str


def scope(api: Api, repo_text: str, owner: str, is_server_wide: bool) -> Scope:
    """Of --repo, --owner and --server-wide; nothing: the clone's repo. Raises Invalid for more than one."""
    if bool(repo_text) + bool(owner) + is_server_wide > 1:
        raise Invalid("give one of --repo, --owner and --server-wide")
    if is_server_wide:
        return Scope(api="/api", words="every repo of the server")
    if owner:
        return Scope(api=f"/api/owners/{segment(owner)}", words=f"every repo of {owner}")
    where = repo(repo_text, api.account.url)
    return Scope(api=where.api, words=str(where))


def repo(text: str, server_url: str) -> RepoPath:
    """`owner/name`, a link to its page, or nothing: the clone's remote. Raises Invalid."""
    if not text:
        return _of_clone(server_url)
    found = _REPO.match(_path_of_link(text))
    if found is None:
        raise Invalid(f"{text!r} is no repo: give OWNER/NAME, or nothing inside a git clone of it")
    return RepoPath(owner=found[1], name=found[2].removesuffix(".git"))


def build(text: str, api: Api) -> BuildPath:
    """`owner/name/12`, a link, `owner/name` for its newest, or inside a clone `12` or nothing."""
    url = api.account.url
    if text.isascii() and text.isdigit():
        return BuildPath(repo=_of_clone(url), number=int(text))
    found = _BUILD.match(_path_of_link(text)) if text else None
    if text and found is None:
        raise Invalid(
            f"{text!r} is no build: give OWNER/NAME/NUMBER, OWNER/NAME for the newest, or inside a git "
            "clone a NUMBER or nothing"
        )
    if found is not None and found[3]:
        return BuildPath(repo=RepoPath(owner=found[1], name=found[2]), number=int(found[3]))
    where = repo("/".join(found.group(1, 2)) if found else "", url)
    newest = api.get(f"{where.api}/builds", limit=1)["builds"]
    if not newest:
        raise NotFound(f"{where} has no build yet; `shipway why {where}` says what became of its events")
    return BuildPath(repo=where, number=int(newest[0]["number"]))


def _path_of_link(text: str) -> str:
    """`http://host/r/owner/name/12/job/step#L3` -> `owner/name/12`; anything else as it is."""
    if "://" not in text:
        return text.strip("/")
    parts = [part for part in urlsplit(text).path.split("/") if part]
    if parts[:1] != ["r"]:
        return text
    has_number = len(parts) > 3 and parts[3].isdigit()
    return "/".join(parts[1 : 4 if has_number else 3])


def _of_clone(server_url: str) -> RepoPath:
    """The repo of the remote: the one on this server, else `origin`, else the only one."""
    remotes = _remotes()
    if not remotes:
        raise Invalid("which repo? Give OWNER/NAME, or stand in a git clone that has a remote")
    host = urlsplit(server_url).netloc.rpartition("@")[2]
    own = [url for url in remotes.values() if host and host in url]
    url = own[0] if own else remotes.get("origin") or next(iter(remotes.values()))
    path = of_remote(url)
    if path is None:
        raise Invalid("the remote of this clone names no OWNER/NAME; say which repo you mean")
    return path


def of_remote(url: str) -> RepoPath | None:
    """The last two parts of a remote's path: `git@host:team/app.git` -> team/app."""
    scp = None if "://" in url else _SCP.match(url)
    path = scp[2] if scp else urlsplit(url).path
    parts = [part for part in path.split("/") if part]
    if len(parts) < 2:
        return None
    return RepoPath(owner=parts[-2], name=parts[-1].removesuffix(".git"))


def _remotes() -> dict[str, str]:
    wanted = ["git", "config", "--get-regexp", r"^remote\..*\.url$"]
    try:
        done = subprocess.run(wanted, capture_output=True, text=True, timeout=_GIT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    rows = (line.partition(" ") for line in done.stdout.splitlines())
    return {key.removeprefix("remote.").removesuffix(".url"): url for key, _, url in rows}
