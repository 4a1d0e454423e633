"""Sandbox: what a container may do. Pure: spec and place in, the daemon's arguments out.

The only place that grants a right. Everything here is on by default, and nothing in a pipeline file switches
it off by itself (law 8; docs/reference/engine.md says it to users): what a step wants beyond it must be
allowed for the repo by a server admin, in a build that is no fork's, and what reaches the machine by the
runner too.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from ci import rights
from ci.spec import JobSpec, Mount, StepKind, StepSpec, Volume
from runners.engines import gate
from runners.engines.base import Owner
from runners.engines.daemon import Image
from runners.engines.park import PARK

#: Taken from the daemon's default set; the rest is what ordinary images are built for.
DROPPED_CAPABILITIES = ("NET_RAW", "MKNOD", "AUDIT_WRITE")
#: A parked container runs our own text only. No step ever has these: a step has its own process.
_PARKED_CAPABILITIES = ("NET_ADMIN", "DAC_OVERRIDE", "CHOWN", "FOWNER")
_PARKED_MEMORY_BYTES = 64 << 20
#: What stays for the machine, the engine and the runner.
_RESERVE_BYTES = 512 << 20
_MEMORY_VOLUME_BYTES = 512 << 20
_BUNDLE = "/etc/ssl/shipway-ca.pem"
_BUNDLE_VARIABLES = (
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "PIP_CERT",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
)
HOSTNAME = "shipway"


class Door(Enum):
    """How a step's own code is started."""

    JOINED = "joined"  #: by the gate, standard error joined to standard output
    APART = "apart"  #: by the gate, two streams
    BARE = "bare"  #: the image's own program, under the daemon's init: it has no shell


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the containers of one attempt stand."""

    owner: Owner
    network: str
    volume: str
    workspace: str
    directory: str  #: the workspace, or the folder in it that is cloned into
    machine_memory_bytes: int
    volumes: Mapping[str, str] = field(default_factory=dict)  #: name in the job -> the daemon's volume
    privileged: frozenset[str] = frozenset()  #: slugs of the steps that have all rights
    ca_bundle: Path | None = None
    dns: tuple[str, ...] = ()


def name_of(owner: Owner) -> str:
    """The beginning of every name of the attempt; another server's attempts have others."""
    server = hashlib.sha256(owner.server.encode()).hexdigest()[:8]
    return f"shipway-{server}-{owner.job}-{owner.attempt}"


def labels_of(owner: Owner) -> dict[str, str]:
    return {**attempt_labels(owner.server, owner.job, owner.attempt), "shipway.runner": owner.runner}


def attempt_labels(server: str, job: int, attempt: int) -> dict[str, str]:
    """What every resource of the attempt carries, whoever made it."""
    return {"shipway.server": server, "shipway.job": str(job), "shipway.attempt": str(attempt)}


