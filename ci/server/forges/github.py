"""GitHub and GitHub Enterprise: their webhooks in our words, and their API (github_api.py).

    POST /hooks/{hook id}
    X-Hub-Signature-256: sha256=<hex HMAC-SHA256 of the raw body under the hook's secret>
    X-GitHub-Event: push
    X-GitHub-Delivery: 72d3162e-cc78-11e3-81ab-4c9367dc0958

The body is JSON, or a form with the JSON in `payload`; signed are the raw bytes. The delivery id is not
signed: a replay may carry another one, and is known by its body (inbox.py).
Facts: docs.github.com/en/webhooks.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import parse_qs

import httpx

from ci.errors import Invalid
from ci.server.forges import payload
from ci.server.forges.bare import NO_SHA, is_sha
from ci.server.forges.base import Delivery, NotReady, StatusUpdate
from ci.server.forges.git import signature
from ci.server.forges.github_api import API_URL, GitHubApi, RateLimits
from ci.server.forges.hosted import Hosted
from ci.server.forges.news import (
    BRANCH,
    TAG,
    News,
    Nothing,
    PullRequestNews,
    Push,
    ReleaseNews,
    RepoNews,
    Sender,
    Update,
)
from ci.server.forges.payload import Payload
from ci.server.models import Repo
from ci.status import Status

#: What GitHub sends at most.
MAX_HOOK_BYTES = 25 << 20
MAX_DESCRIPTION = 140
_SIGNATURE = "x-hub-signature-256"
_DELIVERY_ID = re.compile(r"[0-9A-Za-z-]{1,100}\Z")
_WORD = re.compile(r"[a-z][a-z0-9_]{0,99}\Z")

_BUILT_ACTIONS = frozenset({"opened", "synchronize", "reopened", "ready_for_review", "closed"})
_FOLLOWED = frozenset({"renamed", "transferred", "edited", "privatized", "publicized"})
_MAX_LABELS = 100

#: What GitHub shows: it knows four states. `unknown` and `blocked` wait for a person.
_STATES = {
    Status.SUCCESS: "success",
    Status.SKIPPED: "success",
    Status.FAILURE: "failure",
    Status.ERROR: "error",
    Status.CANCELLED: "error",
}


class GitHub(Hosted):
    name = "github"
    max_hook_bytes = MAX_HOOK_BYTES

    def __init__(
        self, *, client: httpx.AsyncClient, limits: RateLimits, token_of: Callable[[Repo], str]
    ) -> None:
        self._client = client
        self._limits = limits
        self._token_of = token_of

    def api(self, repo: Repo) -> GitHubApi:
        return GitHubApi(
            api_url=repo.api_url or API_URL,
            token=self._token_of(repo),
            client=self._client,
            limits=self._limits,
        )

    # --- deliveries -------------------------------------------------------------------------------

    def is_signed(self, headers: Mapping[str, str], body: bytes, secrets: Sequence[bytes]) -> bool:
        header = headers.get(_SIGNATURE, "").encode(errors="replace")
        found = False
        for secret in secrets:  # all of them, whatever came: the time tells nothing
            is_it = hmac.compare_digest(header, signature(body, secret).encode())
            found |= is_it and bool(secret)
        return found

    def unsigned(self, headers: Mapping[str, str]) -> str:
        if headers.get(_SIGNATURE):
            return (
                "the signature in X-Hub-Signature-256 does not fit the body and the hook's secret: is the "
                "webhook's secret at GitHub the one that this hook has?"
            )
        if headers.get("x-hub-signature"):
            return "the delivery is signed with SHA-1 alone (X-Hub-Signature), which is not accepted"
        return (
            "the delivery is not signed (X-Hub-Signature-256): set the hook's secret in the webhook at GitHub"
        )

    def delivery(self, headers: Mapping[str, str], body: bytes) -> Delivery:
        key, word = headers.get("x-github-delivery", ""), headers.get("x-github-event", "")
        if not _DELIVERY_ID.match(key):
            raise Invalid("the header X-GitHub-Delivery is missing, or holds no delivery id")
        if not _WORD.match(word):
            raise Invalid("the header X-GitHub-Event is missing, or holds no event")
        if headers.get("content-type", "").partition(";")[0].strip().lower() == _FORM:
            body = _from_form(body)
        repository = payload.parse(body).at("repository")
        return Delivery(key=key, word=word, body=body, repo_key=repository.key("id"))

    def news(self, word: str, key: str, body: bytes) -> News:
        return read_news(word, key, body)

    # --- questions --------------------------------------------------------------------------------

    async def merged(self, repo: Repo, news: PullRequestNews) -> tuple[str, str]:
        found = Payload(await self.api(repo).pull_request(repo.forge_key, news.number))
        head = found.at("head").text("sha")
        noun = f"pull request {news.number}"
        if head != news.head_sha:
            return "", f"the head of {noun} has moved on to {head[:10]}, whose own delivery is built"
        if not found.has("mergeable"):
            raise NotReady(f"GitHub has not merged {noun} with {news.target_branch} yet")
        merge = found.text("merge_commit_sha")
        if not found.flag("mergeable") or not is_sha(merge):
            return (
                "",
                f"{noun} cannot be merged with {news.target_branch}: it has conflicts to be solved first",
            )
        return merge, ""

    # --- builds -----------------------------------------------------------------------------------

    async def set_status(self, repo: Repo, status: StatusUpdate) -> None:
        await self.api(repo).set_status(
            repo.forge_key,
            status.sha,
            state=state_of(status.state),
            context=status.context,
            description=_short(status.description),
            target_url=status.target_url,
        )


def state_of(state: str) -> str:
    """GitHub's word for a value of ci.status.Status."""
    return _STATES.get(Status(state), "pending")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_DESCRIPTION else line[: MAX_DESCRIPTION - 1] + "\u2026"


