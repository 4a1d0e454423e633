"""Versions: what a tag says, in the two common schemes. Pure.

Source of the fields: the study of the peer whose files name them, 1.7.
"""

from __future__ import annotations

import re

_SEMVER = re.compile(
    r"v?(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)"
    r"(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?\Z"
)
_CALVER = re.compile(
    r"v?([0-9]{4}|[0-9]{2})\.([0-9]{1,2})(?:\.([0-9]{1,5}))?(?:[-_.+]?([A-Za-z][0-9A-Za-z.-]*))?\Z"
)


def semver(tag: str) -> dict[str, str]:
    """Field -> text, of a tag like `v1.2.3-rc.1+7`; `ERROR` alone for another tag, and nothing for none."""
    if not tag:
        return {}
    found = _SEMVER.match(tag)
    if found is None:
        return {"ERROR": f"{tag[:100]} is no semantic version such as v1.2.3"}
    major, minor, patch, prerelease, build = (part or "" for part in found.groups())
    fields = {"MAJOR": major, "MINOR": minor, "PATCH": patch, "PRERELEASE": prerelease, "BUILD": build}
    return {"": tag.removeprefix("v"), "SHORT": f"{major}.{minor}.{patch}", **fields}


def calver(tag: str) -> dict[str, str]:
    """Field -> text, of a tag like `2026.11.3-hotfix`; nothing for another one."""
    found = _CALVER.match(tag)
    if found is None:
        return {}
    major, minor, micro, modifier = (part or "" for part in found.groups())
    short = ".".join(part for part in (major, minor, micro) if part)
    fields = {"MAJOR": major, "MINOR": minor, "MICRO": micro, "MODIFIER": modifier}
    return {"": tag.removeprefix("v"), "SHORT": short, "MAJOR_MINOR": f"{major}.{minor}", **fields}
