"""A build: the answer first, then its steps as a waterfall, then the log of one of them; and what can be
done with it. The page of a step is the same page with that step's log."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from starlette.responses import RedirectResponse, Response

from ci.errors import Invalid, NotFound
from ci.server import queue
from ci.server.auth import Action
from ci.server.lifecycle import VERDICTS
from ci.server.logs import LogKey
from ci.server.models import Attempt, Job, Step
from ci.server.queue import Wait
from ci.server.store import configs, views
from ci.server.store.database import Connection
from ci.server.store.views import BuildView, JobView
from ci.status import Outcome, Status
from web import answer, log_text
from web.answer import Excerpt
from web.guard import Call
from web.log_text import LogText, Window
from web.pages import newest_line
from web.parts import Parts
from web.render import LIVE_HEADER, SCRIPTS_COOKIE, Renderer

STATIC_LINES = 2000  #: of a log for readers without JavaScript
MAX_EXCERPTS = 3
_EXCERPT_BYTES = 256 * 1024
_EXCERPT_LINES = 2000
_FAILED = (Status.FAILURE, Status.ERROR)


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A step's place on the time axis of its build, in percent."""

    begin: float
    length: float


@dataclass(frozen=True, kw_only=True)
class StepRow:
    step: Step
    link: str
    note: str = ""
    bar: Bar | None = None
    seconds: float | None = None
    since: float | None = None  #: runs since then, in the server's clock
    is_selected: bool = False


