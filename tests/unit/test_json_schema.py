"""The JSON Schema of pipeline files: made of the one schema, and true of real files."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from ci.pipeline import json_schema, schema

ROOT = Path(__file__).parents[2]
FILES = sorted([*ROOT.glob("examples/*/.ci.yml"), *ROOT.glob("tests/golden/*.yml"), ROOT / ".ci.yml"])
DOCUMENT = json_schema.document()


def test_it_is_a_json_schema_and_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    jsonschema.Draft202012Validator.check_schema(DOCUMENT)
    assert json_schema.command() == 0
    assert json.loads(capsys.readouterr().out) == DOCUMENT


def test_every_key_that_is_there_is_in_it_with_its_meaning() -> None:
    for section in schema.SECTIONS:
        found = DOCUMENT["$defs"][json_schema.name_of(section)]["properties"]
        assert {name: each["description"] for name, each in found.items()} == {
            key.name: key.meaning for key in section.ready
        }


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_our_files_are_valid(file: Path) -> None:
    jsonschema.validate(yaml.safe_load(file.read_text()), DOCUMENT)


@pytest.mark.parametrize(
    "text",
    [
        "stepz: {}",
        "steps: {a: {image: b, comands: c}}",
        "steps: {a: {image: b, detach: perhaps}}",
        "steps: {a: {image: b, failure: never}}",
        "skip_clone: true",
    ],
)
def test_what_lint_refuses_an_editor_marks(text: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text), DOCUMENT)
