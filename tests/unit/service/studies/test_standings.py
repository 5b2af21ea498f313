"""What is read of a study's trials, kept between two questions, and said of its best."""

from datetime import UTC, datetime

from service.jobs import JobState, Reason
from service.jobstore import JobStore
from service.studies.best import best
from service.studies.ledger import Study, StudyReason
from service.studies.standings import StandingsCache
from tests.factories import ica_spec
from tests.trials import KIND, SCALE, add_trial, confirm, running_study

VALUES = [{KIND: "laplace", SCALE: 0.1 * k} for k in range(1, 6)]


def agree(jobs: JobStore, cache: StandingsCache, study: Study) -> None:
    kept, anew = cache.get(study.id), StandingsCache(jobs).get(study.id)
    assert kept.outcomes == anew.outcomes
    assert kept.last == anew.last
    assert (kept.study, kept.stamp) == (anew.study, anew.stamp)


def test_what_is_brought_up_is_what_a_first_reading_gives(jobs: JobStore) -> None:
    cache = StandingsCache(jobs)
    study = running_study(jobs)
    agree(jobs, cache, study)
    add_trial(jobs, study, 0, VALUES[0], results={3: {"kid_pca": 0.5}, 9: {"kid_pca": 0.2}})
    running = add_trial(jobs, study, 1, VALUES[1], state=JobState.RUNNING)
    agree(jobs, cache, study)
    now = datetime.now(UTC)
    jobs.ledger.add_results(study, [(running.number, 3, {"kid_pca": 0.4})], now)
    agree(jobs, cache, study)
    assert cache.get(study.id).outcomes[1].epoch == 3
    jobs.settle(jobs.get(running.job_id), JobState.FAILED, Reason.DIVERGED, "diverged")
    agree(jobs, cache, study)
    # A result that comes after the trial's end, of a metric that the others lack.
    jobs.ledger.add_results(study, [(1, 12, {"recall_pca": 0.7})], now)
    agree(jobs, cache, study)
    assert cache.get(study.id).outcomes[0].metrics == {"kid_pca": 0.2, "recall_pca": 0.7}
    confirm(jobs, study, 0, VALUES[0], kid_pca=[0.3] * 5)
    agree(jobs, cache, study)
    cancelled = add_trial(jobs, study, 2, VALUES[2], state=JobState.QUEUED)
    jobs.request_pause(cancelled.job_id)
    jobs.request_cancel(cancelled.job_id)
    agree(jobs, cache, study)
    failed = jobs.ledger.settle(study, JobState.FAILED, StudyReason.DRIVER_LOST, "lost")
    agree(jobs, cache, failed)
    jobs.ledger.retry(study.id)
    agree(jobs, cache, study)
    assert cache.get(study.id).outcomes[-1].trial.state is JobState.QUEUED


def test_what_the_interval_of_ica_says_is_told(jobs: JobStore) -> None:
    tolerance = "/trainer/tolerance"
    study = running_study(
        jobs,
        spec=ica_spec().model_dump(),
        space={tolerance: {"grid": [1e-6, 1e-3]}},
        objective={"metric": "amari", "mode": "min"},
    )
    add_trial(jobs, study, 0, {tolerance: 1e-6}, results={9: {"amari": 0.1}})
    assert "fits differ" not in best(StandingsCache(jobs).get(study.id)).message
    confirm(jobs, study, 0, {tolerance: 1e-6}, amari=[0.1, 0.2, 0.1, 0.2, 0.1])
    jobs.ledger.settle(study, JobState.SUCCEEDED, StudyReason.COMPLETED, "ended")
    assert best(StandingsCache(jobs).get(study.id)).message.endswith(
        "so the interval says how far fits differ, and not how far data do."
    )
    other = running_study(jobs)
    add_trial(jobs, other, 0, VALUES[0], results={9: {"kid_pca": 0.2}})
    confirm(jobs, other, 0, VALUES[0], kid_pca=[0.1, 0.2, 0.1, 0.2, 0.1])
    jobs.ledger.settle(other, JobState.SUCCEEDED, StudyReason.COMPLETED, "ended")
    found = best(StandingsCache(jobs).get(other.id))
    assert found.stage == "confirmed"
    assert "fits differ" not in found.message
