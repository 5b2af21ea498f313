"""What is answered of population-based training: a schedule of the scale, which one job trains."""

from typing import Any

import pytest

from service.jobs import Reason
from service.studies.ledger import Study
from service.studies.population import SCHEDULE, taken_over
from tests.trials import SCALE, add_trial, confirm, ended, running_study
from tests.unit.api.conftest import Quiet
from tests.unit.api.test_problems import problem

FIRST = {SCALE: 0.8}
FOUND = taken_over(taken_over(FIRST, {SCALE: 0.5}, 3), {SCALE: 0.4}, 6)
STRETCHES = [
    {"from_epoch": 0, "scale": 0.8},
    {"from_epoch": 3, "scale": 0.5},
    {"from_epoch": 6, "scale": 0.4},
]


@pytest.fixture
def study(quiet: Quiet) -> Study:
    """Three to begin with, of which the last has taken over from the first twice."""
    made = running_study(
        quiet.jobs,
        space={SCALE: {"loguniform": [0.05, 1.0]}},
        scheduler={"kind": "pbt", "interval_epochs": 3},
        budget={"trials": 3},
    )
    stopped = Reason.STOPPED_BY_STUDY
    for number, values, epoch, value, reason in (
        (0, FIRST, 9, 0.3, Reason.COMPLETED),
        (1, {SCALE: 0.6}, 9, 0.5, Reason.COMPLETED),
        (2, {SCALE: 0.1}, 3, 0.9, stopped),
        (3, taken_over(FIRST, {SCALE: 0.5}, 3), 6, 0.9, stopped),
        (4, FOUND, 9, 0.2, Reason.COMPLETED),
    ):
        results = {epoch: {"kid_pca": value}}
        add_trial(quiet.jobs, made, number, values, results=results, reason=reason)
    return made


def asked(quiet: Quiet, study: Study, below: str) -> Any:
    answer = quiet.http.get(f"/v1/studies/{study.id}/{below}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_best_of_a_population_is_a_schedule_with_its_spec(quiet: Quiet, study: Study) -> None:
    candidate = asked(quiet, study, "best")
    assert (candidate["configuration"], candidate["schedule"]) == (4, STRETCHES)
    confirm(quiet.jobs, study, 4, FOUND, kid_pca=[0.3] * 5)
    confirm(quiet.jobs, study, 0, FIRST, kid_pca=[0.4] * 5)
    confirm(quiet.jobs, study, 1, {SCALE: 0.6}, kid_pca=[0.5] * 5)
    ended(quiet.jobs, study)
    best = asked(quiet, study, "best")
    assert (best["stage"], best["configuration"], best["schedule"]) == ("confirmed", 4, STRETCHES)
    assert "a schedule of the scale over the epochs" in best["message"]
    spread = best["spec"]["trainer"]["spread"]
    assert (spread["scale"], spread["schedule"]) == (0.4, FOUND[SCHEDULE])
    posted = quiet.http.post("/v1/jobs", json={"spec": best["spec"]})
    assert posted.status_code == 201, posted.text
    # A promotion trains the same, as one job.
    promoted = quiet.http.post(f"/v1/studies/{study.id}/promote", json={})
    assert promoted.status_code == 202, promoted.text
    job = promoted.json()["job"]
    assert job["parent"] is None
    assert job["labels"] == {"study": study.id}
    assert job["spec"] == posted.json()["spec"]
    on = {"start": "train_state", "epochs": 12}
    problem(
        quiet.http.post(f"/v1/studies/{study.id}/promote", json=on), 404, "no-answer-yet"
    )  # no trial of this test has a checkpoint


def test_trials_curves_and_tables_say_that_a_scale_is_the_last_of_a_schedule(
    quiet: Quiet, study: Study
) -> None:
    last = asked(quiet, study, "trials")["trials"][-1]
    assert last["values"] == FOUND
    curve = asked(quiet, study, f"curve?parameter={SCALE}")
    assert any("schedules of the scale" in note for note in curve["notes"])
    table = quiet.http.get(f"/v1/studies/{study.id}/trials?format=csv").text
    assert SCHEDULE in table.splitlines()[0]
    parallel = asked(quiet, study, "parallel")
    assert [axis["pointer"] for axis in parallel["parameters"]] == [SCALE]
    found = next(line for line in parallel["lines"] if line["configuration"] == 4)
    assert (found["values"], found["is_stopped"]) == (FOUND, False)
    few = quiet.http.get(f"/v1/studies/{study.id}/importance?evaluator=ped_anova")
    problem(few, 404, "no-answer-yet")
    for number in range(5, 10):
        add_trial(quiet.jobs, study, number, {SCALE: 0.1 * number}, results={9: {"kid_pca": 0.4}})
    importance = asked(quiet, study, "importance?evaluator=ped_anova")
    assert [(one["pointer"], one["trials"]) for one in importance["shares"]] == [(SCALE, 8)]


def test_any_study_promotes_a_configuration_from_the_first_step(quiet: Quiet) -> None:
    made = running_study(quiet.jobs)
    add_trial(quiet.jobs, made, 0, {SCALE: 0.3}, results={9: {"kid_pca": 0.3}})
    body = {"configuration": 0, "start": "scratch", "epochs": 20}
    answer = quiet.http.post(f"/v1/studies/{made.id}/promote", json=body)
    assert answer.status_code == 202, answer.text
    job = answer.json()["job"]
    assert job["parent"] is None
    trainer = job["spec"]["trainer"]
    assert (trainer["epochs"], trainer["spread"]["scale"]) == (20, 0.3)
