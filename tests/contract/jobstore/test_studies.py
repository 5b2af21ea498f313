"""What users ask of studies in the job store: keys, pages, trials, deletion."""

from dataclasses import replace
from functools import partial

import pytest

from service.errors import (
    IdempotencyConflict,
    InvalidQuery,
    StudyChanged,
    StudyNotFound,
    StudyStateConflict,
)
from service.jobs import JobFilter, JobState
from service.jobstore import Idempotency, JobStore
from service.jobstore.schema import STUDIES, STUDY_KEYS, TRIAL_RESULTS, TRIALS
from service.jobstore.studies import TrialFilter
from service.studies.ledger import Phase
from tests.contract.jobstore import making
from tests.contract.jobstore.making import together
from tests.trials import KIND, SCALE, add_trial, ended, new_study, running_study

KEY = Idempotency("once", "body")


def at(scale: float) -> dict[str, object]:
    return {KIND: "laplace", SCALE: scale}


def counted(store: JobStore) -> list[int]:
    with store._database.read() as connection:
        tables = (STUDIES, STUDY_KEYS, TRIALS, TRIAL_RESULTS)
        return [len(connection.execute(table.select()).all()) for table in tables]


def test_of_two_submissions_under_one_key_one_is_stored(store: JobStore) -> None:
    works = [partial(store.studies.submit, new_study(), KEY) for _ in range(3)]
    answers = together(works)
    assert sorted(is_new for _, is_new in answers) == [False, False, True]
    assert len({study.id for study, _ in answers}) == 1
    assert store.studies.replayed(KEY) == answers[0][0]
    assert store.studies.replayed(Idempotency("other", "body")) is None
    with pytest.raises(IdempotencyConflict):
        store.studies.submit(new_study(), Idempotency("once", "another body"))
    assert counted(store) == [1, 1, 0, 0]


def test_pages_have_every_study_once_also_of_one_moment(store: JobStore) -> None:
    at_once = new_study().created_at
    made = [store.ledger.add(replace(new_study(), created_at=at_once)) for _ in range(5)]
    seen: list[str] = []
    cursor = None
    while True:
        page = store.studies.page(None, cursor, 2)
        seen += [study.id for study, _ in page.studies]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == sorted((study.id for study in made), reverse=True)
    assert store.studies.page(JobState.RUNNING, None, 9).studies == ()
    with pytest.raises(InvalidQuery):
        store.studies.page(None, "none", 9)


def test_trials_and_their_last_results_are_found(store: JobStore) -> None:
    study, other = running_study(store), running_study(store)
    for number in range(4):
        results = {epoch: {"kid_pca": epoch / 10 + number} for epoch in range(1, number + 1)}
        add_trial(store, study, number, at(0.1 + number), results=results)
    add_trial(store, study, 0, at(0.1), seed=1, phase=Phase.CONFIRMATION, state=JobState.RUNNING)
    add_trial(store, other, 0, at(0.1), results={7: {"kid_pca": 7.0}})
    found = store.studies.last_results(study.id)
    assert {trial: result.epoch for trial, result in found.items()} == {2: 1, 3: 2, 4: 3}
    assert store.studies.last_results(study.id, [3, 1]) == {3: found[3]}
    assert store.studies.last_results(study.id, []) == {}
    every = store.ledger.results(study.id)
    at_epochs = store.studies.results_at(study.id, {2, 3}, [1, 3, 4])
    assert at_epochs == [r for r in every if r.epoch in (2, 3)]
    assert store.studies.results_at(study.id, {2, 3}, [4]) == [r for r in at_epochs if r.trial == 4]
    assert store.studies.results_of(study.id, [4, 3]) == [r for r in every if r.trial in (3, 4)]
    trials = store.ledger.trials(study.id)
    assert store.studies.trials(study.id, TrialFilter(), 0, None) == trials
    assert store.studies.trials(study.id, TrialFilter(), 2, 2) == trials[2:4]
    assert store.studies.trials(study.id, TrialFilter(JobState.RUNNING), 0, None) == trials[4:]
    assert store.studies.counts(study.id) == {
        (Phase.SEARCH, JobState.SUCCEEDED): 4,
        (Phase.CONFIRMATION, JobState.RUNNING): 1,
    }


def test_how_far_a_metric_was_measured_is_found_for_each_trial(store: JobStore) -> None:
    study = running_study(store)
    for number, until in enumerate((3, 0, 9)):
        add_trial(store, study, number, at(0.1 + number), results={}, measured_until=until)
    assert store.studies.measured_until(study.id, "kid_pca") == {1: 3.0, 3: 9.0}
    assert store.studies.measured_until(study.id, "kid_pca", [2, 3]) == {3: 9.0}
    assert store.studies.measured_until(study.id, "loss_nats") == {}


def test_the_stamp_changes_with_everything_that_an_answer_rests_on(store: JobStore) -> None:
    study = running_study(store)
    stamps = [store.studies.stamp(study.id)]
    trial = add_trial(store, study, 0, at(0.1), state=JobState.RUNNING)
    stamps.append(store.studies.stamp(study.id))
    store.ledger.add_results(study, [(trial.number, 1, {})], making.NOON)
    stamps.append(store.studies.stamp(study.id))
    store.request_cancel(trial.job_id)
    stamps.append(store.studies.stamp(study.id))
    store.ledger.request_pause(study.id)
    stamps.append(store.studies.stamp(study.id))
    assert len(set(stamps)) == len(stamps)
    assert store.studies.stamp(study.id) == stamps[-1]


def test_jobs_are_listed_by_study(store: JobStore) -> None:
    study = running_study(store)
    trial = add_trial(store, study, 0, at(0.1))
    making.queued(store)
    page = store.list(JobFilter(study=study.id), None, 10)
    assert [job.id for job in page.jobs] == [trial.job_id]
    assert store.list(JobFilter(study="study-none"), None, 10).jobs == ()


def test_a_deleted_study_is_nobodys_and_its_rows_go_with_its_last_job(store: JobStore) -> None:
    study, _ = store.studies.submit(new_study(), KEY)
    study = store.ledger.start(study, "starting")
    trials = [add_trial(store, study, n, at(0.1 + n), results={1: {}, 2: {}}) for n in range(2)]
    with pytest.raises(StudyStateConflict):
        store.studies.delete(study.id, None)
    done = ended(store, study)
    with pytest.raises(StudyChanged):
        store.studies.delete(study.id, done.version - 1)
    gone = store.studies.delete(study.id, done.version)
    assert set(gone) == {trial.job_id for trial in trials} == set(store.doomed(10))
    for ask in (store.ledger.get, store.ledger.retry):
        with pytest.raises(StudyNotFound):
            ask(study.id)
    assert store.studies.page(None, None, 9).studies == ()
    assert store.ledger.in_state(JobState.SUCCEEDED) == []
    assert store.studies.replayed(KEY) is None
    assert counted(store) == [1, 0, 2, 4]
    for left, job_id in ((1, gone[0]), (0, gone[1])):
        while not store.purge(job_id):
            pass
        assert counted(store) == [left, 0, left, 2 * left]
    assert store.doomed(10) == []


def test_a_fork_of_a_trial_outlives_its_study(store: JobStore) -> None:
    study = running_study(store)
    trial = add_trial(store, study, 0, at(0.1))
    fork = making.queued(store, parent=making.parent(store.get(trial.job_id)))
    ended(store, study)
    (job_id,) = store.studies.delete(study.id, None)
    while not store.purge(job_id):
        pass
    assert store.get(fork.id).parent == fork.parent
    assert counted(store) == [0, 0, 0, 0]
