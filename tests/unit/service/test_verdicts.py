from collections.abc import Sequence
from datetime import UTC, datetime
from typing import get_args

import pytest

from service.jobs import TRANSITIONS, Attempt, Job, JobState, Limits, Reason
from service.verdicts import ENDS, judge
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
