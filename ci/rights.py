"""Rights: what a step wants beyond the sandbox, and whether the repo of its job may have it (law 8). Pure.

The server asks when it compiles, so that a build says so before anything runs; the engine asks again, and the
owner of the runner's machine has a word of his own there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ci.images import repository
from ci.spec import JobSpec, StepKind, StepSpec, Trust, Volume

#: The switches of Trust.
SWITCHES = ("network", "volumes", "security")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    what: str
    switch: str
    stays_in_job: bool = False  #: it touches nothing but the job: the runner's owner need not allow it


#: Also what a plugin gets whose image is approved, without a word in the file.
PRIVILEGED = Wanted(what="`privileged`", switch="security")


def wanted(step: StepSpec, volumes: Iterable[Volume] = ()) -> list[Wanted]:
    """`network_mode: none` is less than the sandbox gives, not more."""
    rights = step.rights
    in_memory = {volume.name for volume in volumes if volume.is_memory}
    asked = (
        ("`privileged`", "security", False, rights.is_privileged),
        ("`network_mode`", "network", False, rights.network_mode not in ("", "none")),
        ("`dns`", "network", True, rights.dns),
        ("`dns_search`", "network", True, rights.dns_search),
        ("`extra_hosts`", "network", True, rights.extra_hosts),
        ("`devices`", "volumes", False, rights.devices),
        ("`tmpfs`", "volumes", True, rights.tmpfs),
        ("`shm_size`", "volumes", True, rights.shm_bytes),
        ("a folder of the machine", "volumes", False, any(mount.host for mount in step.mounts)),
        ("a volume in memory", "volumes", True, any(mount.volume in in_memory for mount in step.mounts)),
    )
    return [
        Wanted(what=what, switch=switch, stays_in_job=stays)
        for what, switch, stays, is_asked in asked
        if is_asked
    ]


def refusal(step: StepSpec, volumes: Iterable[Volume], trust: Trust, *, is_trusted: bool) -> str:
    """Why the step may not have what it wants, as a sentence that says who can allow it; empty: it may."""
    if step.rights.network_mode.startswith("container:"):
        return "`network_mode` cannot name a container: it may be another job's"
    for want in wanted(step, volumes):
        if not is_trusted:
            return f"{want.what} is never allowed in a build of a fork"
        if not getattr(trust, want.switch):
            who = f"a server admin can allow `{want.switch}` in the settings of the repo"
            return f"{want.what} is not allowed: {who}"
    return ""


def is_privileged(step: StepSpec, job: JobSpec) -> bool:
    """By the file (`refusal` looks at that), or as a plugin that an admin has approved for its image."""
    return step.rights.is_privileged or _is_approved(step, job)


def _is_approved(step: StepSpec, job: JobSpec) -> bool:
    if not job.is_trusted or step.kind is not StepKind.PLUGIN or not step.is_told_by_settings_alone:
        return False
    return repository(step.image) in {repository(name) for name in job.trust.privileged_plugins}
