"""GitHub's REST API, as far as Shipway asks it. Repos are named by GitHub's own id: a rename breaks nothing.

Every call raises Unavailable where GitHub cannot answer now (down, slow, 5xx), RateLimited with the seconds
to wait, Forbidden for a token that is revoked, expired or too narrow, NotFound, and never shows the token.
Facts: docs.github.com/en/rest (api version 2022-11-28).
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from ci.errors import Forbidden, Invalid, NotFound, RateLimited, Unavailable
from ci.server.clock import Clock
from ci.server.forges.base import CommitFacts, RepoFacts

API_URL = "https://api.github.com"
TIMEOUT_SECONDS = 20.0
MAX_ANSWER_BYTES = 16 << 20
#: More changed files than this are nobody's path filter: None then, and every filter matches.
MAX_FILES = 300
_PAGE = 100
_MAX_REDIRECTS = 3
#: What GitHub asks to wait where it names no time (secondary limits).
_SECONDARY_SECONDS = 60.0


class RateLimits:
    """Until when a token must not ask, shared by all who use it. The tokens themselves are not kept."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}  #: monotonic seconds, by the token's hash

    def check(self, token: str) -> None:
        """Raises RateLimited while the token has to wait."""
        rest = self._until.get(_name(token), 0.0) - self._clock.monotonic()
        if rest > 0:
            raise _limited(rest)

    def note(self, token: str, headers: Mapping[str, str], message: str, status: int) -> float | None:
        """Seconds to wait if this answer is a rate limit's, else None."""
        seconds = self._seconds(headers, message, status)
        if seconds is not None:
            self._until[_name(token)] = self._clock.monotonic() + seconds
        return seconds

    def _seconds(self, headers: Mapping[str, str], message: str, status: int) -> float | None:
        if status not in (403, 429):
            return None
        if (after := _number(headers.get("retry-after"))) is not None:
            return max(1.0, after)
        if headers.get("x-ratelimit-remaining") == "0":
            reset = _number(headers.get("x-ratelimit-reset"))
            return max(1.0, reset - self._clock.now()) if reset is not None else _SECONDARY_SECONDS
        if status == 429 or "rate limit" in message.lower():
            return _SECONDARY_SECONDS
        return None


