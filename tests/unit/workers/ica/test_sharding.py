"""Two workers, here two threads over real connections, against one."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest
import torch

from tests.unit.workers.ica.drawing import Z, mixture
from workers.ica import paper
from workers.ica.fit import run
from workers.ica.options import Options
from workers.ica.priors import Laplace, Priors
from workers.ica.shard import Shard
from workers.ica.sums import Model, expect
from workers.parallel import Peers, join

T = TypeVar("T")
CUTS = (0, 333, 2500)  # nothing that chunks or blocks of noise would end at


def together(folder: Path, work: Callable[[Peers], T]) -> list[T]:
    """What each of two workers returns."""

    def one(rank: int) -> T:
        with join(rank, 2, f"file://{folder}/meeting", host="127.0.0.1") as peers:
            return work(peers)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, range(2)))


def test_shards_sum_to_the_whole(tmp_path: Path) -> None:
    rows, mixing = mixture(CUTS[-1])
    model = Model(mixing, 0.29, Priors((Laplace(),) * Z))

    def work(peers: Peers) -> torch.Tensor:
        mine = rows[CUTS[peers.rank] : CUTS[peers.rank + 1]]
        shard = Shard.of(mine, peers).spread(0.5, seed=3)
        return expect(shard, model, 2, torch.float64, peers).score

    parts = together(tmp_path, work)
    whole = expect(Shard.of(rows).spread(0.5, seed=3), model, 2, torch.float64).score
    assert torch.equal(*parts)
    torch.testing.assert_close(parts[0], whole, atol=1e-13, rtol=1e-13)


@pytest.mark.parametrize(
    "options",
    [
        Options(Z, 0.04, Laplace()),
        Options(Z, None, None, start="random"),
        Options(Z, 0.04, Laplace(), outer="anderson"),
        Options(Z, 0.0, Laplace()),
    ],
    ids=["fastica", "random-auto", "spread", "projected"],
)
def test_a_sharded_fit_is_the_whole_fit_to_rounding(tmp_path: Path, options: Options) -> None:
    rows, _ = mixture(CUTS[-1], 0.0 if options.noise_variance == 0 else 0.2)

    def work(peers: Peers) -> torch.Tensor:
        return run(rows[CUTS[peers.rank] : CUTS[peers.rank + 1]], options, peers=peers).mixing

    parts = together(tmp_path, work)
    whole = run(rows, options).mixing
    assert torch.equal(*parts)
    # float32 sums of the search differ in their last digits, and the tolerance bounds what is left
    torch.testing.assert_close(parts[0], whole, atol=2e-5, rtol=0)


def test_the_sharded_recipe_is_the_whole_recipe(tmp_path: Path) -> None:
    rows, mixing = mixture(CUTS[-1])

    def work(peers: Peers) -> torch.Tensor:
        mine = rows[CUTS[peers.rank] : CUTS[peers.rank + 1]]
        steps = paper.run(mine, paper.begin(mixing), 0.04, samples=5, iterations=2, peers=peers)
        return list(steps)[-1].recipe.mixing

    parts = together(tmp_path, work)
    steps = paper.run(rows, paper.begin(mixing), 0.04, samples=5, iterations=2)
    whole = list(steps)[-1].recipe.mixing
    assert torch.equal(*parts)
    torch.testing.assert_close(parts[0], whole, atol=1e-4, rtol=0)


def test_thinned_rows_are_spread_over_all_data() -> None:
    rows = torch.arange(100.0).view(-1, 1)
    some = Shard.of(rows).thinned(10)
    assert some.rows.flatten().tolist() == [10.0 * i for i in range(10)]
    assert some.total == 10
    assert math.isclose(some.mean.item(), 49.5)
