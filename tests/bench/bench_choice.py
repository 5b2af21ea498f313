"""What ASHA costs and finds: replays of a study over a recorded grid of noises.

Nothing is trained here, which takes hours: the runs, their distances and their seconds are those of
``docs/grid.jsonl``, the choices those of the service's own scheduler and ranking. ``docs/noise.md``
says how the runs were made, and has the rest of what they show.
"""

import math
from collections.abc import Iterable, Sequence

from tests.bench.choice.__main__ import GRID
from tests.bench.choice.recording import EPOCHS, Row, rows_of
from tests.bench.choice.replaying import (
    AT_ONCE,
    LEAST_SEEDS,
    NOISES,
    Choice,
    replayed,
    whole_seeds,
)

DATA = "mnist-10k"
BAR = 0.6


def choices_of(rows: Sequence[Row], at_once: int) -> list[Choice]:
    """One replay for each seed of which the grid is whole; raises ValueError for too few."""
    seeds = whole_seeds(DATA, rows)
    if seeds < LEAST_SEEDS:
        raise ValueError(f"the whole grid is there for {seeds} seeds; {LEAST_SEEDS} are needed")
    return [replayed(DATA, rows, seed, seeds, at_once) for seed in range(seeds)]


def main() -> None:
    """Replay, and print the figures beside their bars."""
    rows = rows_of(GRID)
    for at_once in AT_ONCE:
        choices = choices_of(rows, at_once)
        print(
            f"replayed from docs/{GRID.name}, once for each of {len(choices)} seeds, {at_once} at "
            f"one time: {len(NOISES)} noises on {DATA}, {EPOCHS[DATA]} epochs, in a shuffled order"
        )
        _print(choices)


def _print(choices: Sequence[Choice]) -> None:
    count = len(choices)
    for name, shares in (
        ("epochs", [one.epochs for one in choices]),
        ("time, measuring included,", [one.seconds for one in choices]),
    ):
        within = sum(share <= BAR for share in shares)
        print(f"{name} ÷ the whole grid's: {_shares(shares)}; {within} at most {BAR} (bar {BAR})")
    whole = _shares([one.whole for one in choices])
    print(f"the same time with the confirmation on both sides: {whole} (reported)")
    regret, error = (_mean(getattr(one, name) for one in choices) for name in ("regret", "error"))
    within = sum(one.regret <= one.error for one in choices)
    print(
        f"regret of the best on seeds that chose nothing, KID: {regret:.3f}, its standard error "
        f"{error:.3f}; at most one in {within} of {count} (bar 1)"
    )
    holds = sum(one.holds for one in choices)
    print(f"the grid's best not told from its best: {holds} of {count} (bar 9 of 10)")


def _shares(shares: Sequence[float]) -> str:
    return f"{_mean(shares):.3f} ({min(shares):.3f} to {max(shares):.3f})"


def _mean(values: Iterable[float]) -> float:
    found = [*values]
    return math.fsum(found) / len(found)


if __name__ == "__main__":
    main()
