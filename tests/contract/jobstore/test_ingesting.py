import math
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy.exc import DataError

from service.errors import JobNotFound
from service.jobs import JobState, Progress, Reason
from service.jobstore import JobStore, ingesting
from service.jobstore.schema import ARTIFACTS, ATTEMPTS, CHECKPOINTS, JOBS
from tests.contract.jobstore.making import (
    NOON,
    artifact,
    checkpoint,
    first_step,
    metrics,
    queued,
    resumed,
    running,
    started,
    together,
)
from workers.events import CheckpointRemovedRecord, NoticeRecord, ProgressRecord, Record


def progress(step: int, at_s: float) -> ProgressRecord:
    return ProgressRecord(at=NOON + timedelta(seconds=at_s), step=step, epoch=step / 10)


def test_a_chunk_becomes_events_metrics_files_and_progress(store: JobStore) -> None:
    made = running(store)
    notice = NoticeRecord(at=NOON, code="biased", message="clean_target is biased")
    records: list[Record] = [
        notice,
        started(),
        first_step(2),
        metrics(21, at_s=4, loss_nats=1.0),
        artifact("grids/00000021.png", step=21),
        checkpoint(21),
        progress(21, at_s=6),
    ]
    assert store.ingest(made.id, 1, 0, records)
    kinds = ["notice", "started", "first_step", "metrics", "artifact", "checkpoint"]
    events = store.events(made.id, after=2)
    assert [event.kind for event in events] == kinds
    assert [event.seq for event in events] == [3, 4, 5, 6, 7, 8]
    assert events[0].data == {"code": "biased", "message": "clean_target is biased"}
    assert events[3].at == NOON + timedelta(seconds=4)
    [point] = store.metrics(made.id)["loss_nats"]
    assert (point.step, point.epoch, point.value) == (21, 2.1, 1.0)
    assert [kept.step for kept in store.checkpoints(made.id)] == [21]
    assert [kept.name for kept in store.artifacts(made.id)] == ["grids/00000021.png"]
    [only] = store.attempts(made.id)
    assert (only.started_at, only.first_step_at) == (NOON, NOON + timedelta(seconds=2))
    assert (only.pid, only.host, only.next_chunk) == (42, "node", 1)
    # 20 steps in the 4 seconds since the first one leave 79 steps of 0.2 seconds.
    [stored] = store.running()
    assert stored.progress == Progress(21, 100, 2.1, 79 * 4 / 20)
    assert stored.version == made.version


def test_what_is_stored_of_a_record_has_a_column() -> None:
    """SQLAlchemy takes no notice of values that have none."""
    moved = dict.fromkeys(ATTEMPTS.c.keys(), 0)
    records: list[Record] = [
        *(started(), started(resumed_from=4), first_step(1), progress(5, at_s=2)),
        ProgressRecord(at=NOON, step=5, epoch=0.5, peak_rss_bytes=1),
        *(metrics(5, loss_nats=1.0), checkpoint(5), artifact("a")),
    ]
    for record in records:
        assert ingesting._of_attempt(record).keys() <= {*ATTEMPTS.c.keys()}
        assert (ingesting._progress(record, moved) or {}).keys() <= {*JOBS.c.keys()}
    files = {**checkpoint(5).model_dump(exclude={"at", "kind"})}
    assert files.keys() <= {*CHECKPOINTS.c.keys()}
    assert artifact("a").model_dump(exclude={"at", "kind"}).keys() <= {*ARTIFACTS.c.keys()}


def test_the_time_left_follows_the_rate_of_the_current_attempt(store: JobStore) -> None:
    made = running(store)
    store.ingest(made.id, 1, 0, [started(), first_step(0), progress(51, at_s=5)])
    made = resumed(store, made)
    at_s = 1000.0
    store.ingest(made.id, 2, 0, [started(at_s, resumed_from=40)])
    assert store.get(made.id).progress == Progress(40, 100, 4.0, None)
    store.ingest(made.id, 2, 1, [first_step(at_s + 9, step=41), progress(51, at_s + 29)])
    assert store.get(made.id).progress == Progress(51, 100, 5.1, 49 * 20 / 10)


def test_the_same_chunk_twice_is_taken_in_once(store: JobStore) -> None:
    made = running(store)
    records: list[Record] = [started(), metrics(1, loss_nats=1.0), checkpoint(1)]
    assert store.ingest(made.id, 1, 0, records)
    events = store.events(made.id)
    assert [event.kind for event in events[2:]] == ["started", "metrics", "checkpoint"]
    assert not store.ingest(made.id, 1, 0, records)
    assert store.events(made.id) == events
    assert store.attempts(made.id)[0].next_chunk == 1


def test_the_same_chunk_at_the_same_moment_is_taken_in_once(store: JobStore) -> None:
    made = running(store)
    ingest = partial(store.ingest, made.id, 1, 0, [started(), first_step(1)])
    outcomes = together([ingest] * 6)
    assert sorted(outcomes) == [False] * 5 + [True]
    assert store.last_seq(made.id) == 4


def test_a_gap_between_chunks_is_an_error_and_changes_nothing(store: JobStore) -> None:
    made = running(store)
    with pytest.raises(ValueError, match="0 is next"):
        store.ingest(made.id, 1, 1, [started()])
    assert store.last_seq(made.id) == 2
    assert store.attempts(made.id)[0].next_chunk == 0


