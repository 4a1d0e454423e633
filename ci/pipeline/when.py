"""When: does something run for this event? Decided when the build is made, but for `status`.

A result is a Verdict, whose reason a person can read (law 10).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ci.event import Event, Kind
from ci.pipeline import glob
from ci.pipeline.model import SUCCESS, Condition, Paths, Patterns, When
from ci.pipeline.problems import shown

#: Characters of patterns x characters of changed files. What needs more is not compared: every path filter
#: then matches, as where nobody knows the files.
MAX_COMPARED = 300_000_000


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`reason` says why not, as the end of a sentence; `statuses` after what it runs, if it does."""

    reason: str = ""
    statuses: tuple[str, ...] = SUCCESS

    @property
    def matches(self) -> bool:
        return not self.reason


def decide(when: When, event: Event) -> Verdict:
    if not when.conditions:
        return Verdict()
    reasons = [_mismatch(condition, event) for condition in when.conditions]
    met = [condition for condition, reason in zip(when.conditions, reasons, strict=True) if not reason]
    if not met:
        return Verdict(reason="; and ".join(dict.fromkeys(reasons)))
    wanted = {status for condition in met for status in condition.statuses}
    return Verdict(statuses=tuple(status for status in ("success", "failure") if status in wanted))


def path_characters(when: When) -> int:
    """The length of the patterns that each changed file is compared with."""
    paths = [condition.path for condition in when.conditions if condition.path]
    return sum(len(pattern) for path in paths for pattern in (*path.include, *path.exclude))


def substituted(when: When, fill: Callable[[str], str]) -> When:
    """The same conditions, each pattern put through `fill`."""
    return When(conditions=tuple(_substituted(condition, fill) for condition in when.conditions))


def _substituted(condition: Condition, fill: Callable[[str], str]) -> Condition:
    def patterns(found: Patterns | None) -> Patterns | None:
        return found and Patterns(
            include=tuple(map(fill, found.include)), exclude=tuple(map(fill, found.exclude))
        )

    path = condition.path and replace(
        condition.path,
        include=tuple(map(fill, condition.path.include)),
        exclude=tuple(map(fill, condition.path.exclude)),
    )
    return replace(condition, branch=patterns(condition.branch), ref=patterns(condition.ref), path=path)


def has_references(when: When) -> bool:
    found = [
        pattern
        for condition in when.conditions
        for patterns in (condition.branch, condition.ref, condition.path)
        if patterns is not None
        for pattern in (*patterns.include, *patterns.exclude)
    ]
    return any("$" in pattern for pattern in found)


def _mismatch(condition: Condition, event: Event) -> str:
    """Why the event does not meet the condition; empty if it does."""
    checks: tuple[Callable[[Condition, Event], str], ...] = (_event, _branch, _ref, _path)
    return next((reason for check in checks if (reason := check(condition, event))), "")


def _event(condition: Condition, event: Event) -> str:
    if not condition.events or event.kind in condition.events:
        return ""
    return f"it runs on {_either(condition.events)}, and this is {_a(event.kind)}"


def _branch(condition: Condition, event: Event) -> str:
    has_no_branch = event.kind is Kind.TAG or (event.kind is Kind.RELEASE and not event.branch)
    if condition.branch is None or has_no_branch or _fits(condition.branch, event.branch):
        return ""
    return f"it runs on branch {_wish(condition.branch)}, and this is {shown(event.branch)}"


def _ref(condition: Condition, event: Event) -> str:
    if condition.ref is None or _fits(condition.ref, event.ref):
        return ""
    return f"it runs on ref {_wish(condition.ref)}, and this is {shown(event.ref)}"


_WITH_FILES = (Kind.PUSH, Kind.PULL_REQUEST, Kind.PULL_REQUEST_CLOSED)


def _path(condition: Condition, event: Event) -> str:
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
