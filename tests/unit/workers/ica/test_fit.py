import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.unit.workers.ica.drawing import X, Z, mixture, random
from workers.ica.align import errors
from workers.ica.choosing import choose
from workers.ica.counting import count_components
from workers.ica.drawn import FAMILIES, MixtureRecipe, draw
from workers.ica.fit import fit, run
from workers.ica.options import Options
from workers.ica.priors import Laplace, logistic, student_t
from workers.ica.problem import Problem
from workers.ica.results import Fitted, Iteration
from workers.ica.sources import infer, reconstruct, sample
from workers.ica.state import State
from workers.spec.dataset import Family

KNOWN = Options(Z, noise_variance=0.04, prior=Laplace())


def iterations(rows: Tensor, options: Options, state: State | None = None) -> list[Iteration]:
    return [e for e in fit(rows, options, state=state) if isinstance(e, Iteration)]


@pytest.mark.parametrize("noise_std", [0.2, 0.01, 0.0])
def test_a_fit_converges_to_less_error_than_fastica(noise_std: float) -> None:
    ours, theirs = [], []
    for seed in range(6):
        rows, truth = mixture(2000, noise_std, seed)
        options = replace(KNOWN, noise_variance=noise_std**2)
        fitted = run(rows, options, truth=truth)
        assert fitted.has_converged
        assert fitted.residual <= 1e-6
        baseline = Problem.of(rows, options).fastica().mixing
        assert fitted.errors is not None
        ours.append(fitted.errors.relative)
        theirs.append(errors(baseline, truth).relative)
    assert np.mean(ours) < np.mean(theirs)


def test_random_starts_all_reach_one_optimum() -> None:
    rows, _ = mixture()
    first = run(rows, KNOWN)
    for seed in range(8):
        fitted = run(rows, replace(KNOWN, start="random", seed=seed))
        assert fitted.has_converged
        assert fitted.log_evidence == pytest.approx(first.log_evidence, abs=1e-9)
        assert errors(fitted.mixing, first.mixing).frobenius < 1e-5


def test_anderson_on_the_em_map_of_spread_data_converges_too() -> None:
    rows, truth = mixture(1000)
    for start in ("fastica", "random"):
        options = replace(KNOWN, outer="anderson", start=start)
        events = list(fit(rows, options, truth=truth))
        fitted = events[-1]
        assert isinstance(fitted, Fitted)
        assert fitted.has_converged
        assert fitted.errors is not None
        assert fitted.errors.angle_degrees < 6
        sigmas = {e.sigma for e in events if isinstance(e, Iteration)}
        assert len(sigmas) == (2 if start == "fastica" else 5)
        assert min(sigmas) > 0


def test_order_and_sign_of_the_start_are_the_order_and_sign_of_the_result() -> None:
    rows, truth = mixture()
    start = truth + 0.1 * random(X, Z)
    flip, order = torch.tensor([-1.0, 1.0, -1.0]).double(), [2, 0, 1]
    one = run(rows, replace(KNOWN, start=start))
    other = run(rows, replace(KNOWN, start=start[:, order] * flip))
    torch.testing.assert_close(other.mixing, one.mixing[:, order] * flip, atol=1e-5, rtol=0)
    assert other.log_evidence == pytest.approx(one.log_evidence, abs=1e-9)


