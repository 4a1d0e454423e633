from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ci.spec import JobSpec, StepKind, StepSpec
from ci.status import Status
from runners.plan import Plan


def step(slug: str, *needs: str, **more: object) -> StepSpec:
    facts = {"number": 1, "name": slug, "slug": slug, "kind": StepKind.COMMANDS, "depends_on": needs, **more}
    return StepSpec.model_validate(facts)


def plan(*steps: StepSpec) -> Plan:
    return Plan(JobSpec(name="j", slug="j", steps=steps))


def started(plan: Plan) -> list[str]:
    return [decision.step.slug for decision in plan.decide() if decision.is_start]


def skipped(plan: Plan) -> dict[str, str]:
    return {each.step.slug: each.skip_reason for each in plan.decide() if not each.is_start}


def test_a_step_starts_the_moment_its_own_dependencies_have_ended() -> None:
    job = plan(step("a"), step("slow"), step("b", "a"), step("both", "b", "slow"))
    assert started(job) == ["a", "slow"]
    job.ended("a", Status.SUCCESS)
    assert started(job) == ["b"]
    job.ended("b", Status.SUCCESS)
    assert started(job) == []
    job.ended("slow", Status.SUCCESS)
    assert started(job) == ["both"]


def test_all_that_depends_on_a_failure_is_skipped_with_its_reason() -> None:
    job = plan(step("test"), step("build", "test"), step("deploy", "build"))
    started(job)
    job.ended("test", Status.FAILURE)
    assert skipped(job) == {"build": "needs test, which failed", "deploy": "needs test, which failed"}
    assert (job.is_over, job.fold()) == (True, Status.FAILURE)


def test_an_error_and_a_cancel_of_an_ancestor_count_as_its_failure() -> None:
    for status, words in ((Status.ERROR, "ended in an error"), (Status.CANCELLED, "was cancelled")):
        job = plan(step("a"), step("b", "a"), step("c", "a", run_on=("failure",)))
        started(job)
        job.ended("a", status)
        decisions = {each.step.slug: each.skip_reason for each in job.decide()}
        assert decisions == {"b": f"needs a, which {words}", "c": ""}


def test_a_step_for_failures_runs_after_one_however_far_away() -> None:
    job = plan(step("a"), step("b", "a"), step("notify", "b", run_on=("failure",)))
    started(job)
    job.ended("a", Status.FAILURE)
    assert {each.step.slug: each.is_start for each in job.decide()} == {"b": False, "notify": True}


def test_a_step_for_failures_is_skipped_where_nothing_failed_and_what_follows_it_runs() -> None:
    job = plan(step("a"), step("notify", "a", run_on=("failure",)), step("b", "notify"))
    started(job)
    job.ended("a", Status.SUCCESS)
    decisions = {each.step.slug: each.skip_reason for each in job.decide()}
    assert decisions == {"notify": "runs only after a failure, and nothing failed", "b": ""}


def test_an_ignored_failure_stops_nothing_and_an_ignored_error_does() -> None:
    for status, is_start in ((Status.FAILURE, True), (Status.ERROR, False)):
        job = plan(step("lint", ignore_failure=True), step("b", "lint"))
        started(job)
        job.ended("lint", status)
        assert [each.is_start for each in job.decide()] == [is_start]


def test_what_depends_on_a_detached_step_goes_on_once_it_has_started() -> None:
    job = plan(step("serve", detach=True), step("test", "serve"))
    assert started(job) == ["serve"]
    assert started(job) == []
    job.started("serve")
    assert started(job) == ["test"]
    assert job.stop_rest() == []
    job.ended("test", Status.SUCCESS)
    assert [each.slug for each in job.stop_rest()] == ["serve"]
    assert job.stop_rest() == []
    assert job.is_stopped_with_job("serve")


def test_steps_wait_for_services_to_have_started_and_the_clone_does_not() -> None:
    job = plan(
        step("clone", kind=StepKind.CLONE),
        step("test", "clone"),
        step("database", kind=StepKind.SERVICE),
    )
    assert started(job) == ["clone", "database"]
    job.ended("clone", Status.SUCCESS)
    assert started(job) == []
    job.started("database")
    assert started(job) == ["test"]


def test_a_service_that_never_starts_is_the_reason_why_steps_are_skipped() -> None:
    job = plan(step("test"), step("database", kind=StepKind.SERVICE))
    started(job)
    job.ended("database", Status.ERROR)
    assert skipped(job) == {"test": "needs database, which ended in an error"}


def test_the_own_failure_of_a_service_that_had_started_fails_no_job() -> None:
    job = plan(step("test"), step("database", kind=StepKind.SERVICE))
    started(job)
    job.started("database")
    job.ended("database", Status.FAILURE)
    assert started(job) == ["test"]
    job.ended("test", Status.SUCCESS)
    assert (job.is_over, job.fold()) == (True, Status.SUCCESS)


def test_near_are_the_steps_whose_dependencies_all_run_or_have_ended() -> None:
    job = plan(step("a"), step("b", "a"), step("c", "b"))
    started(job)
    assert [each.slug for each in job.near()] == ["b"]


def test_nothing_is_decided_after_the_end_of_all_undecided() -> None:
    job = plan(step("a"), step("b", "a"))
    started(job)
    assert [each.slug for each in job.end_undecided(Status.CANCELLED)] == ["b"]
    job.ended("a", Status.SUCCESS)
    assert (job.decide(), job.is_over) == ([], True)


@st.composite
def graphs(draw: st.DrawFn) -> list[StepSpec]:
    steps = []
    for number in range(draw(st.integers(1, 8))):
        needs = draw(st.sets(st.integers(0, number - 1), max_size=3)) if number else set()
        steps.append(
            step(
                f"s{number}",
                *(f"s{need}" for need in sorted(needs)),
                run_on=draw(st.sampled_from([("success",), ("failure",), ("success", "failure")])),
                ignore_failure=draw(st.booleans()),
                detach=draw(st.booleans()),
            )
        )
    return draw(st.permutations(steps))


@given(graphs(), st.data())
def test_every_job_ends_and_decides_each_step_once(steps: list[StepSpec], data: st.DataObject) -> None:
    job = plan(*steps)
    seen: list[str] = []
    running: list[str] = []
    while not job.is_over:
        decisions = job.decide()
        seen += [each.step.slug for each in decisions]
        running += [each.step.slug for each in decisions if each.is_start]
        rest = [each.slug for each in job.stop_rest()]
        assert running or not decisions or job.is_over
        if not running:
            continue
        slug = rest[0] if rest else data.draw(st.sampled_from(running))
        is_detached = next(each for each in steps if each.slug == slug).detach
        if is_detached and not rest and data.draw(st.booleans()):
            job.started(slug)
            continue
        running.remove(slug)
        job.ended(slug, data.draw(st.sampled_from([Status.SUCCESS, Status.FAILURE, Status.ERROR])))
    assert sorted(seen) == sorted(each.slug for each in steps)


def test_a_job_has_failed_once_a_step_failed_that_is_not_forgiven() -> None:
    job = plan(step("lint", ignore_failure=True), step("test"), step("notify", "test", run_on=("failure",)))
    started(job)
    job.ended("lint", Status.FAILURE)
    assert not job.has_failed
    job.ended("test", Status.FAILURE)
    assert job.has_failed
