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
    WORD = "one word"
    WORDS = "word or list of words"
    DURATION = "duration"
    VARIABLES = "map, or list of `NAME=value`"
    TEXT_MAP = "map of text"
    CONTAINERS = "list or map"
    WHEN = "condition or list of conditions"
    PATTERNS = "pattern, list of patterns, or map with `include` and `exclude`"
    AXES = "map of lists"
    ROWS = "list of maps"
    SETTINGS = "map"
    ANYTHING = "anything"


@dataclass(frozen=True, kw_only=True)
class Key:
    name: str
    shape: Shape
    meaning: str
    words: tuple[str, ...] = ()  #: what WORD and WORDS may be
    later_words: tuple[str, ...] = ()  #: what they may be one day
    is_required: bool = False
    is_ready: bool = True


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


def _key(name: str, shape: Shape, meaning: str, *, is_required: bool = False) -> Key:
    return Key(name=name, shape=shape, meaning=meaning, is_required=is_required)


def _later(name: str, meaning: str, shape: Shape = Shape.ANYTHING) -> Key:
    return Key(name=name, shape=shape, meaning=meaning, is_ready=False)


_WHEN = _key(
    "when", Shape.WHEN, "Run only where one of these conditions matches; [When](#when) has the keys."
)

PIPELINE = _section(
    "a pipeline",
    _key(
        "steps",
        Shape.CONTAINERS,
        "The steps: a list of maps with `name`, or a map from name to step.",
        is_required=True,
    ),
    _key("services", Shape.CONTAINERS, "Containers that run beside the steps, such as a database."),
    _WHEN,
    _key("matrix", Shape.AXES, "Run the pipeline once for each combination; see [Matrix](#matrix)."),
    _key("labels", Shape.TEXT_MAP, "Only a runner with all of these labels takes the job."),
    _key("skip_clone", Shape.FLAG, "`true`: start with an empty workspace."),
    _key("variables", Shape.ANYTHING, "A place for YAML anchors; ignored."),
    _key("$schema", Shape.TEXT, "For editors; ignored."),
    _later("clone", "A clone with an image of its own."),
    _later("depends_on", "Wait for other pipelines of the build."),
    _later("concurrency", "How many jobs of a group may run at the same time."),
    _later("workspace", "Another folder for the workspace."),
    _later("runs_on", "Old name of `when.status`."),
    _later("include", "Parts of other files."),
    _later("inputs", "Values that a person gives to a manual build."),
    _later("timeout", "How long the whole job may take."),
    _later("retry", "Run a job again that fails."),
    _later("cache", "Folders that are kept between builds."),
    _later("artifacts", "Files that are kept with the build."),
    _later("reports", "Test reports that the build page shows."),
    _later("environment", "Variables of every step."),
)

_IMAGE = _key("image", Shape.TEXT, "The image that the container is made of.", is_required=True)
_ENVIRONMENT = _key(
    "environment",
    Shape.VARIABLES,
    "Variables of the container. Values keep their text: `1.10` is `1.10`. A value "
    "`{from_secret: NAME}` is a secret's.",
)
_FAILURE = Key(
    name="failure",
    shape=Shape.WORD,
    meaning="`ignore`: the job goes on, and can succeed, although this fails.",
    words=("fail", "ignore"),
    later_words=("cancel",),
)
_CONTAINER_LATER = (
    _later("pull", "Look for a newer image each time."),
    _later("entrypoint", "What the container starts instead of a shell."),
    _later("directory", "Folder in which the commands run."),
    _later("volumes", "Folders of the machine; an admin must allow it."),
    _later("privileged", "All rights; an admin must allow it."),
    _later("dns", "Name servers; an admin must allow it."),
    _later("dns_search", "Search domains; an admin must allow it."),
    _later("extra_hosts", "Lines for `/etc/hosts`; an admin must allow it."),
    _later("network_mode", "Another network; an admin must allow it."),
    _later("devices", "Devices of the machine; an admin must allow it."),
    _later("tmpfs", "Folders in memory; an admin must allow it."),
    _later("backend_options", "Settings of one engine."),
    _later("user", "The user who runs it."),
    _later("shell", "Another shell."),
    _later("memory", "How much memory it may use."),
    _later("cpus", "How much of the processors it may use."),
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
        Shape.TEXTS,
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
    *_CONTAINER_LATER,
    _later("retry", "Run a step again that fails."),
    _later("cache", "Folders that are kept between builds."),
    _later("artifacts", "Files that are kept with the build."),
    _later("reports", "Test reports that the build page shows."),
    _later("outputs", "Values for later steps."),
    _later("concurrency", "How many steps of a group may run at the same time."),
)

SERVICE = _section(
    "a service",
    _key("name", Shape.TEXT, "The name of the service, which is its host name too."),
    _IMAGE,
    _key("commands", Shape.TEXTS, "Run these instead of what the image runs by itself."),
    _ENVIRONMENT,
    _WHEN,
    *_CONTAINER_LATER,
    _later("settings", "What a plugin is told."),
    _later("failure", "What a failure of it does to the job."),
    _later("ports", "Ports that it listens on."),
    _later("ready", "How to tell that it is ready."),
)

CONDITION = _section(
    "a condition",
    Key(
        name="event",
        shape=Shape.WORDS,
        meaning="What happened.",
        words=tuple(kind.value for kind in Kind),
        later_words=("deployment", "pull_request_metadata"),
    ),
    _key("branch", Shape.PATTERNS, "The branch; of a pull request its target. Not looked at for a tag."),
    _key("ref", Shape.PATTERNS, "The full ref, such as `refs/tags/v1`."),
    _key(
        "path",
        Shape.PATTERNS,
        "The changed files of a push or a pull request: one of them matches, and not all are excluded.",
    ),
    Key(
        name="status",
        shape=Shape.WORDS,
        meaning="How the steps before it ended. Without it: `success`.",
        words=("success", "failure"),
    ),
    _later("repo", "The path of the repo."),
    _later("instance", "The host of the server."),
    _later("platform", "The platform of the runner."),
    _later("cron", "The name of the cron."),
    _later("matrix", "Values of the matrix."),
    _later("evaluate", "An expression."),
    _later("local", "Only in `shipway exec`."),
)

_INCLUDE = _key("include", Shape.TEXTS, "One of these must match.")
_EXCLUDE = _key("exclude", Shape.TEXTS, "None of these may match.")
PATTERNS = _section("patterns", _INCLUDE, _EXCLUDE)
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

#: In the order of the documentation.
SECTIONS = (PIPELINE, STEP, SERVICE, CONDITION, PATTERNS, PATHS, MATRIX)


def table(section: Section) -> str:
    """The section as docs/reference/pipeline.md shows it."""
    rows = ["| key | takes | meaning |", "|---|---|---|"]
    for key in section.ready:
        words = ": " + ", ".join(f"`{word}`" for word in key.words) if key.words else ""
        required = " **Required.**" if key.is_required else ""
        rows.append(f"| `{key.name}` | {key.shape.value}{words} | {key.meaning}{required} |")
    later = [f"`{key.name}`" for key in section.keys.values() if not key.is_ready]
    later += [f"`{key.name}: {word}`" for key in section.ready for word in key.later_words]
    if later:
        rows += ["", f"Not yet: {', '.join(later)}."]
    return "\n".join(rows)
