"""The queue: pending jobs and fenced leases (law 3). The database is it; nothing waits in memory.

Theory of operation. `take` leases the oldest jobs that fit, each under a new epoch; nothing may start yet.
`accept` stores the runner's acknowledgement and only then answers Begin: a lease that dies before is
requeued freely, one that dies after it has lost an execution (store/attempts.py decides what follows).

A lease ages by stored ticks, not by time: `age_leases` runs every 5 s and, in one transaction, first counts
every heartbeat that came since the last pass and then adds a tick to the other leases; at twelve ticks a
lease is lost. So a server that stands still, starts or cannot commit ages nothing: no pass, no tick. After
a standstill the sockets are still full of heartbeats, so the first pass after one only stores them.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from itertools import islice

from ci.errors import Unavailable
from ci.event import Event
from ci.protocol import Assign, Begin, Lease
from ci.server.bus import Bus, job_topics
from ci.server.clock import Clock
from ci.server.credentials import Credentials
from ci.server.models import Job, Repo, Runner
from ci.server.secrets import Secrets
from ci.server.store import attempts, builds, concurrency, jobs, repos, runners
from ci.server.store.database import Connection, Store
from ci.server.vault import Vault
from ci.spec import JobSpec
from ci.status import Outcome, Status

TICK_SECONDS = 5.0
LOST_AFTER_TICKS = 12
#: A longer pause than this between two passes is a standstill.
STANDSTILL_SECONDS = 2 * TICK_SECONDS
CLONE_USER = "job"


class Queue:
    def __init__(
        self,
        store: Store,
        bus: Bus,
        clock: Clock,
        vault: Vault,
        secrets: Secrets,
        credentials: Credentials,
    ) -> None:
        self._store = store
        self._secrets = secrets
        self._credentials = credentials
        self._bus = bus
        self._clock = clock
        self._vault = vault
        self._beats: dict[int, set[Lease]] = {}  #: heard since the last pass, by runner
        self._last_pass: float | None = None
        self._last_tick = float("-inf")

    async def take(self, runner_id: int, free: int) -> list[Assign]:
        """Lease up to `free` jobs whose labels the runner has, oldest first; none while it drains or is
        paused."""

        stopped: list[Job] = []  #: whose approval does not hold any more

        def lease(connection: Connection) -> list[tuple[Job, Assign | None]]:
            stopped.clear()
            runner = runners.find(connection, runner_id)
            if runner is None or runner.is_draining or runner.is_paused:
                return []
            # An offer may have crossed an Assign on the wire: what is leased counts, not what was said.
            places = min(free, runner.capacity - len(jobs.leased_to(connection, runner_id)))
            granted: list[Job] = []
            tried: set[int] = set()
            while ids := list(
                islice(jobs.fitting(connection, runner.labels, tried), max(places - len(granted), 0))
            ):
                tried.update(ids)
                for job_id in ids:
                    job = jobs.grant(connection, job_id, runner_id, runner.name)
                    if job is not None:
                        granted.append(job)
                    else:
                        stopped.extend(self._ask_again(connection, job_id))
            return [(job, self._assign(connection, job)) for job in granted]

        if free <= 0:
            return []
        leased = await self._store.write(lease)
        for job in (*stopped, *(job for job, _ in leased)):
            self._bus.publish(*job_topics(job.id, job.build_id))
        return [assign for _, assign in leased if assign is not None]

    def _assign(self, connection: Connection, job: Job) -> Assign | None:
        """The assignment with all that the job may know; None: the job has ended, and its reason says why."""
        build = builds.by_id(connection, job.build_id)
        repo = repos.by_id(connection, build.repo_id) if build else None
        assert build is not None and repo is not None, "a job has its build, a build its repo"
        spec, event = JobSpec.model_validate(job.spec), Event.model_validate(build.event)
        path = f"{repo.owner}/{repo.name}/{build.number}"
        resolved = self._secrets.for_job(connection, spec, event, repo, path)
        if resolved.refusal:
            attempts.refuse(connection, job, Outcome.SECRET, resolved.refusal, self._clock.now())
            return None
        try:
            login = self._login(repo, event, job) if spec.clone is not None else None
        except Unavailable as error:
            reason = f"the repo's credential cannot be opened, set it again in its settings: {error}"
            attempts.refuse(connection, job, Outcome.SECRET, reason, self._clock.now())
            return None
        return Assign(
            lease=jobs.lease_of(job),
            spec=spec,
            secrets=resolved.values,
            credentials=login,
            masks=(*resolved.values.values(), *((login[1],) if login else ())),
        )

    def _ask_again(self, connection: Connection, job_id: int) -> list[Job]:
        return attempts.ask_again(connection, job_id, self._clock.now())

    async def accept(self, runner_id: int, lease: Lease) -> Begin | None:
        """Store the acknowledgement; None where the lease is over and nothing may start. Idempotent."""

        def note(connection: Connection) -> Job | None:
            job = jobs.current(connection, runner_id, lease)
            if job is not None:
                attempts.accept(connection, job, self._clock.now())
            return job

        job = await self._store.write(note)
        if job is None:
            return None
        self._bus.publish(*job_topics(job.id, job.build_id))
        return Begin(lease=lease)

    async def holds(self, runner_id: int, lease: Lease) -> bool:
        """Whether this very lease is this runner's, acknowledged and not over: what the log socket asks."""
        job = await self._store.read(lambda connection: jobs.current(connection, runner_id, lease))
        return job is not None and job.is_accepted

    # --- age ------------------------------------------------------------------------------------

    def heartbeat(self, runner_id: int, leases: tuple[Lease, ...]) -> None:
        """Heard of these leases; stored by the next pass."""
        self._beats.setdefault(runner_id, set()).update(leases)

    async def age_leases(self) -> int:
        """One pass; returns how many executions it lost or took back. Call it every TICK_SECONDS."""
        start = self._clock.monotonic()
        stood_still = self._last_pass is None or start - self._last_pass >= STANDSTILL_SECONDS
        is_ticking = not stood_still and start - self._last_tick >= 0.99 * TICK_SECONDS
        beats, self._beats = self._beats, {}
        try:
            lost = await self._store.write(lambda connection: self._pass(connection, beats, is_ticking))
        except BaseException:
            # Not stored: the pass ages nothing, and what was heard is heard in the next one.
            for runner_id, leases in beats.items():
                self._beats.setdefault(runner_id, set()).update(leases)
            raise
        self._last_pass = self._clock.monotonic()
        if is_ticking:
            self._last_tick = start
        for job in lost:
            self._bus.publish(*job_topics(job.id, job.build_id), "queue", f"runner:{job.runner_id}")
        return len(lost)

    def _pass(self, connection: Connection, beats: dict[int, set[Lease]], is_ticking: bool) -> list[Job]:
        now = self._clock.now()
        if is_ticking:
            jobs.tick(connection)
        for runner_id, leases in beats.items():
            jobs.refresh(connection, runner_id, leases)
            runners.seen(connection, runner_id, now)
        lost = jobs.aged(connection, LOST_AFTER_TICKS)
        for job in lost:
            runner = runners.find(connection, job.runner_id or 0)
            name = runner.name if runner else "(removed)"
            silence = TICK_SECONDS * LOST_AFTER_TICKS
            attempts.lose(connection, job, f"runner {name} was not heard of for {silence:.0f} s", now)
        return lost

    # --- credentials for the clone ------------------------------------------------------------------

    def _login(self, repo: Repo, event: Event, job: Job) -> tuple[str, str] | None:
        """What the job's clone says to the repo's server. Raises Unavailable."""
        if repo.forge == repos.BUILTIN:
            return CLONE_USER, self._clone_token(repo, job)
        return self._credentials.login_of_clone(repo, event)

    def _clone_token(self, repo: Repo, job: Job) -> str:
        """Read access to the job's repo in the built-in git, as long as this execution is leased."""
        return f"{job.id}.{job.attempt}.{self._clone_mac(repo.id or 0, job.id or 0, job.attempt)}"

    def _clone_mac(self, repo_id: int, job_id: int, attempt: int) -> str:
        return self._vault.mac("clone", f"{repo_id}/{job_id}/{attempt}")

    async def check_clone_token(self, repo_id: int, token: str) -> bool:
        """Whether `token`, the password of the user `job`, may read this repo now."""
        job_text, _, rest = token.partition(".")
        attempt_text, _, mac = rest.partition(".")
        if not (_is_number(job_text) and _is_number(attempt_text)):
            return False
        job_id, attempt = int(job_text), int(attempt_text)
        if not hmac.compare_digest(mac.encode(), self._clone_mac(repo_id, job_id, attempt).encode()):
            return False
        job = await self._store.read(lambda connection: jobs.find(connection, job_id))
        return job is not None and job.attempt == attempt and job.runner_id is not None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19


