import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import func, select, update

from service.errors import JobNotFound, StateConflict, VersionConflict
from service.jobs import FINAL_STATES, Job, JobFilter, JobState, Parent, Reason, Retention
from service.jobstore import Idempotency, JobStore, retaining
from service.jobstore.schema import JOBS, METADATA
from tests.contract.jobstore import making
from tests.contract.jobstore.making import job, queued, running, together
from workers.events import CheckpointRemovedRecord, Record

FOR_EVER: dict[JobState, float | None] = dict.fromkeys(FINAL_STATES)
DIGEST = "sha256:" + "7" * 64


def ended(store: JobStore, to: JobState = JobState.SUCCEEDED, **how: Any) -> Job:
    """A job that has everything a job can have, and has ended."""
    made = running(store, **how)
    records: list[Record] = [
        making.started(),
        *(making.metrics(step, loss_nats=1.0, other=2.0) for step in range(5)),
        making.checkpoint(5),
        making.artifact("grids/1.png", key=f"jobs/{made.id}/attempts/1/files/grids/1.png"),
    ]
    store.ingest(made.id, 1, 0, records)
    return store.settle(store.get(made.id), to, Reason.COMPLETED, "done")


def rows(store: JobStore) -> int:
    with store._database.read() as connection:
        tables = [table for table in METADATA.sorted_tables if table.name != "alembic_version"]
        counts = [connection.execute(select(func.count()).select_from(t)) for t in tables]
        return sum(count.scalar_one() for count in counts)


def ended_ago(store: JobStore, seconds: float, **how: Any) -> Job:
    made = ended(store, **how)
    at = datetime.now(UTC) - timedelta(seconds=seconds)
    with store._database.write() as connection:
        us = int(at.timestamp() * 1e6)
        connection.execute(update(JOBS).where(JOBS.c.id == made.id).values(ended_us=us))
    return store.get(made.id)


def test_a_deleted_job_is_gone_for_everybody_who_asks(store: JobStore) -> None:
    kept, gone = ended(store, labels={"team": "a"}), ended(store, labels={"team": "a"})
    assert store.delete(gone.id) == gone
    asked: list[Callable[[str], object]] = [
        *(store.get, store.last_seq, store.delete, store.request_cancel),
        *(lambda i: store.set_labels(i, {}, None), lambda i: store.ingest(i, 1, 1, [])),
    ]
    for ask in asked:
        with pytest.raises(JobNotFound):
            ask(gone.id)
    parts: list[Callable[[str], object]] = [
        *(store.attempts, store.events, store.metric_names, store.metrics),
        *(store.checkpoints, store.artifacts),
    ]
    assert not any(ask(gone.id) for ask in parts)
    assert all(ask(kept.id) for ask in parts)
    for filter in (
        JobFilter(),
        JobFilter(state=JobState.SUCCEEDED),
        JobFilter(label=("team", "a")),
    ):
        assert [found.id for found in store.list(filter, None, 10).jobs] == [kept.id]
    assert store.count_by_state()[JobState.SUCCEEDED] == 1


@pytest.mark.parametrize("make", [queued, running])
def test_a_job_that_has_not_ended_is_not_deleted(
    store: JobStore, make: Callable[[JobStore], Job]
) -> None:
    made = make(store)
    with pytest.raises(StateConflict, match="cancel it first") as conflict:
        store.delete(made.id)
    assert conflict.value.state == made.state
    assert store.get(made.id) == made
    assert store.doomed(10) == []


def test_only_the_version_that_was_seen_is_deleted(store: JobStore) -> None:
    made = ended(store)
    with pytest.raises(VersionConflict):
        store.delete(made.id, made.version - 1)
    assert store.get(made.id) == made
    store.delete(made.id, made.version)


def test_of_many_who_delete_a_job_one_does(store: JobStore) -> None:
    made = ended(store)
    outcomes = together([partial(store.delete, made.id)] * 6)
    assert sum(isinstance(outcome, JobNotFound) for outcome in outcomes) == 5


def test_a_deleted_job_is_never_changed_again(store: JobStore) -> None:
    made = running(store)
    failed = store.settle(made, JobState.FAILED, Reason.DIVERGED, "diverged")
    store.delete(failed.id)
    with pytest.raises(JobNotFound):
        store.settle(made, JobState.QUEUED, Reason.RECOVERING, "again")


def test_the_key_of_a_deleted_job_makes_a_new_one(store: JobStore) -> None:
    first, second = job(), job()
    store.add(first, Idempotency("k", "body"))
    store.settle(first, JobState.CANCELLED, Reason.CANCELLED, "cancelled")
    store.delete(first.id)
    assert store.replayed(Idempotency("k", "body")) is None
    assert store.add(second, Idempotency("k", "another body")) == (second, True)


def test_what_a_deleted_job_pins_is_no_longer_used(store: JobStore) -> None:
    pinned = making.spec(dataset={"name": "ours", "digest": DIGEST})
    made = ended(store, of=pinned)
    assert store.is_content_used(DIGEST)
    store.delete(made.id)
    assert not store.is_content_used(DIGEST)


@pytest.mark.parametrize("state", sorted(FINAL_STATES))
def test_jobs_expire_by_how_they_ended(store: JobStore, state: JobState) -> None:
    old = ended_ago(store, 1000, to=state)
    ended_ago(store, 10, to=state)
    for other in FINAL_STATES - {state}:
        ended_ago(store, 1000, to=other)
    assert store.delete_expired(FOR_EVER, 10) == []
    assert store.delete_expired({**FOR_EVER, state: 2000.0}, 10) == []
    assert store.delete_expired({**FOR_EVER, state: 100.0}, 10) == [old.id]
    assert store.delete_expired({**FOR_EVER, state: 100.0}, 10) == []
    assert store.doomed(10) == [old.id]


