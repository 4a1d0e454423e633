"""What several commands take: which server, which repo, whether JSON is wanted."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Annotated

import typer

from ci.client.http import Api
from ci.client.servers import choose
from ci.errors import Invalid

ServerOption = Annotated[
    str,
    typer.Option(
        "--server", metavar="URL", help="Which server. [SHIPWAY_URL, else where you signed in last]"
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print exactly what the API answers.")]
RepoArgument = Annotated[
    str, typer.Argument(metavar="[REPO]", help="OWNER/NAME; inside a git clone its remote.")
]
RepoOption = Annotated[
    str, typer.Option("--repo", metavar="OWNER/NAME", help="Of this repo; left out: of the git clone's.")
]
OwnerOption = Annotated[str, typer.Option("--owner", metavar="OWNER", help="Of all repos of an owner.")]
WideOption = Annotated[bool, typer.Option("--server-wide", help="Of every repo of the server.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
LimitOption = Annotated[int, typer.Option(min=1, max=100, help="How many.")]
BeforeOption = Annotated[int | None, typer.Option(help="Only those with a smaller id.")]
BuildArgument = Annotated[
    str,
    typer.Argument(
        metavar="[BUILD]",
        help="OWNER/NAME/NUMBER, OWNER/NAME for the newest, or a link; in a git clone NUMBER or nothing.",
    ),
]


def connect(server: str) -> Api:
    """The API of the server that is meant."""
    return Api(choose(server, os.environ))


def group(help_text: str) -> typer.Typer:
    """A command with commands of its own."""
    return typer.Typer(
        add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, help=help_text
    )


def pairs(option: str, texts: Iterable[str] | None) -> dict[str, str]:
    """`NAME=VALUE` of an option that may be repeated. Raises Invalid."""
    found: dict[str, str] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise Invalid(f"{option} {text!r} is not NAME=VALUE")
        found[name] = value
    return found
