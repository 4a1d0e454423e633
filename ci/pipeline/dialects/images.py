"""Images of plugins, of this and other servers, of which more is known than their names."""

from __future__ import annotations

from ci.images import repository
from ci.pipeline.yaml import Kind, Mapping, Node, Scalar, Sequence

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


#: They fill the workspace as our own clone does.
_CLONES = frozenset(f"docker.io/{name}" for name in ("drone/git", "plugins/git", "woodpeckerci/plugin-git"))
#: Settings that our own clone has too, and settings that change nothing which a build sees.
_OPTIONS = frozenset({"depth", "tags"})
_MEANINGLESS = frozenset({"partial", "attempts", "backoff", "retries"})
#: What is off here: a file that says so says nothing new. Source: drone_strider.md 4.3.
_OFF = frozenset({"recursive", "lfs", "skip-verify", "skip_verify"})


def own_clone(clone: Node) -> Mapping | None:
    """The options of our own clone, where the containers in `clone` do what it does: one, of a known image,
    told no more than it can do. None: they have to run."""
    container = _only_container(clone)
    if container is None or set(container.by_name) - {"name", "image", "settings", "pull"}:
        return None
    image, settings = container.by_name.get("image"), container.by_name.get("settings")
    if not isinstance(image, Scalar) or repository(image.text) not in _CLONES:
        return None
    entries = settings.entries if isinstance(settings, Mapping) else ()
    if not all(_is_ours(key.text, value) for key, value in entries):
        return None
    kept = tuple((key, value) for key, value in entries if key.text in _OPTIONS)
    return Mapping(entries=kept, mark=clone.mark)


def _only_container(clone: Node) -> Mapping | None:
    found = (
        [value for _, value in clone.entries]
        if isinstance(clone, Mapping)
        else list(clone.items if isinstance(clone, Sequence) else ())
    )
    only = found[0] if len(found) == 1 else None
    return only if isinstance(only, Mapping) else None


def _is_ours(name: str, value: Node) -> bool:
    if name in _OFF:
        return isinstance(value, Scalar) and value.kind is Kind.BOOL and value.text.lower() == "false"
    return isinstance(value, Scalar) and name in _OPTIONS | _MEANINGLESS
