"""The store: SQLite in WAL mode, one writer thread with group commit, readers on their own connections.

Theory of operation. `write(fn)` hands `fn` to the writer thread, which runs all that wait in one
transaction, each in a savepoint, and answers after COMMIT (synchronous FULL: what was answered survives
a power cut). An fn touches nothing but the database, because it may run twice: after any error the writer
looks whether the transaction still stands. SQLite rolls the whole of it back on a full disk, and a
savepoint released after that would commit alone in autocommit; so then, or when COMMIT fails, every fn of
the group runs again in a transaction of its own and stands or fails for itself.
Each fn is also right where other writers share the database: compare-and-set and unique keys, never
"I have just looked".
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.pool import NullPool, QueuePool

from ci.errors import Conflict, Unavailable
from ci.server.store.migrations.upgrade import upgrade

__all__ = ["Connection", "Store"]

T = TypeVar("T")
_READERS = 4
_GROUP_MAX = 256
_BUSY_MILLISECONDS = 10_000


@dataclass(slots=True)
class _Request:
    fn: Callable[[Connection], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None

    def settle(self) -> None:
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


class Store:
    """One database file. All coroutines may be awaited from any task of any loop."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._writer: Engine | None = None
        self._reader: Engine | None = None
        self._thread: threading.Thread | None = None
        self._threads: ThreadPoolExecutor | None = None

    async def open(self) -> None:
        """Make the file where there is none, bring the schema up to date, start the writer."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = _engine(self.path, is_writer=True)
        self._reader = _engine(self.path, is_writer=False)
        await asyncio.to_thread(upgrade, self._writer)
        self._threads = ThreadPoolExecutor(_READERS, thread_name_prefix="store-reader")
        self._thread = threading.Thread(target=self._write_until_closed, name="store-writer", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Finish what waits, then let go of the file. Safe to call again."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._requests.put(None)
            await asyncio.to_thread(thread.join)
        threads, self._threads = self._threads, None
        if threads is not None:
            await asyncio.to_thread(threads.shutdown)
        for engine in (self._writer, self._reader):
            if engine is not None:
                engine.dispose()

    async def write(self, fn: Callable[[Connection], T]) -> T:
        """Run `fn` in the writer's transaction; returns after the commit, raises what `fn` raised.

        An unkept unique key becomes Conflict, a full disk or a locked file Unavailable.
        """
        if self._thread is None:
            raise Unavailable("the store is closed")
        loop = asyncio.get_running_loop()
        request = _Request(fn, loop, loop.create_future())
        self._requests.put(request)
        result: T = await request.future
        return result

    async def read(self, fn: Callable[[Connection], T]) -> T:
        """Run `fn` on a snapshot, in a thread. It cannot write."""
        if self._threads is None or self._reader is None:
            raise Unavailable("the store is closed")
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(self._read, fn))

    def _read(self, fn: Callable[[Connection], T]) -> T:
        assert self._reader is not None
        with self._reader.connect() as connection:
            return fn(connection)

    # --- the writer thread ----------------------------------------------------------------------

    def _write_until_closed(self) -> None:
        assert self._writer is not None
        with self._writer.connect() as connection:
            while (group := self._next_group()) is not None:
                if not _run_together(connection, group):
                    for request in group:
                        _run_alone(connection, request)
                _answer(group)

    def _next_group(self) -> list[_Request] | None:
        """All that wait now, at least one; None once closed and empty."""
        first = self._requests.get()
        if first is None:
            return None
        group = [first]
        while len(group) < _GROUP_MAX:
            try:
                request = self._requests.get_nowait()
            except queue.Empty:
                break
            if request is None:
                self._requests.put(None)
                break
            group.append(request)
        return group


def _answer(group: list[_Request]) -> None:
    for loop in {request.loop for request in group}:
        mine = [request for request in group if request.loop is loop]
        try:
            loop.call_soon_threadsafe(_settle_all, mine)
        except RuntimeError:  # the loop was closed while we wrote: nobody waits for the answer
            continue


def _settle_all(requests: list[_Request]) -> None:
    for request in requests:
        request.settle()


def _run_together(connection: Connection, group: list[_Request]) -> bool:
    """One transaction for all. False: it is gone, nothing was stored, run each alone."""
    try:
        with connection.begin():
            for request in group:
                if not _run_in_savepoint(connection, request):
                    raise _TransactionGone
    except (_TransactionGone, DBAPIError):
        return False
    return True


class _TransactionGone(Exception):
    pass


def _run_in_savepoint(connection: Connection, request: _Request) -> bool:
    """False when the whole transaction was lost with this fn."""
    connection.exec_driver_sql("SAVEPOINT fn")
    try:
        request.result, request.error = request.fn(connection), None
    except Exception as error:  # the edge: it belongs to whoever awaits the write
        if not _stands(connection):
            return False
        connection.exec_driver_sql("ROLLBACK TO fn")
        request.error = _as_ours(error)
    if not _stands(connection):
        return False
    connection.exec_driver_sql("RELEASE fn")
    return True


def _run_alone(connection: Connection, request: _Request) -> None:
    try:
        with connection.begin():
            request.result, request.error = request.fn(connection), None
            if not _stands(connection):
                raise Unavailable("the database lost the transaction")
    except Exception as error:  # the edge: it belongs to whoever awaits the write
        request.result, request.error = None, _as_ours(error)


def _stands(connection: Connection) -> bool:
    return bool(connection.connection.dbapi_connection.in_transaction)  # type: ignore[union-attr]


def _as_ours(error: Exception) -> Exception:
    if isinstance(error, OperationalError):
        return Unavailable(f"the database cannot store this now: {error.orig}")
    if isinstance(error, IntegrityError):
        return Conflict(f"this is not as it was any more: {error.orig}")
    return error


def _use_wal(connection: sqlite3.Connection) -> None:
    """SQLite does not wait for another's write lock when the journal mode changes, so we do."""
    deadline = time.monotonic() + _BUSY_MILLISECONDS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _engine(path: Path, *, is_writer: bool) -> Engine:
    pool: dict[str, Any] = (
        {"poolclass": NullPool} if is_writer else {"poolclass": QueuePool, "pool_size": _READERS}
    )
    engine = create_engine(
        f"sqlite:///{path}",
        connect_args={"check_same_thread": False},
        hide_parameters=True,  # an error goes into the server's log, the values of a row do not
        **pool,
    )

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin or commit by itself
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
        connection.execute("PRAGMA foreign_keys = ON")
        if is_writer:
            _use_wal(connection)
            connection.execute("PRAGMA synchronous = FULL")
        else:
            connection.execute("PRAGMA query_only = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # IMMEDIATE: a writer that first read and then upgrades could be refused in the middle.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writer else "BEGIN")

    return engine
