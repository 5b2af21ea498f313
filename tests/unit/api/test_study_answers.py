"""The trials and the best of a study over HTTP."""

import csv
import io
import math
from typing import Any

import pytest

from api.bodies import BestBody
from api.study_words import told_of_best
from service.jobs import JobState, Reason
from service.jobstore import JobStore
from service.studies.ledger import Phase, Study, StudyReason
from service.studies.request import Budget
from tests.trials import KIND, SCALE, add_trial, confirm, ended, new_study, running_study
from tests.unit.api.conftest import Quiet
from tests.unit.api.test_problems import problem
from workers.spec import JOB_SPEC

NET = "kid_efficientnet_lite0_40"


def at(scale: float, kind: str = "laplace") -> dict[str, Any]:
    return {KIND: kind, SCALE: scale}


SCALES = [at(0.1), at(0.2), at(0.3), at(0.4)]


def searched(jobs: JobStore, study: Study, values: list[float]) -> None:
    for number, value in enumerate(values):
        add_trial(jobs, study, number, SCALES[number], results={9: {"kid_pca": value}})


def best_of(quiet: Quiet, study: Study) -> dict[str, Any]:
    answer = quiet.http.get(f"/v1/studies/{study.id}/best")
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_trials_are_listed_page_by_page_with_what_they_reported_last(quiet: Quiet) -> None:
    study = running_study(quiet.jobs)
    for number in range(5):
        results = {3: {"kid_pca": 9.0}, 6: {"kid_pca": float(number), "loss_nats": math.nan}}
        add_trial(quiet.jobs, study, number, at(0.1 + number / 10), results=results)
    add_trial(quiet.jobs, study, 0, at(0.1), seed=1, phase=Phase.CONFIRMATION, results={})
    path = f"/v1/studies/{study.id}/trials"
    page = quiet.http.get(f"{path}?limit=4").json()
    listed = page["trials"]
    following = quiet.http.get(f"{path}?limit=4&cursor={page['next_cursor']}").json()
    listed += following["trials"]
    assert [trial["number"] for trial in listed] == [1, 2, 3, 4, 5, 6]
    assert following["next_cursor"] is None
    first, last = listed[0], listed[-1]
    assert (first["epoch"], first["metrics"]) == (6, {"kid_pca": 0.0, "loss_nats": None})
    assert (first["state"], first["reason"]) == ("succeeded", "completed")
    assert first["links"]["job"] == f"/v1/jobs/{first['job']}"
    assert quiet.http.get(first["links"]["job"]).json()["study"] == study.id
    assert (last["phase"], last["seed"], last["epoch"]) == ("confirmation", 1, None)
    for query, numbers in (
        ("phase=confirmation", [6]),
        ("configuration=0", [1, 6]),
        ("state=running", []),
    ):
        found = quiet.http.get(f"{path}?{query}").json()["trials"]
        assert [trial["number"] for trial in found] == numbers
    other = running_study(quiet.jobs)
    foreign = quiet.http.get(f"/v1/studies/{other.id}/trials?cursor={page['next_cursor']}")
    problem(foreign, 422, "invalid-query")
    problem(quiet.http.get("/v1/studies/study-none/trials"), 404, "study-not-found")


