"""The woodpecker dialect. The native language is a superset of it, so most rows say "the same".

Source of the rows: woodpecker.md 1.3 (pipelines), 1.4 (containers), 1.5 (conditions), corpus.md 2 and 3 (what
older files have). The old form (`pipeline:` in place of `steps:`) is the same dialect with warnings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ci.event import Kind as Event
from ci.pipeline import yaml_rules
from ci.pipeline.dialects import rewrite
from ci.pipeline.dialects.dialect import Dialect
from ci.pipeline.dialects.printing import printed
from ci.pipeline.dialects.rewrite import Entry, Rewriter, by, dropped, named, same, silent, table, to
from ci.pipeline.problems import Mark, Problems, shown
from ci.pipeline.yaml import Mapping, Node, Scalar, describe
from ci.pipeline.yaml import Sequence as List
from ci.settings import FROM_SECRET

_EVENTS = frozenset(kind.value for kind in Event)
_STATUSES = frozenset({"success", "failure"})
_OLD = "out of use since version 3"
#: Where a workspace lies there. The folder below it is the repo's address without its scheme.
_BASE = "/woodpecker"
_PATH = "src/${CI_REPO_URL#*://}"
#: Labels that the original sets itself, or that say what every runner here is.
_NO_NAME = re.compile(r"[^A-Za-z0-9]+")
_LABELS_OF_THE_SERVER = re.compile(r"woodpecker-ci\.org(/.*)?\Z")


def _is_secret(node: Mapping) -> bool:
    return FROM_SECRET in node.by_name


# --- conditions -----------------------------------------------------------------------------------------


def _when(rewriter: Rewriter, node: Node) -> Node | None:
    if isinstance(node, List):
        return replace(node, items=tuple(_condition(rewriter, item) for item in node.items))
    return _condition(rewriter, node)


def _condition(rewriter: Rewriter, node: Node) -> Node:
    if not isinstance(node, Mapping):
        return node
    return rewrite.condition(rewriter.rewrite(node, CONDITION), node.mark)


def _words(known: frozenset[str]) -> rewrite.Write:
    """Words that the original does not know match nothing there: they are left out, and a list of nothing
    else never matches."""

    def write(rewriter: Rewriter, key: Scalar, node: Node) -> Iterable[Entry]:
        if isinstance(node, Mapping):
            return ((key, node),)
        found = []
        for item in rewrite.items(node):
            if isinstance(item, Scalar) and item.text not in known:
                hint = rewriter.problems.did_you_mean(item.text, known)
                message = f"there is no {key.text} {shown(item.text)}: it never matches{hint}"
                rewriter.problems.warn(item.mark, message)
            else:
                found.append(item)
        if found or (isinstance(node, List) and not node.items):
            return ((key, List(items=tuple(found), mark=node.mark)),)
        return rewrite.never(key.mark)

    return write


CONDITION = table(
    "a condition",
    "woodpecker.md 1.5",
    {
        **dict.fromkeys(("branch", "ref", "repo", "instance", "platform", "cron", "path", "matrix"), same),
        **dict.fromkeys(("evaluate", "local", "tag", "target", "action"), same),
        "event": _words(_EVENTS),
        "status": _words(_STATUSES),
    },
)

# --- containers -----------------------------------------------------------------------------------------


def _settings(rewriter: Rewriter, node: Node) -> Node | None:
    if not isinstance(node, Mapping):
        return node
    entries = tuple((key, printed(value, _is_secret)) for key, value in node.entries)
    return Mapping(entries=entries, mark=node.mark)


def _environment(rewriter: Rewriter, node: Node) -> Node | None:
    """Values are printed; nothing (`NAME:`) is no variable. The list form is out of use."""
    if not isinstance(node, Mapping):
        return node
    kept = [(key, value) for key, value in node.entries if not rewrite.is_nothing(value)]
    return Mapping(entries=tuple((key, printed(value, _is_secret)) for key, value in kept), mark=node.mark)


def _secrets(rewriter: Rewriter, key: Scalar, node: Node) -> Iterable[Entry]:
    """`secrets: [a, {source: b, target: c}]`: variables A and C. They join `environment` in `_container`."""
    rewriter.problems.warn(key.mark, f'"secrets" is {_OLD}: write "environment" with "from_secret"')
    found = []
    for item in rewrite.items(node):
        source = target = item
        if isinstance(item, Mapping):
            source, target = item.by_name.get("source", item), item.by_name.get("target", item)
        if not isinstance(source, Scalar) or not isinstance(target, Scalar):
            message = f'"secrets" has names, or maps with "source" and "target"; this is {describe(item)}'
            rewriter.problems.error(item.mark, message)
            continue
        value = Mapping(entries=((named(FROM_SECRET, source.mark), source),), mark=source.mark)
        found.append((named(target.text.upper(), target.mark), value))
    return ((named("secrets", key.mark), Mapping(entries=tuple(found), mark=node.mark)),)


def _volumes(rewriter: Rewriter, node: Node) -> Node | None:
    """`/folder:/path` is a folder of the machine. `name:/path` there is a volume of the machine, and `/path`
    one without a name: here both end with the job."""
    found = []
    for item in rewrite.items(node):
        text = item.text if isinstance(item, Scalar) else ""
        source, colon, path = text.partition(":")
        if not text or (source.startswith(("/", ".", "~", "$")) and colon):
            found.append(item)
            continue
        name = _NO_NAME.sub("-", source).strip("-") or "volume"
        rewriter.volumes.setdefault(name, item.mark)
        found.append(named(f"{name}:{path if colon else source}", item.mark))
        if colon:
            message = f"the volume {shown(source)} ends with the job here: nothing in it is kept for the next"
            rewriter.problems.warn(item.mark, message)
    return List(items=tuple(found), mark=node.mark)


_CONTAINER: dict[str, rewrite.Write] = {
    **dict.fromkeys(("name", "image", "commands", "entrypoint", "directory", "failure", "volumes"), same),
    **dict.fromkeys(("dns", "dns_search", "extra_hosts", "network_mode", "devices"), same),
    **dict.fromkeys(("tmpfs", "backend_options", "depends_on", "shm_size", "user"), same),
    "mem_limit": to("memory"),
    **dict.fromkeys(("privileged", "pull"), rewrite.switch),
    "volumes": by(_volumes),
    "when": by(_when),
    "settings": by(_settings),
    "environment": by(_environment),
    "secrets": _secrets,
}
STEP = table(
    "a step",
    "woodpecker.md 1.4; `group` and `secrets`: corpus.md 2.3",
    {
        **_CONTAINER,
        "detach": rewrite.switch,
        "ports": silent,
        "group": same,
    },
)
CLONE = rewrite.Table(title="a clone", rules=STEP.rules)
SERVICE = table("a service", "woodpecker.md 1.4", {**_CONTAINER, "ports": same, "detach": silent})


def _containers(of: rewrite.Table) -> rewrite.Write:
    """The list, or map from name, with each container rewritten."""
    kind = of.title.removeprefix("a ")
    name_here = {"a step": "steps", "a service": "services", "a clone": "clone"}[of.title]

    def write(rewriter: Rewriter, key: Scalar, node: Node) -> Iterable[Entry]:
        if isinstance(node, Mapping):
            entries = tuple((name, _container(rewriter, value, of)) for name, value in node.entries)
            changed: Node = Mapping(entries=entries, mark=node.mark)
        elif isinstance(node, List):
            items = [_container(rewriter, item, of) for item in node.items]
            changed = List(
                items=tuple(_with_name(item, f"{kind}-{n}") for n, item in enumerate(items)), mark=node.mark
            )
        else:
            changed = node
        return ((named(name_here, key.mark), _in_stages(changed)),)

    return write


def _container(rewriter: Rewriter, node: Node, of: rewrite.Table) -> Node:
    if not isinstance(node, Mapping):
        return node
    entries = rewriter.rewrite(node, of)
    secrets = [value for key, value in entries if key.text == "secrets"]
    entries = [(key, value) for key, value in entries if key.text != "secrets"]
    if secrets:
        entries = _with_secrets(entries, secrets[0])
    return Mapping(entries=tuple(rewrite.plugin_settings(rewriter, entries)), mark=node.mark)


def _with_secrets(entries: list[Entry], secrets: Node) -> list[Entry]:
    """What the file says under `environment` wins over a secret of the same name."""
    assert isinstance(secrets, Mapping)
    known = next((value for key, value in entries if key.text == "environment"), None)
    if isinstance(known, List):
        known = _pairs(known)
    mine = known.entries if isinstance(known, Mapping) else ()
    names = {key.text for key, _ in mine}
    added = tuple(entry for entry in secrets.entries if entry[0].text not in names)
    return rewrite.replaced(entries, "environment", Mapping(entries=(*mine, *added), mark=secrets.mark))


def _pairs(node: List) -> Mapping:
    """`[A=b]` as a map."""
    pairs = [(item.text.partition("="), item.mark) for item in node.items if isinstance(item, Scalar)]
    entries = tuple((named(name, mark), Scalar(text=value, mark=mark)) for (name, _, value), mark in pairs)
    return Mapping(entries=entries, mark=node.mark)


def _with_name(node: Node, name: str) -> Node:
    """An unnamed one of a list is named by its place, counted from 0."""
    if not isinstance(node, Mapping) or "name" in node.by_name:
        return node
    return Mapping(
        entries=((named("name", node.mark), named(name, node.mark)), *node.entries), mark=node.mark
    )


# --- groups of the old form -------------------------------------------------------------------------------


def _in_stages(node: Node) -> Node:
    """Neighbours of one `group` run at the same time, after all of the stage before. Not where a step has
    `depends_on`: then groups mean nothing."""
    steps = _named_steps(node)
    if not any("group" in step.by_name for _, step in steps):
        return node
    if any("depends_on" in step.by_name for _, step in steps):
        return _changed(node, {id(step): _without_group(step) for _, step in steps})
    changed: dict[int, Mapping] = {}
    before: list[str] = []
    stage: list[str] = []
    group = ""
    for name, step in steps:
        own = step.by_name.get("group")
        own_group = own.text if isinstance(own, Scalar) else ""
        if not own_group or own_group != group:
            before, stage = stage, []
        group = own_group
        stage.append(name)
        waits = (named("depends_on", step.mark), rewrite.texts(before, step.mark))
        plain = _without_group(step)
        changed[id(step)] = Mapping(entries=(*plain.entries, waits), mark=step.mark)
    return _changed(node, changed)


def _named_steps(node: Node) -> list[tuple[str, Mapping]]:
    if isinstance(node, Mapping):
        return [(key.text, value) for key, value in node.entries if isinstance(value, Mapping)]
    found = [item for item in rewrite.items(node) if isinstance(item, Mapping)]
    names = [item.by_name.get("name") for item in found]
    return [
        (name.text if isinstance(name, Scalar) else "", item) for name, item in zip(names, found, strict=True)
    ]


def _without_group(step: Mapping) -> Mapping:
    return Mapping(entries=tuple(entry for entry in step.entries if entry[0].text != "group"), mark=step.mark)


def _changed(node: Node, changed: dict[int, Mapping]) -> Node:
    if isinstance(node, Mapping):
        entries = tuple((key, changed.get(id(value), value)) for key, value in node.entries)
        return Mapping(entries=entries, mark=node.mark)
    assert isinstance(node, List)
    return replace(node, items=tuple(changed.get(id(item), item) for item in node.items))


# --- pipelines --------------------------------------------------------------------------------------------


def _old_steps(rewriter: Rewriter, key: Scalar, node: Node) -> Iterable[Entry]:
    rewriter.problems.warn(key.mark, f'"pipeline" is {_OLD}: write "steps"')
    return _containers(STEP)(rewriter, key, node)


def _labels(rewriter: Rewriter, node: Node) -> Node | None:
    if not isinstance(node, Mapping):
        return node
    kept = [
        (key, value)
        for key, value in node.entries
        if not _LABELS_OF_THE_SERVER.match(key.text)
        and not (key.text == "backend" and isinstance(value, Scalar) and value.text == "docker")
    ]
    return Mapping(entries=tuple(kept), mark=node.mark)


def _platform(rewriter: Rewriter, key: Scalar, node: Node) -> Iterable[Entry]:
    """`linux/amd64`, or a map with `os` and `arch`: a label of the runner."""
    rewriter.problems.warn(key.mark, f'"platform" is {_OLD}: write "labels" with "platform"')
    if isinstance(node, Mapping):
        parts = [node.by_name.get(name) for name in ("os", "arch")]
        words = [part.text if isinstance(part, Scalar) else "" for part in parts]
        node = Scalar(text=f"{words[0] or 'linux'}/{words[1] or 'amd64'}", mark=node.mark)
    return ((named("platform", key.mark), node),)


def _branches(rewriter: Rewriter, key: Scalar, node: Node) -> Iterable[Entry]:
    rewriter.problems.warn(key.mark, f'"branches" is {_OLD}: write "when" with "branch"')
    return ((named("branches", key.mark), node),)


def _workspace(rewriter: Rewriter, node: Node) -> Node | None:
    if not isinstance(node, Mapping):
        return node
    entries = [entry for entry in node.entries if not rewrite.is_nothing(entry[1])]
    if "base" not in node.by_name:
        entries.insert(0, (named("base", node.mark), named(_BASE, node.mark)))
    if "path" not in node.by_name:
        entries.append((named("path", node.mark), Scalar(text=_PATH, mark=node.mark)))
    return Mapping(entries=tuple(entries), mark=node.mark)


PIPELINE = table(
    "a pipeline",
    "woodpecker.md 1.3; `pipeline`, `branches`, `platform`: corpus.md 2.3",
    {
        "steps": _containers(STEP),
        "pipeline": _old_steps,
        "services": _containers(SERVICE),
        "clone": _containers(CLONE),
        "when": by(_when),
        "workspace": by(_workspace),
        "labels": by(_labels),
        "platform": _platform,
        "branches": _branches,
        "skip_clone": rewrite.switch,
        **dict.fromkeys(("depends_on", "concurrency", "matrix", "runs_on"), same),
        **dict.fromkeys(("variables", "$schema"), silent),
        "networks": dropped("the containers of a job have a network of their own"),
    },
)


def _translate(documents: Sequence[Node], problems: Problems) -> list[Mapping]:
    """The first document; the original does not look at others."""
    root = documents[0] if documents else None
    if root is None or rewrite.is_nothing(root):
        problems.error(Mark(), 'the file is empty; it needs "steps"')
        return []
    rewriter = Rewriter(problems=problems)
    found = rewriter.map(root, "a pipeline")
    if found is None:
        return []
    for other in documents[1:]:
        problems.warn(other.mark, "only the first document of a file counts; this one is left out")
    return [Mapping(entries=tuple(_pipeline(rewriter, found)), mark=found.mark)]


def _pipeline(rewriter: Rewriter, root: Mapping) -> list[Entry]:
    entries = rewriter.rewrite(root, PIPELINE)
    if platform := _taken(entries, "platform"):
        labels = next((value for key, value in entries if key.text == "labels"), None)
        known = labels.entries if isinstance(labels, Mapping) else ()
        if not rewrite.has(known, "platform"):
            entries = rewrite.replaced(
                entries, "labels", Mapping(entries=(*known, platform), mark=platform[1].mark)
            )
    if branches := _taken(entries, "branches"):
        entries = _with_branch(entries, branches[1])
    if rewriter.volumes:
        made = [
            (named(name, mark), Mapping(entries=(), mark=mark)) for name, mark in rewriter.volumes.items()
        ]
        entries.append((named("volumes", root.mark), Mapping(entries=tuple(made), mark=root.mark)))
    return _with_workspace(entries, root.mark)


def _taken(entries: list[Entry], name: str) -> Entry | None:
    """The entry, taken out of the list."""
    for index, entry in enumerate(entries):
        if entry[0].text == name:
            return entries.pop(index)
    return None


def _with_branch(entries: list[Entry], branches: Node) -> list[Entry]:
    """Each condition of the pipeline holds for these branches only."""
    known = next((value for key, value in entries if key.text == "when"), None)
    conditions = [item for item in rewrite.items(known) if isinstance(item, Mapping)]
    conditions = conditions or [Mapping(entries=(), mark=branches.mark)]
    branch = (named("branch", branches.mark), branches)
    changed = [
        each if "branch" in each.by_name else Mapping(entries=(*each.entries, branch), mark=each.mark)
        for each in conditions
    ]
    return rewrite.replaced(entries, "when", List(items=tuple(changed), mark=branches.mark))


def _with_workspace(entries: list[Entry], mark: Mark) -> list[Entry]:
    if rewrite.has(entries, "workspace"):
        return entries
    known = Mapping(
        entries=(
            (named("base", mark), named(_BASE, mark)),
            (named("path", mark), Scalar(text=_PATH, mark=mark)),
        ),
        mark=mark,
    )
    return [*entries, (named("workspace", mark), known)]


def _recognises(documents: Sequence[Node]) -> bool:
    root = documents[0] if documents else None
    return isinstance(root, Mapping) and isinstance(root.by_name.get("pipeline"), Mapping)


WOODPECKER = Dialect(
    name="woodpecker",
    translate=_translate,
    rules=yaml_rules.GO,
    recognises=_recognises,
    files=(".woodpecker.yaml", ".woodpecker.yml"),
    folder=".woodpecker",
    is_lenient=True,
)
