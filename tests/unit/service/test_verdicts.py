from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import get_args

import pytest

from service.jobs import TRANSITIONS, Attempt, Job, JobState, Limits, Reason
from service.verdicts import ENDS, REPEATS, judge
from tests.factories import tiny_spec
from workers.events import Outcome, OutcomeReason

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def job(*, max_attempts: int = 3, cancel_requested: bool = False) -> Job:
    spec = tiny_spec()
    return Job(
        id="job-1",
        name="",
        labels={},
        priority=0,
        limits=Limits(max_attempts=max_attempts),
        spec=spec,
        spec_digest=spec.digest(),
        state=JobState.RUNNING,
        reason=Reason.TRAINING,
        message="",
        version=1,
        created_at=NOW,
        updated_at=NOW,
        cancel_requested=cancel_requested,
    )


def attempts(*reasons: Reason | None) -> Sequence[Attempt]:
    return [
        Attempt("job-1", number, "executor", "session", NOW, reason=reason)
        for number, reason in enumerate(reasons, 1)
    ]


def outcome(reason: OutcomeReason) -> Outcome:
    return Outcome(reason=reason, message="So it was.", at=NOW)


@pytest.mark.parametrize("reason", get_args(OutcomeReason))
def test_every_outcome_leads_to_a_state_that_a_running_job_may_enter(
    reason: OutcomeReason,
) -> None:
    verdict = judge(job(), outcome(reason), attempts(None))
    assert verdict.to in TRANSITIONS[JobState.RUNNING]
    assert verdict.message.startswith("So it was.")
    assert verdict.to is ENDS[reason]


def test_lost_attempts_are_repeated_until_the_limit() -> None:
    lost = Reason.WORKER_LOST
    assert judge(job(), outcome("worker_lost"), attempts(lost, None)).to is JobState.QUEUED
    verdict = judge(job(), outcome("worker_lost"), attempts(lost, lost, None))
    assert (verdict.to, verdict.reason) == (JobState.FAILED, Reason.WORKER_LOST)
    assert "max_attempts" in verdict.message


def test_the_death_of_ray_has_a_bound_of_its_own() -> None:
    lost = [Reason.CLUSTER_LOST] * 13
    assert judge(job(), outcome("cluster_lost"), attempts(*lost, None)).to is JobState.QUEUED
    verdict = judge(job(), outcome("cluster_lost"), attempts(*lost, lost[0], None))
    assert (verdict.to, verdict.reason) == (JobState.FAILED, Reason.CLUSTER_LOST)
    assert judge(job(), outcome("worker_lost"), attempts(*lost, None)).to is JobState.QUEUED


def test_restarts_of_the_service_do_not_count_as_losses() -> None:
    restarts = [Reason.SERVICE_STOPPED, Reason.INTERRUPTED] * 5
    verdict = judge(job(), outcome("worker_lost"), attempts(*restarts, None))
    assert verdict.to is JobState.QUEUED


@pytest.mark.parametrize("reason", ["worker_lost", "interrupted", "service_stopped"])
def test_a_job_that_is_to_be_cancelled_is_not_started_again(reason: OutcomeReason) -> None:
    verdict = judge(job(cancel_requested=True), outcome(reason), attempts(None))
    assert verdict.to is JobState.CANCELLED


def test_a_job_that_was_done_before_the_cancel_has_succeeded() -> None:
    verdict = judge(job(cancel_requested=True), outcome("completed"), attempts(None))
    assert verdict.to is JobState.SUCCEEDED


@pytest.mark.parametrize("reason", ["worker_lost", "out_of_memory", "store_unreachable"])
def test_what_may_come_right_by_itself_is_repeated_after_a_growing_while(
    reason: OutcomeReason,
) -> None:
    waits = [
        judge(job(max_attempts=100), outcome(reason), attempts(*[Reason(reason)] * n, None))
        for n in range(60)
    ]
    assert {verdict.to for verdict in waits} == {JobState.QUEUED}
    seconds = [verdict.backoff_s for verdict in waits]
    first, most = REPEATS[reason].first_s, REPEATS[reason].most_s
    assert seconds[:3] == [first, 2 * first, 4 * first]
    assert seconds == sorted(seconds)
    assert seconds[-1] == most
    assert f"in {first:g} s" in waits[0].message


def test_losses_of_every_kind_count_together() -> None:
    mixed = [Reason.OUT_OF_MEMORY, Reason.STORE_UNREACHABLE]
    verdict = judge(job(), outcome("worker_lost"), attempts(*mixed, None))
    assert (verdict.to, verdict.reason) == (JobState.FAILED, Reason.WORKER_LOST)


@pytest.mark.parametrize("reason", ["diverged", "invalid", "data_unavailable", "time_limit"])
def test_what_would_fail_again_is_not_repeated(reason: OutcomeReason) -> None:
    assert judge(job(max_attempts=100), outcome(reason), attempts(None)).to is JobState.FAILED


def test_attempts_before_a_retry_do_not_count() -> None:
    lost = [Reason.WORKER_LOST] * 3
    retried = replace(job(), counts_from=4)
    verdict = judge(retried, outcome("worker_lost"), attempts(*lost, None))
    assert (verdict.to, verdict.backoff_s) == (JobState.QUEUED, REPEATS["worker_lost"].first_s)


@pytest.mark.parametrize(
    "reason", ["paused", "worker_lost", "interrupted", "service_stopped", "cluster_lost"]
)
def test_a_job_that_is_to_pause_pauses_however_its_attempt_ended(reason: OutcomeReason) -> None:
    wished = replace(job(), pause_requested=True)
    verdict = judge(wished, outcome(reason), attempts(None))
    assert (verdict.to, verdict.reason, verdict.backoff_s) == (JobState.PAUSED, Reason.PAUSED, 0)


def test_a_pause_that_was_taken_back_ends_in_the_queue() -> None:
    verdict = judge(job(), outcome("paused"), attempts(None))
    assert (verdict.to, verdict.reason) == (JobState.QUEUED, Reason.RESUMED)


def test_a_job_that_was_done_before_the_pause_has_succeeded() -> None:
    wished = replace(job(), pause_requested=True)
    assert judge(wished, outcome("completed"), attempts(None)).to is JobState.SUCCEEDED
