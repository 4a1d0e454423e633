"""The docs are held to the code, and their links to what is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel

from ci import protocol
from ci.server.store import repo_settings

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#\s]+)", text)
    broken = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert broken == []


def test_every_command_is_documented() -> None:
    text = (ROOT / "docs/reference/commands.md").read_text()
    missing = [
        point.name
        for point in entry_points(group="shipway.commands")
        if not re.search(f"`shipway {point.name}[` ]", text)
    ]
    assert missing == []


def test_every_command_below_another_and_each_of_its_options_is_documented() -> None:
    """In one row of one table; what every command takes is said once."""
    text = (ROOT / "docs/reference/commands.md").read_text()
    missing = []
    for words, command in _leaves():
        rows = [row for row in text.splitlines() if re.match(rf"\| `{words}[` ]", row)]
        options = {opt for param in command.params for opt in param.opts if opt.startswith("--")}
        lacking = [opt for opt in options - _EVERYWHERE if f"`{opt}`" not in "".join(rows)]
        is_json = "JSON" in "".join(rows)
        if len(rows) != 1 or lacking or is_json != ("--json" in options):
            missing.append((words, lacking))
    assert missing == []


_EVERYWHERE = {"--server", "--json", "--help"}


def _leaves() -> Iterator[tuple[str, Any]]:
    for point in entry_points(group="shipway.commands"):
        loaded = point.load()
        app = loaded if isinstance(loaded, typer.Typer) else typer.Typer(add_completion=False)
        if app is not loaded:
            app.command(point.name)(loaded)
        yield from _below(f"shipway {point.name}", typer.main.get_command(app))


def _below(words: str, command: Any) -> Iterator[tuple[str, Any]]:
    below = getattr(command, "commands", {})
    if not below:
        yield words, command
    for name, each in below.items():
        yield from _below(f"{words} {name}", each)


def test_every_module_of_the_walk_exists() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    paths = set(re.findall(r"`((?:ci|web|runners|tests)/[\w/.-]+\.(?:py|js))`", text))
    assert paths
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


def test_every_message_and_frame_of_the_protocol_is_documented() -> None:
    text = (ROOT / "docs/reference/protocol.md").read_text()
    types = [
        kind.model_fields["type"].default
        for kind in vars(protocol).values()
        if isinstance(kind, type) and issubclass(kind, BaseModel) and "type" in kind.model_fields
    ]
    assert len(types) == 20
    assert [name for name in types if f"| `{name}` |" not in text] == []
    assert [kind.name for kind in protocol.FrameKind if f"`{kind.name}` {kind.value} |" not in text] == []


def test_every_key_of_the_pages_is_documented() -> None:
    keys = re.findall(r'^  \["(.+?)", "(.+?)"\],$', (ROOT / "web/static/app.js").read_text(), re.MULTILINE)
    page = (ROOT / "docs/reference/pages.md").read_text()
    assert len(keys) > 10
    assert [pair for pair in keys if f"| `{pair[0]}` | {pair[1]} |" not in page] == []


def test_every_test_of_the_security_page_is_there_and_no_row_is_missing() -> None:
    text = (ROOT / "docs/security-tests.md").read_text()
    rows = re.findall(r"^\| T(\d+) \|.*\| (.*) \|$", text, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 45))
    assert [cell for _, cell in rows if "::" not in cell and not cell.startswith("with ")] == []
    missing = [
        f"{path}::{name}"
        for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
        if not re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE)
    ]
    assert missing == []


def test_every_setting_of_a_repo_is_documented() -> None:
    text = (ROOT / "docs/reference/repo-settings.md").read_text()
    assert [name for name in repo_settings.NAMES if f"\n| `{name}` |" not in text] == []
