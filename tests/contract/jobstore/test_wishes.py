from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from service.errors import JobNotFound, StateConflict
from service.jobs import FINAL_STATES, Job, JobState, Limits, Reason
from service.jobstore import JobStore
from tests.contract.jobstore.making import attempt, queued, running, together

SOON = datetime.now(UTC) + timedelta(hours=1)


def paused(store: JobStore) -> Job:
    return store.request_pause(queued(store).id)


def ended(store: JobStore, state: JobState) -> Job:
    return store.settle(running(store), state, Reason.INTERNAL_ERROR, "ended")


def last_state(store: JobStore, job: Job) -> tuple[int, str, str]:
    event = store.events(job.id)[-1]
    return event.attempt, event.data["state"], event.data["reason"]


def test_an_unknown_job_can_be_wished_nothing(store: JobStore) -> None:
    for wish in (store.request_cancel, store.request_pause, store.resume, store.retry):
        with pytest.raises(JobNotFound):
            wish("job-none")


def test_a_queued_job_is_paused_and_resumed_at_once(store: JobStore) -> None:
    made = queued(store)
    stopped = store.request_pause(made.id)
    assert (stopped.state, stopped.reason, stopped.version) == (
        JobState.PAUSED,
        Reason.PAUSED,
        2,
    )
    assert not stopped.pause_requested
    assert stopped.ended_at is None
    assert last_state(store, made) == (0, "paused", "paused")
    assert store.request_pause(made.id) == stopped
    assert store.startable() == []
    again = store.resume(made.id)
    assert (again.state, again.reason, again.version) == (JobState.QUEUED, Reason.RESUMED, 3)
    assert last_state(store, made) == (0, "queued", "resumed")
    assert store.resume(made.id) == again
    assert store.startable() == [again]


def test_of_a_running_job_only_the_wish_is_stored_and_may_be_taken_back(store: JobStore) -> None:
    made = running(store)
    wished = store.request_pause(made.id)
    assert (wished.state, wished.pause_requested, wished.version) == (JobState.RUNNING, True, 3)
    assert store.request_pause(made.id) == wished
    back = store.resume(made.id)
    assert back == replace(wished, pause_requested=False, version=4, updated_at=back.updated_at)
    assert store.resume(made.id) == back
    assert store.last_seq(made.id) == 2


def test_a_cancel_beats_a_pause_and_cannot_be_taken_back(store: JobStore) -> None:
    made = running(store)
    store.request_pause(made.id)
    wished = store.request_cancel(made.id)
    assert (wished.cancel_requested, wished.pause_requested) == (True, False)
    for wish in (store.request_pause, store.resume, store.retry):
        with pytest.raises(StateConflict, match="being cancelled") as conflict:
            wish(made.id)
        assert conflict.value.state == "running"
    assert store.get(made.id) == wished


def test_a_paused_job_is_cancelled_at_once(store: JobStore) -> None:
    made = paused(store)
    done = store.request_cancel(made.id)
    assert (done.state, done.cancel_requested) == (JobState.CANCELLED, True)
    assert done.ended_at == done.updated_at
    assert last_state(store, made) == (0, "cancelled", "cancelled")
    assert store.request_cancel(made.id) == done


@pytest.mark.parametrize("state", sorted(FINAL_STATES))
def test_what_has_ended_is_neither_paused_nor_resumed(store: JobStore, state: JobState) -> None:
    made = ended(store, state)
    for wish in (store.request_pause, store.resume):
        with pytest.raises(StateConflict) as conflict:
            wish(made.id)
        assert conflict.value.state == state
    assert store.get(made.id) == made


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.CANCELLED])
def test_a_retry_raises_the_attempts_number_in_the_same_step(
    store: JobStore, state: JobState
) -> None:
    made = ended(store, state)
    again = store.retry(made.id)
    assert (again.state, again.reason, again.attempt) == (JobState.QUEUED, Reason.RETRIED, 2)
    assert (again.counts_from, again.ended_at, again.cancel_requested) == (2, None, False)
    assert last_state(store, made) == (2, "queued", "retried")
    assert store.retry(made.id) == again
    begun = store.start_attempt(again, attempt(made, 2), Reason.STARTING, "starting")
    assert [known.number for known in store.attempts(made.id)] == [1, 2]
    assert store.retry(made.id) == begun
    # The old attempt is over, whatever it still says.
    with pytest.raises(StateConflict):
        store.settle(replace(made, state=JobState.RUNNING), JobState.SUCCEEDED, made.reason, "late")


