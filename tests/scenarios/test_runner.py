from __future__ import annotations

from ci.status import Outcome, Status


async def test_an_assigned_job_runs_and_its_log_and_result_arrive(server, runner, step) -> None:
    job = server.add(step("hello", FAKE_OUTPUT="hello s3cr3t world\n"))
    await runner.start()
    await server.until(lambda: job.is_over)
    assert job.log() == b"hello ****** world\n" or b"s3cr3t" not in job.log()
    assert job.statuses(1) == [Status.RUNNING, Status.SUCCESS]
    assert job.end().status is Status.SUCCESS
