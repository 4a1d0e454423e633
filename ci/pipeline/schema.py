"""The one schema of the language: which keys stand where, what they take, and which are not there yet.

The parser's types, the tables of docs/reference/pipeline.md and the JSON Schema for editors come from
here. A key of the complete language that this version does not have yet is listed with `is_ready=False`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from ci.event import Kind


class Shape(StrEnum):
    """What a key takes, in the words of the documentation."""

    TEXT = "text"
    TEXTS = "text or list of text"
    FLAG = "true or false"
    NUMBER = "whole number"
    NUMBERS = "whole number or list of them"
    AMOUNT = "number"
    SIZE = "size, such as `512m` or `2g`"
    WORD = "one word"
    WORDS = "word or list of words"
    DURATION = "duration"
    VARIABLES = "map, or list of `NAME=value`"
    TEXT_MAP = "map of text"
    TEXTS_MAP = "map of text or lists of text"
    CONTAINERS = "list or map"
    NEEDS = "name, or list of names and of maps with `name` and `optional`"
    WHEN = "condition or list of conditions"
    EVENTS = "event, list of events, or map with `include` and `exclude`"
    PATTERNS = "pattern, list of patterns, or map with `include` and `exclude`"
    AXES = "map of lists"
    ROWS = "list of maps"
    SETTINGS = "map"
    RETRY = "number of runs, or map"
    READY = "port, command, or map"
    MOUNTS = "list of `volume:/path`, `/host:/path` or maps"
    DEVICES = "list of `/device` or `/device:/in/the/container`"
    VOLUMES = "map, or list of names"
    CLONE = "map, or list or map of containers"
    WORKSPACE = "path, or map"
    CONCURRENCY = "number, group, or map"
    PULL = "true, false or one word"
    INPUTS = "map"
    INCLUDES = "path, map, or a list of them"
    BACKEND = "map"
    ANYTHING = "anything"


@dataclass(frozen=True, kw_only=True)
class Key:
    name: str
    shape: Shape
    meaning: str
    words: tuple[str, ...] = ()  #: what WORD and WORDS may be
    is_required: bool = False
    is_ready: bool = True
    instead: str = ""  #: of a key that is out of use: what to write


@dataclass(frozen=True, kw_only=True)
class Section:
    """The keys of one kind of map. `title` is how messages call such a map."""

    title: str
    keys: Mapping[str, Key]

    @property
    def ready(self) -> tuple[Key, ...]:
        return tuple(key for key in self.keys.values() if key.is_ready)


def _section(title: str, *keys: Key) -> Section:
    return Section(title=title, keys=MappingProxyType({key.name: key for key in keys}))


def _key(name: str, shape: Shape, meaning: str, *, is_required: bool = False, instead: str = "") -> Key:
    return Key(name=name, shape=shape, meaning=meaning, is_required=is_required, instead=instead)


def _later(name: str, meaning: str, shape: Shape = Shape.ANYTHING) -> Key:
    return Key(name=name, shape=shape, meaning=meaning, is_ready=False)


_WHEN = _key(
    "when", Shape.WHEN, "Run only where one of these conditions matches; [When](#when) has the keys."
)
_LATER = (
    _later("cache", "Folders that are kept between builds."),
    _later("artifacts", "Files that are kept with the build."),
    _later("reports", "Test reports that the build page shows."),
)
_ENVIRONMENT = _key(
    "environment",
    Shape.VARIABLES,
    "Variables of the container. Values keep their text: `1.10` is `1.10`. A value "
    "`{from_secret: NAME}` is a secret's.",
)

#: How what was waited for may have ended.
STATUSES = ("success", "failure")

PIPELINE = _section(
    "a pipeline",
    _key(
        "steps",
        Shape.CONTAINERS,
        "The steps: a list of maps with `name`, or a map from name to step.",
        is_required=True,
    ),
    _key("services", Shape.CONTAINERS, "Containers that run beside the steps, such as a database."),
    _key("name", Shape.TEXT, "What the pipeline is called; without it, its file's name."),
    _WHEN,
    _key(
        "depends_on",
        Shape.NEEDS,
        "Pipelines of the same build that must have ended before this one starts, by name.",
    ),
    _key("matrix", Shape.AXES, "Run the pipeline once for each combination; see [Matrix](#matrix)."),
    _key("labels", Shape.TEXT_MAP, "Only a runner with all of these labels takes the job."),
    _key("environment", Shape.VARIABLES, "Variables of every step and service; a plugin gets none of them."),
    _key("timeout", Shape.DURATION, "How long a job of it may take; the repo's setting is the most."),
    _key(
        "concurrency",
        Shape.CONCURRENCY,
        "How many jobs of a group run at the same time; see [Concurrency](#concurrency).",
    ),
    _key("clone", Shape.CLONE, "How the workspace is filled; see [Clone](#clone)."),
    _key("skip_clone", Shape.FLAG, "`true`: start with an empty workspace."),
    _key(
        "workspace",
        Shape.WORKSPACE,
        "Where the workspace lies in the containers; see [Workspace](#workspace).",
    ),
    _key("volumes", Shape.VOLUMES, "Folders that the steps of a job share; see [Volumes](#volumes)."),
    _key(
        "pull_secrets",
        Shape.TEXTS,
        "Secrets that hold a Docker `config.json` with the credentials of registries.",
    ),
    _key("inputs", Shape.INPUTS, "Values that a person gives to a build by hand; see [Inputs](#inputs)."),
    _key("include", Shape.INCLUDES, "Files with parts of the pipeline; see [Include](#include)."),
    Key(
        name="runs_on",
        shape=Shape.WORDS,
        meaning="How the pipelines that it depends on ended, as in `when.status`.",
        words=STATUSES,
        instead='a condition "status" in "when"',
    ),
    _key("variables", Shape.ANYTHING, "A place for YAML anchors; ignored."),
    _key("$schema", Shape.TEXT, "For editors; ignored."),
    *_LATER,
)
_IMAGE = _key("image", Shape.TEXT, "The image that the container is made of.", is_required=True)
_FAILURE = Key(
    name="failure",
    shape=Shape.WORD,
    meaning="What a failure does. `ignore`: the job goes on, and can succeed. `stop`: what still runs of the "
    "job is stopped. `cancel`: the other jobs of the build are cancelled too.",
    words=("fail", "ignore", "stop", "cancel"),
)
_CONTAINER = (
    _key("entrypoint", Shape.TEXTS, "What the container starts instead of what its image says."),
    _key("arguments", Shape.TEXTS, "What the entrypoint is given, instead of what the image says."),
    _key("directory", Shape.TEXT, "Where it starts: a path in the workspace, or an absolute one."),
    _key("user", Shape.TEXT, "Who runs it: a name or number, and a group after a colon."),
    Key(
        name="pull",
        shape=Shape.PULL,
        meaning="When the registry is asked for the image. `true` is `always`; without it `missing`.",
        words=("always", "missing", "never"),
    ),
    _key(
        "environment_file", Shape.TEXTS, "Files of the workspace with lines `NAME=value`, read at its start."
    ),
    _key(
        "volumes",
        Shape.MOUNTS,
        "Volumes of the pipeline, and (an admin must allow it) folders of the machine.",
    ),
    _key("memory", Shape.SIZE, "How much memory it may use at most."),
    _key("cpus", Shape.AMOUNT, "How many processors it may use at most, such as `0.5`."),
    _key("privileged", Shape.FLAG, "`true`: all rights on the machine; an admin must allow it."),
    _key("dns", Shape.TEXTS, "Name servers; an admin must allow it."),
    _key("dns_search", Shape.TEXTS, "Search domains; an admin must allow it."),
    _key("extra_hosts", Shape.TEXTS, "Lines `name:address` for `/etc/hosts`; an admin must allow it."),
    _key("network_mode", Shape.TEXT, "Another network; an admin must allow it, but for `none`."),
    _key("devices", Shape.DEVICES, "Devices of the machine; an admin must allow it."),
    _key("tmpfs", Shape.TEXTS, "Paths of folders in memory; an admin must allow it."),
    _key("shm_size", Shape.SIZE, "Size of `/dev/shm`; an admin must allow it."),
    _key(
        "backend_options",
        Shape.BACKEND,
        "Settings of one engine: `docker.user` is `user`, others are left out.",
    ),
)

STEP = _section(
    "a step",
    _key("name", Shape.TEXT, "The name of the step; in the map form the key is the name."),
    _IMAGE,
    _key(
        "commands",
        Shape.TEXTS,
        "What the image's shell runs, one after the other, up to the first that fails. Without it the "
        "image runs what it is made to run: a [plugin](#plugins).",
    ),
    _key("settings", Shape.SETTINGS, "What a plugin is told; see [Plugins](#plugins)."),
    _ENVIRONMENT,
    _key(
        "depends_on",
        Shape.NEEDS,
        "The steps that must have ended before this one starts; `[]`: start at once.",
    ),
    _WHEN,
    _FAILURE,
    _key("detach", Shape.FLAG, "`true`: the next steps do not wait for its end, only for its start."),
    _key(
        "deploy",
        Shape.FLAG,
        "`true`: it changes something outside. It is never run a second time by itself. Without it: `true` "
        "for a plugin, else `false`.",
    ),
    _key(
        "timeout", Shape.DURATION, "How long it may take: `90`, `10m`, `1h30m`. Then it is killed and fails."
    ),
    _key("no_output_timeout", Shape.DURATION, "How long it may print nothing. Then it is killed and fails."),
    _key("retry", Shape.RETRY, "Run it again when it fails; see [Retry](#retry)."),
    _key(
        "stop_on_exit",
        Shape.NUMBERS,
        "Exit codes that end the job here: what comes after is skipped, and the job succeeds.",
    ),
    *_CONTAINER,
    *_LATER,
)

SERVICE = _section(
    "a service",
    _key("name", Shape.TEXT, "The name of the service, which is its host name too."),
    _IMAGE,
    _key("commands", Shape.TEXTS, "Run these instead of what the image runs by itself."),
    _key("settings", Shape.SETTINGS, "Given as `PLUGIN_` variables, as to a plugin."),
    _ENVIRONMENT,
    _key("depends_on", Shape.NEEDS, "Steps and services that it waits for; without it, it starts at once."),
    _WHEN,
    _key("failure", Shape.WORD, "Taken and left out: the failure of a service is shown and fails no job."),
    _key("ready", Shape.READY, "How to tell that it is ready; steps wait for it. See [Ready](#ready)."),
    _key("ports", Shape.ANYTHING, "Taken and left out: a service is reached at every port."),
    *_CONTAINER,
)

CONDITION = _section(
    "a condition",
    Key(
        name="event",
        shape=Shape.EVENTS,
        meaning="What happened.",
        words=tuple(kind.value for kind in Kind),
    ),
    _key("branch", Shape.PATTERNS, "The branch; of a pull request its target. Not looked at for a tag."),
    _key("ref", Shape.PATTERNS, "The full ref, such as `refs/tags/v1`."),
    _key("tag", Shape.PATTERNS, "The name of the tag; only a tag or a release has one."),
    _key("repo", Shape.PATTERNS, "The path of the repo: `owner/name`."),
    _key(
        "path",
        Shape.PATTERNS,
        "The changed files of a push or a pull request: one of them matches, and not all are excluded.",
    ),
    Key(
        name="status",
        shape=Shape.WORDS,
        meaning="How the steps before it ended; of a pipeline, how the pipelines did that it depends on. "
        "Without it: `success`.",
        words=STATUSES,
    ),
    _key("cron", Shape.PATTERNS, "The name of the schedule; another event than `cron` has none and matches."),
    _key("target", Shape.PATTERNS, "The environment that a deployment is for."),
    _key(
        "action", Shape.PATTERNS, "What happened to a pull request or a release: `opened`, `published`, ..."
    ),
    _key("instance", Shape.PATTERNS, "The host name of the server."),
    _key("platform", Shape.PATTERNS, "The label `platform` of the pipeline, without it `linux/amd64`."),
    _key("matrix", Shape.TEXTS_MAP, "Values of the matrix: each name has one of its values (globs)."),
    _key("evaluate", Shape.TEXT, "An [expression](expressions.md) that is true."),
    _key(
        "outputs",
        Shape.TEXTS_MAP,
        "Values that earlier steps have put out: each name has one of its values (globs). Only of a step.",
    ),
    _key("local", Shape.FLAG, "`true`: only in `shipway exec`; `false`: only on a server."),
)

_INCLUDE = _key("include", Shape.TEXTS, "One of these must match.")
_EXCLUDE = _key("exclude", Shape.TEXTS, "None of these may match.")
PATTERNS = _section("patterns", _INCLUDE, _EXCLUDE)
EVENTS = _section(
    "events",
    Key(name="include", shape=Shape.WORDS, meaning="One of these.", words=CONDITION.keys["event"].words),
    Key(name="exclude", shape=Shape.WORDS, meaning="None of these.", words=CONDITION.keys["event"].words),
)
PATHS = _section(
    "path patterns",
    _INCLUDE,
    _key("exclude", Shape.TEXTS, "Does not match where each changed file matches one of these."),
    _key("ignore_message", Shape.TEXT, "Matches where this stands in the commit message."),
    _key("on_empty", Shape.FLAG, "What an event that changes no file gives; without it `true`."),
)
MATRIX = _section(
    "a matrix",
    _key("include", Shape.ROWS, "Combinations to add."),
    _key("exclude", Shape.ROWS, "Combinations to leave out: those that have all of these values."),
)
NEED = _section(
    "a dependency",
    _key("name", Shape.TEXT, "What is waited for.", is_required=True),
    _key("optional", Shape.FLAG, "`true`: it need not exist, or may be left out of the build."),
)
RETRY = _section(
    "a retry",
    _key("attempts", Shape.NUMBER, "How often it runs at most: 2 to 10.", is_required=True),
    _key("pause", Shape.DURATION, "How long to wait before the second run; doubled before each further one."),
    Key(
        name="on",
        shape=Shape.WORD,
        meaning="`failure`: whatever it ended by. `error`: only what was the machine's or our fault.",
        words=("failure", "error"),
    ),
)
READY = _section(
    "a readiness",
    _key("port", Shape.NUMBER, "Ready when it takes a TCP connection at this port."),
    _key("command", Shape.TEXT, "Ready when this command, run in the service by its shell, ends with 0."),
    _key("interval", Shape.DURATION, "How often to look; without it every second."),
    _key("timeout", Shape.DURATION, "How long to wait at most; without it a minute. Then it is an error."),
)
VOLUME = _section(
    "a volume",
    _key("memory", Shape.FLAG, "`true`: it lies in memory; an admin must allow it."),
    _key("size", Shape.SIZE, "How large a volume in memory may get."),
)
MOUNT = _section(
    "a mount",
    _key("volume", Shape.TEXT, "The name of a volume of the pipeline."),
    _key("host", Shape.TEXT, "Or an absolute path on the machine; an admin must allow it."),
    _key("path", Shape.TEXT, "Where it lies in the container.", is_required=True),
    _key("read_only", Shape.FLAG, "`true`: the container cannot write to it."),
)
CLONE = _section(
    "a clone",
    _key("depth", Shape.NUMBER, "How many commits; 0 is all. Without it, as the repo's setting says."),
    _key("tags", Shape.FLAG, "`true`: all tags too."),
)
WORKSPACE = _section(
    "a workspace",
    _key("base", Shape.TEXT, "Where the workspace is mounted: an absolute path."),
    _key("path", Shape.TEXT, "The folder in it that is cloned into and that commands run in."),
)
CONCURRENCY = _section(
    "a concurrency",
    _key("group", Shape.TEXT, "Its name, in the repo; without it, the pipeline's name."),
    _key("limit", Shape.NUMBER, "How many of its jobs run at the same time; without it 1."),
    _key("cancel", Shape.FLAG, "`true`: a newer job cancels the older ones instead of waiting for them."),
)

#: In the order of the documentation.
INPUT = _section(
    "an input",
    Key(
        name="type",
        shape=Shape.WORD,
        meaning="What it takes; without it, any text.",
        words=("text", "number", "flag", "choice"),
    ),
    _key("default", Shape.TEXT, "Its value where none is given, and for every other event."),
    _key("options", Shape.TEXTS, "The values of a `choice`."),
    _key("required", Shape.FLAG, "`true`: a build by hand needs one, if it has no default."),
    _key("description", Shape.TEXT, "What it is for."),
)
INCLUDE = _section(
    "an include",
    _key("file", Shape.TEXT, "The path of the file from the root of its repo.", is_required=True),
    _key("repo", Shape.TEXT, "`OWNER/NAME` of another repo of this server; without it, the same repo."),
    _key("commit", Shape.TEXT, "The full id of a commit of that repo: 40 digits."),
)
SECTIONS = (
    *(PIPELINE, STEP, SERVICE, CONDITION, PATTERNS, EVENTS, PATHS, MATRIX, NEED, RETRY, READY),
    *(VOLUME, MOUNT, CLONE, WORKSPACE, CONCURRENCY, INPUT, INCLUDE),
)


def table(section: Section) -> str:
    """The section as docs/reference/pipeline.md shows it."""
    rows = ["| key | takes | meaning |", "|---|---|---|"]
    for key in section.ready:
        words = ": " + ", ".join(f"`{word}`" for word in key.words) if key.words else ""
        required = " **Required.**" if key.is_required else ""
        rows.append(f"| `{key.name}` | {key.shape.value}{words} | {key.meaning}{required} |")
    later = [f"`{key.name}`" for key in section.keys.values() if not key.is_ready]
    if later:
        rows += ["", f"Not yet: {', '.join(later)}."]
    return "\n".join(rows)
