"""Curves, fronts, importances and parallel coordinates of a study over HTTP."""

import csv
import io
import math
import random
from typing import Any

import pytest
from matplotlib.figure import Figure

from api import study_curves
from service.jobs import JobState, Reason
from service.jobstore import JobStore
from service.studies import plots
from service.studies.curves import CurveAnswer
from service.studies.ledger import Study
from service.studies.plots import curve_png
from service.studies.rungs import rung_epochs
from tests.trials import KIND, SCALE, add_trial, confirm, ended, new_study, running_study
from tests.unit.api.conftest import Quiet
from tests.unit.api.test_problems import problem
from workers.images import encode_figure

PNG = b"\x89PNG"
RATE = "/trainer/optimizer/learning_rate"
RANK = "/trainer/learned_spread/covariance/rank"
LEARNED = "/trainer/learned_spread"
LOW_RANK = {"covariance": {"kind": "low_rank", "rank": 2}}


def valley(scale: float, kind: str = "laplace") -> float:
    """KID as a function of the scale, least at 0.3."""
    return math.log(scale / 0.3) ** 2 + (0.5 if kind == "gaussian" else 0.0)


def searched(jobs: JobStore, count: int = 24, **fields: Any) -> Study:
    """A study whose trials have a valley, every fourth of them stopped early."""
    study = running_study(jobs, budget={"trials": count}, **fields)
    draw = random.Random(1)
    for number in range(count):
        kind, scale = ("gaussian", "laplace")[number % 2], 0.05 * 20 ** draw.random()
        value = valley(scale, kind)
        results = {3: {"kid_pca": 2 * value}, 9: {"kid_pca": value, "recall_pca": -value}}
        reason = Reason.COMPLETED
        if number % 8 == 7:
            results, reason = {3: {"kid_pca": 9.0}}, Reason.STOPPED_BY_STUDY
        add_trial(jobs, study, number, {KIND: kind, SCALE: scale}, results=results, reason=reason)
    return study


ASHA = {"kind": "asha", "grace_epochs": 3}