# --- why it waits (law 10) --------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Wait:
    """Why a job does not go on and what would help, as sentences; empty for one that runs or has ended."""

    why: str = ""
    help: str = ""


def why_waiting(connection: Connection, job: Job) -> str:
    """The sentence for a job that does not run; empty for one that does or has ended."""
    return explain(connection, job).why


def explain(connection: Connection, job: Job) -> Wait:
    if job.status == Status.BLOCKED.value:
        return Wait(why=job.reason, help="a person must act: open the build")
    if job.status == Status.UNKNOWN.value:
        return Wait(why=job.reason, help="a person must say how it ended: open the build")
    if job.status == Status.WAITING.value:
        return Wait(why=job.reason, help="nothing to do: it starts when what it waits for has ended")
    if job.status != Status.PENDING.value:
        return Wait()
    everyone = runners.all_runners(connection)
    if job.runner_id is not None:
        name = next((runner.name for runner in everyone if runner.id == job.runner_id), "a runner")
        return Wait(
            why=f"offered to {name}, which has not answered yet", help="nothing to do: it answers or loses it"
        )
    if group := concurrency.why_waiting(connection, job):
        return Wait(why=group, help="nothing to do: it starts when that one has ended")
    if not everyone:
        return Wait(
            why="no runner is registered yet: add one on the page Runners",
            help="make a code with `shipway runners code` and start a runner with it",
        )
    wanted = job.spec.get("labels") or {}
    fit = [runner for runner in everyone if jobs.is_fit(wanted, runner.labels)]
    if not fit:
        needs = ", ".join(f"{name}={value}" for name, value in sorted(wanted.items()))
        flags = " ".join(f"--label {name}={value}" for name, value in sorted(wanted.items()))
        return Wait(
            why=f"no runner matches: the job needs the label {needs}",
            help=f"start a runner with {flags}, or change `labels` in the pipeline",
        )
    return _explain_busy(connection, job, fit)


