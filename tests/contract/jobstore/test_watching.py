from dataclasses import replace
from functools import partial

import pytest

from service.errors import JobNotFound, StateConflict
from service.jobs import FINAL_STATES, TRANSITIONS, JobState, Reason
from service.jobstore import JobStore
from tests.contract.jobstore.making import (
    attempt,
    first_step,
    job,
    metrics,
    queued,
    resumed,
    running,
    together,
)

UNENCODABLE = "\ud800"  # no database takes half a surrogate pair: a write that fails late


def test_starting_an_attempt_runs_the_job(store: JobStore) -> None:
    made = queued(store)
    first = attempt(made, resumed_from="a/b", resumed_from_step=5)
    changed = store.start_attempt(made, first, Reason.STARTING, "starting")
    assert (changed.state, changed.attempt, changed.version) == (JobState.RUNNING, 1, 2)
    assert store.get(made.id) == changed
    assert store.attempts(made.id) == [first]
    assert store.running() == [changed]
    assert store.startable() == []
    event = store.events(made.id)[-1]
    assert (event.kind, event.attempt, event.data["state"]) == ("state", 1, "running")


def test_of_threads_that_start_an_attempt_exactly_one_wins(store: JobStore) -> None:
    made = queued(store)
    starts = [
        partial(
            store.start_attempt,
            made,
            replace(attempt(made), executor_id=f"executor-{n}"),
            Reason.STARTING,
            "starting",
        )
        for n in range(8)
    ]
    outcomes = together(starts)
    winners = [outcome for outcome in outcomes if not isinstance(outcome, StateConflict)]
    assert [winner.attempt for winner in winners] == [1]
    assert len(store.attempts(made.id)) == 1
    assert store.get(made.id).version == 2


def test_an_attempt_that_does_not_follow_is_a_defect(store: JobStore) -> None:
    made = queued(store)
    with pytest.raises(ValueError, match="does not follow"):
        store.start_attempt(made, attempt(made, 2), Reason.STARTING, "starting")


def test_a_start_that_fails_half_way_leaves_the_job_queued(store: JobStore) -> None:
    made = queued(store)
    with pytest.raises(UnicodeEncodeError):
        store.start_attempt(made, attempt(made, host=UNENCODABLE), Reason.STARTING, "starting")
    assert store.get(made.id) == made
    assert store.attempts(made.id) == []
    assert store.last_seq(made.id) == 1


def test_a_new_reason_is_a_new_version_and_an_event(store: JobStore) -> None:
    made = queued(store)
    changed = store.explain(made, Reason.WAITING_FOR_RESOURCES, "2 are ahead")
    assert (changed.version, changed.reason) == (2, Reason.WAITING_FOR_RESOURCES)
    assert store.events(made.id)[-1].data["message"] == "2 are ahead"


def test_a_new_message_alone_is_neither(store: JobStore) -> None:
    made = store.explain(queued(store), Reason.WAITING_FOR_RESOURCES, "2 are ahead")
    changed = store.explain(made, Reason.WAITING_FOR_RESOURCES, "1 is ahead")
    assert changed == replace(made, message="1 is ahead")
    assert store.get(made.id) == changed
    assert store.last_seq(made.id) == 2


def test_the_same_explanation_again_changes_nothing(store: JobStore) -> None:
    made = store.explain(queued(store), Reason.WAITING_FOR_RESOURCES, "2 are ahead")
    assert store.explain(made, made.reason, made.message) == made
    assert store.last_seq(made.id) == 2


def test_explaining_a_state_that_was_left_is_refused(store: JobStore) -> None:
    made = queued(store)
    store.start_attempt(made, attempt(made), Reason.STARTING, "starting")
    for reason in (Reason.WAITING_FOR_RESOURCES, Reason.STARTING):
        with pytest.raises(StateConflict) as conflict:
            store.explain(made, reason, "late")
        assert conflict.value.state == "running"
    assert store.last_seq(made.id) == 2


def test_settling_ends_the_job_and_its_attempt(store: JobStore) -> None:
    made = running(store)
    ended = store.settle(
        made, JobState.FAILED, Reason.DIVERGED, "diverged at step 3; lower the learning rate"
    )
    assert (ended.state, ended.version) == (JobState.FAILED, 3)
    assert ended.ended_at == ended.updated_at
    [only] = store.attempts(made.id)
    assert (only.ended_at, only.reason, only.message) == (
        ended.ended_at,
        Reason.DIVERGED,
        ended.message,
    )
    assert store.events(made.id)[-1].data == {
        "state": "failed",
        "reason": "diverged",
        "message": ended.message,
    }


