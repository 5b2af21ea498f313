import math

import pytest
import torch

from tests.unit.workers.ica.drawing import Z, mixture
from workers.ica import paper
from workers.ica.priors import Laplace, Priors
from workers.ica.shard import Shard
from workers.ica.steps import em_step
from workers.ica.sums import Model, expect
from workers.parallel import ALONE
from workers.seeds import SeedStream


def test_sigma_follows_the_published_rule() -> None:
    mixing = torch.tensor([[1.0, 2.0], [0.0, 1.0]], dtype=torch.float64)
    assert paper.sigma_of(mixing) == pytest.approx(2.5 * math.sqrt((5 + 2 + 2 + 1) / 4))
    assert paper.sigma_of(torch.zeros(3, 2, dtype=torch.float64)) == 0.001


def test_its_step_is_that_of_ep_up_to_sampling() -> None:
    rows, mixing = mixture(300)
    shard, sigma, repeats = Shard.of(rows), 0.3, 12
    steps = []
    for seed in range(repeats):
        found = paper.step(shard, paper.RecipeState(mixing, sigma, 0), 0.04, 400, seed, ALONE)
        model = Model(mixing, 0.04 + sigma**2, Priors((Laplace(),) * Z))
        at = SeedStream(seed, "ica-paper-0").at(0)
        exact = em_step(expect(shard.spread(sigma, at), model, 20, torch.float64))
        steps.append(found.mixing - exact)
    gap = torch.stack(steps)
    error = gap.std(0) / math.sqrt(repeats)
    # besides chance, self-normalised weights are off by the order of 1/samples
    assert (gap.mean(0).abs() < 6 * error + 1 / 400).all()


def test_it_learns_and_goes_on_from_any_state() -> None:
    rows, truth = mixture(300)
    start = paper.begin(truth + 0.2 * torch.ones_like(truth))
    steps = list(paper.run(rows, start, 0.04, samples=50, iterations=12, truth=truth))
    assert steps[0].errors is not None
    assert steps[-1].errors is not None
    again = list(paper.run(rows, steps[5].recipe, 0.04, samples=50, iterations=12))
    assert len(again) == 6
    assert torch.equal(again[-1].recipe.mixing, steps[-1].recipe.mixing)
    assert steps[-1].recipe.iteration == 12
