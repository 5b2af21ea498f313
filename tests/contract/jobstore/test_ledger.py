"""The ledger of studies: its states, its fence, and that a kill between writes costs nothing."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from service.errors import (
    InvalidStudy,
    StateConflict,
    StudyNotFound,
    VersionConflict,
)
from service.jobs import Job, JobState, Parent, Reason
from service.jobstore import JobStore
from service.jobstore.ledger import Ledger
from service.studies.ledger import NewTrial, Phase, Study, StudyReason, Trial
from service.studies.population import taken_over
from service.studies.request import Budget, StudyRequest
from tests.contract.jobstore import making
from tests.contract.jobstore.making import NOON, together
from workers.events import ProgressRecord, StartedRecord

SCALE = "/trainer/spread/scale"
FIRST = NewTrial(0, {SCALE: 0.1}, 0, Phase.SEARCH)
SECOND = NewTrial(1, {SCALE: 0.25}, 0, Phase.SEARCH)


def new_study(id: str = "study-1", **budget: Any) -> Study:
    request = StudyRequest.model_validate(
        {
            "name": "which noise",
            "spec": making.spec().model_dump(),
            "space": {SCALE: {"loguniform": [0.05, 1.0]}},
            "objective": {"metric": "kid_pca", "mode": "min"},
            "second_objective": {"metric": "recall_pca", "mode": "max"},
            "search": {"kind": "tpe"},
            "scheduler": {"kind": "asha", "grace_epochs": 20},
            "budget": {"trials": 4, **budget},
        }
    )
    return Study(
        id=id,
        request=request,
        is_overridden=False,
        state=JobState.QUEUED,
        reason=StudyReason.SUBMITTED,
        message="submitted",
        version=1,
        created_at=NOON,
        updated_at=NOON,
    )


def running(store: JobStore, **budget: Any) -> Study:
    return store.ledger.start(store.ledger.add(new_study(**budget)), "starting")


def job_of(study: Study) -> Job:
    return replace(making.job(), study_id=study.id)


def begun(store: JobStore, study: Study, new: NewTrial = FIRST) -> Trial:
    """A trial of the study that runs."""
    trial, _ = store.ledger.add_trial(study, new, job_of(study))
    job = store.get(trial.job_id)
    store.start_attempt(job, making.attempt(job), Reason.STARTING, "starting")
    return trial


def test_a_study_is_what_was_stored(store: JobStore) -> None:
    made = store.ledger.add(new_study())
    assert store.ledger.get(made.id) == made
    assert store.ledger.in_state(JobState.QUEUED) == [made]
    assert store.ledger.in_state(JobState.RUNNING) == []
    for ask in (store.ledger.get, store.ledger.request_cancel, store.ledger.resume):
        with pytest.raises(StudyNotFound):
            ask("study-none")


def test_of_two_drivers_that_start_at_once_one_is_refused(store: JobStore) -> None:
    made = store.ledger.add(new_study())
    answers = together([partial(store.ledger.start, made, "starting")] * 2)
    started = [answer for answer in answers if isinstance(answer, Study)]
    assert len(started) == 1
    assert (started[0].state, started[0].attempt) == (JobState.RUNNING, 1)
    (refused,) = (answer for answer in answers if answer not in started)
    assert isinstance(refused, StateConflict)
    assert store.ledger.get(made.id) == started[0]


def test_a_trial_is_there_with_its_job_before_anything_starts_it(store: JobStore) -> None:
    study = running(store)
    job = job_of(study)
    trial, is_new = store.ledger.add_trial(study, FIRST, job)
    assert is_new
    assert (trial.number, trial.configuration, trial.values) == (1, 0, {SCALE: 0.1})
    assert (trial.state, trial.job_id) == (JobState.QUEUED, job.id)
    assert store.ledger.trials(study.id) == [trial]
    assert store.get(job.id) == job
    assert store.get(job.id).study_id == study.id


def test_a_trials_state_is_its_jobs(store: JobStore) -> None:
    study = running(store)
    trial = begun(store, study)
    (now,) = store.ledger.trials(study.id)
    assert (now.state, now.reason) == (JobState.RUNNING, Reason.STARTING)
    store.settle(store.get(trial.job_id), JobState.SUCCEEDED, Reason.STOPPED_EARLY, "rung")
    (now,) = store.ledger.trials(study.id)
    assert (now.state, now.reason, now.message) == (
        JobState.SUCCEEDED,
        Reason.STOPPED_EARLY,
        "rung",
    )
    assert now.ended_at == store.get(trial.job_id).ended_at


def test_a_configuration_is_stored_once_for_each_seed(store: JobStore) -> None:
    study = running(store)
    first, _ = store.ledger.add_trial(study, FIRST, job_of(study))
    other_job = job_of(study)
    assert store.ledger.add_trial(study, FIRST, other_job) == (first, False)
    again = replace(FIRST, seed=7, phase=Phase.CONFIRMATION)
    second, is_new = store.ledger.add_trial(study, again, other_job)
    assert (is_new, second.number, second.phase) == (True, 2, Phase.CONFIRMATION)
    with pytest.raises(ValueError, match="other values"):
        store.ledger.add_trial(study, replace(SECOND, configuration=0, seed=8), job_of(study))
    with pytest.raises(ValueError, match="no job of study"):
        store.ledger.add_trial(study, SECOND, making.job())
    assert store.ledger.trials(study.id) == [first, second]


def test_trials_that_are_stored_at_once_get_numbers_without_gaps(store: JobStore) -> None:
    study = running(store)
    works = [
        partial(store.ledger.add_trial, study, replace(FIRST, configuration=k), job_of(study))
        for k in (0, 1, 2, 2, 2)
    ]
    answers = together(works)
    assert sum(is_new for _, is_new in answers) == 3
    assert [trial.number for trial in store.ledger.trials(study.id)] == [1, 2, 3]


def test_a_result_is_stored_once_and_what_was_stored_first_is_given(store: JobStore) -> None:
    study = running(store)
    one, two = begun(store, study), begun(store, study, SECOND)
    [first] = store.ledger.add_results(study, [(two.number, 20, {"kid_pca": 0.5})], NOON)
    assert (first.seq, first.trial, first.epoch, first.metrics) == (1, 2, 20, {"kid_pca": 0.5})
    [again] = store.ledger.add_results(study, [(two.number, 20, {"kid_pca": 0.6})], NOON)
    assert again == first
    [second] = store.ledger.add_results(study, [(one.number, 20, {"kid_pca": math.nan})], NOON)
    assert second.seq == 2
    assert math.isnan(store.ledger.results(study.id, after=1)[0].metrics["kid_pca"])
    assert store.ledger.results(study.id)[0] == first


def test_several_results_are_stored_together_or_not_at_all(store: JobStore) -> None:
    study = running(store)
    one, two = begun(store, study), begun(store, study, SECOND)
    [known] = store.ledger.add_results(study, [(one.number, 2, {"kid_pca": 0.5})], NOON)
    reported = [
        (one.number, 1, {"kid_pca": 0.7}),
        (one.number, 2, {"kid_pca": 0.6}),
        (two.number, 1, {"kid_pca": 0.9}),
    ]
    given = store.ledger.add_results(study, reported, NOON)
    assert [(r.seq, r.trial, r.epoch) for r in given] == [(2, 1, 1), (1, 1, 2), (3, 2, 1)]
    assert given[1] == known
    before = store.ledger.results(study.id)
    assert before == [given[1], given[0], given[2]]
    waiting, _ = store.ledger.add_trial(study, replace(FIRST, configuration=7), job_of(study))
    late = [(one.number, 3, {"kid_pca": 0.4}), (waiting.number, 1, {"kid_pca": 0.4})]
    with pytest.raises(StateConflict, match="has not begun"):
        store.ledger.add_results(study, late, NOON)
    assert store.ledger.results(study.id) == before
    assert store.ledger.add_results(study, late[:1], NOON)[0].seq == 4


def test_a_trial_that_never_began_has_no_results(store: JobStore) -> None:
    study = running(store)
    trial, _ = store.ledger.add_trial(study, FIRST, job_of(study))
    with pytest.raises(StateConflict, match="trial 1 has not begun"):
        store.ledger.add_results(study, [(trial.number, 1, {})], NOON)
    assert store.ledger.results(study.id) == []


def test_what_a_trial_reported_is_stored_after_its_end_too(store: JobStore) -> None:
    study = running(store)
    trial = begun(store, study)
    store.settle(store.get(trial.job_id), JobState.SUCCEEDED, Reason.COMPLETED, "done")
    assert store.ledger.add_results(study, [(trial.number, 3, {"kid_pca": 1.0})], NOON)[0].seq == 1


def test_the_next_driver_takes_over_what_the_study_holds(store: JobStore) -> None:
    first = running(store)
    trial = begun(store, first)
    second = store.ledger.next_driver(first, "again")
    assert (second.state, second.attempt, second.reason) == (
        JobState.RUNNING,
        2,
        StudyReason.STARTING,
    )
    with pytest.raises(StateConflict):
        store.ledger.next_driver(first, "again")
    with pytest.raises(StateConflict):
        store.ledger.add_results(first, [(trial.number, 1, {})], NOON)
    assert store.ledger.add_results(second, [(trial.number, 1, {})], NOON)[0].seq == 1


def test_open_trials_are_those_that_have_not_ended(store: JobStore) -> None:
    study = running(store)
    one, two = begun(store, study), begun(store, study, SECOND)
    store.settle(store.get(one.job_id), JobState.SUCCEEDED, Reason.COMPLETED, "done")
    assert [trial.number for trial in store.ledger.open_trials(study.id)] == [two.number]
    assert store.ledger.epochs(study.id) == 0.0


def test_what_a_search_has_used_counts_side_by_side_once_and_a_fork_from_where_it_began(
    store: JobStore,
) -> None:
    study = running(store)
    values = taken_over({SCALE: 0.5}, {SCALE: 0.4}, 3)
    third = NewTrial(2, values, 0, Phase.SEARCH)
    fresh = NewTrial(0, {SCALE: 0.1}, 1, Phase.CONFIRMATION)
    parent = Parent("job-0", "00000003", "jobs/job-0/parent", "sha256:0", "train_state")
    forked = replace(job_of(study), parent=parent)
    store.ledger.add_trial(study, third, forked)
    trials = [begun(store, study, new) for new in (FIRST, SECOND, fresh)]
    trials.append(store.ledger.trials(study.id)[0])
    for trial in trials:
        job = store.get(trial.job_id)
        if not job.attempt:
            store.start_attempt(job, making.attempt(job), Reason.STARTING, "starting")
        started = StartedRecord(at=NOON, pid=1, host="here", total_steps=90, steps_per_epoch=10)
        progress = ProgressRecord(at=NOON, step=60, epoch=6.0)
        store.ingest(job.id, 1, 0, [started, progress])
    assert store.ledger.epochs(study.id) == 6 + 6 + (6 - 3)
    for trial in trials:
        store.settle(store.get(trial.job_id), JobState.SUCCEEDED, Reason.COMPLETED, "done")
    searched = [trials[0], trials[1], trials[3]]
    attempts = [store.attempts(trial.job_id)[-1] for trial in searched]
    ends = [attempt.ended_at for attempt in attempts if attempt.ended_at is not None]
    whole = max(ends) - min(attempt.created_at for attempt in attempts)
    assert store.studies.searched_s(study.id) == pytest.approx(whole.total_seconds())
    assert store.studies.count_by_state() == {JobState.RUNNING: 1}
    assert store.studies.count_trials() == {(JobState.SUCCEEDED, Reason.COMPLETED): 4}


def test_a_trial_that_waits_has_succeeded_when_its_study_wants_no_more_of_it(
    store: JobStore,
) -> None:
    study = running(store)
    one, two = begun(store, study), begun(store, study, SECOND)
    store.settle(store.get(one.job_id), JobState.QUEUED, Reason.RECOVERING, "lost")
    store.request_pause(two.job_id)
    store.settle(store.get(two.job_id), JobState.PAUSED, Reason.PAUSED, "paused")
    for trial in (one, two):
        job = store.get(trial.job_id)
        with pytest.raises(StateConflict):
            store.settle(job, JobState.SUCCEEDED, Reason.COMPLETED, "done")
        ended = store.settle(job, JobState.SUCCEEDED, Reason.STOPPED_BY_STUDY, "rung")
        assert (ended.state, ended.ended_at is not None) == (JobState.SUCCEEDED, True)


def test_what_an_earlier_driver_still_writes_is_refused(store: JobStore) -> None:
    old = running(store)
    trial = begun(store, old)
    lost = store.ledger.settle(old, JobState.QUEUED, StudyReason.RECOVERING, "driver lost")
    writes: list[Callable[[], object]] = [
        partial(store.ledger.add_trial, old, SECOND, job_of(old)),
        partial(store.ledger.add_results, old, [(trial.number, 1, {})], NOON),
        partial(store.ledger.settle, old, JobState.SUCCEEDED, StudyReason.COMPLETED, "done"),
        partial(store.ledger.explain, old, StudyReason.SEARCHING, "searching"),
    ]
    new = store.ledger.start(lost, "again")
    assert new.attempt == 2
    for write in writes:
        with pytest.raises(StateConflict):
            write()
    assert store.ledger.results(old.id) == []
    assert len(store.ledger.trials(old.id)) == 1
    assert store.ledger.add_results(new, [(trial.number, 1, {})], NOON)[0].seq == 1


@pytest.mark.parametrize(
    "wish",
    [
        lambda ledger, study: ledger.request_pause(study.id),
        lambda ledger, study: ledger.request_cancel(study.id),
        lambda ledger, study: ledger.extend(study.id, Budget(trials=9)),
    ],
)
def test_an_end_that_has_not_seen_the_last_wish_is_refused(
    store: JobStore, wish: Callable[[Ledger, Study], Study]
) -> None:
    study = running(store)
    wished = wish(store.ledger, study)
    with pytest.raises(StateConflict, match="that were seen"):
        store.ledger.settle(study, JobState.SUCCEEDED, StudyReason.COMPLETED, "done")
    assert store.ledger.get(study.id) == wished
    # Trials go on, until the driver has seen it.
    begun(store, study)
    store.ledger.settle(wished, JobState.QUEUED, StudyReason.RECOVERING, "seen")


def test_a_finished_study_goes_on_when_its_budget_is_raised(store: JobStore) -> None:
    study = running(store, max_wall_s=60.0)
    done = store.ledger.settle(study, JobState.SUCCEEDED, StudyReason.COMPLETED, "done")
    assert done.ended_at is not None
    for smaller in (
        Budget(trials=3),
        Budget(trials=9, max_wall_s=1.0),
        Budget(trials=4, max_epochs=9),
    ):
        with pytest.raises(InvalidStudy) as refused:
            store.ledger.extend(study.id, smaller)
        assert refused.value.errors[0].pointer.startswith("/budget/")
    assert store.ledger.extend(study.id, done.request.budget) == done
    with pytest.raises(VersionConflict):
        store.ledger.extend(study.id, Budget(trials=9), expected_version=done.version - 1)
    more = store.ledger.extend(study.id, Budget(trials=9), expected_version=done.version)
    assert (more.state, more.reason, more.ended_at) == (
        JobState.QUEUED,
        StudyReason.EXTENDED,
        None,
    )
    assert more.request == done.request.model_copy(update={"budget": Budget(trials=9)})
    assert store.ledger.start(more, "again").attempt == 2


def test_wishes_of_studies_follow_those_of_jobs(store: JobStore) -> None:
    study = running(store)
    ledger = store.ledger
    wished = ledger.request_pause(study.id)
    assert (wished.state, wished.pause_requested) == (JobState.RUNNING, True)
    assert ledger.request_pause(study.id) == wished
    assert not ledger.resume(study.id).pause_requested
    paused = ledger.settle(
        ledger.request_pause(study.id), JobState.PAUSED, StudyReason.PAUSED, "paused"
    )
    assert (paused.state, paused.pause_requested) == (JobState.PAUSED, False)
    assert ledger.resume(study.id).state is JobState.QUEUED
    assert ledger.request_pause(study.id).state is JobState.PAUSED
    cancelled = ledger.request_cancel(study.id)
    assert (cancelled.state, cancelled.ended_at is not None) == (JobState.CANCELLED, True)
    for wish in (ledger.resume, ledger.request_pause):
        with pytest.raises(StateConflict):
            wish(study.id)
    with pytest.raises(StateConflict, match="retry"):
        ledger.extend(study.id, Budget(trials=9))
    again = ledger.retry(study.id)
    assert (again.state, again.cancel_requested, again.ended_at) == (JobState.QUEUED, False, None)
    assert ledger.retry(study.id) == again
    ledger.start(again, "starting")
    with pytest.raises(StateConflict):
        ledger.retry(study.id)


def test_trials_end_with_a_study_that_waits_and_are_retried_with_it(store: JobStore) -> None:
    study = running(store)
    trial, _ = store.ledger.add_trial(study, SECOND, job_of(study))
    other, _ = store.ledger.add_trial(study, FIRST, job_of(study))
    store.request_pause(trial.job_id)
    store.request_cancel(other.job_id)  # which is granted in the watcher's next round
    wished = store.ledger.request_pause(study.id)
    store.ledger.settle(wished, JobState.PAUSED, StudyReason.PAUSED, "paused")
    store.ledger.request_cancel(study.id)
    cancelled = store.ledger.trials(study.id)
    assert [trial.state for trial in cancelled] == [JobState.CANCELLED] * 2
    assert store.queued_with_wishes() == []
    # At once, and not when a place is free: what comes between would lose the wish.
    store.ledger.retry(study.id)
    store.ledger.request_pause(study.id)
    store.ledger.resume(study.id)
    for again in store.ledger.trials(study.id):
        assert (again.state, again.reason) == (JobState.QUEUED, Reason.RETRIED)
        assert not store.get(again.job_id).cancel_requested


def test_a_trial_is_not_the_queues_and_is_not_deleted_alone(store: JobStore) -> None:
    study = running(store)
    waiting, _ = store.ledger.add_trial(study, SECOND, job_of(study))
    assert (store.startable(), store.turns.first(9), store.oldest_queued_at()) == ([], [], None)
    own = making.queued(store)
    assert store.ahead_of(own) == store.turns.ahead_of_a_new_one(own.priority) - 1 == 0
    store.request_cancel(waiting.job_id)
    assert [job.id for job in store.queued_with_wishes()] == [waiting.job_id]
    trial = begun(store, study)
    assert store.running() == []
    assert [job.id for job in store.running_trials()] == [trial.job_id]
    assert [job.id for job in store.at_work()] == [trial.job_id]
    assert store.executors_at_work() == {store.attempts(trial.job_id)[-1].executor_id}
    ended = store.settle(store.get(trial.job_id), JobState.SUCCEEDED, Reason.COMPLETED, "done")
    assert (store.at_work(), store.executors_at_work()) == ([], frozenset())
    with pytest.raises(StateConflict, match=f"trial of {study.id}"):
        store.delete(ended.id)
    assert store.delete_expired({JobState.SUCCEEDED: 0.0}, 10) == []


# --- kills ----------------------------------------------------------------------------------------

CONFIGURATIONS = tuple({SCALE: round(0.1 * (k + 1), 1)} for k in range(3))
EPOCHS = (1, 2)


class Killed(Exception):
    """The driver died."""


def write(store: JobStore, study: Study) -> Iterator[None]:
    """A driver of the plainest kind, which may be killed wherever it yields: after each write."""
    ledger = store.ledger
    done = {(result.trial, result.epoch) for result in ledger.results(study.id)}
    for number, values in enumerate(CONFIGURATIONS):
        new = NewTrial(number, values, 0, Phase.SEARCH)
        trial, _ = ledger.add_trial(study, new, job_of(study))
        yield
        job = store.get(trial.job_id)
        if job.state is JobState.SUCCEEDED:
            continue
        if job.state is JobState.RUNNING:  # of the driver before
            job = store.settle(job, JobState.QUEUED, Reason.RECOVERING, "lost", Reason.WORKER_LOST)
            yield
        attempt = making.attempt(job, job.attempt + 1)
        job = store.start_attempt(job, attempt, Reason.STARTING, "starting")
        yield
        for epoch in EPOCHS:
            if (trial.number, epoch) not in done:
                reported = [(trial.number, epoch, {"kid_pca": float(epoch)})]
                ledger.add_results(study, reported, NOON)
                yield
        store.settle(job, JobState.SUCCEEDED, Reason.COMPLETED, "done")
        yield


def drive(store: JobStore, study: Study, writes: int | None) -> int:
    """How many writes were made; killed after so many."""
    made = 0
    for _ in write(store, study):
        made += 1
        if made == writes:
            raise Killed
    return made


def test_a_kill_between_any_two_writes_loses_nothing_and_repeats_nothing(store: JobStore) -> None:
    for writes in range(1, 3 * (3 + len(EPOCHS)) + 1):
        study = store.ledger.start(store.ledger.add(new_study(f"study-{writes}")), "starting")
        with pytest.raises(Killed):
            drive(store, study, writes)
        lost = store.ledger.settle(study, JobState.QUEUED, StudyReason.RECOVERING, "lost")
        drive(store, store.ledger.start(lost, "again"), None)
        trials = store.ledger.trials(study.id)
        assert [(t.number, t.configuration, t.values) for t in trials] == [
            (k + 1, k, values) for k, values in enumerate(CONFIGURATIONS)
        ]
        assert {trial.state for trial in trials} == {JobState.SUCCEEDED}
        results = store.ledger.results(study.id)
        assert [(r.seq, r.trial, r.epoch) for r in results] == [
            (1 + k * len(EPOCHS) + e, k + 1, epoch)
            for k in range(3)
            for e, epoch in enumerate(EPOCHS)
        ]
        # What had succeeded was started once; the one that ran was started again at most once.
        attempts = [len(store.attempts(trial.job_id)) for trial in trials]
        assert sum(attempts) <= 4


def test_a_write_that_fails_leaves_nothing_of_itself(store: JobStore) -> None:
    study = running(store)
    job = job_of(study)
    store.ledger.add_trial(study, FIRST, job)
    # The job's id is taken, so that the second half of the transaction cannot be written.
    with pytest.raises(IntegrityError):
        store.ledger.add_trial(study, SECOND, job)
    assert [trial.configuration for trial in store.ledger.trials(study.id)] == [0]
    trial, is_new = store.ledger.add_trial(study, SECOND, job_of(study))
    assert (is_new, trial.number) == (True, 2)
