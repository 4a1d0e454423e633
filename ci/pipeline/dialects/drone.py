"""The drone dialect, version 1: a file of documents, one for each pipeline.

Source of the rows: drone_strider.md 1.1 (files), 1.2 (pipelines and steps), corpus.md 1 and 3. What is of
version 0.8 or older is not read: such a file gets one error that names the change.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from collections.abc import Mapping as MappingOf
from dataclasses import replace

from ci.pipeline import yaml_rules
from ci.pipeline.dialects import drone_when, rewrite
from ci.pipeline.dialects.dialect import Dialect
from ci.pipeline.dialects.printing import printed
from ci.pipeline.dialects.rewrite import Entry, Rewriter, by, dropped, named, same, silent, table, to
from ci.pipeline.problems import Mark, Problems, shown
from ci.pipeline.yaml import Kind, Mapping, Node, Scalar, describe
from ci.pipeline.yaml import Sequence as List
from ci.settings import FROM_SECRET

_SOURCE = "drone_strider.md 1.2"
#: The exit code that ends a pipeline well.
_STOP = 78
_WORKSPACE = "/drone/src"
_DEFAULT_NAME = "default"
#: Where the original mounts no workspace: it takes its default instead.
_FORBIDDEN = frozenset(
    {"/", "/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/media", "/mnt", "/proc", "/run", "/run/drone"}
    | {"/sbin", "/sys", "/usr", "/usr/bin", "/usr/lib", "/usr/sbin", "/var", "/var/run"}
)
_OLD = (
    'this file is of version 0.8 or older: since 1.0 a pipeline is a document with "kind: pipeline" and a '
    'list "steps" in place of the map "pipeline"; "settings" of a step holds what its plugin is told'
)
_OTHER_TYPES = {
    "kubernetes": "its pods need a runner of their own",
    "exec": "it runs on the machine itself, without containers",
    "ssh": 'it runs on a machine over SSH; the plugin "ssh" deploys there',
    "digitalocean": "it makes a machine for each pipeline",
    "macstadium": "it makes a machine for each pipeline",
    "aws": "it makes a machine for each pipeline",
    "vm": "it makes a machine for each pipeline",
    "nomad": "it needs a cluster of its own",
}


# --- values ---------------------------------------------------------------------------------------------


def _is_secret(node: Mapping) -> bool:
    return FROM_SECRET in node.by_name


def _settings(rewriter: Rewriter, node: Node) -> Node | None:
    if not isinstance(node, Mapping):
        return node
    entries = tuple((key, printed(value, _is_secret)) for key, value in node.entries)
    return Mapping(entries=tuple(each for each in entries if not _is_empty(each[1])), mark=node.mark)


def _is_empty(node: Node) -> bool:
    """A setting without anything in it is not set."""
    return (isinstance(node, List) and not node.items) or (isinstance(node, Scalar) and not node.text)


def _volumes_of_step(rewriter: Rewriter, node: Node) -> Node | None:
    found = []
    for item in rewrite.items(node):
        given = rewriter.map(item, "a mount")
        name, path = (_text(given, key) if given else "" for key in ("name", "path"))
        if not name or not path:
            if given:
                rewriter.problems.error(item.mark, 'a mount has "name" (of a volume) and "path"')
        elif posixpath.normpath(path) == "/run/drone":
            rewriter.problems.error(item.mark, "nothing can be mounted at /run/drone")
        else:
            host = rewriter.hosts.get(name)
            if host is None and name not in rewriter.volumes:
                message = f"there is no volume {shown(name)}: it is left out, as by the original"
                rewriter.problems.warn(item.mark, message)
                continue
            what = ("volume", name) if host is None else ("host", host)
            entries = (what, ("path", path))
            found.append(_map({key: named(value, item.mark) for key, value in entries}, item.mark))
    return List(items=tuple(found), mark=node.mark)


def _devices(rewriter: Rewriter, node: Node) -> Node | None:
    found = []
    for item in rewrite.items(node):
        given = rewriter.map(item, "a device")
        name, path = (_text(given, key) if given else "" for key in ("name", "path"))
        host = rewriter.hosts.get(name, "")
        if given and (not host or not path):
            message = 'a device has "path", and "name" of a volume with a path of the machine in "host"'
            rewriter.problems.error(item.mark, message)
        elif given:
            found.append(f"{host}:{path}")
    return rewrite.texts(found, node.mark)


def _pull(rewriter: Rewriter, node: Node) -> Node | None:
    if isinstance(node, Scalar) and node.kind is Kind.BOOL:
        return named("always" if rewrite.is_true(node) else "missing", node.mark)
    word = node.text.lower() if isinstance(node, Scalar) else ""
    words = {"always": "always", "if-not-exists": "missing", "never": "never", "default": "", "": ""}
    if word not in words:
        message = f'"pull" is always, if-not-exists, never or default; this is {describe(node)}'
        rewriter.problems.error(node.mark, message)
    found = words.get(word, "")
    return named(found, node.mark) if found else None


def _failure(rewriter: Rewriter, node: Node) -> Node | None:
    word = node.text if isinstance(node, Scalar) else ""
    if word in ("fast", "fast-fail", "fail-fast"):
        return named("stop", node.mark)
    if word in ("ignore", "always"):
        return named("ignore", node.mark) if word == "ignore" else None
    rewriter.problems.warn(node.mark, f'"failure" is ignore or fast; {describe(node)} means nothing')
    return None


def _commands(rewriter: Rewriter, key: Scalar, node: Node) -> Iterable[Entry]:
    """An empty list is none: the image runs what it is made to run."""
    return ((key, node),) if rewrite.items(node) else ()


_CONTAINER: dict[str, rewrite.Write] = {
    **dict.fromkeys(("name", "image", "environment", "entrypoint", "user", "depends_on"), same),
    **dict.fromkeys(("dns", "dns_search", "extra_hosts", "network_mode", "shm_size"), same),
    "privileged": rewrite.switch,
    "commands": _commands,
    "command": to("arguments"),
    "settings": by(_settings),
    "pull": by(_pull),
    "working_dir": to("directory"),
    "mem_limit": to("memory"),
    "volumes": by(_volumes_of_step),
    "devices": by(_devices),
    "memswap_limit": dropped("swap is not limited here beside the memory"),
    "shell": silent,
    "when": silent,  # `_container` reads it
}
STEP = table("a step", _SOURCE, {**_CONTAINER, "failure": by(_failure), "detach": rewrite.switch})
SERVICE = table("a service", _SOURCE, {**_CONTAINER, "detach": silent, "failure": silent, "ports": silent})


def _text(node: Node | None, name: str) -> str:
    found = node.by_name.get(name) if isinstance(node, Mapping) else None
    return found.value if isinstance(found, Scalar) else ""


def _map(entries: MappingOf[str, Node], mark: Mark) -> Mapping:
    return Mapping(entries=tuple((named(key, mark), value) for key, value in entries.items()), mark=mark)


def _containers(of: rewrite.Table) -> rewrite.Write:
    def write(rewriter: Rewriter, key: Scalar, node: Node) -> Iterable[Entry]:
        if not isinstance(node, List):
            message = f'"{key.text}" is a list, this is {describe(node)}'
            rewriter.problems.error(node.mark, message)
            return ()
        found = [item for each in node.items if (item := _container(rewriter, each, of))]
        return ((key, List(items=tuple(found), mark=node.mark)),) if found or of is STEP else ()

    return write


def _container(rewriter: Rewriter, node: Node, of: rewrite.Table) -> Mapping | None:
    given = rewriter.map(node, of.title)
    if given is None:
        return None
    entries = rewriter.rewrite(given, of)
    if rewrite.has(entries, "commands"):  # the original's script takes the place of both
        entries = [entry for entry in entries if entry[0].text not in ("entrypoint", "arguments")]
    entries = rewrite.plugin_settings(rewriter, entries)
    when = drone_when.condition(rewriter, given.by_name.get("when"), given.mark, is_trigger=False)
    if when:
        entries.append((named("when", when.mark), when))
    image = _text(given, "image")
    if not rewrite.has(entries, "pull") and _is_latest(image):
        entries.append((named("pull", given.mark), named("always", given.mark)))
    if of is STEP:
        entries.append((named("stop_on_exit", given.mark), rewrite.number(_STOP, given.mark)))
    return Mapping(entries=tuple(entries), mark=given.mark)


def _is_latest(image: str) -> bool:
    """Whether the original asks the registry for it each time when the file does not say."""
    name = image.rpartition("/")[2]
    return bool(image) and "@" not in name and (":" not in name or name.endswith(":latest"))


# --- pipelines ------------------------------------------------------------------------------------------


def _clone(rewriter: Rewriter, key: Scalar, node: Node) -> Iterable[Entry]:
    """The original fetches the whole history, if `depth` does not say otherwise."""
    given = rewriter.map(node, '"clone"')
    if given is None:
        return ()
    if rewrite.is_true(given.by_name.get("disable")):
        return ((named("skip_clone", key.mark), rewrite.flag(True, key.mark)),)
    return ((key, Mapping(entries=tuple(rewriter.rewrite(given, CLONE)), mark=node.mark)),)


CLONE = table(
    '"clone"',
    _SOURCE,
    {
        "depth": same,
        "disable": silent,
        "retries": silent,
        "trace": silent,
        "skip_verify": dropped("the runner's certificates decide"),
    },
)


def _platform(rewriter: Rewriter, node: Node) -> Node | None:
    given = rewriter.map(node, '"platform"')
    if given is None:
        return None
    os, arch = _text(given, "os") or "linux", _text(given, "arch") or "amd64"
    for name in ("variant", "version"):
        if value := given.by_name.get(name):
            rewriter.problems.warn(
                value.mark, f'"{name}" of a platform is left out: runners do not say theirs'
            )
    return _map({"platform": named(f"{os}/{arch.removeprefix(os + '-')}", node.mark)}, node.mark)


def _volumes(rewriter: Rewriter, node: Node) -> Node | None:
    """Those of the job. Folders of the machine (`host`) are named where they are mounted."""
    found: list[Entry] = []
    for item in rewrite.items(node):
        given = rewriter.map(item, "a volume")
        name = _text(given, "name")
        if not given or name in rewriter.hosts:
            continue
        if not name or name in ("workspace", "_workspace", "_docker_socket"):
            message = f"{shown(name)} cannot be the name of a volume" if name else "missing volume name"
            rewriter.problems.error(item.mark, message)
            continue
        found.append((named(name, given.mark), _temporary(given)))
    return Mapping(entries=tuple(found), mark=node.mark) if found else None


def _temporary(volume: Mapping) -> Node:
    temp = volume.by_name.get("temp")
    if not isinstance(temp, Mapping) or _text(temp, "medium") != "memory":
        return Mapping(entries=(), mark=volume.mark)
    entries: dict[str, Node] = {"memory": rewrite.flag(True, temp.mark)}
    if size := temp.by_name.get("size_limit"):
        entries["size"] = size
    return _map(entries, temp.mark)


def _names(root: Mapping) -> dict[str, Mark]:
    return {_text(item, "name"): item.mark for item in rewrite.items(root.by_name.get("volumes"))}


def _hosts(root: Mapping) -> dict[str, str]:
    found = {}
    for item in rewrite.items(root.by_name.get("volumes")):
        host = item.by_name.get("host") if isinstance(item, Mapping) else None
        if path := _text(host, "path"):
            found[_text(item, "name")] = path
    return found


def _workspace(rewriter: Rewriter, node: Node) -> Node | None:
    """Only an absolute base that hides nothing counts; `path` is below it."""
    base, path = _text(node, "base"), _text(node, "path")
    if not base.startswith("/") or posixpath.normpath(base) in _FORBIDDEN:
        if base:
            message = (
                f"the workspace is at {_WORKSPACE}: {shown(base)} is not taken, there or by the original"
            )
            rewriter.problems.warn(node.mark, message)
        return _map({"base": named(_WORKSPACE, node.mark)}, node.mark)
    entries = {"base": base, "path": path.strip("/")}
    kept = {key: named(value, node.mark) for key, value in entries.items() if value and value != "."}
    return _map(kept, node.mark)


def _concurrency(rewriter: Rewriter, node: Node) -> Node | None:
    """0 is no limit."""
    limit = node.by_name.get("limit") if isinstance(node, Mapping) else None
    if limit is None or rewrite.is_nothing(limit) or _text(node, "limit") == "0":
        return None
    return _map({"limit": limit}, node.mark)


PIPELINE = table(
    "a pipeline",
    f"{_SOURCE}; drone_strider.md 1.1",
    {
        **dict.fromkeys(("version", "kind", "type", "trigger"), silent),
        **dict.fromkeys(("depends_on", "environment"), same),
        "name": same,
        "steps": _containers(STEP),
        "services": _containers(SERVICE),
        "clone": _clone,
        "concurrency": by(_concurrency),
        "node": to("labels"),
        "platform": by(_platform, "labels"),
        "workspace": by(_workspace),
        "volumes": by(_volumes),
        "image_pull_secrets": to("pull_secrets"),
    },
)


def _pipeline(root: Mapping, problems: Problems) -> Mapping:
    rewriter = Rewriter(problems=problems, hosts=_hosts(root), volumes=_names(root))
    entries = _one_labels(rewriter.rewrite(root, PIPELINE), root.mark)
    mark = root.mark
    when = drone_when.condition(rewriter, root.by_name.get("trigger"), mark, is_trigger=True)
    assert when, "a trigger names its events"
    defaults: dict[str, Node] = {
        "name": named(_DEFAULT_NAME, mark),
        "when": when,
        "workspace": _map({"base": named(_WORKSPACE, mark)}, mark),
    }
    if not rewrite.has(entries, "skip_clone"):
        defaults["clone"] = Mapping(entries=(), mark=mark)
    for name, node in defaults.items():
        if not rewrite.has(entries, name):
            entries.append((named(name, mark), node))
    found = [_with_depth(key, value) if key.text == "clone" else (key, value) for key, value in entries]
    return _for_plugins(Mapping(entries=tuple(found), mark=mark))


def _with_depth(key: Scalar, node: Node) -> Entry:
    assert isinstance(node, Mapping)
    if "depth" in node.by_name:
        return key, node
    depth = (named("depth", node.mark), rewrite.number(0, node.mark))
    return key, Mapping(entries=(*node.entries, depth), mark=node.mark)


def _one_labels(entries: list[Entry], mark: Mark) -> list[Entry]:
    """`node` and `platform` are labels both."""
    found = [value for key, value in entries if key.text == "labels"]
    if len(found) < 2:
        return entries
    together = {
        key.text: (key, value) for node in found if isinstance(node, Mapping) for key, value in node.entries
    }
    rest = [entry for entry in entries if entry[0].text != "labels"]
    return [*rest, (named("labels", mark), Mapping(entries=tuple(together.values()), mark=mark))]


def _for_plugins(pipeline: Mapping) -> Mapping:
    """The variables of a pipeline reach its plugins too, which the native language leaves out."""
    shared = pipeline.by_name.get("environment")
    if not isinstance(shared, Mapping) or not shared.entries:
        return pipeline
    steps = pipeline.by_name.get("steps")
    if not isinstance(steps, List):
        return pipeline
    changed = tuple(_with_shared(step, shared) if isinstance(step, Mapping) else step for step in steps.items)
    return Mapping(
        entries=tuple(rewrite.replaced(pipeline.entries, "steps", replace(steps, items=changed))),
        mark=pipeline.mark,
    )


def _with_shared(step: Mapping, shared: Mapping) -> Mapping:
    if "commands" in step.by_name:
        return step
    own = step.by_name.get("environment")
    known = own.entries if isinstance(own, Mapping) else ()
    names = {key.text for key, _ in known}
    added = tuple(entry for entry in shared.entries if entry[0].text not in names)
    environment = Mapping(entries=(*added, *known), mark=own.mark if own else step.mark)
    return Mapping(entries=tuple(rewrite.replaced(step.entries, "environment", environment)), mark=step.mark)


# --- files ----------------------------------------------------------------------------------------------


def _translate(documents: Sequence[Node], problems: Problems) -> list[Mapping]:
    found: list[Mapping] = []
    for document in documents:
        if rewrite.is_nothing(document):
            continue
        if not isinstance(document, Mapping):
            problems.error(document.mark, f'a document is a map with "kind", this is {describe(document)}')
        elif _is_old(document):
            problems.error(document.mark, _OLD)
            return []
        else:
            found += _document(document, problems)
    if not found and not problems.has_errors:
        problems.error(Mark(), 'the file has no document with "kind: pipeline"')
    return found


def _is_old(document: Mapping) -> bool:
    names = document.by_name
    has_old = any(
        name in names for name in ("pipeline", "build", "script", "image", "publish", "deploy", "cache")
    )
    return "kind" not in names and has_old


def _document(document: Mapping, problems: Problems) -> Iterable[Mapping]:
    kind, name = _text(document, "kind"), _text(document, "name")
    if kind.lower() == "pipeline":
        return _checked(document, problems)
    if kind == "secret":
        message = f"the secret {shown(name)} is not in this file: give it with `shipway secret set {name}`"
        problems.warn(document.mark, message)
    elif kind == "template":
        message = "a template is made into a pipeline by the server that holds it: commit its result instead"
        problems.error(document.mark, message)
    elif not kind:
        problems.error(document.mark, 'the document has no "kind"; a pipeline has "kind: pipeline"')
    elif kind != "signature":
        problems.warn(document.mark, f"a document of kind {shown(kind)} means nothing here, and is left out")
    return ()


def _checked(document: Mapping, problems: Problems) -> Iterable[Mapping]:
    kind = _text(document, "type") or "docker"
    if kind == "docker" and not rewrite.items(document.by_name.get("steps")):
        problems.warn(
            document.mark, f"the pipeline {shown(_text(document, 'name'))} has no step, and is left out"
        )
        return ()
    if kind == "docker":
        return (_pipeline(document, problems),)
    node = document.by_name["type"]
    why = _OTHER_TYPES.get(kind)
    if why is None:
        hint = problems.did_you_mean(kind, ("docker", *_OTHER_TYPES))
        problems.error(node.mark, f'there is no type of pipeline {shown(kind)}; write "docker"{hint}')
    else:
        message = f"a pipeline of type {shown(kind)} cannot run here: {why}. Jobs run in Docker containers"
        problems.error(node.mark, message)
    return ()


def _recognises(documents: Sequence[Node]) -> bool:
    return any(isinstance(document, Mapping) and "kind" in document.by_name for document in documents)


DRONE = Dialect(
    name="drone",
    translate=_translate,
    rules=yaml_rules.GO_11,
    recognises=_recognises,
    files=(".drone.yml", ".drone.yaml"),
    is_lenient=True,
)
