"""The replay of studies over a recorded grid: what they cost, and what they find."""

import math

import pytest

from service.studies.presets import REDUCTION_FACTOR
from tests.bench.choice.recording import EPOCHS, KINDS, Row, Rung, wanted
from tests.bench.choice.replaying import METRIC, NOISES, replayed

DATA = "mnist-10k"
LAST = EPOCHS[DATA]
SEEDS = 6


def grid(best: float, early_best: float) -> list[Row]:
    """Distances without noise: up to the last rung another scale may look best."""

    def distance(kind: str, scale: float, epoch: int) -> float:
        centre = best if epoch == LAST else early_best
        return abs(math.log(scale / centre)) + KINDS.index(kind)

    ends = (1, LAST // 3, 2 * LAST // 3, LAST)
    rows = []
    for data, kind, scale, seed in wanted([DATA]):
        rungs = tuple(
            Rung(
                epoch=epoch,
                metrics={METRIC: distance(kind, scale, epoch)},
                train_s=float(epoch - before),
                evaluate_s=0.5,
            )
            for before, epoch in zip((0, *ends), ends, strict=False)
        )
        if seed < SEEDS:
            rows.append(Row(data=data, kind=kind, scale=scale, seed=seed, rungs=rungs))
    return rows


@pytest.mark.parametrize("seed", range(SEEDS))
def test_what_is_best_from_the_first_rung_on_is_found_at_less_than_the_full_cost(seed: int) -> None:
    found = replayed(DATA, grid(0.3, 0.3), seed, SEEDS)
    assert found.best == ("gaussian", 0.3)
    assert (found.regret, found.holds) == (0, True)
    # Every noise has its first third; a few of them, and those that came first, the rest.
    least = (1 + 2 * (len(NOISES) // REDUCTION_FACTOR) / len(NOISES)) / 3
    assert least - 1e-9 <= found.epochs < 1
    assert found.epochs < found.seconds < found.whole < 1


def test_what_looks_worst_at_the_rung_is_missed_and_that_is_seen() -> None:
    rows = grid(1.0, 0.05)
    found = [replayed(DATA, rows, seed, SEEDS) for seed in range(SEEDS)]
    missed = [one for one in found if one.best != ("gaussian", 1.0)]
    assert missed
    assert all(one.regret > 0 for one in missed)
    assert not any(one.holds for one in missed)
