"""How workers are packed onto nodes."""

import pytest

from service.cluster.base import Capacity, Node
from workers.spec import Resources

GB = 10**9


def capacity(*nodes: tuple[float, float, int]) -> Capacity:
    return Capacity(tuple(Node(*node) for node in nodes))


@pytest.mark.parametrize(
    ("nodes", "asked", "places"),
    [
        ([(4, 0, GB)], {}, 4),
        ([(4, 0, GB)], {"cpus_per_worker": 3}, 1),
        ([(3, 0, GB), (3, 0, GB)], {"cpus_per_worker": 2}, 2),  # six cores, and not three places
        ([(8, 2, GB), (8, 0, GB)], {"gpus_per_worker": 1}, 2),
        ([(2, 8, GB)], {"cpus_per_worker": 2, "gpus_per_worker": 1}, 1),
        ([(0.5, 0, GB)], {}, 0),
        ([(-1, 0, GB), (2, 0, GB)], {}, 2),
        ([], {}, 0),
    ],
)
def test_places_are_counted_node_by_node(
    nodes: list[tuple[float, float, int]], asked: dict[str, int], places: int
) -> None:
    having = capacity(*nodes)
    assert having.places(Resources(**asked)) == places
    if places:
        assert having.fits(Resources(workers=places, **asked))
    assert not having.fits(Resources(workers=places + 1, **asked))


def test_memory_bounds_the_places_where_it_is_asked_for() -> None:
    having = capacity((8, 0, 10 * GB), (8, 0, 4 * GB))
    assert having.places(Resources(), 3 * GB) == 3 + 1
    assert having.places(Resources(), 11 * GB) == 0


def test_what_is_taken_is_missing_on_the_fullest_node_that_had_room() -> None:
    having = capacity((4, 0, GB), (2, 0, GB))
    left = having.minus(Resources(workers=2))
    assert [node.cpus for node in left.nodes] == [4, 0]
    assert left.fits(Resources(cpus_per_worker=4))
    left = having.minus(Resources(cpus_per_worker=3)).minus(Resources(workers=3))
    assert [node.cpus for node in left.nodes] == [0, 0]


def test_cpu_work_is_guessed_to_be_where_there_are_no_gpus() -> None:
    left = capacity((2, 4, GB), (2, 0, GB)).minus(Resources(workers=2))
    assert left.fits(Resources(workers=2, gpus_per_worker=2))


def test_what_has_no_room_is_missing_all_the_same() -> None:
    """Two nodes whose free cores were guessed wrong never look like free ones."""
    left = capacity((1, 0, GB), (1, 0, GB)).minus(Resources(cpus_per_worker=2))
    assert left.cpus == 0
    assert left.minus(Resources(workers=3)).places(Resources()) == 0
    assert capacity().minus(Resources()).nodes == ()