def test_a_chunk_of_an_unknown_attempt_is_refused(store: JobStore) -> None:
    made = queued(store)
    with pytest.raises(JobNotFound):
        store.ingest(made.id, 1, 0, [started()])
    with pytest.raises(JobNotFound):
        store.ingest("job-none", 1, 0, [started()])


def test_a_chunk_that_fails_half_way_leaves_nothing(store: JobStore) -> None:
    made = running(store)
    too_large = metrics(2**70, loss_nats=1.0)  # no database has such an integer
    with pytest.raises((OverflowError, DataError)):
        store.ingest(made.id, 1, 0, [started(), checkpoint(1), artifact("a"), too_large])
    assert store.get(made.id) == made
    [only] = store.attempts(made.id)
    assert (only.next_chunk, only.started_at, only.pid) == (0, None, None)
    assert store.checkpoints(made.id) == []
    assert store.artifacts(made.id) == []
    assert store.metric_names(made.id) == []
    assert store.last_seq(made.id) == 2


def test_a_late_chunk_of_an_attempt_that_is_over_is_kept_as_late(store: JobStore) -> None:
    made = running(store)
    store.ingest(made.id, 1, 0, [started(), checkpoint(40)])
    current = resumed(store, made)
    store.ingest(made.id, 2, 0, [started(resumed_from=40)])
    before = store.get(made.id)
    seq = store.last_seq(made.id)
    store.ingest(made.id, 1, 1, [metrics(70, loss_nats=9.0), progress(99, at_s=9)])
    assert [event.attempt for event in store.events(made.id, after=seq)] == [1]
    assert store.get(made.id) == before
    assert before.attempt == current.attempt == 2
    # The curve is the second attempt's beyond step 40, and it has no points yet.
    assert store.metrics(made.id) == {"loss_nats": []}


def test_a_chunk_that_comes_after_the_end_does_not_move_the_progress(store: JobStore) -> None:
    made = running(store)
    store.ingest(made.id, 1, 0, [started(), progress(10, at_s=1)])
    ended = store.settle(made, JobState.CANCELLED, Reason.CANCELLED, "cancelled")
    store.ingest(made.id, 1, 1, [progress(20, at_s=2), checkpoint(20)])
    assert store.get(made.id) == ended
    assert [kept.step for kept in store.checkpoints(made.id)] == [20]


def test_of_two_values_of_one_step_the_later_one_stays(store: JobStore) -> None:
    made = running(store)
    store.ingest(made.id, 1, 0, [started(), metrics(5, loss_nats=1.0), metrics(5, loss_nats=2.0)])
    store.ingest(made.id, 1, 1, [metrics(5, loss_nats=3.0, kl_nats=4.0)])
    values = {name: [p.value for p in curve] for name, curve in store.metrics(made.id).items()}
    assert values == {"loss_nats": [3.0], "kl_nats": [4.0]}


def test_numbers_that_are_none_are_kept_as_such_and_are_null_in_events(store: JobStore) -> None:
    made = running(store)
    store.ingest(made.id, 1, 0, [metrics(5, a=math.nan, b=math.inf, c=-math.inf)])
    assert store.events(made.id)[-1].data["values"] == {"a": None, "b": None, "c": None}
    curves = store.metrics(made.id)
    assert math.isnan(curves["a"][0].value)
    assert (curves["b"][0].value, curves["c"][0].value) == (math.inf, -math.inf)


def test_a_removed_checkpoint_is_no_longer_listed(store: JobStore) -> None:
    made = running(store)
    store.ingest(made.id, 1, 0, [started(), checkpoint(10), checkpoint(20), checkpoint(30)])
    removed = [
        CheckpointRemovedRecord(at=NOON, id="00000010", what="all"),
        CheckpointRemovedRecord(at=NOON, id="00000020", what="train_state"),
    ]
    store.ingest(made.id, 1, 1, removed)
    listed = [(kept.step, kept.has_train_state) for kept in store.checkpoints(made.id)]
    assert listed == [(20, False), (30, True)]


def test_a_resumed_attempt_thins_what_earlier_ones_left_but_a_late_one_does_not(
    store: JobStore,
) -> None:
    made = running(store)
    store.ingest(made.id, 1, 0, [started(), checkpoint(10), checkpoint(20)])
    resumed(store, made)
    gone = CheckpointRemovedRecord(at=NOON, id="00000010", what="all")
    store.ingest(made.id, 2, 0, [started(resumed_from=20), gone, checkpoint(30, attempt=2)])
    late = CheckpointRemovedRecord(at=NOON, id="00000030", what="all")
    store.ingest(made.id, 1, 1, [late])
    assert [kept.step for kept in store.checkpoints(made.id)] == [20, 30]


def test_a_run_that_learns_its_spread_says_itself_at_which_epoch_it_goes_on(
    store: JobStore,
) -> None:
    """Steps of rounds count among the steps and not into epochs."""
    for said, epoch in ((None, 4.0), (2.5, 2.5)):
        made = running(store)
        begun = started(resumed_from=40).model_copy(update={"resumed_from_epoch": said})
        store.ingest(made.id, 1, 0, [begun])
        assert store.get(made.id).progress == Progress(40, 100, epoch, None)
