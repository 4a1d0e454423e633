"""The plugin that deploys by SSH: what needs no server. The rest is tests/system/test_deploy.py."""

from __future__ import annotations

import ast
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from plugins.ssh import deploy
from plugins.ssh.deploy import Connection, Settings, Wrong, files, key_in_memory, release_name, write_tar

FILE = Path(deploy.__file__)
PRINT = "SHA256:" + "A" * 43
GOOD = {
    "PLUGIN_HOST": "web-1.example.org",
    "PLUGIN_USER": "deploy",
    "PLUGIN_KEY": "the key",
    "PLUGIN_FINGERPRINT": PRINT,
    "PLUGIN_TARGET": "/srv/app/",
}


def settings(**more: str) -> Settings:
    changed = {f"PLUGIN_{name.upper()}": value for name, value in more.items()}
    return Settings.of({**GOOD, **changed})


def connection(tmp_path: Path, **more: str) -> Connection:
    return Connection(settings=settings(**more), host="web-1", key_path="/proc/1/fd/3", folder=tmp_path)


def test_it_is_one_file_that_needs_the_standard_library_only() -> None:
    tree = ast.parse(FILE.read_text())
    names = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        )
    }
    assert names <= sys.stdlib_module_names


def test_settings_are_read_with_their_defaults() -> None:
    found = settings(host="a.example.org, b", key="-----BEGIN\r\nx\r\n-----END", source="dist\nREADME.md")
    assert (found.hosts, found.port, found.keep, found.target) == (("a.example.org", "b"), 22, 5, "/srv/app")
    assert (found.sources, settings().sources) == (("dist", "README.md"), (".",))
    assert found.key == "-----BEGIN\nx\n-----END\n"
    assert "BEGIN" not in repr(found)


def test_every_mistake_in_the_settings_is_told_at_once() -> None:
    with pytest.raises(Wrong) as caught:
        Settings.of(
            {"PLUGIN_HOST": "-oProxyCommand=x", "PLUGIN_PORT": "ssh", "PLUGIN_HOSTS": "a", "PATH": "/bin"}
        )
    assert str(caught.value).splitlines() == [
        "the setting host is a host name or an address, this is '-oProxyCommand=x'",
        "the setting port is a number from 1 to 65535, this is 'ssh'",
        "the setting user is missing: it is the name of a user on the server",
        "the setting key is missing: it is the private key, by `{ from_secret: ... }`",
        "the setting target is missing: it is the folder on the server that holds the releases",
        "the server's own key is not known, so anybody on the way could play the server: set known_hosts to "
        "what `ssh-keyscan -p 22 -oProxyCommand=x` prints, or fingerprint to what `ssh-keygen -lf "
        "/etc/ssh/ssh_host_ed25519_key.pub` prints on the server (SHA256:...)",
        "there is no setting hosts; there are host, port, user, key, known_hosts, fingerprint, source, "
        "target, exclude, keep, prepare, script",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("user", "-l"),
        ("user", "a b"),
        ("target", "srv"),
        ("target", "/"),
        ("target", "/srv/.."),
        ("target", "/srv/a\nb"),
        ("keep", "0"),
        ("keep", "-1"),
        ("port", "65536"),
        ("fingerprint", "MD5:00"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(name: str, value: str) -> None:
    with pytest.raises(Wrong, match=f"the setting {name} is"):
        settings(**{name: value})


def test_a_folder_gives_what_is_in_it_and_a_file_comes_under_its_name(tmp_path: Path) -> None:
    make(tmp_path, "dist/index.html", "dist/js/app.js", "docs/a/README.md", ".git/config", "dist/.git/x")
    (tmp_path / "dist/link").symlink_to("index.html")
    (tmp_path / "dist/folder").symlink_to("js")
    names = ["folder", "index.html", "js/app.js", "link"]
    assert sorted(files(settings(source="dist", exclude=".git"), tmp_path)) == names
    assert "README.md" in files(settings(source="dist, docs/*/README.md"), tmp_path)
    everything = files(settings(), tmp_path)
    assert "dist/js/app.js" in everything
    assert ".git/config" not in everything
    assert sorted(files(settings(source="dist", exclude="*.js,.git"), tmp_path)) == [
        "folder",
        "index.html",
        "link",
    ]
    assert "js/app.js" not in files(settings(source="dist", exclude="js"), tmp_path)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("build", "source 'build' is not in the workspace; it has a.txt, b, empty"),
        ("/etc/passwd", "lies outside of the workspace"),
        ("../*", "lies outside of the workspace"),
        ("a.txt, b/a.txt", "two files would be a.txt in the release"),
        ("empty", "there is nothing in empty to deploy"),
    ],
)
def test_what_cannot_be_sent_is_said(tmp_path: Path, source: str, sentence: str) -> None:
    make(tmp_path / "w", "a.txt", "b/a.txt")
    (tmp_path / "w/empty").mkdir()
    (tmp_path / "beside").write_text("x")
    with pytest.raises(Wrong, match=sentence):
        files(settings(source=source), tmp_path / "w")


