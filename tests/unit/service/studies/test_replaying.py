"""What a new driver knows of a search, from its trials and results."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from service.jobs import JobState, Reason
from service.studies.ledger import Phase, Trial, TrialResult
from service.studies.replaying import known

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def trial(number: int, configuration: int, seed: int = 0) -> Trial:
    return Trial(
        study_id="study-1",
        number=number,
        configuration=configuration,
        values={"/a": configuration},
        seed=seed,
        phase=Phase.SEARCH,
        job_id=f"job-{number}",
        state=JobState.SUCCEEDED,
        reason=Reason.COMPLETED,
        message="",
        created_at=NOW,
        last_event=1,
    )


def results(*told: tuple[int, int, float]) -> list[TrialResult]:
    return [
        TrialResult(seq, number, epoch, {"kid_pca": value}, NOW)
        for seq, (number, epoch, value) in enumerate(told, 1)
    ]


def test_results_are_means_over_the_seeds_at_epochs_that_all_have() -> None:
    trials = [trial(1, 0), trial(2, 0, seed=1), trial(3, 1)]
    (first, second) = known(trials, results((1, 1, 2.0), (2, 1, 4.0), (1, 2, 1.0), (3, 1, 7.0)), 2)
    assert (first.number, first.values) == (0, {"/a": 0})
    assert first.history == ((1, {"kid_pca": 3.0}),)
    assert first.last(["kid_pca"]) == (3.0,)
    assert second.last(["kid_pca"]) == (7.0,)
    assert second.last(["kid_pca", "recall_pca"]) is None


@pytest.mark.parametrize(
    ("state", "standing"),
    [
        (JobState.SUCCEEDED, "finished"),
        (JobState.FAILED, "failed"),
        (JobState.CANCELLED, "failed"),
        (JobState.RUNNING, "unfinished"),
        (JobState.QUEUED, "unfinished"),
        (JobState.PAUSED, "unfinished"),
    ],
)
def test_a_configuration_stands_as_the_worst_of_its_trials(state: JobState, standing: str) -> None:
    trials = [trial(1, 0), replace(trial(2, 0, seed=1), state=state)]
    assert [one.standing for one in known(trials, [], 2)] == [standing]


def test_a_configuration_whose_driver_died_before_all_its_seeds_were_stored_goes_on() -> None:
    assert [one.standing for one in known([trial(1, 0)], [], 2)] == ["unfinished"]
    assert [one.standing for one in known([trial(1, 0)], [], 1)] == ["finished"]


def test_confirmations_are_no_part_of_the_search_and_nan_is_no_result() -> None:
    confirmation = replace(trial(2, 0, seed=9), phase=Phase.CONFIRMATION)
    told = results((1, 1, 2.0), (1, 2, float("nan")), (2, 1, 9.0))
    (found,) = known([trial(1, 0), confirmation], told, 1)
    assert found.last(["kid_pca"]) == (2.0,)
