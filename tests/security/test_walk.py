"""The golden walk: every route, each visitor, on a private and a public repo.

tests/golden/routes.txt says what each gets. `SHIPWAY_GOLDEN=write pytest tests/security/test_walk.py` writes
it anew: read the difference as a change of rights. yes: admitted; sign-in: 401, or sent to the door; no: 403;
hidden: 404, as if it were not there; refused: a socket that is not opened.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path

import httpx

from tests.walk import ORIGIN, REPOS, VISITORS, Town, is_of_a_repo, path_of, socket_opens
from web.guard import Policy
from web.routes import Entry

GOLDEN = Path(__file__).parents[1] / "golden/routes.txt"
_WORDS = {401: "sign-in", 403: "no", 404: "hidden"}


def word(answer: httpx.Response) -> str:
    if answer.text == "reached":
        return "yes"
    if answer.status_code == 303 and answer.headers["location"].startswith("/sign-in"):
        return "sign-in"
    return _WORDS.get(answer.status_code, str(answer.status_code))


async def ask(here: Town, client: httpx.AsyncClient, visitor: str, entry: Entry, path: str) -> str:
    if entry.kind == "socket":
        is_open = await socket_opens(client._transport.app, path, here.cookies_of(visitor))  # type: ignore[attr-defined]
        return "yes" if is_open else "refused"
    (method,) = entry.methods
    if method == "GET":
        return word(await client.get(path))
    return word(await client.request(method, path, data={"csrf": here.csrf(visitor)}, headers=ORIGIN))


async def git(here: Town, client: httpx.AsyncClient, visitor: str, path: str) -> str:
    headers = {}
    if visitor != "anonymous":
        pair = base64.b64encode(f"x:{here.tokens[visitor]}".encode()).decode()
        headers = {"authorization": f"Basic {pair}"}
    answer = await client.get(path, headers=headers)
    return "yes" if answer.status_code == 200 else word(answer)


async def walk(here: Town) -> list[str]:
    application = here.admitting()
    found: dict[tuple[str, ...], list[str]] = {}
    for visitor in VISITORS:
        async with here.visit(application, visitor) as client:
            for entry in here.table:
                for kind, name in REPOS.items() if is_of_a_repo(entry) else (("-", ""),):
                    path = path_of(entry, name=name or "app")
                    for method in entry.methods or (entry.kind,):
                        if entry.kind == "mount":
                            continue
                        key = (method, entry.path, entry.policy.value, kind)
                        found.setdefault(key, []).append(await ask(here, client, visitor, entry, path))
            for kind, name in REPOS.items():
                for service in ("git-upload-pack", "git-receive-pack"):
                    path = f"/git/ada/{name}.git/info/refs?service={service}"
                    key = ("GET", f"/git/{{owner}}/{{name}}.git {service}", Policy.GIT.value, kind)
                    found.setdefault(key, []).append(await git(here, client, visitor, path))
    head = ("", "", "", "repo", *VISITORS)
    lines = [head, *((*key, *words) for key, words in sorted(found.items(), key=lambda pair: pair[0][1:]))]
    return [_line(line) for line in lines]


def _line(cells: tuple[str, ...]) -> str:
    widths = (7, 60, 17, 8, *(10 for _ in VISITORS))
    return " ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


async def test_each_visitor_gets_of_each_route_what_the_golden_table_says(here: Town) -> None:
    text = "\n".join(await walk(here)) + "\n"
    if os.environ.get("SHIPWAY_GOLDEN") == "write":
        GOLDEN.write_text(text)
    assert text.splitlines() == GOLDEN.read_text().splitlines()


def lines() -> list[list[str]]:
    return [line.replace("git git-", "git-").split() for line in GOLDEN.read_text().splitlines()[1:]]


def test_the_golden_table_itself_is_sane() -> None:
    """Rules that no regenerated table may break."""
    for line in lines():
        cells = dict(zip(VISITORS, line[-len(VISITORS) :], strict=True))
        policy, kind = line[-len(VISITORS) - 2 : -len(VISITORS)]
        if kind == "private":
            assert cells["anonymous"] in ("sign-in", "refused"), line
            assert cells["stranger"] in ("hidden", "refused"), line
        if policy in ("repo:administer",):
            assert cells["reader"] != "yes" and cells["writer"] != "yes", line
        if policy in ("people:manage", "runners:manage", "server:manage"):
            assert [name for name in VISITORS if cells[name] == "yes"] == ["root"], line
        if policy not in ("public", "setup", "hook", "push", "runner", "git") and kind != "public":
            assert cells["anonymous"] != "yes", line
