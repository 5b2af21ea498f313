"""The curve of a metric against tuned parameters: a second way, and its coverage."""

import math

import numpy as np
import pytest
from scipy import stats

from service.studies.curve import Array, curve, kernel, levels
from service.studies.ranking import interval


def test_levels_are_means_with_students_interval() -> None:
    found = levels(
        {"laplace": [1.0, 2.0, math.nan, 3.0], "gaussian": [math.nan], "logistic": [4.0]}
    )
    assert list(found) == ["laplace", "logistic"]
    assert found["laplace"] == interval([1.0, 2.0, 3.0])
    assert math.isinf(found["logistic"].high)


def test_the_kernel_is_a_matern_of_five_halves() -> None:
    x = np.array([[0.0, 0.0], [0.3, 0.4]])
    r = math.hypot(0.3 / 0.5, 0.4 / 2.0)
    expected = (1 + math.sqrt(5) * r + 5 * r * r / 3) * math.exp(-math.sqrt(5) * r)
    assert kernel(x, x, np.array([0.5, 2.0])) == pytest.approx(
        np.array([[1, expected], [expected, 1]])
    )


def conditioned(x: Array, y: Array, at: Array, lengths: Array, noise: float) -> tuple[Array, Array]:
    """Mean and variance of f + m at places by the normal's own formulas, m with a wide prior."""
    wide = 1e7
    inner = kernel(x, x, lengths) + wide + np.eye(len(x)) * noise
    across = kernel(at, x, lengths) + wide
    solved = np.linalg.solve(inner, np.column_stack([y, across.T]))
    variance = 1.0 + wide - (across * solved[:, 1:].T).sum(1)
    scale = y @ solved[:, 0] / (len(y) - 1)
    return across @ solved[:, 0], variance * scale


@pytest.mark.parametrize("dimensions", [1, 2])
def test_the_posterior_is_the_conditioned_normal(dimensions: int) -> None:
    generator = np.random.default_rng(5)
    x, at = generator.uniform(size=(20, dimensions)), generator.uniform(size=(7, dimensions))
    y = np.sin(4 * x.sum(1)) + 0.2 * generator.normal(size=20)
    found = curve(x, y, at)
    half = (found.high - found.low) / 2
    deviation = half / stats.t.isf(0.025, 19)
    # The chosen lengths and noise are among those of the grid.
    lengths = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6) if dimensions == 1 else (0.1, 0.25, 0.6, 1.5)
    grid = np.array(np.meshgrid(*[lengths] * dimensions)).reshape(dimensions, -1).T
    fits = [
        conditioned(x, y, at, each, noise)
        for each in grid
        for noise in (1e-6, 1e-3, 1e-2, 0.1, 0.3, 1.0, 10.0)
    ]
    nearest = min(fits, key=lambda fit: float(np.abs(fit[0] - found.mean).max()))
    assert found.mean == pytest.approx(nearest[0], abs=1e-4)
    assert deviation == pytest.approx(np.sqrt(nearest[1]), rel=1e-2)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(7)
    at = np.linspace(0.05, 0.95, 10)[:, None]
    truth = np.cos(5 * at[:, 0])
    repetitions = 60
    covered, widths = 0.0, 0.0
    for _ in range(repetitions):
        x = generator.uniform(size=(30, 1))
        y = np.cos(5 * x[:, 0]) + 0.3 * generator.normal(size=30)
        found = curve(x, y, at)
        covered += float(np.mean((found.low <= truth) & (truth <= found.high))) / repetitions
        widths += float(np.mean(found.high - found.low)) / repetitions
    # Places of one curve err together: as if each curve were one draw.
    assert covered > 0.95 - 6 * math.sqrt(0.05 * 0.95 / repetitions)
    assert widths < 2 * 0.3 * 1.96  # narrower than that of a single result


def test_the_noise_between_trials_is_told_from_the_curve() -> None:
    generator = np.random.default_rng(2)
    x = np.repeat(np.linspace(0, 1, 12), 5)[:, None]
    y = x[:, 0] ** 2 + 0.1 * generator.normal(size=60)
    found = curve(x, y, np.array([[0.5]]))
    assert found.noise == pytest.approx(0.1, rel=0.4)
    assert found.mean[0] == pytest.approx(0.25, abs=0.15)
    flat = curve(x, np.full(60, 3.0), np.array([[0.5]]))
    assert flat.mean[0] == pytest.approx(3.0)
    assert flat.high[0] - flat.low[0] == pytest.approx(0.0, abs=1e-6)


def test_trials_at_one_place_say_how_wide_the_interval_is() -> None:
    """Means on a smooth curve could be a curve without noise, were it not for what they hide."""
    x = np.repeat(np.linspace(0, 1, 8), 10)[:, None]
    deviations = np.tile(np.array([-1.0, 1.0]), 40) * 0.1
    found = curve(x, np.exp(-3 * x[:, 0]) + deviations, x[::10])
    assert found.noise == pytest.approx(0.1, rel=0.4)
    half = (found.high - found.low) / 2
    assert np.all(half > 0.5 * 1.96 * 0.1 / math.sqrt(10))
    assert np.all(half < 2 * 1.96 * 0.1 / math.sqrt(10))


def test_several_at_one_place_count_as_they_would_one_by_one() -> None:
    generator = np.random.default_rng(8)
    x = np.repeat(generator.uniform(size=(6, 1)), 4, axis=0)
    y = np.sin(3 * x[:, 0]) + 0.2 * generator.normal(size=24)
    at = np.linspace(0, 1, 5)[:, None]
    together = curve(x, y, at)
    apart = curve(x + 1e-7 * np.arange(24)[:, None], y, at)
    assert together.mean == pytest.approx(apart.mean, abs=1e-3)
    assert together.high == pytest.approx(apart.high, abs=1e-3)


def test_a_thousand_trials_are_put_together_in_places() -> None:
    generator = np.random.default_rng(4)
    for dimensions in (1, 2):
        x = generator.uniform(size=(1000, dimensions))
        y = x.sum(1) + 0.1 * generator.normal(size=1000)
        y[::7] = math.nan
        found = curve(x, y, np.full((1, dimensions), 0.5))
        assert found.low[0] < 0.5 * dimensions < found.high[0]
        assert found.high[0] - found.low[0] < 0.2


def test_two_places_are_no_curve() -> None:
    x, y = np.array([[0.1], [0.1], [0.9], [0.5]]), np.array([1.0, 2.0, 3.0, math.nan])
    with pytest.raises(ValueError, match="three places"):
        curve(x, y, x)
