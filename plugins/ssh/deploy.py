"""Deploy by SSH: a folder of the workspace becomes a new release on a server, and goes live in one step.

    {target}/releases/20261126T104512Z-12-1a2b3c4   the new release, complete before anybody sees it
    {target}/current -> releases/...                a symbolic link, replaced by a rename

Theory of operation. The settings come as `PLUGIN_*`. The private key stands in memory only (a memfd that
`ssh` reads by its path under /proc): in no file, no argument and no variable of a program that we start. The
server's own key is always checked. Files go over one connection as a tar stream into a folder that has
another name until it is whole; a second connection renames it, switches the link and removes old releases.
Whatever fails before the switch leaves the server as it was. Standard library only; runs alone.
"""

from __future__ import annotations

import base64
import binascii
import glob
import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import IO

_CONNECT_SECONDS = 20
_SETTINGS = ("host", "port", "user", "key", "known_hosts", "fingerprint", "source", "target")
_OPTIONAL = ("exclude", "keep", "prepare", "script")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:-]{0,252}\Z")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}\Z")
_KEY_TYPE = re.compile(r"(ssh|ecdsa|sk)-[a-z0-9@.-]+\Z")
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}\Z")

#: Run by the server's sh. $1 is the target, $2 the release, $3 how many to keep.
_RECEIVE = """\
set -eu
umask 022
mkdir -p -- "$1/releases"
cd -- "$1/releases"
find . -maxdepth 1 -name ".*.part" -mtime +0 -exec rm -rf {} +
if [ -e "$2" ]; then
  echo "releases/$2 is there already, made in this second by another deploy: deploy again" >&2
  exit 1
fi
mkdir -- ".$2.part"
trap 'rm -rf -- ".$2.part"' EXIT
tar -xof - -C ".$2.part"
trap - EXIT
"""
_SWITCH = """\
set -eu
script=$(cat)
exec </dev/null
cd -- "$1"
if [ -e current ] && [ ! -L current ]; then
  echo "$1/current is there and is no symbolic link: move it away, and deploy again" >&2
  exit 1
fi
was=$(readlink current || :)
trap 'rm -rf -- "releases/.$2.part"' EXIT
mv -nT -- "releases/.$2.part" "releases/$2"
[ ! -e "releases/.$2.part" ] || { echo "releases/$2 is there already: deploy again" >&2; exit 1; }
trap 'rm -rf -- "releases/$2"' EXIT
( cd "releases/$2"; set +u; eval "$script" )
trap - EXIT
ln -s -- "releases/$2" ".current.$2"
mv -fT -- ".current.$2" current
echo "live: $1/current is releases/$2${was:+, was $was}"
ls -1 releases | grep -E "^[0-9]{8}T[0-9]{6}Z-" | sort -r | tail -n "+$(($3 + 1))" | while read -r old; do
  [ "$old" != "$2" ] || continue
  rm -rf -- "releases/$old" && echo "removed releases/$old" || echo "could not remove releases/$old"
done
"""
_AFTER = """\
set -eu
script=$(cat)
exec </dev/null
cd -- "$1/current"
set +u
eval "$script"
"""


class Wrong(Exception):
    """A sentence for whoever must act. Nothing of a key is ever in it."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the step's `settings` say."""

    hosts: tuple[str, ...]
    port: int
    user: str
    key: str = field(repr=False)
    known_hosts: str
    fingerprints: tuple[str, ...]
    sources: tuple[str, ...]
    exclude: tuple[str, ...]
    target: str
    keep: int
    prepare: str
    script: str

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Settings:
        """Raises Wrong with every mistake at once."""
        reader = _Reader(environ)
        made = cls(
            hosts=reader.each("host", _HOST, "a host name or an address"),
            port=reader.number("port", 22, 65535),
            user=reader.matching("user", _USER, "the name of a user on the server"),
            key=_lines(reader.needed("key", "the private key, by `{ from_secret: ... }`")),
            known_hosts=reader.text("known_hosts").strip(),
            fingerprints=_words(reader.text("fingerprint")),
            sources=_words(reader.text("source")) or (".",),
            exclude=_words(reader.text("exclude")),
            target=reader.folder("target"),
            keep=reader.number("keep", 5, 1000),
            prepare=_lines(reader.text("prepare")),
            script=_lines(reader.text("script")),
        )
        reader.wrong += _wrong_host_key(made)
        reader.refuse_unknown()
        if reader.wrong:
            raise Wrong("\n".join(reader.wrong))
        return made


