from datetime import timedelta

import pytest

from service.errors import NotReady
from service.jobs import JobState, Reason
from service.jobstore import JobStore
from tests.contract.jobstore.making import (
    NOON,
    artifact,
    checkpoint,
    metrics,
    queued,
    resumed,
    running,
    started,
)


def steps_of(store: JobStore, job_id: str, name: str = "loss_nats") -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in store.metrics(job_id)[name]]


def test_the_queue_is_in_the_order_of_priority_then_time_then_id(store: JobStore) -> None:
    ids = {
        "late": queued(store, at_s=9).id,
        "b": queued(store, at_s=5, id="job-b").id,
        "a": queued(store, at_s=5, id="job-a").id,
        "low": queued(store, at_s=1, priority=-5).id,
        "high": queued(store, at_s=20, priority=3).id,
    }
    running(store, at_s=0, priority=100)
    expected = [ids[name] for name in ("high", "a", "b", "late", "low")]
    assert [job.id for job in store.startable()] == expected
    assert [job.id for job in store.startable(limit=2)] == expected[:2]
    assert [store.ahead_of(job) for job in store.startable()] == [0, 1, 2, 3, 4]


def test_every_state_is_counted(store: JobStore) -> None:
    queued(store)
    queued(store)
    store.settle(running(store), JobState.FAILED, Reason.DIVERGED, "diverged")
    assert store.count_by_state() == {
        JobState.QUEUED: 2,
        JobState.RUNNING: 0,
        JobState.PAUSED: 0,
        JobState.SUCCEEDED: 0,
        JobState.FAILED: 1,
        JobState.CANCELLED: 0,
    }


def test_the_oldest_queued_job_is_known(store: JobStore) -> None:
    assert store.oldest_queued_at() is None
    running(store, at_s=1)
    queued(store, at_s=8)
    queued(store, at_s=5, priority=-1)
    assert store.oldest_queued_at() == NOON + timedelta(seconds=5)


def test_events_are_read_in_pieces(store: JobStore) -> None:
    made = running(store)
    store.ingest(made.id, 1, 0, [metrics(step, loss_nats=0.0) for step in range(10)])
    assert [event.seq for event in store.events(made.id, after=4, limit=3)] == [5, 6, 7]
    assert store.events(made.id, after=12) == []
    assert store.events(made.id, after=2**80) == []
    assert store.events("job-none") == []


def test_metrics_are_ordered_by_step_and_chosen_by_name(store: JobStore) -> None:
    made, other = running(store), running(store)
    store.ingest(made.id, 1, 0, [metrics(20, loss_nats=2.0), metrics(10, loss_nats=1.0, b=5.0)])
    store.ingest(other.id, 1, 0, [metrics(10, another=1.0)])
    assert steps_of(store, made.id) == [(10, 1.0), (20, 2.0)]
    assert store.metric_names(made.id) == ["b", "loss_nats"]
    assert list(store.metrics(made.id)) == ["b", "loss_nats"]
    assert list(store.metrics(made.id, ["b", "another"])) == ["b"]
    assert store.metrics(made.id, []) == {}


def test_after_a_resume_the_later_attempt_replaces_points_beyond_its_step(
    store: JobStore,
) -> None:
    made = running(store)
    first = [metrics(step, loss_nats=1.0) for step in (10, 20, 30, 40)]
    store.ingest(made.id, 1, 0, [started(), *first])
    made = resumed(store, made)
    # Before the second attempt has begun, nothing is replaced.
    assert [step for step, _ in steps_of(store, made.id)] == [10, 20, 30, 40]
    second = [metrics(step, loss_nats=2.0) for step in (30, 40)]
    store.ingest(made.id, 2, 0, [started(resumed_from=20), *second])
    assert steps_of(store, made.id) == [(10, 1.0), (20, 1.0), (30, 2.0), (40, 2.0)]
    made = resumed(store, made)
    store.ingest(made.id, 3, 0, [started(resumed_from=30), metrics(35, loss_nats=3.0)])
    assert steps_of(store, made.id) == [(10, 1.0), (20, 1.0), (30, 2.0), (35, 3.0)]


def test_an_attempt_from_the_start_replaces_all_points(store: JobStore) -> None:
    made = running(store)
    store.ingest(made.id, 1, 0, [started(), metrics(10, loss_nats=1.0, old=1.0)])
    made = resumed(store, made)
    store.ingest(made.id, 2, 0, [started(), metrics(5, loss_nats=2.0)])
    assert steps_of(store, made.id) == [(5, 2.0)]
    assert steps_of(store, made.id, "old") == []


def test_a_deep_resume_replaces_the_points_of_all_attempts_before_it(store: JobStore) -> None:
    made = running(store)
    store.ingest(made.id, 1, 0, [started(), *(metrics(s, loss_nats=1.0) for s in (10, 20, 30))])
    made = resumed(store, made)
    store.ingest(made.id, 2, 0, [started(resumed_from=20), metrics(30, loss_nats=2.0)])
    made = resumed(store, made)
    store.ingest(made.id, 3, 0, [started(resumed_from=10), metrics(15, loss_nats=3.0)])
    assert steps_of(store, made.id) == [(10, 1.0), (15, 3.0)]


def test_checkpoints_are_by_step_and_the_later_attempt_wins_a_step(store: JobStore) -> None:
    made = running(store)
    store.ingest(made.id, 1, 0, [started(), checkpoint(30), checkpoint(10), checkpoint(20)])
    made = resumed(store, made)
    rewritten = [checkpoint(20, attempt=2, is_best=True), checkpoint(40, attempt=2)]
    store.ingest(made.id, 2, 0, [started(resumed_from=10), *rewritten])
    listed = store.checkpoints(made.id)
    assert [(kept.step, kept.attempt) for kept in listed] == [(10, 1), (20, 2), (30, 1), (40, 2)]
    assert listed[1].is_best
    assert listed[1].prefix.startswith("jobs/j/attempts/2/")
    assert listed[0].metrics == {"held_out_elbo_nats": -1.5}


def test_an_artifact_of_a_later_attempt_replaces_the_one_of_its_name(store: JobStore) -> None:
    made = running(store)
    store.ingest(made.id, 1, 0, [artifact("b", key="1/b"), artifact("a", key="1/a")])
    made = resumed(store, made)
    store.ingest(made.id, 2, 0, [artifact("a", key="2/a")])
    late = [artifact("a", key="1/late"), artifact("c", key="1/c")]
    store.ingest(made.id, 1, 1, late)
    assert [kept.key for kept in store.artifacts(made.id)] == ["2/a", "1/b", "1/c"]


def test_a_store_that_answers_is_ready(store: JobStore) -> None:
    store.ping()


def test_a_database_that_fails_is_not_ready(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("store") / "jobs.db"
    store = JobStore.open(f"sqlite:///{path}")
    queued(store)
    store.close()
    path.write_bytes(b"overwritten by something else " * 100)
    with pytest.raises(NotReady) as failure:
        store.ping()
    assert str(path) not in str(failure.value)
    store.close()


def test_a_long_curve_is_thinned_evenly_and_keeps_its_ends(store: JobStore) -> None:
    made = running(store)
    store.ingest(made.id, 1, 0, [metrics(step, loss_nats=1.0) for step in range(1, 1001)])
    thinned = [point.step for point in store.metrics(made.id, None, at_most=100)["loss_nats"]]
    assert thinned == [*range(1, 1000, 10), 1000]
    assert len(store.metrics(made.id, None, at_most=1000)["loss_nats"]) == 1000