@dataclass(frozen=True, kw_only=True)
class JobRow:
    """A job as the list of steps shows it, in one of its attempts."""

    job: Job
    attempt: Attempt
    attempts: tuple[int, ...]
    steps: tuple[StepRow, ...]
    seconds: float | None = None
    since: float | None = None
    why: str = ""
    kept: int | None = None  #: number of the build that its result and logs are kept from
    is_open: bool = True


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A step that failed, in words, and the lines that say so."""

    job: Job
    step: Step
    link: str
    words: str
    excerpt: Excerpt


@dataclass(frozen=True, kw_only=True)
class Selected:
    """The step whose log is shown."""

    job: Job
    attempt: Attempt
    step: Step
    base: str  #: of its addresses, without a query
    commands: str  #: JSON
    size: int
    is_closed: bool
    words: str = ""  #: how the step ended, where it did not pass
    window: Window | None = None  #: for readers without JavaScript
    line_count: int = 0
    removed: str = ""  #: why there is no log any more


class BuildPage:
    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer

    async def build(self, call: Call) -> Response:
        view, waits = await _view(call)
        attempts = {each.job.slug: each.job.attempt for each in view.jobs}
        chosen = answer.decisive([(job.job, job.steps()) for job in view.jobs])
        return await self._page(call, view, waits, attempts, chosen)

    async def step(self, call: Call) -> Response:
        view, waits = await _view(call)
        job, step = find_step(view, call.path("job"), call.path("step"), _attempt(call))
        attempts = {each.job.slug: each.job.attempt for each in view.jobs} | {job.job.slug: step.attempt}
        return await self._page(call, view, waits, attempts, (job.job, step))

    async def _page(
        self,
        call: Call,
        view: BuildView,
        waits: dict[int, Wait],
        attempts: dict[str, int],
        chosen: tuple[Job, Step] | None,
    ) -> Response:
        is_step = "step" in call.connection.path_params
        axis = Axis.of(view, call.parts.clock.now())
        rows = [
            _job_row(view, job, attempts[job.job.slug], chosen, axis, waits[job.job.id or 0].why)
            for job in view.jobs
        ]
        shown = await asyncio.to_thread(_read_logs, call, view, chosen, is_step)
        status = Status(view.build.status)
        question = None if is_step else await call.parts.approvals.question(view.repo, view.build)
        return await self._renderer.page(
            call,
            "build.html",
            view=view,
            rows=rows,
            is_step=is_step,
            chosen=chosen,
            waits=_waits(waits, view),
            unknown=[job.job for job in view.jobs if job.job.status == Status.UNKNOWN.value],
            sources=_sources(view),
            config_name=configs.name(view.build.config_file),
            may_run=call.may(Action.RUN),
            may_approve=call.may(Action.APPROVE),
            question=question,
            decision=await call.parts.approvals.decision(view.build.id or 0),
            can_rerun_failed=_can_rerun_failed(view),
            is_over=status.is_terminal,
            **shown,
        )

    # --- what can be done --------------------------------------------------------------------------

    async def cancel(self, call: Call) -> Response:
        view, _ = await _view(call)
        await call.parts.lifecycle.cancel(view.build.id or 0, call.actor)
        return RedirectResponse(view.path, 303)

    async def rerun(self, call: Call) -> Response:
        view, _ = await _view(call)
        only_failed = is_only_failed(call)
        owner, name, number = await call.parts.rerun(view.build.id or 0, call.actor, only_failed=only_failed)
        return RedirectResponse(f"/r/{owner}/{name}/{number}", 303)

    async def resolve(self, call: Call) -> Response:
        """Which of the answers a person gives to the question that an `unknown` job asks."""
        return RedirectResponse((await resolve(call)).path, 303)

    async def approve(self, call: Call) -> Response:
        return RedirectResponse((await decide(call, is_approved=True)).path, 303)

    async def reject(self, call: Call) -> Response:
        return RedirectResponse((await decide(call, is_approved=False)).path, 303)


def is_only_failed(call: Call) -> bool:
    """Whether a rerun is asked for of what failed alone. Raises Invalid for any other part."""
    part = call.field("only")
    if part not in ("", "failed"):
        raise Invalid(f'"only" is {part!r}; it can be "failed", or left out to run everything again')
    return part == "failed"


async def resolve(call: Call) -> BuildView:
    """Take the verdict of a form or of JSON on the job that the path names."""
    view, _ = await _view(call)
    job = view.job(call.path("job"))
    if job is None:
        raise NotFound(f"build {view.build.number} has no job {call.path('job')!r}")
    try:
        verdict = Status(call.field("verdict"))
    except ValueError as error:
        words = ", ".join(each.value for each in VERDICTS)
        raise Invalid(f"{call.field('verdict')[:40]!r} is no verdict; it is one of {words}") from error
    await call.parts.lifecycle.resolve(job.job.id or 0, verdict, call.actor)
    return view


async def decide(call: Call, *, is_approved: bool) -> BuildView:
    """Approve or reject the build that the path names, as `binding` says that it was looked at."""
    view, _ = await _view(call)
    await call.parts.approvals.decide(
        view.build.id or 0, call.actor, is_approved=is_approved, seen=call.field("binding")
    )
    return view


async def find_view(call: Call) -> BuildView:
    """The build that the path names. Raises NotFound."""
    return (await _view(call))[0]


async def _view(call: Call) -> tuple[BuildView, dict[int, Wait]]:
    number = int(call.path("number"))

    def look(c: Connection) -> tuple[BuildView | None, dict[int, Wait]]:
        view = views.build(c, call.repo, number) if number < 1 << 62 else None
        if view is None:
            return None, {}
        return view, {job.job.id or 0: queue.explain(c, job.job) for job in view.jobs}

    view, waits = await call.parts.store.read(look)
    if view is None:
        raise NotFound(f"{call.repo.owner}/{call.repo.name} has no build {number}")
    return view, waits


def _attempt(call: Call) -> int | None:
    text = call.connection.query_params.get("attempt", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 9 else None


def find_step(view: BuildView, job_slug: str, step_slug: str, attempt: int | None) -> tuple[JobView, Step]:
    """The step in that attempt, or in the newest one. Raises NotFound with what is missing."""
    job = view.job(job_slug)
    if job is None:
        raise NotFound(f"build {view.build.number} has no job {job_slug!r}")
    found = next((step for step in job.steps(attempt) if step.slug == step_slug), None)
    if found is None:
        where = f" in attempt {attempt}" if attempt else ""
        raise NotFound(f"job {job.job.name!r} has no step {step_slug!r}{where}")
    return job, found


async def find_log(call: Call) -> LogKey:
    """The log that a step's address names. Raises NotFound for one that was removed when it was old."""
    view, _ = await _view(call)
    _, step = find_step(view, call.path("job"), call.path("step"), _attempt(call))
    if gone := await asyncio.to_thread(_removed, call, step):
        raise NotFound(gone)
    return LogKey(step.job_id, step.attempt, step.number)


def _removed(call: Call, step: Step) -> str:
    """Why the log of a step that has printed something is not here; empty: it is. Blocks."""
    logs, key = call.parts.logs, LogKey(step.job_id, step.attempt, step.number)
    if not step.log_size or logs.size(key) or logs.has_files(key):
        return ""
    days = call.repo.keep_logs_days
    if not days:
        return "this log is not here any more"
    return f"this log was removed after {days} {'day' if days == 1 else 'days'}, as the repo's settings say"


def step_link(view: BuildView, job: Job, step: Step) -> str:
    return f"{step_base(view, job, step)}?attempt={step.attempt}"


