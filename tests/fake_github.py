"""A GitHub for tests: a real HTTP server that speaks the part of the REST API which Shipway asks.

It signs webhooks as GitHub does, and misbehaves when told to. Repos are plain data: commits with their files,
refs, pull requests, and the statuses that came in, in order. With a folder, each has a real repository there
as well, which git reads by HTTP, a private one with a token only.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import hashlib
import hmac
import json
import socket
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from tests import fake_git

TOKEN = "ghp_a-token-that-nobody-may-see"
ZERO = "0" * 40


def sha_of(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


@dataclass(kw_only=True)
class Commit:
    files: dict[str, bytes]
    message: str = "A change"
    author: str = "Ada"
    author_email: str = "ada@example.org"
    date: str = "2026-01-02T03:04:05Z"


@dataclass(kw_only=True)
class Pull:
    number: int
    head: str
    base: str = "main"
    source: str = "topic"
    head_repo_key: int = 0  #: 0: the repo itself
    files: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    draft: bool = False
    mergeable: bool | None = True  #: None: GitHub has not tried yet
    updated_at: str = "2026-01-02T03:04:05Z"


@dataclass(kw_only=True)
class Repo:
    key: int
    owner: str
    name: str
    default_branch: str = "main"
    private: bool = True
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    pulls: dict[int, Pull] = field(default_factory=dict)
    statuses: list[dict[str, Any]] = field(default_factory=list)
    old_paths: set[str] = field(default_factory=set)
    tags: dict[str, str] = field(default_factory=dict)  #: annotated tag object -> commit
    folder: Path | None = None  #: its real repository
    base_url: str = "https://github.example"  #: of its clone URL

    def commit(self, ref: str, files: dict[str, str], message: str = "A change") -> str:
        """A new commit with exactly these files, and the ref on it."""
        if self.folder is not None:
            parent = self.refs.get(ref) or self.refs.get(f"refs/heads/{self.default_branch}", "")
            sha = fake_git.commit(self.folder, ref, files, message, parent)
        else:
            sha = sha_of(f"{self.key} {ref} {message} {sorted(files.items())} {len(self.commits)}")
        self.commits[sha] = Commit(
            files={path: text.encode() for path, text in files.items()}, message=message
        )
        self.refs[ref] = sha
        return sha

    def tag(self, name: str, commit: str) -> str:
        """An annotated tag in the real repository; returns its ref."""
        assert self.folder is not None
        ref = f"refs/tags/{name}"
        self.refs[ref] = fake_git.tag(self.folder, name, commit)
        self.tags[self.refs[ref]] = commit
        return ref

    def json(self) -> dict[str, Any]:
        path = f"{self.owner}/{self.name}"
        return {
            "id": self.key,
            "name": self.name,
            "full_name": path,
            "private": self.private,
            "owner": {"login": self.owner, "id": 1, "type": "User"},
            "default_branch": self.default_branch,
            "clone_url": f"{self.base_url}/{path}.git",
            "html_url": f"https://github.example/{path}",
            "fork": False,
        }


class FakeGitHub:
    """`misbehave` answers in place of the API while it is set, `on_git` in place of git; `seen` is every
    request to the API, as (method, path), and `fetched` every one of git, as (path, authorization)."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder  #: of the real repositories
        self.repos: dict[int, Repo] = {}
        self.tokens = {TOKEN}
        self.seen: list[tuple[str, str]] = []
        self.fetched: list[tuple[str, str]] = []
        self.misbehave: Callable[[Request], Awaitable[Response | None]] | None = None
        self.on_git: Callable[[Request], Awaitable[Response | None]] | None = None
        self.url = ""
        self.status_came = asyncio.Event()

    def repo(self, key: int, owner: str = "ada", name: str = "app", **values: Any) -> Repo:
        repo = Repo(key=key, owner=owner, name=name, **values)
        if self._folder is not None:
            repo.folder, repo.base_url = self._folder / f"{key}.git", self.url
            fake_git.make(repo.folder)
        self.repos[key] = repo
        return repo

    def rename(self, repo: Repo, owner: str, name: str) -> None:
        repo.old_paths.add(f"{repo.owner}/{repo.name}")
        repo.owner, repo.name = owner, name

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[FakeGitHub]:
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(self._app(), log_level="error", lifespan="off"))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield self
        finally:
            server.should_exit = True
            await task

    @contextlib.contextmanager
    def running(self) -> Iterator[FakeGitHub]:
        """As `serving`, in a thread of its own: for tests that wait for other processes."""
        is_up, loop, end = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

        async def serve() -> None:
            async with self.serving():
                is_up.set()
                await end.wait()

        thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
        thread.start()
        try:
            assert is_up.wait(10)
            yield self
        finally:
            loop.call_soon_threadsafe(end.set)
            thread.join()
            loop.close()

    # --- the API ------------------------------------------------------------------------------------

    def _app(self) -> Starlette:
        routes = [
            ("/repos/{owner}/{name}", self._named, "GET"),
            ("/repositories/{key:int}", self._repo, "GET"),
            ("/repositories/{key:int}/git/ref/{ref:path}", self._ref, "GET"),
            ("/repositories/{key:int}/git/commits/{sha}", self._commit, "GET"),
            ("/repositories/{key:int}/commits/{ref:path}", self._commit_of, "GET"),
            ("/repositories/{key:int}/compare/{range:path}", self._compare, "GET"),
            ("/repositories/{key:int}/pulls/{number:int}", self._pull, "GET"),
            ("/repositories/{key:int}/pulls/{number:int}/files", self._pull_files, "GET"),
            ("/repositories/{key:int}/contents", self._contents, "GET"),
            ("/repositories/{key:int}/contents/{path:path}", self._contents, "GET"),
            ("/repositories/{key:int}/statuses/{sha}", self._set_status, "POST"),
        ]
        api = [Route(path, self._guarded(answer), methods=[method]) for path, answer, method in routes]
        git = Route("/{owner}/{name}.git/{rest:path}", self._git, methods=["GET", "POST"])
        return Starlette(routes=[*api, git])

    def _guarded(
        self, answer: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def serve(request: Request) -> Response:
            self.seen.append((request.method, request.url.path))
            if self.misbehave is not None and (bad := await self.misbehave(request)) is not None:
                return bad
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or token not in self.tokens:
                return _problem(401, "Bad credentials")
            key = request.path_params.get("key")
            if key is not None and key not in self.repos:
                return _problem(404, "Not Found")
            return await answer(request)

        return serve

    def _of(self, request: Request) -> Repo:
        return self.repos[request.path_params["key"]]

    async def _named(self, request: Request) -> Response:
        path = f"{request.path_params['owner']}/{request.path_params['name']}".lower()
        for repo in self.repos.values():
            if f"{repo.owner}/{repo.name}".lower() == path:
                return JSONResponse(repo.json())
            if path in {old.lower() for old in repo.old_paths}:
                return RedirectResponse(f"{self.url}/repositories/{repo.key}", 301)
        return _problem(404, "Not Found")

    async def _repo(self, request: Request) -> Response:
        return JSONResponse(self._of(request).json())

    async def _ref(self, request: Request) -> Response:
        ref = "refs/" + request.path_params["ref"]
        sha = self._of(request).refs.get(ref)
        if sha is None:
            return _problem(404, "Not Found")
        return JSONResponse({"ref": ref, "object": {"sha": sha, "type": "commit"}})

    async def _commit(self, request: Request) -> Response:
        sha = request.path_params["sha"]
        commit = self._of(request).commits.get(sha)
        if commit is None:
            return _problem(404, "Not Found")
        person = {"name": commit.author, "email": commit.author_email, "date": commit.date}
        return JSONResponse({"sha": sha, "message": commit.message, "author": person, "committer": person})

    async def _commit_of(self, request: Request) -> Response:
        repo = self._of(request)
        at = repo.refs.get("refs/" + request.path_params["ref"])
        if at is None:
            return _problem(422, "No commit found for SHA")
        return Response(repo.tags.get(at, at), media_type="application/vnd.github.sha; charset=utf-8")

    async def _compare(self, request: Request) -> Response:
        base, _, head = request.path_params["range"].partition("...")
        commits = self._of(request).commits
        if base not in commits or head not in commits:
            return _problem(404, "Not Found")
        old, new = commits[base].files, commits[head].files
        names = sorted({path for path in {*old, *new} if old.get(path) != new.get(path)})
        return JSONResponse({"status": "ahead", "files": [{"filename": name} for name in names][:300]})

    async def _pull(self, request: Request) -> Response:
        repo = self._of(request)
        pull = repo.pulls.get(request.path_params["number"])
        return JSONResponse(pull_json(repo, pull)) if pull else _problem(404, "Not Found")

    async def _pull_files(self, request: Request) -> Response:
        pull = self._of(request).pulls.get(request.path_params["number"])
        if pull is None:
            return _problem(404, "Not Found")
        size, page = (
            int(request.query_params.get(key, str(one))) for key, one in (("per_page", 30), ("page", 1))
        )
        part = pull.files[(page - 1) * size : page * size]
        return JSONResponse([{"filename": name, "status": "modified"} for name in part])

    async def _contents(self, request: Request) -> Response:
        commit = self._of(request).commits.get(request.query_params.get("ref", ""))
        if commit is None:
            return _problem(404, "No commit found for the ref")
        path = request.path_params.get("path", "").strip("/")
        if path in commit.files:
            return self._one_file(request, path, commit.files[path])
        prefix = f"{path}/" if path else ""
        entries: dict[str, dict[str, Any]] = {}
        for name, data in commit.files.items():
            if name.startswith(prefix):
                head, _, rest = name.removeprefix(prefix).partition("/")
                kind = {"type": "dir", "size": 0} if rest else {"type": "file", "size": len(data)}
                entries[head] = {"name": head, "path": prefix + head, **kind}
        return JSONResponse(list(entries.values())) if entries else _problem(404, "Not Found")

    def _one_file(self, request: Request, path: str, data: bytes) -> Response:
        if "raw" in request.headers.get("accept", ""):
            return Response(data, media_type="application/vnd.github.raw+json; charset=utf-8")
        return JSONResponse({"type": "file", "path": path, "size": len(data)})

    async def _set_status(self, request: Request) -> Response:
        repo = self._of(request)
        sha = request.path_params["sha"]
        if sha not in repo.commits:
            return _problem(422, f"No commit found for SHA: {sha}")
        body = await request.json()
        if body["state"] not in ("pending", "success", "failure", "error") or len(body["description"]) > 140:
            return _problem(422, "Validation Failed")
        repo.statuses.append({"sha": sha, **body})
        self.status_came.set()
        return JSONResponse({"id": len(repo.statuses), **body}, 201)

    # --- git ----------------------------------------------------------------------------------------

    async def _git(self, request: Request) -> Response:
        login = request.headers.get("authorization", "")
        self.fetched.append((request.url.path, login))
        if self.on_git is not None and (bad := await self.on_git(request)) is not None:
            return bad
        path = f"{request.path_params['owner']}/{request.path_params['name']}"
        repo = next((each for each in self.repos.values() if f"{each.owner}/{each.name}" == path), None)
        if (login or repo is None or repo.private) and _password(login) not in self.tokens:
            return Response("", 401, {"www-authenticate": 'Basic realm="GitHub"'})
        if repo is None or repo.folder is None:
            return Response("", 404)
        return await fake_git.serve(
            request, repo.folder.parent, f"{repo.folder.name}/{request.path_params['rest']}"
        )


def _password(authorization: str) -> str:
    scheme, _, pair = authorization.partition(" ")
    return base64.b64decode(pair).decode().partition(":")[2] if scheme == "Basic" else ""


def _problem(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    body = {"message": message, "documentation_url": "https://docs.github.example/rest"}
    return JSONResponse(body, status, headers)


def cut_off() -> Response:
    """An answer whose connection ends in the middle of it."""

    async def half() -> AsyncIterator[bytes]:
        yield b'{"id":'
        raise ConnectionResetError("as the test wants it")

    return StreamingResponse(half(), 200, {"content-length": "100"}, "application/json")


def rate_limited(seconds: int | None = None, reset_at: float | None = None, status: int = 403) -> Response:
    """A primary limit (`reset_at`, UTC seconds) or a secondary one (`seconds`)."""
    headers = {"x-ratelimit-remaining": "0"} if reset_at is not None else {}
    if reset_at is not None:
        headers["x-ratelimit-reset"] = str(int(reset_at))
    if seconds is not None:
        headers["retry-after"] = str(seconds)
    return _problem(status, "API rate limit exceeded for user ID 1.", headers)


# --- webhooks ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A webhook as GitHub posts it."""

    body: bytes
    headers: dict[str, str]


def signed(
    event: str, body: dict[str, Any], secret: str, *, delivery: str = "", as_form: bool = False
) -> Delivery:
    raw = json.dumps(body, separators=(",", ":")).encode()
    kind = "application/json"
    if as_form:
        raw, kind = urlencode({"payload": raw.decode()}).encode(), "application/x-www-form-urlencoded"
    headers = {
        "content-type": kind,
        "user-agent": "GitHub-Hookshot/044aadd",
        "x-github-event": event,
        "x-github-delivery": delivery or str(uuid.uuid4()),
        "x-hub-signature": "sha1=" + hmac.new(secret.encode(), raw, hashlib.sha1).hexdigest(),
        "x-hub-signature-256": "sha256=" + hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest(),
    }
    return Delivery(body=raw, headers=headers)


def push_json(repo: Repo, ref: str, *, before: str = ZERO, sender: str = "ada") -> dict[str, Any]:
    after = repo.refs.get(ref, ZERO)
    at = repo.tags.get(after, after)  #: a tag may be an object of its own
    commit = repo.commits.get(at)
    head = None
    if commit is not None:
        person = {"name": commit.author, "email": commit.author_email, "username": sender}
        head = {
            "id": at,
            "message": commit.message,
            "timestamp": commit.date,
            "url": f"https://github.example/{repo.owner}/{repo.name}/commit/{at}",
            "author": person,
            "committer": person,
            "added": [],
            "removed": [],
            "modified": sorted(commit.files),
        }
    return {
        "ref": ref,
        "before": before,
        "after": after,
        "created": before == ZERO,
        "deleted": after == ZERO,
        "forced": False,
        "base_ref": None,
        "compare": f"https://github.example/{repo.owner}/{repo.name}/compare/{before[:12]}...{after[:12]}",
        "commits": [head] if head else [],
        "head_commit": head,
        "repository": repo.json(),
        "pusher": {"name": sender, "email": f"{sender}@example.org"},
        "sender": {"login": sender, "id": 1, "type": "User"},
    }


def pull_json(repo: Repo, pull: Pull) -> dict[str, Any]:
    source = repo.json()
    if pull.head_repo_key:
        source = dataclasses.replace(repo, key=pull.head_repo_key, owner="mallory").json() | {"fork": True}
    return {
        "id": 1000 + pull.number,
        "number": pull.number,
        "state": "open",
        "title": f"Change {pull.number}",
        "body": None,
        "draft": pull.draft,
        "merged": False,
        "mergeable": pull.mergeable,
        "updated_at": pull.updated_at,
        "merge_commit_sha": sha_of(f"merge {pull.number} {pull.head}"),
        "html_url": f"https://github.example/{repo.owner}/{repo.name}/pull/{pull.number}",
        "user": {"login": source["owner"]["login"], "id": 2, "type": "User"},
        "labels": [{"id": 1, "name": name} for name in pull.labels],
        "head": {"ref": pull.source, "sha": pull.head, "repo": source, "label": "x:topic"},
        "base": {
            "ref": pull.base,
            "sha": repo.refs.get(f"refs/heads/{pull.base}", ZERO),
            "repo": repo.json(),
        },
    }


def pull_request_json(
    repo: Repo, pull: Pull, action: str, *, sender: str = "ada", **more: Any
) -> dict[str, Any]:
    return {
        "action": action,
        "number": pull.number,
        "pull_request": pull_json(repo, pull),
        "repository": repo.json(),
        "sender": {"login": sender, "id": 2 if sender != "ada" else 1, "type": "User"},
        **more,
    }