class GitHubApi:
    def __init__(
        self, *, api_url: str = API_URL, token: str, client: httpx.AsyncClient, limits: RateLimits
    ) -> None:
        """`client` belongs to the caller, who closes it; it follows no redirects by itself."""
        self._url = api_url.rstrip("/")
        self._token = token
        self._client = client
        self._limits = limits

    # --- repos --------------------------------------------------------------------------------------

    async def repo(self, key: str) -> RepoFacts:
        return _repo(await self._get(_of(key)))

    async def repo_named(self, owner: str, name: str) -> RepoFacts:
        """Also by a name that it had before."""
        return _repo(await self._get(f"/repos/{quote(owner, safe='')}/{quote(name, safe='')}"))

    async def ref(self, key: str, ref: str) -> str | None:
        """The object that a full ref (`refs/heads/main`) points at; None if there is none."""
        short = quote(ref.removeprefix("refs/"), safe="/")
        try:
            found = await self._get(_of(key, f"/git/ref/{short}"))
        except NotFound:
            return None
        return str(found["object"]["sha"]) if isinstance(found, dict) and found.get("ref") == ref else None

    async def commit(self, key: str, sha: str) -> CommitFacts:
        found = await self._get(_of(key, f"/git/commits/{quote(sha, safe='')}"))
        author = found.get("author") or {}
        return CommitFacts(
            message=str(found.get("message", "")),
            author=str(author.get("name", "")),
            author_email=str(author.get("email", "")),
            timestamp_seconds=_seconds(str((found.get("committer") or author).get("date", ""))),
        )

    async def commit_of(self, key: str, ref: str) -> str | None:
        """The commit behind a full ref, also behind an annotated tag; None if there is none."""
        address = _of(key, f"/commits/{quote(ref.removeprefix('refs/'), safe='/')}")
        try:
            found = await self._ask("GET", address, accept="application/vnd.github.sha")
        except (NotFound, Invalid):  # 422: no commit of that name
            return None
        return found.decode(errors="replace").strip() or None

    async def changed_files(self, key: str, base: str, head: str) -> tuple[str, ...] | None:
        """Paths that differ between two commits; None where nobody can say, or above MAX_FILES."""
        try:
            found = await self._get(_of(key, f"/compare/{quote(base, safe='')}...{quote(head, safe='')}"))
        except NotFound:  # a commit that a forced push took away
            return None
        files = found.get("files") or []
        return None if len(files) >= MAX_FILES else _paths(files)

    # --- pull requests --------------------------------------------------------------------------------

    async def pull_request(self, key: str, number: int) -> dict[str, Any]:
        found: dict[str, Any] = await self._get(_of(key, f"/pulls/{number}"))
        return found

    async def pull_request_files(self, key: str, number: int) -> tuple[str, ...] | None:
        files: list[Any] = []
        for page in range(1, MAX_FILES // _PAGE + 1):
            part = await self._get(_of(key, f"/pulls/{number}/files?per_page={_PAGE}&page={page}"))
            files += part
            if len(part) < _PAGE:
                return _paths(files)
        return None

    # --- contents -------------------------------------------------------------------------------------

    async def folder(self, key: str, sha: str, path: str) -> dict[str, int]:
        """Files directly in a folder (empty path: the root), by their paths, with their sizes in bytes."""
        try:
            found = await self._get(_of(key, f"/contents/{quote(path.strip('/'))}?ref={quote(sha, safe='')}"))
        except NotFound:
            return {}
        if not isinstance(found, list):  # a file
            return {}
        return {str(each["path"]): int(each["size"]) for each in found if each.get("type") == "file"}

    async def file(self, key: str, sha: str, path: str) -> bytes | None:
        address = _of(key, f"/contents/{quote(path)}?ref={quote(sha, safe='')}")
        try:
            return await self._ask("GET", address, accept="application/vnd.github.raw+json")
        except NotFound:
            return None

    # --- statuses -------------------------------------------------------------------------------------

    async def set_status(
        self, key: str, sha: str, *, state: str, context: str, description: str, target_url: str
    ) -> None:
        """`state` is one of GitHub's: pending, success, failure, error."""
        body = {"state": state, "context": context, "description": description, "target_url": target_url}
        await self._ask("POST", _of(key, f"/statuses/{quote(sha, safe='')}"), body=body)

    # --- the wire -------------------------------------------------------------------------------------

    async def _get(self, address: str) -> Any:
        data = await self._ask("GET", address)
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise Unavailable(f"{self._host} answered with something that is no JSON") from error

    async def _ask(
        self,
        method: str,
        address: str,
        *,
        accept: str = "application/vnd.github+json",
        body: Mapping[str, Any] | None = None,
    ) -> bytes:
        self._limits.check(self._token)
        headers = {"accept": accept, "x-github-api-version": "2022-11-28", "user-agent": "Shipway"}
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        url = self._url + address
        for _ in range(_MAX_REDIRECTS + 1):
            status, found, data = await self._send(method, url, headers, body)
            if status not in (301, 302, 307, 308):
                return self._checked(status, found, data)
            url = self._next(found.get("location", ""))
        raise Unavailable(f"{self._host} redirects in a circle")

    def _next(self, location: str) -> str:
        """Where a renamed repo is now; a token is shown to no other host."""
        if urlsplit(location)[:2] != urlsplit(self._url)[:2]:
            raise Unavailable(f"{self._host} redirects to another host, which is not followed")
        return location

    async def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: Mapping[str, Any] | None
    ) -> tuple[int, Mapping[str, str], bytes]:
        data = bytearray()
        try:
            async with self._client.stream(
                method, url, headers=headers, json=body, timeout=TIMEOUT_SECONDS, follow_redirects=False
            ) as answer:
                async for chunk in answer.aiter_bytes():
                    data += chunk
                    if len(data) > MAX_ANSWER_BYTES:
                        raise Invalid(f"{self._host} answers with more than {MAX_ANSWER_BYTES >> 20} MiB")
        except httpx.TimeoutException as error:
            raise Unavailable(f"{self._host} did not answer within {TIMEOUT_SECONDS:.0f} s") from error
        except httpx.HTTPError as error:
            raise Unavailable(f"{self._host} cannot be reached: {type(error).__name__}") from error
        return answer.status_code, answer.headers, bytes(data)

    def _checked(self, status: int, headers: Mapping[str, str], data: bytes) -> bytes:
        if status < 300:
            return data
        message = self._message(data)
        seconds = self._limits.note(self._token, headers, message, status)
        if seconds is not None:
            raise _limited(seconds)
        if status >= 500:
            raise Unavailable(f"{self._host} answers with {status}")
        if status == 401:
            raise Forbidden(f"{self._host} does not know the token: it is revoked or has expired")
        if status == 403:
            raise Forbidden(f"{self._host} refuses the token: {message or 'its rights are too narrow'}")
        if status in (404, 410, 451):
            raise NotFound(f"{self._host} has nothing there, or does not show it to this token")
        raise Invalid(f"{self._host} refuses with {status}: {message}")

    def _message(self, data: bytes) -> str:
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            return ""
        text = str(found.get("message", "")) if isinstance(found, dict) else ""
        clean = re.sub(r"[^\x20-\x7e]+", " ", text)[:300]
        return clean.replace(self._token, "***") if self._token else clean

    @property
    def _host(self) -> str:
        return urlsplit(self._url).hostname or "the forge"


def _limited(seconds: float) -> RateLimited:
    return RateLimited(f"the token's rate limit is used up; again in {seconds:.0f} s", seconds)


def _of(key: str, rest: str = "") -> str:
    return f"/repositories/{quote(key, safe='')}{rest}"


def _name(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _repo(found: Any) -> RepoFacts:
    return RepoFacts(
        key=str(found["id"]),
        owner=str(found["owner"]["login"]),
        name=str(found["name"]),
        default_branch=str(found.get("default_branch") or ""),
        is_private=bool(found.get("private", True)),
        clone_url=str(found.get("clone_url", "")),
        html_url=str(found.get("html_url", "")),
    )


def _paths(files: list[Any]) -> tuple[str, ...]:
    """New names and, of what was moved, the old ones."""
    names = [str(each[key]) for each in files for key in ("filename", "previous_filename") if each.get(key)]
    return tuple(dict.fromkeys(names))


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def _seconds(text: str) -> int:
    try:
        return max(0, int(datetime.datetime.fromisoformat(text).timestamp()))
    except ValueError:
        return 0
