"""The log store: offsets, durable lengths, restarts, closing, the index, following."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci.errors import Conflict, Unavailable
from ci.protocol import Stream
from ci.server import log_file, log_index, logs
from ci.server.clock import Clock
from ci.server.logs import LogKey, Logs

KEY = LogKey(7, 1, 2)
ROOT = Path(__file__).parent.parent.parent


class HeldClock(Clock):
    def __init__(self) -> None:
        self.time = 1_000_000.0

    def now(self) -> float:
        return self.time


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock()


@pytest.fixture
async def store(tmp_path: Path, clock: HeldClock) -> AsyncIterator[Logs]:
    made = Logs(tmp_path / "logs", clock=clock)
    await made.start()
    yield made
    await made.close()


async def reopened(store: Logs, tmp_path: Path, clock: Clock) -> Logs:
    """As after a restart of the server."""
    await store.close()
    made = Logs(tmp_path / "logs", clock=clock)
    await made.start()
    return made


async def collect(store: Logs, key: LogKey, offset: int = 0) -> bytes:
    data = b""
    async with asyncio.timeout(10):
        async for begin, piece in store.follow(key, offset):
            assert begin == offset + len(data)
            data += piece
    return data


def path_of(tmp_path: Path, key: LogKey = KEY) -> Path:
    return tmp_path / "logs" / "0" / str(key.job) / f"{key.attempt}.{key.step}.log"


# --- appending ------------------------------------------------------------------------------------


async def test_appended_bytes_are_durable_and_readable(store: Logs, tmp_path: Path) -> None:
    assert await store.append(KEY, 0, b"one\n") == 4
    assert await store.append(KEY, 4, b"two\n") == 8
    assert store.read(KEY, 0, 100) == b"one\ntwo\n"
    assert store.read(KEY, 3, 3) == b"\ntw"
    assert store.read(KEY, 8, 10) == b""
    assert store.size(KEY) == 8
    assert log_file.read_record(path_of(tmp_path))[0] == 8


async def test_an_overlap_is_trimmed_and_a_gap_is_refused_with_the_durable_length(store: Logs) -> None:
    assert await store.append(KEY, 0, b"hello ") == 6
    assert await store.append(KEY, 3, b"lo world") == 11
    assert await store.append(KEY, 0, b"###") == 11
    assert await store.append(KEY, 12, b"!") == 11
    assert await store.append(KEY, 5000, b"") == 11
    assert store.read(KEY, 0, 100) == b"hello world"


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30)), max_size=20))
async def test_whatever_is_sent_again_the_log_is_a_beginning_of_the_stream(
    tmp_path_factory: pytest.TempPathFactory, sends: list[tuple[int, int]]
) -> None:
    stream = bytes(range(33, 123))
    store = Logs(tmp_path_factory.mktemp("logs"), clock=Clock())
    await store.start()
    have = 0
    for offset, size in sends:
        data = stream[offset : offset + size]
        after = store.write(KEY, offset, data)
        have = max(have, offset + len(data)) if offset <= have else have
        assert after == have
    assert store.read(KEY, 0, 1000) == stream[:have]
    await store.close()


async def test_streams_steps_and_attempts_are_logs_of_their_own(store: Logs) -> None:
    keys = [KEY, LogKey(7, 1, 2, Stream.MARKS), LogKey(7, 1, 3), LogKey(7, 2, 2), LogKey(1007, 1, 2)]
    for number, key in enumerate(keys):
        await store.append(key, 0, b"%d" % number)
    assert [store.read(key, 0, 9) for key in keys] == [b"0", b"1", b"2", b"3", b"4"]


async def test_bytes_are_readable_before_they_are_synced(
    store: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_sync = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    real = os.fdatasync

    def slow(fd: int) -> None:
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(may_sync.wait(), loop).result(10)
        real(fd)

    monkeypatch.setattr(log_file.os, "fdatasync", slow)
    append = asyncio.create_task(store.append(KEY, 0, b"early\n"))
    await asyncio.wait_for(begun.wait(), 10)
    assert store.read(KEY, 0, 100) == b"early\n"
    assert not append.done()
    may_sync.set()
    assert await asyncio.wait_for(append, 10) == 6


async def test_many_appends_share_few_syncs(store: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0
    real = os.fdatasync

    def counted(fd: int) -> None:
        nonlocal count
        count += 1
        real(fd)

    monkeypatch.setattr(log_file.os, "fdatasync", counted)
    appends = [store.append(KEY, 10 * i, b"123456789\n") for i in range(1000)]
    assert set(await asyncio.gather(*appends)) == {10_000}
    assert count <= 5


async def test_a_log_whose_sync_is_slow_delays_no_other(store: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    may_sync = asyncio.Event()
    loop = asyncio.get_running_loop()
    real = log_file.LogFile.sync

    def sync(self: log_file.LogFile) -> None:
        if "1.2.log" in str(self._path):
            asyncio.run_coroutine_threadsafe(may_sync.wait(), loop).result(10)
        real(self)

    monkeypatch.setattr(log_file.LogFile, "sync", sync)
    slow = asyncio.create_task(store.append(KEY, 0, b"x" * 1000))
    assert await asyncio.wait_for(store.append(LogKey(7, 1, 3), 0, b"y"), 5) == 1
    assert not slow.done()
    may_sync.set()
    assert await asyncio.wait_for(slow, 10) == 1000


# --- restarts and failures ---------------------------------------------------------------------------


async def test_after_a_restart_the_log_goes_on_where_it_was(
    store: Logs, tmp_path: Path, clock: HeldClock
) -> None:
    await store.append(KEY, 0, b"first\n")
    again = await reopened(store, tmp_path, clock)
    assert again.size(KEY) == 6
    assert await again.append(KEY, 0, b"first\nsecond\n") == 13
    assert await again.close_stream(KEY, 13, zlib.crc32(b"first\nsecond\n")) is None
    await again.close()


async def test_what_was_never_acknowledged_is_cut_off_after_a_restart(
    store: Logs, tmp_path: Path, clock: HeldClock
) -> None:
    await store.append(KEY, 0, b"synced\n")
    await store.close()
    with open(path_of(tmp_path), "ab") as file:
        file.write(b"torn\0\0\0")
    again = Logs(tmp_path / "logs", clock=clock)
    await again.start()
    assert again.size(KEY) == 7
    assert again.read(KEY, 0, 100) == b"synced\n"
    assert await again.append(KEY, 20, b"late") == 7
    assert path_of(tmp_path).stat().st_size == 7
    await again.close()


async def test_a_log_without_a_record_begins_again(store: Logs, tmp_path: Path, clock: HeldClock) -> None:
    await store.append(KEY, 0, b"bytes")
    await store.close()
    log_file.record_path(path_of(tmp_path)).write_bytes(b"\x01")
    again = Logs(tmp_path / "logs", clock=clock)
    await again.start()
    assert await again.append(KEY, 5, b"more") == 0
    assert await again.append(KEY, 0, b"bytesmore") == 9
    await again.close()


async def test_a_kill_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    code = """
import asyncio, os, sys
from pathlib import Path
from ci.server.clock import Clock
from ci.server.logs import LogKey, Logs

