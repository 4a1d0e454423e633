"""The one map from our errors to HTTP, and the page that promises it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ci.errors import ConfigError, Problem, ShipwayError
from web import problems

DOCS = (Path(__file__).parents[2] / "docs/reference/api.md").read_text()


def kinds(kind: type[ShipwayError] = ShipwayError) -> Iterator[type[ShipwayError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from kinds(below)


@pytest.mark.parametrize("code", sorted({kind.code for kind in kinds() if kind.__module__ != "__main__"}))
def test_every_code_has_a_title_and_stands_in_the_reference(code: str) -> None:
    assert code in problems.TITLES
    assert f"| `{code}` |" in DOCS


def test_a_pipeline_file_that_cannot_be_used_gives_each_mistake_with_its_place() -> None:
    body = problems.body(ConfigError([Problem(message="unknown key", line=4, column=5)]))
    assert body["status"] == 422
    assert body["problems"] == [
        {"message": "unknown key", "file": ".ci.yml", "line": 4, "column": 5, "is_warning": False}
    ]
