"""Local job: one job run by the runner's own code, its log on the screen."""

from __future__ import annotations

import asyncio
import signal
import tempfile
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from ci.protocol import Assign, JobEnded, Lease
from ci.spec import JobSpec
from runners.engines.base import Engine, Janitor
from runners.exec.screen import Screen
from runners.exec.working_tree import WorkingTree
from runners.execution import Execution
from runners.handover import Handover
from runners.spool import Order, OrderCancel, OrderGranted, OrderKill, SpoolReader, SpoolWriter

_FOR_EVER = 1e9


async def run(
    job: JobSpec, folder: Path, engine: Engine, janitor: Janitor, secrets: Mapping[str, str]
) -> JobEnded:
    """Runs the job over what lies in `folder`. Ctrl-C cancels it, a second one kills it."""
    with tempfile.TemporaryDirectory(prefix="shipway-exec-") as scratch:
        return await _run_in(Path(scratch), job, folder, engine, janitor, secrets)


async def _run_in(
    scratch: Path,
    job: JobSpec,
    folder: Path,
    engine: Engine,
    janitor: Janitor,
    secrets: Mapping[str, str],
) -> JobEnded:
    values = tuple(value for value in secrets.values() if value)
    assign = Assign(lease=Lease(job=1, attempt=1, epoch=1), spec=job, secrets=dict(secrets), masks=values)
    spool_folder = scratch / "spool" / "1-1"
    handover = Handover(
        assign=assign,
        spool=str(spool_folder),
        data=str(scratch),
        server=f"exec-{uuid.uuid4().hex}",
        runner="exec",
        disconnect_limit_seconds=_FOR_EVER,
    )
    spool = SpoolWriter.create(spool_folder)
    reader = SpoolReader(spool_folder)
    screen = Screen(job, reader)
    execution = Execution(handover, spool, engine, lambda: WorkingTree(folder))
    for step in job.steps:  # who types the command has said so
        if step.deploy:
            execution.order(OrderGranted(step=step.number))
    loop = asyncio.get_running_loop()

    def ring() -> None:
        reader.drain_bell()
        screen.look()

    loop.add_reader(reader.bell_fd, ring)
    loop.add_signal_handler(signal.SIGINT, _interrupt(execution))
    try:
        await execution.run()
        screen.look()
    finally:
        loop.remove_reader(reader.bell_fd)
        loop.remove_signal_handler(signal.SIGINT)
        spool.close()
        janitor.remove_attempt(handover.server, 1, 1)
    last = reader.changes()[-1][1]
    reader.close()
    assert isinstance(last, JobEnded), "an execution writes its end last"
    return last


def _interrupt(execution: Execution) -> Callable[[], None]:
    """Cancels first, and kills when it comes again."""
    orders: list[Order] = [OrderKill(reason="killed by Ctrl-C"), OrderCancel(reason="stopped by Ctrl-C")]

    def handle() -> None:
        execution.order(orders.pop() if len(orders) > 1 else orders[0])

    return handle
