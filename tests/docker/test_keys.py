"""What a file may say of a step's container, against the real engine: each key has its effect."""

from __future__ import annotations

import asyncio
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from ci.spec import Device, Mount, Pull, Ready, Rights, StepKind, Trust, Volume
from ci.status import Outcome
from runners.engines.base import Exit
from runners.engines.sandbox import Allowed
from tests.docker.conftest import Docker
from tests.docker.test_conformance import tar_of
from tests.stage import IMAGE, SETTINGS, Stage, step

pytestmark = pytest.mark.docker
ALL = replace(SETTINGS, allowed=Allowed(rights=frozenset({"network", "volumes", "security"})))
TRUST = Trust(network=True, volumes=True, security=True)


async def test_the_clone_lies_in_a_folder_of_the_workspace_and_commands_start_there(docker: Docker) -> None:
    where = {"workspace": "/base", "directory": "/base/src/app"}
    reads = step("reads", "pwd", "cat hello", "echo more >made", "ls /base")
    async with docker(reads, **where) as stage:
        await stage.engine.fill(tar_of({"hello": b"hi\n"}))
        exit_, printed = await stage.run("reads")
    assert (exit_.code, printed.text) == (0, "/base/src/app\nhi\nsrc\n")


async def test_a_step_starts_in_its_own_directory_as_its_own_user(docker: Docker) -> None:
    own = step(
        "own", "pwd", "id -u", "id -g", "echo >/workspace/mine", directory="/tmp/not/there", user="7:8"
    )
    async with docker(own) as stage:
        exit_, printed = await stage.run("own")
    assert (exit_.code, printed.text) == (0, "/tmp/not/there\n7\n8\n")


async def test_a_user_that_the_image_does_not_have_is_said_to_be_the_reason(docker: Docker) -> None:
    async with docker(step("own", "true", user="nobody-knows")) as stage:
        exit_, _ = await stage.run("own")
    assert exit_.code is None
    assert "nobody-knows" in exit_.reason


async def test_steps_share_a_volume_of_the_job_and_read_only_is_read_only(docker: Docker) -> None:
    shared = Mount(path="/cache", volume="cache")
    writes = step("writes", "echo kept >/cache/it", mounts=(shared,), user="7")
    read_only = shared.model_copy(update={"is_read_only": True})
    reads = step("reads", "cat /cache/it", "! echo >/cache/no", mounts=(read_only,))
    async with docker(writes, reads, volumes=(Volume(name="cache"),)) as stage:
        assert (await stage.run("writes"))[0].code == 0
        exit_, printed = await stage.run("reads")
    assert exit_.code == 0
    assert printed.text.startswith("kept\n")


async def test_a_volume_in_memory_keeps_what_a_step_wrote_and_has_its_size(docker: Docker) -> None:
    mount = Mount(path="/fast", volume="fast")
    volume = Volume(name="fast", is_memory=True, size_bytes=4 << 20)
    writes = step("writes", "echo kept >/fast/it", "grep ' /fast tmpfs' /proc/mounts", mounts=(mount,))
    reads = step("reads", "cat /fast/it", "! dd if=/dev/zero of=/fast/big bs=1M count=8", mounts=(mount,))
    async with docker(writes, reads, volumes=(volume,), trust=TRUST) as stage:
        assert (await stage.run("writes"))[0].code == 0
        exit_, printed = await stage.run("reads")
    assert exit_.code == 0
    assert printed.text.startswith("kept\n")


async def test_volumes_are_gone_with_the_job(docker: Docker) -> None:
    writes = step("writes", "true", mounts=(Mount(path="/cache", volume="cache"),))
    async with docker(writes, volumes=(Volume(name="cache"),)) as stage:
        await stage.run("writes")
        assert len(volumes_of(stage.owner.server)) == 2
        await stage.engine.destroy()
        assert volumes_of(stage.owner.server) == []


