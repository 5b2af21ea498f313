"""Pause, resume and retry through the watcher, over an inline cluster."""

import time
from pathlib import Path

import pytest

from service.cluster import inline
from service.cluster.inline import InlineCluster
from service.explaining.ended import explain_ended
from service.jobs import Job, JobState, Limits, Reason
from service.jobstore import JobStore
from tests.factories import long_spec, request
from tests.harness import Service, make_service
from workers import ledger
from workers.artifacts import LocalStore, attempt_prefix, outcome_key
from workers.events import Outcome, OutcomeReason
from workers.run import StopFlag
from workers.spec import TrainSpec

EPOCHS = 300


class Unhurried(StopFlag):
    """Is asked before every step, and takes its time: no job ends before it is interrupted."""

    step_s = 0.002

    @property
    def reason(self) -> OutcomeReason | None:
        time.sleep(self.step_s)
        return super().reason


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inline, "StopFlag", Unhurried)


def spec(epochs: int = 100_000) -> TrainSpec:
    return long_spec(epochs).model_copy(update={"checkpoint_every_epochs": 20})


def training(service: Service, epochs: int = 100_000, **fields: object) -> Job:
    """A job that trains and has a checkpoint."""
    job = service.submit(request(spec(epochs), **fields))
    return service.run_until(
        job,
        lambda now: now.reason is Reason.TRAINING and bool(service.jobs.checkpoints(job.id)),
    )


def latest_digest(service: Service, job: Job) -> str:
    return service.jobs.checkpoints(job.id)[-1].digest


def reasons(service: Service, job: Job) -> list[Reason | None]:
    return [attempt.reason for attempt in service.jobs.attempts(job.id)]