def get(quiet: Quiet, study: Study, below: str) -> dict[str, Any]:
    answer = quiet.http.get(f"/v1/studies/{study.id}/{below}")
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def picture(quiet: Quiet, study: Study, below: str) -> bytes:
    answer = quiet.http.get(f"/v1/studies/{study.id}/{below}", headers={"Accept": "image/png"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.content.startswith(PNG)
    return answer.content


def test_the_curve_along_a_scale_has_the_valley_where_it_is(quiet: Quiet) -> None:
    study = searched(quiet.jobs, scheduler=ASHA)
    found = get(quiet, study, f"curve?parameter={SCALE}&parameter={KIND}")
    assert [axis["is_log"] for axis in found["parameters"]] == [True, False]
    assert [process["where"] for process in found["processes"]] == [
        {KIND: "gaussian"},
        {KIND: "laplace"},
    ]
    for process, kind in zip(found["processes"], ("gaussian", "laplace"), strict=True):
        (scales,) = process["places"]
        lowest = min(range(len(scales)), key=lambda k: process["mean"][k])
        assert abs(math.log(scales[lowest] / 0.3)) < 0.2
        assert process["mean"][lowest] == pytest.approx(valley(0.3, kind), abs=0.1)
        for low, mean, high in zip(process["low"], process["mean"], process["high"], strict=True):
            assert low <= mean <= high
    # One in eight was stopped early and does not compare.
    assert (len(found["points"]), found["stopped"], found["without"]) == (21, 3, 0)
    assert found["metric"] == "kid_pca"
    assert found["measured"]["samples"] == 100
    assert found["notes"] == []
    assert [rung["epoch"] for rung in found["rungs"]] == [3]
    assert found["rungs"][0]["reversals"]["reversed_pairs"] == 0
    picture(quiet, study, f"curve?parameter={SCALE}&parameter={KIND}")
    picture(quiet, study, f"curve?parameter={SCALE}")


def test_few_values_have_a_mean_each_with_its_interval(quiet: Quiet) -> None:
    jobs = quiet.jobs
    study = running_study(jobs, space={SCALE: {"grid": [0.1, 0.3, 0.5]}}, seeds=[7])
    values = [0.4, 0.1, 0.2]
    for number, (scale, value) in enumerate(zip((0.1, 0.3, 0.5), values, strict=True)):
        add_trial(jobs, study, number, {SCALE: scale}, seed=7, results={9: {"kid_pca": value}})
    confirm(jobs, study, 1, {SCALE: 0.3}, kid_pca=[0.1, 0.2, 0.3, 0.1, 0.4])
    found = get(quiet, study, f"curve?parameter={SCALE}")
    assert [level["values"][SCALE] for level in found["levels"]] == [0.1, 0.3, 0.5]
    assert [level["trials"] for level in found["levels"]] == [1, 6, 1]
    assert found["levels"][0]["low"] is None  # one trial says nothing of its uncertainty
    middle = found["levels"][1]
    assert middle["mean"] == pytest.approx(1.2 / 6)
    assert middle["low"] < 0.2 < middle["high"]
    assert found["processes"] == []
    assert sum(point["is_fresh"] for point in found["points"]) == 5
    picture(quiet, study, f"curve?parameter={SCALE}")


def test_two_ranges_make_a_map(quiet: Quiet) -> None:
    jobs = quiet.jobs
    space = {SCALE: {"loguniform": [0.05, 1.0]}, RATE: {"loguniform": [1e-4, 1e-2]}}
    study = running_study(jobs, space=space, budget={"trials": 30})
    draw = random.Random(2)
    for number in range(30):
        scale, rate = 0.05 * 20 ** draw.random(), 1e-4 * 100 ** draw.random()
        value = valley(scale) + math.log(rate / 1e-3) ** 2 / 4
        values = {SCALE: scale, RATE: rate}
        add_trial(jobs, study, number, values, results={9: {"kid_pca": value}})
    asked = f"curve?parameter={SCALE}&parameter={RATE}"
    (process,) = get(quiet, study, asked)["processes"]
    assert process["along"] == [SCALE, RATE]
    assert (len(process["mean"]), len(process["mean"][0])) == (33, 33)
    lowest = min(
        ((i, j) for i in range(33) for j in range(33)), key=lambda at: process["mean"][at[0]][at[1]]
    )
    assert abs(math.log(process["places"][0][lowest[0]] / 0.3)) < 0.5
    assert abs(math.log(process["places"][1][lowest[1]] / 1e-3)) < 1.0
    picture(quiet, study, asked)
    rows = list(csv.DictReader(io.StringIO(
        quiet.http.get(f"/v1/studies/{study.id}/{asked}&format=csv").text
    )))  # fmt: skip
    assert [row["what"] for row in rows].count("curve") == 33 * 33
    of_trials = [row for row in rows if row["what"] == "trial"]
    assert len(of_trials) == 30
    assert float(rows[1][RATE]) == pytest.approx(process["places"][1][1])
    assert float(rows[1]["mean"]) == pytest.approx(process["mean"][0][1])


def test_a_conditional_parameter_is_seen_where_it_exists(quiet: Quiet) -> None:
    jobs = quiet.jobs
    space = {
        LEARNED: {"choice": [None, LOW_RANK]},
        RANK: {"grid": [1, 2, 3], "when": {LEARNED: [LOW_RANK]}},
    }
    study = running_study(jobs, space=space)
    add_trial(jobs, study, 0, {LEARNED: None}, results={9: {"kid_pca": 0.5}})
    for number, rank in enumerate((1, 2, 3), 1):
        values = {LEARNED: LOW_RANK, RANK: rank}
        add_trial(jobs, study, number, values, results={9: {"kid_pca": rank / 10}})
    found = get(quiet, study, f"curve?parameter={RANK}")
    assert [level["values"][RANK] for level in found["levels"]] == [1, 2, 3]
    assert (len(found["points"]), found["without"]) == (3, 1)
    both = get(quiet, study, f"curve?parameter={LEARNED}&parameter={RANK}")
    assert [level["values"] for level in both["levels"]] == [
        {LEARNED: LOW_RANK, RANK: rank} for rank in (1, 2, 3)
    ]
    whole = get(quiet, study, f"curve?parameter={LEARNED}")["levels"]
    assert [level["values"][LEARNED] for level in whole] == [None, LOW_RANK]
    picture(quiet, study, f"curve?parameter={LEARNED}&parameter={RANK}")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures of all pictures that are made."""
    figures: list[Figure] = []

    def kept(figure: Figure) -> bytes:
        figures.append(figure)
        return encode_figure(figure)

    monkeypatch.setattr(plots, "encode_figure", kept)
    return figures


def test_a_learned_spread_leaves_the_presets_curve_its_place(
    quiet: Quiet, drawn: list[Figure]
) -> None:
    asked = quiet.http.get("/v1/studies/presets/spread-scale?dataset=mnist-10k").json()
    assert [SCALE, LEARNED] in asked["plots"]
    study = running_study(quiet.jobs, **asked["request"])
    draw = random.Random(1)
    for number in range(12):
        kind, scale = ("gaussian", "laplace")[number % 2], 0.05 * 20 ** draw.random()
        learned = asked["request"]["space"][LEARNED]["choice"][number // 2 % 2]
        values = {KIND: kind, SCALE: scale, LEARNED: learned}
        results = {60: {"kid_pca": valley(scale)}}
        add_trial(quiet.jobs, study, number, values, results=results)
    for other in (SCALE, KIND):
        picture(quiet, study, f"curve?parameter={other}&parameter={LEARNED}")
    picture(quiet, study, "parallel")
    along, by_kind, _ = drawn
    for figure in (along, by_kind):
        (axes,) = figure.axes
        assert axes.get_position().width > 0.7
        legend = axes.get_legend()
        assert legend is not None
        assert [text.get_text() for text in legend.get_texts()] == [
            "trainer/learned_spread none",
            "trainer/learned_spread covariance low_rank",
        ]
        inside = figure.bbox.padded(1)
        for text in (axes.title, legend):
            box = text.get_window_extent()
            assert (box.x0 >= inside.x0, box.x1 <= inside.x1) == (True, True)


def test_too_few_trials_of_an_object_are_noted_in_few_words(quiet: Quiet) -> None:
    space = {SCALE: {"loguniform": [0.05, 1.0]}, LEARNED: {"choice": [None, LOW_RANK]}}
    study = running_study(quiet.jobs, space=space)
    for number, learned in enumerate((None, None, None, None, LOW_RANK)):
        values = {SCALE: 0.1 * (number + 1), LEARNED: learned}
        add_trial(quiet.jobs, study, number, values, results={9: {"kid_pca": number / 10}})
    found = get(quiet, study, f"curve?parameter={SCALE}&parameter={LEARNED}")
    assert found["notes"] == [
        "Too few trials for a curve at /trainer/learned_spread covariance low_rank."
    ]


def test_it_says_when_ranks_reverse_between_rungs(quiet: Quiet) -> None:
    jobs = quiet.jobs
    study = running_study(jobs, scheduler={"kind": "asha", "grace_epochs": 1})
    for number in range(4):
        values = {KIND: "laplace", SCALE: 0.1 * (number + 1)}
        # What is worst after one epoch is the best at the end.
        results = {1: {"kid_pca": 1.0 - number / 10}, 3: {"kid_pca": number / 10}}
        add_trial(jobs, study, number, values, results=results | {9: {"kid_pca": number / 10}})
    found = get(quiet, study, f"curve?parameter={SCALE}")
    one, three = found["rungs"]
    assert (one["epoch"], three["epoch"]) == (1, 3)
    assert one["reversals"] == {
        "count": 4, "pairs": 6, "reversed_pairs": 6, "gamma": -1.0, "best_was": 4,
    }  # fmt: skip
    assert three["reversals"]["reversed_pairs"] == 0
    (note,) = found["notes"]
    assert "after 1 epochs 6 of 6 pairs" in note
    assert "number 4 of 4" in note


@pytest.mark.parametrize(
    ("scheduler", "epochs", "rungs"),
    [
        ({"kind": "asha", "grace_epochs": 2}, 60, [2, 6, 18, 54]),
        ({"kind": "hyperband"}, 9, [1, 3]),
        ({"kind": "none"}, 9, [3, 6]),
        ({"kind": "none"}, 1, []),
        ({"kind": "median", "grace_epochs": 1}, 60, [20, 40]),
    ],
)
def test_rungs_are_those_of_the_scheduler_or_thirds(
    scheduler: dict[str, Any], epochs: int, rungs: list[int]
) -> None:
    spec = new_study().request.spec.model_dump(mode="json")
    spec["trainer"]["epochs"] = epochs
    assert rung_epochs(new_study(scheduler=scheduler, spec=spec).request) == rungs


def test_a_curve_that_cannot_be_drawn_says_why(quiet: Quiet) -> None:
    study = searched(quiet.jobs, count=2)
    path = f"/v1/studies/{study.id}/curve"
    few = problem(quiet.http.get(f"{path}?parameter={SCALE}"), 404, "no-answer-yet")
    assert "there are 2 such trials of 2, at 2 place(s) at most" in few["detail"]
    for query, pointer in (
        ("parameter=/trainer/epochs", "/query/parameter"),
        (f"parameter={SCALE}&parameter={SCALE}", "/query/parameter"),
        (f"parameter={SCALE}&metric=nothing", "/query/metric"),
        ("", "/query/parameter"),
        (f"parameter={SCALE}&parameter={KIND}&parameter={SCALE}", "/query/parameter"),
    ):
        found = problem(quiet.http.get(f"{path}?{query}"), 422, "invalid-query")
        assert found["errors"][0]["pointer"].startswith(pointer)
    wrong = quiet.http.get(f"{path}?parameter={SCALE}", headers={"Accept": "text/html"})
    problem(wrong, 406, "not-acceptable")
    missing = quiet.http.get(f"/v1/studies/study-none/curve?parameter={SCALE}")
    problem(missing, 404, "study-not-found")


def test_a_curve_of_another_metric_is_drawn_by_its_short_name(quiet: Quiet) -> None:
    study = searched(quiet.jobs)
    found = get(quiet, study, f"curve?parameter={KIND}&metric=recall")
    assert (found["metric"], found["mode"]) == ("recall_pca", "max")
    assert [level["values"][KIND] for level in found["levels"]] == ["gaussian", "laplace"]


def test_an_unchanged_curve_is_304_in_each_form(quiet: Quiet) -> None:
    study = searched(quiet.jobs)
    path = f"/v1/studies/{study.id}/curve?parameter={SCALE}"
    tags = set()
    for form in ("json", "png", "csv"):
        first = quiet.http.get(f"{path}&format={form}")
        tags.add(first.headers["ETag"])
        again = quiet.http.get(
            f"{path}&format={form}", headers={"If-None-Match": first.headers["ETag"]}
        )
        assert again.status_code == 304
    assert len(tags) == 3


def test_the_front_has_what_none_surpasses_by_search_and_by_fresh_seeds(quiet: Quiet) -> None:
    jobs = quiet.jobs
    study = running_study(jobs, second_objective={"metric": "recall", "mode": "max"})
    points = [(0.1, 0.2), (0.2, 0.5), (0.3, 0.4), (0.4, 0.9)]
    for number, (kid, recall) in enumerate(points):
        values = {KIND: "laplace", SCALE: 0.1 * (number + 1)}
        results = {9: {"kid_pca": kid, "recall_pca": recall}}
        add_trial(jobs, study, number, values, results=results)
        if number < 2:
            confirm(jobs, study, number, values, kid_pca=[0.3 - number / 10] * 5,
                    recall_pca=[0.4] * 5)  # fmt: skip
    found = get(quiet, study, "pareto")
    assert (found["metrics"], found["modes"]) == (["kid_pca", "recall_pca"], ["min", "max"])
    assert (found["front"], found["fresh_front"]) == ([0, 1, 3], [1])
    assert found["points"][1]["search"] == [0.2, 0.5]
    assert found["points"][1]["fresh"] == pytest.approx([0.2, 0.4])
    assert found["points"][3]["fresh"] is None
    picture(quiet, study, "pareto")
    path = f"/v1/studies/{study.id}/pareto"
    for other in ("kid_pca", "nothing"):
        wrong = problem(quiet.http.get(f"{path}?second={other}"), 422, "invalid-query")
        assert wrong["errors"][0]["pointer"] == "/query/second"


def test_without_a_second_objective_the_front_needs_a_metric(quiet: Quiet) -> None:
    study = searched(quiet.jobs)
    path = f"/v1/studies/{study.id}/pareto"
    found = problem(quiet.http.get(path), 422, "invalid-query")
    assert found["errors"][0]["pointer"] == "/query/second"
    assert get(quiet, study, "pareto?second=recall")["metrics"] == ["kid_pca", "recall_pca"]
    none = running_study(quiet.jobs)
    empty = quiet.http.get(f"/v1/studies/{none.id}/pareto?second=recall_pca")
    problem(empty, 404, "no-answer-yet")


@pytest.mark.parametrize("evaluator", ["ped_anova", "fanova", "mdi"])
def test_what_explains_the_metric_is_the_most_important(quiet: Quiet, evaluator: str) -> None:
    space = {SCALE: {"loguniform": [0.05, 1.0]}, RATE: {"loguniform": [1e-4, 1e-2]}}
    study = running_study(quiet.jobs, space=space, budget={"trials": 40})
    draw = random.Random(3)
    for number in range(40):
        scale, rate = 0.05 * 20 ** draw.random(), 1e-4 * 100 ** draw.random()
        results = {9: {"kid_pca": valley(scale) + 0.001 * draw.random()}}
        add_trial(quiet.jobs, study, number, {SCALE: scale, RATE: rate}, results=results)
    found = get(quiet, study, f"importance?evaluator={evaluator}")
    assert (found["evaluator"], found["trials"]) == (evaluator, 40)
    assert [share["pointer"] for share in found["shares"]] == [SCALE, RATE]
    first, second = (share["importance"] for share in found["shares"])
    assert first > 0.8
    assert first + second == pytest.approx(1.0)
    picture(quiet, study, f"importance?evaluator={evaluator}")


def test_a_conditional_parameter_matters_among_the_trials_that_have_it(quiet: Quiet) -> None:
    space = {
        LEARNED: {"choice": [None, LOW_RANK]},
        RANK: {"grid": [1, 2, 3], "when": {LEARNED: [LOW_RANK]}},
        SCALE: {"loguniform": [0.05, 1.0]},
    }
    study = running_study(quiet.jobs, space=space, budget={"trials": 40})
    draw = random.Random(4)
    for number in range(40):
        values: dict[str, Any] = {LEARNED: None, SCALE: 0.05 * 20 ** draw.random()}
        if number % 2:
            values |= {LEARNED: LOW_RANK, RANK: draw.choice([1, 2, 3])}
        value = valley(values[SCALE]) * 0.01 + values.get(RANK, 0)
        add_trial(quiet.jobs, study, number, values, results={9: {"kid_pca": value}})
    shares = {
        share["pointer"]: share
        for share in get(quiet, study, "importance?evaluator=fanova")["shares"]
    }
    assert shares[RANK]["trials"] == 20
    assert shares[RANK]["importance"] > 0.8
    assert shares[SCALE]["trials"] == 40


@pytest.mark.parametrize("evaluator", ["fanova", "ped_anova", "mdi"])
def test_nothing_matters_where_all_results_are_equal(quiet: Quiet, evaluator: str) -> None:
    study = running_study(quiet.jobs)
    for number in range(9):
        values = {KIND: ("gaussian", "laplace")[number % 2], SCALE: 0.1 + number / 10}
        add_trial(quiet.jobs, study, number, values, results={9: {"kid_pca": 0.5}})
    found = get(quiet, study, f"importance?evaluator={evaluator}")
    assert {share["importance"] for share in found["shares"]} == {0.0}


def test_a_front_of_trials_that_have_reported_nothing_is_no_answer_yet(quiet: Quiet) -> None:
    study = running_study(quiet.jobs, second_objective={"metric": "recall", "mode": "max"})
    path = f"/v1/studies/{study.id}"
    for number in range(2):
        answer = quiet.http.get(f"{path}/pareto")
        assert (answer.status_code, answer.json()["type"].rsplit("/")[-1]) == (404, "no-answer-yet")
        assert quiet.http.get(f"{path}/curve?parameter={SCALE}&metric=kid_pca").status_code == 404
        values = {KIND: "laplace", SCALE: 0.4 + number / 10}
        add_trial(quiet.jobs, study, number, values, state=JobState.RUNNING)


def test_importances_of_too_few_trials_are_refused_with_their_number(quiet: Quiet) -> None:
    study = searched(quiet.jobs, count=6)
    answer = quiet.http.get(f"/v1/studies/{study.id}/importance")
    found = problem(answer, 404, "no-answer-yet")
    assert "importances need 8 trials" in found["detail"]
    assert "there are 6 of 6" in found["detail"]


def test_every_trial_is_a_line_in_parallel_coordinates(quiet: Quiet) -> None:
    study = searched(quiet.jobs, scheduler=ASHA)
    add_trial(quiet.jobs, study, 99, {KIND: "laplace", SCALE: 0.5}, state=JobState.RUNNING)
    found = get(quiet, study, "parallel")
    assert len(found["lines"]) == 24
    assert sum(line["is_stopped"] for line in found["lines"]) == 3
    assert sorted(line["rank"] for line in found["lines"]) == list(range(24))
    best = min(found["lines"], key=lambda line: line["value"])
    assert best["rank"] == 0
    places = dict(zip((KIND, SCALE), best["places"], strict=True))
    assert places[KIND] == 1.0
    assert places[SCALE] == pytest.approx(math.log(best["values"][SCALE] / 0.05) / math.log(20))
    picture(quiet, study, "parallel")
    empty = running_study(quiet.jobs)
    problem(quiet.http.get(f"/v1/studies/{empty.id}/parallel"), 404, "no-answer-yet")


def test_the_answers_follow_new_results_and_survive_the_end(quiet: Quiet) -> None:
    study = searched(quiet.jobs)
    before = len(get(quiet, study, f"curve?parameter={KIND}")["points"])
    values = {KIND: "laplace", SCALE: 0.3}
    add_trial(quiet.jobs, study, 50, values, results={9: {"kid_pca": 0.1}})
    assert len(get(quiet, study, f"curve?parameter={KIND}")["points"]) == before + 1
    ended(quiet.jobs, study)
    assert len(get(quiet, study, f"curve?parameter={KIND}")["points"]) == before + 1


def test_a_plot_is_drawn_once_until_the_study_changes(
    quiet: Quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def counted(found: CurveAnswer) -> bytes:
        drawn.append(found)
        return curve_png(found)

    monkeypatch.setattr(study_curves, "curve_png", counted)
    study = searched(quiet.jobs, 12)
    first, again = (picture(quiet, study, f"curve?parameter={SCALE}") for _ in range(2))
    assert first == again
    assert len(drawn) == 1
    assert picture(quiet, study, f"curve?parameter={SCALE}&parameter={KIND}") != first
    assert len(drawn) == 2
    add_trial(quiet.jobs, study, 12, {KIND: "laplace", SCALE: 0.9}, results={9: {"kid_pca": 9.0}})
    assert picture(quiet, study, f"curve?parameter={SCALE}") != first
    assert len(drawn) == 3
