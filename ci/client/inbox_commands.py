"""`shipway inbox`: what reached the server for a repo, and what became of it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ci.client import place
from ci.client.command import Answer, said, speaks, table
from ci.client.http import Api
from ci.client.options import BeforeOption, RepoArgument, RepoOption, group
from ci.client.output import ago, show_facts
from ci.client.terminal import plain

inbox = group("The inbox of a repo: each delivery, its verdict, its body, and looking at it again.")

DeliveryArgument = Annotated[int, typer.Argument(metavar="ID", help="Of the delivery.")]


@inbox.command("ls")
@speaks
def list_deliveries(api: Api, repo: RepoArgument = "", before: BeforeOption = None) -> Answer:
    """The newest deliveries: built, skipped because, refused because."""
    where = place.repo(repo, api.account.url)
    found = api.get(f"{where.api}/inbox", before=before)
    rows = [
        (str(each["id"]), ago(each["received_at"]), each["by"], each["what"], _verdict(each))
        for each in found["deliveries"]
    ]
    empty = f"nothing has reached the server for {where} yet: push, or look at the deliveries of its webhook"
    columns = ("ID", "CAME", "BY", "WHAT", "WHAT BECAME OF IT")
    return table(found, columns, rows, empty=empty, is_last_below=True)


@inbox.command()
@speaks
def show(api: Api, delivery: DeliveryArgument, repo: RepoOption = "") -> Answer:
    """One delivery with its body; what looks like a secret is taken out of it."""
    found = api.get(f"{place.repo(repo, api.account.url).api}/inbox/{delivery}")
    return Answer(found=found, show=lambda: _show(found))


@inbox.command()
@speaks
def replay(api: Api, delivery: DeliveryArgument, repo: RepoOption = "") -> Answer:
    """Look again at a delivery that made no build."""
    found = api.post(f"{place.repo(repo, api.account.url).api}/inbox/{delivery}/replay")
    return said(found, f"{delivery}: {_verdict(found)}")


def _verdict(found: dict[str, Any]) -> str:
    return str(found["verdict"]) or "is not decided yet"


def _show(found: dict[str, Any]) -> None:
    show_facts(
        [
            ("delivery", found["delivery"]),
            ("came", ago(found["received_at"])),
            ("by", found["by"]),
            ("event", found["event"]),
            ("what", found["what"]),
            ("verdict", _verdict(found)),
            ("builds", ", ".join(map(str, found["builds"]))),
            ("replay", f"shipway inbox replay {found['id']}" if found["is_replayable"] else ""),
        ]
    )
    print()
    for line in found["body"].splitlines():
        print(plain(line))
