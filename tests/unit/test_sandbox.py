from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci import rights
from ci.errors import Invalid
from ci.spec import Device, JobSpec, Limits, Mount, Rights, StepKind, StepSpec, Trust, Volume
from runners.engines import park, sandbox
from runners.engines.base import Owner
from runners.engines.daemon import Image
from runners.engines.sandbox import Allowed, Door, Place
from runners.engines.settings import DockerSettings

OWNER = Owner(server="s1", runner="r1", job=7, attempt=2)
GIB = 1 << 30
PLACE = Place(
    owner=OWNER,
    network="net",
    volume="vol",
    workspace="/workspace",
    directory="/workspace",
    machine_memory_bytes=8 * GIB,
)
IMAGE = Image(id="sha256:1", entrypoint=("/entry",), command=("a",))


def step(**more: Any) -> StepSpec:
    values = {"number": 1, "name": "A", "slug": "a", "kind": StepKind.COMMANDS, "image": "x", **more}
    return StepSpec.model_validate(values)


def config(spec: StepSpec, door: Door = Door.JOINED, place: Place = PLACE, **visible: str) -> dict[str, Any]:
    return sandbox.step_config(spec, IMAGE, place, namespace="holder", door=door, environment=visible)


TEXT = st.text(max_size=20)
STEPS = st.builds(
    StepSpec,
    number=st.integers(1, 99),
    name=TEXT,
    slug=TEXT,
    kind=st.sampled_from(StepKind),
    image=TEXT,
    commands=st.lists(TEXT, max_size=3).map(tuple),
    environment=st.dictionaries(TEXT, TEXT, max_size=3),
    detach=st.booleans(),
    deploy=st.booleans(),
    limits=st.builds(
        Limits,
        memory_bytes=st.none() | st.integers(1, 1 << 50),
        pids=st.integers(1, 1 << 20),
        cpus=st.none() | st.floats(0.1, 64),
    ),
)


