"""What nobody else may see: it comes from standard input, or is asked for and not shown. Never an option."""

from __future__ import annotations

import getpass
import sys

import typer

from ci.errors import Invalid

MAX_BYTES = 64 << 10


def line(prompt: str, what: str) -> str:
    """One line. `what` names it where none came: "the token"."""
    found = getpass.getpass(prompt) if sys.stdin.isatty() else sys.stdin.readline()
    if not found.strip():
        raise Invalid(f"nothing came on standard input where {what} was expected")
    return found.strip("\r\n") if sys.stdin.isatty() else found.strip()


def text(prompt: str, what: str, *, how: str) -> str:
    """All of it, in UTF-8, its last line end included. `how`: the command that gives it."""
    if sys.stdin.isatty():
        found = getpass.getpass(prompt)
    else:
        raw = sys.stdin.buffer.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise Invalid(f"{what} has at most {MAX_BYTES >> 10} KiB")
        try:
            found = raw.decode()
        except UnicodeDecodeError as error:
            raise Invalid(
                f"{what} is text in UTF-8; encode other bytes first, as with `base64 -w0`"
            ) from error
    if not found.strip():
        raise Invalid(f"nothing came on standard input: give {what} there, as `{how}`")
    return found


def confirm(question: str, *, is_sure: bool) -> None:
    """Ask on a terminal, unless --yes was given. Raises Invalid where nobody can answer, Abort for a no."""
    if is_sure:
        return
    if not sys.stdin.isatty():
        raise Invalid("give --yes if you are sure, or run this on a terminal, where it asks")
    typer.confirm(question, abort=True, err=True)
