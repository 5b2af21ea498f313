"""Population-based training in the ledger: who goes on from whose checkpoint, and that a schedule
which was found so is one job."""

from typing import Any

import pytest

from service.errors import InvalidStudy
from service.jobs import JobState, Reason
from service.studies.configuring import spec_of
from service.studies.ledger import Phase, Study, Trial
from service.studies.population import SCALE, SCHEDULE, Stretch, begun_at, schedule, taken_over
from service.studies.request import Budget
from tests.factories import request
from tests.played_driver import PlayedCluster
from tests.studying import METRIC, Studied, study_spec

EPOCHS, INTERVAL = 6, 2


def population(studied: Studied, **fields: Any) -> Study:
    body: dict[str, Any] = {
        "spec": study_spec(epochs=EPOCHS),
        "space": {SCALE: {"loguniform": [0.05, 1.0]}},
        "scheduler": {"kind": "pbt", "interval_epochs": INTERVAL},
        "budget": {"trials": 3},
        "confirmation": {"top": 1, "seeds": [1, 2]},
        "override_guard": True,
    }
    return studied.add(**{**body, **fields})


def whole_lives(studied: Studied, study: Study) -> dict[int, Trial]:
    """The trials by configuration, once each has trained exactly its epochs, and none twice."""
    trials = {trial.configuration: trial for trial in studied.trials(study)}
    left = {EPOCHS: 3}
    for number, trial in trials.items():
        reported = studied.epochs(study)[trial.number]
        assert reported == list(range(begun_at(trial.values) + 1, reported[-1] + 1))
        if reported[-1] != EPOCHS:
            assert (trial.state, trial.reason) == (JobState.SUCCEEDED, Reason.STOPPED_BY_STUDY)
            left[reported[-1]] = left.get(reported[-1], 0) + 1
        attempts = studied.service.jobs.attempts(trial.job_id)
        steps = [attempt.resumed_from_step or 0 for attempt in attempts]
        ends = [attempt.last_step for attempt in attempts]
        assert steps[1:] == ends[:-1], f"configuration {number} has repeated or lost steps"
    assert left == {2: 1, 4: 1, EPOCHS: 3}
    return trials


def test_a_population_exchanges_by_forks_and_its_schedule_is_one_job(studied: Studied) -> None:
    study = studied.wait_for_end(population(studied))
    assert study.state is JobState.SUCCEEDED, study.message
    trials = whole_lives(studied, study)
    assert sorted(trials) == [0, 1, 2, 3, 4]
    jobs = studied.service.jobs
    for number, epoch in ((3, 2), (4, 4)):
        job = jobs.get(trials[number].job_id)
        assert job.parent is not None
        (other,) = [t for t in trials.values() if t.job_id == job.parent.job_id]
        (copied,) = [c for c in jobs.checkpoints(other.job_id) if c.id == job.parent.checkpoint_id]
        assert copied.epoch == epoch
        assert trials[number].values == taken_over(
            other.values, {SCALE: trials[number].values[SCALE]}, epoch
        )
        assert jobs.attempts(job.id)[0].resumed_from_step == copied.step
    # The schedule from its first step: the same bits as those that the population computed.
    last = trials[4]
    alone = studied.service.submit(request(spec_of(study.request.spec, last.values, 0)))
    studied.service.run_to_end(alone)
    values = [jobs.checkpoints(job_id)[-1].metrics for job_id in (alone.id, last.job_id)]
    assert values[0][METRIC] == values[1][METRIC]
    # Fresh seeds confirm the schedule, whole.
    (best,) = {trial.configuration for trial in studied.trials(study, Phase.CONFIRMATION)}
    for trial in studied.trials(study, Phase.CONFIRMATION):
        job = jobs.get(trial.job_id)
        assert job.parent is None
        assert job.spec.model_copy(update={"seed": 0}) == jobs.get(trials[best].job_id).spec
    assert studied.service.jobs.ledger.epochs(study.id) == 3 * EPOCHS


@pytest.mark.parametrize("cut", [2, 8, 14])
def test_a_driver_that_dies_after_any_result_changes_nothing(
    studied: Studied, cluster: PlayedCluster, cut: int
) -> None:
    study = population(studied, confirmation={"top": 1, "seeds": [1]})
    ledger = studied.service.jobs.ledger
    studied.wait(study, lambda now: len(ledger.results(now.id)) >= cut)
    cluster.kill_driver()
    study = studied.wait_for_end(study)
    assert study.state is JobState.SUCCEEDED, study.message
    assert sorted(whole_lives(studied, study)) == [0, 1, 2, 3, 4]


def test_a_paused_population_goes_on_where_it_was(studied: Studied) -> None:
    study = population(studied)
    ledger = studied.service.jobs.ledger
    studied.wait(study, lambda now: len(ledger.results(now.id)) >= 5)
    ledger.request_pause(study.id)
    studied.wait(study, lambda now: now.state is JobState.PAUSED)
    ledger.resume(study.id)
    study = studied.wait_for_end(study)
    assert study.state is JobState.SUCCEEDED, study.message
    whole_lives(studied, study)


def test_a_schedule_is_read_from_what_led_to_a_configuration() -> None:
    first = taken_over({SCALE: 0.5}, {SCALE: 0.4}, 3)
    second = taken_over(first, {SCALE: 0.3}, 6)
    assert schedule({SCALE: 0.5}) == (Stretch(0, 0.5),)
    assert schedule(second) == (Stretch(0, 0.5), Stretch(3, 0.4), Stretch(6, 0.3))
    assert [begun_at(values) for values in ({SCALE: 0.5}, first, second)] == [0, 3, 6]
    assert second[SCHEDULE]["kind"] == "steps"


def test_nobody_joins_a_population_later(studied: Studied) -> None:
    study = population(studied)
    with pytest.raises(InvalidStudy, match="size of the population"):
        studied.service.jobs.ledger.extend(study.id, Budget(trials=4))
    raised = studied.service.jobs.ledger.extend(study.id, Budget(trials=3, max_epochs=None))
    assert raised.request.budget.trials == 3