_FORM = "application/x-www-form-urlencoded"


def _from_form(body: bytes) -> bytes:
    try:
        found = parse_qs(body.decode("ascii"), max_num_fields=10).get("payload", [])
    except ValueError as error:
        raise Invalid("the body is no form, though Content-Type says so") from error
    if len(found) != 1:
        raise Invalid(
            "the form holds no field `payload`; GitHub's content type application/json is the better one"
        )
    return found[0].encode(errors="replace")


# --- what a delivery says -----------------------------------------------------------------------------


def read_news(word: str, key: str, body: bytes) -> News:
    """Raises Invalid for a payload that GitHub would not have sent."""
    found = payload.parse(body)
    read = _READERS.get(word)
    if read is None:
        return Nothing(_ignored(word, found.text("action", 50)))
    return read(found, key)


def _ignored(word: str, action: str) -> str:
    what = f"{word} ({action})" if action else word
    return f"ignored, because nothing is built on GitHub's event {what}"


def _sender(found: Payload) -> Sender:
    sender = found.at("sender")
    return Sender(name=sender.text("login", 200), key=sender.key("id"))


def _push(found: Payload, key: str) -> News:
    sender = _sender(found)
    head = found.at("head_commit").text("id", 100)
    after = found.sha("after")
    update = Update(
        ref=found.ref("ref"),
        before=found.sha("before"),
        after=after,
        commit=head if is_sha(head) and after != NO_SHA else "",
    )
    return Push(
        push_id=key,
        refs=(update,),
        pusher=sender.name or found.at("pusher").text("name", 200),
        pusher_key=sender.key,
        link=_link(found, "compare"),
    )


def _pull_request(found: Payload, key: str) -> News:
    pull, action = found.at("pull_request"), found.text("action", 50)
    head, base = pull.at("head"), pull.at("base")
    number = pull.number("number")
    source, own = head.at("repo").key("id"), base.at("repo").key("id")
    before = found.text("before", 100)
    return PullRequestNews(
        number=number,
        action=action,
        refusal=_no_build(action, found),
        is_open=pull.text("state", 20) != "closed",
        head_sha=head.sha("sha"),
        before=before if action == "synchronize" and is_sha(before) else NO_SHA,
        head_ref=f"refs/pull/{number}/head",
        merge_ref=f"refs/pull/{number}/merge",
        source_branch=head.short_ref("ref", BRANCH),
        source_repo=head.at("repo").text("full_name", 300),
        # A head whose repo is gone, or that does not say whose it is, is a stranger's.
        is_from_fork=not own or source != own,
        target_branch=base.short_ref("ref", BRANCH),
        title=pull.text("title", 500),
        labels=tuple(label.text("name", 200) for label in pull.each("labels", _MAX_LABELS)),
        milestone=pull.at("milestone").text("title", 500),
        is_draft=pull.flag("draft"),
        sender=_sender(found),
        link=_link(pull, "html_url"),
        updated_at=pull.time("updated_at"),
    )


def _no_build(action: str, found: Payload) -> str:
    """Why this action of a pull request builds nothing; empty: it does."""
    if action in _BUILT_ACTIONS:
        return ""
    if action == "edited":
        has_new_target = found.at("changes").has("base")
        return "" if has_new_target else "ignored, because only the text of the pull request was edited"
    return f"ignored, because {action or 'this'!r} changes no code of the pull request"


def _release(found: Payload, key: str) -> News:
    release, action = found.at("release"), found.text("action", 50)
    if action != "published":
        return Nothing(f"ignored, because a release is built when it is published, and this one was {action}")
    target = release.text("target_commitish", 500)
    return ReleaseNews(
        action=action,
        tag=release.short_ref("tag_name", TAG),
        branch="" if is_sha(target) else target,
        title=release.text("name", 500),
        is_prerelease=release.flag("prerelease"),
        sender=_sender(found),
        link=_link(release, "html_url"),
    )


def _repository(found: Payload, key: str) -> News:
    action = found.text("action", 50)
    if action in _FOLLOWED:
        return RepoNews(action=action)
    words = {"deleted": "the repo was deleted at GitHub: nothing more will come from it"}
    return Nothing(words.get(action, _ignored("repository", action)))


def _ping(found: Payload, key: str) -> News:
    events = found.at("hook").texts("events", 100)
    missing = [word for word in ("push", "pull_request") if "*" not in events and word not in events]
    if events and missing:
        words = " and ".join(f"`{word}`" for word in missing)
        return Nothing(f"the hook works, but GitHub is not set to send {words}: nothing is built on that")
    return Nothing("the hook works: GitHub's ping has arrived")


def _create(found: Payload, key: str) -> News:
    return Nothing("ignored, because the push of the same branch or tag is what is built")


def _delete(found: Payload, key: str) -> News:
    return Nothing("ignored, because a branch or tag that is gone has nothing to build")


def _link(found: Payload, name: str) -> str:
    """Only what a browser may be sent to."""
    link = found.text(name, 2000)
    return link if link.startswith(("https://", "http://")) else ""


_READERS: Mapping[str, Callable[[Payload, str], News]] = {
    "push": _push,
    "pull_request": _pull_request,
    "release": _release,
    "repository": _repository,
    "ping": _ping,
    "create": _create,
    "delete": _delete,
}
