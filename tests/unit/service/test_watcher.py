import errno
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service import watcher
from service.cluster import inline
from service.cluster.base import Capacity, ClusterDown, ClusterUnavailable
from service.cluster.inline import InlineCluster
from service.errors import NotLeading
from service.jobs import JobState, Reason
from service.jobstore import JobStore
from service.watch import heard_for_s
from tests.factories import long_spec, request, tiny_spec
from tests.harness import Service, make_service
from tests.looking import looks
from workers.artifacts import LocalStore, attempt_prefix, chunk_key, outcome_key
from workers.events import Outcome, OutcomeReason
from workers.run import StopFlag


def states(service: Service, job_id: str) -> list[str]:
    return [
        f"{event.data['state']}:{event.data['reason']}"
        for event in service.jobs.events(job_id)
        if event.kind == "state"
    ]


def test_a_job_runs_from_queued_to_succeeded(service: Service) -> None:
    job = service.run_to_end(service.submit(request()))
    assert (job.state, job.reason) == (JobState.SUCCEEDED, Reason.COMPLETED)
    assert job.progress is not None
    assert job.progress.step == job.progress.total_steps == 12
    seen = states(service, job.id)
    assert seen[:2] == ["queued:submitted", "running:starting"]
    assert seen[-1] == "succeeded:completed"


def test_jobs_start_by_priority_and_then_by_age(service: Service) -> None:
    names = [("old", 0), ("young", 0), ("urgent", 5)]
    made = {name: service.submit(request(name=name, priority=p)) for name, p in names}
    for job in made.values():
        service.run_to_end(job)
    started = {name: service.jobs.attempts(job.id)[0].created_at for name, job in made.items()}
    assert sorted(started, key=lambda name: started[name]) == ["urgent", "old", "young"]


def test_a_job_that_waits_says_for_what(service: Service) -> None:
    running = service.submit(request(long_spec()))
    waiting = service.submit(request())
    service.watcher.round()
    job = service.jobs.get(waiting.id)
    assert job.reason is Reason.WAITING_FOR_RESOURCES
    assert "1 core" in job.message
    assert service.jobs.ahead_of(job) == 0
    service.training.cancel(running.id)
    assert service.run_to_end(waiting).state is JobState.SUCCEEDED


def test_a_job_that_asks_for_more_than_there_is_says_so_and_so_do_those_behind_it(
    service: Service, jobs: JobStore
) -> None:
    wide = tiny_spec().resources.model_copy(update={"cpus_per_worker": 4})
    job = service.submit(request())
    jobs.request_pause(job.id)
    spec = job.spec.model_copy(update={"resources": wide})  # as the cluster had when it came
    large, _ = jobs.add(replace(job, id="job-large", spec=spec))
    service.submit(request())
    service.watcher.round()
    told = [waiting.message for waiting in jobs.startable()]
    assert told[0].endswith(": it asks for more than the cluster has now.")
    assert told[1].endswith(f"{large.id} is before it and asks for more than there is.")
    service.training.cancel(large.id)


def test_a_large_job_is_not_overtaken_for_ever_by_small_ones(
    jobs: JobStore, artifacts: LocalStore, tmp_path: Path
) -> None:
    service = make_service(jobs, artifacts, tmp_path, InlineCluster(cpus=2))
    small = service.submit(request(long_spec()))
    service.watcher.round()
    spec = tiny_spec()
    large = service.submit(
        request(
            spec.model_copy(
                update={"resources": spec.resources.model_copy(update={"cpus_per_worker": 2})}
            )
        )
    )
    later = service.submit(request())
    service.watcher.round()
    assert jobs.get(later.id).state is JobState.QUEUED
    service.training.cancel(small.id)
    service.run_to_end(large)
    service.run_to_end(later)
    first = [jobs.attempts(job.id)[0].created_at for job in (large, later)]
    assert first == sorted(first)
    service.cluster.close()


def test_a_queued_job_is_cancelled_without_ever_running(service: Service) -> None:
    first = service.submit(request(long_spec()))
    second = service.submit(request())
    service.watcher.round()
    service.training.cancel(second.id)
    service.watcher.round()
    assert service.jobs.get(second.id).state is JobState.CANCELLED
    assert service.jobs.attempts(second.id) == []
    service.training.cancel(first.id)
    service.run_to_end(first)