async def test_an_entrypoint_is_the_shell_of_commands(docker: Docker, tmp_path: Path) -> None:
    other = step("other", "echo $0", entrypoint=("/bin/ash", "-c"))
    async with docker(other) as stage:
        exit_, _ = await stage.run("other")
        assert exit_.code == 0
    none = step("none", "true", entrypoint=("/bin/fish",))
    async with docker(none) as stage:
        exit_, _ = await stage.run("none")
    assert exit_.outcome is Outcome.IMAGE
    assert exit_.reason.startswith(f"image {IMAGE} has no /bin/fish, and commands need one")


async def test_entrypoint_and_arguments_replace_those_of_the_image(docker: Docker) -> None:
    plugin = {"kind": StepKind.PLUGIN, "settings": {"a": 1}}
    entry = step("entry", entrypoint=("/bin/echo", "of", "the step"), **plugin)
    both = step("both", entrypoint=("/bin/echo",), arguments=("more", "$HOME"), **plugin)
    async with docker(entry, both) as stage:
        assert (await stage.run("entry"))[1].text == "of the step\n"
        assert (await stage.run("both"))[1].text == "more $HOME\n"


async def test_an_image_that_may_not_be_pulled_is_taken_from_the_machine_only(docker: Docker) -> None:
    there = step("there", "true", pull=Pull.NEVER)
    gone = step("gone", "true", image="shipway-test.invalid/no:1", pull=Pull.NEVER)
    asked = step("asked", "true", image="shipway-test.invalid/no:1", pull=Pull.ALWAYS)
    async with docker(there, gone, asked) as stage:
        assert (await stage.run("there"))[0] == Exit(code=0)
        exit_, _ = await stage.run("gone")
        assert exit_.outcome is Outcome.IMAGE
        assert exit_.reason.endswith("is not on this runner's engine, and the step says `pull: never`")
        exit_, _ = await stage.run("asked")
        assert exit_.reason.startswith("image shipway-test.invalid/no:1 cannot be pulled")


async def test_an_image_that_is_always_pulled_is_not_taken_from_the_machine(docker: Docker) -> None:
    asked = step("asked", "true", image="shipway-test.invalid/no:2", pull=Pull.ALWAYS)
    subprocess.run(["docker", "tag", IMAGE, "shipway-test.invalid/no:2"], check=True)
    try:
        async with docker(asked) as stage:
            exit_, _ = await stage.run("asked")
    finally:
        subprocess.run(["docker", "rmi", "shipway-test.invalid/no:2"], check=True, capture_output=True)
    assert exit_.outcome is Outcome.IMAGE


async def test_names_and_resolvers_of_a_trusted_repo_reach_the_step(docker: Docker) -> None:
    rights = Rights(dns=("192.0.2.1",), dns_search=("corp.example",), extra_hosts=("db.corp:192.0.2.7",))
    looks = step("looks", "grep db.corp /etc/hosts", "cat /etc/resolv.conf", rights=rights)
    async with docker(looks, trust=TRUST) as stage:
        exit_, printed = await stage.run("looks")
    assert exit_.code == 0, exit_.reason
    assert "192.0.2.7\tdb.corp" in printed.text
    assert "search corp.example" in printed.text


async def test_a_step_without_a_network_has_none(docker: Docker) -> None:
    alone = step("alone", "ls /sys/class/net", rights=Rights(network_mode="none"))
    async with docker(alone) as stage:
        assert (await stage.run("alone"))[1].text == "lo\n"


async def test_tmpfs_shared_memory_and_devices_of_a_trusted_repo(docker: Docker) -> None:
    device = Device(path="/dev/ours", host="/dev/full")
    rights = Rights(tmpfs=("/scratch:size=64k",), shm_bytes=1 << 20, devices=(device,))
    looks = step("looks", "grep -E ' /(scratch|dev/shm) ' /proc/mounts", "ls /dev/ours", rights=rights)
    async with docker(looks, trust=TRUST, settings=ALL) as stage:
        exit_, printed = await stage.run("looks")
    assert exit_.code == 0, exit_.reason
    assert "size=64k" in printed.text
    assert "size=1024k" in printed.text


