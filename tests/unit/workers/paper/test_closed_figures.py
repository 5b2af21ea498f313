"""Figures whose parts are estimates beside closed forms: their numbers, and verdicts both ways."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from workers.paper import equation12, figure2
from workers.paper.base import Asked, Figure, Part, Row
from workers.paper.equation12 import EQUATION_12
from workers.paper.figure2 import FIGURE_2
from workers.paper.means import chance


def rows_of(parts: Sequence[Part]) -> list[Row]:
    return [row for part in parts for row in part.compute() if isinstance(row, dict)]


def with_(rows: Sequence[Row], column: str, change: float) -> list[Row]:
    """The rows with one column multiplied."""
    return [{**row, column: float(row[column]) * change} if column in row else row for row in rows]


@pytest.fixture(scope="module")
def quick_rows() -> dict[str, list[Row]]:
    return {
        figure.name: rows_of(figure.parts(Asked(repetitions=repetitions)))
        for figure, repetitions in ((EQUATION_12, 20), (FIGURE_2, 1))
    }


@pytest.mark.parametrize("figure", [EQUATION_12, FIGURE_2], ids=lambda figure: figure.name)
def test_a_figure_holds_is_drawn_and_repeats_itself(
    figure: Figure, quick_rows: dict[str, list[Row]]
) -> None:
    rows = quick_rows[figure.name]
    assert [verdict.holds for verdict in figure.verdicts(rows)] == [True] * len(
        figure.verdicts(rows)
    )
    assert figure.draw(rows, {}).startswith(b"\x89PNG")
    first = figure.parts(Asked(repetitions=2))[0]
    assert [*first.compute()] == [*first.compute()]
    names = [part.name for part in figure.parts(Asked(scale="paper"))]
    assert len(set(names)) == len(names)


def test_annealed_em_has_the_golden_errors() -> None:
    errors = {}
    for steps, golden in ((50, 0.141), (500, 0.0068), (5000, 0.0007)):
        (row,) = [row for row in equation12._annealing(steps) if row is not None]
        errors[steps] = float(row["error"])
        assert errors[steps] == pytest.approx(golden, rel=0.03)
    (jump,) = [row for row in equation12._annealing(1) if row is not None]
    assert float(jump["error"]) > 0.4


def test_the_shortfall_of_model_noise_is_the_golden_number() -> None:
    assert 2 * (1 - equation12._shortfall()) == pytest.approx(1.861899, abs=1e-6)


def test_estimators_that_swap_their_parts_are_refuted(quick_rows: dict[str, list[Row]]) -> None:
    other = {"model_noise": "spread", "spread": "model_noise"}
    swapped: list[Row] = [
        {**row, "estimator": other.get(str(row["estimator"]), row["estimator"])}
        for row in quick_rows["eq12"]
    ]
    assert equation12.inconsistent(swapped).holds is False
    assert equation12.consistent(swapped).holds is False


def test_the_closed_form_of_the_spread_error_is_that_of_many_estimates() -> None:
    samples, repetitions = 500, 2000
    rows = [row for row in equation12._estimates(samples, repetitions, 11) if isinstance(row, dict)]
    squares = [samples * float(row["error"]) ** 2 for row in rows if row["estimator"] == "spread"]
    error = float(np.std(squares)) / math.sqrt(repetitions)
    assert float(np.mean(squares)) == pytest.approx(equation12.asymptotic_square(), abs=6 * error)


def test_a_spread_whose_error_is_not_that_of_the_closed_form_is_refuted(
    quick_rows: dict[str, list[Row]],
) -> None:
    assert equation12.consistent(with_(quick_rows["eq12"], "error", 2.0)).holds is False
    stays: list[Row] = [
        {**row, "error": float(row["error"]) * math.sqrt(int(row["samples"]) / 100_000)}
        if row["estimator"] == "spread"
        else row
        for row in quick_rows["eq12"]
    ]
    assert equation12.consistent(stays).holds is False


def test_annealing_that_is_short_or_erratic_heals_nothing(
    quick_rows: dict[str, list[Row]],
) -> None:
    annealed = [row for row in quick_rows["eq12"] if row["estimator"] == "annealed_em"]
    assert equation12.healed(annealed).holds is True
    assert equation12.healed([row for row in annealed if int(row["steps"]) < 500]).holds is False
    assert equation12.healed([*annealed, {**annealed[-1], "error": 0.5}]).holds is False


def test_one_repetition_decides_nothing() -> None:
    rows = rows_of(EQUATION_12.parts(Asked(repetitions=1)))
    assert equation12.inconsistent(rows).holds is None
    assert equation12.consistent(rows).holds is None


@pytest.mark.parametrize("repetitions", [2, 3, 5])
def test_few_repetitions_refute_nothing(repetitions: int) -> None:
    for seed in range(8):
        rows: list[Row] = [
            row
            for samples in (30, 300, 3000, 30_000)
            for row in equation12._estimates(samples, repetitions, 100 * seed + samples)
            if isinstance(row, dict)
        ]
        assert equation12.inconsistent(rows).holds is not False
        assert equation12.consistent(rows).holds is None


def test_what_chance_allows_is_the_quantile_of_draws() -> None:
    sigmas, count = 2.0, 7
    drawn = np.random.Generator(np.random.PCG64(1)).standard_normal((20_000, count))
    means = (drawn**2).mean(1)
    low, high = chance(count, sigmas)
    tail = (1 - math.erf(sigmas / math.sqrt(2))) / 2
    error = 6 * math.sqrt(tail / len(means))
    assert np.mean(means < low) == pytest.approx(tail, abs=error)
    assert np.mean(means > high) == pytest.approx(tail, abs=error)


def test_spread_deltas_have_the_golden_divergences(quick_rows: dict[str, list[Row]]) -> None:
    at_one = {
        str(row["noise"]): float(row["exact"]) for row in quick_rows["2"] if row["mu_q"] == 1.0
    }
    assert at_one["gaussian"] == pytest.approx(1.0)
    t = 1 / math.sqrt(figure2.VARIANCE / 2)
    assert at_one["laplace"] == pytest.approx(t + math.exp(-t) - 1)


@pytest.mark.parametrize("noise", ["gaussian", "laplace"])
def test_wrong_estimates_and_flat_ones_are_refuted(
    noise: str, quick_rows: dict[str, list[Row]]
) -> None:
    rows = [row for row in quick_rows["2"] if row["noise"] == noise]
    assert figure2.agrees(noise, with_(rows, "estimate", 1.1)).holds is False
    flat: list[Row] = [{**row, "estimate": 1.0} for row in rows]
    assert figure2.has_slope(noise, flat).holds is False
