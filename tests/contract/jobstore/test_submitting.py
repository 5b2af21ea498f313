from dataclasses import replace
from functools import partial

import pytest
from sqlalchemy.exc import IntegrityError

from service.errors import IdempotencyConflict, JobNotFound, StateConflict, VersionConflict
from service.jobs import JobFilter, JobState, Reason
from service.jobstore import Idempotency, JobStore
from tests.contract.jobstore.making import job, parent, queued, running, spec, together


def test_a_job_comes_back_as_it_was_stored(store: JobStore) -> None:
    made = job(
        labels={"team": "a", "note": "ünïcode: «π»"},
        priority=7,
        of=spec("vae", {"kind": "two-moons", "samples": 50, "noise_std": 0.1}),
    )
    assert store.add(made) == (made, True)
    assert store.get(made.id) == made


def test_a_fork_knows_its_parent_and_is_found_by_it(store: JobStore) -> None:
    origin, other = queued(store), queued(store)
    forks = [job(parent=parent(origin)), job(parent=parent(origin, "weights"))]
    for fork in forks:
        assert store.add(fork) == (fork, True)
        assert store.get(fork.id) == fork
    assert store.forks_of(origin.id) == [fork.id for fork in forks]
    assert store.forks_of(origin.id, limit=1) == [forks[0].id]
    assert store.forks_of(other.id) == []


def test_a_new_job_has_its_first_event(store: JobStore) -> None:
    made = queued(store)
    [event] = store.events(made.id)
    assert (event.seq, event.kind, event.attempt, event.at) == (1, "state", 0, made.created_at)
    assert event.data == {"state": "queued", "reason": "submitted", "message": "submitted"}
    assert store.last_seq(made.id) == 1


def test_an_unknown_job_is_not_found(store: JobStore) -> None:
    for ask in (store.get, store.last_seq, store.request_cancel):
        with pytest.raises(JobNotFound):
            ask("job-none")
    with pytest.raises(JobNotFound):
        store.set_labels("job-none", {}, None)


def test_the_same_key_and_body_give_the_stored_job(store: JobStore) -> None:
    first, second = job(), job()
    assert store.add(first, Idempotency("k", "body")) == (first, True)
    assert store.add(second, Idempotency("k", "body")) == (first, False)
    assert [kept.id for kept in store.startable()] == [first.id]


def test_a_replay_shows_the_job_as_it_is_now(store: JobStore) -> None:
    first = job()
    store.add(first, Idempotency("k", "body"))
    store.request_cancel(first.id)
    replayed, created = store.add(job(), Idempotency("k", "body"))
    assert (replayed.cancel_requested, replayed.version, created) == (True, 2, False)


def test_the_same_key_with_another_body_is_refused_and_stores_nothing(store: JobStore) -> None:
    first = job()
    store.add(first, Idempotency("k", "body"))
    with pytest.raises(IdempotencyConflict):
        store.add(job(), Idempotency("k", "another"))
    assert [kept.id for kept in store.startable()] == [first.id]


def test_one_key_at_the_same_moment_makes_one_job(store: JobStore) -> None:
    adds = [partial(store.add, job(), Idempotency("k", "body")) for _ in range(8)]
    outcomes = together(adds)
    assert sorted(created for _, created in outcomes) == [False] * 7 + [True]
    assert len({made.id for made, _ in outcomes}) == 1
    assert len(store.startable()) == 1


def test_a_job_that_cannot_be_stored_leaves_its_key_free(store: JobStore) -> None:
    taken = queued(store)
    with pytest.raises(IntegrityError):
        store.add(job(id=taken.id), Idempotency("k", "body"))
    other = job()
    assert store.add(other, Idempotency("k", "another")) == (other, True)


def test_the_wish_to_cancel_is_set_once(store: JobStore) -> None:
    made = queued(store)
    wished = store.request_cancel(made.id)
    assert (wished.cancel_requested, wished.version, wished.state) == (True, 2, JobState.QUEUED)
    assert store.request_cancel(made.id) == wished
    assert store.get(made.id) == wished


def test_wishes_at_the_same_moment_make_one_version(store: JobStore) -> None:
    made = queued(store)
    outcomes = together([partial(store.request_cancel, made.id)] * 6)
    assert {outcome.version for outcome in outcomes} == {2}


def test_cancelling_a_cancelled_job_changes_nothing(store: JobStore) -> None:
    made = queued(store)
    ended = store.settle(made, JobState.CANCELLED, Reason.CANCELLED, "cancelled")
    assert store.request_cancel(made.id) == ended


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.FAILED])
def test_cancelling_an_ended_job_is_a_conflict_that_names_its_state(
    store: JobStore, state: JobState
) -> None:
    made = running(store)
    store.settle(made, state, Reason.COMPLETED, "done")
    with pytest.raises(StateConflict) as conflict:
        store.request_cancel(made.id)
    assert conflict.value.state == state
    assert not store.get(made.id).cancel_requested


def test_a_wish_that_came_too_late_is_a_conflict_when_it_is_repeated(store: JobStore) -> None:
    made = store.request_cancel(running(store).id)
    store.settle(made, JobState.SUCCEEDED, Reason.COMPLETED, "done")
    with pytest.raises(StateConflict):
        store.request_cancel(made.id)


def test_labels_are_replaced_and_found_again(store: JobStore) -> None:
    made = queued(store, labels={"team": "a", "gone": "yes"})
    changed = store.set_labels(made.id, {"team": "b"}, made.version)
    assert changed == replace(made, labels={"team": "b"}, version=2, updated_at=changed.updated_at)
    assert changed.updated_at > made.updated_at
    found = [
        len(store.list(JobFilter(label=label), None, 10).jobs)
        for label in [("team", "a"), ("team", "b"), ("gone", None)]
    ]
    assert found == [0, 1, 0]


def test_the_same_labels_again_make_no_new_version(store: JobStore) -> None:
    made = queued(store, labels={"a": "1", "b": "2"})
    assert store.set_labels(made.id, {"b": "2", "a": "1"}, None) == made


def test_labels_of_a_job_that_has_changed_are_refused(store: JobStore) -> None:
    made = queued(store, labels={"team": "a"})
    store.request_cancel(made.id)
    with pytest.raises(VersionConflict):
        store.set_labels(made.id, {"team": "b"}, made.version)
    assert store.get(made.id).labels == {"team": "a"}


def test_of_two_that_saw_the_same_version_one_sets_the_labels(store: JobStore) -> None:
    made = queued(store)
    outcomes = together(
        [partial(store.set_labels, made.id, {"n": str(n)}, made.version) for n in range(4)]
    )
    assert sum(isinstance(outcome, VersionConflict) for outcome in outcomes) == 3
    assert store.get(made.id).version == 2
