"""Deploys by SSH to a real sshd: the example as it is pushed, a runner that dies, and what goes wrong."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.whole import ROOT, Shipway, Work, pids_with, until
from plugins.ssh import deploy
from tests.system.sshd import PORT, Sshd

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(400)]
IMAGE = "shipway-test/ssh:1"
NETWORK = "shipway-test-deploy"
#: What stands on the server, without its times: a folder's changes when a release is made and taken back.
EVERYTHING = (
    r"find /srv/app -printf '%M %u %p %l\n' | sort; find /srv/app -type f -exec sha256sum {} + | sort"
)
BUILDS = itertools.count(1)
CANARY_LINES = slice(1, -1)  #: of a private key: not the lines that every key has


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    subprocess.run([str(ROOT / "scripts/images"), "--debian"], check=True, capture_output=True)
    sshd = Sshd(tmp_path_factory.mktemp("sshd"))
    try:
        yield sshd
    finally:
        sshd.close()


@pytest.fixture
def runner_shipway(tmp_path: Path, sshd: Sshd) -> Iterator[Shipway]:
    sshd.run("rm -rf /srv/app/* /tmp/reached")
    shipway = Shipway(tmp_path, runner="off")
    try:
        shipway.start()
        shipway.set_up()
        shipway.runner = shipway.start_runner(engine="docker")
        yield shipway
    finally:
        shipway.end()


def example(shipway: Shipway, sshd: Sshd, **changes: str) -> Work:
    """The example's own files; only who the server is differs."""
    work = Work(shipway, "ada/app")
    shutil.copytree(ROOT / "examples/deploy", work.folder, dirs_exist_ok=True)
    file = work.folder / ".ci.yml"
    text = file.read_text()
    known = {"web-1.example.org": sshd.host, "port: 22": f"port: {PORT}", "shipway/ssh:1": "ssh:1"}
    known["SHA256:jY7S4DQSc6RDPLyYcYz2xBkb3xHzwLQJfV5ZQ1Ykl8A"] = sshd.fingerprint
    for old, new in {**known, **changes}.items():
        assert old in text, old
        text = text.replace(old, new)
    file.write_text(text)
    shipway.api("PUT", "/api/repos/ada/app/secrets/deploy_key", value=sshd.key, images=["ssh"])
    return work


def make_repo(shipway: Shipway) -> None:
    """A push makes it; its secrets can be set only then."""
    work = Work(shipway, "ada/app")
    work.commit({".ci.yml": "steps: {first: {image: busybox, commands: ['true']}}"})
    work.push()
    assert shipway.wait("ada/app/1")["status"] == "success"
    shutil.rmtree(work.folder)


