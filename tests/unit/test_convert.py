"""`shipway convert`, and the YAML that it writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ci.errors import Invalid
from ci.pipeline import yaml, yaml_comments, yaml_dump
from ci.pipeline.convert import convert, converted_from
from ci.pipeline.problems import Mark, Problems
from ci.pipeline.yaml import Kind, Mapping, Node, Scalar, Sequence
from ci.pipeline.yaml_rules import NATIVE

NOWHERE = Mark()


def load(text: str) -> Node:
    found = yaml.load(text, Problems(file="x"))
    assert found is not None
    return found


def bare(node: Node) -> object:
    """Without marks, and whether a scalar had quotes."""
    match node:
        case Scalar(text=text, kind=kind):
            return (kind, "" if kind is Kind.NULL else text)
        case Sequence(items=items):
            return [bare(item) for item in items]
        case Mapping(entries=entries):
            return {key.text: bare(value) for key, value in entries}


TEXTS = st.text(
    st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\ufeff\ufffe\uffff"), max_size=20
) | st.sampled_from(
    [
        *("", "yes", "null", "1.10", "~", "- a", "a: b", "a #b", "#a", "'", '"', "a\nb", "a\nb\n", "\n"),
        *("a\n\n", " a", "a ", " a\n  b\n", "\ta", "a\tb", "!x", "&x", "*x", "%x", "@x", "`x", "{a}", "[a]"),
        *("a,b", "\\n", "---", "...", "x" * 200, "a\n b\n\n\nc", "? a", ": a", "=", "<<", "\u2028", "0x1f"),
        *("1e3", ".5", "true", "-", "?", ":", "a:", "\x85", "\xa0", "a\u200bb"),
    ]
)
SCALARS = TEXTS.map(lambda text: Scalar(text, NOWHERE, Kind.TEXT)) | st.sampled_from(
    ["1", "0x1f", "true", "False", "1.5", "null", ""]
).map(lambda text: Scalar(text, NOWHERE, NATIVE.kind_of(text), is_plain=True))


def mapping(pairs: dict[str, Node]) -> Mapping:
    return Mapping(tuple((Scalar(key, NOWHERE), value) for key, value in pairs.items()), NOWHERE)


TREES: st.SearchStrategy[Node] = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda items: Sequence(tuple(items), NOWHERE))
        | st.dictionaries(TEXTS.filter(lambda text: text != "<<"), inner, max_size=4).map(mapping)
    ),
    max_leaves=12,
)


@given(TREES.filter(lambda node: not isinstance(node, Scalar)))
@settings(max_examples=500)
def test_what_is_written_reads_back_as_the_same_tree(tree: Node) -> None:
    assert bare(load(yaml_dump.dump(tree))) == bare(tree)


def test_it_is_written_as_people_write_it() -> None:
    text = """\
steps:
  - name: build
    image: golang:1.22
    commands:
      - go build ./...
      - |
        if true; then
          echo yes
        fi
    environment:
      A: 'yes'
      B: '1.10'
      C: ''
      D: null

when:
  event: [push, tag]

volumes: {}
"""
    assert yaml_dump.dump(load(text)) == text


COMMENTED = """\
# The head.
# Of two lines.
steps:
  # Before the item.
  - name: a
    image: b  # at the end of a line
    # Of the commands.
    commands:
      # Of the first.
      - echo one
      - |
        # no comment
        echo two

    # After an empty line.
    when:
      branch: main
# Of nothing.
"""


def test_comments_above_keys_and_items_are_found_and_no_others() -> None:
    found = yaml_comments.above(COMMENTED, yaml.long_scalars(COMMENTED))
    assert found == {
        Mark(3, 1): ("# The head.", "# Of two lines."),
        Mark(5, 3): ("# Before the item.",),
        Mark(5, 5): ("# Before the item.",),
        Mark(8, 5): ("# Of the commands.",),
        Mark(10, 7): ("# Of the first.",),
        Mark(10, 9): ("# Of the first.",),
        Mark(16, 5): ("# After an empty line.",),
    }


def test_comments_are_written_where_they_stood() -> None:
    comments = yaml_comments.above(COMMENTED, yaml.long_scalars(COMMENTED))
    written = yaml_dump.dump(load(COMMENTED), comments)
    assert written.count("# ") == 7
    again = yaml_comments.above(written, yaml.long_scalars(written))
    assert list(again.values()) == list(comments.values())


DRONE = """\
# Checks everything.
kind: pipeline
type: docker
name: zeta
steps:
# The one step.
- name: test
  image: golang
  commands:
  - go test ${DRONE_TAG} $${HOME} ${NOBODY}
  environment: { GO111MODULE: on }
---
kind: pipeline
name: alpha
depends_on: [zeta]
steps:
- name: publish
  image: plugins/docker
  settings: { tag: 1.10, empty: "", repo: "a/${NOBODY:-b}" }
"""


def test_documents_become_files_in_their_order_with_their_comments() -> None:
    found = converted_from(DRONE.encode(), file=".drone.yml", dialect="drone")
    assert list(found.files) == [".ci/1-zeta.yml", ".ci/2-alpha.yml"]
    first, second = found.files.values()
    assert "  # The one step.\n  - name: test\n    image: golang\n" in first
    assert "go test ${DRONE_TAG} $${HOME} $${NOBODY}" in first
    assert "GO111MODULE: 'on'" in first
    assert "depends_on: [zeta]" in second
    assert "tag: '1.1'" in second or "tag: 1.1" in second
    assert "repo: a/b" in second and "empty" not in second


def test_a_file_is_printed_or_written_and_nothing_is_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / ".woodpecker.yml"
    file.write_text("steps:\n  a:\n    image: b\n    commands: c\n")
    assert convert(file) == 0
    printed = capsys.readouterr().out
    assert convert(file, output=tmp_path) == 0
    assert (tmp_path / ".ci.yml").read_text() == printed
    with pytest.raises(Invalid, match="is there already"):
        convert(file, output=tmp_path)
    assert (tmp_path / ".ci.yml").read_text() == printed


def test_a_file_that_cannot_be_used_is_not_converted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / ".drone.yml"
    file.write_text("pipeline:\n  a:\n    image: b\n")
    assert convert(file) == 2
    assert "0.8" in capsys.readouterr().err
    with pytest.raises(Invalid, match="cannot be read"):
        convert(tmp_path / "nowhere.yml")