def test_a_job_that_is_paused_and_resumed_cancelled_and_retried_ends_with_the_same_weights(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as hurried:
        hurried.setattr(Unhurried, "step_s", 0)
        undisturbed = service.run_to_end(service.submit(request(spec(EPOCHS))))
    job = training(service, EPOCHS)
    wished = service.training.pause(job.id)
    assert (wished.state, wished.pause_requested) == (JobState.RUNNING, True)
    paused = service.run_until(job, lambda now: now.state is JobState.PAUSED)
    assert paused.progress is not None
    assert 0 < paused.progress.step < paused.progress.total_steps
    assert service.jobs.checkpoints(job.id)[-1].step == paused.progress.step
    assert service.cluster.look(service.jobs.attempts(job.id)[-1].executor_id).state == "gone"
    # There is one core: another job has it now.
    assert service.run_to_end(service.submit(request())).state is JobState.SUCCEEDED
    assert service.jobs.get(job.id) == paused
    assert service.training.resume(job.id).state is JobState.QUEUED
    service.run_until(job, lambda now: now.reason is Reason.TRAINING)
    service.training.cancel(job.id)
    cancelled = service.run_until(job, lambda now: now.state is JobState.CANCELLED)
    assert cancelled.progress is not None
    monkeypatch.setattr(Unhurried, "step_s", 0)
    service.training.retry(job.id)
    ended = service.run_until(job, lambda now: now.state is JobState.SUCCEEDED)
    assert reasons(service, job) == [Reason.PAUSED, Reason.CANCELLED, Reason.COMPLETED]
    resumed = [attempt.resumed_from_step for attempt in service.jobs.attempts(job.id)]
    assert resumed == [None, paused.progress.step, cancelled.progress.step]
    assert latest_digest(service, ended) == latest_digest(service, undisturbed)


def test_a_resume_while_it_pauses_loses_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = training(service, EPOCHS)
    service.training.pause(job.id)
    service.watcher.round()  # the attempt is asked to stop
    service.training.resume(job.id)
    monkeypatch.setattr(Unhurried, "step_s", 0)
    ended = service.run_to_end(job)
    assert ended.state is JobState.SUCCEEDED
    told = [event.data["state"] for event in service.jobs.events(job.id) if event.kind == "state"]
    assert "paused" not in told
    assert reasons(service, job) == [Reason.PAUSED, Reason.COMPLETED]


def test_a_pause_that_is_taken_back_before_it_is_heard_does_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = training(service, EPOCHS)
    service.training.pause(job.id)
    service.training.resume(job.id)
    monkeypatch.setattr(Unhurried, "step_s", 0)
    assert service.run_to_end(job).state is JobState.SUCCEEDED
    assert reasons(service, job) == [Reason.COMPLETED]


def test_a_cancel_of_a_job_that_pauses_cancels_it(service: Service) -> None:
    job = training(service)
    service.training.pause(job.id)
    service.watcher.round()
    service.training.cancel(job.id)
    assert service.run_to_end(job).state is JobState.CANCELLED


def test_a_pause_that_nobody_hears_is_carried_out_the_hard_way(
    jobs: JobStore, artifacts: LocalStore, tmp_path: Path
) -> None:
    service = make_service(jobs, artifacts, tmp_path, Deaf(), cancel_grace_s=0.2)
    job = training(service)
    service.training.pause(job.id)
    paused = service.run_until(job, lambda now: now.state is JobState.PAUSED)
    assert service.cluster.look(jobs.attempts(job.id)[-1].executor_id).state == "gone"
    assert jobs.attempts(job.id)[-1].reason is not Reason.WORKER_LOST
    service.training.cancel(paused.id)
    service.cluster.close()


class Deaf(InlineCluster):
    """Attempts that do not hear a wish; they can only be killed."""

    def request_stop(self, executor_id: str, reason: str) -> None:
        if reason == "interrupted":
            super().request_stop(executor_id, "interrupted")


def test_a_wish_to_pause_outlives_the_service(
    jobs: JobStore, artifacts: LocalStore, tmp_path: Path
) -> None:
    before = make_service(jobs, artifacts, tmp_path, InlineCluster())
    job = training(before)
    before.training.pause(job.id)
    after = make_service(jobs, artifacts, tmp_path, InlineCluster())  # another session
    paused = after.run_until(job, lambda now: now.state is JobState.PAUSED)
    assert reasons(after, paused) == [Reason.INTERRUPTED]
    after.watcher.round()
    assert jobs.get(job.id) == paused
    before.cluster.close()
    after.cluster.close()


def test_a_service_that_stops_while_a_job_pauses_leaves_it_paused(service: Service) -> None:
    job = training(service)
    service.training.pause(job.id)
    service.watcher.start()
    service.watcher.stop(grace_s=10)
    left = service.jobs.get(job.id)
    assert (left.state, left.pause_requested) == (JobState.PAUSED, False)
    assert service.jobs.checkpoints(job.id)[-1].has_train_state


def test_a_job_out_of_time_has_its_time_again_when_it_is_retried(service: Service) -> None:
    job = service.submit(request(spec(), limits={"max_wall_s": 0.5}))
    assert service.run_to_end(job).reason is Reason.TIME_LIMIT
    service.training.retry(job.id)
    again = service.run_until(job, lambda now: now.state is JobState.FAILED)
    assert again.reason is Reason.TIME_LIMIT
    second = service.jobs.attempts(job.id)[1]
    assert second.first_step_at is not None
    assert second.resumed_from_step is not None
    service.training.retry(job.id, Limits(max_wall_s=1000.0))
    service.run_until(job, lambda now: now.reason is Reason.TRAINING)
    service.training.cancel(job.id)
    service.run_to_end(job)


def test_losses_before_a_retry_do_not_count(service: Service) -> None:
    job = training(service, limits={"max_attempts": 2})
    for number, state in ((1, JobState.QUEUED), (2, JobState.FAILED), (3, JobState.QUEUED)):
        running = begun(service, job, number)
        lose(service, running)
        lost = service.run_until(job, lambda now: now.state is not JobState.RUNNING)
        assert lost.state is state
        if state is JobState.FAILED:
            assert "max_attempts" in lost.message
            service.training.retry(job.id)
    service.training.cancel(job.id)
    service.run_to_end(job)


def begun(service: Service, job: Job, attempt: int) -> Job:
    return service.run_until(
        job, lambda now: now.attempt == attempt and now.reason is Reason.TRAINING
    )


def lose(service: Service, job: Job) -> None:
    """The attempt's end is written as the watcher would write that of a lost one."""
    lost = Outcome(reason="worker_lost", message="Lost.", at=job.updated_at)
    key = outcome_key(attempt_prefix(job.id, job.attempt))
    service.artifacts.put(key, lost.model_dump_json().encode())


def test_a_lost_job_waits_its_back_off_and_lets_others_pass(service: Service) -> None:
    job = training(service, priority=5)
    lose(service, job)
    waiting = service.run_until(job, lambda now: now.state is JobState.QUEUED)
    assert waiting.not_before is not None
    assert "in 1 s" in waiting.message
    behind = service.submit(request())
    service.watcher.round()
    assert service.jobs.get(behind.id).state is JobState.RUNNING
    assert service.jobs.get(job.id).reason is Reason.RECOVERING
    service.run_until(job, lambda now: now.attempt == 2)
    assert service.jobs.attempts(job.id)[-1].created_at >= waiting.not_before
    service.training.cancel(job.id)
    service.run_to_end(job)


def test_a_job_whose_store_went_away_is_tried_again(
    service: Service, artifacts: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "STORE_PATIENCE_S", 0.2)
    monkeypatch.setattr("workers.logs.attempt.CLOSE_PATIENCE_S", 0.2)
    job = training(service, 30_000)
    executor = service.jobs.attempts(job.id)[-1].executor_id
    away = artifacts.root.rename(artifacts.root.with_name("away"))
    artifacts.root.write_text("no folder")
    give_up_at = time.monotonic() + 30
    while service.cluster.look(executor).state != "gone":
        assert time.monotonic() < give_up_at
        time.sleep(0.02)
    assert service.cluster.look(executor).cause == "store_unreachable"
    artifacts.root.unlink()
    away.rename(artifacts.root)
    waiting = service.run_until(job, lambda now: now.state is JobState.QUEUED)
    assert reasons(service, job) == [Reason.STORE_UNREACHABLE]
    assert waiting.not_before is not None
    assert "in 5 s" in waiting.message
    # Who knows that the store is back need not wait.
    service.training.pause(job.id)
    service.training.resume(job.id)
    service.run_until(job, lambda now: now.attempt == 2 and now.reason is Reason.TRAINING)
    assert service.jobs.attempts(job.id)[-1].resumed_from_step
    service.training.cancel(job.id)
    service.run_to_end(job)


def test_a_job_on_a_node_without_the_artifact_folder_fails_at_once_and_says_why(
    service: Service, artifacts: LocalStore, tmp_path: Path
) -> None:
    artifacts.uri = artifacts.uri.replace("/artifacts?", "/elsewhere?")  # as another node sees it
    job = service.run_to_end(service.submit(request(spec())))
    assert (job.state, job.reason) == (JobState.FAILED, Reason.STORE_NOT_SHARED)
    assert reasons(service, job) == [Reason.STORE_NOT_SHARED]
    assert "does not share the artifact folder" in job.message
    assert "use s3://bucket/prefix" in job.message
    assert str(tmp_path) not in job.message
    assert not (tmp_path / "elsewhere").exists()
    said = explain_ended(job, service.jobs.attempts(job.id), has_checkpoint=False)
    assert said.rule.name == "not_repeated"
    assert "SPREADTRAIN_ARTIFACTS_URI" in said.changes[0].sentence
