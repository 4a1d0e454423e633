"""The page's answer, in words: what failed and the lines that say so, or why it waits. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ci.server.models import Job, Step
from ci.status import Outcome, Status
from web import ansi
from web.log_text import Window

CONTEXT_LINES = 3
TAIL_LINES = 8
MAX_CHARACTERS = 500

#: What a line that tells of an error looks like; cheap, and right often enough to be worth looking at.
_ERROR = re.compile(
    r"\berror\b[:\[ (]|\b\w*(?:Error|Exception)\b[:( ]|^E  +\S|^error\b|\bfatal:|\bFAILED\b|^FAIL\b|--- FAIL"
    r"|^Traceback |\bpanic(?:ked at|:)|npm ERR!|##\[error\]|::error|command not found|not found$"
    r"|No such file or directory|Permission denied|Segmentation fault"
    r"|\bassertion .*failed|undefined reference",
    re.IGNORECASE,
)
_NO_ERROR = re.compile(r"\b0 errors?\b|errors?[:=] ?0\b|\bno errors?\b|-Werror", re.IGNORECASE)

_EXIT_WORDS = {
    126: "found the command, but it is not executable",
    127: "command not found",
    130: "interrupted",
    134: "aborted (SIGABRT)",
    137: "killed (SIGKILL)",
    139: "crashed (segmentation fault)",
    143: "terminated (SIGTERM)",
}


@dataclass(frozen=True, kw_only=True)
class Line:
    number: int
    text: str
    is_hit: bool = False


@dataclass(frozen=True, kw_only=True)
class Excerpt:
    """Groups of lines that follow each other, the decisive line marked."""

    groups: tuple[tuple[Line, ...], ...] = ()
    headline: str = ""  #: the decisive line's text, if a rule found one

    @property
    def hit(self) -> int | None:
        return next((line.number for group in self.groups for line in group if line.is_hit), None)


def excerpt(window: Window) -> Excerpt:
    """The lines of a failed step's tail that most likely say why: the first and the last that tell of
    an error, with what stands around them; else the last lines."""
    texts = [ansi.plain(line[: 4 * MAX_CHARACTERS])[:MAX_CHARACTERS].rstrip() for line in window.lines]
    hits = [at for at, text in enumerate(texts) if _ERROR.search(text) and not _NO_ERROR.search(text)]
    if not hits:
        last = [at for at, text in enumerate(texts) if text][-TAIL_LINES:]
        return Excerpt(groups=_groups(window.first, texts, last, hits=()))
    chosen = sorted({hits[0], hits[-1]})
    around = sorted({at for hit in chosen for at in _around(hit, len(texts))})
    headline = re.sub(r"^E\s+", "", texts[hits[0]].strip())
    return Excerpt(groups=_groups(window.first, texts, around, hits=chosen), headline=headline[:200])


def _around(hit: int, count: int) -> range:
    return range(max(0, hit - CONTEXT_LINES), min(count, hit + CONTEXT_LINES + 1))


def _groups(
    first: int, texts: Sequence[str], places: Sequence[int], *, hits: Sequence[int]
) -> tuple[tuple[Line, ...], ...]:
    groups: list[list[Line]] = []
    before = None
    for at in places:
        if before is None or at != before + 1:
            groups.append([])
        groups[-1].append(Line(number=first + at, text=texts[at], is_hit=at in hits))
        before = at
    return tuple(tuple(group) for group in groups)


def ended(step: Step) -> str:
    """How a step ended, as the end of a sentence that begins with its name."""
    if step.outcome == Outcome.EXIT.value and step.exit_code:
        words = _EXIT_WORDS.get(step.exit_code)
        return f"exited with {step.exit_code}" + (f": {words}" if words else "")
    return step.reason or f"{Status(step.status).word}"


def sentence(step: Step) -> str:
    """What is said above the log of a step that did not pass; empty for one that did, or has not ended."""
    status = Status(step.status)
    if status in (Status.FAILURE, Status.ERROR):
        return f"{step.name} {ended(step)}" if step.outcome == Outcome.EXIT.value else ended(step)
    if status in (Status.CANCELLED, Status.SKIPPED, Status.UNKNOWN):
        return step.reason
    return ""


def note(step: Step) -> str:
    """The short sentence in the list of steps, for one that has no bar."""
    status = Status(step.status)
    if status in (Status.SKIPPED, Status.WAITING, Status.BLOCKED, Status.UNKNOWN):
        return step.reason or {
            Status.WAITING: "waits for the steps before it",
            Status.BLOCKED: "waits for a person",
            Status.UNKNOWN: "may have run: nobody knows",
        }.get(status, "skipped")
    if status is Status.CANCELLED and step.began_after is None:
        return step.reason or "cancelled"
    if status is Status.PENDING:
        return "waits for its runner"
    return ""


def decisive(jobs: Sequence[tuple[Job, Sequence[Step]]]) -> tuple[Job, Step] | None:
    """The step that a reader wants to see first: what failed, what is unknown, what runs, what ran last."""
    every = [(job, step) for job, steps in jobs for step in steps]
    for wanted in (
        (Status.FAILURE, Status.ERROR),
        (Status.UNKNOWN,),
        (Status.RUNNING,),
    ):
        found = [pair for pair in every if Status(pair[1].status) in wanted and pair[1].kind != "service"]
        if found:
            key = {Status.RUNNING: lambda pair: -(pair[1].began_after or 0.0)}.get(
                wanted[0], lambda pair: pair[1].ended_after or 0.0
            )
            return min(found, key=key)
    ran = [pair for pair in every if pair[1].began_after is not None and pair[1].kind == "commands"]
    ran = ran or [pair for pair in every if pair[1].began_after is not None]
    return max(ran, key=lambda pair: pair[1].ended_after or 0.0, default=None) or next(iter(every), None)
