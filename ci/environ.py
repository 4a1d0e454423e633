"""The variables of a build: what each means, who controls its value, and how it is made.

One table. Who controls a value decides where it may be pasted (law 6): what an outsider controls reaches
`commands` only through the environment of the shell, never as text of the script.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from urllib.parse import urlsplit

from ci import __version__
from ci.event import Event, Kind
from ci.spec import Limits, Trust

#: Linux refuses to start a program with a longer variable than 128 KiB; a message may not end the build.
MAX_VALUE_BYTES = 32 * 1024
MAX_FILES = 500
#: Every container has this folder to itself, in memory, and whoever runs the step may write there.
OUTPUT_FILE = "/dev/shm/shipway-output"

_NONE = "0" * 40
_GIVEN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}\Z")
_SHA = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?\Z")


class Controller(StrEnum):
    """Who chooses the value."""

    US = "us"
    WRITER = "repo writer"  #: whoever may push to the repo, or administers it
    OUTSIDER = "outsider"  #: also the author of a fork, or anybody whose commit was merged


class Scope(StrEnum):
    JOB = "job"
    STEP = "step"
    RUN = "run"  #: known only where and when the step runs: the runner sets it


@dataclass(frozen=True, kw_only=True)
class Previous:
    """The build before this one of the same branch. Times are seconds since 1970; 0: not yet."""

    number: int
    status: str
    event: Event
    parent_number: int | None = None
    url: str = ""
    created_at_seconds: int = 0
    started_at_seconds: int = 0
    finished_at_seconds: int = 0


@dataclass(frozen=True, kw_only=True)
class Context:
    """What is known of the repo and the build, beside the event."""

    owner: str
    name: str
    repo_key: str  #: names the clone cache, stable over renames
    remote_id: str = ""  #: the forge's own id of the repo
    clone_url: str
    repo_url: str = ""
    default_branch: str = ""
    is_private: bool = True
    forge: str = "builtin"
    forge_url: str = ""
    number: int  #: of the build
    build_url: str = ""
    system_url: str = ""
    parent_number: int | None = None  #: the build that this one is a rerun of
    created_at_seconds: int | None = None
    clone_depth: int = 1
    timeout_seconds: int = 3600
    grace_seconds: int = 10
    limits: Limits = field(default_factory=Limits)
    trust: Trust = field(default_factory=Trust)
    previous: Previous | None = None
    variables: Mapping[str, str] = field(
        default_factory=dict, hash=False
    )  #: of the repo, its owner, the server


@dataclass(frozen=True, kw_only=True)
class StepFacts:
    name: str
    number: int
    kind: str
    url: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything that a variable can be made of. `step` is None for those of the whole job."""

    event: Event
    context: Context
    pipeline: str
    job_number: int  #: from 1, within the build
    workspace: str
    step: StepFacts | None = None


def _nothing(_: Facts) -> str:
    return ""


@dataclass(frozen=True, kw_only=True)
class Variable:
    name: str
    controller: Controller
    meaning: str
    scope: Scope = Scope.JOB
    make: Callable[[Facts], str] = field(default=_nothing, repr=False)
    is_ready: bool = True  #: False: known by name, not set yet


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _number(value: int | None) -> str:
    return str(value) if value else ""


def _sha(value: str) -> str:
    return value if value != _NONE and _SHA.match(value) else ""