class Watch:
    """What the engine shows of the step from now on, and the list of processes of each ssh."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self.steps: set[str] = set()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def end(self) -> None:
        self._is_over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._is_over.wait(0.05):
            for pid in pids_with("ssh"):
                for name in ("cmdline", "environ"):
                    try:
                        self.seen.add(Path(f"/proc/{pid}/{name}").read_bytes())
                    except OSError:
                        continue
            listed = ["docker", "ps", "-aq", "--filter", "label=shipway.step=deploy"]
            ids = subprocess.run(listed, capture_output=True, text=True).stdout.split()
            if ids:
                self.steps |= set(ids)
                self.seen.add(subprocess.run(["docker", "inspect", *ids], capture_output=True).stdout)


def test_the_example_goes_live_and_its_key_is_seen_nowhere(runner_shipway: Shipway, sshd: Sshd) -> None:
    shipway = runner_shipway
    make_repo(shipway)
    said = 'echo "live: $(cat index.html)"'
    work = example(shipway, sshd, **{said: f"sleep 2; {said}"})  # long enough to be looked at
    sha = work.commit({})
    watch = Watch()
    try:
        work.push("-f", work.remote, "HEAD:main")
        build = shipway.wait("ada/app/2", seconds=120)
    finally:
        watch.end()
    log = shipway.raw("ada/app/2/ci/deploy").decode()
    assert build["status"] == "success", log
    page = f"Build 2 of {sha}"
    assert page in sshd.run("cat /srv/app/current/index.html")
    assert f"live: <!doctype html><title>App</title><p>{page}</p>\n" in log
    release = sshd.run("readlink /srv/app/current").strip()
    assert release.endswith(f"-2-{sha[:7]}")
    assert sshd.run("ls -A /srv/app /srv/app/releases").split() == [
        *("/srv/app:", "current", "releases", "/srv/app/releases:", release.removeprefix("releases/"))
    ]

    assert watch.steps
    seen = {f"inspect or process {number}": data for number, data in enumerate(watch.seen)}
    seen |= {str(path): path.read_bytes() for path in shipway.folder.rglob("*") if path.is_file()}
    for address in (
        "/r/ada/app/2",
        "/r/ada/app/2/ci/deploy",
        "/r/ada/app/secrets",
        "/api/repos/ada/app/builds/2",
    ):
        seen[address] = shipway.get(address)
    lines = [line.encode() for line in sshd.key.strip().splitlines()[CANARY_LINES]]
    assert len(lines) > 3
    assert any(b"IdentityFile=" in data for data in watch.seen), "no ssh of the plugin was seen"
    found = [name for name, data in seen.items() if any(line in data for line in lines)]
    assert found == []
    assert not [data for data in watch.seen if b'"shipway.step"' in data and b"PLUGIN_" in data]


def test_another_branch_deploys_nothing_and_a_second_push_keeps_the_first_release(
    runner_shipway: Shipway, sshd: Sshd
) -> None:
    shipway = runner_shipway
    make_repo(shipway)
    work = example(shipway, sshd)
    work.commit({})
    work.push("-f", work.remote, "HEAD:main")
    assert shipway.wait("ada/app/2", seconds=120)["status"] == "success"
    first = sshd.run("readlink /srv/app/current").strip()
    work.commit({"more": "x"})
    work.push(work.remote, "HEAD:feature")
    build = shipway.wait("ada/app/3", seconds=120)
    assert build["status"] == "success"
    steps = {step["slug"]: step["status"] for step in build["jobs"][0]["attempts"][-1]["steps"]}
    assert steps["deploy"] == "skipped"
    assert sshd.run("readlink /srv/app/current").strip() == first
    work.push(work.remote, "HEAD:main")
    assert shipway.wait("ada/app/4", seconds=120)["status"] == "success"
    assert sshd.run("readlink /srv/app/current").strip() != first
    assert sshd.run(f"cat /srv/app/{first}/index.html")


def test_a_deploy_whose_runner_dies_is_unknown_until_a_person_says_how_it_ended(
    runner_shipway: Shipway, sshd: Sshd
) -> None:
    shipway = runner_shipway
    make_repo(shipway)
    waits = 'touch /tmp/reached; sleep 600; echo "live: $(cat index.html)"'
    work = example(shipway, sshd, **{'echo "live: $(cat index.html)"': waits})
    work.commit({})
    work.push("-f", work.remote, "HEAD:main")
    until(lambda: sshd.run("ls /tmp/reached 2>/dev/null || :"), 120)
    _kill_job_process(shipway)
    build = shipway.wait("ada/app/2", "unknown", seconds=120)
    (job,) = build["jobs"]
    assert (job["status"], job["attempt"]) == ("unknown", 1)
    # The person looks at the server: the release is live, whole, and the only one.
    assert "Build 2 of" in sshd.run("cat /srv/app/current/index.html")
    assert len(sshd.run("ls /srv/app/releases").split()) == 1
    shipway.api("POST", f"/api/repos/ada/app/builds/2/jobs/{job['slug']}/resolve", verdict="success")
    resolved = shipway.wait("ada/app/2", "success", seconds=10)
    assert resolved["jobs"][0]["attempt"] == 1
    assert len(sshd.run("ls /srv/app/releases").split()) == 1


def _kill_job_process(shipway: Shipway) -> None:
    spool = str(shipway.folder / "r1")
    found = []
    for pid in pids_with("runners.job"):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = os.readlink(link)
            except OSError:
                continue
            if target.startswith(spool) and target.endswith("/lock"):
                found.append(pid)
    assert found, "no job process was found"
    for pid in found:
        os.kill(pid, signal.SIGKILL)


# --- what goes wrong --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network() -> Iterator[str]:
    subprocess.run(["docker", "network", "rm", NETWORK], capture_output=True)
    subprocess.run(["docker", "network", "create", NETWORK], check=True, capture_output=True)
    yield NETWORK
    subprocess.run(["docker", "network", "rm", NETWORK], capture_output=True)


def plugin(sshd: Sshd, **changes: str) -> tuple[int, str]:
    """The plugin's image by itself; its code, and all it says."""
    number = changes.pop("NUMBER", None) or str(next(BUILDS))  # two of one second are two releases
    values = {
        "HOST": sshd.host,
        "PORT": str(PORT),
        "USER": "deploy",
        "KEY": sshd.key,
        "FINGERPRINT": sshd.fingerprint,
        "TARGET": "/srv/app",
        "KEEP": "2",
        **changes,
    }
    told = [word for name, value in values.items() for word in ("-e", f"PLUGIN_{name}={value}")]
    told += ["-e", f"CI_PIPELINE_NUMBER={number}"]
    command = ["docker", "run", "--rm", "--network", NETWORK, "--security-opt", "no-new-privileges"]
    script = "mkdir /w; cd /w; echo hi >hello; exec python3 -I /opt/shipway/deploy.py"
    done = subprocess.run(
        [*command, "--entrypoint", "sh", *told, IMAGE, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


def clean(sshd: Sshd) -> None:
    sshd.run("rm -rf /srv/app/*")
    code, said = plugin(sshd)
    assert code == 0, said


def _other_key(sshd: Sshd) -> str:
    return sshd.run("rm -f /root/other*; ssh-keygen -q -t ed25519 -N '' -f /root/other; cat /root/other")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"FINGERPRINT": ""}, "the server's own key is not known"),
        ({"FINGERPRINT": "SHA256:" + "A" * 43}, "has another key than the setting fingerprint says"),
        ({"FINGERPRINT": "", "KNOWN_HOSTS": "OTHER"}, "has another key than known_hosts says"),
        ({"FINGERPRINT": "", "KNOWN_HOSTS": "elsewhere ssh-ed25519 AAAA"}, "known_hosts has no line for"),
        ({"KEY": "OTHER"}, "does not let deploy in with this key"),
        ({"KEY": "no key"}, "the key is no private key"),
        ({"PORT": "2223"}, "shows no key: is an SSH server running there"),
        ({"HOST": "no-such-host.invalid"}, "there is no host of this name"),
        ({"TARGET": "/root/app"}, "nothing was changed"),
        ({"SOURCE": "dist"}, "source 'dist' is not in the workspace; it has hello"),
        ({"PREPARE": "cat hello; false"}, "did not go live"),
    ],
)
def test_what_fails_before_the_switch_says_why_and_changes_nothing(
    network: str, sshd: Sshd, changes: dict[str, str], sentence: str
) -> None:
    clean(sshd)
    before = sshd.run(EVERYTHING)
    if changes.get("KEY") == "OTHER":
        changes = {**changes, "KEY": _other_key(sshd)}
    if changes.get("KNOWN_HOSTS") == "OTHER":
        _other_key(sshd)
        changes = {**changes, "KNOWN_HOSTS": sshd.run("cut -d' ' -f1,2 /root/other.pub").strip()}
    code, said = plugin(sshd, **changes)
    assert code == 1
    assert sentence in said.splitlines()[-1] + said
    assert said.splitlines()[-1].startswith("error: ")
    assert not any(line in said for line in sshd.key.splitlines()[CANARY_LINES])
    assert sshd.run(EVERYTHING) == before


