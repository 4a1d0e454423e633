"""Dialects: for each key of the other servers' languages, what it means in ours.

Each row is a file of theirs and the native one that makes the same jobs; rows are named by their place in
the studies of the originals.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ci.errors import ConfigError
from ci.pipeline.compile import build_jobs
from ci.pipeline.dialects import drone, drone_when, woodpecker
from ci.pipeline.dialects.rewrite import Table
from ci.pipeline.parse import parse_all
from ci.pipeline.plan import CONTEXT, event_of
from ci.settings import plugin_variables
from ci.spec import JobSpec

DOCS = Path(__file__).parents[2] / "docs"

#: Steps of a Woodpecker file; what stands after it in each row is in the step `a`.
W = "steps: [{{name: a, image: x, {}}}]"
#: The same in the native language, at Woodpecker's workspace.
N = "workspace: {{base: /woodpecker, path: src}}\nsteps: [{{name: a, image: x, {}}}]"
SAME = [
    ("1.4 commands text", "commands: make"),
    ("1.4 commands list", "commands: [make, test]"),
    ("1.4 entrypoint", "entrypoint: [/bin/sh, -c], commands: [y]"),
    ("1.4 directory", "directory: sub, commands: [y]"),
    ("1.4 environment", "commands: [y], environment: {A: b, N: '1.10'}"),
    ("1.4 environment secret", "commands: [y], environment: {A: {from_secret: b}}"),
    ("1.4 environment list", "commands: [y], environment: {A: [b, c], M: {k: 1}}"),
    ("1.4 settings", "settings: {a: b, c: {from_secret: d}, e: [f, g], h: {i: [1, true]}}"),
    ("1.4 failure ignore", "commands: [y], failure: ignore"),
    ("1.4 failure cancel", "commands: [y], failure: cancel"),
    ("1.4 detach", "commands: [y], detach: true"),
    ("1.4 pull", "commands: [y], pull: true"),
    ("1.4 volumes", "commands: [y], volumes: ['/srv:/srv:ro']"),
    ("1.4 privileged", "commands: [y], privileged: true"),
    ("1.4 dns", "commands: [y], dns: 192.0.2.1, dns_search: example.org"),
    ("1.4 extra_hosts", "commands: [y], extra_hosts: ['db:192.0.2.7']"),
    ("1.4 network_mode", "commands: [y], network_mode: host"),
    ("1.4 devices", "commands: [y], devices: ['/dev/kvm:/dev/kvm']"),
    ("1.4 tmpfs", "commands: [y], tmpfs: [/scratch]"),
    ("1.4 backend_options", "commands: [y], backend_options: {docker: {user: '7'}}"),
    ("1.5 event", "commands: [y], when: {event: [push, tag]}"),
    ("1.5 branch", "commands: [y], when: {branch: {include: [main], exclude: [x/*]}}"),
    ("1.5 ref", "commands: [y], when: {ref: refs/heads/m*}"),
    (
        "1.5 path",
        "commands: [y], when: {path: {include: ['*.md'], ignore_message: '[all]', on_empty: false}}",
    ),
    ("1.5 status", "commands: [y], when: {status: [success, failure]}"),
    ("1.5 repo", "commands: [y], when: {repo: local/*}"),
    ("1.5 instance", "commands: [y], when: {instance: example.org}"),
    ("1.5 platform", "commands: [y], when: {platform: linux/*}"),
    ("1.5 cron", "commands: [y], when: {cron: nightly}"),
    ("1.5 evaluate", "commands: [y], when: {evaluate: 'CI_COMMIT_BRANCH == \"main\"'}"),
    ("1.5 local", "commands: [y], when: {local: false}"),
    ("1.5 list", "commands: [y], when: [{event: tag}, {branch: main}]"),
]
WOODPECKER: list[tuple[str, str, str]] = [
    *((name, W.format(key), N.format(key)) for name, key in SAME),
    ("1.3 steps map", "steps: {a: {image: x, commands: [y]}}", N.format("commands: [y]")),
    (
        "1.3 services",
        W.format("commands: [y]") + "\nservices: {db: {image: pg, ports: [5432]}}",
        N.format("commands: [y]") + "\nservices: {db: {image: pg}}",
    ),
    (
        "1.3 labels",
        W.format("commands: [y]") + "\nlabels: {zone: a, backend: docker}",
        N.format("commands: [y]") + "\nlabels: {zone: a}",
    ),
    (
        "1.3 matrix",
        W.format("commands: ['${V}']") + "\nmatrix: {V: [1.10, 2]}",
        N.format("commands: ['${V}']") + "\nmatrix: {V: ['1.10', '2']}",
    ),
    (
        "1.3 workspace",
        W.format("commands: [y]") + "\nworkspace: {base: /go, path: src}",
        "workspace: {base: /go, path: src}\nsteps: [{name: a, image: x, commands: [y]}]",
    ),
    (
        "1.3 skip_clone",
        W.format("commands: [y]") + "\nskip_clone: true",
        N.format("commands: [y]") + "\nskip_clone: true",
    ),
    (
        "1.3 clone of the usual image",
        W.format("commands: [y]")
        + "\nclone: {git: {image: woodpeckerci/plugin-git, settings: {depth: 5, tags: true}}}",
        N.format("commands: [y]") + "\nclone: {depth: 5, tags: true}",
    ),
    (
        "1.3 concurrency",
        W.format("commands: [y]") + "\nconcurrency: {limit: 2, group: deploy}",
        N.format("commands: [y]") + "\nconcurrency: {limit: 2, group: deploy}",
    ),
    (
        "2.3 pipeline and branches",
        "pipeline: {a: {image: x, commands: [y]}}\nbranches: main",
        N.format("commands: [y]") + "\nwhen: {branch: main}",
    ),
    (
        "2.3 platform",
        W.format("commands: [y]") + "\nplatform: linux/arm64",
        N.format("commands: [y]") + "\nlabels: {platform: linux/arm64}",
    ),
    (
        "2.3 secrets",
        W.format("commands: [y], secrets: [tok, {source: a, target: b}]"),
        N.format("commands: [y], environment: {TOK: {from_secret: tok}, B: {from_secret: a}}"),
    ),
    (
        "2.3 group",
        "steps: {a: {image: x, commands: [y], group: g}, b: {image: x, commands: [y], group: g}}",
        N.replace("[{{name: a, image: x, {}}}]", "[{}]").format(
            "{name: a, image: x, commands: [y], depends_on: []}, "
            "{name: b, image: x, commands: [y], depends_on: []}"
        ),
    ),
    (
        "2.3 user and mem_limit",
        W.format("commands: [y], user: '7', mem_limit: 1g"),
        N.format("commands: [y], user: '7', memory: 1g"),
    ),
    (
        "1.4 named volumes",
        W.format("commands: [y], volumes: ['data:/data']"),
        N.format("commands: [y], volumes: ['data:/data']") + "\nvolumes: {data: {}}",
    ),
]

#: A Drone pipeline whose step `a` has what follows.
D = "kind: pipeline\ntype: docker\nname: p\nsteps: [{{name: a, image: 'x:1', {}}}]\n"
_BASE = "name: p\nworkspace: {base: /drone/src}\nclone: {depth: 0}\n"
_EVENTS = "when: {event: [push, pull_request, tag, deployment, cron, manual]}\n"


def native(step: str, *, top: str = _BASE + _EVENTS) -> str:
    return f"{top}steps: [{{name: a, image: 'x:1', stop_on_exit: 78, {step}}}]\n"


DRONE_SAME = [
    ("1.2 commands", "commands: [make, test]"),
    ("1.2 environment", "commands: [y], environment: {A: b, N: '1.10'}"),
    ("1.2 environment secret", "commands: [y], environment: {A: {from_secret: b}}"),
    ("1.2 settings", "settings: {a: b, e: [f, g], c: {from_secret: d}}"),
    ("1.2 user", "commands: [y], user: '7'"),
    ("1.2 privileged", "commands: [y], privileged: true"),
    ("1.2 dns", "commands: [y], dns: [192.0.2.1], dns_search: [example.org]"),
    ("1.2 extra_hosts", "commands: [y], extra_hosts: ['db:192.0.2.7']"),
    ("1.2 network_mode", "commands: [y], network_mode: host"),
    ("1.2 shm_size", "commands: [y], shm_size: 64m"),
    ("1.2 detach", "commands: [y], detach: true"),
    ("1.2 failure ignore", "commands: [y], failure: ignore"),
    ("1.3 ref", "commands: [y], when: {ref: [refs/heads/*]}"),
    ("1.3 repo", "commands: [y], when: {repo: [local/*]}"),
    ("1.3 instance", "commands: [y], when: {instance: [x.example]}"),
    ("1.3 status", "commands: [y], when: {status: [failure, success]}"),
    ("1.3 target", "commands: [y], when: {target: [prod]}"),
]
DRONE: list[tuple[str, str, str]] = [
    *((name, D.format(key), native(key)) for name, key in DRONE_SAME),
    (
        "1.2 entrypoint",
        D.format("entrypoint: [/e], command: [c]"),
        native("entrypoint: [/e], arguments: [c]"),
    ),
    (
        "1.2 working_dir",
        D.format("commands: [y], working_dir: /sub"),
        native("commands: [y], directory: /sub"),
    ),
    ("1.2 mem_limit", D.format("commands: [y], mem_limit: 1g"), native("commands: [y], memory: 1g")),
    ("1.2 pull always", D.format("commands: [y], pull: always"), native("commands: [y], pull: always")),
    ("1.2 pull if-not-exists", D.format("commands: [y], pull: if-not-exists"), native("commands: [y]")),
    ("1.2 pull never", D.format("commands: [y], pull: never"), native("commands: [y], pull: never")),
    ("1.2 failure fast", D.format("commands: [y], failure: fast"), native("commands: [y], failure: stop")),
    (
        "4.1 numbers in settings",
        D.format("settings: {v: 1.10, y: yes, e: ''}"),
        native("settings: {v: '1.1', y: 'true'}"),
    ),
    (
        "1.2 volumes temp",
        D.format("commands: [y], volumes: [{name: c, path: /c}]") + "volumes: [{name: c, temp: {}}]",
        native("commands: [y], volumes: ['c:/c']") + "volumes: {c: {}}",
    ),
    (
        "1.2 volumes memory",
        D.format("commands: [y], volumes: [{name: c, path: /c}]")
        + "volumes: [{name: c, temp: {medium: memory}}]",
        native("commands: [y], volumes: ['c:/c']") + "volumes: {c: {memory: true}}",
    ),
    (
        "1.2 volumes host",
        D.format("commands: [y], volumes: [{name: c, path: /c}]")
        + "volumes: [{name: c, host: {path: /srv}}]",
        native("commands: [y], volumes: ['/srv:/c']"),
    ),
    (
        "1.1 platform",
        D.format("commands: [y]") + "platform: {os: linux, arch: arm64}",
        native("commands: [y]") + "labels: {platform: linux/arm64}",
    ),
    (
        "1.1 node",
        D.format("commands: [y]") + "node: {zone: a}",
        native("commands: [y]") + "labels: {zone: a}",
    ),
    (
        "1.2 clone depth",
        D.format("commands: [y]") + "clone: {depth: 50}",
        native("commands: [y]", top=_BASE.replace("depth: 0", "depth: 50") + _EVENTS),
    ),
    (
        "1.2 clone disable",
        D.format("commands: [y]") + "clone: {disable: true}",
        native("commands: [y]", top=_BASE.replace("clone: {depth: 0}", "skip_clone: true") + _EVENTS),
    ),
    (
        "1.2 concurrency",
        D.format("commands: [y]") + "concurrency: {limit: 1}",
        native("commands: [y]") + "concurrency: {limit: 1}",
    ),
    (
        "1.2 workspace",
        D.format("commands: [y]") + "workspace: {base: /go, path: src}",
        native("commands: [y]", top=_BASE.replace("{base: /drone/src}", "{base: /go, path: src}") + _EVENTS),
    ),
    (
        "1.2 services",
        D.format("commands: [y]") + "services: [{name: db, image: 'pg:1', ports: [5432]}]",
        native("commands: [y]") + "services: [{name: db, image: 'pg:1'}]",
    ),
    (
        "1.2 image_pull_secrets",
        D.format("commands: [y]") + "image_pull_secrets: [reg]",
        native("commands: [y]") + "pull_secrets: [reg]",
    ),
    (
        "1.3 trigger",
        D.format("commands: [y]") + "trigger: {event: [push], branch: {exclude: [x]}}",
        native("commands: [y]", top=_BASE + "when: {event: [push], branch: {exclude: [x]}}\n"),
    ),
]
EVENTS: list[tuple[str, dict[str, Any]]] = [
    ("push", {}),
    ("tag", {"tag": "v1"}),
    ("pull_request", {}),
    ("cron", {"cron": "nightly"}),
    ("deployment", {"deploy_target": "prod"}),
    ("manual", {}),
]


def jobs(text: str, file: str, dialect: str, kind: str, more: dict[str, Any]) -> tuple[JobSpec, ...]:
    event = event_of(kind, branch="main", **more)
    return build_jobs({file: text}, event, CONTEXT, dialect=dialect).jobs


@pytest.mark.parametrize(
    ("theirs", "ours"), [row[1:] for row in WOODPECKER], ids=[row[0] for row in WOODPECKER]
)
def test_a_key_of_woodpecker_means_the_same(theirs: str, ours: str) -> None:
    for kind, more in EVENTS:
        found = jobs(theirs, ".woodpecker/p.yml", "woodpecker", kind, more)
        assert found == jobs(ours, ".ci/p.yml", "native", kind, more)


@pytest.mark.parametrize(("theirs", "ours"), [row[1:] for row in DRONE], ids=[row[0] for row in DRONE])
def test_a_key_of_drone_means_the_same(theirs: str, ours: str) -> None:
    for kind, more in EVENTS:
        found = jobs(theirs, ".drone.yml", "drone", kind, more)
        assert found == jobs(ours, ".ci/p.yml", "native", kind, more)


TABLES = [
    *(
        ("woodpecker", table)
        for table in (woodpecker.PIPELINE, woodpecker.STEP, woodpecker.SERVICE, woodpecker.CONDITION)
    ),
    *(
        ("drone", table)
        for table in (drone.PIPELINE, drone.STEP, drone.SERVICE, drone.CLONE, drone_when.CONDITION)
    ),
]


@pytest.mark.parametrize(("dialect", "table"), TABLES, ids=lambda each: getattr(each, "title", each))
def test_every_key_of_a_table_is_on_the_page_for_who_comes_from_there(dialect: str, table: Table) -> None:
    page = re.sub(r"^```.*?^```", "", (DOCS / f"migrate-from-{dialect}.md").read_text(), flags=re.M | re.S)
    named = {word for quoted in re.findall(r"`([^`]+)`", page) for word in re.findall(r"[$\w]+", quoted)}
    assert set(table.rules) <= named
    assert all(rule.source for rule in table.rules.values())


def problems(text: str, dialect: str) -> list[tuple[int, int, str]]:
    try:
        found = parse_all(text, file="x", dialect=dialect)
        given = [problem for pipeline in found for problem in pipeline.warnings]
    except ConfigError as error:
        given = list(error.problems)
    return [(each.line, each.column, each.message) for each in given]


REFUSED = [
    ("woodpecker", "", 'the file is empty; it needs "steps"'),
    (
        "woodpecker",
        W.format("commands: [y], comands: z"),
        '"comands" means nothing in a step, and is left out',
    ),
    ("woodpecker", W.format("commands: [y]") + "\nnetworks: {}", '"networks" is left out: '),
    ("woodpecker", W.format("commands: [y], secrets: [a]"), '"secrets" is out of use'),
    ("woodpecker", W.format("commands: [y], when: {event: pushed}"), 'there is no event "pushed"'),
    ("woodpecker", W.format("commands: [y], volumes: ['a:/b']"), "ends with the job here"),
    ("drone", "pipeline: {a: {image: x}}", "version 0.8 or older"),
    ("drone", "name: x", 'has no "kind"'),
    ("drone", D.format("commands: [y]").replace("docker", "exec"), "it runs on the machine itself"),
    ("drone", D.format("commands: [y]").replace("docker", "kubernetes"), "its pods need a runner"),
    ("drone", D.format("commands: [y]").replace("docker", "dockr"), 'did you mean "docker"?'),
    ("drone", D.format("commands: [y], memswap_limit: 1g"), '"memswap_limit" is left out: '),
    ("drone", D.format("commands: [y], when: {paths: [a]}"), '"paths" is left out: '),
    (
        "drone",
        D.format("commands: [y], pull: sometimes"),
        '"pull" is always, if-not-exists, never or default',
    ),
    (
        "drone",
        D.format("commands: [y]") + "volumes: [{name: workspace, temp: {}}]",
        "cannot be the name of a volume",
    ),
    ("drone", "kind: template\nload: x", "a template is made into a pipeline by the server"),
]


@pytest.mark.parametrize(("dialect", "text", "says"), REFUSED)
def test_what_does_not_run_as_it_stands_is_said(dialect: str, text: str, says: str) -> None:
    assert any(says in message for _, _, message in problems(text, dialect)), problems(text, dialect)


def test_the_documents_of_a_file_are_pipelines_that_wait_for_each_other() -> None:
    text = (
        D.format("commands: [y]")
        + "---\nkind: signature\nhmac: x\n---\n"
        + D.format("commands: [y]").replace("name: p", "name: q")
        + "depends_on: [p]\ntrigger: {status: [failure]}\n...\nkind: nonsense"
    )
    found = jobs(text, ".drone.yml", "drone", "push", {})
    assert [(job.slug, job.depends_on, job.run_on) for job in found] == [
        ("p", (), ("success",)),
        ("q", ("p",), ("failure",)),
    ]


def test_a_long_line_does_not_cut_the_file() -> None:
    text = D.format(f"commands: ['echo {'x' * 100_000}', end]")
    assert jobs(text, ".drone.yml", "drone", "push", {})[0].steps[1].commands[1] == "end"


def test_yaml_is_read_by_the_rules_of_its_time() -> None:
    text = D.format("commands: [y], detach: yes, environment: {A: on, B: 1:30, C: 2020-01-01, D: 0o14}")
    step = jobs(text, ".drone.yml", "drone", "push", {})[0].steps[1]
    assert step.detach
    assert {name: step.environment[name] for name in "ABC"} == {"A": "on", "B": "1:30", "C": "2020-01-01"}


def test_backslashes_are_taken_as_the_originals_substitution_takes_them() -> None:
    text = D.format(r"""commands: ['sed s/a\/b/c\\d/ ${DRONE_TAG/\//x}', "tab\\there"]""")
    step = jobs(text, ".drone.yml", "drone", "push", {})[0].steps[1]
    assert step.commands[0].startswith(r"sed s/a/b/c\d/ ")
    assert step.commands[1] == "tab\there"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("[${DRONE_TAG}, latest]", "v1,latest"),
        ("[${DRONE_TAG:-a, b}, latest]", "v1,latest"),
        ("{a: ${DRONE_TAG}}", '{"a":"v1"}'),
        ("v-${DRONE_TAG##v}", "v-1"),
        ("${DRONE_TAG: 0:1}", "v1"),
        ("'it is ${DRONE_TAG}: #1'", "it is v1: #1"),
    ],
)
def test_references_mean_nothing_to_yaml(value: str, text: str) -> None:
    """The originals fill them in before they read the file."""
    found = jobs(D.format(f"settings: {{tags: {value}}}"), ".drone.yml", "drone", "tag", {"tag": "v1"})
    assert plugin_variables(found[0].steps[1].settings, {}) in ({"PLUGIN_TAGS": text}, {"PLUGIN_TAGS": "v"})


def test_a_file_with_the_characters_of_the_shelter_is_read_as_it_stands() -> None:
    text = D.format("commands: ['\uf5d0 ${DRONE_TAG}']")
    assert (
        jobs(text, ".drone.yml", "drone", "tag", {"tag": "v1"})[0].steps[1].commands[0].startswith("\uf5d0 ")
    )