async def main():
    store = Logs(Path(sys.argv[1]), clock=Clock())
    await store.start()
    offset = 0
    while True:
        offset = await store.append(LogKey(7, 1, 2), offset, b"x" * 99 + b"\\n")
        print(offset, flush=True)

asyncio.run(main())
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "logs")], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    for _ in range(20):
        process.stdout.readline()
    process.kill()
    acknowledged = int((process.stdout.read().split(b"\n")[-2:-1] or [b"2000"])[-1])
    process.stdout.close()
    process.wait(10)
    store = Logs(tmp_path / "logs", clock=Clock())
    await store.start()
    assert store.size(KEY) >= acknowledged
    assert store.read(KEY, 0, acknowledged) == (b"x" * 99 + b"\n") * (acknowledged // 100)
    await store.close()


async def test_a_full_disk_is_told_acknowledges_nothing_and_spoils_nothing(
    store: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.append(KEY, 0, b"kept\n")
    real = os.pwrite

    def full(fd: int, data: bytes, offset: int) -> int:
        if len(data) == 150:
            return real(fd, bytes(data[:50]), offset)
        if len(data) == 100:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data, offset)

    monkeypatch.setattr(log_file.os, "pwrite", full)
    with pytest.raises(Unavailable, match="No space left on device"):
        await store.append(KEY, 5, b"y" * 150)
    assert store.read(KEY, 0, 1000) == b"kept\n"
    monkeypatch.setattr(log_file.os, "pwrite", real)
    assert await store.append(KEY, 5, b"more\n") == 10
    assert await store.close_stream(KEY, 10, zlib.crc32(b"kept\nmore\n")) is None
    assert store.read(KEY, 0, 1000) == b"kept\nmore\n"


async def test_after_a_failed_sync_the_log_goes_back_to_what_was_recorded(
    store: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.append(KEY, 0, b"kept\n")
    real = os.fdatasync

    def broken(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(log_file.os, "fdatasync", broken)
    with pytest.raises(Unavailable, match="Input/output error"):
        await store.append(KEY, 5, b"lost\n")
    monkeypatch.setattr(log_file.os, "fdatasync", real)
    assert await store.append(KEY, 10, b"after\n") == 5
    assert await store.append(KEY, 5, b"lost\nafter\n") == 16
    assert store.read(KEY, 0, 100) == b"kept\nlost\nafter\n"


# --- closing ------------------------------------------------------------------------------------------


async def test_size_and_checksum_close_a_log_for_good(store: Logs, tmp_path: Path, clock: HeldClock) -> None:
    data = b"line\n" * 100_000
    store.write(KEY, 0, data)
    assert await store.close_stream(KEY, len(data), zlib.crc32(data)) is None
    assert await store.close_stream(KEY, len(data), zlib.crc32(data)) is None
    assert store.is_closed(KEY)
    assert await store.append(KEY, len(data), b"more") == len(data)
    with pytest.raises(Conflict):
        await store.close_stream(KEY, 3, zlib.crc32(b"abc"))
    again = await reopened(store, tmp_path, clock)
    assert again.is_closed(KEY)
    assert await again.close_stream(KEY, len(data), zlib.crc32(data)) is None
    assert again.read(KEY, 0, len(data)) == data
    await again.close()


async def test_an_empty_log_can_be_closed(store: Logs) -> None:
    assert await store.close_stream(KEY, 0, 0) is None
    assert store.is_closed(KEY)
    assert await collect(store, KEY) == b""


async def test_a_close_that_overtook_its_bytes_asks_for_them(store: Logs) -> None:
    await store.append(KEY, 0, b"abc")
    assert await store.close_stream(KEY, 6, zlib.crc32(b"abcdef")) == 3
    await store.append(KEY, 3, b"def")
    assert await store.close_stream(KEY, 6, zlib.crc32(b"abcdef")) is None


@pytest.mark.parametrize("stored", [b"abcdeX", b"abcdefg"])
async def test_a_log_that_differs_from_the_runners_is_sent_again_from_the_beginning(
    store: Logs, stored: bytes, tmp_path: Path, clock: HeldClock
) -> None:
    await store.append(KEY, 0, stored)
    assert await store.close_stream(KEY, 6, zlib.crc32(b"abcdef")) == 0
    assert store.size(KEY) == 0
    again = await reopened(store, tmp_path, clock)
    assert again.size(KEY) == 0
    await again.append(KEY, 0, b"abcdef")
    assert await again.close_stream(KEY, 6, zlib.crc32(b"abcdef")) is None
    await again.close()


# --- the index ----------------------------------------------------------------------------------------


def rows(index: bytes) -> list[tuple[int, int]]:
    return [(line, offset) for line, offset, _ in log_index.ROW.iter_unpack(index)]


@given(
    st.lists(st.sampled_from([b"\n" * 900, b"x" * 100 + b"\n", b"y" * 70_000, b"z\n" * 3000]), max_size=12),
    st.lists(st.integers(0, 1 << 20), max_size=6),
)
def test_rows_depend_on_the_bytes_alone_and_are_true(parts: list[bytes], places: list[int]) -> None:
    data = b"".join(parts)
    whole = log_index.Scan()
    expected = whole.feed(data)
    cut = log_index.Scan()
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    pieces = [data[begin:end] for begin, end in itertools.pairwise(edges)]
    assert [row for piece in pieces for row in cut.feed(piece)] == expected
    assert whole.lines == data.count(b"\n")
    for line, offset in expected:
        assert data.count(b"\n", 0, offset) == line
        assert offset == 0 or data[offset - 1 : offset] == b"\n"
    assert [offset for _, offset in expected] == sorted({offset for _, offset in expected})


async def test_the_index_leads_to_any_line(store: Logs, tmp_path: Path, clock: HeldClock) -> None:
    lines = [b"line %d %s\n" % (i, b"." * (i % 150)) for i in range(20_000)]
    data = b"".join(lines)
    for at in range(0, len(data), 100_000):
        store.write(KEY, at, data[at : at + 100_000])
    clock.time += 1.5
    await store.close_stream(KEY, len(data), zlib.crc32(data))
    found = rows(store.index(KEY))
    assert found[0] == (0, 0)
    assert 15 < len(found) < 40
    for line in (0, 1, 999, 1000, 1001, 12_345, 19_999):
        offset = store.line_offset(KEY, line)
        assert store.read(KEY, offset, len(lines[line])) == lines[line]
    assert store.line_offset(KEY, 20_000) == len(data)
    assert store.line_offset(KEY, 99_999) == len(data)
    log_file.index_path(path_of(tmp_path)).unlink()
    assert rows(store.index(KEY)) == found


async def test_the_index_goes_on_after_a_restart_with_the_old_times(
    store: Logs, tmp_path: Path, clock: HeldClock
) -> None:
    half = b"x" * 63 + b"\n"
    await store.append(KEY, 0, half * 3000)
    again = await reopened(store, tmp_path, clock)
    before = again.index(KEY)
    clock.time += 60
    await again.append(KEY, 3000 * 64, half * 3000)
    await again.close_stream(KEY, 6000 * 64, zlib.crc32(half * 6000))
    index = again.index(KEY)
    assert index.startswith(before)
    assert len(index) > len(before) > 0
    expected = log_index.Scan().feed(half * 6000)
    assert rows(index) == [row for row in expected if row[1] < 6000 * 64]
    assert [row[2] for row in log_index.ROW.iter_unpack(index)][-1] == 60_000
    await again.close()


# --- following ----------------------------------------------------------------------------------------


async def test_a_follower_gets_what_is_there_and_what_comes_until_the_end(store: Logs) -> None:
    await store.append(KEY, 0, b"early\n")
    follower = store.follow(KEY, 0)
    assert await asyncio.wait_for(anext(follower), 5) == (0, b"early\n")
    store.write(KEY, 6, b"late\n")
    assert await asyncio.wait_for(anext(follower), 5) == (6, b"late\n")
    await store.close_stream(KEY, 11, zlib.crc32(b"early\nlate\n"))
    with pytest.raises(StopAsyncIteration):
        await asyncio.wait_for(anext(follower), 5)


async def test_a_follower_may_come_before_the_log(store: Logs) -> None:
    follower = asyncio.create_task(collect(store, KEY))
    await asyncio.sleep(0)
    await store.append(KEY, 0, b"first\n")
    await store.close_stream(KEY, 6, zlib.crc32(b"first\n"))
    assert await follower == b"first\n"


async def test_a_hundred_followers_get_every_byte_and_share_the_reads(
    store: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 0
    real: Callable[[Path, int, int], bytes] = log_file.read

    def counted(path: Path, offset: int, limit: int) -> bytes:
        nonlocal count
        count += 1
        return real(path, offset, limit)

    monkeypatch.setattr(logs.log_file, "read", counted)
    followers = [asyncio.create_task(collect(store, KEY)) for _ in range(100)]
    await asyncio.sleep(0)
    data = b""
    for number in range(15):
        piece = b"line %d\n" % number * 500
        await store.append(KEY, len(data), piece)
        data += piece
    await store.close_stream(KEY, len(data), zlib.crc32(data))
    assert set(await asyncio.gather(*followers)) == {data}
    assert count <= 60


async def test_a_slow_follower_delays_nobody_and_misses_nothing(store: Logs) -> None:
    slow = store.follow(KEY, 0)
    store.write(KEY, 0, b"0")
    assert await asyncio.wait_for(anext(slow), 5) == (0, b"0")
    data = b"0" + b"x" * 3_000_000
    for at in range(1, len(data), 200_000):
        await store.append(KEY, at, data[at : at + 200_000])
    assert await store.close_stream(KEY, len(data), zlib.crc32(data)) is None
    rest = b"".join([piece async for _, piece in slow])
    assert b"0" + rest == data


async def test_pieces_for_followers_are_bounded_and_small_writes_are_put_together(store: Logs) -> None:
    await store.append(KEY, 0, b"x" * 1_000_000)
    sizes = []
    async for offset, piece in store.follow(KEY, 0):
        sizes.append(len(piece))
        if offset + len(piece) == 1_000_000:
            break
    assert sizes == [262_144, 262_144, 262_144, 213_568]
    follower = store.follow(KEY, 1_000_000)
    first = asyncio.ensure_future(anext(follower))
    await asyncio.sleep(0)
    for number in range(100):
        store.write(KEY, 1_000_000 + number, b"y")
    got = await asyncio.wait_for(first, 5)
    while got[0] + len(got[1]) < 1_000_100:
        got = await asyncio.wait_for(anext(follower), 5)
        assert len(got[1]) >= 99
    await follower.aclose()


async def test_followers_end_when_the_server_stops_or_the_log_is_deleted(
    store: Logs, tmp_path: Path, clock: HeldClock
) -> None:
    other = LogKey(8, 1, 1)
    await store.append(KEY, 0, b"a")
    await store.append(other, 0, b"b")
    deleted = asyncio.create_task(collect(store, KEY))
    stopped = asyncio.create_task(collect(store, other))
    await asyncio.sleep(0)
    await store.delete(7)
    assert await asyncio.wait_for(deleted, 5) == b"a"
    assert not path_of(tmp_path).parent.exists()
    await store.close()
    assert await asyncio.wait_for(stopped, 5) == b"b"


async def test_open_files_are_bounded(store: Logs) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = count()
    for step in range(logs.MAX_OPEN + 50):
        await store.append(LogKey(9, 1, step), 0, b"x")
    assert count() - before <= 2 * logs.MAX_OPEN + 4
    assert await store.append(LogKey(9, 1, 0), 1, b"y") == 2
    assert store.read(LogKey(9, 1, 0), 0, 9) == b"xy"
