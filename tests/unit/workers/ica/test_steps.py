from itertools import pairwise

import pytest
import torch

from tests.unit.workers.ica.drawing import Z, mixture, random
from workers.ica.choosing import GAUSSIAN
from workers.ica.fit import fit
from workers.ica.options import Options
from workers.ica.priors import Laplace, Priors
from workers.ica.results import Fitted, Iteration
from workers.ica.shard import Shard
from workers.ica.steps import em_step, scoring_step
from workers.ica.sums import Model, Sums, expect, log_evidence

LAPLACE = Priors((Laplace(),) * Z)


def look(rows: torch.Tensor, model: Model) -> Sums:
    return expect(Shard.of(rows), model, 30, torch.float64)


@pytest.mark.parametrize(("noise", "sigma"), [(0.04, 0.0), (0.04, 0.7), (0.0001, 0.2)])
def test_plain_em_never_lowers_the_evidence_at_fixed_y_and_sigma(
    noise: float, sigma: float
) -> None:
    rows, mixing = mixture(300)
    shard = Shard.of(rows).spread(sigma, seed=5)
    scatter = shard.scatter()
    model = Model(mixing + 0.3 * random(*mixing.shape), noise + sigma**2, LAPLACE)
    last = -float("inf")
    for _ in range(40):
        sums = expect(shard, model, 30, torch.float64)
        evidence = log_evidence(sums, model, scatter)
        assert evidence > last - 1e-9
        last = evidence
        model = Model(em_step(sums), model.variance, LAPLACE)


def test_one_em_step_of_probabilistic_pca_is_the_golden_number() -> None:
    true = torch.tensor([[2.0], [1.0], [-1.0]], dtype=torch.float64)
    start = torch.tensor([[1.0], [0.5], [0.1]], dtype=torch.float64)
    rows = torch.cat([true.T, -true.T])  # mean 0, mean square θθᵀ
    sums = look(rows, Model(start, 0.8, Priors((GAUSSIAN,))))
    expected = torch.tensor([[1.334773], [0.667387], [-0.667387]], dtype=torch.float64)
    torch.testing.assert_close(em_step(sums), expected, atol=1e-6, rtol=0)
    frozen = look(rows, Model(start, 1e-6, Priors((GAUSSIAN,))))
    projected = (start.T @ true / (start.T @ start)).item()
    # E[z|x] = θ'x/‖θ'‖²: A moves onto the data's line at once, but its length has frozen
    torch.testing.assert_close(em_step(frozen), true / projected, atol=1e-5, rtol=0)


def test_without_noise_a_square_em_step_returns_a_itself() -> None:
    rows = random(500, 3, seed=1) @ random(3, 3, seed=2).T
    mixing = random(3, 3, seed=3)
    sums = look(rows, Model(mixing, 0.0, LAPLACE))
    torch.testing.assert_close(em_step(sums), mixing, atol=1e-12, rtol=1e-12)


def test_em_freezes_as_the_noise_goes_and_the_scoring_step_does_not() -> None:
    em, scoring = [], []
    for noise_std in (0.3, 0.03, 0.003):
        rows, mixing = mixture(600, noise_std)
        start = mixing @ (torch.eye(Z, dtype=torch.float64) + 0.1 * random(Z, Z, seed=6))
        model = Model(start, noise_std**2, LAPLACE)
        sums = look(rows, model)
        em.append((em_step(sums) - start).norm().item())
        scoring.append(scoring_step(sums, model).norm().item())
    assert em[0] > 5 * em[1] > 25 * em[2]
    assert min(scoring) > 0.5 * max(scoring)


def test_the_method_em_yields_a_rising_evidence_and_says_that_it_did_not_converge() -> None:
    rows, _ = mixture(400, 0.05)
    options = Options(Z, 0.0025, Laplace(), start="random", method="em", max_iterations=25)
    events = list(fit(rows, options))
    evidence = [event.log_evidence for event in events if isinstance(event, Iteration)]
    assert len(evidence) == 25
    assert all(b > a - 1e-9 for a, b in pairwise(evidence))
    last = events[-1]
    assert isinstance(last, Fitted)
    assert last.reason == "iteration_limit"
    assert not last.has_converged