class _Reader:
    """Reads settings and gathers what is wrong with them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.wrong: list[str] = []

    def text(self, name: str) -> str:
        return self._environ.get(f"PLUGIN_{name.upper()}", "")

    def needed(self, name: str, what: str) -> str:
        text = self.text(name)
        if not text.strip():
            self.wrong.append(f"the setting {name} is missing: it is {what}")
        return text

    def matching(self, name: str, pattern: re.Pattern[str], what: str) -> str:
        text = self.needed(name, what).strip()
        if text and not pattern.match(text):
            self.wrong.append(f"the setting {name} is {what}, this is {text[:100]!r}")
        return text

    def each(self, name: str, pattern: re.Pattern[str], what: str) -> tuple[str, ...]:
        words = _words(self.needed(name, what))
        self.wrong += [
            f"the setting {name} is {what}, this is {word[:100]!r}"
            for word in words
            if not pattern.match(word)
        ]
        return words

    def number(self, name: str, default: int, most: int) -> int:
        text = self.text(name).strip() or str(default)
        if text.isascii() and text.isdigit() and 0 < int(text) <= most:
            return int(text)
        self.wrong.append(f"the setting {name} is a number from 1 to {most}, this is {text[:100]!r}")
        return default

    def folder(self, name: str) -> str:
        text = self.needed(name, "the folder on the server that holds the releases").strip()
        path = os.path.normpath(text) if text else ""
        if text and (not text.startswith("/") or path in ("/", "//") or not text.isprintable()):
            self.wrong.append(f"the setting {name} is an absolute path below /, this is {text[:100]!r}")
        return path

    def refuse_unknown(self) -> None:
        known = {f"PLUGIN_{name.upper()}" for name in (*_SETTINGS, *_OPTIONAL)}
        for name in sorted(set(self._environ) - known):
            if name.startswith("PLUGIN_"):
                words = ", ".join((*_SETTINGS, *_OPTIONAL))
                self.wrong.append(f"there is no setting {name[7:].lower()}; there are {words}")


def _words(text: str) -> tuple[str, ...]:
    """A list reaches a plugin joined by commas; a text may have one a line."""
    return tuple(word for part in text.replace("\n", ",").split(",") if (word := part.strip()))


def _lines(text: str) -> str:
    """With the line ends of this system, and one at the end."""
    text = text.replace("\r\n", "\n").strip()
    return f"{text}\n" if text else ""


def _wrong_host_key(settings: Settings) -> Iterator[str]:
    for text in settings.fingerprints:
        if not _FINGERPRINT.match(text):
            yield f"the setting fingerprint is SHA256: and 43 characters, this is {text[:100]!r}"
    if not settings.known_hosts and not settings.fingerprints:
        host = settings.hosts[0] if settings.hosts else "HOST"
        yield (
            "the server's own key is not known, so anybody on the way could play the server: set known_hosts "
            f"to what `ssh-keyscan -p {settings.port} {host}` prints, or fingerprint to what "
            "`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` prints on the server (SHA256:...)"
        )


# --- files ------------------------------------------------------------------------------------------


def files(settings: Settings, workspace: Path) -> dict[str, Path]:
    """Name in the release -> file or link. A folder gives what is in it, a file comes under its own name."""
    found: dict[str, Path] = {}
    for source in settings.sources:
        matches = sorted(glob.glob(source, root_dir=workspace, recursive=True))
        if not matches:
            raise Wrong(f"source {source!r} is not in the workspace; it has {_listed(workspace)}")
        for match in matches:
            for name, path in _below(workspace, workspace / match):
                other = found.setdefault(name, path)
                if other != path:
                    raise Wrong(f"two files would be {name} in the release: {other} and {path}")
    left_out = [name for name in found if _is_excluded(name, settings.exclude)]
    for name in left_out:
        del found[name]
    if not found:
        raise Wrong(f"there is nothing in {', '.join(settings.sources)} to deploy")
    return found


def _listed(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:20]) or "nothing in it"


def _below(workspace: Path, path: Path) -> Iterator[tuple[str, Path]]:
    if not path.resolve().is_relative_to(workspace.resolve()):
        raise Wrong(f"source {path} lies outside of the workspace {workspace}")
    if path.is_symlink() or not path.is_dir():
        yield path.name, path
        return
    for folder, folders, names in os.walk(path):
        here = Path(folder)
        if ".git" in folders and here == workspace:
            folders.remove(".git")
        folders.sort()
        links = [name for name in folders if (here / name).is_symlink()]
        for name in sorted([*names, *links]):
            yield (here / name).relative_to(path).as_posix(), here / name


def _is_excluded(name: str, patterns: Sequence[str]) -> bool:
    parts = [name, *(parent.as_posix() for parent in Path(name).parents)]
    return any(Path(part).match(pattern) for part in parts for pattern in patterns)


def write_tar(found: Mapping[str, Path], out: IO[bytes]) -> None:
    """Owners stay behind: on the server all belongs to the user who logs in."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        return entry

    with tarfile.open(fileobj=out, mode="w|", format=tarfile.GNU_FORMAT) as tar:
        for name, path in found.items():
            tar.add(path, arcname=name, recursive=False, filter=plain)


