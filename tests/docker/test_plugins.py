"""The contract with plugin images: from the text of a file to the environment of the image's own program.

Each test runs an image with a shell and one that is a single static program. Both print their environment,
byte for byte, through ENTRYPOINT and CMD.
"""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from ci.aliases import SAME, made
from ci.environ import TABLE, Context
from ci.event import Event, Kind
from ci.mask import REPLACEMENT
from ci.pipeline.compile import build_jobs
from ci.protocol import Assign, JobEnded, Lease, StepAsks, Stream
from ci.spec import JobSpec
from ci.status import Status
from runners.clone import Clone
from runners.engines.docker import DockerEngine, DockerJanitor
from runners.execution import Execution
from runners.handover import Handover
from runners.spool import OrderGranted, SpoolReader, SpoolWriter
from tests.stage import SETTINGS, WAIT_SECONDS

pytestmark = pytest.mark.docker
SECRETS = {"password": "the-very-secret", "deep": 'a "quoted"\nvalue', "key": "in-the-list"}
#: What a container has of its engine and its image.
OF_THE_IMAGE = {"PATH", "HOSTNAME", "HOME", "OF_THE_IMAGE"}
IMAGES = pytest.mark.parametrize("image", ["environ:1", "environ-bare:1"])
FILE = """
skip_clone: true
matrix: {{ PLUGIN_FROM_MATRIX: [a], VERSION: ["1.10"] }}
steps:
  - name: told
    image: {image}
    settings:
      text: hello there
      version: 1.10
      answer: yes
      is_dry: true
      tries: 3
      nothing: null
      blank: ""
      two-words: a
      with.dot: b
      lines: |
        one
        two's "two"
      list: [a, 1.10, true, null, {{ from_secret: key }}]
      none: []
      from_matrix_by_name: v${{VERSION}}
      password: {{ from_secret: password }}
      deep: {{ c: {{}}, a: [1, 0.5, 1.10, "<&>", true, null, {{ b: {{ from_secret: deep }} }}] }}
"""
TOLD = {
    "PLUGIN_TEXT": "hello there",
    "PLUGIN_VERSION": "1.10",
    "PLUGIN_ANSWER": "yes",
    "PLUGIN_IS_DRY": "true",
    "PLUGIN_TRIES": "3",
    "PLUGIN_BLANK": "",
    "PLUGIN_TWO_WORDS": "a",
    "PLUGIN_TWO-WORDS": "a",
    "PLUGIN_WITH_DOT": "b",
    "PLUGIN_WITH.DOT": "b",
    "PLUGIN_LINES": 'one\ntwo\'s "two"\n',
    "PLUGIN_LIST": "a,1.10,true,,in-the-list",
    "PLUGIN_NONE": "",
    "PLUGIN_FROM_MATRIX_BY_NAME": "v1.10",
    "PLUGIN_PASSWORD": "the-very-secret",
    "PLUGIN_DEEP": '{"a":[1,0.5,"1.10","\\u003c\\u0026\\u003e",true,null,'
    '{"b":"a \\"quoted\\"\\nvalue"}],"c":{}}',
}


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A job that has ended: how, the bytes of its steps' logs by slug, and what the engine showed of them."""

    status: Status
    logs: Mapping[str, bytes]
    asked: tuple[int, ...]  #: steps that waited for the server's word

    def environment(self, slug: str) -> dict[str, str]:
        pairs = self.logs[slug].decode().split("\0")
        return dict(pair.split("=", 1) for pair in pairs if pair)


def compiled(text: str, **given: str) -> JobSpec:
    event = Event(kind=Kind.PUSH, ref="refs/heads/main", branch="main", after="a" * 40, variables=given)
    context = Context(
        owner="ada",
        name="app",
        repo_key="k1",
        clone_url="http://x/y.git",
        number=12,
        variables={"HTTPS_PROXY": "http://evil.example", "PLAIN": "x"},
    )
    (job,) = build_jobs({".ci.yml": text}, event, context).jobs
    return job


def server_of(folder: Path) -> str:
    """The same for a test, and another one's in every other process."""
    return f"test-{hashlib.sha256(str(folder).encode()).hexdigest()}"


async def run(folder: Path, job: JobSpec, masks: tuple[str, ...] = ()) -> Ran:
    """The job as a runner runs it, with an assignment made by hand."""
    assign = Assign(lease=Lease(job=1, attempt=1, epoch=1), spec=job, secrets=SECRETS, masks=masks)
    where = folder / "spool" / "1-1"
    handover = Handover(
        assign=assign,
        spool=str(where),
        data=str(folder),
        server=server_of(folder),
        runner="r1",
        disconnect_limit_seconds=900,
    )

    def make_clone() -> Clone:
        raise AssertionError("no clone here")

    spool = SpoolWriter.create(where)
    execution = Execution(handover, spool, DockerEngine(SETTINGS), make_clone)
    for step in job.steps:
        if step.deploy:
            execution.order(OrderGranted(step=step.number))
    try:
        await asyncio.wait_for(execution.run(), WAIT_SECONDS)
    finally:
        spool.close()
        DockerJanitor(SETTINGS).remove_attempt(handover.server, 1, 1)
    reader = SpoolReader(where)
    changes = [change for _, change in reader.changes()]
    assert isinstance(changes[-1], JobEnded)
    return Ran(
        status=changes[-1].status,
        logs={
            step.slug: reader.read(step.number, Stream.BYTES, 0, 1 << 20)
            for step in job.steps
            if step.number in reader.steps()
        },
        asked=tuple(change.step for change in changes if isinstance(change, StepAsks)),
    )


