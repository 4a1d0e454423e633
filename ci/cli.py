"""The one console command. Commands register themselves as entry points (`shipway.commands`), so nothing
here imports upward, and `shipway lint` does not pay for the server's imports."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from ci import __version__
from ci.errors import Invalid, ShipwayError

USAGE = "usage: shipway COMMAND [OPTIONS]; `shipway COMMAND --help` explains one"


def _commands() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group="shipway.commands")}


def _summary(command: Any) -> str:
    info = getattr(command, "info", None)
    text = info.help if info is not None else command.__doc__
    return next(iter((text or "").strip().splitlines()), "")


def _print_help(commands: dict[str, EntryPoint]) -> None:
    print(f"shipway {__version__}\n{USAGE}\n")
    for name, point in sorted(commands.items()):
        try:
            print(f"  {name:<10} {_summary(point.load())}")
        except ImportError as error:
            print(f"  {name:<10} (needs an extra: {error})")


def _run(point: EntryPoint, arguments: list[str]) -> int:
    import typer

    loaded = point.load()
    if isinstance(loaded, typer.Typer):  # a command with commands of its own
        app = loaded
    else:
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command(point.name)(loaded)
    command = typer.main.get_command(app)
    result = command.main(arguments, prog_name=f"shipway {point.name}", standalone_mode=False)
    return result if isinstance(result, int) else 0


def main() -> None:
    """Exit codes: 0 ok, 1 the build failed, 2 wrong use or config, 3 server or machine, 130 interrupted."""
    import click

    commands = _commands()
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        _print_help(commands)
        sys.exit(0 if arguments else 2)
    if arguments[0] in ("-V", "--version", "version"):
        print(f"shipway {__version__}")
        return
    point = commands.get(arguments[0])
    if point is None:
        known = ", ".join(sorted(commands))
        sys.exit(_fail(f"there is no command {arguments[0]!r}; there are {known}", 2))
    try:
        sys.exit(_run(point, arguments[1:]))
    except click.exceptions.Abort:
        sys.exit(130)
    except click.exceptions.ClickException as error:
        error.show()
        sys.exit(2)
    except ShipwayError as error:
        sys.exit(_fail(str(error), 2 if isinstance(error, Invalid) else 3))


def _fail(sentence: str, code: int) -> int:
    print(f"shipway: {sentence}", file=sys.stderr)
    return code
