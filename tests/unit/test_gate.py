"""The gate, in the shells that images have. It runs only as process 1: in a pid namespace of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ci.environ import OUTPUT_FILE
from ci.marks import Mark, Said, Splitter
from ci.shell import is_exportable
from runners.engines import gate

pytestmark = pytest.mark.namespaces
TOKEN = "f" * 32
SHELLS = {
    "dash": ("dash",),
    "bash": ("bash",),
    "bash as sh": ("bash", "--posix"),
    "ash": ("busybox", "ash"),
}
ALONE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
_AS_USER = () if os.getuid() == 0 else ("--map-root-user",)


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> tuple[str, ...]:
    found = SHELLS[request.param]
    if shutil.which(found[0]) is None:
        pytest.skip(f"no {found[0]} here")
    return found


@contextmanager
def spawn(shell: tuple[str, ...], text: str) -> Iterator[subprocess.Popen[bytes]]:
    """The gate as process 1, killed with all it started when the block ends."""
    assert text.startswith('[ "$$" = 1 ] || exit 125\n')  # outside its namespace it would end everything
    command = (*ALONE, *_AS_USER, *shell, "-c", text, "sh")
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin", "HOME": "/"},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def feed(shell: tuple[str, ...], payload: bytes, text: str = gate.JOINED) -> tuple[int, bytes, bytes]:
    """Exit code and the two streams; standard input stays open until the gate has ended."""
    with spawn(shell, text) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(payload)
        process.stdin.flush()
        out, err = process.stdout.read(), process.stderr.read()
        return process.wait(20), out, err


def run(
    shell: tuple[str, ...], *commands: str, **environment: str
) -> tuple[int, str, list[tuple[int, int | None]]]:
    """Exit code, output without marks, marks."""
    code, out, err = feed(shell, gate.commands_payload(environment, commands, TOKEN))
    assert err == b""
    splitter = Splitter(TOKEN)
    pieces = [*splitter.feed(out), splitter.finish()]
    text = b"".join(piece for piece in pieces if isinstance(piece, bytes))
    return code, text.decode(), [(piece.command, piece.code) for piece in pieces if isinstance(piece, Mark)]


def test_commands_share_one_shell_and_each_is_marked(shell: tuple[str, ...]) -> None:
    commands = ("cd /tmp; f() { echo f; }; X=1; export Y=2", "pwd; f; echo $X $(sh -c 'echo $Y')")
    assert run(shell, *commands) == (0, "/tmp\nf\n1 2\n", [(0, None), (0, 0), (1, None), (1, 0)])


def test_the_first_command_that_fails_ends_it_with_its_code(shell: tuple[str, ...]) -> None:
    assert run(shell, "echo a", "sh -c 'exit 7'", "echo b") == (
        7,
        "a\n",
        [(0, None), (0, 0), (1, None), (1, 7)],
    )


def test_exit_in_a_command_ends_it(shell: tuple[str, ...]) -> None:
    assert run(shell, "exit 4", "echo b") == (4, "", [(0, None), (0, 4)])


def test_after_set_plus_e_a_failure_is_marked_and_the_next_command_runs(shell: tuple[str, ...]) -> None:
    assert run(shell, "set +e; false", "echo b") == (0, "b\n", [(0, None), (0, 1), (1, None), (1, 0)])


def test_a_syntax_error_has_the_shells_own_words_and_ends_it_with_2(shell: tuple[str, ...]) -> None:
    code, text, marks = run(shell, "echo a", "echo (", "echo b")
    assert code == 2
    assert text.startswith("a\n")
    assert "yntax error" in text
    assert marks[-1] in [(1, 2), (1, None)]  # not every shell runs its trap then


def test_a_construct_may_span_commands(shell: tuple[str, ...]) -> None:
    code, text, _ = run(shell, "if true; then", "echo in", "fi")
    assert (code, text) == (0, "in\n")


def test_a_trap_of_the_step_runs_as_its_own(shell: tuple[str, ...]) -> None:
    code, text, _ = run(shell, "trap 'echo bye' EXIT", "exit 3")
    assert (code, text) == (3, "bye\n")


@pytest.mark.parametrize(
    ("command", "printed"),
    [
        ("printf '%s\\n' '`echo 1`' '\\c' 'a\\nb' '%s' '$HOME'", "`echo 1`\n\\c\na\\nb\n%s\n$HOME\n"),
        ("echo `echo 1`", "1\n"),
        ("cat <<EOF\n$((1 + 1)) it's\nEOF", "2 it's\n"),
        ("cat <<'EOF'\n$HOME `x` \\\n\nEOF\necho c", "$HOME `x` \\\n\nc\n"),
        ("echo a # b", "a\n"),
        ("echo a \\", "a\n"),
        ("", ""),
        ("echo ä € 🙂", "ä € 🙂\n"),
        ("echo a; echo b >&2; echo c", "a\nb\nc\n"),
        ("cat; read x || echo end", "end\n"),
        ("echo $#", "0\n"),
    ],
)
def test_a_command_says_exactly_what_is_written(shell: tuple[str, ...], command: str, printed: str) -> None:
    code, text, marks = run(shell, command)
    assert (code, text, marks) == (0, printed, [(0, None), (0, 0)])


def test_a_command_that_eats_its_input_does_no_harm(shell: tuple[str, ...]) -> None:
    assert run(shell, "cat >/dev/null", "cat", "echo after")[:2] == (0, "after\n")


def test_set_x_shows_the_commands_and_nothing_of_ours(shell: tuple[str, ...]) -> None:
    code, text, _ = run(shell, "set -x", "echo a", "true b")
    assert code == 0
    # bash shows how deep in `eval` it is.
    assert re.sub(r"^\++", "+", text, flags=re.MULTILINE).splitlines() == ["+ echo a", "a", "+ true b"]


def test_signals_are_as_a_program_expects_them(shell: tuple[str, ...]) -> None:
    code, text, _ = run(shell, "grep -E 'Sig(Ign|Blk)' /proc/self/status")
    assert (code, re.findall(r"[0-9a-f]{16}", text)) == (0, ["0" * 16] * 2)


def test_a_script_of_300_kib_is_run_whole(shell: tuple[str, ...]) -> None:
    code, text, _ = run(shell, *(f"echo {number:05} {'x' * 90}" for number in range(3000)))
    assert code == 0
    assert [line.split()[0] for line in text.splitlines()] == [f"{number:05}" for number in range(3000)]


@pytest.mark.parametrize("cut", [1, 2, 14, 60])
def test_a_payload_cut_short_runs_nothing(shell: tuple[str, ...], cut: int) -> None:
    payload = gate.commands_payload({"A": "1"}, ["echo ran; rm -rf /nowhere/"], TOKEN)[:-cut]
    with spawn(shell, gate.JOINED) as process:
        out, err = process.communicate(payload, 20)
        assert (process.returncode, out, err) == (125, b"", b"")


def test_outside_process_1_it_does_nothing(shell: tuple[str, ...]) -> None:
    # The gate's text is safe here only by what is tested; nothing but its first line may be reached.
    first = gate.JOINED.splitlines()[0]
    assert first == '[ "$$" = 1 ] || exit 125'
    done = subprocess.run((*shell, "-c", f"{first}\necho reached"), capture_output=True, timeout=20)
    assert (done.returncode, done.stdout) == (125, b"")


def test_stop_reaches_every_process_and_waits_for_them(shell: tuple[str, ...]) -> None:
    child = "sh -c 'trap \"sleep 0.3; echo child done; exit\" TERM; echo up; while :; do sleep 0.05; done'"
    with spawn(shell, gate.JOINED) as process:
        assert process.stdin and process.stdout
        process.stdin.write(gate.commands_payload({}, [f"{child} & wait"], TOKEN))
        process.stdin.flush()
        seen = _until(process, b"up\n")
        process.stdin.write(gate.STOP)
        process.stdin.flush()
        seen += process.stdout.read()
        assert b"child done" in seen
        assert process.wait(20) == 143


def test_a_script_that_sends_term_to_process_1_goes_on_and_ends(shell: tuple[str, ...]) -> None:
    assert run(shell, "kill $$; echo on", "echo end")[:2] == (0, "on\nend\n")


def test_a_term_trap_of_the_script_decides_the_code(shell: tuple[str, ...]) -> None:
    with spawn(shell, gate.JOINED) as process:
        assert process.stdin and process.stdout
        script = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done"
        process.stdin.write(gate.commands_payload({}, [script], TOKEN))
        process.stdin.flush()
        _until(process, b"up\n")
        process.stdin.write(gate.STOP)
        process.stdin.flush()
        assert b"bye" in process.stdout.read()
        assert process.wait(20) == 0


def test_the_end_of_the_input_is_a_stop(shell: tuple[str, ...]) -> None:
    with spawn(shell, gate.JOINED) as process:
        assert process.stdin and process.stdout
        process.stdin.write(gate.commands_payload({}, ["sleep 600 & sleep 0.2; echo up; wait"], TOKEN))
        process.stdin.flush()
        _until(process, b"up\n")
        process.stdin.close()
        assert process.wait(20) == 143


def test_a_program_of_the_image_gets_environment_and_arguments_exactly(shell: tuple[str, ...]) -> None:
    arguments = ("sh", "-c", 'printf %s "$A"; printf %s "$1" >&2; exit 4', "x", "it's\n\\n`$\n")
    code, out, err = feed(shell, gate.exec_payload({"A": "b\nc"}, arguments, TOKEN), gate.APART)
    assert (code, out, err) == (4, b"b\nc", b"it's\n\\n`$\n")


def test_a_program_that_is_missing_is_127(shell: tuple[str, ...]) -> None:
    code, _, err = feed(shell, gate.exec_payload({}, ["/no/such"], TOKEN), gate.APART)
    assert code == 127
    assert b"/no/such" in err


VALUES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60) | st.text(
    "'\"\\`$\n\r\t !*?#~&;|<>(){}[]=%-\x1b\x81\x88", max_size=40
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(VALUES, min_size=1, max_size=6))
def test_values_of_any_shape_arrive_exactly(shell: tuple[str, ...], values: list[str]) -> None:
    environment = {f"V{number}": value for number, value in enumerate(values)}
    code, out, err = feed(shell, gate.exec_payload(environment, ["env", "-0"], TOKEN), gate.APART)
    found = dict(line.split("=", 1) for line in out.decode().split("\0") if line)
    assert (code, err) == (0, b"")
    assert {name: found.get(name) for name in environment} == environment


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=VALUES)
def test_a_quoted_word_in_a_command_arrives_exactly(shell: tuple[str, ...], value: str) -> None:
    quoted = "'" + value.replace("'", "'\\''") + "'"
    code, out, _ = feed(shell, gate.commands_payload({}, [f"printf %s {quoted}"], TOKEN))
    splitter = Splitter(TOKEN)
    found = b"".join(one for one in [*splitter.feed(out), splitter.finish()] if isinstance(one, bytes))
    assert (code, found) == (0, value.encode())


@pytest.mark.parametrize("name", ["my-var", "a.b", "1st", "UID", "BASH_ENV", "IFS", "PPID", "ä", "", "A B"])
def test_names_that_a_shell_cannot_export_are_known(name: str) -> None:
    assert not is_exportable(name)


@pytest.mark.parametrize("name", ["A", "_A1", "PATH", "HOME", "CI_COMMIT_SHA", "PLUGIN_X", "PS", "PWDS"])
def test_ordinary_names_are_exportable(name: str) -> None:
    assert is_exportable(name)


def _until(process: subprocess.Popen[bytes], text: bytes) -> bytes:
    assert process.stdout
    seen = b""
    for byte in _bytes(process):
        seen += byte
        if seen.endswith(text):
            return seen
    raise AssertionError(seen)


def _bytes(process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    assert process.stdout
    while byte := process.stdout.read(1):
        yield byte


def test_the_pid_namespace_of_these_tests_is_real() -> None:
    done = subprocess.run((*ALONE, *_AS_USER, "sh", "-c", "echo $$"), capture_output=True, timeout=20)
    assert done.stdout == b"1\n", Path("/proc/self/status").read_text()


PRIVATE = ("sh", "-c", 'mount -t tmpfs none /dev/shm && exec "$@"', "sh")


def put_out(shell: tuple[str, ...], *commands: str) -> tuple[int, list[bytes]]:
    """Exit code, and the lines that are put out. The folder is its own, as in a container."""
    payload = gate.commands_payload({"CI_OUTPUT": OUTPUT_FILE}, commands, TOKEN)
    code, out, err = feed((*PRIVATE, *shell), payload)
    assert err == b""
    return code, [piece.line for piece in Splitter(TOKEN).feed(out) if isinstance(piece, Said)]


def test_what_a_step_puts_out_comes_line_by_line_at_its_end(shell: tuple[str, ...]) -> None:
    lines = r"""printf 'A=1\nB=%%s \\ "x"\nlast' >"$CI_OUTPUT" """
    assert put_out(shell, "echo A=0 >$CI_OUTPUT", lines) == (0, [b"A=1", rb'B=%s \ "x"', b"last"])


def test_a_step_that_fails_puts_out_too_and_one_without_output_nothing(shell: tuple[str, ...]) -> None:
    assert put_out(shell, "echo A=1 >>$CI_OUTPUT", "exit 3") == (3, [b"A=1"])
    assert put_out(shell, "true") == (0, [])


@pytest.mark.parametrize("trick", ["mkdir $CI_OUTPUT", "mkfifo $CI_OUTPUT", "ln -s /dev/zero $CI_OUTPUT"])
def test_what_is_no_file_is_not_put_out(shell: tuple[str, ...], trick: str) -> None:
    assert put_out(shell, trick) == (0, [])


def test_a_flood_is_not_put_out_for_ever(shell: tuple[str, ...]) -> None:
    code, lines = put_out(shell, "yes | head -5000 >$CI_OUTPUT")
    assert (code, len(lines)) == (0, 2000)
