"""Images of plugins, of this and other servers, that are known to change nothing outside of the build."""

from __future__ import annotations

from ci.images import repository

#: They fill the workspace, or keep files of it for the next build: run again they do the same again.
_HARMLESS = frozenset(
    f"docker.io/{name}"
    for name in (
        *("drone/git", "plugins/git", "woodpeckerci/plugin-git"),
        *("meltwater/drone-cache", "drillster/drone-volume-cache", "plugins/s3-cache", "plugins/cache"),
    )
)


def changes_nothing_outside(image: str) -> bool:
    return repository(image) in _HARMLESS
