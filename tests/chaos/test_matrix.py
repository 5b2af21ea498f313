"""A handful of the kill matrix's cells with fixed seeds: ``make chaos`` runs them all."""

import pytest

from tests.chaos.cells import MATRIX, Cell, Setting
from tests.chaos.stage import stage_of
from tests.chaos.strike import strike

# Each of those that a job hangs on, in the phase in which its loss is the worst.
CELLS: dict[Setting, tuple[Cell, ...]] = {
    "own": (
        Cell("own", "attempt", "kill", "checkpoint"),
        Cell("own", "service", "kill", "cancelling"),
        Cell("own", "raylet", "kill", "training"),
    ),
    "gang": (Cell("gang", "rank 1", "kill", "training"),),
}
SEEDS = (0, 1, 2)  # on a busy machine a job may end before it is hit: then the next seed's turn


@pytest.mark.parametrize("setting", CELLS)
def test_strikes_lose_nothing_and_leave_nothing(setting: Setting) -> None:
    with stage_of(setting) as stage:
        for cell in CELLS[setting]:
            assert cell in MATRIX
            for seed in SEEDS:
                result = strike(stage, cell, seed)
                assert result.faults.sentences() == [], str(cell)
                if not result.missed:
                    break
            assert not result.missed, f"{cell}: {result.ended}"
