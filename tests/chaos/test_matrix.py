"""A handful of the kill matrix's cells with fixed seeds: ``make chaos`` runs them all."""

from collections.abc import Iterator

import pytest

from tests.chaos.cells import MATRIX, Cell
from tests.chaos.stage import Stage, stage_of
from tests.chaos.strike import strike

# Each of those that a job hangs on, in the phase in which its loss is the worst.
CELLS = (
    Cell("own", "attempt", "kill", "checkpoint"),
    Cell("own", "service", "kill", "cancelling"),
    Cell("own", "raylet", "kill", "training"),
    Cell("gang", "rank 1", "kill", "training"),
)
SEEDS = (
    0,
    1,
    2,
)  # a busy machine may let a job end before it is hit; then the next seed has its turn


@pytest.fixture(scope="module")
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    with stage_of(request.param) as stage:
        yield stage


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("stage", "cell"), [(cell.setting, cell) for cell in CELLS], indirect=["stage"], ids=str
)
def test_a_strike_loses_nothing_and_leaves_nothing(stage: Stage, cell: Cell) -> None:
    assert cell in MATRIX
    for seed in SEEDS:
        result = strike(stage, cell, seed)
        assert result.faults.sentences() == []
        if not result.missed:
            break
    assert not result.missed, result.ended