def test_all_trials_are_one_table_as_csv(quiet: Quiet) -> None:
    space = {SCALE: {"grid": [0.1, 0.5]}, "/trainer/learned_spread": {"choice": [None]}}
    study = running_study(quiet.jobs, space=space)
    for number in range(60):
        values = {SCALE: 0.1, "/trainer/learned_spread": None} if number % 2 else {SCALE: 0.5}
        add_trial(quiet.jobs, study, number, values, results={9: {"kid_pca": number / 10}})
    path = f"/v1/studies/{study.id}/trials"
    answer = quiet.http.get(path, headers={"Accept": "text/csv"})
    assert answer.headers["Content-Type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(rows) == 60
    assert rows[1]["/trainer/learned_spread"] == "null"
    assert (rows[0]["/trainer/learned_spread"], rows[0][SCALE]) == ("", "0.5")
    assert float(rows[59]["kid_pca"]) == 5.9
    assert quiet.http.get(f"{path}?format=csv").text == answer.text
    problem(quiet.http.get(path, headers={"Accept": "image/png"}), 406, "not-acceptable")


def test_before_confirmation_there_is_a_candidate_and_no_best(quiet: Quiet) -> None:
    study = quiet.jobs.ledger.add(new_study())
    nothing = best_of(quiet, study)
    assert (nothing["stage"], nothing["configuration"], nothing["spec"]) == (
        "searching",
        None,
        None,
    )
    study = quiet.jobs.ledger.start(study, "starting")
    searched(quiet.jobs, study, [0.4, 0.2, 0.3])
    found = best_of(quiet, study)
    assert (found["stage"], found["configuration"], found["is_candidate"]) == ("searching", 1, True)
    assert (found["search_value"], found["interval"]) == (0.2, None)
    assert found["indistinguishable"] == found["confirmed"] == []
    assert "too good to be true" in found["message"]
    assert found["spec"]["trainer"]["spread"] == {
        **found["spec"]["trainer"]["spread"],
        "kind": "laplace",
        "scale": 0.2,
    }
    study = quiet.jobs.ledger.explain(study, StudyReason.CONFIRMING, "confirming")
    confirm(quiet.jobs, study, 1, SCALES[1], kid_pca=[0.3] * 5)
    partly = best_of(quiet, study)
    assert (partly["stage"], partly["is_candidate"]) == ("confirming", True)
    assert "trained again on 5 fresh seeds" in partly["message"]
    short = ended(quiet.jobs, study, JobState.CANCELLED, StudyReason.CANCELLED)
    assert best_of(quiet, short)["stage"] == "confirmed"  # by what there is


def test_a_study_that_ends_without_confirmation_says_so(quiet: Quiet) -> None:
    study = running_study(quiet.jobs)
    searched(quiet.jobs, study, [0.4, 0.2])
    ended(quiet.jobs, study, JobState.FAILED, StudyReason.DRIVER_LOST)
    found = best_of(quiet, study)
    assert (found["stage"], found["is_candidate"]) == ("unconfirmed", True)
    assert "without confirming anything" in found["message"]


def test_the_best_is_that_on_fresh_seeds_with_its_like(quiet: Quiet) -> None:
    study = running_study(quiet.jobs)
    jobs = quiet.jobs
    searched(jobs, study, [0.10, 0.12, 0.13, 0.9])
    # The search's own winner is third on fresh seeds; the second is as good as the first.
    confirm(jobs, study, 0, SCALES[0], kid_pca=[0.50, 0.51, 0.49, 0.50, 0.52])
    confirm(jobs, study, 1, SCALES[1], kid_pca=[0.22, 0.21, 0.20, 0.23, 0.20])
    confirm(jobs, study, 2, SCALES[2], kid_pca=[0.20, 0.22, 0.21, 0.20, 0.21])
    stopped = at(0.7)
    add_trial(
        jobs, study, 4, stopped, results={3: {"kid_pca": 0.01}}, state=JobState.FAILED,
        reason=Reason.DIVERGED,
    )  # fmt: skip
    ended(jobs, study)
    found = best_of(quiet, study)
    assert (found["stage"], found["configuration"], found["is_candidate"]) == (
        "confirmed",
        2,
        False,
    )
    assert [one["configuration"] for one in found["indistinguishable"]] == [2, 1]
    assert [one["configuration"] for one in found["confirmed"]] == [2, 1, 0]
    assert found["untested"] == [4]
    assert (found["interval"]["mean"], found["interval"]["seeds"]) == (pytest.approx(0.208), 5)
    assert found["interval"]["low"] < 0.208 < found["interval"]["high"]
    # The value that the search had chosen it by is told, and is not the answer.
    assert found["search_value"] == 0.13
    assert found["confirmed"][2]["search_value"] == 0.10
    assert found["confirmed"][0]["by_seed"]["2"] == 0.22
    assert found["measured"] == {
        "metric": "kid_pca",
        "extractor": "pca",
        "samples": 100,
        "reference": "held-out data of digits",
        "reference_digest": None,
        "reference_rows": 100,
    }
    again = quiet.http.post("/v1/jobs?dry_run=true", json={"spec": found["spec"]})
    assert again.status_code == 200
    assert JOB_SPEC.validate_python(found["spec"]).trainer.kind == "delta_vae"


def test_a_second_extractor_is_a_check_that_says_whether_the_order_is_another(quiet: Quiet) -> None:
    jobs = quiet.jobs
    study = running_study(jobs)
    searched(jobs, study, [0.1, 0.2, 0.3])
    means = ([0.2] * 5, [0.3] * 5, [0.4] * 5)
    others = ([3.0] * 5, [1.0] * 5, [5.0] * 5)
    for number, (own, other) in enumerate(zip(means, others, strict=True)):
        confirm(jobs, study, number, SCALES[number], kid_pca=own, **{NET: other})
    ended(jobs, study)
    found = best_of(quiet, study)
    (check,) = found["checks"]
    assert (check["metric"], check["best"], check["agrees"]) == (NET, 1, False)
    assert check["reversals"] == {
        "count": 3,
        "pairs": 3,
        "reversed_pairs": 1,
        "gamma": pytest.approx(1 / 3),
        "best_was": 2,
    }
    agreeing = running_study(jobs)
    searched(jobs, agreeing, [0.1, 0.2, 0.3])
    for number, own in enumerate(means):
        confirm(jobs, agreeing, number, SCALES[number], kid_pca=own, **{NET: own})
    ended(jobs, agreeing)
    assert best_of(quiet, agreeing)["checks"][0]["agrees"] is True


def test_each_other_distance_is_a_check_and_the_best_has_its_recall(quiet: Quiet) -> None:
    jobs = quiet.jobs
    study = running_study(jobs)
    searched(jobs, study, [0.1, 0.2])
    assert best_of(quiet, study)["shares"] == {}
    for number, (own, other) in enumerate(((0.2, 9.0), (0.3, 5.0))):
        others = {
            "frechet_pca": [other] * 5,
            "mmd_pca": [own] * 5,
            "sliced_wasserstein_pca": [other] * 5,
            "precision_pca": [0.9] * 5,
            "recall_pca": [0.1, 0.2, 0.3, 0.2, 0.2],
        }
        confirm(jobs, study, number, SCALES[number], kid_pca=[own] * 5, **others)
    ended(jobs, study)
    found = best_of(quiet, study)
    assert [(check["metric"], check["best"], check["agrees"]) for check in found["checks"]] == [
        ("frechet_pca", 1, False),
        ("mmd_pca", 0, True),
        ("sliced_wasserstein_pca", 1, False),
    ]
    assert found["shares"] == pytest.approx({"precision_pca": 0.9, "recall_pca": 0.2})
    told = told_of_best(BestBody.model_validate(found))
    assert "by sliced_wasserstein_pca: another order, its best is 1" in told
    assert told[-1] == "of the best on fresh seeds: precision_pca 0.9, recall_pca 0.2"


def test_more_is_better_where_the_objective_says_so(quiet: Quiet) -> None:
    jobs = quiet.jobs
    study = running_study(jobs, objective={"metric": "recall", "mode": "max"})
    for number, value in enumerate((0.5, 0.6)):
        results = {9: {"recall_pca": value, NET: value}}
        add_trial(jobs, study, number, SCALES[number], results=results)
        many = [value + 0.01 * k for k in range(5)]
        confirm(jobs, study, number, SCALES[number], recall_pca=many, **{NET: [1.0 - value] * 5})
    ended(jobs, study)
    found = best_of(quiet, study)
    assert found["configuration"] == 1
    assert [one["configuration"] for one in found["confirmed"]] == [1, 0]
    assert found["checks"][0]["agrees"] is True  # its KID is lower, and that is better


def test_an_overridden_study_says_at_its_best_that_it_may_say_nothing(quiet: Quiet) -> None:
    jobs = quiet.jobs
    objective = {"metric": "held_out_elbo_nats", "mode": "max"}
    study = running_study(jobs, objective=objective, override_guard=True)
    add_trial(jobs, study, 0, SCALES[0], results={9: {"held_out_elbo_nats": 1.0}})
    found = best_of(quiet, study)
    assert found["is_overridden"] is True
    assert "may say nothing about the models" in found["message"]


def test_what_was_stopped_early_is_a_candidate_only_while_nothing_ran_to_its_end(
    quiet: Quiet,
) -> None:
    jobs = quiet.jobs
    study = running_study(jobs, scheduler={"kind": "asha", "grace_epochs": 3})
    stopped = Reason.STOPPED_BY_STUDY
    add_trial(jobs, study, 0, SCALES[0], results={3: {"kid_pca": 0.1}}, reason=stopped)
    assert best_of(quiet, study)["configuration"] == 0
    add_trial(jobs, study, 1, SCALES[1], results={9: {"kid_pca": 0.5}})
    assert best_of(quiet, study)["configuration"] == 1


def test_an_extended_study_keeps_its_answer_and_says_that_it_goes_on(quiet: Quiet) -> None:
    jobs = quiet.jobs
    study = running_study(jobs, budget={"trials": 2}, confirmation={"top": 1})
    searched(jobs, study, [0.4, 0.2])
    confirm(jobs, study, 1, SCALES[1], kid_pca=[0.3, 0.2, 0.3, 0.2, 0.3])
    done = ended(jobs, study)
    assert "goes on" not in best_of(quiet, study)["message"]
    more = {"budget": {"trials": 9}}
    assert quiet.http.patch(f"/v1/studies/{done.id}", json=more).status_code == 200
    found = best_of(quiet, study)
    assert (found["stage"], found["configuration"]) == ("confirmed", 1)
    assert "The study goes on, and may find a better one." in found["message"]


def test_a_configuration_counts_with_the_mean_over_all_seeds_of_the_search(quiet: Quiet) -> None:
    jobs = quiet.jobs
    study = running_study(jobs, seeds=[0, 1])
    for number, by_seed in enumerate(([0.1, 0.5], [0.2, 0.3], [0.01])):
        for seed, value in enumerate(by_seed):
            results = {9: {"kid_pca": value}}
            add_trial(jobs, study, number, SCALES[number], seed=seed, results=results)
    found = best_of(quiet, study)
    assert (found["configuration"], found["search_value"]) == (1, 0.25)
    confirm(jobs, study, 1, SCALES[1], kid_pca=[0.3] * 5)
    ended(jobs, study)
    found = best_of(quiet, study)
    assert list(found["confirmed"][0]["by_seed"]) == ["2", "3", "4", "5", "6"]
    assert found["untested"] == [2]


def test_a_trial_that_stops_itself_has_come_to_its_end(quiet: Quiet) -> None:
    study = running_study(quiet.jobs, scheduler={"kind": "asha", "grace_epochs": 3})
    by_itself, by_study = Reason.STOPPED_EARLY, Reason.STOPPED_BY_STUDY
    add_trial(quiet.jobs, study, 0, SCALES[0], results={3: {"kid_pca": 0.1}}, reason=by_study)
    add_trial(quiet.jobs, study, 1, SCALES[1], results={6: {"kid_pca": 0.5}}, reason=by_itself)
    assert best_of(quiet, study)["configuration"] == 1


def test_a_trial_that_was_stopped_too_late_does_not_compare_by_its_earlier_result(
    quiet: Quiet,
) -> None:
    """Its scheduler had decided by epoch 3; when that came to it, it had trained to its end."""
    study = running_study(quiet.jobs, scheduler={"kind": "asha", "grace_epochs": 3})
    add_trial(quiet.jobs, study, 0, SCALES[0], results={3: {"kid_pca": 0.1}}, measured_until=9)
    add_trial(quiet.jobs, study, 1, SCALES[1], results={9: {"kid_pca": 0.5}}, measured_until=9)
    assert best_of(quiet, study)["configuration"] == 1
    trials = quiet.http.get(f"/v1/studies/{study.id}/trials").json()["trials"]
    assert [trial["is_whole"] for trial in trials] == [False, True]


def test_what_has_not_changed_is_answered_with_304_and_what_has_is_not(quiet: Quiet) -> None:
    jobs = quiet.jobs
    study = running_study(jobs)
    searched(jobs, study, [0.4])
    path = f"/v1/studies/{study.id}/best"
    tag = quiet.http.get(path).headers["ETag"]
    unchanged = quiet.http.get(path, headers={"If-None-Match": tag})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    add_trial(jobs, study, 1, SCALES[1], results={9: {"kid_pca": 0.3}})
    changed = quiet.http.get(path, headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.json()["configuration"] == 1


def test_an_answer_that_was_confirmed_stands_while_an_extended_study_searches(
    quiet: Quiet,
) -> None:
    jobs = quiet.jobs
    study = running_study(jobs)
    searched(jobs, study, [0.4, 0.2])  # fewer than would be confirmed
    for number, value in enumerate((0.41, 0.21)):
        confirm(jobs, study, number, SCALES[number], kid_pca=[value] * 5)
    ended(jobs, study)
    jobs.ledger.start(jobs.ledger.extend(study.id, Budget(trials=20)), "again")
    add_trial(jobs, jobs.ledger.get(study.id), 2, SCALES[2], results={9: {"kid_pca": 0.1}})
    found = best_of(quiet, study)
    assert (found["stage"], found["configuration"]) == ("confirmed", 1)
    assert "may find a better one" in found["message"]


def test_a_metric_that_is_measured_more_seldom_counts_with_its_own_last_value(quiet: Quiet) -> None:
    study = running_study(quiet.jobs)
    results = {3: {"kid_pca": 0.5}, 6: {"kid_pca": 0.25}, 7: {"loss_nats": 1.0}}
    add_trial(quiet.jobs, study, 0, SCALES[0], results=results)
    assert best_of(quiet, study)["search_value"] == 0.25
