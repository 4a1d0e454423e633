"""A real sshd on an address that steps reach: a container with one end of a cable of its own.

Steps reach neither this machine's addresses nor another network of the engine. So the container has none of
those, but one end of a veth pair, to which this machine routes.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from pathlib import Path

from bench.whole import until

_NUMBERS = itertools.count(1)
_SET_UP = """
set -eu
useradd -m -s /bin/sh -p '*' deploy
install -d -m 0700 -o deploy /home/deploy/.ssh
cat >/home/deploy/.ssh/authorized_keys
chown deploy /home/deploy/.ssh/authorized_keys
install -d -o deploy /srv/app
ssh-keygen -q -t ed25519 -N '' -f /root/host_key
mkdir -p /run/sshd
"""
_SERVE = (
    "/usr/sbin/sshd",
    *("-D", "-e", "-p", "2222", "-h", "/root/host_key", "-o", "UsePAM=no", "-o", "PasswordAuthentication=no"),
)
PORT = 2222


class Sshd:
    """User `deploy`, target /srv/app, port 2222. `close` it."""

    def __init__(self, folder: Path, image: str = "shipway-test/debian:12") -> None:
        number = next(_NUMBERS)
        self._cable = f"swy{os.getpid() % 100000}x{number}"
        net = f"10.214.{os.getpid() % 200}.{4 * number}"
        prefix, last = net.rsplit(".", 1)
        here, self.host = f"{prefix}.{int(last) + 1}", f"{prefix}.{int(last) + 2}"
        self.key = _new_key(folder / f"deploy-key-{number}")
        command = ["docker", "run", "-d", "--rm", "--network", "none", image, "sleep", "3600"]
        self._container = _do(*command).strip()
        pid = _do("docker", "inspect", "-f", "{{.State.Pid}}", self._container).strip()
        _do("ip", "link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", pid)
        _do("ip", "address", "add", f"{here}/30", "dev", self._cable)
        _do("ip", "link", "set", self._cable, "up")
        inside = ("nsenter", "-t", pid, "-n", "ip")
        _do(*inside, "address", "add", f"{self.host}/30", "dev", "eth0")
        _do(*inside, "link", "set", "eth0", "up")
        _do(*inside, "route", "add", "default", "via", here)
        public = (folder / f"deploy-key-{number}.pub").read_text()
        _do("docker", "exec", "-i", self._container, "sh", "-c", _SET_UP, stdin=public)
        self.host_key = self.run("cat /root/host_key.pub").strip()
        self.fingerprint = self.run("ssh-keygen -lf /root/host_key.pub").split()[1]
        _do("docker", "exec", "-d", self._container, *_SERVE)
        until(lambda: ":08AE" in self.run("cat /proc/net/tcp"))  # 2222 in hexadecimal

    def run(self, script: str) -> str:
        """As root on the server."""
        return _do("docker", "exec", self._container, "sh", "-c", script)

    def close(self) -> None:
        subprocess.run(["docker", "rm", "-f", self._container], capture_output=True)
        subprocess.run(["ip", "link", "delete", self._cable], capture_output=True)


def _new_key(path: Path) -> str:
    _do("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "deploy", "-f", str(path))
    return path.read_text()


def _do(*command: str, stdin: str = "") -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout
