"""The arrows of the house (ARCHITECTURE.md). No escape through TYPE_CHECKING, functions or strings."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("ci", "web", "runners", "plugins")

#: Inside ci/server only to the right: a module may import those of later rings, never of earlier ones.
SERVER_RINGS = (
    ("commands", "user_commands", "vault_commands"),
    ("wiring",),
    ("repos",),
    ("retention",),
    ("pushes",),
    ("inbox",),
    ("starts", "deliveries"),
    ("trigger", "lifecycle"),
    ("approvals",),
    ("queue", "runners", "outbox", "logs", "people", "account", "rotation", "schedules", "hooks", "pauses"),
    ("forges",),
    ("credentials", "secrets", "variables"),
    ("store",),
    ("models", "vault", "auth", "bus"),
    ("config", "clock", "cron", "redact"),
)
#: Third-party modules that only one door may import.
DOORS = {
    "docker": {"runners/engines/docker.py"},
    "starlette": {"web/"},
    "uvicorn": {"web/"},
    "jinja2": {"web/"},
    "sqlalchemy": {"ci/server/store/", "ci/server/models.py"},
    "sqlmodel": {"ci/server/store/", "ci/server/models.py"},
    "alembic": {"ci/server/store/"},
    "sqlite3": {"ci/server/store/"},
    "yaml": {"ci/pipeline/yaml.py"},
}


def modules() -> list[tuple[str, str]]:
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if "/migrations/" not in name:
                found.append((name, path.read_text()))
    return found


def imports(source: str) -> set[str]:
    """Every dotted name that the source imports, wherever the statement stands, or imports by string."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the arrow"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func).rsplit(".", 1)[-1]
            if called in ("import_module", "__import__") and node.args:
                found.add(ast.literal_eval(node.args[0]))
    return found


def ring(dotted: str) -> int | None:
    if not dotted.startswith("ci.server."):
        return None
    noun = dotted.removeprefix("ci.server.").split(".")[0]
    for number, nouns in enumerate(SERVER_RINGS):
        if noun in nouns:
            return number
    return None


def violations(name: str, source: str) -> list[str]:
    dotted = name.removesuffix(".py").replace("/", ".")
    own_ring = ring(dotted)
    wrong = []
    for target in sorted(imports(source)):
        if _crosses_packages(name, target):
            wrong.append(f"{name} imports {target}")
        top = target.split(".")[0]
        if top in DOORS and not any(name.startswith(door) for door in DOORS[top]):
            wrong.append(f"{name} imports {target}, which is for {', '.join(DOORS[top])}")
        target_ring = ring(target)
        if own_ring is None or target_ring is None:
            continue
        same_noun = dotted.split(".")[2] == target.split(".")[2]
        if target_ring < own_ring or (target_ring == own_ring and not same_noun):
            wrong.append(f"{name} imports {target}, against the arrows of ci/server")
    return wrong


def _crosses_packages(name: str, target: str) -> bool:
    own, top = name.split("/")[0], target.split(".")[0]
    if top not in PACKAGES:
        return False
    if own == "ci":
        is_pure = not name.startswith("ci/server/")
        is_client = name.startswith("ci/client/")
        above = ("ci.server", "ci.pipeline") if is_client else ("ci.server",)
        return top != "ci" or (is_pure and target.startswith(above))
    if own == "web":
        return top not in ("ci", "web")
    if own == "plugins":
        return top != "plugins"
    uses_language = target.startswith("ci.pipeline") and not name.startswith("runners/exec/")
    return top not in ("ci", "runners") or target.startswith("ci.server") or uses_language


def test_every_import_follows_the_arrows_of_the_house() -> None:
    wrong = [line for name, source in modules() for line in violations(name, source)]
    assert wrong == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("ci/spec.py", "from ci.server import models"),
        ("ci/spec.py", "def f():\n    import web.app"),
        ("runners/link.py", "if TYPE_CHECKING:\n    from ci.server import queue"),
        ("runners/link.py", "import importlib\nimportlib.import_module('ci.server.queue')"),
        ("runners/job.py", "from ci.pipeline import parse"),
        ("ci/server/queue.py", "from ci.server import inbox"),
        ("ci/client/http.py", "from ci.server import auth"),
        ("ci/client/http.py", "from ci.pipeline import parse"),
        ("ci/server/lifecycle.py", "from ci.server import trigger"),
        ("web/pages.py", "import docker"),
        ("web/pages.py", "import sqlalchemy"),
        ("plugins/ssh.py", "import ci.errors"),
    ],
)
def test_a_planted_import_against_the_arrows_is_found(name: str, source: str) -> None:
    assert violations(name, source)


def test_peers_are_named_only_where_their_files_are_translated() -> None:
    """Nothing behind the parser knows which dialect a file was written in."""
    allowed = (
        "ci/environ.py",
        "ci/aliases.py",
        "ci/pipeline/lint.py",
        "ci/pipeline/convert.py",
        "ci/pipeline/dialects/",
    )
    naming = [
        name
        for name, source in modules()
        if ("wood" + "pecker" in source.lower() or "dr" + "one" in source.lower())
        and not name.startswith(allowed)
    ]
    assert naming == []
