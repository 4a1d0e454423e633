"""The names of variables that a POSIX shell can pass on. Pure.

The runner's gate hands the environment of a step to the image's own shell. What that shell cannot export
stands in the container's config instead, where `docker inspect` shows it: so a secret never has such a name.
"""

from __future__ import annotations

import re

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Names that a shell holds for itself: to set them would fail, or change how it reads our text.
_SHELLS_OWN = re.compile(
    "_|BASH.*|shipway_.*|DIRSTACK|ENV|EPOCH.*|EUID|FUNCNAME|GROUPS|HISTCMD|IFS|LINENO|OLDPWD|OPT(ARG|ERR|IND)"
    "|POSIXLY_CORRECT|PPID|PS[124]|PWD|S?RANDOM|SECONDS|SHELLOPTS|UID"
)
#: Names that decide where every program and its libraries are found.
_LOADERS = re.compile("PATH|LD_.*|DYLD_.*")


def is_exportable(name: str) -> bool:
    """Whether a shell can export the name; others stand in the container's config, where they can be seen."""
    return _NAME.fullmatch(name) is not None and _SHELLS_OWN.fullmatch(name) is None


def unfit(name: str) -> str:
    """Why a variable of this name can hold neither a secret nor what an administrator gives to every step,
    as a clause; empty: it can.

    A secret may be empty (it is withheld from a stranger's code): with an empty PATH no program starts.
    """
    if _NAME.fullmatch(name) is None:
        return "no shell can export it; use letters, digits and _"
    if _SHELLS_OWN.fullmatch(name):
        return "a shell keeps this name for itself"
    if _LOADERS.fullmatch(name):
        return "it decides which programs and libraries are found"
    return ""