def test_a_script_that_fails_after_the_switch_says_that_the_release_is_live(network: str, sshd: Sshd) -> None:
    clean(sshd)
    before = sshd.run("readlink /srv/app/current")
    code, said = plugin(sshd, SCRIPT="cat hello\nread line || echo no more\nexit 7")
    assert code == 1
    assert "\nhi\nno more\n" in said
    assert "the release is live on" in said and "but the script after it failed" in said
    assert "ended with 7" in said
    assert sshd.run("readlink /srv/app/current") != before


def test_a_release_of_the_same_name_is_never_touched(network: str, sshd: Sshd) -> None:
    clean(sshd)
    sshd.run(
        "cd /srv/app/releases; now=$(date +%s); for second in $(seq 0 30); do "
        'mkdir "$(date -u -d "@$((now + second))" +%Y%m%dT%H%M%SZ)-7-0"; done'
    )
    before = sshd.run(EVERYTHING)
    code, said = plugin(sshd, NUMBER="7")
    assert code == 1
    assert "is there already, made in this second by another deploy: deploy again" in said
    assert sshd.run(EVERYTHING) == before


def test_a_current_that_is_no_link_is_left_alone(network: str, sshd: Sshd) -> None:
    sshd.run("rm -rf /srv/app/*; mkdir /srv/app/current; touch /srv/app/current/precious")
    code, said = plugin(sshd)
    assert code == 1
    assert "is no symbolic link: move it away" in said
    assert sshd.run("ls /srv/app/current /srv/app/releases").split() == [
        *("/srv/app/current:", "precious", "/srv/app/releases:")
    ]


