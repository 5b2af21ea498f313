"""The figures of appendices E and F.1: closed forms, second ways, and verdicts both ways."""

import math
from collections.abc import Sequence

import pytest
import torch

from workers.divergence import LowRankGaussian, between
from workers.paper import mle_existence, noise_mixture
from workers.paper.base import Asked, Figure, Row
from workers.paper.mle_existence import MLE_EXISTENCE
from workers.paper.noise_mixture import NOISE_MIXTURE


@pytest.fixture(scope="module")
def mixed() -> list[Row]:
    return rows_of(NOISE_MIXTURE)


@pytest.fixture(scope="module")
def ascended() -> list[Row]:
    """In fewer steps than a job takes."""
    found = [*mle_existence._curves(5000, 1, 1)]
    for kind in ("likelihood", "spread"):
        for start in mle_existence._STARTS:
            found += mle_existence._ascent(kind, *start, 1500)
    return [row for row in found if row is not None]


def rows_of(figure: Figure) -> list[Row]:
    parts = figure.parts(Asked())
    assert len({part.name for part in parts}) == len(parts)
    return [row for part in parts for row in part.compute() if isinstance(row, dict)]


def changed(rows: Sequence[Row], kind: str, column: str, by: float) -> list[Row]:
    """The rows of a kind of noise with one column multiplied."""
    return [
        {**row, column: float(row[column]) * by} if row["noise"] == kind else row for row in rows
    ]


def test_noise_mixed_in_holds_and_is_drawn(mixed: list[Row]) -> None:
    assert [verdict.holds for verdict in NOISE_MIXTURE.verdicts(mixed)] == [True, True, True]
    assert NOISE_MIXTURE.draw(mixed).startswith(b"\x89PNG")


def test_other_divergences_of_mixed_noise_are_refuted(mixed: list[Row]) -> None:
    assert noise_mixture.no_slope(changed(mixed, "mixed", "tv", 1 + 1e-9)).holds is False
    assert noise_mixture.no_slope(changed(mixed, "mixed", "kl", 0.0)).holds is False
    assert noise_mixture.is_the_limit(changed(mixed, "widened", "js", 0.99)).holds is False
    flat: list[Row] = [{**row, "js": 0.3} if row["noise"] == "added" else row for row in mixed]
    assert noise_mixture.has_slope(flat).holds is False


def test_widened_atoms_without_other_noise_have_the_divergence_of_gaussians() -> None:
    generator = torch.Generator().manual_seed(0)
    p, q = (
        LowRankGaussian.isotropic(torch.tensor([mean], dtype=torch.float64), 0.3)
        for mean in (0.0, 0.5)
    )
    exact = between("js", p, q, generator=generator).value
    # A share of 1 would leave the densities without a common support far away.
    assert noise_mixture.widened_js(1 - 1e-9, 0.5, 0.3) == pytest.approx(exact, abs=1e-6)


def test_the_existence_of_the_maximum_holds_and_is_drawn(ascended: list[Row]) -> None:
    assert [verdict.holds for verdict in MLE_EXISTENCE.verdicts(ascended)] == [True, True, True]
    assert MLE_EXISTENCE.draw(ascended).startswith(b"\x89PNG")
    assert mle_existence.maximum() == pytest.approx(-math.log(2 * math.pi * 0.25) / 2 - 0.5)


def test_the_spread_likelihood_has_its_maximum_where_the_closed_form_says() -> None:
    def value(mean: float, variance: float) -> float:
        at = torch.tensor([mean, variance], dtype=torch.float64)
        return float(mle_existence.spread_log_likelihood(at[0], at[1]))

    assert value(mle_existence.DATUM, 0.0) == pytest.approx(mle_existence.maximum())
    for mean, variance in ((0.0, 0.0), (0.7, 0.1), (0.8, 0.01), (3.0, 5.0)):
        assert value(mean, variance) < mle_existence.maximum()


def test_likelihoods_of_another_shape_are_refuted(ascended: list[Row]) -> None:
    bounded: list[Row] = [
        {**row, "likelihood": row["spread"]} if row["kind"] == "curve" else row for row in ascended
    ]
    assert mle_existence.unbounded(bounded).holds is False
    above: list[Row] = [
        {**row, "estimate": float(row["estimate"]) + 0.1} if row["kind"] == "curve" else row
        for row in ascended
    ]
    assert mle_existence.is_the_closed_form(above).holds is False
    other = {"likelihood": "spread", "spread": "likelihood"}
    swapped: list[Row] = [
        {**row, "kind": other.get(str(row["kind"]), row["kind"])} for row in ascended
    ]
    assert mle_existence.ascents_arrive(swapped).holds is False
