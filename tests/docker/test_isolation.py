"""What a step can reach and what it cannot: the sandbox and the namespaces, on a real engine."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ci.spec import StepKind
from runners.engines import park
from runners.engines.base import Exit
from runners.engines.settings import DockerSettings
from tests.docker.conftest import Docker
from tests.stage import IMAGE, SETTINGS, WAIT_SECONDS, Stage, step

pytestmark = pytest.mark.docker
#: The default set without NET_RAW, MKNOD and AUDIT_WRITE, as the bits of the kernel.
CAPABILITIES = sum(1 << bit for bit in (0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 31))


def inspect(stage: Stage, slug: str) -> dict[str, object]:
    return dict(json.loads(docker_says("inspect", *containers(stage, f"shipway.step={slug}")))[0])


def containers(stage: Stage, *labels: str) -> list[str]:
    filters = [f"label=shipway.server={stage.owner.server}", *(f"label={label}" for label in labels)]
    return docker_says("ps", "-aq", *(f"--filter={one}" for one in filters)).split()


def parked(stage: Stage) -> list[str]:
    """The running holders of namespaces."""
    server = f"label=shipway.server={stage.owner.server}"
    table = docker_says("ps", f"--filter={server}", '--format={{.ID}} {{.Label "shipway.step"}}')
    return sorted(line.strip() for line in table.splitlines() if len(line.split()) == 1)


def docker_says(*arguments: str) -> str:
    return subprocess.run(
        ("docker", *arguments), check=True, capture_output=True, text=True, timeout=60
    ).stdout


@contextmanager
def listener() -> Iterator[int]:
    """A service of this machine on all its addresses."""
    with socket.create_server(("0.0.0.0", 0), backlog=16) as server:
        yield int(server.getsockname()[1])


async def test_a_step_has_few_rights_and_gains_none(docker: Docker) -> None:
    names = "CapEff CapBnd CapInh CapPrm CapAmb NoNewPrivs Seccomp"
    look = f"for name in {names}; do grep ^$name: /proc/self/status; done; cat /proc/self/uid_map"
    async with docker(step("looks", look)) as stage:
        _, printed = await stage.run("looks")
    found = dict(line.split(":\t") for line in printed.text.splitlines() if ":" in line)
    assert int(found["CapEff"], 16) == CAPABILITIES
    assert int(found["CapBnd"], 16) == CAPABILITIES
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")


async def test_no_container_has_a_mount_of_the_machine(docker: Docker) -> None:
    async with docker(step("hangs", "echo up; sleep 600")) as stage:
        _, printed, _ = stage.start("hangs")
        await printed.saw(b"up")
        for found in json.loads(docker_says("inspect", *containers(stage))):
            assert {mount["Type"] for mount in found["Mounts"]} <= {"volume"}
            assert not found["HostConfig"]["Privileged"]
            assert found["HostConfig"]["LogConfig"]["Type"] == "none"
            assert found["HostConfig"]["Memory"] > 0
            assert found["HostConfig"]["PidsLimit"] > 0
            owner = {key: value for key, value in found["Config"]["Labels"].items() if "step" not in key}
            assert owner == {
                "shipway.server": stage.owner.server,
                "shipway.runner": "r1",
                "shipway.job": "7",
                "shipway.attempt": "1",
            }


async def test_environment_and_script_stand_in_no_inspect(docker: Docker) -> None:
    async with docker(step("hangs", "echo up hidden-script; sleep 600")) as stage:
        task, printed, _ = stage.start("hangs", TOKEN="hidden-value")
        await printed.saw(b"up")
        text = docker_says("inspect", *containers(stage))
        assert "hidden" not in text
        assert not task.done()


async def test_names_that_a_shell_cannot_export_reach_a_plugin_all_the_same(docker: Docker) -> None:
    plugin = step("plugin", image="shipway-test/environment:1", kind=StepKind.PLUGIN)
    async with docker(plugin) as stage:
        values = {"my-var": "1\n2", "a.b": "it's", "UID": "77", "PLAIN": "x"}
        exit_, printed = await stage.run("plugin", **values)
    assert exit_ == Exit(code=0)
    for name, value in values.items():
        assert f"\n{name}={value}\n" in f"\n{printed.text}"


async def test_a_name_that_the_shell_holds_for_itself_harms_no_command(docker: Docker) -> None:
    async with docker(step("prints", "echo $UID $PLAIN")) as stage:
        exit_, printed = await stage.run("prints", **{"my-var": "1", "UID": "77", "PLAIN": "x", "IFS": "7"})
    assert (exit_.code, printed.text) == (0, "77 x\n")


async def test_a_plugin_runs_its_own_entrypoint_and_command_with_two_streams(docker: Docker) -> None:
    plugin = step("plugin", image="shipway-test/plugin:1", kind=StepKind.PLUGIN)
    async with docker(plugin) as stage:
        exit_, printed = await stage.run("plugin", PLUGIN_TARGET="prod\nuction")
        assert (exit_, printed.marks) == (Exit(code=0), [])
        assert sorted(printed.text.splitlines()) == sorted(
            ["to prod uction from /workspace", "with it's an argument"]
        )


async def test_a_plugin_without_a_shell_gets_its_environment_and_is_ended_by_term(docker: Docker) -> None:
    plugin = step("plugin", image="shipway-test/noshell:1", kind=StepKind.PLUGIN)
    again = step("again", image="shipway-test/noshell:1", kind=StepKind.PLUGIN)
    async with docker(plugin, again) as stage:
        for slug in ("plugin", "again"):
            exit_, printed = await stage.run(slug, PLUGIN_A="it's\n2")
            assert exit_ == Exit(code=0)
            assert "PLUGIN_A=it's\n2\n" in printed.text


async def test_an_image_with_a_user_of_its_own_may_write_to_the_workspace(docker: Docker) -> None:
    guest = step("guest", "id -u; echo a >file; mkdir -p folder", image="shipway-test/user:1")
    async with docker(guest, step("root", "cat file; ls -ld file | cut -d' ' -f1")) as stage:
        assert (await stage.run("guest"))[1].text == "1000\n"
        exit_, printed = await stage.run("root")
    assert (exit_.code, printed.text) == (0, "a\n-rw-r--r--\n")


async def test_a_namespace_is_handed_on_as_it_was(docker: Docker) -> None:
    files = "/etc/hosts /etc/resolv.conf /etc/hostname"
    look = f"cat {files}; ls -ln {files} | cut -c1-22"
    spoil = f"for file in {files}; do echo 6.6.6.6 evil >>$file; chmod 777 $file; chown 5:5 $file; done"
    async with docker(step("a", look), step("b", spoil), step("c", look)) as stage:
        before = (await stage.run("a"))[1].text
        held = parked(stage)
        assert (await stage.run("b"))[0] == Exit(code=0)
        after = (await stage.run("c"))[1].text
        assert parked(stage) == held  # it was the same namespace
    assert before == after
    assert "shipway" in before


async def test_a_namespace_with_sockets_left_is_thrown_away(docker: Docker) -> None:
    # The client closes first; its TIME_WAIT outlives the container by a minute.
    leave = (
        "nc -l -p 8080 -e sleep 0.3 & sleep 0.3; nc 127.0.0.1 8080 </dev/null; grep -c ' 06 ' /proc/net/tcp"
    )
    async with docker(
        step("a", leave), step("b", "cat /proc/net/tcp | grep -c ' 06 '"), step("z", ":")
    ) as stage:
        await stage.run("z")
        held = parked(stage)
        assert len(held) == 1
        exit_, printed = await stage.run("a")
        assert (exit_.code, printed.text) == (0, "1\n")
        exit_, printed = await stage.run("b")
        assert (exit_.code, printed.text) == (1, "0\n")
        assert not set(held) & set(parked(stage))


async def test_two_steps_at_the_same_time_have_namespaces_of_their_own(docker: Docker) -> None:
    serve = "nc -l -p 8080 -e echo hi & echo up; wait"
    async with docker(step("a", serve), step("b", serve), step("c", "echo c")) as stage:
        for slug in ("a", "b"):
            _, printed, _ = stage.start(slug)
            await printed.saw(b"up")
        assert (await stage.run("c"))[1].text == "c\n"
        modes = [inspect(stage, slug)["HostConfig"]["NetworkMode"] for slug in ("a", "b")]  # type: ignore[index]
    assert len(set(modes)) == 2


async def test_a_dead_parked_container_is_replaced(docker: Docker) -> None:
    async with docker(step("a", "echo a"), step("b", "echo b")) as stage:
        await stage.run("a")
        stage.engine.ready(stage.job.step("b"))
        docker_says("kill", *parked(stage))
        exit_, printed = await stage.run("b")
        assert (exit_.code, printed.text) == (0, "b\n")


async def test_a_running_step_outlives_its_parked_container(docker: Docker) -> None:
    async with docker(step("a", "echo up; sleep 0.5; echo on; exit 3"), step("b", "echo b")) as stage:
        task, printed, _ = stage.start("a")
        await printed.saw(b"up")
        docker_says("kill", *parked(stage))
        assert (await asyncio.wait_for(task, WAIT_SECONDS)).code == 3
        assert (await stage.run("b"))[1].text == "b\n"


async def test_a_step_that_was_announced_runs_in_the_container_made_ahead(docker: Docker) -> None:
    async with docker(step("a", "echo a"), step("b", "echo b")) as stage:
        task, printed, began = stage.start("a")
        await asyncio.wait_for(began.wait(), WAIT_SECONDS)
        stage.engine.ready(stage.job.step("b"))
        await asyncio.wait_for(task, WAIT_SECONDS)
        exit_, printed = await stage.run("b")
        assert (exit_.code, printed.text) == (0, "b\n")
        assert len(parked(stage)) == 1


async def test_the_machine_itself_cannot_be_reached(docker: Docker) -> None:
    mine = park.local_addresses(Path("/proc/net/fib_trie").read_text())
    assert mine
    with listener() as port:
        script = (
            "gateway=$(ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p')\n"
            f"for address in $gateway {' '.join(mine)}; do\n"
            f"  echo hi | nc -w 2 $address {port} && echo reached $address\n"
            "done; echo tried $gateway"
        )
        async with docker(step("tries", script)) as stage:
            _, printed = await stage.run("tries")
    assert "reached" not in printed.text
    assert "tried 10.213." in printed.text


async def test_metadata_of_a_cloud_cannot_be_reached_and_the_ban_cannot_be_lifted(docker: Docker) -> None:
    script = (
        "nc -w 2 169.254.169.254 80 </dev/null\n"
        "ip route del prohibit 169.254.0.0/16\nip route flush table all\n"
        "ip route add 169.254.169.254 dev eth0\nip link set eth0 down\niptables -F\n"
        "mount -t proc proc /mnt\n"
        "ip route | grep -c prohibit"
    )
    async with docker(step("tries", f"set +e\n{script}")) as stage:
        _, printed = await stage.run("tries")
    lines = printed.text.splitlines()
    assert "Permission denied" in lines[0] or "prohibited" in lines[0].lower() or "can't connect" in lines[0]
    assert int(lines[-1]) >= 4


async def test_another_job_cannot_be_reached(docker: Docker) -> None:
    serve = "hostname -i; nc -ll -p 80 -e echo pong & echo up; wait"
    ask = "nc -w 2 $A 80 </dev/null"
    async with docker(step("a", serve), step("c", ask)) as one, docker(step("b", ask)) as other:
        _, printed, _ = one.start("a")
        await printed.saw(b"up")
        address = printed.text.split()[0]
        assert address.startswith("10.213.")
        assert (await one.run("c", A=address))[1].text == "pong\n"  # from its own job it can
        exit_, tried = await other.run("b", A=address)
    assert exit_.code != 0
    assert "pong" not in tried.text


async def test_a_service_is_found_by_its_name_and_its_slug(docker: Docker) -> None:
    commands = ("nc -ll -p 80 -e echo pong",)
    service = step("my-db", *commands, kind=StepKind.COMMANDS, detach=True, name="My_DB")
    ask = "for name in my-db My_DB; do until nc -w 2 $name 80 </dev/null; do sleep 0.1; done; done"
    async with docker(service, step("asks", ask), step("again", ask)) as stage:
        task, _, began = stage.start("my-db")
        await asyncio.wait_for(began.wait(), WAIT_SECONDS)
        for slug in ("asks", "again"):
            exit_, printed = await stage.run(slug)
            assert (exit_.code, printed.text) == (0, "pong\npong\n")
        await stage.engine.stop("my-db", 5)
        assert (await asyncio.wait_for(task, WAIT_SECONDS)).code == 143


async def test_a_service_image_runs_as_it_is_made_to(docker: Docker) -> None:
    service = step("plugin", image="shipway-test/plugin:1", kind=StepKind.SERVICE)
    async with docker(service) as stage:
        _, printed = await stage.run("plugin", PLUGIN_TARGET="x")
    assert "to x from /tmp" in printed.text  # its own working directory


async def test_a_service_with_commands_runs_them_in_the_workspace(docker: Docker) -> None:
    service = step("db", "pwd; nc -ll -p 80 -e echo pong", kind=StepKind.SERVICE)
    ask = "until nc -w 2 db 80 </dev/null; do sleep 0.1; done"
    async with docker(service, step("asks", ask)) as stage:
        _, printed, _ = stage.start("db")
        await printed.saw(b"/workspace\n")
        assert (await stage.run("asks"))[1].text.endswith("pong\n")


async def test_the_authority_of_the_network_is_known_in_every_container(
    docker: Docker, tmp_path: Path
) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("an authority\n")
    bundle.chmod(0o644)
    settings = DockerSettings(image_mirrors=SETTINGS.image_mirrors, ca_bundle=bundle)
    look = "cat $SSL_CERT_FILE; cat $REQUESTS_CA_BUNDLE; echo $PIP_CERT; echo x >>$SSL_CERT_FILE"
    async with docker(step("looks", look), settings=settings) as stage:
        exit_, printed = await stage.run("looks", PIP_CERT="/mine")
    assert exit_.code == 1
    assert printed.text.startswith("an authority\nan authority\n/mine\n")
    assert "Read-only" in printed.text
    assert bundle.read_text() == "an authority\n"


async def test_forty_jobs_have_networks_at_the_same_time(docker: Docker) -> None:
    stages = [docker(step("a", "echo a")) for _ in range(40)]
    async with asyncio.TaskGroup() as group:
        for one in stages:
            group.create_task(_enter_and_leave(one))
    assert IMAGE


async def _enter_and_leave(one: object) -> None:
    async with one:  # type: ignore[attr-defined]
        await asyncio.sleep(0)