def test_a_running_job_is_cancelled_with_a_checkpoint(service: Service) -> None:
    job = service.submit(request(long_spec()))
    service.run_until(job, lambda now: now.reason is Reason.TRAINING)
    asked = service.training.cancel(job.id)
    assert asked.cancel_requested
    assert asked.state is JobState.RUNNING
    ended = service.run_to_end(job)
    assert (ended.state, ended.reason) == (JobState.CANCELLED, Reason.CANCELLED)
    attempt = service.jobs.attempts(job.id)[-1]
    assert attempt.reason is Reason.CANCELLED
    assert attempt.ended_at is not None
    latest = service.jobs.checkpoints(job.id)[-1]
    assert ended.progress is not None
    assert latest.step == ended.progress.step
    assert service.training.cancel(job.id).state is JobState.CANCELLED


def test_an_executor_that_vanishes_costs_an_attempt_and_no_more(service: Service) -> None:
    job = service.submit(request(long_spec(epochs=400), limits={"max_attempts": 2}))
    service.run_until(job, lambda now: len(service.jobs.checkpoints(job.id)) >= 2)
    attempt = service.jobs.attempts(job.id)[-1]
    prefix = attempt_prefix(job.id, 1)
    lost = Outcome(reason="worker_lost", message="lost", at=attempt.created_at)
    service.artifacts.put(outcome_key(prefix), lost.model_dump_json().encode())
    again = service.run_until(job, lambda now: now.attempt == 2)
    assert again.state is JobState.RUNNING
    ended = service.run_to_end(job)
    assert ended.state is JobState.SUCCEEDED
    first, second = service.jobs.attempts(job.id)
    assert first.reason is Reason.WORKER_LOST
    assert second.resumed_from_step is not None
    assert second.resumed_from_step > 0


def test_a_job_that_is_lost_too_often_fails_and_says_so(service: Service) -> None:
    job = service.submit(request(long_spec(), limits={"max_attempts": 1}))
    service.run_until(job, lambda now: now.reason is Reason.TRAINING)
    lost = Outcome(reason="worker_lost", message="Lost.", at=datetime(2026, 1, 1, tzinfo=UTC))
    service.artifacts.put(outcome_key(attempt_prefix(job.id, 1)), lost.model_dump_json().encode())
    ended = service.run_to_end(job)
    assert (ended.state, ended.reason) == (JobState.FAILED, Reason.WORKER_LOST)
    assert "max_attempts" in ended.message or "limits" in ended.message


