"""The spool: what one side wrote, the other reads, whoever was killed in between."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from ci import marks
from ci.errors import Conflict, Invalid, NotFound
from ci.protocol import Change, JobEnded, StepAsks, StepChanged, Stream
from ci.status import Status
from runners import spool
from runners.spool import OrderCancel, OrderGranted, OrderKill, SpoolReader, SpoolWriter, SupervisorWatch

TOKEN = "0123456789abcdef" * 2
ROOT = Path(__file__).parent.parent.parent
STARTED = StepChanged(step=1, status=Status.RUNNING, after_seconds=0.5)
ENDED = JobEnded(status=Status.SUCCESS, after_seconds=1.5)
ASKS = StepAsks(step=2, after_seconds=0.75)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return spool.folder_of(tmp_path, 12, 3)


@pytest.fixture
def writer(folder: Path) -> Iterator[SpoolWriter]:
    made = SpoolWriter.create(folder)
    yield made
    made.close()


@pytest.fixture
def reader(folder: Path, writer: SpoolWriter) -> Iterator[SpoolReader]:
    made = SpoolReader(folder)
    yield made
    made.close()


def is_readable(fd: int, timeout: float = 0) -> bool:
    return bool(select.select([fd], [], [], timeout)[0])


def run_job_process(folder: Path, code: str) -> subprocess.Popen[bytes]:
    """A process that makes the spool, runs `code`, says so, and waits to be killed."""
    lines = [
        "import sys, time",
        "from pathlib import Path",
        "from ci.protocol import *",
        "from runners.spool import SpoolWriter",
        f"writer = SpoolWriter.create(Path({str(folder)!r}))",
        code,
        "print('ready', flush=True)",
        "time.sleep(60)",
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", "\n".join(lines)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)


def test_the_journal_comes_over_whole_and_in_order(writer: SpoolWriter, reader: SpoolReader) -> None:
    written: list[Change] = [STARTED, ASKS, ENDED]
    assert [writer.record(change) for change in written] == [0, 1, 2]
    assert reader.changes() == list(enumerate(written))
    assert reader.changes(1) == [(2, ENDED)]
    assert reader.changes(2) == []
    assert reader.key == (12, 3)


def test_the_bell_rings_for_what_is_new_and_is_silent_after(writer: SpoolWriter, reader: SpoolReader) -> None:
    assert not is_readable(reader.bell_fd)
    writer.record(STARTED)
    assert is_readable(reader.bell_fd)
    reader.drain_bell()
    assert not is_readable(reader.bell_fd)
    log = writer.open_log(1, masks=(), token=TOKEN, limit_bytes=1000)
    log.write(b"x\n")
    assert is_readable(reader.bell_fd)
    log.close()


def test_a_bell_that_nobody_hears_never_blocks_the_job(writer: SpoolWriter) -> None:
    log = writer.open_log(1, masks=(), token=TOKEN, limit_bytes=1 << 20)
    for _ in range(70_000):
        log.write(b"x")
    assert log.close().size == 70_000


def test_orders_reach_the_job_process_once_each(writer: SpoolWriter, reader: SpoolReader) -> None:
    given = [OrderGranted(step=2), OrderCancel(reason="ann asked for it"), OrderKill(reason="lease\nover")]
    assert writer.orders() == []
    reader.order(given[0])
    assert is_readable(writer.orders_fd)
    assert writer.orders() == given[:1]
    assert not is_readable(writer.orders_fd)
    reader.order(given[1])
    reader.order(given[2])
    assert writer.orders() == given[1:]
    assert writer.orders() == []


def test_an_order_cut_short_by_a_kill_does_not_spoil_the_next(folder: Path, writer: SpoolWriter) -> None:
    whole = SpoolReader(folder)
    whole.order(OrderGranted(step=1))
    whole.close()
    with open(folder / "orders", "ab") as file:
        file.write(b'00000000 {"type":"kill","rea')
    after = SpoolReader(folder)
    after.order(OrderGranted(step=2))
    assert writer.orders() == [OrderGranted(step=1), OrderGranted(step=2)]
    after.close()


def test_a_partial_line_of_the_journal_is_not_there_until_it_is_whole(
    folder: Path, writer: SpoolWriter, reader: SpoolReader
) -> None:
    writer.record(STARTED)
    text = ASKS.model_dump_json().encode()
    line = b"%08x %s\n" % (zlib.crc32(text), text)
    with open(folder / "journal", "ab", buffering=0) as file:
        for at in range(len(line) - 1):
            file.write(line[at : at + 1])
            assert reader.changes() == [(0, STARTED)]
        file.write(b"\n")
    assert reader.changes() == [(0, STARTED), (1, ASKS)]


@pytest.mark.parametrize("damage", [b"\0" * 40 + b"\n", b"\n", b"deadbeef {}\n", b'{"type":"job_ended"}\n'])
def test_a_damaged_journal_ends_before_the_damage(folder: Path, writer: SpoolWriter, damage: bytes) -> None:
    writer.record(STARTED)
    with open(folder / "journal", "ab") as file:
        file.write(damage)
    writer.record(ENDED)
    reader = SpoolReader(folder)
    assert reader.changes() == [(0, STARTED)]
    assert reader.changes() == [(0, STARTED)]
    reader.close()


def test_a_log_is_masked_bytes_and_marks_with_their_offsets(folder: Path) -> None:
    now = 100.0
    writer = SpoolWriter.create(folder, clock=lambda: now)
    reader = SpoolReader(folder)
    log = writer.open_log(4, masks=("hunter2secret",), token=TOKEN, limit_bytes=1 << 20)
    now = 101.5
    log.write(marks.encode(TOKEN, "b", "0") + b"key hunter2")
    log.write(b"secret\n" + marks.encode(TOKEN, "e", "0,7"))
    log.note("said hunter2secret")
    ended = log.close()
    kept = reader.read(4, Stream.BYTES, 0, 100)
    assert kept == b"key ***\n"
    lines = reader.read(4, Stream.MARKS, 0, 1000)
    assert [json.loads(line) for line in lines.splitlines()] == [
        {"o": 0, "t": 1.5, "k": "begin", "v": 0},
        {"o": 8, "t": 1.5, "k": "end", "v": [0, 7]},
        {"o": 8, "t": 1.5, "k": "note", "v": "said ***"},
    ]
    assert (ended.step, ended.size, ended.crc32) == (4, 8, zlib.crc32(kept))
    assert (ended.marks_size, ended.marks_crc32) == (len(lines), zlib.crc32(lines))
    assert reader.steps() == [4]
    assert reader.size(4, Stream.BYTES) == 8
    assert reader.read(4, Stream.BYTES, 4, 3) == b"***"
    writer.close()
    reader.close()


def test_a_step_without_a_log_is_empty(reader: SpoolReader) -> None:
    assert reader.steps() == []
    assert reader.size(1, Stream.BYTES) == 0
    assert reader.read(1, Stream.MARKS, 0, 10) == b""


def test_a_shipped_log_frees_its_space(folder: Path, writer: SpoolWriter, reader: SpoolReader) -> None:
    for step in (1, 2):
        log = writer.open_log(step, masks=(), token=TOKEN, limit_bytes=100)
        log.write(b"text\n")
        log.close()
    assert reader.size(1, Stream.BYTES) == 5
    reader.drop_log(1)
    assert reader.steps() == [2]
    assert reader.size(1, Stream.BYTES) == 0
    assert sorted(path.name for path in (folder / "logs").iterdir()) == ["2.log", "2.marks"]


def test_the_lock_says_whether_the_job_process_lives(folder: Path) -> None:
    process = run_job_process(folder, "")
    reader = SpoolReader(folder)
    assert reader.is_alive()
    with pytest.raises(Conflict, match="Another process works on the spool"):
        SpoolWriter.create(folder)
    kill(process)
    assert not reader.is_alive()
    with pytest.raises(Conflict, match="belongs to a process that has ended"):
        SpoolWriter.create(folder)
    reader.close()


def test_a_prepared_spool_is_not_alive_and_has_not_begun(folder: Path) -> None:
    spool.prepare(folder)
    spool.prepare(folder)
    reader = SpoolReader(folder)
    assert (reader.is_alive(), reader.has_begun(), reader.changes()) == (False, False, [])
    reader.order(OrderCancel(reason="early"))
    writer = SpoolWriter.create(folder)
    assert (reader.is_alive(), reader.has_begun()) == (True, True)
    assert writer.orders() == [OrderCancel(reason="early")]
    writer.close()
    assert not reader.is_alive()
    reader.close()


def test_what_a_killed_job_process_wrote_stays(folder: Path) -> None:
    process = run_job_process(
        folder,
        "from ci.status import Status\n"
        "writer.record(StepChanged(step=1, status=Status.RUNNING, after_seconds=0.5))\n"
        "log = writer.open_log(1, masks=('secret word',), token='0' * 32, limit_bytes=100)\n"
        "log.write(b'printed\\n')",
    )
    kill(process)
    reader = SpoolReader(folder)
    assert reader.changes() == [(0, STARTED)]
    assert reader.read(1, Stream.BYTES, 0, 100) == b"printed\n"
    for path in folder.rglob("*"):
        assert not path.is_file() or b"secret word" not in path.read_bytes()
    reader.close()


def test_a_killed_supervisor_costs_the_job_nothing_and_the_next_reads_all(
    folder: Path, writer: SpoolWriter
) -> None:
    first = SpoolReader(folder)
    writer.record(STARTED)
    first.close()
    writer.record(ENDED)
    second = SpoolReader(folder)
    assert is_readable(second.bell_fd)
    assert second.changes() == [(0, STARTED), (1, ENDED)]
    second.close()


def test_an_unknown_format_is_refused_with_a_sentence(folder: Path) -> None:
    spool.prepare(folder)
    (folder / "format").write_text('{"shipway_spool": 99}\n')
    with pytest.raises(Invalid, match="has format 99, and this runner knows format 1"):
        SpoolReader(folder)
    (folder / "format").write_text("?")
    with pytest.raises(Invalid, match="not readable as the version"):
        SpoolReader(folder)


def test_a_folder_that_never_became_a_spool_is_none(tmp_path: Path, folder: Path) -> None:
    (folder / "logs").mkdir(parents=True)
    with pytest.raises(NotFound):
        SpoolReader(folder)
    spool.prepare(spool.folder_of(tmp_path, 9, 1))
    spool.prepare(spool.folder_of(tmp_path, 10, 1))
    assert [path.name for path in spool.folders(tmp_path)] == ["9-1", "10-1"]


def test_delete_leaves_nothing_and_may_come_again(folder: Path, writer: SpoolWriter) -> None:
    reader = SpoolReader(folder)
    writer.open_log(1, masks=(), token=TOKEN, limit_bytes=10).close()
    reader.delete()
    assert not folder.exists()
    reader.delete()


def test_a_silent_supervisor_is_noticed_without_comparing_clocks(tmp_path: Path) -> None:
    now = 5.0
    spool.touch_supervisor(tmp_path)
    watch = SupervisorWatch(tmp_path, clock=lambda: now)
    now = 20.0
    assert watch.silent_seconds() == 15.0
    os.utime(tmp_path / "supervisor", (1, 1))
    assert watch.silent_seconds() == 0.0
    now = 21.0
    assert watch.silent_seconds() == 1.0


def test_a_full_disk_is_told_and_what_was_kept_is_closed_truly(folder: Path) -> None:
    code = """
import os, resource, signal, sys, zlib
from pathlib import Path
from ci.errors import Unavailable
from runners.spool import SpoolWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
writer = SpoolWriter.create(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
log = writer.open_log(1, masks=(), token="0" * 32, limit_bytes=1 << 20)
for _ in range(3):
    try:
        log.write(b"x" * 600)
    except Unavailable as error:
        print(error)
print(log.close().model_dump_json())
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=ROOT, capture_output=True, timeout=30, check=True
    )
    first, *_, ended = done.stdout.decode().splitlines()
    assert first.startswith("The log cannot be kept in") and first.endswith("File too large.")
    assert json.loads(ended) == {
        "type": "log_ended",
        "step": 1,
        "size": 1000,
        "crc32": zlib.crc32(b"x" * 1000),
        "marks_size": 0,
        "marks_crc32": 0,
    }
