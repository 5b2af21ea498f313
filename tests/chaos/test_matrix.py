"""Two of the kill matrix's cells with fixed seeds: ``make chaos`` runs them all."""

from tests.chaos.cells import MATRIX, Cell
from tests.chaos.stage import stage_of
from tests.chaos.strike import strike

# Those that a gang hangs on, in the phase in which their loss is the worst. A job alone is struck
# in tests/e2e/test_restarts.py: its attempt, its raylet, its service.
CELLS = (
    Cell("gang", "service", "kill", "cancelling"),
    Cell("gang", "rank 1", "kill", "training"),
)
SEEDS = (0, 1, 2)  # on a busy machine a job may end before it is hit: then the next seed's turn


def test_strikes_lose_nothing_and_leave_nothing() -> None:
    with stage_of("gang") as stage:
        for cell in CELLS:
            assert cell in MATRIX
            for seed in SEEDS:
                result = strike(stage, cell, seed)
                assert result.faults.sentences() == [], str(cell)
                if not result.missed:
                    break
            assert not result.missed, f"{cell}: {result.ended}"
