"""What an exit code says that is not a program's own choice, in words. Pure."""

from __future__ import annotations

from ci.status import Outcome
from runners.engines.base import Exit

_SIGNALS = {
    1: "hung up (SIGHUP)",
    2: "interrupted (SIGINT)",
    4: "ended by an illegal instruction (SIGILL)",
    6: "aborted (SIGABRT)",
    7: "ended by a bus error (SIGBUS)",
    8: "ended by an arithmetic error (SIGFPE)",
    9: "killed (SIGKILL)",
    11: "ended by a segmentation fault (SIGSEGV)",
    13: "ended by a closed pipe (SIGPIPE)",
    15: "ended by SIGTERM",
}


def in_words(code: int) -> str:
    """A sentence for an exit code other than 0."""
    if code == 126:
        return (
            "exited with 126: a command was found but cannot be executed; is it executable, and for this CPU?"
        )
    if code == 127:
        return "exited with 127: a command was not found in this image"
    if code - 128 in _SIGNALS:
        return f"exited with {code}: {_SIGNALS[code - 128]}"
    return f"exited with {code}"


def own_exit(code: int) -> Exit:
    """The step ended by itself, or by a signal that is not explained by more than its number."""
    return Exit(code=code, outcome=Outcome.EXIT, reason=in_words(code) if code else "")


def never_started() -> Exit:
    return Exit(code=None, outcome=Outcome.CANCELLED, reason="stopped before it started")
