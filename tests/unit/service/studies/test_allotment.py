"""What a study holds: places for its trials, each for the most demanding one."""

from service.cluster.base import Capacity, Node
from service.studies.allotment import allotment, of_one_trial, places, without
from tests.studying import new_study

CPUS = "/resources/cpus_per_worker"
EIGHT_CORES = Capacity((Node(8.0, 0.0, 1 << 33),))


def test_each_place_is_for_the_most_demanding_trial() -> None:
    request = new_study(space={CPUS: {"choice": [1, 3]}}, concurrency=2).request
    assert of_one_trial(request).cpus_per_worker == 3
    held = allotment(request)
    assert (held.workers, held.cpus_per_worker) == (2, 3)
    assert EIGHT_CORES.minus(held) == without(EIGHT_CORES, request, 2)


def test_there_are_as_many_places_as_fit() -> None:
    request = new_study(space={CPUS: {"choice": [1, 3]}}, concurrency=4).request
    assert places(request, EIGHT_CORES) == 2
    assert places(request, Capacity(())) == 0
