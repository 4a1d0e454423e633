"""Real public files: each is accepted, or refused for a reason that is written down; converted, it does the
same."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ci.errors import ConfigError
from ci.pipeline.compile import Compiled, build_jobs
from ci.pipeline.convert import converted_from
from ci.pipeline.model import Pipeline
from ci.pipeline.parse import parse_all
from ci.pipeline.plan import CONTEXT, event_of
from tests.corpus import CORPUS

EXPECT = Path(__file__).parents[1] / "corpus/expect.tsv"
ROWS = list(csv.DictReader(EXPECT.read_text().splitlines(), delimiter="\t"))
pytestmark = pytest.mark.skipif(not CORPUS.exists(), reason="the corpus is not here")

EVENTS: list[tuple[str, dict[str, Any]]] = [
    ("push", {}),
    ("tag", {"tag": "v1.2.3"}),
    ("pull_request", {}),
    ("manual", {}),
]
#: In the dialects too: a pipeline that another file of the same repo holds.
_STEPS = "steps: [{name: x, image: y, commands: [z]}]\n"


def paths() -> dict[str, str]:
    index = csv.DictReader((CORPUS / "INDEX.tsv").read_text().splitlines(), delimiter="\t")
    return {row["file"]: row["path"] for row in index}


def parsed(row: Mapping[str, str], path: str) -> tuple[Pipeline, ...]:
    return parse_all((CORPUS / row["file"]).read_bytes(), file=path, dialect=row["dialect"])


def test_each_file_is_accepted_or_refused_as_it_is_expected() -> None:
    known = paths()
    assert {row["file"] for row in ROWS} == set(known), "every file of the corpus has its row"
    wrong = []
    for row in ROWS:
        assert row["expect"] == "accepted" or row["why"], row["file"]
        try:
            parsed(row, known[row["file"]])
            found = "accepted"
        except ConfigError:
            found = "refused"
        if found != row["expect"]:
            wrong.append((row["file"], found))
    assert wrong == []


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row["expect"] == "accepted"], ids=lambda row: row["file"]
)
def test_a_converted_file_makes_the_same_jobs(row: dict[str, str]) -> None:
    path = paths()[row["file"]]
    source = (CORPUS / row["file"]).read_bytes()
    pipelines = parsed(row, path)
    missing = {need.name for pipeline in pipelines for need in pipeline.needs} - {
        pipeline.name for pipeline in pipelines
    }
    head = "kind: pipeline\nname: {}\n" if row["dialect"] == "drone" else ""
    beside = {f"z/{name}.yml": head.format(name) + _STEPS for name in missing}
    native = dict(converted_from(source, file=path, dialect=row["dialect"]).files)
    native |= {f".ci/{name}.yml": f"name: {name}\n{_STEPS}" for name in missing}
    for kind, more in EVENTS:
        event = event_of(kind, branch="main", **more)
        files = {path: source.decode(), **beside}
        before = specs(lambda: build_jobs(files, event, CONTEXT, dialect=row["dialect"]), missing)  # noqa: B023
        after = specs(lambda: build_jobs(native, event, CONTEXT), missing)  # noqa: B023
        assert before == after


def specs(build: Any, missing: set[str]) -> dict[str, Any] | str:
    """By slug, without those of the files beside it; a build that cannot be made is one word."""
    try:
        found: Compiled = build()
    except ConfigError:
        return "refused"
    jobs = {job.slug: job.model_dump() for job in found.jobs if job.name not in missing}
    if missing:  # the files beside it stand elsewhere in the order
        for job in jobs.values():
            job["environment"].pop("CI_WORKFLOW_NUMBER", None)
    return jobs