# --- ssh ----------------------------------------------------------------------------------------------


@contextmanager
def key_in_memory(key: str) -> Iterator[str]:
    """A path at which programs that we start can read the key while this goes on."""
    fd = os.memfd_create("key")
    try:
        os.fchmod(fd, 0o600)
        os.write(fd, key.encode())
        yield f"/proc/{os.getpid()}/fd/{fd}"
    finally:
        os.close(fd)


@dataclass(frozen=True, kw_only=True)
class Connection:
    """How to reach one server."""

    settings: Settings
    host: str
    key_path: str
    folder: Path  #: of our own, for the list of known servers

    def prepare(self) -> None:
        """Check the private key, and learn the server's. Raises Wrong."""
        done = _run(["ssh-keygen", "-y", "-P", "", "-f", self.key_path])
        if done.returncode:
            said = done.stderr.lower()
            if "passphrase" in said:
                raise Wrong(
                    "the key has a passphrase: make one without, for this deploy alone (ssh-keygen -N '')"
                )
            raise Wrong(
                "the key is no private key: it begins with a line `-----BEGIN OPENSSH PRIVATE KEY-----` and "
                "ends with one `-----END ...`; set the secret from the file itself"
            )
        self._known.write_text(self._known_hosts())

    def run(self, script: str, *arguments: str) -> subprocess.Popen[bytes]:
        """`script` in the server's sh, its standard input a pipe. It holds nothing secret: others see it."""
        remote = " ".join(shlex.quote(word) for word in ("sh", "-c", script, "sh", *arguments))
        return subprocess.Popen(
            [*self._ssh(), remote],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
        )

    def explain(self, said: str) -> str:
        """What ssh itself says, as a sentence with what to do."""
        where = f"{self.host} port {self.settings.port}"
        for sign, sentence in _EXPLAINED:
            if sign in said:
                return sentence.format(where=where, user=self.settings.user, said=said.strip())
        return f"ssh to {where} failed: {said.strip() or 'the connection was lost'}"

    @property
    def _known(self) -> Path:
        return self.folder / f"known_hosts.{hashlib.sha256(self.host.encode()).hexdigest()[:16]}"

    def _ssh(self) -> list[str]:
        options = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(self._known),
            "GlobalKnownHostsFile": "/dev/null",
            "UpdateHostKeys": "no",
            "IdentityFile": self.key_path,
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "PreferredAuthentications": "publickey",
            "ForwardAgent": "no",
            "ClearAllForwardings": "yes",
            "ConnectTimeout": str(_CONNECT_SECONDS),
            "ServerAliveInterval": "15",
            "ServerAliveCountMax": "4",
            "LogLevel": "ERROR",
        }
        flags = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        where = ["-p", str(self.settings.port), "-l", self.settings.user, "--", self.host]
        return ["ssh", "-F", "none", "-T", *flags, *where]

    def _known_hosts(self) -> str:
        name = self.host if self.settings.port == 22 else f"[{self.host}]:{self.settings.port}"
        if self.settings.known_hosts:
            lines = self.settings.known_hosts.replace("\r\n", "\n").splitlines()
            bare = (f"{name} {line}" if _KEY_TYPE.match(line.partition(" ")[0]) else line for line in lines)
            return "\n".join(bare) + "\n"
        offered = self._offered()
        matching = [line for line, fingerprint in offered if fingerprint in self.settings.fingerprints]
        if not matching:
            wanted = " or ".join(self.settings.fingerprints)
            shown = ", ".join(f"{line.split()[0]} {fingerprint}" for line, fingerprint in offered)
            raise Wrong(
                f"{self.host} has another key than the setting fingerprint says ({wanted}): it shows "
                f"{shown}. Either it was set up anew, then check its key on the server itself, or somebody "
                "stands between"
            )
        return "".join(f"{name} {line}\n" for line in matching)

    def _offered(self) -> list[tuple[str, str]]:
        """(type and key, fingerprint) of each key that the server shows."""
        command = ["ssh-keyscan", "-T", str(_CONNECT_SECONDS), "-p", str(self.settings.port), "--", self.host]
        done = _run(command)
        found = []
        for line in done.stdout.splitlines():
            parts = line.split()
            if len(parts) >= 3 and not line.startswith("#"):
                found.append((f"{parts[1]} {parts[2]}", fingerprint_of(parts[2])))
        if not found:
            raise Wrong(self.explain(done.stderr or "shows no key"))
        return found


