"""Completion of `shipway` on the command line: `shipway completion SHELL` prints what a shell reads once, and
that asks `shipway complete -- WORDS...` whenever Tab is pressed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any

import typer

from ci.errors import Invalid

_SCRIPTS = {
    "bash": """\
_shipway() {
  local IFS=$'\\n'
  COMPREPLY=($(shipway complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _shipway shipway
""",
    "zsh": """\
#compdef shipway
_shipway() {
  local -a found
  found=("${(@f)$(shipway complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ -n "${found[1]}" ]]; then compadd -a found; else _files; fi
}
compdef _shipway shipway
""",
    "fish": """\
function __shipway
  set -l words (commandline -opc) (commandline -ct)
  shipway complete -- $words[2..] 2>/dev/null
end
complete -c shipway -a '(__shipway)'
""",
}
_HOW = {
    "bash": 'eval "$(shipway completion bash)" in ~/.bashrc',
    "zsh": 'eval "$(shipway completion zsh)" in ~/.zshrc, after compinit',
    "fish": "shipway completion fish > ~/.config/fish/completions/shipway.fish",
}
BUILT_IN = ("help", "version")


def completion(
    shell: Annotated[str, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")],
) -> None:
    """Print what makes your shell complete commands, options and repos.

    bash: eval "$(shipway completion bash)" in ~/.bashrc. zsh: the same in ~/.zshrc, after compinit.
    fish: shipway completion fish > ~/.config/fish/completions/shipway.fish
    """
    if shell not in _SCRIPTS:
        raise Invalid(f"{shell!r} is no shell that is known here; there are {', '.join(_SCRIPTS)}")
    print(f"# {_HOW[shell]}")
    print(_SCRIPTS[shell], end="")


def candidates(words: Sequence[str], values: Callable[[str], Sequence[str]]) -> list[str]:
    """What the last of `words` can become; `values` knows what stands for an argument, by its metavar."""
    commands = {point.name: point for point in entry_points(group="shipway.commands")}
    *before, current = words or [""]
    if not before:
        return [name for name in sorted((*commands, *BUILT_IN)) if name.startswith(current)]
    point = commands.get(before[0])
    command, rest = _walk(_command(point), before[1:]) if point else (None, [])
    if command is None:
        return []
    found = _names(command, rest, current, values)
    return [name for name in found if name.startswith(current)]


def _command(point: EntryPoint) -> Any:
    loaded = point.load()
    if isinstance(loaded, typer.Typer):
        return typer.main.get_command(loaded)
    app = typer.Typer(add_completion=False)
    app.command(point.name)(loaded)
    return typer.main.get_command(app)


def _walk(command: Any, words: Sequence[str]) -> tuple[Any, Sequence[str]]:
    """Down to the command that the words name, and the words behind it."""
    for at, word in enumerate(words):
        below: Mapping[str, Any] = getattr(command, "commands", {})
        if not below:
            return command, words[at:]
        command = below.get(word)
        if command is None:
            return None, []
    return command, []


def _names(
    command: Any, before: Sequence[str], current: str, values: Callable[[str], Sequence[str]]
) -> Sequence[str]:
    below: Mapping[str, Any] = getattr(command, "commands", {})
    if below and not current.startswith("-"):
        return sorted(below)
    options = {opt: param for param in command.params for opt in param.opts if opt.startswith("-")}
    if current.startswith("-"):
        return sorted((*(name for name in options if name.startswith("--")), "--help"))
    asked = options.get(before[-1]) if before else None
    if asked is not None and not getattr(asked, "is_flag", False):
        return values(str(asked.metavar or ""))
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    return [value for param in arguments for value in values(str(param.metavar or ""))]