def memory_bytes(step: StepSpec, machine_memory_bytes: int) -> int:
    """The step's limit: what it asks for, but never more than the machine can spare."""
    spare = max(machine_memory_bytes - _RESERVE_BYTES, machine_memory_bytes // 2)
    return min(step.limits.memory_bytes or spare, spare)


def step_config(
    step: StepSpec,
    image: Image,
    place: Place,
    *,
    namespace: str,
    door: Door,
    environment: Mapping[str, str],
) -> dict[str, Any]:
    """A step's container. `environment` is what stands in the config, for all to see."""
    memory = memory_bytes(step, place.machine_memory_bytes)
    privileged = step.slug in place.privileged
    mounts = [_workspace(place), *(_mount(mount, place) for mount in step.mounts)]
    visible = dict(environment)
    if place.ca_bundle:
        bundle = {"Type": "bind", "Source": str(place.ca_bundle), "Target": _BUNDLE, "ReadOnly": True}
        mounts.append(bundle)
        visible = {**dict.fromkeys(_BUNDLE_VARIABLES, _BUNDLE), **visible}
    config: dict[str, Any] = {
        "Image": image.id,
        "Env": [f"{name}={value}" for name, value in visible.items()],
        "Labels": {**labels_of(place.owner), "shipway.step": step.slug},
        "AttachStdin": door is not Door.BARE,
        "AttachStdout": True,
        "AttachStderr": True,
        "OpenStdin": door is not Door.BARE,
        "StdinOnce": door is not Door.BARE,
        "Tty": False,
        "HostConfig": {
            **_hardened(),
            **_network(step, place, namespace),
            "CapDrop": [] if privileged else list(DROPPED_CAPABILITIES),
            "PidsLimit": step.limits.pids,
            "Memory": memory,
            "MemorySwap": memory,
            "NanoCpus": int((step.limits.cpus or 0) * 1e9),
            "Mounts": mounts,
            "Init": door is Door.BARE,
            "OomScoreAdj": 500,
            **_rights(step),
        },
    }
    if privileged:
        config["HostConfig"] |= {"Privileged": True, "SecurityOpt": []}
    if step.directory or step.kind is not StepKind.SERVICE or step.commands:
        config["WorkingDir"] = step.directory or place.directory
    if step.user:
        config["User"] = step.user
    config["Healthcheck"] = _health(step)
    if door is not Door.BARE:
        text = gate.JOINED if door is Door.JOINED else gate.APART
        config |= {"Entrypoint": [shell_of(step), "-c", text, "sh"], "Cmd": []}
    elif step.entrypoint or step.arguments:
        config |= {"Entrypoint": list(program_of(step, image)), "Cmd": []}
    return config


def _health(step: StepSpec) -> dict[str, Any]:
    """The image's own check only where it is asked for, and then soon enough."""
    if step.ready is None or not step.ready.is_of_image:
        return {"Test": ["NONE"]}
    return {"Interval": int(step.ready.interval_seconds * 1e9)}


def shell_of(step: StepSpec) -> str:
    """What runs the gate, and the commands of the step: the image's shell, or what `entrypoint` says."""
    return step.entrypoint[0] if step.commands and step.entrypoint else "/bin/sh"


def program_of(step: StepSpec, image: Image) -> tuple[str, ...]:
    """What a step without commands runs. As in Docker, its own entrypoint leaves the image's command out."""
    entrypoint = step.entrypoint or image.entrypoint
    return (*entrypoint, *(step.arguments or (() if step.entrypoint else image.command)))


# --- what a step wants beyond --------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """What the owner of the runner's machine allows. Host folders by their prefixes."""

    rights: frozenset[str] = frozenset()
    host_folders: tuple[str, ...] = ()


def not_allowed(step: StepSpec, job: JobSpec, allowed: Allowed) -> str:
    """Why the step may not have what it wants, as a sentence that says who can allow it; empty: it may."""
    if refusal := rights.refusal(step, job.volumes, job.trust, is_trusted=job.is_trusted):
        return refusal
    wants = rights.wanted(step, job.volumes)
    if rights.is_privileged(step, job):
        wants.append(rights.PRIVILEGED)
    for want in wants:
        if want.switch not in allowed.rights and not want.stays_in_job:
            return f"{want.what} is not allowed on this runner: its owner can set SHIPWAY_ALLOW={want.switch}"
    for mount in step.mounts:
        if mount.host and not _is_below(mount.host, allowed.host_folders):
            return (
                f"the folder {mount.host} of the machine is not allowed on this runner: its owner can "
                "name it in SHIPWAY_HOST_FOLDERS"
            )
    return ""


def _is_below(path: str, folders: Sequence[str]) -> bool:
    plain = posixpath.normpath(path)
    return any(plain == folder or plain.startswith(folder.rstrip("/") + "/") for folder in folders)


def has_own_network(step: StepSpec) -> bool:
    """Whether it cannot stand in a namespace of the job."""
    own = step.rights
    return bool(own.network_mode or own.dns or own.dns_search or own.extra_hosts)


def _network(step: StepSpec, place: Place, namespace: str) -> dict[str, Any]:
    """A namespace of the job; what a step says of names and addresses needs one that the daemon makes."""
    own = step.rights
    if not has_own_network(step):
        return {"NetworkMode": f"container:{namespace}"}
    return {
        "NetworkMode": own.network_mode or place.network,
        "Dns": list(own.dns or place.dns),
        "DnsSearch": list(own.dns_search),
        "ExtraHosts": list(own.extra_hosts),
    }


def _rights(step: StepSpec) -> dict[str, Any]:
    """What `not_allowed` has let pass, as the daemon takes it."""
    own = step.rights
    found: dict[str, Any] = {}
    if own.devices:
        found["Devices"] = [
            {"PathOnHost": each.host, "PathInContainer": each.path, "CgroupPermissions": "rwm"}
            for each in own.devices
        ]
    if own.tmpfs:
        found["Tmpfs"] = {path: options for path, _, options in (text.partition(":") for text in own.tmpfs)}
    if own.shm_bytes:
        found["ShmSize"] = own.shm_bytes
    return found


def _mount(mount: Mount, place: Place) -> dict[str, Any]:
    """A volume of the job is never filled from an image, as the workspace."""
    if mount.host:
        found: dict[str, Any] = {"Type": "bind", "Source": posixpath.normpath(mount.host)}
    else:
        options = {"NoCopy": True, "Labels": labels_of(place.owner)}
        found = {"Type": "volume", "Source": place.volumes[mount.volume], "VolumeOptions": options}
    return {**found, "Target": mount.path, "ReadOnly": mount.is_read_only}


def parked_config(
    image: str, place: Place, *, prohibited: Sequence[str], aliases: Sequence[str], holds_workspace: bool
) -> dict[str, Any]:
    """A container that holds a network namespace. `prohibited`: addresses that nobody in it can reach."""
    return {
        "Image": image,
        "Entrypoint": ["/bin/sh", "-c", PARK, place.directory if holds_workspace else ""],
        "Cmd": list(prohibited),
        "Env": [f"shipway_workspace={place.workspace}"],
        "Hostname": HOSTNAME,
        "Labels": labels_of(place.owner),
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "OpenStdin": True,
        "Tty": False,
        "HostConfig": {
            **_hardened(),
            "NetworkMode": place.network,
            "CapDrop": ["ALL"],
            "CapAdd": list(_PARKED_CAPABILITIES),
            "PidsLimit": 64,
            "Memory": _PARKED_MEMORY_BYTES,
            "MemorySwap": _PARKED_MEMORY_BYTES,
            "Mounts": [_workspace(place), *_held_volumes(place)] if holds_workspace else [],
            "Init": False,
            "Dns": list(place.dns),
        },
        "NetworkingConfig": {"EndpointsConfig": {place.network: {"Aliases": list(aliases)}}},
    }


def reader_config(image: str, place: Place) -> dict[str, Any]:
    """A container that is never started: it holds the workspace, so that files of it can be had."""
    return {
        "Image": image,
        "Entrypoint": ["/bin/cat"],
        "Cmd": [],
        "Labels": labels_of(place.owner),
        "HostConfig": {
            **_hardened(),
            "NetworkMode": "none",
            "CapDrop": ["ALL"],
            "PidsLimit": 1,
            "Mounts": [_workspace(place)],
        },
    }


def probe_config(image: str, owner: Owner) -> dict[str, Any]:
    """A container that prints which addresses the daemon's machine has, and ends. Ours alone runs in it."""
    return {
        "Image": image,
        "Entrypoint": ["/bin/cat", "/proc/net/fib_trie"],
        "Cmd": [],
        "Labels": labels_of(owner),
        "AttachStdout": True,
        "Tty": False,
        "HostConfig": {**_hardened(), "NetworkMode": "host", "CapDrop": ["ALL"], "PidsLimit": 16},
    }


def _workspace(place: Place) -> dict[str, Any]:
    """Never filled from an image: that would give the folder the image's owner and mode.

    Labelled here too: the daemon makes a volume again that was removed before a late container.
    """
    return {
        "Type": "volume",
        "Source": place.volume,
        "Target": place.workspace,
        "VolumeOptions": {"NoCopy": True, "Labels": labels_of(place.owner)},
    }


def volume_options(volume: Volume) -> dict[str, str]:
    """Options of the daemon's own driver: one in memory takes the machine's, and so has a limit."""
    if not volume.is_memory:
        return {}
    size = volume.size_bytes or _MEMORY_VOLUME_BYTES
    return {"type": "tmpfs", "device": "tmpfs", "o": f"size={size},mode=0777,nosuid,nodev"}


def _held_volumes(place: Place) -> list[dict[str, Any]]:
    """Who holds the workspace makes the other volumes writable for all, and keeps those in memory."""
    mounts = [Mount(path=f"/volumes/{number}", volume=name) for number, name in enumerate(place.volumes)]
    return [_mount(mount, place) for mount in mounts]


def _hardened() -> dict[str, Any]:
    return {
        "Privileged": False,
        "SecurityOpt": ["no-new-privileges"],
        "LogConfig": {"Type": "none"},
        "RestartPolicy": {"Name": "no"},
        "IpcMode": "private",
    }