def fingerprint_of(key: str) -> str:
    try:
        blob = base64.b64decode(key, validate=True)
    except binascii.Error:
        return ""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


_EXPLAINED = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "{where} has another key than known_hosts says. Either it was set up anew, then check its key on the "
        "server itself and set known_hosts anew, or somebody stands between",
    ),
    (
        "Host key verification failed",
        "known_hosts has no line for {where}: add what `ssh-keyscan` prints for it",
    ),
    ("host key is known for", "known_hosts has no line for {where}: add what `ssh-keyscan` prints for it"),
    (
        "Permission denied",
        "{where} does not let {user} in with this key: its public half must stand in the file "
        "~/.ssh/authorized_keys of {user} on the server",
    ),
    ("Could not resolve hostname", "there is no host of this name: {where}"),
    ("getaddrinfo", "there is no host of this name: {where}"),
    (
        "shows no key",
        "{where} shows no key: is an SSH server running there, on that port, and may this runner's machine "
        "reach it?",
    ),
    ("Connection refused", "{where} refuses connections: is an SSH server running there, on that port?"),
    ("timed out", "{where} does not answer: is it on, and may this runner's machine reach it?"),
    ("No route to host", "{where} cannot be reached from this runner's machine"),
    ("Network is unreachable", "{where} cannot be reached from this runner's machine"),
)


def _environment() -> dict[str, str]:
    """Of what we start: nothing of our own settings."""
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/nonexistent", "LC_ALL": "C"}


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True
    )


# --- the line -----------------------------------------------------------------------------------------


