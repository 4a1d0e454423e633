"""A plain repository elsewhere. Its post-receive hook posts the payload of `base` to `/hooks/{hook id}`:

    POST /hooks/{hook id}
    Content-Type: application/json
    X-Shipway-Signature: sha256=<hex HMAC-SHA256 of the raw body under the hook's secret>

Nothing in the payload is believed beyond its signature: commits are fetched from the repo's own clone URL, by
git, which is told the checked addresses of its host (address.py) and the repo's credential by environment.
`post_receive` makes the ready hook script.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from ci.errors import Forbidden, Invalid, NotFound, ShipwayError, Unavailable
from ci.server.forges.address import Addresses
from ci.server.forges.bare import NO_SHA, Bare, GitFailed
from ci.server.forges.base import Cloned, Delivery, parse_push
from ci.server.forges.news import Update
from ci.server.models import Repo

SIGNATURE_HEADER = "x-shipway-signature"
FETCH_SECONDS = 300.0
PROTOCOLS = ("http", "https")
#: User and password for a repo's server; None: as anybody.
LoginOf = Callable[[Repo], tuple[str, str] | None]
#: What git's own server says of a commit that it does not have.
_NO_COMMIT = "not our ref"
#: What git says when a server refuses it, or would be told more.
_WANTS_LOGIN = ("could not read Username", "could not read Password", "Authentication failed", "error: 403")


def signature(body: bytes, secret: bytes) -> str:
    return "sha256=" + hmac.digest(secret, body, hashlib.sha256).hex()


def is_signed(body: bytes, header: str, secrets: Sequence[bytes]) -> bool:
    """Whether one of them signed it. All are tried, in constant time; an empty secret signs nothing."""
    found = False
    for secret in secrets:
        is_it = hmac.compare_digest(header.encode(), signature(body, secret).encode())
        found |= is_it and bool(secret)
    return found


def check_clone_url(url: str, protocols: Sequence[str] = PROTOCOLS) -> str:
    """Raises Invalid for what we would never fetch from."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise Invalid(f"{url!r} is no URL: {error}") from error
    if parts.username or parts.password:  # every step would read it, in CI_REPO_CLONE_URL
        raise Invalid("a clone URL holds no user and no password: give them as the repo's credential")
    is_local = parts.scheme == "file"
    if parts.scheme not in protocols or not (parts.hostname or is_local) or re.search(r"[\x00-\x20]", url):
        raise Invalid(
            f"a clone URL begins with {' or '.join(f'{name}://' for name in protocols)}, unlike {url!r}"
        )
    return url


def post_receive(hook_url: str) -> str:
    """The ready hook script; needs python3 alone. The secret is in a file beside it, never in a command."""
    return _POST_RECEIVE.replace("@URL@", hook_url)


