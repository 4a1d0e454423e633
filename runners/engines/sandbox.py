"""Sandbox: what a container may do. Pure: spec and place in, the daemon's arguments out.

The only place that grants a right. Everything here is on by default and nothing in a pipeline file
switches it off (law 8; docs/reference/engine.md says it to users).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from ci.spec import StepKind, StepSpec
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
    machine_memory_bytes: int
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
    step: StepSpec, image: Image, place: Place, *, namespace: str, door: Door, environment: Mapping[str, str]
) -> dict[str, Any]:
    """A step's container. `environment` is what stands in the config, for all to see."""
    memory = memory_bytes(step, place.machine_memory_bytes)
    mounts = [_workspace(place)]
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
            "NetworkMode": f"container:{namespace}",
            "CapDrop": list(DROPPED_CAPABILITIES),
            "PidsLimit": step.limits.pids,
            "Memory": memory,
            "MemorySwap": memory,
            "NanoCpus": int((step.limits.cpus or 0) * 1e9),
            "Mounts": mounts,
            "Init": door is Door.BARE,
            "OomScoreAdj": 500,
        },
    }
    if step.kind is not StepKind.SERVICE or step.commands:
        config["WorkingDir"] = place.workspace
    if door is not Door.BARE:
        text = gate.JOINED if door is Door.JOINED else gate.APART
        config |= {"Entrypoint": ["/bin/sh", "-c", text, "sh"], "Cmd": []}
    return config


def parked_config(
    image: str, place: Place, *, prohibited: Sequence[str], aliases: Sequence[str], holds_workspace: bool
) -> dict[str, Any]:
    """A container that holds a network namespace. `prohibited`: addresses that nobody in it can reach."""
    return {
        "Image": image,
        "Entrypoint": ["/bin/sh", "-c", PARK, place.workspace if holds_workspace else ""],
        "Cmd": list(prohibited),
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
            "Mounts": [_workspace(place)] if holds_workspace else [],
            "Init": False,
            "Dns": list(place.dns),
        },
        "NetworkingConfig": {"EndpointsConfig": {place.network: {"Aliases": list(aliases)}}},
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


def _hardened() -> dict[str, Any]:
    return {
        "Privileged": False,
        "SecurityOpt": ["no-new-privileges"],
        "LogConfig": {"Type": "none"},
        "RestartPolicy": {"Name": "no"},
        "IpcMode": "private",
    }