def test_order_and_sign_of_the_dimensions_are_those_of_the_rows_of_a() -> None:
    rows, truth = mixture()
    flip, order = torch.tensor([1.0, -1, 1, 1, -1, -1]).double(), [5, 3, 0, 1, 4, 2]
    one = run(rows, replace(KNOWN, start=truth))
    start = truth[order] * flip[:, None]
    other = run(rows[:, order] * flip, replace(KNOWN, start=start))
    expected = one.mixing[order] * flip[:, None]
    torch.testing.assert_close(other.mixing, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "options",
    [
        replace(KNOWN, prior=None),
        replace(KNOWN, start="random", noise_variance=None),
        replace(KNOWN, outer="anderson", start="random"),
        replace(KNOWN, noise_variance=0.0),
    ],
    ids=["auto", "random-estimated", "spread", "projected"],
)
def test_resuming_anywhere_is_undisturbed_to_the_bit(options: Options) -> None:
    rows, _ = mixture(400)
    undisturbed = list(fit(rows, options))
    steps = [e for e in undisturbed if isinstance(e, Iteration)]
    for at in {0, len(steps) // 3, len(steps) // 2, len(steps) - 2, len(steps) - 1}:
        kept = {name: t.clone() for name, t in steps[at].state.tensors().items()}
        resumed = list(fit(rows, options, state=State.of(kept)))
        assert len(resumed) == len(undisturbed) - at - 1
        for one, other in zip(undisturbed[at + 1 :], resumed, strict=True):
            assert one.log_evidence == other.log_evidence
            assert one.residual == other.residual
            if isinstance(one, Iteration) and isinstance(other, Iteration):
                expected, found = one.state.tensors(), other.state.tensors()
                assert all(torch.equal(expected[name], found[name]) for name in expected)
        last, again = undisturbed[-1], resumed[-1]
        assert isinstance(last, Fitted)
        assert isinstance(again, Fitted)
        assert torch.equal(last.mixing, again.mixing)
        assert (last.priors, last.warnings) == (again.priors, again.warnings)


def test_a_limit_of_iterations_is_said_to_be_the_reason() -> None:
    rows, _ = mixture()
    fitted = run(rows, replace(KNOWN, max_iterations=2, tolerance=1e-12))
    assert fitted.reason == "iteration_limit"
    assert not fitted.has_converged


def test_unknown_noise_is_estimated() -> None:
    samples = 4000
    rows, _ = mixture(samples)
    fitted = run(rows, replace(KNOWN, noise_variance=None))
    assert fitted.has_converged
    # X − Z dimensions hold nothing but noise, so its variance has this standard error at most
    error = 0.04 * math.sqrt(2 / (samples * (X - Z)))
    assert abs(fitted.noise_variance - 0.04) < 6 * error


def test_a_square_mixture_with_unknown_noise_is_taken_as_noise_free_with_a_warning() -> None:
    rows = torch.from_numpy(np.random.default_rng(0).laplace(size=(500, 3)))
    fitted = run(rows, Options(3))
    assert fitted.noise_variance == 0
    assert "noise_not_identified" in fitted.warnings


def test_a_wrong_prior_is_called_wrong() -> None:
    rows, _ = mixture(2000, sources="uniform")
    wrong = run(rows, KNOWN)
    assert "prior_contradicted" in wrong.warnings
    assert wrong.contradicted == (0, 1, 2)
    right = run(rows, replace(KNOWN, prior=None))
    assert right.warnings == ()


def test_contradicted_columns_get_sources_of_unit_posterior_variance() -> None:
    rows, _ = mixture(2000, sources="uniform")
    for rescale, is_unit in (("contradicted", True), ("always", True), ("never", False)):
        fitted = run(rows, replace(KNOWN, rescale=rescale))  # type: ignore[arg-type]
        w = torch.linalg.pinv(fitted.mixing)
        s = (rows - fitted.mean) @ w.T
        variance = s.square().mean(0) - 0.04 * w.square().sum(1)
        assert ((variance - 1).abs() < 0.02).all().item() is is_unit


def test_two_gaussian_sources_are_called_inseparable() -> None:
    _, truth = mixture()
    z = random(2000, Z, seed=9)
    fitted = run(z @ truth.T + 0.2 * random(2000, X, seed=8), replace(KNOWN, prior=None))
    assert "gaussian_sources" in fitted.warnings


@pytest.mark.parametrize("family", FAMILIES)
def test_automatic_priors_are_not_worse_than_fastica_in_any_family(family: Family) -> None:
    ours, theirs = [], []
    for seed in range(4):
        rows, truth = mixture(3000, 0.2, seed, family)
        options = replace(KNOWN, prior=None, max_iterations=60)
        ours.append(errors(run(rows, options).mixing, truth).angle_degrees)
        problem = Problem.of(rows, options)
        theirs.append(
            min(
                errors(problem.fastica("logcosh").mixing, truth).angle_degrees,
                errors(problem.fastica("exp").mixing, truth).angle_degrees,
            )
        )
    assert np.mean(ours) < 1.1 * np.mean(theirs)


def test_a_false_optimum_of_fastica_is_left_by_evidence() -> None:
    drawn = draw(MixtureRecipe(10, 5, 5000, 0.2, "signs", "student-t-3", 5008))
    rows, truth = torch.from_numpy(drawn.rows), torch.from_numpy(drawn.mixing)
    options = Options(5, noise_variance=0.04)
    problem = Problem.of(rows, options)
    stuck = problem.fastica("logcosh")
    assert stuck.has_converged
    assert errors(stuck.mixing, truth).angle_degrees > 10  # two of five sources at 45 degrees
    assert errors(run(rows, options).mixing, truth).angle_degrees < 1.5


def test_the_prior_is_found_from_the_sources() -> None:
    generator = np.random.default_rng(0)
    expected = (Laplace(), logistic(), student_t(3))
    draws = np.stack([prior.sample(20_000, generator) for prior in expected])
    flat = generator.uniform(-math.sqrt(3), math.sqrt(3), size=(1, 20_000))
    sources = torch.from_numpy(np.concatenate([draws, flat]))
    noise = torch.full((4,), 0.01, dtype=torch.float64)
    found = [choice.prior for choice in choose(sources + 0.1 * random(4, 20_000), noise)]
    assert tuple(found[:3]) == expected
    assert found[3].name in ("mixture", "bimodal")


def test_the_number_of_components_is_found_by_held_out_evidence() -> None:
    rows, _ = mixture(2000)
    for noise in (0.04, None):
        count = count_components(rows, replace(KNOWN, noise_variance=noise))
        assert count.components == Z
        assert count.held_out[Z] > count.held_out[Z - 1]
        assert max(count.held_out) == Z + 2


def test_the_number_of_components_without_noise_is_the_rank() -> None:
    rows, _ = mixture(500, 0.0)
    assert count_components(rows, replace(KNOWN, noise_variance=None)).components == Z


def test_sources_reconstruction_and_samples_belong_together() -> None:
    rows, _ = mixture(5000)
    fitted = run(rows, KNOWN)
    sources = infer(rows, fitted)
    assert sources.mean.shape == sources.variance.shape == (5000, Z)
    assert (sources.variance > 0).all()
    rest = rows - reconstruct(sources.mean, fitted)
    # the projection takes Z of X dimensions' noise away
    assert rest.square().mean().item() == pytest.approx(0.04 * (X - Z) / X, rel=0.05)
    draws = torch.from_numpy(sample(fitted, 200_000, seed=3))
    covariance = fitted.mixing @ fitted.mixing.T + 0.04 * torch.eye(X, dtype=torch.float64)
    found = draws.T @ draws / len(draws)
    assert (found - covariance).abs().max() < 6 * 6 * X / math.sqrt(len(draws))
    assert infer(rows[:0], fitted).mean.shape == (0, Z)