def test_the_stream_holds_the_files_and_belongs_to_nobody(tmp_path: Path) -> None:
    make(tmp_path, "a.sh", "b/c")
    (tmp_path / "a.sh").chmod(0o755)
    out = io.BytesIO()
    write_tar(files(settings(), tmp_path), out)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        found = {entry.name: (entry.mode & 0o777, entry.uid, entry.uname) for entry in tar}
    assert found["a.sh"] == (0o755, 0, "")
    assert sorted(found) == ["a.sh", "b/c"]


def test_a_release_is_named_by_its_time_its_build_and_its_commit() -> None:
    environ = {"CI_PIPELINE_NUMBER": "12", "CI_COMMIT_SHA": "1a2b3c4d5e6f"}
    assert release_name(environ, 1_795_000_000) == "20261118T110640Z-12-1a2b3c4"
    assert release_name({"CI_COMMIT_SHA": "../../x"}, 1_795_000_000) == "20261118T110640Z-0-0"


def test_the_key_is_in_memory_while_it_is_needed_and_readable_for_us_alone() -> None:
    with key_in_memory("s3cret\n") as path:
        read = subprocess.run(["cat", path], capture_output=True, text=True)
        assert read.stdout == "s3cret\n"
        assert os.stat(path).st_mode & 0o777 == 0o600
    assert not os.path.exists(path)


def test_a_key_in_another_form_is_told_without_showing_it(tmp_path: Path) -> None:
    for key, sentence in (
        ("s3cret", "the key is no private key"),
        (_with_passphrase(tmp_path), "has a passphrase"),
    ):
        with key_in_memory(key) as path, pytest.raises(Wrong, match=sentence) as caught:
            Connection(settings=settings(), host="web-1", key_path=path, folder=tmp_path).prepare()
        assert "s3cret" not in str(caught.value)


def _with_passphrase(folder: Path) -> str:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "a passphrase", "-f", str(folder / "id")]
    subprocess.run(command, check=True)
    return (folder / "id").read_text()


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (
            "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.",
            "another key",
        ),
        ("No ED25519 host key is known for web-1\nHost key verification failed.", "known_hosts has no line"),
        ("deploy@web-1: Permission denied (publickey).", "does not let deploy in with this key"),
        ("ssh: connect to host web-1 port 22: Connection refused", "is an SSH server running there"),
        ("ssh: connect to host web-1 port 22: Connection timed out", "does not answer"),
        ("ssh: Could not resolve hostname web-1: Name or service not known", "no host of this name"),
        ("client_loop: send disconnect: Broken pipe", "failed: client_loop: send disconnect"),
        ("", "the connection was lost"),
    ],
)
def test_what_ssh_says_becomes_a_sentence(tmp_path: Path, said: str, sentence: str) -> None:
    assert sentence in connection(tmp_path).explain(said)


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