def test_a_jobs_own_time_goes_before_the_installations(store: JobStore) -> None:
    def asking(**retention: float) -> Job:
        made = replace(job(), retention=Retention.model_validate(retention))
        stored, _ = store.add(made)
        assert stored.retention == made.retention
        store.start_attempt(stored, making.attempt(stored), Reason.STARTING, "starting")
        store.settle(store.get(made.id), JobState.FAILED, Reason.DIVERGED, "diverged")
        at_us = int((datetime.now(UTC) - timedelta(seconds=500)).timestamp() * 1e6)
        with store._database.write() as connection:
            connection.execute(update(JOBS).where(JOBS.c.id == made.id).values(ended_us=at_us))
        return store.get(made.id)

    short, long, other = asking(failed_s=100), asking(failed_s=9000), asking(succeeded_s=100)
    assert short.retention == Retention(failed_s=100)
    assert store.delete_expired(FOR_EVER, 10) == [short.id]
    assert store.delete_expired({**FOR_EVER, JobState.FAILED: 200.0}, 10) == [other.id]
    assert store.get(long.id) == long


def test_a_job_that_has_not_ended_never_expires(store: JobStore) -> None:
    for make in (queued, running):
        replaced = make(store, at_s=-1e9)
        with store._database.write() as connection:  # even if it had ended once
            row = update(JOBS).where(JOBS.c.id == replaced.id)
            connection.execute(row.values(ended_us=1, keep_failed_s=60, keep_cancelled_s=60))
    assert store.delete_expired(dict.fromkeys(JobState, 60.0), 10) == []


def test_where_nothing_has_expired_nobody_who_writes_waits(store: JobStore) -> None:
    ended_ago(store, 1000.0)
    done: list[str] = []
    store._database._observe = lambda kind, *_: done.append(kind)
    assert store.delete_expired(FOR_EVER, 10) == []
    assert done == ["read"]


def test_what_was_retried_since_it_was_found_is_kept(store: JobStore) -> None:
    made = ended_ago(store, 1000.0, to=JobState.FAILED)
    keep = {**FOR_EVER, JobState.FAILED: 100.0}
    store.retry(made.id)
    with store._database.write() as connection:
        assert retaining.delete_expired(connection, keep, [made.id]) == []
    assert store.get(made.id).state is JobState.QUEUED


def test_a_batch_of_expired_jobs_is_bounded(store: JobStore) -> None:
    made = {ended_ago(store, 1000).id for _ in range(5)}
    keep = {**FOR_EVER, JobState.SUCCEEDED: 100.0}
    batches = [store.delete_expired(keep, 2) for _ in range(4)]
    assert [len(batch) for batch in batches] == [2, 2, 1, 0]
    assert set(itertools.chain(*batches)) == made


def test_rows_go_in_small_steps_and_all_of_them(store: JobStore) -> None:
    kept = ended(store)
    before = rows(store)
    gone = ended(store, labels={"team": "a"})
    store.delete(gone.id)
    counts = [rows(store)]
    while not store.purge(gone.id, at_most=2):
        counts.append(rows(store))
        assert store.doomed(10) == [gone.id]  # until the end it is found again
    assert all(0 <= last - now <= 3 for last, now in itertools.pairwise(counts))
    assert len(counts) > 5
    assert rows(store) == before
    assert store.doomed(10) == []
    assert store.purge(gone.id)
    assert store.get(kept.id) == kept


def test_the_rows_of_a_job_that_is_not_deleted_are_never_purged(store: JobStore) -> None:
    made = ended(store)
    before = rows(store)
    assert store.purge(made.id)
    assert rows(store) == before


@pytest.mark.parametrize(("is_copy", "stays"), [(True, False), (False, True)])
def test_what_a_fork_refers_to_stays_until_the_fork_is_gone(
    store: JobStore, is_copy: bool, stays: bool
) -> None:
    parent = ended(store)
    fork = job()
    prefix = f"jobs/{fork.id if is_copy else parent.id}/parent"
    store.add(replace(fork, parent=Parent(parent.id, "00000005", prefix, DIGEST, "weights")))
    store.delete(parent.id)
    assert store.doomed(10) == ([] if stays else [parent.id])
    store.settle(fork, JobState.CANCELLED, Reason.CANCELLED, "cancelled")
    store.delete(fork.id)
    assert fork.id in store.doomed(10)
    while not store.purge(fork.id):
        pass
    assert store.doomed(10) == [parent.id]


def test_custody_knows_what_rows_know(store: JobStore) -> None:
    made = running(store)
    prefix = "jobs/j/attempts/1/checkpoints"
    file = f"jobs/{made.id}/attempts/1/files/a.png"
    removed = CheckpointRemovedRecord(at=making.NOON, id="00000001", what="all")
    thinned = CheckpointRemovedRecord(at=making.NOON, id="00000002", what="train_state")
    checkpoints = [making.checkpoint(step) for step in (1, 2, 3)]
    records: list[Record] = [*checkpoints, removed, thinned, making.artifact("a.png", key=file)]
    store.ingest(made.id, 1, 0, records)
    found = store.custody(made.id)
    assert found is not None
    assert (found.is_deleted, found.ended) == (False, frozenset())
    assert found.checkpoints == {f"{prefix}/00000002": False, f"{prefix}/00000003": True}
    assert found.files == {file}
    store.settle(made, JobState.FAILED, Reason.DIVERGED, "diverged")
    found = store.custody(made.id)
    assert found is not None
    assert found.ended == {1}
    store.delete(made.id)
    found = store.custody(made.id)
    assert found is not None
    assert found.is_deleted
    assert store.custody("job-none") is None
