"""What a study holds: places for its trials, each for the most demanding one."""

from typing import Any

import pytest

from service.cluster.base import Capacity, Node
from service.studies.allotment import allotment, of_one_trial, places, without
from tests.studying import new_study, study_spec

CPUS, WORKERS = "/resources/cpus_per_worker", "/resources/workers"
EIGHT_CORES = Capacity((Node(8.0, 0.0, 1 << 33),))


@pytest.mark.parametrize(
    ("resources", "space", "one", "all_places"),
    [
        ({}, {CPUS: {"choice": [1, 3]}}, (1, 3), (2, 3)),
        ({"workers": 2}, {CPUS: {"choice": [1, 2]}}, (2, 2), (4, 2)),
        ({}, {WORKERS: {"grid": [1, 3]}}, (3, 1), (6, 1)),
    ],
)
def test_each_place_is_for_the_most_demanding_trial(
    resources: dict[str, int],
    space: dict[str, Any],
    one: tuple[int, int],
    all_places: tuple[int, int],
) -> None:
    request = new_study(spec=study_spec(resources=resources), space=space, concurrency=2).request
    place, held = of_one_trial(request), allotment(request)
    assert (place.workers, place.cpus_per_worker) == one
    assert (held.workers, held.cpus_per_worker) == all_places
    assert EIGHT_CORES.minus(held) == without(EIGHT_CORES, request, 2)


def test_there_are_as_many_places_as_fit() -> None:
    request = new_study(space={CPUS: {"choice": [1, 3]}}, concurrency=4).request
    assert places(request, EIGHT_CORES) == 2
    assert places(request, Capacity(())) == 0
    pairs = new_study(spec=study_spec(resources={"workers": 2}), concurrency=9).request
    assert places(pairs, EIGHT_CORES) == 4
