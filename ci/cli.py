"""The one console command. Commands register themselves as entry points (`shipway.commands`), so nothing
here imports upward, and `shipway lint` does not pay for the server's imports."""

from __future__ import annotations

import difflib
import os
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
            print(f"  {name:<11} {_summary(point.load())}")
        except ImportError as error:
            print(f"  {name:<11} (needs an extra: {error})")


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
    commands = _commands()
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        _print_help(commands)
        sys.exit(0 if arguments else 2)
    if arguments[0] in ("-V", "--version", "version"):
        print(f"shipway {__version__}")
        return
    if arguments[0] == "complete":  # asked by the shell: see ci/completion.py
        _print_completions(arguments[2:] if arguments[1:2] == ["--"] else arguments[1:])
        return
    point = commands.get(arguments[0])
    if point is None:
        sys.exit(_fail(_unknown(arguments[0], list(commands)), 2))
    sys.exit(_guarded(point, arguments[1:]))


def _print_completions(words: list[str]) -> None:
    from ci.client import complete
    from ci.completion import candidates

    for each in candidates(words, complete.values):
        print(each)


def _guarded(point: EntryPoint, arguments: list[str]) -> int:
    """The command's exit code, whatever it raises that a person is meant to read."""
    import typer

    try:
        code = _run(point, arguments)
        sys.stdout.flush()
        return code
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except typer.TyperException as error:
        words = str(getattr(error, "format_message", error.__str__)()).rstrip(".")
        if not words:  # a group without a command: its help has been shown
            return 2
        path = getattr(getattr(error, "ctx", None), "command_path", f"shipway {point.name}")
        return _fail(f"{words}. `{path} --help` explains what there is.", 2)
    except SystemExit as leaving:  # typer's own word for a broken pipe
        if not isinstance(leaving.__context__, BrokenPipeError):
            raise
        return 0
    except BrokenPipeError:  # who read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ShipwayError as error:
        return _fail(str(error), 2 if isinstance(error, Invalid) else 3)
    except ImportError as error:
        extra = "runner" if point.name == "runner" else "server"
        return _fail(f"{error}: `shipway {point.name}` needs `pip install 'shipway[{extra}]'`", 3)


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"there is no command {name!r}{hint} There are {', '.join(sorted(known))}."


def _fail(sentence: str, code: int) -> int:
    print(f"shipway: {sentence}", file=sys.stderr)
    return code
