"""A recorded grid of noises: the study's curves, and what ASHA makes of it, seed by seed.

``python -m tests.bench.choice.recording OUT.jsonl`` makes the file, in hours. ``python -m
tests.bench.choice [GRID.jsonl]`` prints what it shows; with ``--into docs/noise.md`` the page is
written anew, and the pictures beside it.
"""

import argparse
from pathlib import Path

from tests.bench.choice.page import pictures, tables
from tests.bench.choice.recording import rows_of
from tests.bench.measured.page import written_into

GRID = Path(__file__).parents[3] / "docs" / "grid.jsonl"


def main() -> None:
    """Print the tables, or put them into a page."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.choice", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("grid", type=Path, nargs="?", default=GRID)
    parser.add_argument("--into", type=Path, help="the page that is to be written anew")
    asked = parser.parse_args()
    rows = rows_of(asked.grid)
    if asked.into is None:
        print(tables(rows))
        return
    asked.into.write_text(written_into(asked.into.read_text(), tables(rows)))
    for name, png in pictures(rows).items():
        (asked.into.parent / name).write_bytes(png)


if __name__ == "__main__":
    main()