def _first_name(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _files(facts: Facts) -> str:
    files = facts.event.changed_files
    if not files or len(files) > MAX_FILES:
        return ""
    text = json.dumps(files, ensure_ascii=False)
    return text if len(text.encode(errors="replace")) <= MAX_VALUE_BYTES else ""


def _pull_request(facts: Facts) -> str:
    if facts.event.pull_request is not None:
        return str(facts.event.pull_request)
    found = re.match(r"refs/(?:pull|pull-requests|merge-requests)/([0-9]{1,18})/", facts.event.ref)
    return found[1] if found else ""


def _is_pull_request(event: Event) -> bool:
    return event.kind in (Kind.PULL_REQUEST, Kind.PULL_REQUEST_CLOSED)


def _prerelease(facts: Facts) -> str:
    return _flag(facts.event.is_prerelease) if facts.event.kind is Kind.RELEASE else ""


def _step(read: Callable[[StepFacts], str]) -> Callable[[Facts], str]:
    return lambda facts: read(facts.step) if facts.step else ""


def _us(name: str, meaning: str, make: Callable[[Facts], str], scope: Scope = Scope.JOB) -> Variable:
    return Variable(name=name, controller=Controller.US, meaning=meaning, make=make, scope=scope)


def _writer(name: str, meaning: str, make: Callable[[Facts], str], scope: Scope = Scope.JOB) -> Variable:
    return Variable(name=name, controller=Controller.WRITER, meaning=meaning, make=make, scope=scope)


def _outsider(name: str, meaning: str, make: Callable[[Facts], str]) -> Variable:
    return Variable(name=name, controller=Controller.OUTSIDER, meaning=meaning, make=make)


def _run(name: str, meaning: str) -> Variable:
    return Variable(name=name, controller=Controller.US, meaning=meaning, scope=Scope.RUN)


def _before(name: str, who: Controller, make: Callable[[Previous], str]) -> Variable:
    """Of the build before this one of the same branch."""
    meaning = f"`CI_{name}` of the build before this one of the same branch"
    return Variable(
        name=f"CI_PREV_{name}",
        controller=who,
        meaning=meaning,
        make=lambda f: make(f.context.previous) if f.context.previous else "",
    )


def _refspec(event: Event) -> str:
    return f"{event.source_branch}:{event.branch}" if event.source_branch else ""


def _target(event: Event) -> str:
    return event.branch if _is_pull_request(event) else ""


def _later(name: str, controller: Controller = Controller.OUTSIDER) -> Variable:
    return Variable(name=name, controller=controller, meaning="not yet", is_ready=False)


_SYSTEM = (
    _us("CI", "always `shipway`", lambda f: "shipway"),
    _us("CI_SYSTEM_NAME", "always `shipway`", lambda f: "shipway"),
    _us("CI_SYSTEM_VERSION", "version of the server", lambda f: __version__),
    _us("CI_SYSTEM_URL", "address of the server", lambda f: f.context.system_url),
    _us("CI_SYSTEM_HOST", "host name of the server", lambda f: _first_name(f.context.system_url)),
    _run("CI_SYSTEM_PLATFORM", "platform of the runner's machine, such as `linux/amd64`"),
    _run("CI_MACHINE", "host name of the runner's machine"),
    _us("CI_WORKSPACE", "folder of the workspace in every step", lambda f: f.workspace),
    _us("CI_FORGE_TYPE", "which kind of forge: `builtin`, `git` or `github`", lambda f: f.context.forge),
    _us("CI_FORGE_URL", "address of the forge", lambda f: f.context.forge_url),
)
_REPO = (
    _writer("CI_REPO", "path of the repo: `owner/name`", lambda f: f"{f.context.owner}/{f.context.name}"),
    _writer("CI_REPO_OWNER", "owner of the repo", lambda f: f.context.owner),
    _writer("CI_REPO_NAME", "name of the repo", lambda f: f.context.name),
    _us(
        "CI_REPO_REMOTE_ID",
        "the forge's own id of the repo",
        lambda f: f.context.remote_id or f.context.repo_key,
    ),
    _writer("CI_REPO_URL", "page of the repo", lambda f: f.context.repo_url),
    _writer("CI_REPO_CLONE_URL", "what `git clone` takes", lambda f: f.context.clone_url),
    _later("CI_REPO_CLONE_SSH_URL", Controller.WRITER),
    _writer("CI_REPO_DEFAULT_BRANCH", "default branch of the repo", lambda f: f.context.default_branch),
    _us("CI_REPO_PRIVATE", "`true` or `false`", lambda f: _flag(f.context.is_private)),
    _us(
        "CI_REPO_TRUSTED_NETWORK",
        "`true` where a server admin allows the repo more, else `false`",
        lambda f: _flag(f.context.trust.network),
    ),
    _us(
        "CI_REPO_TRUSTED_VOLUMES",
        "`true` where a server admin allows the repo more, else `false`",
        lambda f: _flag(f.context.trust.volumes),
    ),
    _us(
        "CI_REPO_TRUSTED_SECURITY",
        "`true` where a server admin allows the repo more, else `false`",
        lambda f: _flag(f.context.trust.security),
    ),
)
_COMMIT = (
    _us("CI_COMMIT_SHA", "the commit that is built", lambda f: _sha(f.event.sha)),
    _outsider("CI_COMMIT_REF", "full name of the ref: `refs/heads/main`", lambda f: f.event.ref),
    _outsider(
        "CI_COMMIT_REFSPEC",
        "source and target branch of a pull request: `source:target`",
        lambda f: _refspec(f.event),
    ),
    _writer("CI_COMMIT_BRANCH", "branch; of a pull request its target", lambda f: f.event.branch),
    _outsider("CI_COMMIT_SOURCE_BRANCH", "source branch of a pull request", lambda f: f.event.source_branch),
    _writer(
        "CI_COMMIT_TARGET_BRANCH",
        "target branch of a pull request",
        lambda f: _target(f.event),
    ),
    _writer("CI_COMMIT_TAG", "name of the tag", lambda f: f.event.tag),
    _us("CI_COMMIT_PULL_REQUEST", "number of the pull request", _pull_request),
    _outsider(
        "CI_COMMIT_PULL_REQUEST_LABELS",
        "labels of the pull request, with commas between them",
        lambda f: ",".join(f.event.labels),
    ),
    _writer("CI_COMMIT_PULL_REQUEST_MILESTONE", "milestone of the pull request", lambda f: f.event.milestone),
    _us(
        "CI_COMMIT_PULL_REQUEST_DRAFT",
        "of a pull request: `true` while it is a draft, else `false`",
        lambda f: _flag(f.event.is_draft) if _is_pull_request(f.event) else "",
    ),
    _outsider("CI_COMMIT_MESSAGE", "message of the commit", lambda f: f.event.message or f.event.title),
    _us(
        "CI_COMMIT_TIMESTAMP",
        "when the commit was made, in seconds since 1970",
        lambda f: _number(f.event.timestamp_seconds),
    ),
    _outsider("CI_COMMIT_AUTHOR", "author of the commit", lambda f: f.event.author),
    _outsider("CI_COMMIT_AUTHOR_EMAIL", "address of the author", lambda f: f.event.author_email),
    _later("CI_COMMIT_AUTHOR_AVATAR"),
    _us("CI_COMMIT_PRERELEASE", "of a release: `true` if it is a pre-release, else `false`", _prerelease),
)
_BUILD = (
    _us("CI_PIPELINE_NUMBER", "number of the build", lambda f: str(f.context.number)),
    _us(
        "CI_PIPELINE_PARENT",
        "number of the build that this one runs again",
        lambda f: _number(f.context.parent_number),
    ),
    _us("CI_PIPELINE_EVENT", "the event: `push`, `tag`, ...", lambda f: f.event.kind.value),
    _us(
        "CI_PIPELINE_EVENT_REASON",
        "of a pull request or release what happened, in the forge's word: `opened`, `published`, ...",
        lambda f: f.event.action,
    ),
    _us("CI_PIPELINE_URL", "page of the build", lambda f: f.context.build_url),
    _outsider("CI_PIPELINE_FORGE_URL", "page of the change on the forge", lambda f: f.event.link),
    _writer(
        "CI_PIPELINE_DEPLOY_TARGET", "environment that a deployment is for", lambda f: f.event.deploy_target
    ),
    _writer("CI_PIPELINE_DEPLOY_TASK", "task of a deployment", lambda f: f.event.deploy_task),
    _writer(
        "CI_PIPELINE_RELEASE_TITLE",
        "title of the release",
        lambda f: f.event.title if f.event.kind is Kind.RELEASE else "",
    ),
    _us("CI_PIPELINE_RELEASE_PRE", "the same as `CI_COMMIT_PRERELEASE`", _prerelease),
    _us(
        "CI_PIPELINE_CREATED",
        "when the build was made, in seconds since 1970",
        lambda f: _number(f.context.created_at_seconds),
    ),
    _run("CI_PIPELINE_STARTED", "when the job started, in seconds since 1970"),
    _outsider(
        "CI_PIPELINE_FILES", f"changed files as a JSON list; not set above {MAX_FILES} or if unknown", _files
    ),
    _outsider(
        "CI_PIPELINE_AUTHOR", "who pushed or started the build", lambda f: f.event.sender or f.event.author
    ),
    _later("CI_PIPELINE_AVATAR"),
    _later("CI_PIPELINE_RERUNS", Controller.US),
    _run("CI_PIPELINE_STATUS", "`success` or `failure`: the job so far"),
)
_JOB_AND_STEP = (
    _writer("CI_WORKFLOW_NAME", "name of the pipeline: its file's", lambda f: f.pipeline),
    _us("CI_WORKFLOW_NUMBER", "number of the job in its build, from 1", lambda f: str(f.job_number)),
    _writer("CI_STEP_NAME", "name of the step", _step(lambda s: s.name), Scope.STEP),
    _us("CI_STEP_NUMBER", "number of the step in its job", _step(lambda s: str(s.number)), Scope.STEP),
    _us("CI_STEP_TYPE", "`commands`, `plugin` or `service`", _step(lambda s: s.kind), Scope.STEP),
    _us("CI_STEP_URL", "page of the step's log", _step(lambda s: s.url), Scope.STEP),
    _run("CI_STEP_STARTED", "when the step started, in seconds since 1970"),
    _run("CI_OUTPUT", "a file: what the step writes into it, the steps that depend on it get as variables"),
)
_PREVIOUS = (
    _us("CI_PREV_COMMIT_SHA", "the commit that the ref named before", lambda f: _sha(f.event.before)),
    _before("COMMIT_REF", Controller.OUTSIDER, lambda p: p.event.ref),
    _before("COMMIT_REFSPEC", Controller.OUTSIDER, lambda p: _refspec(p.event)),
    _before("COMMIT_BRANCH", Controller.WRITER, lambda p: p.event.branch),
    _before("COMMIT_SOURCE_BRANCH", Controller.OUTSIDER, lambda p: p.event.source_branch),
    _before("COMMIT_TARGET_BRANCH", Controller.WRITER, lambda p: _target(p.event)),
    _before("COMMIT_URL", Controller.OUTSIDER, lambda p: p.event.link),
    _before("COMMIT_MESSAGE", Controller.OUTSIDER, lambda p: p.event.message or p.event.title),
    _before("COMMIT_TIMESTAMP", Controller.OUTSIDER, lambda p: _number(p.event.timestamp_seconds)),
    _before("COMMIT_AUTHOR", Controller.OUTSIDER, lambda p: p.event.author),
    _before("COMMIT_AUTHOR_EMAIL", Controller.OUTSIDER, lambda p: p.event.author_email),
    _later("CI_PREV_COMMIT_AUTHOR_AVATAR"),
    _before("PIPELINE_NUMBER", Controller.US, lambda p: str(p.number)),
    _before("PIPELINE_PARENT", Controller.US, lambda p: _number(p.parent_number)),
    _before("PIPELINE_EVENT", Controller.US, lambda p: p.event.kind.value),
    _before("PIPELINE_EVENT_REASON", Controller.OUTSIDER, lambda p: p.event.action),
    _before("PIPELINE_URL", Controller.US, lambda p: p.url),
    _before("PIPELINE_FORGE_URL", Controller.OUTSIDER, lambda p: p.event.link),
    _before("PIPELINE_DEPLOY_TARGET", Controller.WRITER, lambda p: p.event.deploy_target),
    _before("PIPELINE_DEPLOY_TASK", Controller.WRITER, lambda p: p.event.deploy_task),
    _before("PIPELINE_STATUS", Controller.US, lambda p: p.status),
    _before("PIPELINE_CREATED", Controller.US, lambda p: _number(p.created_at_seconds)),
    _before("PIPELINE_STARTED", Controller.US, lambda p: _number(p.started_at_seconds)),
    _before("PIPELINE_FINISHED", Controller.US, lambda p: _number(p.finished_at_seconds)),
    _before("PIPELINE_AUTHOR", Controller.OUTSIDER, lambda p: p.event.sender or p.event.author),
    _later("CI_PREV_PIPELINE_AVATAR"),
)

#: Every variable that we set or know of, by name, in the order of the documentation.
TABLE: Mapping[str, Variable] = {
    variable.name: variable for variable in (*_SYSTEM, *_REPO, *_COMMIT, *_BUILD, *_JOB_AND_STEP, *_PREVIOUS)
}


def made(facts: Facts, scope: Scope) -> dict[str, str]:
    """The variables of `scope` that have a value; what is empty is not set."""
    values = {
        variable.name: bounded(variable.make(facts)) for variable in TABLE.values() if variable.scope is scope
    }
    return {name: value for name, value in values.items() if value}


def step_variables(facts: Facts, step: StepFacts) -> dict[str, str]:
    """The variables of one step of the job."""
    return made(replace(facts, step=step), Scope.STEP)


_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def run_variables(
    *, has_failed: bool, job_started_at: float, step_started_at: float, machine: str, architecture: str
) -> dict[str, str]:
    """The variables that only the runner knows, when a step starts. Times are seconds since 1970;
    `architecture` is the kernel's word."""
    found = {
        "CI_PIPELINE_STATUS": "failure" if has_failed else "success",
        "CI_PIPELINE_STARTED": str(int(job_started_at)),
        "CI_STEP_STARTED": str(int(step_started_at)),
        "CI_MACHINE": bounded(machine),
        "CI_OUTPUT": OUTPUT_FILE,
        "CI_SYSTEM_PLATFORM": f"linux/{_ARCHITECTURES.get(architecture, architecture)}",
    }
    return {name: value for name, value in found.items() if value}


def given(event: Event) -> dict[str, str]:
    """What the person who started the build gave; never under a name of ours."""
    return {
        name: bounded(value)
        for name, value in event.variables.items()
        if _GIVEN_NAME.match(name) and name != "CI" and not name.startswith("CI_")
    }


def bounded(value: str) -> str:
    """`value` as a variable can carry it: without NUL, UTF-8, at most MAX_VALUE_BYTES."""
    raw = value.replace("\0", "").encode(errors="replace")
    return raw[:MAX_VALUE_BYTES].decode(errors="ignore")
