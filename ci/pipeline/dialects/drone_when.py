"""Conditions of the drone dialect: `trigger` of a pipeline and `when` of a step, as native ones.

Source: drone_strider.md 1.3. What differs from the native language, and is written out here: there a
branch is empty for a tag and the name of a schedule for every other event, so that patterns of them exclude
those events; and no event is known there but the ones of `EVENTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ci import glob
from ci.event import Kind
from ci.pipeline.dialects import rewrite
from ci.pipeline.dialects.rewrite import Entry, Rewriter, Write, dropped, named, table
from ci.pipeline.problems import Mark, shown
from ci.pipeline.yaml import Mapping, Node, Scalar, describe

#: Their events, and what they are here. A rollback has no like.
EVENTS = {
    "push": Kind.PUSH,
    "pull_request": Kind.PULL_REQUEST,
    "tag": Kind.TAG,
    "promote": Kind.DEPLOYMENT,
    "cron": Kind.CRON,
    "custom": Kind.MANUAL,
}
_ROLLBACK = "rollback"
_STATUSES = ("success", "failure")
#: A new push to a pull request: their word, and the forges'.
_SYNCHRONIZED = {"synchronized": "synchroniz*", "synchronize": "synchroniz*"}


@dataclass(frozen=True, kw_only=True)
class Patterns:
    include: tuple[Scalar, ...] = ()
    exclude: tuple[Scalar, ...] = ()

    def matches(self, text: str) -> bool:
        """As there: what is excluded does not match, and no include matches all."""
        if any(_matches(item.text, text) for item in self.exclude):
            return False
        return not self.include or any(_matches(item.text, text) for item in self.include)


def _matches(pattern: str, text: str) -> bool:
    try:
        return glob.matches(pattern, text)
    except glob.BadPattern:
        return False


def read_patterns(rewriter: Rewriter, node: Node | None, what: str) -> Patterns:
    """A pattern, a list of them, or `{include: [...], exclude: [...]}`."""
    if isinstance(node, Mapping):
        for key, _ in node.entries:
            if key.text not in ("include", "exclude"):
                rewriter.problems.warn(
                    key.mark, f"{shown(key.text)} means nothing in {what}, and is left out"
                )
        found = (_scalars(rewriter, node.by_name.get(name), what) for name in ("include", "exclude"))
        include, exclude = found
        return Patterns(include=include, exclude=exclude)
    return Patterns(include=_scalars(rewriter, node, what))


def _scalars(rewriter: Rewriter, node: Node | None, what: str) -> tuple[Scalar, ...]:
    found = []
    for item in rewrite.items(node):
        if rewrite.is_nothing(item):
            continue
        if isinstance(item, Scalar):
            found.append(item)
        else:
            rewriter.problems.error(item.mark, f"{what} is a pattern, this is {describe(item)}")
    return tuple(found)


def condition(rewriter: Rewriter, node: Node | None, mark: Mark, *, is_trigger: bool) -> Mapping | None:
    """The native condition. A trigger always names its events, for it must not match those that only others
    know; None for a step without conditions."""
    given = node if isinstance(node, Mapping) else Mapping(entries=(), mark=mark)
    if node is not None and not isinstance(node, Mapping) and not rewrite.is_nothing(node):
        rewriter.problems.error(node.mark, f"a condition is a map, this is {describe(node)}")
    entries = rewriter.rewrite(given, CONDITION)
    events, is_limited = _events(rewriter, given)
    if is_limited or is_trigger:
        entries = _with_events(entries, events, given.mark)
    return rewrite.condition(entries, given.mark) if entries else None


def _with_events(entries: list[Entry], events: Sequence[str], mark: Mark) -> list[Entry]:
    if not events:
        return [*entries, *rewrite.never(mark)]
    return [(named("event", mark), rewrite.texts(events, mark)), *entries]


def _events(rewriter: Rewriter, node: Mapping) -> tuple[list[str], bool]:
    """The native events that can meet the condition, and whether it says anything of them."""
    patterns = read_patterns(rewriter, node.by_name.get("event"), '"event"')
    _warn_of_unknown(rewriter, patterns)
    branch, cron = (
        read_patterns(rewriter, node.by_name.get(name), f'"{name}"') for name in ("branch", "cron")
    )
    found = [event for event in EVENTS if patterns.matches(event)]
    if not branch.matches(""):
        found = [event for event in found if event != "tag"]
    if not cron.matches(""):
        found = [event for event in found if event == "cron"]
    is_limited = bool(patterns.include or patterns.exclude) or len(found) < len(EVENTS)
    return [EVENTS[event].value for event in found], is_limited


def _warn_of_unknown(rewriter: Rewriter, patterns: Patterns) -> None:
    known = (*EVENTS, _ROLLBACK)
    for item in (*patterns.include, *patterns.exclude):
        if item.text == _ROLLBACK:
            message = 'there is no event "rollback" here: deploy an older build again'
            rewriter.problems.warn(item.mark, message)
        elif not any(_matches(item.text, event) for event in known):
            hint = rewriter.problems.did_you_mean(item.text, known)
            rewriter.problems.warn(item.mark, f"there is no event {shown(item.text)}: it never matches{hint}")


# --- the other keys -------------------------------------------------------------------------------------


def _globs(what: str, change: Callable[[str], str] = lambda text: text) -> Write:
    def write(rewriter: Rewriter, key: Scalar, node: Node) -> Iterable[Entry]:
        found = read_patterns(rewriter, node, f'"{what}"')
        if not found.include and not found.exclude:
            return ()
        include, exclude = (
            rewrite.texts((change(item.text) for item in part), node.mark)
            for part in (found.include, found.exclude)
        )
        if not found.exclude:
            return ((key, include),)
        parts = [("include", include)] if found.include else []
        parts.append(("exclude", exclude))
        entries = tuple((named(name, node.mark), value) for name, value in parts)
        return ((key, Mapping(entries=entries, mark=node.mark)),)

    return write


def _status(rewriter: Rewriter, key: Scalar, node: Node) -> Iterable[Entry]:
    found = read_patterns(rewriter, node, '"status"')
    words = [word for word in _STATUSES if found.matches(word)]
    if not words:
        rewriter.problems.warn(key.mark, '"status" matches neither success nor failure: it never runs')
        return rewrite.never(key.mark)
    return ((key, rewrite.texts(words, node.mark)),)


_NEVER_LOOKED_AT = "the original server never looks at it either"

CONDITION = table(
    "a condition",
    "drone_strider.md 1.3",
    {
        **{name: _globs(name) for name in ("branch", "ref", "repo", "instance", "target")},
        "cron": _globs("cron"),
        "action": _globs("action", lambda text: _SYNCHRONIZED.get(text, text)),
        "event": rewrite.silent,  # `_events` reads it, with what branch and cron say of events
        "status": _status,
        "paths": dropped(f'{_NEVER_LOOKED_AT}; write "path" in a .ci.yml'),
        "matrix": dropped(_NEVER_LOOKED_AT),
    },
)
