import math

import numpy as np
import pytest

from workers.ica.drawn import FAMILIES, MixtureRecipe, draw
from workers.spec.dataset import Family

N = 40_000
# Standard error of the mean square, √((kurtosis − 1)/N); Student's t(3) has no kurtosis
KURTOSIS: dict[Family, float] = {
    "laplace": 6,
    "logistic": 4.2,
    "student-t-5": 9,
    "sparse": 15,
    "exponential": 9,
    "uniform": 1.8,
    "half-and-half": 6,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_sources_have_mean_zero_and_unit_variance(family: Family) -> None:
    sources = draw(MixtureRecipe(2, 2, N, 0.1, sources=family)).sources
    assert np.abs(sources.mean(0)).max() < 6 / math.sqrt(N)
    if family in KURTOSIS:
        error = math.sqrt((KURTOSIS[family] - 1) / N)
        assert np.abs((sources**2).mean(0) - 1).max() < 6 * error


def test_rows_are_the_mixture_with_noise() -> None:
    drawn = draw(MixtureRecipe(6, 3, N, 0.5, seed=4))
    rest = drawn.rows - drawn.sources @ drawn.mixing.T
    assert rest.var() == pytest.approx(0.25, rel=6 * math.sqrt(2 / (6 * N)))
    assert set(np.unique(drawn.mixing)) == {-1.0, 1.0}
    assert drawn.rows.dtype == np.float32


@pytest.mark.parametrize("entries", ["signs", "gaussian"])
def test_mixing_matrices_are_well_conditioned(entries: str) -> None:
    for seed in range(20):
        drawn = draw(MixtureRecipe(10, 5, 2, 0.0, entries, seed=seed))  # type: ignore[arg-type]
        assert np.linalg.cond(drawn.mixing) <= 6


def test_the_seed_determines_everything() -> None:
    one, other = (
        draw(MixtureRecipe(4, 2, 50, 0.1, seed=1)),
        draw(MixtureRecipe(4, 2, 50, 0.1, seed=1)),
    )
    assert np.array_equal(one.rows, other.rows)
    assert not np.array_equal(one.rows, draw(MixtureRecipe(4, 2, 50, 0.1, seed=2)).rows)


def test_more_components_than_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match="at most dimensions"):
        draw(MixtureRecipe(2, 3, 10, 0.1))
