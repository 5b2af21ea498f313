"""Searchers of Ray Tune that are told of a ledger: extension, replay, and known optima."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from service.cluster.tune_proxy import CONFIGURATION
from service.cluster.tune_search import decoded, encoded, searcher
from service.cluster.tune_suggesting import LedgerSearch, Places
from service.cluster.tune_trials import LedgerScheduler
from service.studies.channel import Said, Suggested
from service.studies.checking import require
from service.studies.replaying import Known, numbers
from service.studies.request import StudyRequest
from tests.factories import tiny_spec

SCALE, KIND = "/trainer/spread/scale", "/trainer/spread/kind"
RATE, WIDTH = "/trainer/optimizer/learning_rate", "/trainer/network/hidden/0"
DEGREES = "/trainer/spread/degrees_of_freedom"
NUMBERS: dict[str, Any] = {
    SCALE: {"loguniform": [0.05, 1.0]},
    RATE: {"uniform": [0.001, 0.101]},
}
CONDITIONAL: dict[str, Any] = {
    # Before what decides on it: the order of the request is no order of the draws.
    DEGREES: {"uniform": [2.5, 9.0], "when": {KIND: ["student_t"]}},
    KIND: {"choice": ["gaussian", "student_t"]},
    SCALE: {"loguniform": [0.05, 1.0], "step": 0.05},
    WIDTH: {"uniform": [4, 16], "step": 4},
    "/trainer/batch_size": {"grid": [5, 25]},
    "/trainer/learned_spread": {"choice": [None, {"every_epochs": 2}]},
}


def study(space: dict[str, Any], search: dict[str, Any], **fields: Any) -> StudyRequest:
    return require(
        StudyRequest.model_validate(
            {
                "name": "which noise",
                "spec": tiny_spec().model_dump(),
                "space": space,
                "objective": {"metric": "kid", "mode": "min"},
                "search": search,
                "budget": {"trials": 8},
                **fields,
            }
        )
    )


def cost(values: dict[str, Any]) -> float:
    """Least at scale 0.2 and rate 0.05."""
    scale, rate = float(values[SCALE]), float(values[RATE])
    return math.log(scale / 0.2) ** 2 + (20 * (rate - 0.05)) ** 2


def finished(number: int, values: dict[str, Any], **metrics: float) -> Known:
    return Known(number, values, "finished", ((3, metrics),))


def suggested(request: StudyRequest, told: Sequence[Known], count: int) -> list[dict[str, Any]]:
    """What a new searcher suggests when nothing is said of the results."""
    found = searcher(request, told)
    answers = [found.suggest(f"trial-{k}") for k in range(count)]
    return [decoded(request.space, each) for each in answers if each != Searcher.FINISHED]


def searched(request: StudyRequest, told: Sequence[Known], count: int) -> list[Known]:
    """The ledger after so many more configurations, one after the other."""
    found, known = searcher(request, told), list(told)
    for number in itertools.islice(numbers(told), count):
        values = decoded(request.space, found.suggest(f"trial-{number}"))
        value = cost(values)
        result = {"kid_pca": value, "training_iteration": 1}
        found.on_trial_result(f"trial-{number}", result)
        found.on_trial_complete(f"trial-{number}", result)
        known.append(finished(number, values, kid_pca=value))
    return known


@pytest.mark.parametrize("kind", ["random", "grid"])
def test_an_extension_equals_one_longer_study(kind: str) -> None:
    finite = {pointer: CONDITIONAL[pointer] for pointer in (KIND, WIDTH, "/trainer/batch_size")}
    request = study(CONDITIONAL if kind == "random" else finite, {"kind": kind}, seeds=[7])
    whole = suggested(request, (), 12)
    assert len(whole) == 12
    for cut in (0, 1, 5, 11):
        told = [finished(n, values, kid_pca=1.0) for n, values in enumerate(whole[:cut])]
        assert suggested(request, told, 12 - cut) == whole[cut:]
    if kind == "random":
        assert suggested(study(CONDITIONAL, {"kind": kind}, seeds=[8]), (), 12) != whole


def test_a_grid_ends_and_has_each_configuration_once() -> None:
    request = study({KIND: CONDITIONAL[KIND], WIDTH: CONDITIONAL[WIDTH]}, {"kind": "grid"})
    found = suggested(request, (), 20)
    assert len(found) == len({tuple(values.items()) for values in found}) == 2 * 4
    assert suggested(request, [finished(n, v) for n, v in enumerate(found)], 1) == []


SEARCHES = ["random", "tpe", "gp"]


@pytest.mark.parametrize("kind", SEARCHES)
def test_what_is_suggested_fits_a_conditional_space(kind: str) -> None:
    request = study(CONDITIONAL, {"kind": kind})
    for values in suggested(request, (), 12):
        assert (DEGREES in values) == (values[KIND] == "student_t")
        assert values[WIDTH] in (4, 8, 12, 16)
        assert isinstance(values[WIDTH], int)
        assert round(values[SCALE] / 0.05, 9) == round(values[SCALE] / 0.05)
        assert decoded(request.space, encoded(request.space, values)) == values


@pytest.mark.parametrize("kind", [*SEARCHES, "cma_es"])
def test_what_was_unfinished_comes_first_and_under_its_number(kind: str) -> None:
    space = NUMBERS if kind == "cma_es" else CONDITIONAL
    request = study(space, {"kind": kind})
    values = suggested(study(space, {"kind": "random"}, seeds=[33]), (), 5)
    told = [finished(n, each, kid_pca=1.0 + n) for n, each in enumerate(values)]
    told[1] = replace(told[1], standing="unfinished", history=())
    told[3] = replace(told[3], standing="unfinished")  # its scheduler has heard of it
    told[4] = replace(told[4], standing="failed")
    assert list(itertools.islice(numbers(told), 4)) == [3, 1, 5, 6]
    found = suggested(request, told, 3)
    assert found[:2] == [values[3], values[1]]
    assert found[2] not in values


@pytest.mark.parametrize(
    ("search", "count"),
    [
        ({"kind": "random"}, 60),
        ({"kind": "tpe"}, 40),
        ({"kind": "gp", "startup_trials": 6}, 14),
        ({"kind": "cma_es"}, 60),
    ],
)
def test_a_known_optimum_is_found_though_the_driver_is_new_half_way(
    search: dict[str, Any], count: int
) -> None:
    request = study(NUMBERS, search)
    known = searched(request, searched(request, (), count // 2), count - count // 2)
    assert [one.number for one in known] == list(range(count))
    best = min(known, key=lambda one: cost(dict(one.values)))
    assert cost(dict(best.values)) < 0.1
    later = sorted(cost(dict(one.values)) for one in known[count // 2 :])
    if search["kind"] != "random":  # what was told is used: half of the rest is better than draws
        draws = suggested(study(NUMBERS, {"kind": "random"}, seeds=[55]), (), 200)
        assert later[len(later) // 2] < sorted(map(cost, draws))[100] / 2


def test_a_grid_finds_its_best() -> None:
    space = {SCALE: {"grid": [0.05, 0.2, 0.8]}, RATE: {"grid": [0.01, 0.05]}}
    known = searched(study(space, {"kind": "grid"}), (), 6)
    best = min(known, key=lambda one: cost(dict(one.values)))
    assert best.values == {SCALE: 0.2, RATE: 0.05}


@pytest.mark.parametrize("kind", ["tpe", "gp"])
def test_two_objectives_are_told_and_searched(kind: str) -> None:
    second = {"metric": "recall_pca", "mode": "max"}
    request = study(NUMBERS, {"kind": kind, "startup_trials": 2}, second_objective=second)
    draws = suggested(study(NUMBERS, {"kind": "random"}), (), 4)
    told = [
        finished(n, values, kid_pca=cost(values), recall_pca=values[SCALE])
        for n, values in enumerate(draws)
    ]
    found = searcher(request, told)
    values = decoded(request.space, found.suggest("trial-4"))
    found.on_trial_complete("trial-4", {"kid_pca": 1.0, "recall_pca": 0.5})
    assert values.keys() == NUMBERS.keys()
    assert values not in draws


class Ledger:
    """A service that stores what it is told."""

    def __init__(self) -> None:
        self.stored: list[int] = []

    def say(self, message: Said) -> None:
        raise AssertionError(message)

    def ask(self, message: Said) -> None:
        assert isinstance(message, Suggested)
        self.stored.append(message.configuration)


def test_what_is_drawn_by_number_is_stored_ahead_of_its_place_and_tune_has_it_with_the_place() -> (
    None
):
    request, ledger = study(NUMBERS, {"kind": "random"}), Ledger()
    places = Places(2, frozenset(), all_at_once=False)
    found = LedgerSearch(searcher(request, ()), request, (), places, ledger, left=5, ahead=2)

    def given() -> list[int]:
        answers = [found.suggest(f"trial-{k}") for k in range(4)]
        return [answer[CONFIGURATION] for answer in answers if isinstance(answer, dict)]

    assert given() == [0, 1]
    assert ledger.stored == [0, 1, 2, 3]
    places.leave(0)
    assert given() == [2]
    assert ledger.stored == [0, 1, 2, 3, 4]
    assert not found.is_over  # Tune has not had all of them
    places.leave(1)
    places.leave(2)
    assert given() == [3, 4]
    assert found.is_over


def test_after_a_driver_died_tune_has_what_it_had_begun_and_no_more_than_there_are_places() -> None:
    request, ledger = study(NUMBERS, {"kind": "random"}), Ledger()
    values = suggested(request, (), 5)
    told = [replace(finished(n, each), standing="unfinished") for n, each in enumerate(values)]
    ahead = [replace(one, history=()) for one in told[3:]]
    places = Places(2, frozenset({1}), all_at_once=False)
    known = (replace(told[0], standing="finished"), *told[1:3], *ahead)
    found = LedgerSearch(searcher(request, known), request, known, places, ledger, left=5, ahead=2)
    scheduler = LedgerScheduler(FIFOScheduler(), known, (), places, ledger)

    def given(count: int) -> list[int]:
        answers = [found.suggest(f"trial-{k}") for k in range(count)]
        return [answer[CONFIGURATION] for answer in answers if isinstance(answer, dict)]

    assert given(5) == [1, 2, 3]  # the first of them pauses, and takes no place
    assert ledger.stored == [1, 2, 3, 4, 5]
    assert scheduler._waiting == {1, 2}
    places.leave(2)
    assert given(2) == [4]


def test_a_space_that_ends_ahead_of_the_places_is_over_with_its_last_configuration() -> None:
    space = {RATE: {"grid": [0.01, 0.02, 0.03]}}
    request, ledger = study(space, {"kind": "grid"}), Ledger()
    places = Places(1, frozenset(), all_at_once=False)
    found = LedgerSearch(searcher(request, ()), request, (), places, ledger, left=8, ahead=4)
    for number in range(3):
        first, *others = [found.suggest(f"trial-{k}") for k in range(4)]
        assert isinstance(first, dict)
        assert (first[CONFIGURATION], others) == (number, [None] * 3)
        assert ledger.stored == [0, 1, 2]
        assert found.is_over == (number == 2)
        places.leave(number)
    assert found.suggest("c") == Searcher.FINISHED