def test_old_releases_go_and_nothing_that_is_none(network: str, sshd: Sshd) -> None:
    clean(sshd)
    names = [f"2020010{number}T000000Z-{number}-abc" for number in range(1, 5)]
    sshd.run(f"cd /srv/app/releases && mkdir mine .x.part {' '.join(names)} && touch -d '3 days ago' .x.part")
    code, said = plugin(sshd)
    assert code == 0
    left: Any = sshd.run("ls -A /srv/app/releases").split()
    assert len([name for name in left if name.startswith("20")]) == 2
    assert "mine" in left
    assert not [name for name in left if name.endswith(".part")]
    assert said.count("removed releases/") == 4


def test_the_link_is_never_missing_while_releases_replace_each_other(network: str, sshd: Sshd) -> None:
    clean(sshd)
    sshd.run(
        "cd /srv/app; rm -f /tmp/missed /tmp/stop; "
        "(while [ ! -e /tmp/stop ]; do cat current/hello >/dev/null 2>&1 || echo x >>/tmp/missed; done) "
        ">/dev/null 2>&1 &"
    )
    for _ in range(3):
        assert plugin(sshd)[0] == 0
    sshd.run("touch /tmp/stop")
    assert sshd.run("cat /tmp/missed 2>/dev/null || :") == ""


def test_a_server_with_the_tools_of_busybox_will_do(tmp_path: Path) -> None:
    subprocess.run([str(ROOT / "scripts/images")], check=True)
    (tmp_path / "hello").write_text("hi\n")
    (tmp_path / "app").mkdir()
    inside = ["docker", "run", "--rm", "-i", "-v", f"{tmp_path}/app:/srv/app", "shipway-test/busybox:1"]
    for number in range(1, 5):
        release = f"2026010{number}T000000Z-{number}-abc"
        tar = subprocess.run(["tar", "-C", tmp_path, "-c", "hello"], check=True, capture_output=True).stdout
        prepare = b"echo more >>hello\n"
        for script, given in (
            (deploy._RECEIVE, tar),
            (deploy._SWITCH, prepare),
            (deploy._AFTER, b"cat hello\n"),
        ):
            command = [*inside, "sh", "-c", script, "sh", "/srv/app", release, "2"]
            done = subprocess.run(command, input=given, capture_output=True)
            assert (done.returncode, done.stderr) == (0, b""), script
        assert done.stdout == b"hi\nmore\n"
    assert os.readlink(tmp_path / "app/current") == f"releases/{release}"
    assert len(os.listdir(tmp_path / "app/releases")) == 2