def _explain_busy(connection: Connection, job: Job, fit: list[Runner]) -> Wait:
    connected = [runner for runner in fit if runner.is_connected]
    if not connected:
        names = _names(fit)
        return Wait(why=f"no runner that matches is connected ({names})", help=f"start one of them: {names}")
    able = [runner for runner in connected if runner.capacity]  # 0 is how a runner says it has no engine
    if not able:
        return Wait(
            why=f"no engine on runner {connected[0].name}: {connected[0].engine}",
            help=f"start the Docker engine on {connected[0].name}; the runner looks again every 10 s",
        )
    taking = [runner for runner in able if not (runner.is_draining or runner.is_paused)]
    if not taking:
        states = {"paused" if runner.is_paused else "draining" for runner in able}
        return Wait(
            why=f"every runner that matches is {' or '.join(sorted(states))} ({_names(able)})",
            help=f"let one take jobs again: `shipway runners resume {able[0].name}`",
        )
    ahead = jobs.pending_before(connection, job.id or 0)
    queued = f"; {ahead} older {'job waits' if ahead == 1 else 'jobs wait'} too" if ahead else ""
    return Wait(
        why=f"waiting for a free place on {_names(taking)}{queued}",
        help="it starts when a job there ends; another runner, or more --capacity, makes it sooner",
    )


def _names(found: list[Runner]) -> str:
    return ", ".join(runner.name for runner in found[:5])