def step_base(view: BuildView, job: Job, step: Step) -> str:
    return f"{view.path}/{quote(job.slug, safe='')}/{quote(step.slug, safe='')}"


def _can_rerun_failed(view: BuildView) -> bool:
    """Whether something passed that need not run again, and something did not."""
    passed = [job.job.status == Status.SUCCESS.value for job in view.jobs]
    return Status(view.build.status).is_terminal and any(passed) and not all(passed)


# --- rows -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Axis:
    """The time that a build's waterfall covers, and the present; seconds since 1970."""

    begin: float
    end: float
    now: float

    @classmethod
    def of(cls, view: BuildView, now: float) -> Axis:
        own = [job for job in view.jobs if job.job.kept_from is None]
        attempts = [each for job in own for each in job.attempts if each.attempt.started_at is not None]
        started = [each.attempt.started_at or now for each in attempts]
        ends = [
            (each.attempt.started_at or now) + (step.ended_after or 0.0)
            for each in attempts
            for step in each.steps
        ]
        begin = min([view.build.started_at or now, *started])
        return cls(begin=begin, end=max([begin + 0.001, view.build.finished_at or now, *ends]), now=now)

    def bar(self, begin: float, end: float) -> Bar:
        scale = 100.0 / (self.end - self.begin)
        place = min(99.0, max(0.0, (begin - self.begin) * scale))
        length = min(100 - place, max(0.8, (end - begin) * scale))
        return Bar(begin=round(place, 2), length=round(length, 2))


def _job_row(
    view: BuildView, job_view: JobView, number: int, chosen: tuple[Job, Step] | None, axis: Axis, why: str
) -> JobRow:
    job = job_view.job
    shown = next((each for each in job_view.attempts if each.attempt.attempt == number), None)
    attempt = shown.attempt if shown else Attempt(job_id=job.id or 0, attempt=number)
    is_chosen = chosen is not None and chosen[0].id == job.id
    chosen_number = chosen[1].number if chosen is not None and is_chosen else None
    is_quiet = job.status in (Status.SUCCESS.value, Status.SKIPPED.value)
    return JobRow(
        job=job,
        attempt=attempt,
        attempts=tuple(each.attempt.attempt for each in job_view.attempts),
        steps=tuple(
            _step_row(
                job, step, step_link(view, job, step), attempt, axis, is_selected=step.number == chosen_number
            )
            for step in (shown.steps if shown else ())
        ),
        seconds=job.finished_at - job.started_at if job.finished_at and job.started_at else None,
        since=job.started_at if job.status == Status.RUNNING.value else None,
        why=why,
        kept=job_view.kept_number,
        is_open=len(view.jobs) <= 4 or is_chosen or not is_quiet,
    )


def _step_row(job: Job, step: Step, link: str, attempt: Attempt, axis: Axis, *, is_selected: bool) -> StepRow:
    note = answer.note(step)
    if job.status == Status.BLOCKED.value and not Status(step.status).is_terminal:
        note = "waits for a person"
    row = StepRow(step=step, link=link, note=note, is_selected=is_selected)
    if step.began_after is None or attempt.started_at is None:
        return row
    if job.kept_from is not None:  # another build's time has no place on this one's axis
        return replace(row, note=row.note or "kept")
    began_at = attempt.started_at + step.began_after
    runs = step.status == Status.RUNNING.value
    ended_at = axis.now if runs or step.ended_after is None else attempt.started_at + step.ended_after
    return replace(
        row,
        since=began_at if runs else None,
        seconds=max(0.0, ended_at - began_at),
        bar=axis.bar(began_at, ended_at),
    )


# --- the answer -------------------------------------------------------------------------------------


def _waits(waits: dict[int, Wait], view: BuildView) -> list[tuple[Wait, list[Job]]]:
    """Each reason for waiting, with the jobs that it holds; a job that is unknown has its own question."""
    found: dict[Wait, list[Job]] = {}
    for job in view.jobs:
        wait = waits[job.job.id or 0]
        if wait.why and job.job.status != Status.UNKNOWN.value:
            found.setdefault(wait, []).append(job.job)
    return list(found.items())


@dataclass(frozen=True, kw_only=True)
class Source:
    """A problem of the pipeline file, with the line that it is about."""

    text: str
    is_warning: bool
    line: int
    source: str
    caret: str