async def test_a_folder_of_the_machine_must_be_named_by_the_owner_of_the_runner(
    docker: Docker, tmp_path: Path
) -> None:
    (tmp_path / "it").write_text("of the machine\n")
    mount = Mount(path="/given", host=f"{tmp_path}/", is_read_only=True)
    reads = step("reads", "cat /given/it", mounts=(mount,))
    async with docker(reads, trust=TRUST, settings=ALL) as stage:
        exit_, _ = await stage.run("reads")
    assert exit_.outcome is Outcome.INFRA
    assert "its owner can name it in SHIPWAY_HOST_FOLDERS" in exit_.reason
    named = replace(ALL, allowed=replace(ALL.allowed, host_folders=(str(tmp_path.parent),)))
    async with docker(reads, trust=TRUST, settings=named) as stage:
        assert (await stage.run("reads"))[1].text == "of the machine\n"


def volumes_of(server: str) -> list[str]:
    command = ["docker", "volume", "ls", "-q", "--filter", f"label=shipway.server={server}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


# --- readiness --------------------------------------------------------------------------------


async def why_unready(stage: Stage, ready: Ready) -> str:
    """Of the service `db`, once it has printed `up`."""
    task, printed, _ = stage.start("db")
    await printed.saw(b"up\n")
    why = await stage.engine.probe("db", ready)
    await stage.engine.stop("db", 0)
    await task
    return why


@pytest.mark.parametrize(
    ("serves", "port", "why"),
    [
        ("nc -l -p 5432", 5432, ""),
        ("nc -l -p 5432", 5433, "nothing listens at port 5433"),
        (
            "httpd -f -p 127.0.0.1:5432",
            5432,
            "port 5432 is open on 127.0.0.1 only, where no step reaches it",
        ),
    ],
)
async def test_a_service_is_ready_at_a_port_that_steps_reach(
    docker: Docker, serves: str, port: int, why: str
) -> None:
    listens = "until grep -q ':1538 .* 0A ' /proc/net/tcp*; do sleep 0.05; done; echo up; wait"
    db = step("db", f"{serves} & {listens}", kind=StepKind.SERVICE)
    async with docker(db) as stage:
        assert await why_unready(stage, Ready(port=port)) == why


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("test $PASSWORD = s3cr3t", ""),
        ("exit 7", "its command 'exit 7' exited with 7"),
        ("no-such", "its command 'no-such' exited with 127"),
    ],
)
async def test_a_command_of_a_service_knows_its_variables(docker: Docker, command: str, why: str) -> None:
    db = step("db", "echo up; sleep 600", kind=StepKind.SERVICE, environment={"PASSWORD": "s3cr3t"})
    async with docker(db) as stage:
        assert await why_unready(stage, Ready(command=command)) == why


async def test_a_service_may_be_ready_by_the_word_of_its_image(docker: Docker, tmp_path: Path) -> None:
    image = "shipway-test/healthy:1"
    file = f"FROM {IMAGE}\nHEALTHCHECK --interval=1h CMD test -e /up\n"
    build = ["docker", "build", "-q", "-t", image, "-"]
    subprocess.run(build, input=file, text=True, check=True, capture_output=True)
    ready = Ready(interval_seconds=0.1)
    db = step("db", "echo up; sleep 1; touch /up; sleep 600", kind=StepKind.SERVICE, image=image, ready=ready)
    try:
        async with docker(db) as stage:
            task, printed, _ = stage.start("db")
            await printed.saw(b"up\n")
            assert await stage.engine.probe("db", ready) == "its HEALTHCHECK says starting"
            while await stage.engine.probe("db", ready):
                await asyncio.sleep(0.1)
            await stage.engine.stop("db", 0)
            await task
    finally:
        subprocess.run(["docker", "rmi", image], check=True, capture_output=True)


async def test_a_service_without_a_check_in_its_image_says_what_to_do(docker: Docker) -> None:
    db = step("db", "echo up; sleep 600", kind=StepKind.SERVICE, ready=Ready())
    async with docker(db) as stage:
        assert await why_unready(stage, Ready()) == (
            "its image has no HEALTHCHECK; say `ready` with a port or a command"
        )