@given(spec=STEPS, door=st.sampled_from(Door), environment=st.dictionaries(TEXT, TEXT, max_size=3))
def test_no_step_of_any_shape_is_granted_a_right(
    spec: StepSpec, door: Door, environment: dict[str, str]
) -> None:
    made = config(spec, door, **environment)
    host = made["HostConfig"]
    assert not host["Privileged"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["CapDrop"] == ["NET_RAW", "MKNOD", "AUDIT_WRITE"]
    assert not {"CapAdd", "Binds", "Devices", "PidMode", "UsernsMode", "VolumesFrom", "Sysctls"} & set(host)
    assert host["NetworkMode"] == "container:holder"
    assert host["IpcMode"] == "private"
    assert {mount["Type"] for mount in host["Mounts"]} == {"volume"}
    assert 0 < host["Memory"] == host["MemorySwap"] <= 8 * GIB - (512 << 20)
    assert host["PidsLimit"] > 0
    assert host["LogConfig"] == {"Type": "none"}


def test_a_gated_step_shows_neither_script_nor_environment() -> None:
    spec = step(commands=("echo hidden",), environment={"A": "hidden"})
    assert "hidden" not in json.dumps(config(spec))


def test_every_resource_says_whose_it_is() -> None:
    labels = {
        "shipway.server": "s1",
        "shipway.runner": "r1",
        "shipway.job": "7",
        "shipway.attempt": "2",
    }
    parked = sandbox.parked_config("i", PLACE, prohibited=(), aliases=(), holds_workspace=False)
    assert config(step())["Labels"] == {**labels, "shipway.step": "a"}
    assert parked["Labels"] == sandbox.probe_config("i", OWNER)["Labels"] == labels
    assert sandbox.labels_of(OWNER) == labels


def test_two_servers_with_the_same_job_have_different_names() -> None:
    other = Owner(server="s2", runner="r1", job=7, attempt=2)
    assert sandbox.name_of(OWNER) != sandbox.name_of(other)
    assert sandbox.name_of(OWNER) == sandbox.name_of(OWNER)


@pytest.mark.parametrize(
    ("asked", "machine", "limit"),
    [
        (None, 8 * GIB, 8 * GIB - (512 << 20)),
        (GIB, 8 * GIB, GIB),
        (64 * GIB, 8 * GIB, 8 * GIB - (512 << 20)),
        (None, 256 << 20, 128 << 20),
    ],
)
def test_memory_is_what_is_asked_for_but_leaves_some_to_the_machine(
    asked: int | None, machine: int, limit: int
) -> None:
    assert sandbox.memory_bytes(step(limits=Limits(memory_bytes=asked)), machine) == limit


def test_a_service_keeps_its_own_working_directory() -> None:
    assert config(step())["WorkingDir"] == "/workspace"
    assert config(step(kind=StepKind.PLUGIN), Door.APART)["WorkingDir"] == "/workspace"
    assert "WorkingDir" not in config(step(kind=StepKind.SERVICE), Door.APART)


def test_an_image_without_a_shell_runs_its_own_program_under_an_init() -> None:
    made = config(step(kind=StepKind.PLUGIN), Door.BARE, A="1")
    assert "Entrypoint" not in made and made["HostConfig"]["Init"]
    assert (made["Env"], made["OpenStdin"]) == (["A=1"], False)


def test_the_authority_is_read_only_and_a_steps_own_variables_win() -> None:
    place = Place(**{**PLACE.__dict__, "ca_bundle": Path("/etc/ca.pem")})
    made = config(step(), place=place, PIP_CERT="/mine")
    assert made["HostConfig"]["Mounts"][1] == {
        "Type": "bind",
        "Source": "/etc/ca.pem",
        "Target": "/etc/ssl/shipway-ca.pem",
        "ReadOnly": True,
    }
    assert "PIP_CERT=/mine" in made["Env"]
    assert "SSL_CERT_FILE=/etc/ssl/shipway-ca.pem" in made["Env"]


def test_only_a_parked_container_may_set_routes() -> None:
    made = sandbox.parked_config(
        "i", PLACE, prohibited=("1.2.3.4/32",), aliases=("db",), holds_workspace=True
    )
    assert made["HostConfig"]["CapDrop"] == ["ALL"]
    assert "NET_ADMIN" in made["HostConfig"]["CapAdd"]
    assert made["Cmd"] == ["1.2.3.4/32"]
    assert made["NetworkingConfig"] == {"EndpointsConfig": {"net": {"Aliases": ["db"]}}}


def test_what_is_prohibited_covers_the_machine_all_other_jobs_and_metadata() -> None:
    found = park.prohibited("10.213.4.32/27", "10.213.0.0/16", {"192.0.2.2", "10.213.4.33"})
    assert found == [
        "10.213.4.33/32",
        "192.0.2.2/32",
        "169.254.0.0/16",
        "100.100.100.200/32",
        "192.0.0.192/32",
        "10.213.0.0/16",
    ]


def test_addresses_of_a_machine_are_read_from_the_kernels_table() -> None:
    table = (
        "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 127.0.0.1\n        /32 host LOCAL\n"
        "     |-- 192.0.2.2\n        /32 host LOCAL\n     |-- 192.0.2.255\n        /32 link BROADCAST\n"
    )
    assert park.local_addresses(table) == {"192.0.2.2"}


@pytest.mark.parametrize(
    ("answer", "left"), [(b"sockets 0", 0), (b"sockets 12\n", 12), (b"sockets", None), (b"", None)]
)
def test_what_a_parked_container_answers(answer: bytes, left: int | None) -> None:
    assert park.sockets_left(answer) == left


def test_settings_are_read_from_the_environment(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.touch()
    loaded = DockerSettings.load(
        {
            "SHIPWAY_IMAGE_MIRRORS": "docker.io/=m/ docker.io/library/=n/",
            "SHIPWAY_CA_BUNDLE": str(bundle),
            "SHIPWAY_SUBNETS": "10.9.0.0/20",
            "SHIPWAY_DNS": "9.9.9.9, 1.1.1.1",
        }
    )
    assert loaded == DockerSettings(
        image_mirrors=(("docker.io/library/", "n/"), ("docker.io/", "m/")),
        ca_bundle=bundle,
        subnets="10.9.0.0/20",
        dns=("9.9.9.9", "1.1.1.1"),
    )
    assert DockerSettings.load({}) == DockerSettings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SHIPWAY_IMAGE_MIRRORS", "docker.io"),
        ("SHIPWAY_CA_BUNDLE", "/no/such/file"),
        ("SHIPWAY_SUBNETS", "10.0.0.1/16"),
        ("SHIPWAY_SUBNETS", "10.0.0.0/28"),
        ("SHIPWAY_DNS", "resolver"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(name: str, value: str) -> None:
    with pytest.raises(Invalid, match=name):
        DockerSettings.load({name: value})


# --- rights --------------------------------------------------------------------------------------------

ASKS: list[tuple[dict[str, Any], str]] = [
    ({"rights": Rights(is_privileged=True)}, "security"),
    ({"rights": Rights(network_mode="host")}, "network"),
    ({"rights": Rights(dns=("192.0.2.1",))}, "network"),
    ({"rights": Rights(dns_search=("example.org",))}, "network"),
    ({"rights": Rights(extra_hosts=("db:192.0.2.7",))}, "network"),
    ({"rights": Rights(devices=(Device(path="/dev/a", host="/dev/a"),))}, "volumes"),
    ({"rights": Rights(tmpfs=("/scratch",))}, "volumes"),
    ({"rights": Rights(shm_bytes=1 << 20)}, "volumes"),
    ({"mounts": (Mount(path="/given", host="/srv/given"),)}, "volumes"),
    ({"mounts": (Mount(path="/fast", volume="fast"),)}, "volumes"),
]
ALL_TRUST = Trust(network=True, volumes=True, security=True)
ALL_ALLOWED = Allowed(rights=frozenset({"network", "volumes", "security"}), host_folders=("/srv",))


def job(spec: StepSpec, **more: Any) -> JobSpec:
    values = {"name": "j", "slug": "j", "steps": (spec,), "trust": ALL_TRUST, **more}
    return JobSpec.model_validate({"volumes": (Volume(name="fast", is_memory=True),), **values})


@pytest.mark.parametrize(("asks", "switch"), ASKS)
def test_a_right_needs_the_switch_of_the_repo_and_is_never_a_forks(asks: dict[str, Any], switch: str) -> None:
    spec = step(**asks)
    assert sandbox.not_allowed(spec, job(spec), ALL_ALLOWED) == ""
    others = ALL_TRUST.model_copy(update={switch: False})
    refusal = sandbox.not_allowed(spec, job(spec, trust=others), ALL_ALLOWED)
    assert refusal.endswith(f"a server admin can allow `{switch}` in the settings of the repo")
    of_a_fork = sandbox.not_allowed(spec, job(spec, is_trusted=False), ALL_ALLOWED)
    assert of_a_fork.endswith("is never allowed in a build of a fork")


@pytest.mark.parametrize(("asks", "switch"), ASKS)
def test_what_reaches_the_machine_needs_the_word_of_its_owner_too(asks: dict[str, Any], switch: str) -> None:
    spec = step(**asks)
    refusal = sandbox.not_allowed(spec, job(spec), Allowed(host_folders=("/srv",)))
    (want,) = rights.wanted(spec, job(spec).volumes)
    assert want.stays_in_job == (refusal == "")
    says = f"{want.what} is not allowed on this runner: its owner can set SHIPWAY_ALLOW={switch}"
    assert refusal in ("", says)


@pytest.mark.parametrize(
    ("path", "is_allowed"),
    [
        ("/srv", True),
        ("/srv/", True),
        ("/srv/a/b", True),
        ("/srv/../etc", False),
        ("/srv2", False),
        ("/", False),
        ("/etc", False),
    ],
)
def test_a_folder_of_the_machine_lies_below_one_that_is_named(path: str, is_allowed: bool) -> None:
    spec = step(mounts=(Mount(path="/given", host=path),))
    assert (sandbox.not_allowed(spec, job(spec), ALL_ALLOWED) == "") == is_allowed


def test_a_network_of_another_container_is_refused_to_everybody() -> None:
    spec = step(rights=Rights(network_mode="container:other"))
    assert "another job's" in sandbox.not_allowed(spec, job(spec), ALL_ALLOWED)


APPROVED = ALL_TRUST.model_copy(update={"privileged_plugins": ("example/builder",)})


@pytest.mark.parametrize(
    ("more", "is_privileged"),
    [
        ({}, True),
        ({"image": "example/builder"}, True),
        ({"image": "example/builder2:1"}, False),
        ({"image": "evil.example/example/builder:1"}, False),
        ({"commands": ("id",), "kind": StepKind.COMMANDS}, False),
        ({"kind": StepKind.SERVICE}, False),
        ({"entrypoint": ("/bin/sh",)}, False),
        ({"arguments": ("-c",)}, False),
        ({"environment": {"LD_PRELOAD": "/workspace/evil.so"}}, False),
        ({"secrets": {"A": "b"}}, False),
        ({"mounts": (Mount(path="/usr", volume="fast"),)}, False),
        ({"environment_files": (".env",)}, False),
    ],
)
def test_a_plugin_of_an_approved_image_is_privileged_only_where_settings_alone_tell_it(
    more: dict[str, Any], is_privileged: bool
) -> None:
    spec = step(**{"kind": StepKind.PLUGIN, "image": "example/builder:3", **more})
    assert rights.is_privileged(spec, job(spec, trust=APPROVED)) == is_privileged
    assert not rights.is_privileged(spec, job(spec, trust=APPROVED, is_trusted=False))
    if is_privileged:
        refusal = sandbox.not_allowed(spec, job(spec, trust=APPROVED), Allowed())
        assert (
            refusal == "`privileged` is not allowed on this runner: its owner can set SHIPWAY_ALLOW=security"
        )


@given(spec=STEPS)
def test_a_privileged_step_of_no_other_slug_has_more(spec: StepSpec) -> None:
    place = replace(PLACE, privileged=frozenset({spec.slug + "x"}))
    assert not config(spec, place=place)["HostConfig"]["Privileged"]


def test_a_privileged_step_has_all_that_the_daemon_gives() -> None:
    host = config(step(), place=replace(PLACE, privileged=frozenset({"a"})))["HostConfig"]
    assert (host["Privileged"], host["CapDrop"], host["SecurityOpt"]) == (True, [], [])
    assert host["PidsLimit"] > 0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            {"SHIPWAY_ALLOW": "everything"},
            "SHIPWAY_ALLOW: 'everything' is none of network",
        ),
        ({"SHIPWAY_HOST_FOLDERS": "srv"}, "SHIPWAY_HOST_FOLDERS: 'srv' is no absolute path"),
        ({"SHIPWAY_HOST_FOLDERS": "/srv/../etc"}, "is no absolute path"),
    ],
)
def test_what_a_runner_allows_is_checked_when_it_starts(given: dict[str, str], says: str) -> None:
    with pytest.raises(Invalid, match=re.escape(says)):
        DockerSettings.load(given)


def test_a_runner_allows_what_its_variables_name() -> None:
    given = {"SHIPWAY_ALLOW": "network, volumes", "SHIPWAY_HOST_FOLDERS": "/srv/a /srv/b/"}
    loaded = DockerSettings.load(given)
    assert loaded.allowed == Allowed(
        rights=frozenset({"network", "volumes"}), host_folders=("/srv/a", "/srv/b")
    )
