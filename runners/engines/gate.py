r"""Gate: the few lines of POSIX sh that a step's container runs first, in the image's own shell. Pure.

Theory of operation. Environment and script come over the attached stdin, as one line of shell text and a
line that ends it, so that neither stands in any `inspect`; without the last line nothing is run. A
newline inside is spelled `'"$shipway_nl"'`. The script then runs in a foreground subshell: a background
one would have SIGINT ignored for good in dash and ash. So the shell, as process 1, cannot act on TERM
while it waits; a watcher does, which waits for one more line on the attached stdin, or for its end (the
job process died), and then sends TERM to every process of the container. Process 1 reaps, and after a stop
ends only when all others have; the engine's KILL ends its patience. It is told of the stop by USR2: a
script's own `kill $$` sends TERM to process 1, which ignores it, as it would without us. A stop sends TERM
once, for a second one tells many a program to give up its clean-up; so what bash forks in that very moment,
with TERM blocked, may never see it, and waits for the KILL. At the end it prints what the script put into
OUTPUT_FILE, each line within a mark: that costs no call of the engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ci import marks
from ci.environ import OUTPUT_FILE
from ci.shell import is_exportable

_END = "shipway-end"
_MOST_LINES = 2000
#: What the engine writes to have TERM sent to every process of the container.
STOP = b"stop\n"

#: Anything but process 1 of a container must not go on: its `kill -1` would reach the whole machine.
_GATE = f"""\
[ "$$" = 1 ] || exit 125
trap "shipway_stopped=1" USR2
IFS= read -r shipway_line && IFS= read -r shipway_put || exit 125
IFS= read -r shipway_end && [ "$shipway_end" = {_END} ] || exit 125
exec 3<&0 </dev/null%s
( IFS= read -r shipway_end <&3; kill -USR2 1; kill -TERM -1 ) 2>/dev/null &
exec 3<&-
shipway_nl='
'
(
  trap - USR2; eval "$shipway_line"; unset shipway_line shipway_put shipway_end shipway_nl
  eval "$shipway_script"
)
shipway_code=$? shipway_left={_MOST_LINES}
if [ -f {OUTPUT_FILE} ] && [ -s {OUTPUT_FILE} ]; then
  while [ "$shipway_left" -gt 0 ] && {{ IFS= read -r shipway_line || [ "$shipway_line" ]; }}; do
    shipway_left=$((shipway_left - 1)); printf "$shipway_put" "$shipway_line"
  done <{OUTPUT_FILE}
fi
while [ "$shipway_stopped" ] && kill -0 -1 2>/dev/null; do ( sleep 0.05 || sleep 1 ) 2>/dev/null; done
exit $shipway_code
"""
#: Standard error joined to standard output: the true order of a command step's lines.
JOINED = _GATE % " 2>&1"
APART = _GATE % ""

#: What shells put into the environment of what they start.
_ADDED = ("PWD", "OLDPWD", "SHLVL")


def commands_payload(environment: Mapping[str, str], commands: Sequence[str], token: str) -> bytes:
    """What the gate is fed for a step with commands. `environment` holds exportable names only."""
    return _payload(environment, script(commands, token), token)


def exec_payload(environment: Mapping[str, str], arguments: Sequence[str], token: str) -> bytes:
    """What the gate is fed to become a program of the image, which finds no variable of the shell's own.

    A shell passes no name on that it cannot export; where the image has `env`, that does.
    """
    added = " ".join(name for name in _ADDED if name not in environment)
    words = " ".join(_word(argument) for argument in arguments)
    others = [f"{name}={value}" for name, value in environment.items() if not is_exportable(name)]
    text = f"exec {words}"
    if others:
        through_env = " ".join(_word(one) for one in others)
        text = f"if command -v env >/dev/null; then exec env {through_env} {words}; else {text}; fi"
    text = f"command unset {added} 2>/dev/null || :; {text}" if added else text
    return _payload({name: environment[name] for name in environment if is_exportable(name)}, text, token)


def script(commands: Sequence[str], token: str) -> str:
    """The commands as one text, so that they share a shell, each between its marks.

    The marks' own redirection hides them from `set -x`. The end of a command that ends the shell is
    told by a trap, unless the step set its own.
    """
    begin, end = (marks.encode(token, kind, value).decode() for kind, value in (("b", "%s"), ("e", "%s,%s")))
    told = f'printf {_format(end)} "$shipway_at" "$shipway_code"'
    tell = f'{{ shipway_code=$?; [ -z "$shipway_at" ] || {told} || :;'
    lines = [f"trap '{tell} }} 2>/dev/null' EXIT", "set -e"]
    for number, command in enumerate(commands):
        lines += [
            f"{{ shipway_at={number}; printf {_format(begin)} {number} || :; }} 2>/dev/null",
            # An empty line after it: a backslash at its end must not reach the mark.
            f"{command}\n",
            f"{tell} shipway_at=; }} 2>/dev/null",
        ]
    return "\n".join(lines) + "\n"


def _payload(environment: Mapping[str, str], text: str, token: str) -> bytes:
    exports = [f"export {name}={_quoted(value)}" for name, value in environment.items()]
    line = "; ".join([*exports, f"shipway_script={_quoted(text)}"])
    put = _escaped(marks.encode(token, "o", "%s").decode())
    return f"{line}\n{put}\n{_END}\n".encode("utf-8", "surrogateescape")


def _word(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _quoted(text: str) -> str:
    """`text` as one word of one line. A shell's variables cannot hold NUL: it is left out."""
    return _word(text.replace("\0", "")).replace("\n", "'\"$shipway_nl\"'")


def _format(mark: str) -> str:
    """A printf format for the mark, as a word that may stand within single quotes."""
    return '"' + _escaped(mark).replace("\\\\", "\\\\\\\\") + '"'


def _escaped(mark: str) -> str:
    return mark.replace("\\", r"\\").replace("\x1b", r"\033")