@pytest.fixture(autouse=True)
def _made(_images: None) -> None:
    """The images are there."""


@IMAGES
async def test_every_kind_of_setting_reaches_a_plugin_exactly(image: str, tmp_path: Path) -> None:
    ran = await run(tmp_path, compiled(FILE.format(image=image)))
    assert ran.status is Status.SUCCESS
    found = ran.environment("told")
    assert {name: value for name, value in found.items() if name.startswith("PLUGIN_")} == TOLD


@IMAGES
async def test_plugin_env_is_closed(image: str, tmp_path: Path) -> None:
    """Nothing but what the image, we and the step's own settings say: no cell of the matrix, no variable of
    whoever started the build or administers the repo, nothing of the runner's."""
    job = compiled(
        FILE.format(image=image), LD_PRELOAD="/workspace/evil.so", PLUGIN_TEXT="mine", PATH="/evil"
    )
    found = (await run(tmp_path, job)).environment("told")
    ours = {name for name in found if name in TABLE}
    assert {"CI", "CI_REPO", "CI_COMMIT_SHA", "CI_STEP_NAME", "CI_PIPELINE_STATUS"} <= ours
    aliases = set(made({name: found[name] for name in ours}))
    assert set(found) - OF_THE_IMAGE == ours | aliases | set(TOLD)
    assert found["OF_THE_IMAGE"] == "yes"
    assert "evil" not in "".join(found.values())


@IMAGES
async def test_the_files_own_variables_reach_its_plugin(image: str, tmp_path: Path) -> None:
    text = f"""
skip_clone: true
steps:
  - name: told
    image: {image}
    environment: {{ SLACK_WEBHOOK: {{ from_secret: password }}, EMPTY: "" }}
"""
    found = (await run(tmp_path, compiled(text))).environment("told")
    assert (found["SLACK_WEBHOOK"], found["EMPTY"]) == (SECRETS["password"], "")


@IMAGES
async def test_plugins_know_builds_under_the_names_that_they_look_for(image: str, tmp_path: Path) -> None:
    found = (await run(tmp_path, compiled(FILE.format(image=image)))).environment("told")
    assert {name: found[name] for name in found if name in SAME} == {
        name: found[own] for name, own in SAME.items() if own in found
    }
    sha, number, status = (f"DR{'ONE'}_{rest}" for rest in ("COMMIT_SHA", "BUILD_NUMBER", "BUILD_STATUS"))
    assert (found[sha], found[number], found[status]) == ("a" * 40, "12", "success")


@IMAGES
async def test_the_values_of_secrets_are_masked_in_every_form_of_a_setting(
    image: str, tmp_path: Path
) -> None:
    ran = await run(tmp_path, compiled(FILE.format(image=image)), masks=tuple(SECRETS.values()))
    found = ran.environment("told")
    assert found["PLUGIN_PASSWORD"] == REPLACEMENT.decode()
    assert found["PLUGIN_LIST"] == "a,1.10,true,,***"
    assert found["PLUGIN_DEEP"].endswith('true,null,{"b":"***"}],"c":{}}')


async def test_a_plugin_starts_only_after_the_servers_word_unless_it_says_otherwise(tmp_path: Path) -> None:
    text = """
skip_clone: true
steps:
  - { name: first, image: environ:1 }
  - { name: second, image: environ:1, deploy: false, settings: { a: b } }
"""
    ran = await run(tmp_path, compiled(text))
    assert (ran.status, ran.asked) == (Status.SUCCESS, (0,))


async def test_nothing_of_settings_stands_in_an_inspect_where_the_image_has_a_shell(tmp_path: Path) -> None:
    text = """
skip_clone: true
steps:
  - name: told
    image: plugin:1
    settings: { target: { from_secret: password } }
  - name: looks
    image: busybox
    commands: [sleep 600]
"""
    job = compiled(text)
    running = asyncio.create_task(run(tmp_path, job))
    seen = b""
    try:
        while b"looks" not in seen:
            listed = ["docker", "ps", "-aq", "--filter", f"label=shipway.server={server_of(tmp_path)}"]
            ids = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()
            if ids:
                seen += subprocess.run(["docker", "inspect", *ids], capture_output=True).stdout
            await asyncio.sleep(0.05)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        DockerJanitor(SETTINGS).remove_attempt(server_of(tmp_path), 1, 1)
    assert b'"shipway.step": "told"' in seen
    assert b"PLUGIN_TARGET" not in seen
    assert b"the-very-secret" not in seen