def test_retries_of_a_job_that_never_ran_again_waste_no_numbers(store: JobStore) -> None:
    made = queued(store)
    for _ in range(3):
        waiting = store.get(made.id)
        store.settle(waiting, JobState.CANCELLED, Reason.CANCELLED, "cancelled")
        again = store.retry(made.id)
        assert (again.attempt, again.counts_from) == (1, 1)
    store.start_attempt(again, attempt(made, 1), Reason.STARTING, "starting")


def test_a_retry_may_change_the_limits_that_it_names(store: JobStore) -> None:
    made = ended(store, JobState.FAILED)
    assert made.limits == Limits(max_wall_s=60.0, max_attempts=3)
    again = store.retry(made.id, Limits(max_attempts=7))
    assert again.limits == Limits(max_wall_s=60.0, max_attempts=7)
    assert store.retry(made.id, Limits(max_attempts=7)) == again
    with pytest.raises(StateConflict, match="other limits"):
        store.retry(made.id, Limits(max_attempts=8))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (queued, "nothing to retry"),
        (running, "nothing to retry"),
        (paused, "resume it"),
        (lambda store: ended(store, JobState.SUCCEEDED), "fork it"),
    ],
)
def test_what_has_not_failed_is_not_retried(
    store: JobStore, make: Callable[[JobStore], Job], says: str
) -> None:
    made = make(store)
    with pytest.raises(StateConflict, match=says) as conflict:
        store.retry(made.id)
    assert conflict.value.state == made.state
    assert store.get(made.id) == made


def test_a_verdict_on_other_wishes_settles_nothing(store: JobStore) -> None:
    seen = running(store)
    wished = store.request_pause(seen.id)
    with pytest.raises(StateConflict, match="wishes"):
        store.settle(seen, JobState.QUEUED, Reason.RECOVERING, "lost")
    store.resume(seen.id)
    with pytest.raises(StateConflict, match="wishes"):
        store.settle(wished, JobState.PAUSED, Reason.PAUSED, "paused")
    assert store.get(seen.id).state is JobState.RUNNING
    assert store.attempts(seen.id)[0].ended_at is None


def test_of_a_pause_and_a_start_exactly_one_finds_the_job_queued(store: JobStore) -> None:
    for _ in range(10):
        made = queued(store)
        start = partial(store.start_attempt, made, attempt(made), Reason.STARTING, "starting")
        started, wished = together([start, partial(store.request_pause, made.id)])
        now = store.get(made.id)
        if isinstance(started, StateConflict):
            assert (now.state, now.pause_requested) == (JobState.PAUSED, False)
            assert store.attempts(made.id) == []
        else:
            assert (now.state, now.pause_requested) == (JobState.RUNNING, True)
        assert now == wished


def test_of_a_cancel_and_a_resume_the_cancel_stays(store: JobStore) -> None:
    for _ in range(10):
        made = paused(store)
        together([partial(store.request_cancel, made.id), partial(store.resume, made.id)])
        now = store.get(made.id)
        assert now.cancel_requested
        assert now.state in (JobState.CANCELLED, JobState.QUEUED)


def test_a_job_in_its_back_off_starts_later_and_holds_up_nobody(store: JobStore) -> None:
    lost = running(store, priority=9)
    waiting = store.settle(lost, JobState.QUEUED, Reason.RECOVERING, "lost", not_before=SOON)
    assert waiting.not_before == SOON
    behind = queued(store)
    assert store.startable() == [behind]
    assert store.get(lost.id).state is JobState.QUEUED
    assert store.ahead_of(behind) == 0
    # A pause and a resume end the back-off, and so does its time.
    store.request_pause(lost.id)
    assert store.resume(lost.id).not_before is None
    assert [job.id for job in store.startable()] == [lost.id, behind.id]
    assert store.ahead_of(behind) == 1
    again = store.start_attempt(store.get(lost.id), attempt(lost, 2), Reason.STARTING, "starting")
    past = datetime.now(UTC) - timedelta(seconds=1)
    store.settle(again, JobState.QUEUED, Reason.RECOVERING, "lost", not_before=past)
    assert [job.id for job in store.startable()] == [lost.id, behind.id]
    third = store.start_attempt(store.get(lost.id), attempt(lost, 3), Reason.STARTING, "starting")
    assert third.not_before is None


def test_queued_jobs_with_wishes_are_found_wherever_they_stand(store: JobStore) -> None:
    queued(store)
    cancelled = store.request_cancel(queued(store).id)
    lost = store.request_pause(running(store).id)
    to_pause = store.settle(lost, JobState.QUEUED, Reason.RECOVERING, "lost", not_before=SOON)
    found = store.queued_with_wishes()
    assert {job.id for job in found} == {cancelled.id, to_pause.id}