class PlainGit(Cloned):
    name = "git"

    def __init__(
        self,
        folder: Path,
        *,
        protocols: Sequence[str] = PROTOCOLS,
        addresses: Addresses | None = None,
        login_of: LoginOf | None = None,
    ) -> None:
        """`folder` holds a cache for each repo: shallow, ours alone, worth nothing."""
        self._folder = folder
        self._protocols = protocols
        self._addresses = addresses or Addresses()
        self._login_of = login_of or (lambda repo: None)

    def is_signed(self, headers: Mapping[str, str], body: bytes, secrets: Sequence[bytes]) -> bool:
        return is_signed(body, headers.get(SIGNATURE_HEADER, ""), secrets)

    def unsigned(self, headers: Mapping[str, str]) -> str:
        return f"the signature in {SIGNATURE_HEADER} does not fit the body and the hook's secret"

    def delivery(self, headers: Mapping[str, str], body: bytes) -> Delivery:
        return Delivery(key=parse_push(body).push_id, body=body)

    def clone_url(self, repo: Repo) -> str:
        return repo.clone_url

    async def objects(self, repo: Repo, update: Update) -> Bare:
        bare = await self._cache(repo)
        await self._have(bare, repo, update.after, update.ref or None)
        if update.before != NO_SHA:
            # Only the list of changed files needs it, and says "unknown" without.
            with contextlib.suppress(Unavailable, NotFound):
                await self._have(bare, repo, update.before, None)
        return bare

    async def tip(self, repo: Repo, ref: str) -> str | None:
        bare = await self._cache(repo)
        try:
            found = await bare.git(
                *("ls-remote", "--", repo.clone_url, ref),
                timeout_seconds=FETCH_SECONDS,
                config=await self._config(repo),
            )
        except GitFailed as error:
            raise _problem(repo, error) from error
        lines = (line.partition("\t") for line in found.decode(errors="replace").splitlines())
        return next((sha for sha, _, name in lines if name == ref), None)

    async def _cache(self, repo: Repo) -> Bare:
        bare = Bare(self._folder / f"{repo.id}.git", protocols=self._protocols)
        if not (bare.path / "HEAD").exists():
            bare.path.mkdir(parents=True, exist_ok=True)
            await bare.git("init", "--quiet", "--bare", "--template=", ".")
        return bare

    async def _have(self, bare: Bare, repo: Repo, sha: str, ref: str | None) -> None:
        """Fetch the commit by its id; servers that refuse that are asked for the ref."""
        if await bare.commit_of(sha) is not None:
            return
        error: GitFailed | None = None
        config = await self._config(repo)
        for wanted in (sha, ref):
            if wanted is None:
                continue
            try:
                await bare.git(
                    *("fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules"),
                    *("--no-write-fetch-head", "--end-of-options", repo.clone_url, wanted),
                    timeout_seconds=FETCH_SECONDS,
                    config=config,
                )
            except GitFailed as failed:
                error = failed
            if await bare.commit_of(sha) is not None:
                return
        if ref is None and error is not None and _NO_COMMIT in str(error):
            raise NotFound(f"it has no commit {sha[:10]}")
        raise _problem(repo, error or f"it has no commit {sha[:10]} any more")

    async def _config(self, repo: Repo) -> dict[str, str]:
        """Of git, for one talk with the repo's server."""
        parts = urlsplit(repo.clone_url)
        if parts.scheme not in PROTOCOLS:  # git says no, unless it is told otherwise
            return {}
        place = await self._addresses.of_url(repo.clone_url)
        config = {"http.followRedirects": "false"}
        if place.curl_resolve:
            config["http.curloptResolve"] = place.curl_resolve
        login = self._login_of(repo)
        if login is not None:
            words = base64.b64encode(":".join(login).encode()).decode()
            config[f"http.{parts.scheme}://{parts.netloc}/.extraHeader"] = f"Authorization: Basic {words}"
        return config


def _problem(repo: Repo, why: object) -> ShipwayError:
    url = re.sub(r"//[^/@]*@", "//", repo.clone_url)
    text = re.sub(r"//[^/@\s]*@", "//", str(why))
    if any(words in text for words in _WANTS_LOGIN):
        has = (
            "does not take the repo's credential"
            if repo.credential_kind
            else "asks for a user and a password"
        )
        return Forbidden(f"{url} {has}: enter one that reads it in the repo's settings")
    return Unavailable(f"cannot fetch from {url}: {text}")


_POST_RECEIVE = """#!/usr/bin/env python3
# Tells Shipway what was pushed. Install as hooks/post-receive (mode 0755), and put the secret of the
# hook into the file hooks/shipway-secret (mode 0600).
import hashlib, hmac, json, os, pathlib, secrets, sys, time, urllib.request

lines = [line.split() for line in sys.stdin.buffer.read().decode(errors="replace").splitlines()]
refs = [{"ref": ref, "before": before, "after": after} for before, after, ref in lines]
push = {"push_id": secrets.token_hex(16), "pusher": os.environ.get("USER", ""), "refs": refs}
body = json.dumps(push).encode()
secret = (pathlib.Path(__file__).parent / "shipway-secret").read_text().strip().encode()
signature = "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()
headers = {"Content-Type": "application/json", "X-Shipway-Signature": signature}
for pause in (1, 2, 4, 0):
    try:
        urllib.request.urlopen(urllib.request.Request("@URL@", body, headers), timeout=10).close()
        break
    except OSError as error:
        if not pause:
            print(f"shipway: this push could not be reported to @URL@: {error}", file=sys.stderr)
        time.sleep(pause)
"""
