"""Parked containers: the text that holds a network namespace, its image, and what it answers. Pure.

A step that joins a namespace gets the holder's `/etc/hosts`, `resolv.conf` and `hostname` writable, and
may leave sockets behind. So before the next step joins, the holder's own process, which no step can
reach, writes the files back and counts the sockets that are left.
"""

from __future__ import annotations

import io
import ipaddress
import re
import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path

IMAGE = "shipway/park:1"
#: Where there is no busybox on this machine, this image is pulled, through the mirrors.
FALLBACK_IMAGE = "busybox:stable-musl"
READY = b"ready"
CLEAN = b"clean\n"
LISTENING = b"listening\n"
_APPLETS = ("sh", "cat", "ip", "chmod", "chown")

#: $0 is the folder that is cloned into, if this one holds the workspace; the arguments: what is prohibited.
PARK = r"""
[ -z "$0" ] || ( umask 0; chmod 0777 "$shipway_workspace" && /bin/busybox mkdir -p "$0" ) || exit 1
for folder in /volumes/*; do [ ! -d "$folder" ] || chmod 0777 "$folder" || exit 1; done
for address in "$@"; do ip route add prohibit "$address" || exit 1; done
hosts=$(cat /etc/hosts); resolv=$(cat /etc/resolv.conf); name=$(cat /etc/hostname)
sockets() {
  for kind in tcp tcp6 udp udp6 udplite udplite6 raw raw6 icmp icmp6; do
    [ -r /proc/net/$kind ] || continue
    while read -r number address rest; do
      [ "$number" = sl ] || echo "$kind/$address"
    done </proc/net/$kind
  done
}
listening() {
  for kind in tcp tcp6; do
    [ -r /proc/net/$kind ] || continue
    while read -r number address remote state rest; do
      [ "$state" != 0A ] || echo "$address"
    done </proc/net/$kind
  done
}
own=" $(echo $(sockets)) "
echo ready
while read -r order; do
  [ "$order" != listening ] || { echo "listening" $(listening); continue; }
  chown 0:0 /etc/hosts /etc/resolv.conf /etc/hostname
  chmod 0644 /etc/hosts /etc/resolv.conf /etc/hostname
  echo "$hosts" >/etc/hosts; echo "$resolv" >/etc/resolv.conf; echo "$name" >/etc/hostname
  left=0
  for socket in $(sockets); do
    case "$own" in *" $socket "*) ;; *) left=$((left + 1));; esac
  done
  echo "sockets $left"
done
"""

#: Of IPv6, as the kernel writes them: its own, and the mapped one of IPv4.
_LOOPBACK = (b"00000000000000000000000001000000", b"0000000000000000FFFF00000100007F")

#: Addresses at which clouds tell a machine about itself, credentials included.
METADATA = ("169.254.0.0/16", "100.100.100.200/32", "192.0.0.192/32")


def why_closed(answer: bytes, port: int) -> str:
    """Why nobody outside reaches `port`, by the addresses at which something listens; empty: it is open."""
    addresses = [word.partition(b":") for word in answer.split()[1:]]
    at_port = [address for address, _, number in addresses if int(number, 16) == port]
    if not at_port:
        return f"nothing listens at port {port}"
    if all((address.endswith(b"7F") and len(address) == 8) or address in _LOOPBACK for address in at_port):
        return f"port {port} is open on 127.0.0.1 only, where no step reaches it"
    return ""


def sockets_left(answer: bytes) -> int | None:
    """What the holder counted; None if that is no answer."""
    match = re.fullmatch(rb"sockets (\d+)", answer.strip())
    return int(match[1]) if match else None


def rootfs() -> bytes | None:
    """A tar for IMAGE, made of this machine's busybox; None where there is none that is static."""
    found = shutil.which("busybox")
    if found is None or not is_static(Path(found).read_bytes()):
        return None
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in ("bin", "etc", "proc", "sys", "dev", "tmp"):
            tar.addfile(_entry(folder, tarfile.DIRTYPE, 0o755))
        binary = Path(found).read_bytes()
        entry = _entry("bin/busybox", tarfile.REGTYPE, 0o755)
        entry.size = len(binary)
        tar.addfile(entry, io.BytesIO(binary))
        for applet in _APPLETS:
            entry = _entry(f"bin/{applet}", tarfile.SYMTYPE, 0o777)
            entry.linkname = "busybox"
            tar.addfile(entry)
    return buffer.getvalue()


def is_static(elf: bytes) -> bool:
    """Whether a 64-bit little-endian ELF file names no interpreter."""
    if elf[:6] != b"\x7fELF\x02\x01":
        return False
    offset = int.from_bytes(elf[32:40], "little")
    size, count = int.from_bytes(elf[54:56], "little"), int.from_bytes(elf[56:58], "little")
    kinds = (int.from_bytes(elf[offset + n * size : offset + n * size + 4], "little") for n in range(count))
    return 3 not in kinds  # PT_INTERP


def local_addresses(fib_trie: str) -> set[str]:
    """The addresses of a machine, from the text of its /proc/net/fib_trie; without loopback."""
    found = re.findall(r"\|-- (\S+)\n\s+/32 host LOCAL", fib_trie)
    return {address for address in found if not address.startswith("127.")}


def prohibited(subnet: str, subnets: str, machine: Iterable[str]) -> list[str]:
    """What a namespace in `subnet` must not reach: the machine, all other jobs' subnets, metadata."""
    own = ipaddress.IPv4Network(subnet)
    gateway = str(own[1])
    machine = sorted(set(machine) - {gateway})
    return [f"{gateway}/32", *(f"{address}/32" for address in machine), *METADATA, subnets]


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = kind, mode
    return entry