def _sources(view: BuildView) -> list[Source]:
    files = configs.files(view.build)
    found = []
    for problem in view.build.problems:
        lines = files.get(problem["file"], "").split("\n")
        number, column = int(problem["line"]), int(problem["column"])
        source = lines[number - 1].rstrip("\r")[:300] if 0 < number <= len(lines) else ""
        # The caret stands under its character also behind tabs.
        indent = "".join("\t" if char == "\t" else " " for char in source[: column - 1])
        found.append(
            Source(
                text=f"{problem['file']}:{number}:{column}: {problem['message']}",
                is_warning=bool(problem.get("is_warning")),
                line=number,
                source=source,
                caret=indent + "^" if source and 0 < column <= len(source) + 1 else "",
            )
        )
    return found


# --- logs -------------------------------------------------------------------------------------------


def _read_logs(call: Call, view: BuildView, chosen: tuple[Job, Step] | None, is_step: bool) -> dict[str, Any]:
    """Everything of the page that comes from stored logs. Blocks."""
    newest = ""
    if chosen is not None and chosen[1].status == Status.RUNNING.value:
        newest = newest_line(call.parts, *chosen)
    return {
        "failures": [] if is_step else _failures(call.parts, view),
        "newest": newest,
        "selected": _selected(call, view, *chosen) if chosen else None,
        "hit": _excerpt(call.parts, chosen[1]).hit if chosen and _has_failed(chosen[1]) else None,
    }


def _has_failed(step: Step) -> bool:
    return Status(step.status) in _FAILED


def _failures(parts: Parts, view: BuildView) -> list[Failure]:
    failed = [(job.job, step) for job in view.jobs for step in job.steps() if _has_failed(step)]
    failed.sort(key=lambda pair: pair[1].ended_after or 0.0)
    return [
        Failure(
            job=job,
            step=step,
            link=step_link(view, job, step),
            words=answer.ended(step),
            excerpt=_excerpt(parts, step) if step.outcome != Outcome.IMAGE.value else Excerpt(),
        )
        for job, step in failed[:MAX_EXCERPTS]
    ]


def _excerpt(parts: Parts, step: Step) -> Excerpt:
    """From the command that failed, where its marks say which, else from the log's end."""
    key = LogKey(step.job_id, step.attempt, step.number)
    text = LogText(parts.logs, key)
    window = text.tail(_EXCERPT_LINES, _EXCERPT_BYTES)
    found, _ = log_text.marks(parts.logs, key)
    failed = [command for command in log_text.commands(found) if command.code]
    if failed:
        first = text.line_at(failed[-1].begin)
        if window.first < first <= window.last:
            window = Window(first=first, lines=window.lines[first - window.first :])
    return answer.excerpt(window)


def _selected(call: Call, view: BuildView, job: Job, step: Step) -> Selected:
    key = LogKey(step.job_id, step.attempt, step.number)
    logs = call.parts.logs
    spec: dict[str, Any] = next((each for each in job.spec["steps"] if each["number"] == step.number), {})
    attempt = next(
        each.attempt
        for job_view in view.jobs
        if job_view.job.id == job.id
        for each in job_view.attempts
        if each.attempt.attempt == step.attempt
    )
    window, line_count = None, 0
    if _wants_lines(call):
        window, line_count = _static_window(LogText(logs, key), call.connection.query_params.get("from", ""))
    return Selected(
        job=job,
        attempt=attempt,
        step=step,
        base=step_base(view, job, step),
        commands=json.dumps([str(command)[:2000] for command in spec.get("commands", ())]),
        size=logs.size(key),
        is_closed=_is_complete(step, attempt, logs.is_closed(key)),
        words=answer.sentence(step),
        window=window,
        line_count=line_count,
        removed=_removed(call, step),
    )


def _wants_lines(call: Call) -> bool:
    """Whether the lines stand in the page itself: unless scripts have run here before, or when asked for."""
    query = call.connection.query_params
    has_scripts = SCRIPTS_COOKIE in call.connection.cookies and not ("lines" in query or "from" in query)
    return LIVE_HEADER not in call.connection.headers and not has_scripts


def _is_complete(step: Step, attempt: Attempt, is_closed: bool) -> bool:
    """Whether nothing can be added to the log any more."""
    has_begun = step.began_after is not None
    return attempt.is_over or is_closed or (Status(step.status).is_terminal and not has_begun)


def _static_window(text: LogText, first: str) -> tuple[Window, int]:
    """The lines for a reader without JavaScript, and how many there are: the last ones, or from `first`."""
    count = text.count()
    if first.isascii() and first.isdigit() and len(first) < 15:
        return text.window(int(first), STATIC_LINES), count
    return text.tail(STATIC_LINES), count
