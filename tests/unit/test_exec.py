"""`shipway exec`: the working tree's pipelines on this machine, with the fake engine and with Docker."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from ci.errors import Invalid
from ci.spec import JobSpec, StepKind, StepSpec
from runners.engines.base import Launch, Owner
from runners.exec import cut, shell
from runners.exec.command import execute
from runners.exec.cut import Cut
from runners.exec.working_tree import WorkingTree, facts

SAYS = "{{image: x, commands: [y], environment: {{FAKE_OUTPUT: {}}}}}"


def repo(folder: Path, text: str, **files: str) -> Path:
    for name, content in {".ci.yml": text, **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def run(folder: Path, **options: Any) -> int:
    return execute([folder], engine="fake", **options)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path_factory.mktemp("engine")))


THREE = f"steps:\n  a: {SAYS.format('one')}\n  b: {SAYS.format('two')}\n  c: {SAYS.format('three')}\n"


def test_steps_print_as_they_run_and_the_end_says_how_it_went(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(repo(tmp_path, THREE)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.endswith(("one", "two", "three"))] == [
        "a     │ one",
        "b     │ two",
        "c     │ three",
    ]
    assert lines[-1].startswith("job ci passed in ")
    assert sum("✓ passed" in line for line in lines) == 4


def test_the_exit_code_is_the_builds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails = "steps: {a: {image: x, commands: [y], environment: {FAKE_EXIT: '3'}}}"
    assert run(repo(tmp_path, fails)) == 1
    assert "✗ failed in" in (out := capsys.readouterr().out) and "exited with 3" in out
    assert run(repo(tmp_path, "steps: {a: {image: registry.invalid/x, commands: [y]}}")) == 3
    assert run(repo(tmp_path, "steps: {a: {image: b, comands: c}}")) == 2
    assert run(repo(tmp_path, "when: {branch: other}\nsteps: {a: {image: b, commands: c}}")) == 0
    assert "nothing to run: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "ran"),
    [
        ({"only": ["b"]}, ["b"]),
        ({"skip": ["a"]}, ["b", "c"]),
        ({"start": "b"}, ["b", "c"]),
        ({"only": ["a", "c"]}, ["a", "c"]),
    ],
)
def test_some_steps_run_and_the_others_say_why_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: dict[str, Any], ran: list[str]
) -> None:
    assert run(repo(tmp_path, THREE), **options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[0] for line in lines if "✓ passed" in line and not line.startswith("clone")] == ran


def test_one_cell_of_a_matrix_can_be_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "matrix: {V: ['1', '2']}\nsteps: {a: {image: x, commands: [y]}}"
    assert run(repo(tmp_path, text), job=["ci (2)"]) == 0
    out = capsys.readouterr().out
    assert "job ci (2) passed" in out and "ci (1)" not in out
    with pytest.raises(Invalid, match=r"there is no job '3'; there are ci \(1\), ci \(2\)"):
        run(tmp_path, job=["3"])


def test_jobs_run_after_those_that_they_wait_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".ci").mkdir()
    step = "steps: {a: {image: x, commands: [y], environment: {FAKE_EXIT: '%s'}}}\n"
    (tmp_path / ".ci/a.yml").write_text("depends_on: b\n" + step % 0)
    (tmp_path / ".ci/b.yml").write_text(step % 1)
    (tmp_path / ".ci/c.yml").write_text("depends_on: b\nruns_on: failure\n" + step % 0)
    assert run(tmp_path) == 1
    out = capsys.readouterr().out
    assert out.index("job b failed") < out.index("job c passed")
    assert "job a: skipped: needs b, which failed" in out


def test_a_secret_comes_from_the_environment_or_a_file_and_never_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "steps: {a: {image: x, commands: [y], environment: {FAKE_OUTPUT: {from_secret: token}}}}"
    repo(tmp_path, text)
    with pytest.raises(Invalid, match="were not given: add --secret token"):
        run(tmp_path)
    monkeypatch.setenv("TOKEN", "s3cr3t-value")
    assert run(tmp_path, secret=["TOKEN"]) == 0
    out = capsys.readouterr().out
    assert "a     │ ***" in out and "s3cr3t-value" not in out
    (tmp_path / "key").write_text("other-value\n")
    assert run(tmp_path, secret=[f"token=@{tmp_path / 'key'}"]) == 0
    assert "other-value" not in capsys.readouterr().out
    for wrong in ("NOBODY", "token=plain-value", f"token=@{tmp_path}/no"):
        with pytest.raises(Invalid) as error:
            run(tmp_path, secret=[wrong])
        assert "plain-value" not in str(error.value)


def test_a_step_reads_what_lies_in_the_folder_now(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "steps: {a: {image: x, commands: [y], environment: {FAKE_CAT: src/b.txt}}}"
    assert run(repo(tmp_path, text, **{"src/b.txt": "not committed\n"})) == 0
    assert "not committed" in capsys.readouterr().out


# --- parts -----------------------------------------------------------------------------------------------


def step(number: int, slug: str, *needs: str, kind: StepKind = StepKind.COMMANDS) -> StepSpec:
    return StepSpec(number=number, name=slug, slug=slug, kind=kind, image="x", depends_on=needs)


def test_who_waited_for_what_is_left_out_waits_for_what_that_waited_for() -> None:
    job = JobSpec(
        name="j",
        slug="j",
        steps=(step(0, "clone", kind=StepKind.CLONE), step(1, "a", "clone"), step(2, "b", "a"), step(3, "c")),
    )
    found = {each.slug: each for each in cut.applied(Cut(skip=("a",)), job).steps}
    assert (found["a"].skip_reason, found["b"].depends_on) == ("left out by --skip", ("clone",))
    from_b = {each.slug: each.skip_reason for each in cut.applied(Cut(start="b"), job).steps}
    assert from_b == {"clone": "", "a": "before the step of --from", "b": "", "c": ""}
    with pytest.raises(Invalid, match="there is no step 'd'; there are a, b, c, clone"):
        cut.check(Cut(only=("d",)), [job])


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True)


def test_a_repository_gives_what_git_would_add_and_its_own_folder(tmp_path: Path) -> None:
    repo(tmp_path, "x", **{".gitignore": "out/\n", "out/big": "x", "bin/tool": "#!/bin/sh\n", "gone": "x"})
    git(tmp_path, "init", "-q", "-b", "trunk")
    git(tmp_path, "add", ".")
    git(tmp_path, "-c", "user.name=Ada", "-c", "user.email=a@b", "commit", "-q", "-m", "first\n\nmore")
    (tmp_path / "bin/tool").chmod(0o755)
    (tmp_path / "gone").unlink()
    (tmp_path / "new").write_text("not added")
    (tmp_path / "link").symlink_to("new")
    tree, out = WorkingTree(tmp_path), io.BytesIO()
    said: list[str] = []
    tree.fetch(said.append)
    tree.write(out)
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        entries = {entry.name: entry for entry in tar}
    plain = {name for name in entries if not name.startswith(".git/")}
    assert plain == {".ci.yml", ".git", ".gitignore", "bin", "bin/tool", "new", "link"}
    assert entries["bin/tool"].mode == 0o777 and entries["new"].mode == 0o666
    assert entries["link"].linkname == "new" and ".git/HEAD" in entries
    known = facts(tmp_path)
    assert (known["branch"], known["title"], known["author"]) == ("trunk", "first", "Ada")
    assert len(known["after"]) == 40


def test_the_shell_after_a_failure_stands_where_the_step_stood_and_shows_no_value() -> None:
    owner = Owner(server="s", runner="r", job=1, attempt=1)
    spec = step(1, "a").model_copy(update={"user": "7"})
    job = JobSpec(name="j", slug="j", workspace="/w", directory="/w/src", steps=(spec,))
    launch = Launch(
        step=spec,
        environment={"TOKEN": "s3cr3t", "DOCKER_HOST": "x", "my-name": "x", "PATH": "x"},
        mark_token="",
        output=None,  # type: ignore[arg-type]
    )
    command = shell.command_of(launch, job, owner, "x")
    text = " ".join(command)
    assert " -e TOKEN -v " in text and "s3cr3t" not in text and "DOCKER_HOST" not in text
    assert text.endswith(" -w /w/src -u 7 --entrypoint /bin/sh x")


@pytest.mark.docker
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("hello", "hello │ Hello from build 1 of local/hello"),
        ("dag-and-service", "test    │ 2 apples"),
        ("matrix", "taste │ with chocolate"),
    ],
)
def test_an_example_runs_in_containers(name: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = Path(__file__).parents[2]
    subprocess.run([str(root / "scripts/images")], check=True, timeout=120)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHIPWAY_IMAGE_MIRRORS", "docker.io/library/=shipway-test/")
        assert execute([root / "examples" / name]) == 0
    out = capsys.readouterr().out
    assert says in out
    assert "job ci" in out
