"""What every command takes: which server, and whether JSON is wanted."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from ci.client.http import Api
from ci.client.servers import choose

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
