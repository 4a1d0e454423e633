"""Every row of the reference's tables has a test: `tests/rows.tsv` names it, and a missing one fails here."""

from __future__ import annotations

import ast
import csv
import re
from functools import lru_cache
from pathlib import Path

import pytest

from ci.environ import TABLE
from ci.pipeline import schema
from ci.pipeline.compile import build_jobs
from ci.pipeline.parse import parse_all
from ci.pipeline.plan import CONTEXT, event_of

ROOT = Path(__file__).parents[2]
ROWS = list(
    csv.DictReader((ROOT / "tests/rows.tsv").read_text().splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
)
SECTIONS = (
    *(schema.CONDITION, schema.PATTERNS, schema.EVENTS, schema.PATHS, schema.MATRIX),
    *(schema.RETRY, schema.READY),
)


def documented(page: str, heading: str) -> list[str]:
    """The first cells of the first table below a heading."""
    text = (ROOT / "docs/reference" / page).read_text().partition(heading)[2]
    found = []
    for line in text.splitlines():
        if line.startswith("| "):
            found.append(line.split(" | ")[0].removeprefix("| ").strip())
        elif found and not line.startswith("|-"):
            break
    return found[1:]


def wanted() -> set[tuple[str, str]]:
    found = {(section.title, key.name) for section in SECTIONS for key in section.ready}
    found |= {("settings", row) for row in documented("plugins.md", "## Settings become variables")}
    found |= {("lint", row) for row in documented("lint.md", "Warnings are for what works")}
    sentence = (
        (ROOT / "docs/reference/pipeline.md")
        .read_text()
        .partition("**Patterns.**")[2]
        .partition("backslash")[0]
    )
    return found | {("globs", each) for each in re.findall(r"`([^`]+)`", sentence)}


@lru_cache
def functions(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds))


def test_every_row_of_the_tables_has_a_test_and_every_test_is_there() -> None:
    assert {(row["table"], row["row"]) for row in ROWS} == wanted()
    for row in ROWS:
        file, _, name = row["test"].partition("::")
        assert name in functions(file), row["test"]


@pytest.mark.parametrize(
    "key", [key.name for key in schema.CONDITION.ready if key.name not in ("evaluate", "outputs")]
)
def test_each_condition_is_in_the_table_of_conditions(key: str) -> None:
    assert f"{key}:" in (ROOT / "tests/unit/test_when.py").read_text()


@pytest.mark.parametrize("name", TABLE)
def test_each_variable_is_made_or_said_to_be_missing(name: str) -> None:
    """Its row of docs/reference/variables.md; what it holds is in tests/unit/test_environ.py."""
    page = (ROOT / "docs/reference/variables.md").read_text()
    assert f"`{name}`" in page or name.removeprefix("CI_PREV_") in page


STEP = "steps:\n- name: a\n  image: x\n  "
WARNINGS = {
    "`CI_... replaces our variable of that name`": STEP + "commands: [y]\n  environment: {CI_X: y}",
    "`no shell can export ...`": STEP + "commands: [y]\n  environment: {a-b: y}",
    "`may change what its image does`": STEP + "settings: {a: b}\n  environment: {LD_PRELOAD: y}",
    "`has a comma in it`": STEP + "settings: {a: ['b,c', d]}",
    "`has commands and settings`": STEP + "settings: {a: b}\n  commands: [y]",
    "`the shell fills in ..., and does not in single quotes`": STEP
    + "commands: [\"echo '${CI_COMMIT_BRANCH}'\"]",
    '`"$$" means one "$"`': STEP + "commands: [echo $$]",
    "`this row excludes nothing`": STEP + "commands: [y]\nmatrix: {A: [1], exclude: [{A: 2}]}",
    '`"status" says nothing`': STEP + "commands: [y]\nwhen: {status: failure}",
    "`mean nothing here: jobs run in Docker`": STEP
    + "commands: [y]\n  backend_options: {kubernetes: {a: b}}",
    "`is out of use`": "pipeline: {a: {image: x, commands: [y]}}",
    "`means nothing in ..., and is left out`": STEP + "commands: [y]\n  nonsense: z",
    "`is left out: ...`": STEP + "commands: [y]\nnetworks: {}",
}
OF_OTHERS = ("`is out of use`", "`means nothing in ..., and is left out`", "`is left out: ...`")


@pytest.mark.parametrize("row", WARNINGS)
def test_a_warning(row: str) -> None:
    """Each row of the page of lint has a file that brings it."""
    dialect = "woodpecker" if row in OF_OTHERS else "native"
    (pipeline,) = parse_all(WARNINGS[row], dialect=dialect)
    pattern = ".*".join(re.escape(part) for part in row.strip("`").split("..."))
    assert [each for each in pipeline.warnings if re.search(pattern, each.message)], pipeline.warnings


def test_too_many_changed_files_are_not_compared() -> None:
    patterns = ", ".join(f"'{'a' * 90}{number}/**'" for number in range(100))
    text = STEP + f"commands: [y]\n  when: {{path: [{patterns}]}}"
    files = tuple(f"{'b' * 90}{number}" for number in range(450)) * 80
    event = event_of("push", branch="main", changed_files=files)
    found = build_jobs({".ci.yml": text}, event, CONTEXT)
    assert "too many files changed" in found.warnings[0].message
