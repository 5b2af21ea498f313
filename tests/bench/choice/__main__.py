"""ASHA on a recorded grid of noises, replayed with every seed: cost, regret, the set it reports.

``python -m tests.bench.choice [GRID.jsonl]``; ``python -m tests.bench.choice.recording`` makes the
file.
"""

import argparse
from pathlib import Path

from tests.bench.choice.recording import EPOCHS, rows_of
from tests.bench.choice.replaying import FRESH, NOISES, replayed

GRID = Path(__file__).parents[3] / "docs" / "grid.jsonl"


def main() -> None:
    """Print a line a study, and the bars."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("grid", type=Path, nargs="?", default=GRID)
    rows = rows_of(parser.parse_args().grid)
    for data in EPOCHS:
        seeds = 0
        while len([r for r in rows if (r.data, r.seed) == (data, seeds)]) == len(NOISES):
            seeds += 1
        if seeds <= FRESH:
            print(f"{data}: {seeds} whole seeds are recorded; {FRESH + 1} are needed")
            continue
        found = [replayed(data, rows, seed, seeds) for seed in range(seeds)]
        print(f"{data}: epochs and seconds ÷ full grid, the same with confirmation, regret,")
        print("standard error of the seed difference, the set reported, whether it has the best")
        for seed, one in enumerate(found):
            print(
                f"{seed:3} {one.best[0]:9}{one.best[1]:6g}{one.epochs:7.2f}{one.seconds:7.2f}"
                f"{one.whole:7.2f}{one.regret:10.4f}{one.error:9.4f}{one.like:4} {one.holds}"
            )
        count = len(found)
        within = sum(one.regret <= one.error for one in found)
        print(
            f"mean epochs {sum(o.epochs for o in found) / count:.3f}, seconds"
            f" {sum(o.seconds for o in found) / count:.3f} (bar 0.6); regret within one standard"
            f" error {within} of {count}; the set has the grid's best in"
            f" {sum(o.holds for o in found)} of {count} (bar 9 of 10)"
        )


if __name__ == "__main__":
    main()
