"""When: does something run for this event? Decided when the build is made, but for `status`.

A result is a Verdict, whose reason a person can read (law 10).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ci import glob
from ci.event import Event, Kind
from ci.pipeline.expression import BadExpression
from ci.pipeline.expression import parse as parse_expression
from ci.pipeline.model import SUCCESS, Condition, Paths, Patterns, Values, When
from ci.pipeline.problems import shown
from ci.spec import Wanted

#: Characters of patterns x characters of changed files. What needs more is not compared: every path filter
#: then matches, as where nobody knows the files.
MAX_COMPARED = 300_000_000


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a condition is held against: the event, and where it is decided."""

    event: Event
    repo: str = ""  #: `owner/name`
    instance: str = ""  #: the host name of the server
    platform: str = "linux/amd64"
    cell: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)  #: what an expression may name
    is_local: bool = False  #: in `shipway exec`


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`reason` says why not, as the end of a sentence; else `statuses` says after what it runs, and `wanted`
    which outputs it waits for (one of them; none where nothing is asked)."""

    reason: str = ""
    statuses: tuple[str, ...] = SUCCESS
    wanted: tuple[Wanted, ...] = ()

    @property
    def matches(self) -> bool:
        return not self.reason


def decide(when: When, scene: Scene) -> Verdict:
    """Raises BadExpression for an expression that cannot be decided."""
    if not when.conditions:
        return Verdict()
    reasons = [_mismatch(condition, scene) for condition in when.conditions]
    met = [condition for condition, reason in zip(when.conditions, reasons, strict=True) if not reason]
    if not met:
        return Verdict(reason="; and ".join(dict.fromkeys(reasons)))
    words = {status for condition in met for status in condition.statuses}
    statuses = tuple(status for status in ("success", "failure") if status in words)
    has_outputs = any(condition.outputs for condition in met)
    wanted = tuple(Wanted(run_on=each.statuses, outputs=dict(each.outputs)) for each in met if has_outputs)
    return Verdict(statuses=statuses, wanted=wanted)


def path_characters(when: When) -> int:
    """The length of the patterns that each changed file is compared with."""
    paths = [condition.path for condition in when.conditions if condition.path]
    return sum(len(pattern) for path in paths for pattern in (*path.include, *path.exclude))


def substituted(when: When, fill: Callable[[str], str], plain: Callable[[str], str]) -> When:
    """The same conditions, each pattern put through `fill`, and each expression through `plain`."""
    return When(conditions=tuple(_substituted(condition, fill, plain) for condition in when.conditions))


def _substituted(condition: Condition, fill: Callable[[str], str], plain: Callable[[str], str]) -> Condition:
    def values(found: Values) -> Values:
        return tuple((name, tuple(map(fill, patterns))) for name, patterns in found)

    def patterns(found: Patterns) -> Patterns:
        return Patterns(include=tuple(map(fill, found.include)), exclude=tuple(map(fill, found.exclude)))

    path = condition.path and replace(
        condition.path,
        include=tuple(map(fill, condition.path.include)),
        exclude=tuple(map(fill, condition.path.exclude)),
    )
    return replace(
        condition,
        patterns={name: patterns(found) for name, found in condition.patterns.items()},
        path=path,
        matrix=values(condition.matrix),
        outputs=values(condition.outputs),
        evaluate=plain(condition.evaluate),
    )


def has_references(when: When) -> bool:
    return any("$" in text for condition in when.conditions for text in _texts(condition))


def _texts(condition: Condition) -> Sequence[str]:
    texts = [text for each in condition.patterns.values() for text in (*each.include, *each.exclude)]
    texts += [*condition.path.include, *condition.path.exclude] if condition.path else []
    texts += [text for _, patterns in (*condition.matrix, *condition.outputs) for text in patterns]
    return (*texts, condition.evaluate)


def depends_on_cell(when: When) -> bool:
    """Whether its verdict may differ from one cell of a matrix to another."""
    return has_references(when) or any(each.matrix or each.evaluate for each in when.conditions)


def _mismatch(condition: Condition, scene: Scene) -> str:
    """Why the event does not meet the condition; empty if it does."""
    return next((reason for check in _CHECKS if (reason := check(condition, scene))), "")


def _event(condition: Condition, scene: Scene) -> str:
    words, kind = condition.events, scene.event.kind
    if words is None:
        return ""
    if kind in words.exclude:
        return f"it does not run on {_either(words.exclude)}, and this is {_a(kind)}"
    if not words.include or kind in words.include:
        return ""
    return f"it runs on {_either(words.include)}, and this is {_a(kind)}"


def _patterns(condition: Condition, scene: Scene) -> str:
    for name, patterns in condition.patterns.items():
        what, value = _VALUES[name]
        text = value(scene)
        if text is not None and not _fits(patterns, text):
            this = f"this is {shown(text)}" if text else f"this has no {what}"
            return f"it runs on {what} {_wish(patterns)}, and {this}"
    return ""


def _branch_of(scene: Scene) -> str | None:
    """A tag has none; a release may know that of its commit."""
    event = scene.event
    return (
        event.branch
        if event.kind is not Kind.TAG and (event.kind is not Kind.RELEASE or event.branch)
        else None
    )


def _cron_of(scene: Scene) -> str | None:
    """A condition of other events too is not held against them."""
    return scene.event.cron if scene.event.kind is Kind.CRON else None


#: Key -> what it is called, and its value for this event; None where it is not looked at.
_VALUES: Mapping[str, tuple[str, Callable[[Scene], str | None]]] = {
    "branch": ("branch", _branch_of),
    "ref": ("ref", lambda scene: scene.event.ref),
    "tag": ("tag", lambda scene: scene.event.tag),
    "repo": ("repo", lambda scene: scene.repo),
    "cron": ("schedule", _cron_of),
    "target": ("target", lambda scene: scene.event.deploy_target),
    "action": ("action", lambda scene: scene.event.action),
    "instance": ("server", lambda scene: scene.instance),
    "platform": ("platform", lambda scene: scene.platform),
}


def _local(condition: Condition, scene: Scene) -> str:
    if condition.local is None or condition.local == scene.is_local:
        return ""
    return 'it runs only in "shipway exec"' if condition.local else 'it does not run in "shipway exec"'


def _matrix(condition: Condition, scene: Scene) -> str:
    for name, patterns in condition.matrix:
        value = scene.cell.get(name, "")
        if patterns and not _any(patterns, value):
            return f"it runs where {name} is {_either(patterns)}, and here it is {shown(value)}"
    return ""


def _evaluate(condition: Condition, scene: Scene) -> str:
    source = condition.evaluate
    if not source:
        return ""
    try:
        is_true = parse_expression(source).decide(scene.variables)
    except BadExpression as error:
        raise BadExpression(f"{error} in {shown(source)}", error.offset) from error
    return "" if is_true else f"it runs where {shown(source)} is true, and it is not"


_WITH_FILES = (Kind.PUSH, Kind.PULL_REQUEST, Kind.PULL_REQUEST_CLOSED)


def _path(condition: Condition, scene: Scene) -> str:
    event = scene.event
    files = event.changed_files
    if condition.path is None or files is None or event.kind not in _WITH_FILES:
        return ""
    return _path_mismatch(condition.path, files, event.message)


def _path_mismatch(paths: Paths, files: Sequence[str], message: str) -> str:
    if paths.ignore_message and paths.ignore_message.casefold() in message.casefold():
        return ""
    if not files:
        return "" if paths.on_empty else "it runs when files change, and none did"
    if paths.include and not any(_any(paths.include, file) for file in files):
        return f"it runs when {_either(paths.include)} changes, and no changed file matches"
    if paths.exclude and all(_any(paths.exclude, file) for file in files):
        return f"every changed file is excluded by {_either(paths.exclude)}"
    return ""


_CHECKS: tuple[Callable[[Condition, Scene], str], ...] = (
    *(_event, _patterns, _path, _local, _matrix, _evaluate),
)


def _fits(patterns: Patterns, text: str) -> bool:
    if _any(patterns.exclude, text):
        return False
    return not patterns.include or _any(patterns.include, text)


def _any(patterns: Sequence[str], text: str) -> bool:
    return any(glob.matches(pattern, text) for pattern in patterns)


def _wish(patterns: Patterns) -> str:
    words = [_either(patterns.include)] if patterns.include else []
    words += [f"not {_either(patterns.exclude)}"] if patterns.exclude else []
    return ", ".join(words)


def _either(names: Sequence[str]) -> str:
    few = [shown(name) for name in names[:5]]
    if len(names) > 5:
        few.append(f"{len(names) - 5} more")
    return few[0] if len(few) == 1 else f"{', '.join(few[:-1])} or {few[-1]}"


def _a(kind: Kind) -> str:
    return f'a "{kind.value}"'