class Held(StopFlag):
    """Is asked before every step, and lets nobody go beyond the thousandth until it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = threading.Event()
        self._asked = 0

    @property
    def reason(self) -> OutcomeReason | None:
        self._asked += 1
        if self._asked > 1000:
            self.let_go.wait()
        return super().reason


def test_a_restarted_service_goes_on_under_the_same_id(
    jobs: JobStore, artifacts: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = make_service(jobs, artifacts, tmp_path, InlineCluster())
    job = before.submit(request(long_spec(epochs=600)))
    held = Held()
    with monkeypatch.context() as first_attempt:
        first_attempt.setattr(inline, "StopFlag", lambda: held)
        before.run_until(job, lambda now: len(jobs.checkpoints(job.id)) >= 2)
    after = make_service(jobs, artifacts, tmp_path, InlineCluster())  # another session
    ended = after.run_to_end(job)
    assert ended.state is JobState.SUCCEEDED
    first, *_, last = jobs.attempts(job.id)
    assert first.reason is Reason.INTERRUPTED
    assert last.resumed_from_step
    metrics = jobs.metrics(job.id, ["loss_nats"])["loss_nats"]
    steps = [point.step for point in metrics]
    assert steps == sorted(set(steps))
    held.let_go.set()
    before.cluster.close()
    after.cluster.close()


def test_what_a_given_up_attempt_still_writes_is_not_believed(
    jobs: JobStore, artifacts: LocalStore, tmp_path: Path
) -> None:
    """The old attempt of a restarted service lives on for a while: it finds its end written."""
    before = make_service(jobs, artifacts, tmp_path, InlineCluster())
    job = before.submit(request(long_spec()))
    before.run_until(job, lambda now: now.reason is Reason.TRAINING)
    old = jobs.attempts(job.id)[-1]
    after = make_service(jobs, artifacts, tmp_path, InlineCluster())
    after.run_until(job, lambda now: now.attempt == 2)
    give_up_at = time.monotonic() + 20
    while before.cluster.look(old.executor_id).state != "gone":
        assert time.monotonic() < give_up_at, "the old attempt never noticed"
        time.sleep(0.05)
    outcome = Outcome.model_validate_json(artifacts.get(outcome_key(attempt_prefix(job.id, 1))))
    assert outcome.reason == "interrupted"
    after.training.cancel(job.id)
    after.run_to_end(job)
    assert {event.attempt for event in jobs.events(job.id, limit=10_000)} <= {0, 1, 2}
    after.cluster.close()


def test_a_time_limit_counts_all_attempts(service: Service) -> None:
    job = service.submit(request(long_spec(), limits={"max_wall_s": 0.5}))
    ended = service.run_to_end(job)
    assert (ended.state, ended.reason) == (JobState.FAILED, Reason.TIME_LIMIT)
    assert "max_wall_s" in ended.message
    assert service.jobs.checkpoints(job.id)


def test_events_that_cannot_be_read_fail_the_job_and_not_the_service(service: Service) -> None:
    job = service.submit(request(long_spec()))
    service.run_until(job, lambda now: now.reason is Reason.TRAINING)
    chunk = service.jobs.attempts(job.id)[-1].next_chunk
    for ahead in range(chunk, chunk + 40):
        key = chunk_key(attempt_prefix(job.id, 1), ahead)
        if not service.artifacts.exists(key):
            service.artifacts.put(key, b"not a record\n")
            break
    ended = service.run_to_end(job)
    assert (ended.state, ended.reason) == (JobState.FAILED, Reason.INTERNAL_ERROR)
    other = service.run_to_end(service.submit(request()))
    assert other.state is JobState.SUCCEEDED


def test_a_stopping_service_leaves_its_jobs_queued_with_a_checkpoint(service: Service) -> None:
    service.watcher.start()
    job = service.submit(request(long_spec()))
    give_up_at = time.monotonic() + 20
    while service.jobs.get(job.id).reason is not Reason.TRAINING:
        assert time.monotonic() < give_up_at
        time.sleep(0.01)
    service.watcher.stop(grace_s=10)
    left = service.jobs.get(job.id)
    assert (left.state, left.reason) == (JobState.QUEUED, Reason.RECOVERING)
    assert service.jobs.checkpoints(job.id)[-1].has_train_state


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_spec_gives_the_same_weights_in_every_job(service: Service, seed: int) -> None:
    spec = tiny_spec().model_copy(update={"seed": seed})
    digests = []
    for _ in range(2):
        job = service.run_to_end(service.submit(request(spec)))
        latest = service.jobs.checkpoints(job.id)[-1]
        digests.append(latest.digest)
    assert digests[0] == digests[1]


def test_a_job_far_behind_in_the_queue_is_cancelled_at_once(service: Service) -> None:
    first = service.submit(request(long_spec()))
    waiting = [service.submit(request()) for _ in range(120)]
    service.watcher.round()
    service.training.cancel(waiting[-1].id)
    service.watcher.round()
    assert service.jobs.get(waiting[-1].id).state is JobState.CANCELLED
    service.training.cancel(first.id)
    for job in waiting:
        service.training.cancel(job.id)
    service.run_to_end(first)


def test_time_in_which_nobody_trained_does_not_count_against_the_limit(
    jobs: JobStore, artifacts: LocalStore, tmp_path: Path
) -> None:
    before = make_service(jobs, artifacts, tmp_path, InlineCluster())
    job = before.submit(request(long_spec(epochs=3000), limits={"max_wall_s": 20}))
    before.run_until(job, lambda now: len(jobs.checkpoints(job.id)) >= 2)
    executor = jobs.attempts(job.id)[-1].executor_id
    # The attempt dies with its service: it stops, but nobody settles it.
    prefix = attempt_prefix(job.id, 1)
    gone = Outcome(reason="interrupted", message="gone", at=datetime.now(UTC))
    artifacts.put(outcome_key(prefix), gone.model_dump_json().encode())
    before.cluster.release(executor, reusable=False)
    time.sleep(2)
    after = make_service(jobs, artifacts, tmp_path, InlineCluster())
    after.run_until(job, lambda now: now.attempt == 2)
    ended = jobs.attempts(job.id)[0]
    assert ended.started_at is not None
    assert ended.ended_at is not None
    noticed_after_s = (ended.ended_at - ended.started_at).total_seconds()
    assert 0 < heard_for_s(ended) < noticed_after_s - 1
    after.training.cancel(job.id)
    after.run_to_end(job)
    after.cluster.close()


def test_an_unreadable_outcome_fails_its_job_and_no_other(service: Service) -> None:
    broken = service.submit(request(long_spec()))
    service.run_until(broken, lambda now: now.reason is Reason.TRAINING)
    service.artifacts.put(outcome_key(attempt_prefix(broken.id, 1)), b"not an outcome")
    other = service.submit(request())
    assert service.run_to_end(other).state is JobState.SUCCEEDED
    assert service.jobs.get(broken.id).reason is Reason.INTERNAL_ERROR


class Tended(InlineCluster):
    """Remembers when it was told which executors are known, and when it was joined again."""

    own = False

    def __init__(self) -> None:
        super().__init__()
        self.tended = self.rejoined = 0

    def tend(self, known: frozenset[str], spares: int = 1) -> None:
        self.tended += 1

    def rejoin(self) -> None:
        self.rejoined += 1


def test_the_end_of_an_attempt_brings_a_round_before_the_next_is_due(
    jobs: JobStore, artifacts: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "QUIET_INTERVAL_S", 600.0)
    cluster = Tended()
    watching = make_service(jobs, artifacts, tmp_path, cluster).watcher
    watching.start()
    try:
        for wanted in (1, 2, 3):
            for _ in looks(60):
                if cluster.tended >= wanted:
                    break
            assert cluster.tended == wanted
            watching.hear()  # brings none
            watching.hear_end()
    finally:
        watching.stop(5)


def test_who_leads_no_more_when_a_round_ends_does_not_end_the_next_leaders_executors(
    jobs: JobStore, artifacts: LocalStore, tmp_path: Path
) -> None:
    cluster = Tended()
    leads = [True]
    service = make_service(jobs, artifacts, tmp_path, cluster, leads=lambda: leads[0])
    service.watcher.round()
    assert cluster.tended == 1
    leads[0] = False
    with pytest.raises(NotLeading):
        service.watcher.round()
    assert cluster.tended == 1


def test_who_follows_starts_nothing_and_joins_anew_before_it_leads_again(
    jobs: JobStore, artifacts: LocalStore, tmp_path: Path
) -> None:
    cluster = Tended()
    leads = [False]
    service = make_service(jobs, artifacts, tmp_path, cluster, leads=lambda: leads[0])
    watching = service.watcher
    job = service.submit(request())
    watching._lead_or_follow()
    assert jobs.get(job.id).state is JobState.QUEUED
    leads[0] = True
    watching._lead_or_follow()
    assert jobs.get(job.id).state is JobState.RUNNING
    assert cluster.rejoined == 0
    leads[0] = False
    watching._lead_or_follow()
    leads[0] = True
    with pytest.raises(ClusterDown, match="leads again"):
        watching._lead_or_follow()
    watching._lead_or_follow()
    cluster.close()


class Unstartable(Tended):
    """Is down, and cannot be joined for reasons of the machine's, at first."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__()
        self._errors = [*errors]
        self.is_there = threading.Event()

    def capacity(self) -> Capacity:
        if not self.is_there.is_set():
            raise ClusterDown("it died")
        return super().capacity()

    def rejoin(self) -> None:
        super().rejoin()
        if self._errors:
            raise self._errors.pop(0)
        self.is_there.set()


def test_a_watcher_whose_machine_is_full_when_ray_died_watches_on(
    jobs: JobStore, artifacts: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "REJOIN_INTERVAL_S", 0.01)
    cluster = Unstartable(
        BlockingIOError(errno.EAGAIN, "fork"), TimeoutError("survived"), ClusterUnavailable("no")
    )
    watching = make_service(jobs, artifacts, tmp_path, cluster).watcher
    watching.start()
    try:
        assert cluster.is_there.wait(30)
        for _ in looks(30):
            if watching.trouble is None:
                break
        assert (cluster.rejoined, watching.trouble) == (4, None)
    finally:
        watching.stop(grace_s=0)
