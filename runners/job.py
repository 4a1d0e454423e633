"""The job process: takes one assignment from its standard input and runs it to the end.

`python -P -m runners.job ENGINE` is started by the supervisor, in a session of its own and ahead of time:
all imports are done when the assignment comes. From then on it needs nobody: it holds its spool's lock,
takes orders from the spool, and stops itself when no supervisor has shown itself for the disconnect limit.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import traceback
from pathlib import Path

from ci.errors import ShipwayError
from runners.clone import Clone
from runners.ending import Halt, duration
from runners.engine_choice import load_engine
from runners.engines.base import Engine
from runners.execution import Execution
from runners.handover import HOLDING, Handover
from runners.spool import SpoolWriter, SupervisorWatch

_LOOKS_PER_LIMIT = 10


def main() -> None:
    open_engine = load_engine(sys.argv[1])
    handover = Handover.of_line(sys.stdin.buffer.readline())
    if handover is None:
        return
    try:
        spool = SpoolWriter.create(Path(handover.spool))
    except ShipwayError as error:
        sys.exit(f"job {handover.assign.lease.job}: {error}")
    sys.stdout.buffer.write(HOLDING)
    sys.stdout.flush()
    _leave_the_supervisor(Path(handover.spool))
    try:
        asyncio.run(_work(open_engine(Path(handover.data)), handover, spool))
    except Exception:  # the edge: its last words go to the spool's disk, and from there to the runner's log
        sys.exit(spool.patterns(handover.assign.masks).mask(traceback.format_exc()))
    spool.close()


def _leave_the_supervisor(folder: Path) -> None:
    """It may be killed: none of its pipes is kept. What we print stands in the spool."""
    null = os.open(os.devnull, os.O_RDONLY)
    kept = os.open(folder / "stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for fd, own in ((null, 0), (kept, 1), (kept, 2)):
        os.dup2(fd, own)
    for fd in (null, kept):
        os.close(fd)


async def _work(engine: Engine, handover: Handover, spool: SpoolWriter) -> None:
    data = Path(handover.data)

    def make_clone() -> Clone:
        assert handover.assign.spec.clone
        return Clone(handover.assign.spec.clone, data, handover.assign.credentials)

    execution = Execution(handover, spool, engine, make_clone)
    loop = asyncio.get_running_loop()

    def look_at_orders() -> None:
        for order in spool.orders():
            execution.order(order)

    def stop() -> None:
        reason = "the runner's job process was told to stop (SIGTERM), as when its machine shuts down"
        execution.halt(Halt.infra(reason, float(handover.assign.spec.grace_seconds)))

    loop.add_reader(spool.orders_fd, look_at_orders)
    loop.add_signal_handler(signal.SIGTERM, stop)
    watch = asyncio.create_task(_watch_supervisor(handover, execution))
    look_at_orders()
    try:
        await execution.run()
    finally:
        watch.cancel()
        loop.remove_reader(spool.orders_fd)


async def _watch_supervisor(handover: Handover, execution: Execution) -> None:
    limit = handover.disconnect_limit_seconds
    watch = SupervisorWatch(Path(handover.spool).parent)
    while watch.silent_seconds() < limit:
        await asyncio.sleep(limit / _LOOKS_PER_LIMIT)
    reason = f"no supervisor of this runner has shown itself for {duration(limit)}"
    execution.halt(Halt.infra(reason))


if __name__ == "__main__":
    main()
