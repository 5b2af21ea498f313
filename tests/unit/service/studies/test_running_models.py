"""What trials of a running study are ranked by, and which end for their model's health.

The driver is played, the trials are real jobs in threads.
"""

from typing import Any

import pytest

from service.jobs import JobState, Reason
from service.studies.ledger import Phase, StudyReason
from tests.factories import ica_spec
from tests.studying import RATE, Studied, study_spec
from tests.trials import KIND, SCALE, SPEC


def test_fits_of_ica_are_ranked_by_their_last_iteration_alone(studied: Studied) -> None:
    study = studied.add(
        spec=ica_spec(samples=200, tolerance=0.01).model_dump(),
        space={"/trainer/noise_variance": {"loguniform": [0.01, 1.0]}},
        objective={"metric": "error_relative", "mode": "min"},
        budget={"trials": 3},
        confirmation={"top": 1, "seeds": [1]},
    )
    ended = studied.wait_for_end(study)
    assert (ended.state, ended.reason) == (JobState.SUCCEEDED, StudyReason.COMPLETED)
    jobs, searched = studied.service.jobs, studied.trials(study)
    results = {result.trial: result for result in jobs.ledger.results(study.id)}
    assert [len(of_one) for of_one in studied.epochs(study).values()] == [1] * (3 + 1)
    for trial in searched:
        said = [
            (event.data["epoch"], event.data["values"]["error_relative"])
            for event in jobs.events(trial.job_id, 0, 1000, ["metrics"])
            if "error_relative" in event.data["values"]
        ]
        assert len(said) > 1
        result = results[trial.number]
        assert (result.epoch, result.metrics["error_relative"]) == max(said)
    best = min(searched, key=lambda trial: results[trial.number].metrics["error_relative"])
    assert studied.of_fresh_seeds(study) == [(best.configuration, 1)]


def test_noises_are_ranked_by_kid_where_a_run_measures_it(studied: Studied) -> None:
    study = studied.add(
        spec={**SPEC, "trainer": {**SPEC["trainer"], "epochs": 2}},
        space={KIND: {"choice": ["gaussian", "laplace"]}, SCALE: {"loguniform": [0.05, 1.0]}},
        objective={"metric": "kid", "mode": "min"},
        budget={"trials": 3},
        confirmation={"top": 1, "seeds": [1]},
    )
    ended = studied.wait_for_end(study)
    assert (ended.state, ended.reason) == (JobState.SUCCEEDED, StudyReason.COMPLETED)
    assert list(studied.epochs(study).values()) == [[2]] * (3 + 1)  # measured at the end
    searched = studied.trials(study)
    assert {trial.values[KIND] for trial in searched} == {"gaussian", "laplace"}
    found = {r.trial: r.metrics["kid_pca"] for r in studied.service.jobs.ledger.results(study.id)}
    best = min(searched, key=lambda trial: found[trial.number])
    assert studied.of_fresh_seeds(study) == [(best.configuration, 1)]


# Noise in which the data is lost, and steps that are large enough to learn so in some epochs.
DROWNED = {"spread": {"kind": "gaussian", "scale": 3.0}, "optimizer": {"learning_rate": 0.01}}


@pytest.mark.parametrize(
    ("trainer", "every", "active_share", "reason", "told"),
    [
        ({}, 1, 1.0, Reason.DEAD_LATENTS, "latents"),  # which none of these has
        (DROWNED, 10, 0.0, Reason.POSTERIOR_COLLAPSE, "has become the prior"),
    ],
)
def test_a_trial_whose_latents_say_nothing_is_stopped_with_the_reason(
    studied: Studied,
    trainer: dict[str, Any],
    every: int,
    active_share: float,
    reason: Reason,
    told: str,
) -> None:
    spec = study_spec(epochs=100_000, every=every)
    study = studied.add(
        spec={**spec, "trainer": {**spec["trainer"], **trainer}},
        space={"/trainer/log_std_bound": {"choice": [8.0]}},
        stop_unhealthy={"evaluations": 2, "active_share": active_share},
        budget={"trials": 1},
    )
    ended = studied.wait_for_end(study)
    assert (ended.state, ended.reason) == (JobState.FAILED, StudyReason.NO_RESULT)
    (trial,) = studied.trials(study)
    assert (trial.state, trial.reason) == (JobState.SUCCEEDED, reason)
    assert told in trial.message
    assert studied.service.jobs.checkpoints(trial.job_id)[-1].has_train_state


def test_a_trial_that_diverges_fails_with_that_reason_and_its_study_goes_on(
    studied: Studied,
) -> None:
    spec = study_spec()
    decaying = {"kind": "adamw", "weight_decay": 10.0}  # by 10 * 10, which makes weights infinite
    study = studied.add(
        spec={**spec, "trainer": {**spec["trainer"], "optimizer": decaying}},
        space={RATE: {"grid": [10.0, 1e-3]}},
        concurrency=1,
        confirmation={"top": 2, "seeds": [1]},
    )
    ended = studied.wait_for_end(study)
    assert (ended.state, ended.reason) == (JobState.SUCCEEDED, StudyReason.COMPLETED)
    searched = studied.trials(study)
    reasons = [trial.reason for trial in searched]
    assert Reason.COMPLETED in reasons[reasons.index(Reason.DIVERGED) :]  # it went on
    for trial in searched:
        is_wild = trial.values[RATE] == 10.0
        assert (trial.state is JobState.FAILED) == (trial.reason is Reason.DIVERGED) == is_wild
    assert {trial.values[RATE] for trial in studied.trials(study, Phase.CONFIRMATION)} == {1e-3}
