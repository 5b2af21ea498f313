"""Figure 3 and the efficiency of appendix F: closed forms, second ways, and verdicts both ways."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from workers.ica.priors import Laplace
from workers.paper import efficiency, figure3
from workers.paper.base import Asked, Row
from workers.paper.efficiency import EFFICIENCY
from workers.paper.figure3 import FIGURE_3


@pytest.fixture(scope="module")
def directions() -> list[Row]:
    """Figure 3 with a few learned directions of each kind, from 45° and 135°, in few steps."""
    rows: list[Row] = []
    for distance in figure3.DISTANCES:
        rows += [row for row in figure3._curves(distance) if row is not None]
        for objective in figure3._OBJECTIVES:
            for repetition in range(5 if objective == "kl" else 2):
                learned = figure3._learned(distance, objective, repetition, 120, repetition)
                rows += [row for row in learned if row is not None]
    return rows


@pytest.fixture(scope="module")
def variances() -> list[Row]:
    return [
        row
        for family in efficiency._FAMILIES
        for sigma in (0.1, 2.0)
        for row in efficiency._variances(family, sigma, 100, 200, 1)
        if row is not None
    ]


def test_the_exact_curves_have_the_golden_numbers(directions: list[Row]) -> None:
    exact = {
        (float(row["distance"]), round(float(row["angle"]))): row
        for row in directions
        if row["kind"] == "exact"
    }
    assert float(exact[1.0, 0]["kl"]) == pytest.approx(2.0)
    assert float(exact[1.0, 90]["kl"]) == pytest.approx(0.4)
    assert float(exact[0.3, 0]["kl"]) == pytest.approx(0.18)
    assert float(exact[0.3, 90]["kl"]) == pytest.approx(0.036)
    # Golden 4b leaves out what does not depend on u.
    constant = math.log(2 * math.pi * math.e) + math.log(0.3125) / 2
    for angle, golden in ((0, 0.474), (90, 0.841)):
        value = float(exact[0.3, angle]["cross_entropy"]) - constant
        assert value == pytest.approx(golden, abs=5e-4)
    assert figure3._values(1.0, 45.0)["kl"] == pytest.approx(0.823529, abs=1e-6)


def test_learned_directions_hold_and_are_drawn(directions: list[Row]) -> None:
    assert [verdict.holds for verdict in FIGURE_3.verdicts(directions)] == [True, True, True]
    assert FIGURE_3.draw(directions).startswith(b"\x89PNG")
    names = [part.name for part in FIGURE_3.parts(Asked(repetitions=2))]
    assert len(set(names)) == len(names) == 10


def test_a_direction_that_another_objective_found_is_refuted(directions: list[Row]) -> None:
    other = {"kl": "cross_entropy", "cross_entropy": "kl", "exact": "exact"}
    swapped: list[Row] = [{**row, "kind": other[str(row["kind"])]} for row in directions]
    near = [row for row in swapped if row["distance"] == 0.3]
    assert figure3.finds_the_best(near).holds is False
    assert figure3.misleads(near).holds is False
    assert figure3.misleads([row for row in directions if row["distance"] == 1.0]).holds is False


def test_one_learned_direction_decides_nothing(directions: list[Row]) -> None:
    single = [row for row in directions if row["repetition"] in (-1, 0) and row["distance"] == 0.3]
    assert figure3.finds_the_best(single).holds is None


def test_two_learned_directions_refute_nothing(directions: list[Row]) -> None:
    exact = [row for row in directions if row["kind"] == "exact" and row["distance"] == 1.0]
    # Both less than a degree off by chance, on the same side, as every second pair is.
    learned: list[Row] = [
        {"kind": "kl", "step": 400, **figure3._values(1.0, angle)} for angle in (0.5, 0.6)
    ]
    assert figure3.finds_the_best([*exact, *learned]).holds is None


def test_the_summary_says_how_far_each_is_from_its_own_exact_direction(
    directions: list[Row],
) -> None:
    found = FIGURE_3.summary(directions)["directions"]
    [misled] = [one for one in found if one["exact_angle_degrees"] == 90]
    assert misled["objective"] == "cross_entropy"
    for one in found:
        from_exact = one["learned_from_exact_degrees"]
        assert abs(from_exact["mean"]) < 5
        assert from_exact["standard_error"] < 5


def test_gaussian_variances_are_exact() -> None:
    for sigma in efficiency.SIGMAS:
        drawn, integrated = efficiency.scores("gaussian", sigma)
        assert drawn.variance == pytest.approx(1 + sigma**2, rel=1e-6)
        assert integrated.variance == pytest.approx(1.0, rel=1e-6)


def test_laplace_variances_lie_between_the_bound_and_that_of_the_mean() -> None:
    narrow, wide = (efficiency.scores("laplace", sigma)[1].variance for sigma in (0.02, 20.0))
    assert 0.5 < narrow < 0.56
    assert wide == pytest.approx(1.0, abs=0.02)
    for sigma in efficiency.SIGMAS:
        drawn, integrated = efficiency.scores("laplace", sigma)
        assert 0.5 < integrated.variance < drawn.variance


def test_the_estimate_over_all_noise_on_gaussian_data_is_the_mean() -> None:
    rows = np.random.Generator(np.random.PCG64(3)).standard_normal((5, 30))
    score = efficiency.scores("gaussian", 0.5)[1]
    np.testing.assert_allclose(efficiency.solve(score, rows), rows.mean(1), atol=1e-6)


def test_the_estimate_of_one_draw_is_the_maximum_of_the_likelihood() -> None:
    rows = np.random.Generator(np.random.PCG64(4)).laplace(size=(1, 50))
    (theta,) = efficiency.solve(efficiency.scores("laplace", 0.5)[0], rows)
    at = theta + np.linspace(-0.2, 0.2, 401)
    y = torch.from_numpy(rows - at[:, None])
    tilted = Laplace().tilted(y, torch.full_like(y, 0.25))
    assert int(tilted.log_z.sum(1).argmax()) == 200


def test_a_finite_number_of_laplace_data_adds_what_the_median_has() -> None:
    for middle in (500, 5000):
        n = 2 * middle + 1
        # F of the median is Beta(m + 1, m + 1), F⁻¹(u) = −log(1 − |2u − 1|)/√2 but for its sign.
        u = np.linspace(0.3, 0.7, 200_001)
        square = (np.log1p(-np.abs(2 * u - 1)) ** 2) / 2
        second = float(np.trapezoid(square * stats.beta.pdf(u, middle + 1, middle + 1), u))
        added = 2 * n * second - 1
        # The next term is of order 1/N.
        expected = efficiency.finite_share("laplace") / math.sqrt(n)
        assert added == pytest.approx(expected, abs=4 / n)


def test_variances_hold_and_are_drawn(variances: list[Row]) -> None:
    assert [verdict.holds for verdict in EFFICIENCY.verdicts(variances)] == [True, True, True]
    assert EFFICIENCY.draw(variances).startswith(b"\x89PNG")


def test_one_repetition_decides_nothing_of_variances() -> None:
    rows = [
        row
        for family in efficiency._FAMILIES
        for sigma in (0.1, 2.0)
        for row in efficiency._variances(family, sigma, 100, 1, 1)
        if row is not None
    ]
    assert all(row["standard_error"] == 0 for row in rows)
    assert [verdict.holds for verdict in EFFICIENCY.verdicts(rows)] == [None, None, None]
    assert EFFICIENCY.draw(rows).startswith(b"\x89PNG")


def test_few_repetitions_refute_nothing_of_variances(variances: list[Row]) -> None:
    generator = np.random.Generator(np.random.PCG64(5))
    for _ in range(100):
        few: list[Row] = []
        for row in variances:
            squares = float(row["expected"]) * generator.standard_normal(5) ** 2
            few.append(
                {
                    **row,
                    "repetitions": 5,
                    "relative_variance": float(squares.mean()),
                    "standard_error": float(squares.std(ddof=1) / math.sqrt(5)),
                }
            )
        assert [verdict.holds for verdict in EFFICIENCY.verdicts(few)] == [None, None, None]


def test_other_variances_are_refuted(variances: list[Row]) -> None:
    def scaled(by: float) -> list[Row]:
        return [
            {**row, "relative_variance": float(row["relative_variance"]) * by} for row in variances
        ]

    assert efficiency.follows_theory(scaled(2.5)).holds is False
    assert efficiency.above_the_bound(scaled(0.3)).holds is False
    assert efficiency.efficient_without_noise(scaled(2.5)).holds is False
    assert efficiency.efficient_without_noise(scaled(0.2)).holds is False
