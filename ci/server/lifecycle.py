"""What a runner says, and what a person asks, becomes a status; nothing else moves one.

Every message is answered from what is stored: a message that comes again gets the same answer. What comes
under a lease that is over changes nothing and is kept beside the attempt (store/attempts.py).
"""

from __future__ import annotations

from collections.abc import Iterable

from ci import protocol
from ci.errors import Conflict, Invalid, NotFound
from ci.protocol import (
    Cancel,
    Dead,
    Granted,
    Hello,
    Lease,
    Lost,
    Record,
    Recorded,
    Released,
    ServerMessage,
    StepAsks,
    Stream,
    Welcome,
)
from ci.server.auth import Actor
from ci.server.bus import Bus, job_topics
from ci.server.clock import Clock
from ci.server.models import Job
from ci.server.store import attempts, audit, builds, jobs, meta, runners
from ci.server.store.database import Connection, Store
from ci.status import Status

#: What a person may say about a job whose end is unknown; `pending` runs it again.
VERDICTS = (Status.SUCCESS, Status.FAILURE, Status.CANCELLED, Status.PENDING)


class Lifecycle:
    def __init__(
        self, store: Store, bus: Bus, clock: Clock, *, disconnect_limit_seconds: float = 900.0
    ) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._disconnect_limit_seconds = disconnect_limit_seconds

    # --- a runner connects ------------------------------------------------------------------------

    async def hello(self, runner_id: int, hello: Hello) -> Welcome:
        """A runner is (back) here. What it holds and may keep goes on in the same attempt under a new
        epoch, also a lease whose acknowledgement never came: the runner accepts that again. What the
        server thinks it has and it has not is lost; what it holds and may not keep is named dead.
        """
        if hello.version not in protocol.ACCEPTED_VERSIONS:
            accepted = ", ".join(str(version) for version in sorted(protocol.ACCEPTED_VERSIONS))
            raise Invalid(
                f"this runner speaks protocol {hello.version}, the server {accepted}: "
                "upgrade the older of the two"
            )
        held = {each.lease.key: each.lease for each in hello.held}

        def greet(connection: Connection) -> tuple[Welcome, list[Job]]:
            now = self._clock.now()
            runner = runners.find(connection, runner_id)
            if runner is None:
                raise NotFound("this runner was removed from the server; register it again")
            runners.greet(connection, runner_id, hello, now)
            kept, lost = [], []
            for job in jobs.leased_to(connection, runner_id):
                if (job.id, job.attempt) in held:
                    kept.append(jobs.renew(connection, job))
                    continue
                attempts.lose(connection, job, f"runner {runner.name} came back without it", now)
                lost.append(job)
            alive = {lease.key for lease in kept}
            welcome = Welcome(
                server=meta.server_id(connection, now),
                runner=runner_id,
                name=runner.name,
                leases=tuple(kept),
                dead=tuple(lease for key, lease in held.items() if key not in alive),
                disconnect_limit_seconds=self._disconnect_limit_seconds,
            )
            return welcome, lost

        welcome, lost = await self._store.write(greet)
        self._bus.publish("runners")
        for job in lost:
            self._ring_end(job)
        return welcome

    async def goodbye(self, runner_id: int) -> None:
        """Its socket is closed. Its leases go on ageing, nothing else."""
        await self._store.write(
            lambda connection: runners.disconnected(connection, runner_id, self._clock.now())
        )
        self._bus.publish("runners")

    # --- a runner reports -------------------------------------------------------------------------

    async def apply(self, runner_id: int, record: Record) -> list[ServerMessage]:
        """A line of an attempt's journal: applied once, in order, answered each time."""
        lease = record.lease

        def note(connection: Connection) -> tuple[Job | None, list[ServerMessage], list[Job] | None]:
            now = self._clock.now()
            job = jobs.current(connection, runner_id, lease)
            if job is None or not job.is_accepted:
                return None, self._stale(connection, runner_id, lease, record), None
            attempt = jobs.attempt_row(connection, lease.job, lease.attempt)
            assert attempt is not None
            recorded = attempt.recorded_seq
            if record.seq == recorded + 1:
                recorded = record.seq
                attempts.apply(connection, job, record.change, now)
                jobs.change_attempt(connection, lease.job, lease.attempt, recorded_seq=recorded)
            # A gap is answered like a repeat: the runner goes on from what is recorded.
            answer: list[ServerMessage] = [Recorded(lease=lease, seq=recorded)]
            if isinstance(record.change, StepAsks) and record.seq <= recorded:
                step = attempts.step_of(connection, job, record.change.step)
                if step is not None and step.is_granted and not Status(step.status).is_terminal:
                    answer.append(Granted(lease=lease, step=step.number))
            return job, answer, self._finish(connection, job)

        job, answer, stopped = await self._store.write(note)
        if job is not None:
            self._ring_after(job, stopped)
        return answer

    async def log_closed(self, lease: Lease, step: int, stream: Stream, size: int, crc32: int) -> bool:
        """A log is complete in the store; the last one ends the lease. False: the lease is over.

        The caller has asked `Queue.holds` whose lease it is.
        """

        def note(connection: Connection) -> tuple[Job | None, list[Job] | None]:
            job = jobs.locked(connection, lease.job)
            if job is None or jobs.lease_of(job) != lease or job.runner_id is None:
                return None, None
            attempts.close_log(connection, job, step, stream, size, crc32)
            return job, self._finish(connection, job)

        job, stopped = await self._store.write(note)
        if job is not None:
            self._ring_after(job, stopped)
        return job is not None

    def _finish(self, connection: Connection, job: Job) -> list[Job] | None:
        """None: it is not over. Else the jobs that are to end because of it."""
        if not attempts.finish_if_complete(connection, job, self._clock.now()):
            return None
        return jobs.being_cancelled(connection, job.build_id)

    async def lost(self, runner_id: int, message: Lost) -> list[ServerMessage]:
        """The job process died, and all that it had is destroyed."""
        lease = message.lease

        def note(connection: Connection) -> tuple[Job | None, list[ServerMessage]]:
            now = self._clock.now()
            job = jobs.current(connection, runner_id, lease)
            if job is None:
                return None, self._stale(connection, runner_id, lease, message)
            runner = runners.find(connection, runner_id)
            name = runner.name if runner else "(removed)"
            attempts.lose(connection, job, f"{message.reason or 'the job process died'} (runner {name})", now)
            return job, [Dead(attempts=(lease.key,))]

        job, answer = await self._store.write(note)
        if job is not None:
            self._ring_end(job)
        return answer

    def _stale(
        self, connection: Connection, runner_id: int, lease: Lease, message: Record | Lost
    ) -> list[ServerMessage]:
        """Keep it as evidence; "dead" unless the runner has the same execution under a newer epoch."""
        attempts.keep_evidence(connection, runner_id, lease, protocol.encode(message), self._clock.now())
        job = jobs.find(connection, lease.job)
        if job is not None and job.runner_id == runner_id and job.attempt == lease.attempt:
            return []
        return [Dead(attempts=(lease.key,))]

    async def ask_dead(self, pairs: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
        """Which attempts, of any runner, are over: their resources may go."""
        asked = list(pairs)
        return tuple(await self._store.read(lambda connection: attempts.dead(connection, asked)))

    # --- what a runner must hear --------------------------------------------------------------------

    async def pending_cancels(self, runner_id: int) -> list[Cancel]:
        found = await self._store.read(lambda connection: attempts.cancels(connection, runner_id))
        return [Cancel(lease=jobs.lease_of(job), reason=reason) for job, reason in found]

    async def pending_grants(self, runner_id: int) -> list[Granted]:
        """Grants whose message may have been lost with a socket: said again after each Welcome."""

        def look(connection: Connection) -> list[Granted]:
            return [
                Granted(lease=jobs.lease_of(job), step=step)
                for job in jobs.leased_to(connection, runner_id)
                for step in attempts.granted_steps(connection, job)
            ]

        return await self._store.read(look)

    async def over(self, runner_id: int, leases: Iterable[Lease]) -> list[Released | Dead]:
        """Of these leases that a runner was given, those that have ended: released when all of it is
        stored, else dead."""
        asked = list(leases)

        def look(connection: Connection) -> list[Released | Dead]:
            found = (_over(connection, runner_id, lease) for lease in asked)
            return [message for message in found if message is not None]

        return await self._store.read(look)

    # --- a person asks ------------------------------------------------------------------------------

    async def cancel(self, build_id: int, who: Actor) -> None:
        """A request: what no runner has acknowledged ends now, the rest when its runner says so.

        Raises NotFound, or Conflict for a build that has ended. Asking again is harmless.
        """
        reason = f"cancelled by {who.name}"

        def ask(connection: Connection) -> list[Job]:
            build = builds.locked(connection, build_id)
            if build is None:
                raise NotFound(f"there is no build with the id {build_id}")
            if Status(build.status).is_terminal:
                raise Conflict(f"build {build.number} has ended already: {Status(build.status).word}")
            now = self._clock.now()
            found = attempts.cancel_build(connection, build_id, reason, now)
            audit.note(connection, who, builds.deed(connection, build, "build.cancel"), now)
            return found

        for job in await self._store.write(ask):
            self._ring_end(job)

    async def resolve(self, job_id: int, verdict: Status, who: Actor) -> None:
        """A person says how an `unknown` job ended; `pending` runs it again as a new attempt."""
        if verdict not in VERDICTS:
            words = ", ".join(each.value for each in VERDICTS)
            raise Invalid(f"a job can be resolved to {words}, not to {verdict.value!r}")

        def decide(connection: Connection) -> Job:
            job = jobs.locked(connection, job_id)
            if job is None:
                raise NotFound(f"there is no job with the id {job_id}")
            if job.status != Status.UNKNOWN.value:
                raise Conflict(f"job {job.name!r} is {job.status}, so nothing is left to resolve")
            now = self._clock.now()
            said = _SAID[verdict].format(who.name)
            if verdict is Status.PENDING:
                attempts.try_again(connection, job, said, now)
            else:
                attempts.resolve(connection, job, verdict, said, now)
            build = builds.by_id(connection, job.build_id)
            assert build is not None
            deed = builds.deed(connection, build, "build.resolve", f"job {job.name}: {said}")
            audit.note(connection, who, deed, now)
            return job

        self._ring_end(await self._store.write(decide))

    # --- the bus --------------------------------------------------------------------------------------

    def _ring(self, job: Job) -> None:
        self._bus.publish(*job_topics(job.id, job.build_id))

    def _ring_after(self, job: Job, stopped: list[Job] | None) -> None:
        if stopped is None:
            return self._ring(job)
        for each in (job, *stopped):
            self._ring_end(each)
        return None

    def _ring_end(self, job: Job) -> None:
        """A lease ended or a job became free: runners look again too."""
        self._bus.publish(*job_topics(job.id, job.build_id), "queue", f"runner:{job.runner_id}")


_SAID = {
    Status.SUCCESS: "{} says that it passed",
    Status.FAILURE: "{} says that it failed",
    Status.CANCELLED: "{} says that it was cancelled",
    Status.PENDING: "{} asked for another attempt",
}


def _over(connection: Connection, runner_id: int, lease: Lease) -> Released | Dead | None:
    job = jobs.find(connection, lease.job)
    if job is not None and job.runner_id == runner_id and job.attempt == lease.attempt:
        return None
    attempt = jobs.attempt_row(connection, lease.job, lease.attempt)
    if attempt is not None and attempt.end is not None and attempt.runner_id == runner_id:
        return Released(lease=lease)
    return Dead(attempts=(lease.key,))