class _Said:
    """Passes on what a program writes to its standard error, and keeps the end of it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._kept = b""
        self._thread = Thread(target=self._read, daemon=True)
        self._thread.start()

    def end(self) -> str:
        self._thread.join()
        return self._kept.decode(errors="replace")

    def _read(self) -> None:
        for line in self._stream:
            sys.stderr.buffer.write(line)
            sys.stderr.buffer.flush()
            self._kept = (self._kept + line)[-8192:]


@dataclass(frozen=True, kw_only=True)
class Deploy:
    """One release, to every server of the settings."""

    settings: Settings
    release: str
    found: Mapping[str, Path]
    connections: Sequence[Connection]

    def run(self) -> None:
        """All servers have the whole release before the first of them switches. Raises Wrong."""
        for connection in self.connections:
            connection.prepare()
        for connection in self.connections:
            self._upload(connection)
        live: list[str] = []
        for connection in self.connections:
            self._switch(connection, live)
            live.append(connection.host)

    def _upload(self, connection: Connection) -> None:
        size = sum(path.lstat().st_size for path in self.found.values())
        where = f"{connection.host}:{self.settings.target}/releases/{self.release}"
        _say(f"sending {len(self.found)} files, {size:,} bytes, to {where}")

        def send(out: IO[bytes]) -> None:
            write_tar(self.found, out)

        failed = "the files could not be sent, and nothing was changed"
        self._remote(connection, _RECEIVE, send, failed)

    def _switch(self, connection: Connection, live: Sequence[str]) -> None:
        before = f"; it is live on {', '.join(live)} already" if live else ""
        failed = f"the release did not go live on {connection.host}, where the old one still is{before}"
        self._remote(connection, _SWITCH, _sender(self.settings.prepare), failed, str(self.settings.keep))
        if self.settings.script:
            failed = f"the release is live on {connection.host}, but the script after it failed"
            self._remote(connection, _AFTER, _sender(self.settings.script), failed)

    def _remote(
        self,
        connection: Connection,
        script: str,
        send: Callable[[IO[bytes]], None],
        failed: str,
        *more: str,
    ) -> None:
        process = connection.run(script, self.settings.target, self.release, *more)
        assert process.stdin and process.stderr
        said = _Said(process.stderr)
        try:
            with suppress(BrokenPipeError), process.stdin as out:
                send(out)
            code = process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        text = said.end()
        process.stderr.close()
        if code == 255:
            raise Wrong(f"{failed}: {connection.explain(text)}")
        if code:
            raise Wrong(f"{failed}: the server's shell ended with {code}")


def _sender(text: str) -> Callable[[IO[bytes]], None]:
    def send(out: IO[bytes]) -> None:
        out.write(text.encode())

    return send


def _say(text: str) -> None:
    print(text, flush=True)


def release_name(environ: Mapping[str, str], now: float) -> str:
    """Its name sorts by time, and says which build made it."""
    parts = [time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))]
    number, sha = environ.get("CI_PIPELINE_NUMBER", ""), environ.get("CI_COMMIT_SHA", "")
    parts += [number if number.isdigit() else "0", sha[:7] if sha.isalnum() else "0"]
    return "-".join(parts)


def main() -> None:
    signal.signal(signal.SIGTERM, _stop)
    environ = dict(os.environ)
    for name in environ:
        if name.startswith("PLUGIN_"):
            del os.environ[name]
    folder = Path(tempfile.mkdtemp(prefix="deploy-"))
    try:
        settings = Settings.of(environ)
        found = files(settings, Path.cwd())
        with key_in_memory(settings.key) as key_path:
            connections = [
                Connection(settings=settings, host=host, key_path=key_path, folder=folder)
                for host in settings.hosts
            ]
            release = release_name(environ, time.time())
            Deploy(settings=settings, release=release, found=found, connections=connections).run()
    except Wrong as wrong:
        sys.exit("\n".join(f"error: {line}" for line in str(wrong).splitlines()))
    except OSError as error:
        sys.exit(f"error: {error.filename or 'a file'}: {error.strerror}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _stop(number: int, frame: object) -> None:
    _say("stopped: what was sent but is not live yet is removed by a later deploy")
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main()
