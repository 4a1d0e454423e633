"""The schema is what the parser does and what the documentation says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ci.errors import ConfigError
from ci.pipeline import includes, schema
from ci.pipeline.includes import Library
from ci.pipeline.parse import parse, parse_all

PAGE = (Path(__file__).parent.parent.parent / "docs/reference/pipeline.md").read_text()


@pytest.mark.parametrize("section", schema.SECTIONS, ids=lambda section: section.title)
def test_the_page_has_the_table_of_each_section(section: schema.Section) -> None:
    assert schema.table(section) in PAGE


def test_every_example_of_the_page_is_a_pipeline() -> None:
    examples = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert len(examples) >= 2
    part = "steps: {test: {image: golang, commands: [go test]}}"
    for example in examples:
        library = Library(texts={each.name: part for each in includes.wanted(example, ".ci.yml")})
        try:
            assert parse_all(example, library=library)[0].warnings == ()
        except ConfigError as error:
            assert all("not yet supported" in problem.message for problem in error.problems)


def wrapped(title: str, key: str) -> str:
    step = "image: b, commands: x"
    return {
        "a pipeline": f"{key}: x\nsteps: {{a: {{{step}}}}}",
        "a step": f"steps: {{a: {{{step}, {key}: x}}}}",
        "a service": f"services: {{a: {{image: b, {key}: x}}}}\nsteps: {{a: {{{step}}}}}",
        "a clone": f"clone: {{{key}: true}}\nsteps: {{a: {{{step}}}}}",
        "a condition": f"when: {{{key}: x}}\nsteps: {{a: {{{step}}}}}",
    }[title]


@pytest.mark.parametrize(
    ("title", "key"),
    [
        (section.title, key.name)
        for section in schema.SECTIONS
        for key in section.keys.values()
        if not key.is_ready
    ],
)
def test_a_key_that_is_not_there_yet_is_refused_as_such(title: str, key: str) -> None:
    with pytest.raises(ConfigError, match=rf'"{key}" in {title} is not yet supported'):
        parse(wrapped(title, key))


@pytest.mark.parametrize(
    ("title", "key"),
    [(section.title, key.name) for section in schema.SECTIONS[:4] for key in section.ready],
)
def test_a_key_of_the_schema_is_never_unknown(title: str, key: str) -> None:
    try:
        parse(wrapped(title, key))
    except ConfigError as error:
        assert "unknown key" not in str(error)
        assert "not yet" not in str(error)