def test_an_attempt_may_end_for_a_reason_of_its_own(store: JobStore) -> None:
    made = running(store)
    waiting = store.settle(
        made, JobState.QUEUED, Reason.RECOVERING, "tried again", Reason.WORKER_LOST, "killed"
    )
    assert (waiting.state, waiting.ended_at, waiting.attempt) == (JobState.QUEUED, None, 1)
    [only] = store.attempts(made.id)
    assert (only.reason, only.message) == (Reason.WORKER_LOST, "killed")
    assert only.ended_at is not None
    again = store.start_attempt(waiting, attempt(made, 2), Reason.STARTING, "again")
    assert [known.number for known in store.attempts(made.id)] == [1, 2]
    assert again.attempt == 2


def test_a_queued_job_is_cancelled_without_an_attempt(store: JobStore) -> None:
    ended = store.settle(queued(store), JobState.CANCELLED, Reason.CANCELLED, "cancelled")
    assert ended.ended_at is not None
    assert store.attempts(ended.id) == []


def test_only_the_transitions_of_the_table_are_made(store: JobStore) -> None:
    for state in JobState:
        for to in JobState:
            made = running(store) if state is not JobState.QUEUED else queued(store)
            is_settled = state in FINAL_STATES or state is JobState.PAUSED
            if is_settled:
                made = store.settle(made, state, Reason.COMPLETED, "ended")
            # What has ended or is paused, is left by a user's wish alone, and what waits does not
            # succeed, but by the word of a study.
            by_others = to is JobState.RUNNING or (state, to) == (
                JobState.QUEUED,
                JobState.SUCCEEDED,
            )
            if to in TRANSITIONS[state] and not by_others and not is_settled:
                assert store.settle(made, to, Reason.COMPLETED, "moved").state == to
                continue
            with pytest.raises(StateConflict):
                store.settle(made, to, Reason.COMPLETED, "moved")
            assert store.get(made.id) == made


def test_what_waits_succeeds_by_the_word_of_its_study(store: JobStore) -> None:
    paused = store.settle(running(store), JobState.PAUSED, Reason.PAUSED, "paused")
    for made in (queued(store), paused):
        stopped = store.settle(made, JobState.SUCCEEDED, Reason.STOPPED_BY_STUDY, "stopped")
        assert (stopped.state, stopped.reason) == (JobState.SUCCEEDED, Reason.STOPPED_BY_STUDY)


def test_of_threads_that_settle_exactly_one_wins(store: JobStore) -> None:
    made = running(store)
    to = [JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.QUEUED]
    outcomes = together(
        [partial(store.settle, made, state, Reason.COMPLETED, "ended") for state in to]
    )
    assert sum(isinstance(outcome, StateConflict) for outcome in outcomes) == 3
    assert store.get(made.id).version == 3
    assert store.last_seq(made.id) == 3


def test_an_attempt_that_is_over_settles_nothing(store: JobStore) -> None:
    stale = running(store)
    current = resumed(store, stale)
    with pytest.raises(StateConflict):
        store.settle(stale, JobState.SUCCEEDED, Reason.COMPLETED, "late")
    assert store.get(stale.id) == current
    assert [known.reason for known in store.attempts(stale.id)] == [Reason.WORKER_LOST, None]


def test_settling_that_fails_half_way_leaves_the_job_running(store: JobStore) -> None:
    made = running(store)
    with pytest.raises(UnicodeEncodeError):
        store.settle(made, JobState.FAILED, Reason.WORKER_LOST, "lost", attempt_message=UNENCODABLE)
    assert store.get(made.id) == made
    assert store.attempts(made.id)[0].ended_at is None
    assert store.last_seq(made.id) == 2


def test_a_job_that_does_not_exist_cannot_be_moved(store: JobStore) -> None:
    made = job()
    with pytest.raises(JobNotFound):
        store.start_attempt(made, attempt(made), Reason.STARTING, "starting")
    with pytest.raises(JobNotFound):
        store.settle(made, JobState.CANCELLED, Reason.CANCELLED, "cancelled")
    with pytest.raises(JobNotFound):
        store.explain(made, Reason.WAITING_FOR_CLUSTER, "waiting")


def test_the_process_of_an_attempt_is_noted(store: JobStore) -> None:
    made = running(store)
    store.note_process(made.id, 1, 123, "node-7")
    [only] = store.attempts(made.id)
    assert (only.pid, only.host) == (123, "node-7")


def test_events_have_no_gaps_under_concurrent_writers(store: JobStore) -> None:
    made = running(store)

    def explain(n: int) -> None:
        reasons = [Reason.STARTING, Reason.TRAINING, Reason.CANCELLING]
        for turn in range(10):
            store.explain(made, reasons[(n + turn) % 3], "busy")

    def ingest() -> None:
        for chunk in range(20):
            store.ingest(made.id, 1, chunk, [first_step(1), metrics(chunk, loss_nats=1.0)])

    outcomes = together([ingest, *(partial(explain, n) for n in range(4))])
    assert outcomes == [None] * 5
    events = store.events(made.id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert store.last_seq(made.id) == len(events)
    assert sum(event.kind == "metrics" for event in events) == 20
    # Every version since the first two comes from a change of reason, which is an event.
    states = sum(event.kind == "state" for event in events)
    assert store.get(made.id).version == states
