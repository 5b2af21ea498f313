import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch

from service.errors import NotReady
from service.generators import LOADS_AT_ONCE, GeneratorCache
from tests.contract.jobstore.making import together
from tests.unit.service.trained import vector_spec
from workers.build import empty_model
from workers.checkpoint import DatasetFacts, Description
from workers.decoding import Networks
from workers.errors import CheckpointError
from workers.generate import Generator


def generator() -> Generator:
    """A generator with the weights that it was born with."""
    spec = vector_spec()
    random = torch.Generator().manual_seed(0)
    facts = DatasetFacts(name="two-moons", digest="", shape=(2,), is_image=False)
    description = Description(spec=spec, dataset=facts, step=0, epoch=0.0)
    model = empty_model(spec, (2,), is_image=False, generator=random)
    return Generator(description, Networks(spec, 0.0, model))


class Loads:
    """Counts how often something was loaded."""

    def __init__(self, pause_s: float = 0.0) -> None:
        self.count = 0
        self._pause_s = pause_s

    def __call__(self) -> Generator:
        self.count += 1
        time.sleep(self._pause_s)
        return generator()


def test_what_is_ready_is_not_loaded_again() -> None:
    cache, load = GeneratorCache(100), Loads()
    assert cache.get("a", 60, load) is cache.get("a", 60, load)
    assert load.count == 1


def test_many_that_miss_together_load_once() -> None:
    cache, load = GeneratorCache(100), Loads(pause_s=0.05)
    outcomes = together([partial(cache.get, "a", 60, load)] * 8)
    assert load.count == 1
    assert len({id(outcome) for outcome in outcomes}) == 1


def test_a_slow_load_holds_up_no_other_key() -> None:
    cache, inner = GeneratorCache(100), Loads()

    def slow() -> Generator:
        # Would wait for itself for ever if one lock stood for all keys.
        [outcome] = together([partial(cache.get, "b", 10, inner)])
        assert isinstance(outcome, Generator)
        return generator()

    cache.get("a", 10, slow)
    assert inner.count == 1


def test_the_least_recently_used_makes_room() -> None:
    cache = GeneratorCache(100)
    loads: dict[str, Loads] = {name: Loads() for name in "abc"}

    def get(name: str) -> None:
        cache.get(name, 40, loads[name])

    for name in "abacab":
        get(name)
    # c took the place of b, which was used before a; b was loaded again in place of c.
    assert {name: load.count for name, load in loads.items()} == {"a": 1, "b": 2, "c": 1}
    get("c")
    assert loads["c"].count == 2


def test_one_that_is_larger_than_the_cache_is_served_but_not_kept() -> None:
    cache, small, large = GeneratorCache(100), Loads(), Loads()
    cache.get("small", 50, small)
    for _ in range(2):
        cache.get("large", 101, large)
    cache.get("small", 50, small)
    assert (small.count, large.count) == (1, 2)


def test_a_load_that_fails_is_tried_again_by_the_next() -> None:
    cache, load = GeneratorCache(100), Loads()

    def fails() -> Generator:
        raise CheckpointError

    for _ in range(2):
        with pytest.raises(CheckpointError):
            cache.get("a", 10, fails)
    works: list[Callable[[], Generator]] = [partial(cache.get, "a", 10, load)]
    assert isinstance(together(works)[0], Generator)


def test_what_is_forgotten_is_loaded_again() -> None:
    cache, load = GeneratorCache(100), Loads()
    for key in ("jobs/a/1", "jobs/a/2", "jobs/ab/1"):
        cache.get(key, 10, load)
    cache.forget("jobs/a")
    cache.get("jobs/ab/1", 10, load)
    assert load.count == 3
    cache.get("jobs/a/1", 10, load)
    assert load.count == 4


def test_what_is_forgotten_while_it_loads_is_not_kept() -> None:
    cache, load = GeneratorCache(100), Loads()

    def forgetting() -> Generator:
        cache.forget("jobs/a")
        return load()

    assert isinstance(cache.get("jobs/a/1", 10, forgetting), Generator)
    cache.get("jobs/a/1", 10, load)
    assert load.count == 2


def test_who_waits_for_a_load_does_so_for_a_while_only() -> None:
    cache = GeneratorCache(100, patience_s=0.01)
    loading, let_go = [threading.Event() for _ in range(LOADS_AT_ONCE)], threading.Event()

    def slow(number: int) -> Generator:
        loading[number].set()
        assert let_go.wait(30)
        return generator()

    with ThreadPoolExecutor(LOADS_AT_ONCE) as pool:
        slow_ones = [
            pool.submit(cache.get, str(number), 10, partial(slow, number))
            for number in range(LOADS_AT_ONCE)
        ]
        try:
            assert all(begun.wait(30) for begun in loading)
            with pytest.raises(NotReady, match="still being loaded; try again"):
                cache.get("0", 10, generator)
            with pytest.raises(NotReady, match="other checkpoints"):
                cache.get("new", 10, generator)
        finally:
            let_go.set()
        loaded = slow_ones[0].result()
    assert cache.get("0", 10, generator) is loaded
    cache.get("new", 10, generator)
